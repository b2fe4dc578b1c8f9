"""Which version of a row counts if the source shows a row more than once. Pure.

An id is one row, but an index that has not yet dropped an old version shows both, each at a place
of its own. The version of the last transaction counts, wherever it lies.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from bt_migrate.api.transactions import xact_of
from bt_migrate.model.json_object import JsonObject

# How many rows of a stream are remembered at least, in portions of which the oldest is forgotten as
# a whole. Of two versions that lie further apart, the comparison reports the one that should not be
# there.
REMEMBERED_ROWS = 20_000
PORTIONS = 4
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
        # The newest portion first: object id -> row id -> transaction as the row names it.
        self._portions: List[Dict[str, Dict[str, Any]]] = [{}]
        self._in_portion = 0

    def of(self, object_id: str, rows: List[JsonObject]) -> Newest:
        """Returns which rows of the next page count, and remembers them."""
        xacts = _xacts(rows)
        remembered = [portion.get(object_id, {}) for portion in self._portions]
        # the smaller of two views of keys is looked up in the larger one
        are_new = all(xacts.keys().isdisjoint(known.keys()) for known in remembered)
        if are_new and len(xacts) == len(rows):
            newest = Newest(rows, [], [])
        else:
            newest = _without_older(rows, remembered)
            xacts = _xacts(newest.rows)
        self._remember(object_id, xacts)
        return newest

    def _remember(self, object_id: str, xacts: Dict[str, Any]) -> None:
        self._portions[0].setdefault(object_id, {}).update(xacts)
        self._in_portion += len(xacts)
        if self._in_portion >= REMEMBERED_ROWS / PORTIONS:
            self._portions = [{}, *self._portions[:PORTIONS]]
            self._in_portion = 0


def _xacts(rows: Sequence[JsonObject]) -> Dict[str, Any]:
    """Returns row id -> transaction as the row names it; an equal text is kept once."""
    xacts: Dict[str, Any] = {}
    xact = None
    for row in rows:
        if row.get("_xact_id") != xact:
            xact = row.get("_xact_id")
        xacts[row["id"]] = xact
    return xacts


def _without_older(rows: Sequence[JsonObject], remembered: Sequence[Dict[str, Any]]) -> Newest:
    """`remembered`: row id -> transaction of the rows passed on before, the newest first."""
    newest = Newest([], [], [])
    counting = newest_rows(rows)
    if len(counting) < len(rows):
        chosen = set(map(id, counting))
        newest.older.extend(row["id"] for row in rows if id(row) not in chosen)
    for row in counting:
        row_id = row["id"]
        before = next((xacts[row_id] for xacts in remembered if row_id in xacts), NOT_PASSED_ON)
        is_newer = before is NOT_PASSED_ON or xact_of(before) < xact_of(row.get("_xact_id"))
        if is_newer:
            newest.rows.append(row)
        if before is not NOT_PASSED_ON:
            (newest.again if is_newer else newest.older).append(row_id)
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
