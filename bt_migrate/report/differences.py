"""The differences of a run that a person may accept, read from the files of the run alone.

They are objects and rows that were not overwritten, rows, attachments and comments that did not
arrive, and the differences that the last comparison
found. Rows that are missing because the source changed after the copy are not among them: the next
sync copies these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Sequence

from bt_migrate.errors import StateError
from bt_migrate.model.findings import FAILURE, finding
from bt_migrate.model.notes import FAILED_BEFORE, stream_findings
from bt_migrate.model.outcomes import DIFFERS, OPEN_OUTCOMES
from bt_migrate.report.display import shown
from bt_migrate.report.refused import NOT_CREATED, ROWS_DIFFER
from bt_migrate.state.accepted import Accepted, DifferenceKey, key_of
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.records import check_part, json_of
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_files import VERIFY_FOLDER
from bt_migrate.state.stream_state import StreamState


@dataclass
class DifferenceLine:
    """The fields of a difference in a file of a comparison that this module uses."""

    resource: str
    id: str = ""
    name: str = ""
    project: str = ""
    row: str = ""
    fingerprint: str = ""


ROWS_MISSING = ("row_refused", "row_not_shown")
ROWS_NOT_DELETED = "row_not_deleted"
COMPARED = ("differs", "missing", "extra")
FACTS = ("resource", "id", "name", "project", "row", "fingerprint")


def known_differences(run: RunDirectory) -> List[Dict[str, Any]]:
    """Every difference, once: {resource, id, name, project, row, outcome, detail, fingerprint}."""
    by_key: Dict[DifferenceKey, Dict[str, Any]] = {}
    for record in (*_of_objects(run), *_of_rows(run), *_of_comparison(run)):
        if record.get("fingerprint"):
            by_key.setdefault(key_of(record), record)
    return list(by_key.values())


def kept_findings(run: RunDirectory) -> List[Dict[str, Any]]:
    """Returns what the sync before, whose report was not shown, found about rows that stay as they
    are: the current sync does not read them again.
    """
    record = run.record
    return record.kept_findings if record.kept_round == record.round else []


def difference_of_problem(problem: Mapping[str, Any]) -> Dict[str, Any]:
    detail = ", ".join(problem.get("fields") or ()) or shown(problem.get("reason") or "", 200)
    return {**_facts(problem), "outcome": problem["outcome"], "detail": detail}


def may_be_accepted(record: Mapping[str, Any]) -> bool:
    """Whether a finding is about rows or references that a person may accept as they are."""
    return record["severity"] == FAILURE and "fingerprint" in record


def difference_of_finding(record: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns one difference for all rows of an object with a finding of one kind and reason, or
    for a reference of an object.
    """
    detail = f"rows: {record.get('count', 0):,}" if "count" in record else "object"
    if record["kind"] != ROWS_DIFFER:
        detail += f"; {record['about']}: {record.get('detail', '')}"
    outcome = "missing" if record["kind"] in ROWS_MISSING else DIFFERS
    if record["kind"] == ROWS_NOT_DELETED:
        outcome = "extra"
    facts = {**_facts(record), "outcome": outcome, "detail": detail}
    facts.pop("row", None)
    return facts


def accepted_finding(difference: Mapping[str, Any]) -> Dict[str, Any]:
    facts = {name: difference[name] for name in FACTS if name in difference}
    return finding("accepted_difference", **facts, detail=difference["detail"])


def settled_findings(
    findings: Iterable[Mapping[str, Any]], accepted: Accepted, objects: Sequence[Mapping[str, Any]]
) -> List[Dict[str, Any]]:
    """Returns the findings; accepted differences have the kind accepted_difference.

    Among them are those of accepted `objects`, which may not have been created.
    """
    places = {(obj["resource"], obj["id"]) for obj in objects}
    return [
        accepted_finding(difference_of_finding(record))
        if may_be_accepted(record) and accepted.holds(difference_of_finding(record))
        else dict(record)
        for record in findings
        if record["kind"] != NOT_CREATED or (record["resource"], record.get("id")) not in places
    ] + [accepted_finding(obj) for obj in objects]


def problems_of(states: ObjectStates, outcomes: Iterable[str]) -> List[Dict[str, Any]]:
    """The objects with one of the outcomes."""
    return [
        {"resource": states.resource, "project": states.project, "id": source_id, **json_of(entry)}
        for source_id, entry in states.outcomes.items()
        if entry.outcome in outcomes
    ]


def _facts(record: Mapping[str, Any]) -> Dict[str, Any]:
    return {name: record[name] for name in FACTS if record.get(name)}


def _of_objects(run: RunDirectory) -> Iterator[Dict[str, Any]]:
    for states in run.all_objects():
        records = (record for records in states.findings.values() for record in records)
        yield from map(difference_of_finding, filter(may_be_accepted, records))
        if states.listed:
            yield from map(difference_of_problem, problems_of(states, (DIFFERS, *OPEN_OUTCOMES)))


def _of_rows(run: RunDirectory) -> Iterator[Dict[str, Any]]:
    for stream in run.all_streams():
        for record in stream_findings(stream.header, [*stream.findings, *_failed_as_one(stream)]):
            if may_be_accepted(record):
                yield difference_of_finding(record)
    yield from map(difference_of_finding, kept_findings(run))


def _failed_as_one(stream: StreamState) -> List[Dict[str, Any]]:
    """Returns the finding of the next sync, if rows failed that are too many for one each."""
    if not stream.failed_print:
        return []
    facts = {"detail": FAILED_BEFORE, "count": stream.failed, "fingerprint": stream.failed_print}
    return [{"kind": ROWS_MISSING[0], **facts}]


def _of_comparison(run: RunDirectory) -> Iterator[Dict[str, Any]]:
    """Yields the differences of the last comparison, unless it was interrupted."""
    if run.record.verification is None:
        return
    folder = Path(run.record.verification["folder"])
    # A run may have been moved to another place.
    folder = folder if folder.is_dir() else run.path / VERIFY_FOLDER
    for outcome in COMPARED:
        for record in _json_lines(folder / f"{outcome}.jsonl"):
            if not record.get("changed_since_copy"):
                detail = record.get("detail") or ", ".join(record.get("fields") or ())
                yield {**_facts(record), "outcome": outcome, "detail": detail}


def _json_lines(path: Path) -> Iterator[Dict[str, Any]]:
    """Raises StateError for a file that cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                check_part(DifferenceLine, record)
                yield record
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise StateError(f"{path}: cannot be read ({error}); run bin/verify again") from None
