"""object_states."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence

from bt_migrate.model.outcomes import CREATED, FAILED, LATER, UPDATED
from bt_migrate.state.files import FORMAT, json_lines, read_json, write_files

# -- objects


class ObjectStates:
    """What became of the objects of one resource in one project (or the organization): outcomes, id mapping, findings, open
    references.

    Safe for many threads; `save` writes the file, unless it is a copy that is not `kept`.
    """

    def __init__(self, path: Path, resource: str, project: str, *, kept: bool = True) -> None:
        self.path = path
        self.kept = kept
        self.lock = threading.RLock()
        data = read_json(path) if path.exists() else {}
        # the hash of what its file holds, whatever the number of the round
        self.written = hash(
            json_lines({name: value for name, value in data.items() if name != "round"})
        )
        self.resource: str = resource
        self.project: str = project
        self.outcomes: Dict[str, Dict[str, Any]] = data.get("outcomes", {})
        self.findings: Dict[str, List[Dict[str, Any]]] = data.get("findings", {})
        self.deferred: Dict[str, str] = data.get(
            "deferred", {}
        )  # source id -> dest id, to be completed by a second pass
        # about to be created: source id -> {key, project, fingerprint} in the destination; found afterwards, they are ours
        intended = data.get("intended", {})
        self.intended: Dict[str, Dict[str, Any]] = (
            intended if isinstance(intended, dict) else {}
        )  # earlier versions kept ids only
        self.listed: int = data.get("listed", 0)
        self.round: int = data.get("round", 0)  # of the sync whose outcomes these are
        self.earlier: Dict[str, Dict[str, Any]] = data.get(
            "earlier", {}
        )  # outcomes of earlier rounds, see `known`
        self.fingerprints: Dict[str, List[str]] = data.get(
            "fingerprints", {}
        )  # source id -> [source's, destination's] content
        # source id -> {name, id, content, fingerprint}: the destination's object before this run updated it, and what it was to become
        self.former: Dict[str, Dict[str, Any]] = data.get("former", {})

    def record(
        self, source_id: str, name: str, outcome: str, *, dest_id: Optional[str] = None, **more: Any
    ) -> None:
        """Set the outcome of one object; it replaces an earlier one. `more`: reason, fields."""
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
        """Whether the object has an outcome that stands; a failed one is tried again."""
        entry = self.outcomes.get(source_id, {"outcome": FAILED})
        return entry["outcome"] != FAILED and entry.get("reason") != LATER

    def begin_round(self, number: int) -> None:
        """Everything is planned again; what earlier rounds made and mapped stays known. In memory."""
        if self.round != number:
            self.earlier, self.outcomes, self.findings = self.known(), {}, {}
            self.round, self.listed = number, 0

    def known(self) -> Dict[str, Dict[str, Any]]:
        """source id -> outcome over all rounds: what was ever created stays created, what was ever updated stays updated."""
        with self.lock:
            return {one: self.last(one) for one in {**self.earlier, **self.outcomes}}

    def last(self, source_id: str) -> Dict[str, Any]:
        """One of `known`, {} for an object that never was in a round."""
        before, entry = self.earlier.get(source_id, {}), self.outcomes.get(source_id)
        if entry is None or not before.get("dest_id"):
            return dict(before if entry is None else entry)
        if (
            entry.get("dest_id", before["dest_id"]) != before["dest_id"]
        ):  # made anew, or another one has taken its place
            return dict(entry)
        was = (before["outcome"], entry["outcome"])
        outcome = next((one for one in (CREATED, UPDATED) if one in was), entry["outcome"])
        place = {name: before[name] for name in ("dest_id", "owner") if name in before}
        return {**place, **entry, "outcome": outcome}

    def made(self, source_id: str) -> bool:
        """Whether this run created the object, in whichever round."""
        with self.lock:
            return bool(self.last(source_id).get("outcome") == CREATED)

    def forget(self, source_id: str) -> None:
        """Its counterpart is gone: nothing stands for it any more."""
        with self.lock:
            self.earlier.pop(source_id, None)

    def settle(self, source_ids: Sequence[str]) -> None:
        """Bring what is known of objects that were made at once into the given order, whichever came first."""
        with self.lock:
            for one in source_ids:
                if one in self.outcomes:
                    self.outcomes[one] = self.outcomes.pop(one)
                if one in self.findings:
                    self.findings[one] = self.findings.pop(one)

    def id_mapping(self) -> Dict[str, str]:
        return {
            source: entry["dest_id"]
            for source, entry in self.known().items()
            if entry.get("dest_id")
        }

    def save(self) -> None:
        save_objects([self])

    def content(self) -> Dict[str, Any]:
        """All but the number of the round."""
        return {
            "format": FORMAT,
            "resource": self.resource,
            "project": self.project,
            "listed": self.listed,
            "completed_ids": [
                one for one, entry in self.outcomes.items() if entry["outcome"] != FAILED
            ],
            "failed_ids": [
                one for one, entry in self.outcomes.items() if entry["outcome"] == FAILED
            ],
            "id_mapping": self.id_mapping(),
            "outcomes": dict(self.outcomes),
            "earlier": dict(self.earlier),
            "findings": dict(self.findings),
            "deferred": dict(self.deferred),
            "intended": dict(self.intended),
            "fingerprints": dict(self.fingerprints),
            "former": dict(self.former),
        }


def save_objects(some: Iterable[ObjectStates]) -> None:
    """Write the states of objects that are made together; not those whose files say all but another number of the round already."""
    with contextlib.ExitStack() as held:
        changed = []
        for states in some:
            held.enter_context(states.lock)
            text = json_lines(states.content())
            if states.kept and hash(text) != states.written:
                changed.append(
                    (states, hash(text), f'{text[:-3]},\n "round": {states.round}\n}}\n')
                )
        write_files([(states.path, text) for states, _, text in changed])
        for states, written, _ in changed:
            states.written = written
