"""Writes the report, the summary, the findings and the page into the run directory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping

from bt_migrate.report.files import FINDINGS_FILE, HTML_FILE, REPORT_FILE, SUMMARY_FILE
from bt_migrate.report.html import app_url, page_html
from bt_migrate.report.summary import summary_text
from bt_migrate.state.files import cannot_write, write_json
from bt_migrate.state.run_directory import RunDirectory


def write_report(run: RunDirectory, report: Dict[str, Any], app_urls: Mapping[str, str]) -> None:
    """Write report, summary, findings and page. Raises StateError."""
    write_json(run.path / REPORT_FILE, report)
    _write_private(run.path / SUMMARY_FILE, summary_text(report))
    _write_private(
        run.path / FINDINGS_FILE,
        "".join(json.dumps(finding) + "\n" for finding in report["findings"]),
    )
    write_html(run, report, app_urls)


def write_html(run: RunDirectory, report: Mapping[str, Any], app_urls: Mapping[str, str]) -> Path:
    """Write report.html and return its path. Raises StateError."""
    urls = {side: app_url(report[side]["url"], app_urls[side]) for side in app_urls}
    path = run.path / HTML_FILE
    _write_private(path, page_html(run, report, urls))
    return path


def _write_private(path: Path, text: str) -> None:
    """Raises StateError."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        raise cannot_write(path, error) from None
