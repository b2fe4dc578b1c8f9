"""Differences that a person accepted: `accepted.json`, in the folder of runs.

A difference is identified by its object and by the fingerprint of both sides: when one of the two
changes again, it is a new difference, and reported again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Tuple

from bt_migrate.errors import StateError
from bt_migrate.state.files import FORMAT, read_record, write_json
from bt_migrate.state.records import json_of
from bt_migrate.state.run_directory import RunDirectory

ACCEPTED_FILE = "accepted.json"

# (resource, id, row id, fingerprint)
DifferenceKey = Tuple[str, str, str, str]


@dataclass
class AcceptedDifference:
    """One difference of an object or a row, with who accepted it and when."""

    source: str  # organization ids
    dest: str
    resource: str
    id: str  # of the source's object, or of one that only the destination has
    fingerprint: str
    outcome: str  # differs, missing, extra, or failed: the destination refuses it
    by: str
    at: str
    name: str = ""
    project: str = ""
    row: str = ""
    detail: str = ""

    @property
    def key(self) -> DifferenceKey:
        return key_of(json_of(self))


@dataclass
class AcceptedFile:
    """The content of the file, for all pairs of organizations of the folder."""

    differences: List[AcceptedDifference] = field(default_factory=list)


def key_of(record: Mapping[str, Any]) -> DifferenceKey:
    """Returns what identifies a difference; its fingerprint is "" if it cannot be accepted."""
    return (
        record["resource"],
        record.get("id", ""),
        record.get("row", ""),
        record.get("fingerprint", ""),
    )


class Accepted:
    """The accepted differences between the two organizations of a run."""

    def __init__(self, keys: Iterable[DifferenceKey] = ()) -> None:
        self._keys: FrozenSet[DifferenceKey] = frozenset(keys)

    def holds(self, record: Mapping[str, Any]) -> bool:
        return bool(self._keys and record.get("fingerprint")) and key_of(record) in self._keys


def accepted_of(run: RunDirectory) -> Accepted:
    """Raises StateError for a file that is damaged."""
    return Accepted(item.key for item in list_accepted(run))


def list_accepted(run: RunDirectory) -> List[AcceptedDifference]:
    """The accepted differences between the two organizations of a run, oldest first."""
    return [item for item in _read(_path(run)) if _is_of(run, item)]


def accept(run: RunDirectory, records: Iterable[Mapping[str, Any]], by: str, at: str) -> None:
    """Write down differences; one that was accepted before keeps who did it."""
    accepted_keys = {item.key for item in list_accepted(run)}
    new: Dict[DifferenceKey, AcceptedDifference] = {}
    for record in records:
        if key_of(record) not in accepted_keys:
            new.setdefault(key_of(record), _item(run, record, by, at))
    _write(_path(run), [*_read(_path(run)), *new.values()])


def remove_accepted(run: RunDirectory, keys: Iterable[DifferenceKey]) -> None:
    removed_keys = set(keys)
    items = _read(_path(run))
    _write(
        _path(run), [item for item in items if not (_is_of(run, item) and item.key in removed_keys)]
    )


def _path(run: RunDirectory) -> Path:
    return run.path.parent / ACCEPTED_FILE


def _item(run: RunDirectory, record: Mapping[str, Any], by: str, at: str) -> AcceptedDifference:
    texts = {name: str(record.get(name, "")) for name in ("name", "project", "row", "detail")}
    return AcceptedDifference(
        source=run.record.source.org_id,
        dest=run.record.dest.org_id,
        resource=record["resource"],
        id=record.get("id", ""),
        fingerprint=record["fingerprint"],
        outcome=record["outcome"],
        by=by,
        at=at,
        **texts,
    )


def _is_of(run: RunDirectory, item: AcceptedDifference) -> bool:
    return (item.source, item.dest) == (run.record.source.org_id, run.record.dest.org_id)


def _read(path: Path) -> List[AcceptedDifference]:
    """Raises StateError. The file belongs to all runs of its folder: a new run does not help."""
    if not path.exists():
        return []
    try:
        return read_record(path, AcceptedFile).differences
    except StateError as error:
        reason = str(error).partition(";")[0]
        raise StateError(
            f"{reason}; restore it from a copy, or remove it: what was accepted is then reported"
            " again"
        ) from None


def _write(path: Path, items: List[AcceptedDifference]) -> None:
    write_json(path, {"format": FORMAT, **json_of(AcceptedFile(items))})
