"""Which version of a row counts if the source shows a row more than once. Pure.

An id is one row, but an index that has not yet dropped an old version shows both, each at a place
of its own. The version of the last transaction counts, wherever it lies.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from bt_migrate.api.transactions import xact_of
from bt_migrate.model.json_object import JsonObject

# How many rows of a stream are remembered at least, and at most twice as many. Of two versions that
# lie further apart, the comparison reports the one that should not be there.
MAX_REMEMBERED_ROWS = 20_000
NOT_PASSED_ON = object()


class Newest(NamedTuple):
    """Rows of one object, without versions that a later transaction replaced."""

    rows: List[JsonObject]
    # ids of the versions that were left out
    older: List[str]
    # ids of rows of which an older version was passed on before
    again: List[str]


class NewestVersions:
    """Row ids of a stream and their transactions, of the rows that were passed on last."""

    def __init__(self) -> None:
        # (object id, row id) -> transaction as the row names it
        self._recent: Dict[Tuple[str, str], Any] = {}
        self._earlier: Dict[Tuple[str, str], Any] = {}

    def of(self, object_id: str, rows: List[JsonObject]) -> Newest:
        """Returns which rows of the next page count, and remembers them."""
        places = {(object_id, row["id"]): row.get("_xact_id") for row in rows}
        remembered = (self._recent.keys(), self._earlier.keys())
        if len(places) == len(rows) and all(map(places.keys().isdisjoint, remembered)):
            newest = Newest(rows, [], [])
        else:
            newest = self._without_older(object_id, rows)
            places = {(object_id, row["id"]): row.get("_xact_id") for row in newest.rows}
        self._recent.update(places)
        if len(self._recent) > MAX_REMEMBERED_ROWS:
            self._earlier, self._recent = self._recent, {}
        return newest

    def _without_older(self, object_id: str, rows: Sequence[JsonObject]) -> Newest:
        newest = Newest([], [], [])
        counting = newest_rows(rows)
        if len(counting) < len(rows):
            chosen = set(map(id, counting))
            newest.older.extend(row["id"] for row in rows if id(row) not in chosen)
        for row in counting:
            place = (object_id, row["id"])
            before = self._recent.get(place, self._earlier.get(place, NOT_PASSED_ON))
            is_newer = before is NOT_PASSED_ON or xact_of(before) < xact_of(row.get("_xact_id"))
            if is_newer:
                newest.rows.append(row)
            if before is not NOT_PASSED_ON:
                (newest.again if is_newer else newest.older).append(row["id"])
        return newest


def newest_rows(rows: Sequence[JsonObject], id_field: str = "") -> List[JsonObject]:
    """Returns the rows without older versions, in their order.

    `id_field` names the object of a row, where rows of several objects are among them.
    """
    newest: Dict[Tuple[object, str], JsonObject] = {}
    for row in rows:
        place = (row.get(id_field), row["id"])
        other = newest.get(place, row)
        if xact_of(other.get("_xact_id")) <= xact_of(row.get("_xact_id")):
            newest[place] = row
    if len(newest) == len(rows):
        return list(rows)
    chosen = set(map(id, newest.values()))
    return [row for row in rows if id(row) in chosen]
