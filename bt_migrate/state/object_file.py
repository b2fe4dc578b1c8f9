"""`<resource>_state.json`: its records, and the one reader. `object_states.py` writes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

from bt_migrate.errors import StateError
from bt_migrate.model.outcomes import OUTCOMES, WOULD_CREATE, WOULD_UPDATE
from bt_migrate.state.files import damaged, record_in
from bt_migrate.state.finding_shape import check_finding
from bt_migrate.state.records import WHAT_TO_DO, ShapeError

KNOWN_OUTCOMES = frozenset((*OUTCOMES, WOULD_CREATE, WOULD_UPDATE))


@dataclass(frozen=True)
class ObjectOutcome:
    """What became of one object of the source."""

    name: str
    outcome: str  # see model/outcomes.py
    dest_id: str = ""
    owner: List[str] = field(default_factory=list)  # [type, destination id], of views and ACLs
    versions: int = 0  # how many earlier versions were written
    reason: str = ""
    fields: List[str] = field(default_factory=list)  # that differ, or that were written
    # failed, or counts as found, but the server may have created it all the same
    in_doubt: bool = False
    fingerprint: str = ""  # of both sides where they differ: by it a person accepts the difference


@dataclass(frozen=True)
class Intention:
    """An object that is about to be created. If it exists later, this run created it."""

    key: List[Any]  # natural key in the destination
    project: str
    fingerprint: str  # of what is to be sent, "" if its versions are written one by one
    at: Optional[float] = None  # unix seconds of the destination's clock


@dataclass(frozen=True)
class FormerContent:
    """The destination's object before this run updated it."""

    name: str
    id: str
    content: Dict[str, Any]
    fingerprint: str  # of what it was to become


@dataclass
class ObjectFile:
    """The content of the file. Fields may be absent in files of earlier versions."""

    resource: str = ""
    project: str = ""
    listed: int = 0  # objects in the source
    round: int = 0  # number of the sync whose outcomes these are
    # by source id, as are all of the following
    outcomes: Dict[str, ObjectOutcome] = field(default_factory=dict)
    # outcomes of earlier rounds, see `ObjectStates.over_all_rounds`
    earlier: Dict[str, ObjectOutcome] = field(default_factory=dict)
    # outcomes of earlier rounds with a destination id that the destination no longer listed
    unlisted: Dict[str, ObjectOutcome] = field(default_factory=dict)
    findings: Dict[str, List[Dict[str, Any]]] = field(default_factory=dict)
    # -> destination id, of objects that a second pass completes
    deferred: Dict[str, str] = field(default_factory=dict)
    # -> source ids of references that may resolve later, and that an object of ours was written
    # without or, where it has no destination id, could not be created without
    left_out: Dict[str, List[str]] = field(default_factory=dict)
    intended: Dict[str, Intention] = field(default_factory=dict)
    # -> digests of what is about to be written: a destination's object that holds one of them is as
    # this run left it
    begun_versions: Dict[str, List[str]] = field(default_factory=dict)
    # -> [fingerprint of the source's content, of the destination's]
    fingerprints: Dict[str, List[Any]] = field(default_factory=dict)
    former: Dict[str, FormerContent] = field(default_factory=dict)
    # -> unix seconds of the source's clock since which no good list has held the object
    absent: Dict[str, int] = field(default_factory=dict)
    # -> transaction of the source -> transaction of the destination, of versions with the same
    # content
    versions: Dict[str, Dict[str, str]] = field(default_factory=dict)
    # for people who read the file; derived from the outcomes
    completed_ids: List[str] = field(default_factory=list)
    failed_ids: List[str] = field(default_factory=list)
    id_mapping: Dict[str, str] = field(default_factory=dict)


def read_objects(path: Path, data: Dict[str, Any]) -> ObjectFile:
    """The content of a file. Raises StateError naming the file and what is wrong in it."""
    content = {name: data[name] for name in data if name != "format"}
    if isinstance(content.get("intended"), list):
        del content["intended"]  # ids alone, of an earlier version: they prove nothing
    file = record_in(path, ObjectFile, content)
    entries = [*file.outcomes.items(), *file.earlier.items(), *file.unlisted.items()]
    for source_id, entry in entries:
        if entry.outcome not in KNOWN_OUTCOMES:
            raise StateError(f"{path}: the outcome of {source_id[:60]} is not known; {WHAT_TO_DO}")
        if len(entry.owner) not in (0, 2):
            raise damaged(path, ShapeError(f"owner of {source_id[:60]} is no pair"))
    for source_id, pair in file.fingerprints.items():
        if len(pair) != 2:
            raise damaged(path, ShapeError(f"fingerprints of {source_id[:60]} are no pair"))
    try:
        for findings in file.findings.values():
            for finding in findings:
                check_finding(finding)
    except ShapeError as error:
        raise damaged(path, error) from None
    return file
