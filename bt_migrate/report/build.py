"""migration_report.json and migration_summary.txt, from the state files of the run: the same numbers after one process or after
ten.

Objects and rows are never added up. For each resource and project the outcomes add up to what was listed.
"""

from __future__ import annotations

import shlex
from collections import Counter
from typing import Any, Dict, List, Optional, Sequence

from bt_migrate import __version__
from bt_migrate.errors import EXIT_INCOMPLETE, EXIT_OK
from bt_migrate.model.findings import FAILURE, finding
from bt_migrate.model.notes import stream_findings
from bt_migrate.model.outcomes import DIFFERS, FAILED, OUTCOMES
from bt_migrate.model.resources import SELECTABLE
from bt_migrate.report.text import _sum
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory, window_of
from bt_migrate.state.stream_state import StreamState

REPORT_VERSION = 1
ONLY_OF_PLAN = ("--dry-run", "--plan-out", "--fail-on-loss", "--new-run")
KEPT_BY_RUN = (
    "--state-dir",
    "--new-run",
    "--created-after",
    "--created-before",
    "--window",
    "--tz",
    "--fill-gaps",
)
ONLY_OF_PART = ("--shard", "--no-rows")
WITHOUT_VALUE = frozenset(("--dry-run", "--fail-on-loss", "--new-run", "--fill-gaps", "--no-rows"))
ORDER = {name: position for position, name in enumerate(("projects", *SELECTABLE))}


def build_report(run: RunDirectory, status: str) -> Dict[str, Any]:
    """The whole report as a dict; `status` is completed (or incomplete, if not everything arrived), interrupted or failed."""
    everything = sorted(
        run.all_objects(), key=lambda one: (ORDER.get(one.resource, 99), one.project)
    )
    objects = [one for one in everything if one.listed]
    round_ = run.data.get("round", 0)
    streams = [
        one for one in run.all_streams() if one.sync.round == round_ or one.is_behind
    ]  # of a round: those that had something new
    findings = [
        record for one in everything for records in one.findings.values() for record in records
    ]
    findings += [record for one in streams for record in _findings_of_stream(one)]
    findings += run.data.get("validation", {}).get("findings", [])
    row_plans = list(run.data.get("row_plans", {}).values()) if run.data["dry_run"] else []
    findings += [record for plan in row_plans for record in plan["findings"]]  # of the first rows
    findings += run.data.get("window_gaps", [])
    seconds = round(sum(session.get("seconds", 0) for session in run.data["sessions"]), 3)
    rows = sum(one.counts["fetched"] for one in streams)
    size = sum(one.counts["bytes"] for one in streams)
    object_counts, row_counts = (
        [_object_counts(one) for one in objects],
        [_row_counts(one) for one in streams],
    )
    data = run.data
    report: Dict[str, Any] = {
        "report_version": REPORT_VERSION,
        "tool_version": __version__,
        "status": status,
        "dry_run": data["dry_run"],
        "run_directory": str(run.path),
        "source": data["source"],
        "destination": data["dest"],
        "selection": data["selection"],
        "round": round_,
        "marks": data.get("marks", {}),
        "started": data["created"],
        "sessions": data["sessions"],
        "duration_seconds": seconds,
        "phases_done": data["phases_done"],
        "objects": object_counts,
        "rows": row_counts,
        "planned_streams": [one for plan in row_plans for one in plan["streams"]],
        "estimate": data.get("estimate"),
        "totals": {
            "objects": _sum(one["outcomes"] for one in object_counts),
            "rows": {**_sum(one["outcomes"] for one in row_counts), "fetched": rows, "bytes": size},
            "rows_per_second": round(rows / seconds, 1) if seconds else 0,
            "bytes_per_second": round(size / seconds) if seconds else 0,
        },
        "verification": data.get("verification"),
        "lag": data.get("lag"),
        "problems": [record for one in objects for record in _problems(one)],
        "findings": findings,
        "findings_by_kind": dict(Counter(record["kind"] for record in findings)),
    }
    if status == status_of(EXIT_OK):
        report["status"] = status_of(exit_code_of(report))
    return {**report, "next_commands": next_commands(run, report["status"])}


def _object_counts(one: ObjectStates) -> Dict[str, Any]:
    outcomes = Counter(entry["outcome"] for entry in one.outcomes.values())
    reasons = Counter(
        entry.get("reason", "no reason")
        for entry in one.outcomes.values()
        if entry["outcome"] == "skipped"
    )
    return {
        "resource": one.resource, "project": one.project, "listed": one.listed, "outcomes": dict(sorted(outcomes.items())),
        "skipped_by_reason": dict(sorted(reasons.items())),
    }  # fmt: skip


def _row_counts(one: StreamState) -> Dict[str, Any]:
    outcomes = {name: one.counts[name] for name in OUTCOMES if one.counts[name]}
    facts = {
        name: one.header.get(name) for name in ("kind", "project", "name", "source_id", "dest_id")
    }
    rate = round(one.counts["fetched"] / one.seconds, 1) if one.seconds else 0
    more = {
        "fetched": one.counts["fetched"],
        "bytes": one.counts["bytes"],
        "seconds": round(one.seconds, 3),
        "rows_per_second": rate,
        **({"deleted": one.sync.deleted} if one.sync.deleted else {}),
    }
    return {
        **facts,
        "outcomes": outcomes,
        **more,
        "complete": not one.is_behind,
        "error": one.error,
    }


def _findings_of_stream(one: StreamState) -> List[Dict[str, Any]]:
    records = stream_findings(one.header, one.findings)
    facts = {
        "resource": one.header["kind"],
        "id": one.header["source_id"],
        "name": one.header["name"],
        "project": one.header["project"],
    }
    if one.error:
        records.append(finding("stream_failed", **facts, detail=one.error))
    if one.sync.unseen and one.is_behind:
        records.append(finding("stream_behind", **facts, detail=one.sync.unseen))
    return records


def _problems(one: ObjectStates) -> List[Dict[str, Any]]:
    """Objects that should have arrived as they are in the source and did not."""
    return [
        {"resource": one.resource, "project": one.project, "id": source_id, **entry}
        for source_id, entry in one.outcomes.items()
        if entry["outcome"] in (FAILED, DIFFERS)
    ]


def exit_code_of(report: Dict[str, Any]) -> int:
    """0 when everything arrived that can; what the API cannot carry by its nature is no failure."""
    failures = report["problems"] or any(one["severity"] == FAILURE for one in report["findings"])
    open_ends = any(not one["complete"] for one in report["rows"])
    unverified = (report["verification"] or {}).get("arrived") is False
    return EXIT_INCOMPLETE if failures or open_ends or unverified else EXIT_OK


def next_commands(run: RunDirectory, status: str) -> List[str]:
    """What to run next, ready to paste."""
    data = run.data
    command, place = data["command"], ["--state-dir", str(run.path)]
    sessions = [one for one in data["sessions"] if one["command"] == command and "arguments" in one]
    given: List[str] = sessions[-1]["arguments"] if sessions else []
    part = "shard" in data or "part" in data["selection"]
    if not part:  # as a joined run is none, whose last start was that of a part
        given = _without(given, ONLY_OF_PART)
    if "--demo" in given:
        return [
            "bin/validate  # with your keys and URLs in .env (see .env.example): looks whether all is there for a move"
        ]
    if data["dry_run"]:
        return [f"{_line(command, _without(given, ONLY_OF_PLAN))}  # carries the plan out"]
    if status in ("interrupted", "failed", "stopped", "merged"):
        return [
            f"{_line(command, [*_without(given, KEPT_BY_RUN), *place])}  # goes on where it stopped"
        ]
    if status == "incomplete":
        again = _line(command, _without(given, ("--new-run",)))
        return [
            f"{again}  # once the causes are mended: what is there is found, what failed is tried again"
        ]
    if command == "validate":
        return [
            f"{_line('migrate-all', [*_without(given, ONLY_OF_PLAN), '--dry-run'])}  # shows the plan, writes nothing there"
        ]
    if part:
        return [
            "bin/merge-runs  # joins the runs of all shards, and that of the objects, once all are done"
        ]
    if data.get("verification") and command == "migrate-all" and not any(window_of(run).values()):
        sync = _line(
            command, [*_without(given, (*KEPT_BY_RUN, "--since-last")), *place, "--since-last"]
        )
        return [f"{sync}  # brings what is written to the source from now on"]
    return [f"{_line('verify', place)}  # compares both organizations"]


def _line(command: str, arguments: Sequence[str]) -> str:
    return shlex.join([f"bin/{command}", *arguments])


def _without(arguments: Sequence[str], names: Sequence[str]) -> List[str]:
    """The arguments without these options and their values."""
    left: List[str] = []
    values = iter(arguments)
    for one in values:
        name, equals, _ = one.partition("=")
        if name not in names:
            left.append(one)
        elif not equals and name not in WITHOUT_VALUE:
            next(values, None)
    return left


def status_of(code: Optional[int]) -> str:
    return {EXIT_OK: "completed", EXIT_INCOMPLETE: "incomplete", 130: "interrupted"}.get(
        -1 if code is None else code, "failed"
    )
