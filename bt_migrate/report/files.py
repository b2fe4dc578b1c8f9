"""The names of the files that a report is written to."""

from __future__ import annotations

REPORT_FILE = "migration_report.json"
SUMMARY_FILE = "migration_summary.txt"
HTML_FILE = "report.html"
FINDINGS_FILE = "findings.jsonl"
