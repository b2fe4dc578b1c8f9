"""Which kinds of objects a run lacks, although references or rows need them: see its report."""

from __future__ import annotations

import re
from typing import Any, List, Mapping

from bt_migrate.errors import RIGHT_REFUSED
from bt_migrate.model.findings import LIST_REFUSED, NOT_LISTED, TARGET_LIST_REFUSED
from bt_migrate.model.resources import NAMED_BY_ROWS, SELECTABLE

# the error of a list that a key may not read
FORBIDDEN = re.compile(rf"was answered (403|400\b.*({RIGHT_REFUSED.pattern}))", re.IGNORECASE)
STREAM_FAILED = "stream_failed"
UNRESOLVED = "unresolved_reference"
WAITS = "waits"
DELETED_THERE = "deleted_there"


def unreadable_kinds_needed(report: Mapping[str, Any]) -> List[str]:
    """Returns the resources that a key may not list, and that rows or references wait for."""
    findings = report.get("findings", ())
    targets = [item.get("detail", "") for item in findings if item["kind"] == TARGET_LIST_REFUSED]
    names = {name for name in SELECTABLE if any(text.startswith(name) for text in targets)}
    if STREAM_FAILED in {line["kind"] for line in report["failed"]}:
        names |= {resource.name for resource in NAMED_BY_ROWS}.intersection(SELECTABLE)
    return sorted(
        {
            record["resource"]
            for record in findings
            if record["kind"] in (LIST_REFUSED, NOT_LISTED)
            and record["resource"] in names
            and FORBIDDEN.search(record.get("detail", ""))
        }
    )


def deleted_kinds_needed(report: Mapping[str, Any]) -> List[str]:
    """Returns the resources of objects that a person deleted in the destination, if references wait
    for them: they are not created again by themselves.
    """
    findings = report.get("findings", ())
    deleted = {item["id"]: item["resource"] for item in findings if item["kind"] == DELETED_THERE}
    needed = {item.get("ref") for item in findings if item["kind"] in (UNRESOLVED, WAITS)}
    return sorted({*deleted.values()}) if needed & deleted.keys() else []
