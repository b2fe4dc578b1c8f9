"""Whether what is open in a report was kept as it is, so that a person may accept it."""

from __future__ import annotations

from typing import Any, Mapping, Set

from bt_migrate.model.outcomes import CREATED, DIFFERS, UPDATED
from bt_migrate.report.refused import ROWS_DIFFER
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.wrong_attachments import read_wrong

# the comparison's word for what only the destination has
EXTRA = "extra"


def is_acceptable(run: RunDirectory, report: Mapping[str, Any]) -> bool:
    """Whether the only problems are objects and rows that exist with other content and were kept.

    Differences that only the comparison found count too in a sync, which does not read again what
    only the destination changed, and in a copy that found everything there.
    """
    # Attachments that are still wrong were uploaded again.
    repeats = run.record.round or _found_all(report) or bool(read_wrong(run))
    is_kept = report["problems"] or report["failed"] or (repeats and compared(report))
    return bool(is_kept) and only_kept(report) and compared(report) <= {DIFFERS, EXTRA}


def _found_all(report: Mapping[str, Any]) -> bool:
    """Whether the run wrote nothing, so that it would find the same if it is repeated."""
    totals = report.get("totals", {})
    return bool(totals) and not {CREATED, UPDATED} & {*totals["objects"], *totals["rows"]}


def only_kept(report: Mapping[str, Any]) -> bool:
    """Whether nothing failed: objects and rows with other content were left alone."""
    outcomes = {problem["outcome"] for problem in report["problems"]}
    return outcomes <= {DIFFERS} and {line["kind"] for line in report["failed"]} <= {ROWS_DIFFER}


def compared(report: Mapping[str, Any]) -> Set[str]:
    """Returns the outcomes of the comparison for what is not equal."""
    return {item["outcome"] for item in (report["verification"] or {}).get("differences", [])}
