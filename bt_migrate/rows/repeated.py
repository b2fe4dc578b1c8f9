"""Which version of a row counts if the source shows a row more than once. Pure.

An id is one row, but an index that has not yet dropped an old version shows both, each at a place
of its own. The version of the last transaction counts, wherever it lies.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Sequence, Tuple

from bt_migrate.api.transactions import xact_of

# How many rows of a stream are remembered. Of two versions that lie further apart, the comparison
# reports the one that should not be there.
MAX_REMEMBERED_ROWS = 20_000


class Newest(NamedTuple):
    """Rows of one object without the versions that do not count."""

    rows: List[dict]
    # ids of the versions that were left out
    older: List[str]
    # ids of rows of which an older version was passed on before
    again: List[str]


class NewestVersions:
    """Row ids of a stream and their transactions, of the rows that were passed on last."""

    def __init__(self) -> None:
        self._xacts: Dict[Tuple[str, str], int] = {}

    def of(self, object_id: str, rows: Sequence[dict]) -> Newest:
        """Returns which rows of the next page count, and remembers them."""
        newest = Newest([], [], [])
        counting = newest_rows(rows)
        if len(counting) < len(rows):
            chosen = set(map(id, counting))
            newest.older.extend(row["id"] for row in rows if id(row) not in chosen)
        for row in counting:
            place = (object_id, row["id"])
            xact = xact_of(row.get("_xact_id"))
            before = self._xacts.pop(place, None)
            self._xacts[place] = xact if before is None else max(before, xact)
            if before is not None:
                (newest.again if before < xact else newest.older).append(row["id"])
            if before is None or before < xact:
                newest.rows.append(row)
        while len(self._xacts) > MAX_REMEMBERED_ROWS:
            del self._xacts[next(iter(self._xacts))]
        return newest


def newest_rows(rows: Sequence[dict], id_field: str = "") -> List[dict]:
    """Returns the rows without older versions, in their order.

    `id_field` names the object of a row, where rows of several objects are among them.
    """
    newest: Dict[Tuple[object, str], dict] = {}
    for row in rows:
        place = (row.get(id_field), row["id"])
        known = newest.get(place, row)
        if xact_of(known.get("_xact_id")) <= xact_of(row.get("_xact_id")):
            newest[place] = row
    if len(newest) == len(rows):
        return list(rows)
    chosen = set(map(id, newest.values()))
    return [row for row in rows if id(row) in chosen]
