"""notes."""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, Tuple

from bt_migrate.model.findings import finding

MAX_KINDS_OF_NOTES = 100  # kinds x places x reasons of one stream that are told apart
_POSITION = re.compile(r"\[\d+\]")


class FindingCounts:
    """What is to be told of the rows of a stream: counted by kind, place and reason, with the first row as example.

    For one thread.
    """

    def __init__(self, findings: Iterable[Dict[str, Any]] = ()) -> None:
        self._notes: Dict[Tuple[str, ...], Dict[str, Any]] = {}
        for one in findings:
            self._notes[
                (
                    one["kind"],
                    one.get("path", ""),
                    one.get("detail", ""),
                    *(["waited"] if one.get("waited") else []),
                )
            ] = dict(one)

    def add(
        self,
        kind: str,
        row_id: str,
        path: str = "",
        detail: str = "",
        ref: str = "",
        count: int = 1,
    ) -> None:
        where: Tuple[str, ...] = (kind, _POSITION.sub("[]", path), detail)
        if where not in self._notes:
            if len(self._notes) >= MAX_KINDS_OF_NOTES:
                where = (kind, "", "and other places")
            self._notes.setdefault(
                where,
                {
                    "kind": kind,
                    "path": where[1],
                    "detail": where[2],
                    "row": row_id,
                    "ref": ref,
                    "count": 0,
                },
            )
        self._notes[where]["count"] += count

    def merge(self, other: FindingCounts) -> None:
        """Add the counts of other notes."""
        for where, one in other._notes.items():
            if where in self._notes:
                self._notes[where]["count"] += one["count"]
            else:
                self._notes[where] = dict(one)

    def records(self) -> List[Dict[str, Any]]:
        return [dict(one) for one in self._notes.values()]


def stream_findings(
    header: Dict[str, Any], records: Iterable[Dict[str, Any]]
) -> List[Dict[str, Any]]:
    """The notes of a stream as findings that name its object."""
    facts = {
        "resource": header["kind"],
        "id": header["source_id"],
        "name": header["name"],
        "project": header["project"],
    }
    return [
        finding(
            one["kind"], **facts, **{name: value for name, value in one.items() if name != "kind"}
        )
        for one in records
    ]
