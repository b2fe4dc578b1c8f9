"""The report of a run as one dict, made from the files of the run alone.

The numbers are the same after one process or after ten. Objects and rows are never added up. For
each resource and project the outcomes add up to what was listed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Optional, Tuple

from bt_migrate import __version__
from bt_migrate.config.settings import Settings
from bt_migrate.errors import EXIT_INCOMPLETE, EXIT_INTERRUPTED, EXIT_OK
from bt_migrate.model.findings import FAILURE, finding
from bt_migrate.model.notes import stream_findings
from bt_migrate.model.outcomes import DIFFERS, OPEN_OUTCOMES, OUTCOMES, SKIPPED, WAITING
from bt_migrate.model.resources import SELECTABLE
from bt_migrate.model.selection import matches
from bt_migrate.report.actions import grouped_by_kind
from bt_migrate.report.advice import next_commands
from bt_migrate.report.differences import (
    difference_of_problem,
    kept_findings,
    problems_of,
    settled_findings,
)
from bt_migrate.state.accepted import Accepted, accepted_of
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.records import json_of
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_record import RunRecord, Session
from bt_migrate.state.stream_state import StreamState

REPORT_VERSION = 1
UNDONE = "undone"
# Position of each resource in reports.
RESOURCE_ORDER = {name: position for position, name in enumerate(("projects", *SELECTABLE))}

STATUS_OF_CODE = {
    EXIT_OK: "completed",
    EXIT_INCOMPLETE: "incomplete",
    EXIT_INTERRUPTED: "interrupted",
}


@dataclass(frozen=True)
class StartedPart:
    """The projects and resources of a start that selects only a part of its run."""

    projects: FrozenSet[str]  # empty: all
    resources: FrozenSet[str]

    def holds(self, record: Mapping[str, Any]) -> bool:
        """Whether a problem, a finding or the counts of a stream belong to the part."""
        resource = record.get("resource") or record.get("kind")
        project = record.get("project")
        if resource not in self.resources and resource != "projects":
            return False
        return (
            not self.projects
            or not project
            or any(matches(wanted, project) for wanted in self.projects)
        )


def started_part(run: RunDirectory, settings: Settings) -> Optional[StartedPart]:
    """Returns the part of the run that a start is for, None if that is the whole run."""
    selection = run.record.selection
    same_projects = set(settings.projects) == set(selection.projects)
    if same_projects and set(settings.resources) == set(selection.resources):
        return None
    renamed = (settings.rename_projects.get(name, name) for name in settings.projects)
    return StartedPart(frozenset((*settings.projects, *renamed)), frozenset(settings.resources))


def build_report(
    run: RunDirectory, status: str, part: Optional[StartedPart] = None
) -> Dict[str, Any]:
    """Returns the report. See `report/fields.py` for its fields.

    `status` is completed (which becomes incomplete if not everything arrived), interrupted,
    stopped, failed or merged. That of a run that was undone is always undone. A start in a `part`
    of the run is judged by that part alone.
    """
    record = run.record
    if record.undone:
        status = UNDONE
    all_states = sorted(run.all_objects(), key=_place_of_states)
    listed = [states for states in all_states if states.listed]
    streams = _streams_of_round(run)
    object_counts = [_object_counts(states) for states in listed]
    row_counts = [_row_counts(stream) for stream in streams]
    row_plans = list(record.row_plans.values()) if record.dry_run else []
    accepted = accepted_of(run)
    problems, accepted_problems = _problems(listed, accepted)
    all_findings = _findings(run, all_states, streams, row_plans)
    findings = settled_findings(all_findings, accepted, accepted_problems)
    report: Dict[str, Any] = {
        **_about_run(run, status),
        "objects": object_counts,
        "rows": row_counts,
        "planned_streams": [stream for plan in row_plans for stream in plan["streams"]],
        "estimate": record.estimate,
        "totals": _totals(object_counts, row_counts, _seconds(record)),
        "validation": _validation(record),
        "verification": record.verification,
        "lag": record.lag,
        "problems": problems,
        "findings": findings,
        "findings_by_kind": dict(Counter(finding["kind"] for finding in findings)),
        **grouped_by_kind(findings),
    }
    if status == status_of(EXIT_OK):
        report["status"] = status_of(exit_code_of(report, part))
    return {**report, "next_commands": next_commands(run, report)}


def _problems(
    listed: Iterable[ObjectStates], accepted: Accepted
) -> Tuple[List[Dict[str, Any]], List[Dict[str, Any]]]:
    """Returns (problems, accepted differences).

    A problem is an object that should have arrived as it is in the source, and did not.
    """
    outcomes = (DIFFERS, *OPEN_OUTCOMES)
    problems = [problem for states in listed for problem in problems_of(states, outcomes)]
    accepted_problems = [problem for problem in problems if accepted.holds(problem)]
    open_problems = [problem for problem in problems if not accepted.holds(problem)]
    return open_problems, [difference_of_problem(problem) for problem in accepted_problems]


def _about_run(run: RunDirectory, status: str) -> Dict[str, Any]:
    """Returns the fields about the run itself: organizations, selection, starts."""
    record = run.record
    return {
        "report_version": REPORT_VERSION,
        "tool_version": __version__,
        "status": status,
        "dry_run": record.dry_run,
        "run_directory": str(run.path),
        "source": json_of(record.source),
        "destination": json_of(record.dest),
        "selection": json_of(record.selection),
        "round": record.round,
        "marks": record.marks,
        "started": record.created,
        "command": record.command,
        "sessions": [json_of(session) for session in record.sessions],
        "settings": record.settings,
        "duration_seconds": _seconds(record),
        "this_start": _this_start(record.sessions),
        "whole_run": _whole_run(record.sessions),
        "phases_done": record.phases_done,
        "merged": record.merged,
    }


def _seconds(record: RunRecord) -> float:
    return round(sum(session.seconds for session in record.sessions), 3)


def _place_of_states(states: ObjectStates) -> Tuple[int, str]:
    return RESOURCE_ORDER.get(states.resource, len(RESOURCE_ORDER)), states.project


def _streams_of_round(run: RunDirectory) -> List[StreamState]:
    """Returns the streams of the run; in a sync, only streams with new rows or that are behind."""
    number = run.record.round
    return [
        stream for stream in run.all_streams() if stream.sync.round == number or stream.is_behind
    ]


def _findings(
    run: RunDirectory,
    all_states: Iterable[ObjectStates],
    streams: Iterable[StreamState],
    row_plans: Iterable[Dict[str, Any]],
) -> List[Dict[str, Any]]:
    findings = [
        *(
            record
            for states in all_states
            for records in states.findings.values()
            for record in records
        ),
        *(record for stream in streams for record in _findings_of_stream(stream)),
        *(run.record.validation or {}).get("findings", []),
        # A plan reads the first rows of each stream.
        *(record for plan in row_plans for record in plan["findings"]),
        *run.record.window_gaps,
    ]
    # A sync may have met such a row again.
    return findings + [record for record in kept_findings(run) if record not in findings]


def _validation(record: RunRecord) -> Optional[Dict[str, Any]]:
    """Returns the result of bin/validate without its findings, which are in `findings`."""
    if record.validation is None:
        return None
    validation = dict(record.validation)
    validation.pop("findings", None)
    streams = validation.pop("streams", {})
    counts = {kind: [stream["rows"] for stream in listed] for kind, listed in streams.items()}
    validation["rows"] = {
        kind: None if None in rows else sum(rows) for kind, rows in counts.items()
    }
    return validation


def _totals(
    object_counts: List[Dict[str, Any]], row_counts: List[Dict[str, Any]], seconds: float
) -> Dict[str, Any]:
    rows = sum(counts["fetched"] for counts in row_counts)
    size = sum(counts["bytes"] for counts in row_counts)
    outcomes = sum_counts(counts["outcomes"] for counts in row_counts)
    return {
        "objects": sum_counts(counts["outcomes"] for counts in object_counts),
        "rows": {**outcomes, "fetched": rows, "bytes": size},
        "rows_per_second": round(rows / seconds, 1) if seconds else 0,
        "bytes_per_second": round(size / seconds) if seconds else 0,
    }


def _this_start(sessions: List[Session]) -> Dict[str, Any]:
    """Returns seconds, rows and rate of the last start, and the seconds of each phase in it."""
    session = sessions[-1] if sessions else Session("", "")
    seconds = session.seconds
    rows = session.rows
    return {
        "command": session.command,
        "seconds": seconds,
        "rows": rows,
        "rows_per_second": round(rows / seconds, 1) if seconds else 0,
        "phases": session.phases,
        "error": session.error or "",
    }


def _whole_run(sessions: List[Session]) -> Dict[str, Any]:
    """Returns starts, seconds, rows and rate of all starts of the run."""
    seconds = round(sum(session.seconds for session in sessions), 3)
    rows = sum(session.rows for session in sessions)
    return {
        "starts": sum(session.starts for session in sessions),
        "seconds": seconds,
        "rows": rows,
        "rows_per_second": round(rows / seconds, 1) if seconds else 0,
    }


def sum_counts(counts: Iterable[Dict[str, int]]) -> Dict[str, int]:
    """Returns the sum for each name, sorted by name."""
    total: Counter[str] = Counter()
    for names in counts:
        total.update(names)
    return dict(sorted(total.items()))


def _object_counts(states: ObjectStates) -> Dict[str, Any]:
    entries = states.outcomes.values()
    outcomes = Counter(entry.outcome for entry in entries)
    reasons = Counter(entry.reason or "no reason" for entry in entries if entry.outcome == SKIPPED)
    return {
        "resource": states.resource,
        "project": states.project,
        "listed": states.listed,
        "outcomes": dict(sorted(outcomes.items())),
        "skipped_by_reason": dict(sorted(reasons.items())),
    }


def _row_counts(stream: StreamState) -> Dict[str, Any]:
    names = ("kind", "project", "name", "source_id", "dest_id")
    counts = stream.counts
    rate = round(counts["fetched"] / stream.seconds, 1) if stream.seconds else 0
    row_counts = {
        **{name: stream.header.get(name) for name in names},
        "outcomes": {name: counts[name] for name in OUTCOMES if counts[name]},
        "fetched": counts["fetched"],
        "bytes": counts["bytes"],
        "seconds": round(stream.seconds, 3),
        "rows_per_second": rate,
    }
    if stream.sync.deleted:
        row_counts["deleted"] = stream.sync.deleted
    return {**row_counts, "complete": not stream.is_behind, "error": stream.error}


def _findings_of_stream(stream: StreamState) -> List[Dict[str, Any]]:
    records = stream_findings(stream.header, stream.findings)
    facts = {
        "resource": stream.header["kind"],
        "id": stream.header["source_id"],
        "name": stream.header["name"],
        "project": stream.header["project"],
    }
    if stream.error:
        records.append(finding("stream_failed", **facts, detail=stream.error))
    if stream.sync.unseen and stream.is_behind:
        records.append(finding("stream_behind", **facts, detail=stream.sync.unseen))
    return records


def exit_code_of(report: Dict[str, Any], part: Optional[StartedPart] = None) -> int:
    """Returns 0 if everything arrived that the API can move, else 1.

    With a `part`, only objects and rows of that part count. In a dry run, objects that wait for
    another phase do not count.
    """

    def counted(records: List[Dict[str, Any]]) -> Iterable[Dict[str, Any]]:
        return (record for record in records if part is None or part.holds(record))

    has_failure = any(record["severity"] == FAILURE for record in counted(report["findings"]))
    is_open = any(not counts["complete"] for counts in counted(report["rows"]))
    tolerated = (WAITING,) if report["dry_run"] else ()
    has_problem = any(
        problem["outcome"] not in tolerated for problem in counted(report["problems"])
    )
    is_refuted = part is None and (report["verification"] or {}).get("arrived") is False
    is_incomplete = has_problem or has_failure or is_open or is_refuted
    return EXIT_INCOMPLETE if is_incomplete else EXIT_OK


def status_of(code: Optional[int]) -> str:
    """Returns the status of a run that ended with this exit code (None: with an error)."""
    return STATUS_OF_CODE.get(-1 if code is None else code, "failed")
