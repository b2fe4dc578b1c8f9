"""The outcomes of the objects of one resource: reads and writes `<resource>_state.json`."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence

from bt_migrate.errors import StateError
from bt_migrate.model.outcomes import (
    CREATED,
    FAILED,
    OPEN_OUTCOMES,
    OPEN_REASONS,
    OUTCOMES,
    UPDATED,
    WOULD_CREATE,
    WOULD_UPDATE,
)
from bt_migrate.state.files import FORMAT, damaged, json_lines, read_json, record_in, write_files
from bt_migrate.state.finding_shape import check_finding
from bt_migrate.state.records import WHAT_TO_DO, ShapeError

KNOWN_OUTCOMES = frozenset((*OUTCOMES, WOULD_CREATE, WOULD_UPDATE))
Entry = Dict[str, Any]  # {name, outcome, dest_id, …} of one object


@dataclass
class ObjectFile:
    """The content of the file. Fields may be absent in files of earlier versions."""

    resource: str = ""
    project: str = ""
    listed: int = 0  # objects in the source
    round: int = 0  # number of the sync whose outcomes these are
    outcomes: Dict[str, Entry] = field(default_factory=dict)  # by source id, as all of these
    earlier: Dict[str, Entry] = field(
        default_factory=dict
    )  # outcomes of earlier rounds, see `known`
    findings: Dict[str, List[Dict[str, Any]]] = field(default_factory=dict)
    # -> destination id, of objects that a second pass completes
    deferred: Dict[str, str] = field(default_factory=dict)
    # -> source ids of references that may resolve later, and that an object of ours was written
    # without or, where it has no destination id, could not be created without
    left_out: Dict[str, List[str]] = field(default_factory=dict)
    # -> {key, project, fingerprint} of objects that are about to be created: if they are found
    # later, they are ours. Earlier versions kept a list of ids.
    intended: Any = field(default_factory=dict)
    # -> digests of the versions that are about to be written: a destination's object that holds one
    # of them is as this run left it
    begun_versions: Dict[str, List[str]] = field(default_factory=dict)
    # -> [fingerprint of the source's content, of the destination's]
    fingerprints: Dict[str, List[Any]] = field(default_factory=dict)
    # -> {name, id, content, fingerprint}: the destination's object before this run updated it, and
    # the fingerprint of what it was to become
    former: Dict[str, Entry] = field(default_factory=dict)
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
    file = record_in(path, ObjectFile, {name: data[name] for name in data if name != "format"})
    for source_id, entry in [*file.outcomes.items(), *file.earlier.items()]:
        known = str(entry.get("outcome")) in KNOWN_OUTCOMES and isinstance(entry.get("name"), str)
        if not known or not isinstance(entry.get("dest_id", ""), str):
            raise StateError(f"{path}: the outcome of {source_id[:60]} is not known; {WHAT_TO_DO}")
    try:
        for findings in file.findings.values():
            for finding in findings:
                check_finding(finding)
    except ShapeError as error:
        raise damaged(path, error) from None
    if not isinstance(file.intended, dict):
        file.intended = {}
    return file


class ObjectStates:
    """Outcomes, id mapping, findings and open references of the objects of one resource in one
    project (or the organization).

    Safe for many threads; `save` writes the file, unless it is a copy that is not `kept`.
    """

    def __init__(self, path: Path, resource: str, project: str, *, kept: bool = True) -> None:
        self.path = path
        self.kept = kept
        self.lock = threading.RLock()
        self.resource = resource
        self.project = project
        data = read_json(path) if path.exists() else {}
        # hash of the file's content without the number of the sync
        self.written = hash(json_lines({name: data[name] for name in data if name != "round"}))
        file = read_objects(path, data)
        self.listed = file.listed
        self.round = file.round
        self.outcomes = file.outcomes
        self.earlier = file.earlier
        self.findings = file.findings
        self.deferred = file.deferred
        self.left_out = file.left_out
        self.intended: Dict[str, Entry] = file.intended
        self.fingerprints = file.fingerprints
        self.former = file.former
        self.absent = file.absent
        self.versions = file.versions
        self.begun_versions = file.begun_versions

    def record(
        self, source_id: str, name: str, outcome: str, *, dest_id: Optional[str] = None, **more: Any
    ) -> None:
        """Set the outcome of one object, which replaces an earlier one. `more`: reason, fields …"""
        entry = {"name": name, "outcome": outcome, "dest_id": dest_id, **more}
        with self.lock:
            self.outcomes[source_id] = {
                key: value for key, value in entry.items() if value not in (None, "", (), [])
            }

    def note(self, source_id: str, findings: Sequence[Dict[str, Any]]) -> None:
        """Replace the findings of one object."""
        with self.lock:
            self.findings.pop(source_id, None)
            if findings:
                self.findings[source_id] = list(findings)

    def completed(self, source_id: str) -> bool:
        """Whether the object has a final outcome; a failed or waiting one is tried again."""
        entry = self.outcomes.get(source_id, {"outcome": FAILED})
        return entry["outcome"] not in OPEN_OUTCOMES and entry.get("reason") not in OPEN_REASONS

    def has_no_place(self, source_id: str) -> bool:
        """Whether the object could not be created without references that may resolve later."""
        return source_id in self.left_out and not self.last(source_id).get("dest_id")

    def begin_round(self, number: int) -> None:
        """Start a round in memory: everything is planned again, and what earlier rounds created and
        mapped stays known.
        """
        if self.round == number:
            return
        self.earlier = self.known()
        self.outcomes = {}
        self.findings = {}
        self.round = number
        self.listed = 0

    def known(self) -> Dict[str, Dict[str, Any]]:
        """Source id -> outcome over all rounds: an object that was created in any round is created,
        one that was updated in any round is updated.
        """
        with self.lock:
            return {
                source_id: self.last(source_id) for source_id in {**self.earlier, **self.outcomes}
            }

    def last(self, source_id: str) -> Dict[str, Any]:
        """One entry of `known`, {} for an object that was in no round."""
        before = self.earlier.get(source_id, {})
        entry = self.outcomes.get(source_id)
        if entry is None:
            return dict(before)
        dest_id = before.get("dest_id")
        # It has another counterpart: it was created again, or another object took its place.
        if not dest_id or entry.get("dest_id", dest_id) != dest_id:
            return dict(entry)
        both = (before["outcome"], entry["outcome"])
        outcome = next((word for word in (CREATED, UPDATED) if word in both), entry["outcome"])
        place = {name: before[name] for name in ("dest_id", "owner") if name in before}
        return {**place, **entry, "outcome": outcome}

    def made(self, source_id: str) -> bool:
        """Whether this run created the object, in any round."""
        with self.lock:
            return bool(self.last(source_id).get("outcome") == CREATED)

    def forget(self, source_id: str) -> None:
        """The object's counterpart was deleted: outcomes of earlier syncs no longer hold."""
        with self.lock:
            self.earlier.pop(source_id, None)

    def settle(self, source_ids: Sequence[str]) -> None:
        """Sort outcomes and findings of objects that were created in parallel by this order."""
        with self.lock:
            for source_id in source_ids:
                if source_id in self.outcomes:
                    self.outcomes[source_id] = self.outcomes.pop(source_id)
                if source_id in self.findings:
                    self.findings[source_id] = self.findings.pop(source_id)

    def id_mapping(self) -> Dict[str, str]:
        return {
            source: entry["dest_id"]
            for source, entry in self.known().items()
            if entry.get("dest_id")
        }

    def save(self) -> None:
        save_objects([self])

    def content(self) -> Dict[str, Any]:
        """The content of the file without the number of the round."""
        failed = {key: None for key, entry in self.outcomes.items() if entry["outcome"] == FAILED}
        return {
            "format": FORMAT,
            "resource": self.resource,
            "project": self.project,
            "listed": self.listed,
            "completed_ids": [key for key in self.outcomes if key not in failed],
            "failed_ids": list(failed),
            "id_mapping": self.id_mapping(),
            "outcomes": dict(self.outcomes),
            "earlier": dict(self.earlier),
            "findings": dict(self.findings),
            "deferred": dict(self.deferred),
            "left_out": dict(self.left_out),
            "intended": dict(self.intended),
            "fingerprints": dict(self.fingerprints),
            "former": dict(self.former),
            "absent": dict(self.absent),
            "versions": dict(self.versions),
            "begun_versions": dict(self.begun_versions),
        }


def save_objects(group: Iterable[ObjectStates]) -> None:
    """Write the states of objects that are created together. A file that differs only in the number
    of the round is not written.
    """
    with contextlib.ExitStack() as locks:
        changed = []
        for states in group:
            locks.enter_context(states.lock)
            text = json_lines(states.content())
            if states.kept and hash(text) != states.written:
                changed.append(
                    (states, hash(text), f'{text[:-3]},\n "round": {states.round}\n}}\n')
                )
        write_files([(states.path, text) for states, _, text in changed])
        for states, written, _ in changed:
            states.written = written
