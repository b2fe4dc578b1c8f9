"""The outcomes of the objects of one resource: reads and writes `<resource>_state.json`."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence

from bt_migrate.model.outcomes import CREATED, FAILED, OPEN_OUTCOMES, OPEN_REASONS, UPDATED
from bt_migrate.state.files import FORMAT, json_lines, read_json, write_files
from bt_migrate.state.object_file import ObjectOutcome, read_objects
from bt_migrate.state.records import json_of


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
        self.unlisted = file.unlisted
        self.findings = file.findings
        self.deferred = file.deferred
        self.left_out = file.left_out
        self.intended = file.intended
        self.fingerprints = file.fingerprints
        self.former = file.former
        self.absent = file.absent
        self.versions = file.versions
        self.begun_versions = file.begun_versions

    def record(self, source_id: str, outcome: ObjectOutcome) -> None:
        """Set the outcome of one object, which replaces an earlier one."""
        with self.lock:
            before = self.unlisted.get(source_id)
            if before and before.dest_id == outcome.dest_id:
                self.earlier[source_id] = self.unlisted.pop(source_id)
            self.outcomes[source_id] = outcome

    def note(self, source_id: str, findings: Sequence[Dict[str, Any]]) -> None:
        """Replace the findings of one object."""
        with self.lock:
            self.findings.pop(source_id, None)
            if findings:
                self.findings[source_id] = list(findings)

    def completed(self, source_id: str) -> bool:
        """Whether the object has a final outcome; a failed or waiting one is tried again."""
        entry = self.outcomes.get(source_id)
        if entry is None:
            return False
        return entry.outcome not in OPEN_OUTCOMES and entry.reason not in OPEN_REASONS

    def outcome_of(self, source_id: str) -> str:
        """The outcome in this round, "" for an object that has none yet."""
        entry = self.outcomes.get(source_id)
        return entry.outcome if entry else ""

    def has_no_place(self, source_id: str) -> bool:
        """Whether the object could not be created without references that may resolve later."""
        return source_id in self.left_out and not self.dest_id_of(source_id)

    def begin_round(self, number: int) -> None:
        """Start a round in memory: everything is planned again, and what earlier rounds created and
        mapped stays known.
        """
        if self.round == number:
            return
        self.earlier = self.over_all_rounds()
        self.outcomes = {}
        self.findings = {}
        self.round = number
        self.listed = 0

    def over_all_rounds(self) -> Dict[str, ObjectOutcome]:
        """Source id -> outcome over all rounds: an object that was created in any round is created,
        one that was updated in any round is updated.
        """
        with self.lock:
            before, now = self.earlier, self.outcomes
            return {
                source_id: _joined(before.get(source_id), now.get(source_id))
                for source_id in {**before, **now}
            }

    def overall(self, source_id: str) -> Optional[ObjectOutcome]:
        """The outcome of one object over all rounds, None for an object that was in no round."""
        before, now = self.earlier.get(source_id), self.outcomes.get(source_id)
        return _joined(before, now) if before or now else None

    def dest_id_of(self, source_id: str) -> str:
        """The destination id of an object over all rounds, "" if it has none."""
        entry = self.overall(source_id)
        return entry.dest_id if entry else ""

    def created_here(self, source_id: str) -> bool:
        """Whether this run created the object, in any round."""
        with self.lock:
            entry = self.overall(source_id)
        return entry is not None and entry.outcome == CREATED

    def forget(self, source_id: str) -> None:
        """The object's counterpart is not listed: outcomes of earlier syncs no longer hold, unless
        an object of the same id is found after all.
        """
        with self.lock:
            if source_id in self.earlier:
                self.unlisted[source_id] = self.earlier.pop(source_id)

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
            source_id: entry.dest_id
            for source_id, entry in self.over_all_rounds().items()
            if entry.dest_id
        }

    def save(self) -> None:
        save_objects([self])

    def content(self) -> Dict[str, Any]:
        """The content of the file without the number of the round."""
        failed = {key: None for key, entry in self.outcomes.items() if entry.outcome == FAILED}
        return {
            "format": FORMAT,
            "resource": self.resource,
            "project": self.project,
            "listed": self.listed,
            "completed_ids": [key for key in self.outcomes if key not in failed],
            "failed_ids": list(failed),
            "id_mapping": self.id_mapping(),
            "outcomes": _plain(self.outcomes),
            "earlier": _plain(self.earlier),
            "unlisted": _plain(self.unlisted),
            "findings": dict(self.findings),
            "deferred": dict(self.deferred),
            "left_out": dict(self.left_out),
            "intended": _plain(self.intended),
            "fingerprints": dict(self.fingerprints),
            "former": _plain(self.former),
            "absent": dict(self.absent),
            "versions": dict(self.versions),
            "begun_versions": dict(self.begun_versions),
        }


def _joined(before: Optional[ObjectOutcome], now: Optional[ObjectOutcome]) -> ObjectOutcome:
    """The outcome over all rounds, of which at least one has an outcome."""
    if before is None or now is None:
        entry = now or before
        assert entry is not None
        return entry
    # It has another counterpart: it was created again, or another object took its place.
    if not before.dest_id or now.dest_id not in ("", before.dest_id):
        return now
    both = (before.outcome, now.outcome)
    outcome = next((word for word in (CREATED, UPDATED) if word in both), now.outcome)
    owner = now.owner or before.owner
    in_doubt = outcome != CREATED and (before.in_doubt or now.in_doubt)
    return replace(now, outcome=outcome, dest_id=before.dest_id, owner=owner, in_doubt=in_doubt)


def _plain(records: Mapping[str, Any]) -> Dict[str, Any]:
    return {source_id: json_of(record) for source_id, record in records.items()}


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
