"""Counts of a report and of an organization, and where they do not add up."""

from __future__ import annotations

from typing import Any, Dict, List

from tests.support.compare_orgs import NATURAL_KEYS

ROW_KINDS = ("datasets", "experiments", "logs")


def sums(told: Dict[str, Any]) -> List[str]:
    """Where a report's numbers do not add up; objects and rows are counted apart."""
    wrong = []
    for entry in told["objects"]:
        if sum(entry["outcomes"].values()) != entry["listed"]:
            wrong.append(
                f"{entry['resource']} of {entry['project']!r}: {entry['outcomes']} of "
                f"{entry['listed']}"
            )
        if sum(entry["skipped_by_reason"].values()) != entry["outcomes"].get("skipped", 0):
            wrong.append(
                f"{entry['resource']} of {entry['project']!r}: skipped for "
                f"{entry['skipped_by_reason']}"
            )
    for entry in told["rows"]:
        if sum(entry["outcomes"].values()) != entry["fetched"]:
            wrong.append(
                f"rows of {entry['kind']} {entry['name']!r}: {entry['outcomes']} of "
                f"{entry['fetched']}"
            )
    totals = told["totals"]
    if sum(totals["objects"].values()) != sum(entry["listed"] for entry in told["objects"]):
        wrong.append(f"objects in all: {totals['objects']}")
    if totals["rows"]["fetched"] != sum(entry["fetched"] for entry in told["rows"]):
        wrong.append(f"rows in all: {totals['rows']}")
    return wrong


def row_counts(org: Any) -> Dict[str, int]:
    holders = {
        "datasets": ("dataset", "dataset"),
        "experiments": ("experiment", "experiment"),
        "logs": ("project_logs", "project"),
    }
    return {
        name: sum(org.count(kind, entry["id"]) for entry in org.objects(holder))
        for name, (kind, holder) in holders.items()
    }


def told_rows(told: Dict[str, Any]) -> Dict[str, int]:
    return {
        kind: sum(entry["fetched"] for entry in told["rows"] if entry["kind"] == kind)
        for kind in ROW_KINDS
    }


def own_objects(org: Any) -> Dict[str, int]:
    """How many objects of its own an organization has, by kind."""
    return {
        kind: len([entry for entry in org.objects(kind) if entry.get("org_id", "") is not None])
        for kind in NATURAL_KEYS
        if kind != "user"
    }
