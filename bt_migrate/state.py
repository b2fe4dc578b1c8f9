"""Files of a run: JSON checkpoints of objects and rows; the SQLite files are those of `seen`. Nothing else writes state.

JSON is written to a temporary file, flushed to disk and renamed, so a file is whole or the old one. A file that cannot be read
stops the run and is named; nothing is ever silently started over. Directories are 0700 and files 0600; no key, signed URL or
row content is in them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

from bt_migrate.errors import StateError
from bt_migrate.windows import iso

log = logging.getLogger("bt_migrate.state")

FORMAT = 1
# Outcomes of objects and rows. Every listed one ends in exactly one.
CREATED, FOUND, UPDATED, DIFFERS, SKIPPED, FAILED = OUTCOMES = ("created", "found", "updated", "differs", "skipped", "failed")

LATER = "moved by a later phase"  # reason of an object that is skipped for now


def now() -> str:
    return iso(datetime.now(timezone.utc))


# -- files


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace the file as a whole. Raises StateError (the old file is still there)."""
    write_files([(path, json_lines(value))])


def write_files(files: Sequence[Tuple[Path, str]]) -> None:
    """Replace each file as a whole; all are on the disk when it returns. Raises StateError naming the one that cannot be written."""
    path = Path()
    try:
        for path in {path.parent: path for path, _ in files}.values():
            make_private(path.parent)
        for path, text in files:
            temporary = f"{path}.tmp"
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        for path in {path.parent: path for path, _ in files}.values():
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the renames themselves
            finally:
                os.close(folder)
    except OSError as error:
        raise StateError(
            f"{path}: cannot be written ({error.strerror}); the last checkpoint is whole: make room, then run again"
        ) from None


def json_lines(value: Mapping[str, Any]) -> str:
    """JSON with a line for each entry of the value and of the dicts and lists in it: readable, and left to the fast encoder,
    which knows no indents.
    """
    entries = []
    for name, one in list(value.items()):  # at once: another thread may add to it
        if one and isinstance(one, (dict, list)):
            opening, closing = ("[", "]") if isinstance(one, list) else ("{", "}")
            entries.append(f"{json.dumps(name)}: {opening}\n  {_lines(one)}\n {closing}")
        else:
            entries.append(_entry(name, one))
    return "{\n " + ",\n ".join(entries) + "\n}\n"


def _lines(one: Union[List[Any], Dict[str, Any]]) -> str:
    end = ",\n  "
    if all(isinstance(part, str) for part in (one if isinstance(one, list) else list(one.values()))):
        return json.dumps(one, separators=(end, ": "))[1:-1]  # of thousands of ids: in one go
    return end.join([json.dumps(part) for part in one] if isinstance(one, list) else [_entry(*pair) for pair in list(one.items())])


def _entry(name: Any, value: Any) -> str:
    """`"name": value`, whatever JSON makes of the name."""
    return json.dumps({name: value})[1:-1]


def make_private(folder: Path) -> None:
    """Make the folder and those above it that are missing, all 0700: `parents=True` alone would give those above to everybody."""
    if folder.is_dir():
        return
    for one in (*reversed(folder.parents), folder):
        one.mkdir(mode=0o700, exist_ok=True)


def append_line(path: Path, value: Any) -> None:
    """Add one JSON line. Raises StateError."""
    try:
        make_private(path.parent)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
    except OSError as error:
        raise StateError(f"{path}: cannot be written ({error.strerror}); make room, then run again") from None


def read_json(path: Path) -> Any:
    """The file's content. Raises StateError naming the file."""
    damaged = StateError(
        f"{path}: is damaged; restore it from a copy, or start anew with --new-run (what is there is found, not doubled)"
    )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise damaged from None
    if not isinstance(value, dict):
        raise damaged
    if value.get("format") != FORMAT:
        raise StateError(
            f"{path}: has format {value.get('format')}, this program writes {FORMAT}; use the version that wrote it, or --new-run"
        )
    return value


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
        self.written = hash(json_lines({name: value for name, value in data.items() if name != "round"}))
        self.resource: str = resource
        self.project: str = project
        self.outcomes: Dict[str, Dict[str, Any]] = data.get("outcomes", {})
        self.findings: Dict[str, List[Dict[str, Any]]] = data.get("findings", {})
        self.deferred: Dict[str, str] = data.get("deferred", {})  # source id -> dest id, to be completed by a second pass
        # about to be created: source id -> {key, project, fingerprint} in the destination; found afterwards, they are ours
        intended = data.get("intended", {})
        self.intended: Dict[str, Dict[str, Any]] = intended if isinstance(intended, dict) else {}  # earlier versions kept ids only
        self.listed: int = data.get("listed", 0)
        self.round: int = data.get("round", 0)  # of the sync whose outcomes these are
        self.earlier: Dict[str, Dict[str, Any]] = data.get("earlier", {})  # outcomes of earlier rounds, see `known`
        self.fingerprints: Dict[str, List[str]] = data.get("fingerprints", {})  # source id -> [source's, destination's] content
        # source id -> {name, id, content, fingerprint}: the destination's object before this run updated it, and what it was to become
        self.former: Dict[str, Dict[str, Any]] = data.get("former", {})

    def record(self, source_id: str, name: str, outcome: str, *, dest_id: Optional[str] = None, **more: Any) -> None:
        """Set the outcome of one object; it replaces an earlier one. `more`: reason, fields."""
        entry = {"name": name, "outcome": outcome, "dest_id": dest_id, **more}
        with self.lock:
            self.outcomes[source_id] = {key: value for key, value in entry.items() if value not in (None, "", (), [])}

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
        if entry.get("dest_id", before["dest_id"]) != before["dest_id"]:  # made anew, or another one has taken its place
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
        return {source: entry["dest_id"] for source, entry in self.known().items() if entry.get("dest_id")}

    def save(self) -> None:
        save_objects([self])

    def content(self) -> Dict[str, Any]:
        """All but the number of the round."""
        return {
            "format": FORMAT,
            "resource": self.resource,
            "project": self.project,
            "listed": self.listed,
            "completed_ids": [one for one, entry in self.outcomes.items() if entry["outcome"] != FAILED],
            "failed_ids": [one for one, entry in self.outcomes.items() if entry["outcome"] == FAILED],
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
                changed.append((states, hash(text), f'{text[:-3]},\n "round": {states.round}\n}}\n'))
        write_files([(states.path, text) for states, _, text in changed])
        for states, written, _ in changed:
            states.written = written


# -- rows


class StreamState:
    """Checkpoint of the rows of one object. `slices`: parts of the key range, each with the keys between which rows have no outcome
    yet: those above `after`, up to `end` (None: to the end of the stream).

    `after` moves up; `end` moves down while the slice is read from both ends. Safe for many threads: counts, notes and a slice's
    keys move together under the lock.

    In a round of a sync there is one slice of all rows written after a transaction (`above`); counts and notes are of the round.
    """

    COUNTS = ("fetched", *OUTCOMES, "bytes")

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.lock = threading.RLock()
        data = read_json(path) if path.exists() else {}
        self.header = {**data.get("header", {}), **header}  # kind, project, name, source_id, dest_id
        self.slices: List[Dict[str, Any]] = data.get("slices") or [{"after": None, "end": None, "done": False}]
        self.counts: Dict[str, int] = {name: data.get("counts", {}).get(name, 0) for name in self.COUNTS}
        self.findings: List[Dict[str, Any]] = data.get("findings", [])
        self.done: bool = data.get("done", False)
        self.compared: bool = data.get("compared", False)  # the destination's rows from before this run are known
        self.before_key: Optional[str] = data.get("before_key")  # the last of these: rows of this run come behind it
        self.error: str = data.get("error", "")
        self.seconds: float = data.get("seconds", 0.0)
        self.waiting: int = data.get("waiting", 0)  # rows that wait for an object to exist
        self.failed: int = data.get("failed", 0)  # rows that did not arrive whole: each sync tries them again
        self.began: int = data.get("began", 0)  # transaction: what the source wrote after it may be missing; 0: the run's start
        self.round: int = data.get("round", 0)  # of the sync that last had rows of it; 0: the copy of everything
        self.delivered_until: int = data.get("delivered_until", 0)  # unix seconds of the destination: rows of that copy are older
        # rows that were there before the run and were written to all the same; earlier versions kept one count
        self.deleted: int = data.get("deleted", 0)  # rows that were gone from the source, in this round
        self.others: int = data.get("others", 0)  # rows of the destination that the source does not have and that are not ours to delete
        self.overwritten: int = data.get("overwritten", self.counts[UPDATED])

    @property
    def copied(self) -> bool:
        """Whether the copy of everything came to its end: what is missing is newer than `above`, or than the mark of the run."""
        return self.done or "above" in self.slices[0]

    def begin_round(self, number: int, above: int) -> None:
        """Enter a round, in memory. What an earlier one left behind is still to come: the lower of both marks counts."""
        if self.round != number:
            if not self.done and self.copied:
                above = min(above, self.slices[0]["above"])
            if self.copied:
                self.slices, self.done = [{"after": None, "end": None, "done": False, "above": above}], False
            self.round, self.counts, self.findings = number, dict.fromkeys(self.COUNTS, 0), []
            self.error, self.seconds, self.deleted = "", 0.0, 0

    def catch_up(self, above: int) -> None:
        """After the copy of everything: what was written behind its back."""
        self.slices, self.done = [{"after": None, "end": None, "done": False, "above": above}], False

    def content(self) -> Dict[str, Any]:
        names = (
            "header", "slices", "counts", "findings", "done", "compared", "before_key", "error", "seconds", "waiting",
            "failed", "began", "round", "delivered_until", "overwritten", "deleted", "others",
        )  # fmt: skip
        value = {"format": FORMAT, **{name: getattr(self, name) for name in names}}
        return {**value, "pagination_key": self.slices[0]["after"]}

    def save(self) -> None:
        save_streams([self])

    def sibling(self, ending: str) -> Path:
        """Path of another file of the stream, such as `_seen.sqlite3`."""
        return self.path.with_name(self.path.name.replace("_state.json", ending))


def save_streams(states: Sequence[StreamState]) -> None:
    """Write the checkpoints of streams that are read together."""
    with contextlib.ExitStack() as held:
        for state in states:
            held.enter_context(state.lock)
        write_files([(state.path, json_lines(state.content())) for state in states])
