"""Findings about rows, counted, because a stream can have a million rows with the same finding."""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, Mapping, Tuple

from bt_migrate.model.equality import text_digest
from bt_migrate.model.findings import finding

# How many combinations of kind, place and reason are counted separately for a stream.
MAX_NOTES = 100
# bytes of a row's digest that go into the fingerprint
NOTE_DIGEST_BYTES = 8
# the reason of rows that failed in an earlier sync, where they are too many to be told one by one
FAILED_BEFORE = "failed in an earlier sync; see the _failed.jsonl file"
_POSITION = re.compile(r"\[\d+\]")

NoteKey = Tuple[str, ...]


class FindingCounts:
    """Counts the findings of a stream's rows by kind, place and reason.

    `count` is the number of places; `rows` counts a row with several places of a kind once. The
    first row of each is kept as an example. Not safe for several threads.
    """

    def __init__(self, records: Iterable[Dict[str, Any]] = ()) -> None:
        self._notes: Dict[NoteKey, Dict[str, Any]] = {}
        # kind -> the row that was noted last: a row's findings of a kind are added together
        self._last_rows: Dict[str, str] = {}
        for record in records:
            waited = ["waited"] if record.get("waited") else []
            key = (record["kind"], record.get("path", ""), record.get("detail", ""), *waited)
            self._notes[key] = with_rows(record)

    def add(
        self, kind: str, row_id: str, path: str = "", detail: str = "", ref: str = ""
    ) -> NoteKey:
        """Count a finding about one row. Returns its place, for `make_acceptable`."""
        key = self._noted(kind, row_id, path, detail, ref)
        self._count(key, row_id, 1)
        return key

    def add_many(
        self, kind: str, row_id: str, count: int, path: str = "", detail: str = ""
    ) -> NoteKey:
        """Count `count` findings at once, with one row as the example. Returns their place."""
        key = self._noted(kind, row_id, path, detail)
        self._count(key, row_id, count)
        return key

    def _count(self, key: NoteKey, row_id: str, count: int) -> None:
        note = self._notes[key]
        note["count"] += count
        note["rows"] += self._last_rows.get(key[0]) != row_id
        self._last_rows[key[0]] = row_id

    def add_acceptable(self, kind: str, row_id: str, digest: bytes, detail: str = "") -> None:
        """Count a finding that a person may accept."""
        self.make_acceptable(self.add(kind, row_id, detail=detail), digest)

    def make_acceptable(self, place: NoteKey, digest: bytes) -> None:
        """Let a person accept the finding that was just added.

        `digest` is of what is wrong, so that something else needs to be accepted again.
        """
        self._add_digest(place, int.from_bytes(digest[:NOTE_DIGEST_BYTES], "big"))

    def set_print(self, place: NoteKey, fingerprint: str) -> None:
        """Let a person accept the findings of a place by a fingerprint of all of them."""
        self._notes[place]["fingerprint"] = fingerprint

    def _noted(self, kind: str, row_id: str, path: str, detail: str, ref: str = "") -> NoteKey:
        """Returns the key of the note for such findings, which is added if it is missing."""
        key: NoteKey = (kind, _POSITION.sub("[]", path), detail)
        if key not in self._notes:
            if len(self._notes) >= MAX_NOTES:
                key = (kind, "", "and other places")
            note = {"kind": kind, "path": key[1], "detail": key[2], "row": row_id, "ref": ref}
            self._notes.setdefault(key, {**note, "count": 0, "rows": 0})
        return key

    def _add_digest(self, key: NoteKey, number: int) -> None:
        """Add to the sum over all rows, which does not depend on their order."""
        note = self._notes[key]
        total = (int(note.get("fingerprint", "0"), 16) + number) % (1 << 8 * NOTE_DIGEST_BYTES)
        note["fingerprint"] = f"{total:0{2 * NOTE_DIGEST_BYTES}x}"

    def merge(self, other: FindingCounts) -> None:
        """Add the counts of another object of this class."""
        for key, note in other._notes.items():
            if key in self._notes:
                self._notes[key]["count"] += note["count"]
                self._notes[key]["rows"] += note["rows"]
                if "fingerprint" in note:
                    self._add_digest(key, int(note["fingerprint"], 16))
            else:
                self._notes[key] = dict(note)

    def records(self) -> List[Dict[str, Any]]:
        return [dict(note) for note in self._notes.values()]


def print_of_all(ids: Iterable[str]) -> str:
    """Returns a fingerprint of row ids, which does not depend on their order. "" for none."""
    notes = FindingCounts()
    for row_id in ids:
        notes.add_acceptable("", "", text_digest(row_id))
    return next((str(note["fingerprint"]) for note in notes.records()), "")


def with_rows(record: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the record with the number of rows, which files of earlier versions do not have."""
    return {"rows": record["count"], **record} if "count" in record else dict(record)


def stream_findings(
    header: Dict[str, Any], records: Iterable[Dict[str, Any]]
) -> List[Dict[str, Any]]:
    """The records of a stream as findings that name its object."""
    facts = {
        "resource": header["kind"],
        "id": header["source_id"],
        "name": header["name"],
        "project": header["project"],
    }
    return [finding(**{**with_rows(record), **facts}) for record in records]
