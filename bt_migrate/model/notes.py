"""Findings about rows, counted: one stream can have a million rows with the same finding."""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, Tuple

from bt_migrate.model.findings import finding

# Kinds x places x reasons of one stream that are counted apart.
MAX_NOTES = 100
# of the fingerprint of rows
DIGEST_BYTES = 8
_POSITION = re.compile(r"\[\d+\]")

NoteKey = Tuple[str, ...]


class FindingCounts:
    """Findings of the rows of a stream, by kind, place and reason, with the first row as example.

    For one thread.
    """

    def __init__(self, records: Iterable[Dict[str, Any]] = ()) -> None:
        self._notes: Dict[NoteKey, Dict[str, Any]] = {}
        for record in records:
            waited = ["waited"] if record.get("waited") else []
            key = (record["kind"], record.get("path", ""), record.get("detail", ""), *waited)
            self._notes[key] = dict(record)

    def add(
        self,
        kind: str,
        row_id: str,
        path: str = "",
        detail: str = "",
        ref: str = "",
        count: int = 1,
        digest: bytes = b"",
    ) -> None:
        """`digest`: of the content of the row, where a person may accept what is noted."""
        key: NoteKey = (kind, _POSITION.sub("[]", path), detail)
        if key not in self._notes:
            if len(self._notes) >= MAX_NOTES:
                key = (kind, "", "and other places")
            note = {"kind": kind, "path": key[1], "detail": key[2], "row": row_id, "ref": ref}
            self._notes.setdefault(key, {**note, "count": 0})
        self._notes[key]["count"] += count
        if digest:
            self._add_digest(key, int.from_bytes(digest[:DIGEST_BYTES], "big"))

    def _add_digest(self, key: NoteKey, number: int) -> None:
        """The fingerprint of several rows is the sum of theirs, which no order changes."""
        note = self._notes[key]
        total = (int(note.get("fingerprint", "0"), 16) + number) % (1 << 8 * DIGEST_BYTES)
        note["fingerprint"] = f"{total:0{2 * DIGEST_BYTES}x}"

    def merge(self, other: FindingCounts) -> None:
        """Add the counts of another object of this class."""
        for key, note in other._notes.items():
            if key in self._notes:
                self._notes[key]["count"] += note["count"]
                if "fingerprint" in note:
                    self._add_digest(key, int(note["fingerprint"], 16))
            else:
                self._notes[key] = dict(note)

    def records(self) -> List[Dict[str, Any]]:
        return [dict(note) for note in self._notes.values()]


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
    return [finding(**{**record, **facts}) for record in records]
