"""Looks up rows in the destination by their ids, for rows of the source that are to be sent."""

from __future__ import annotations

from typing import Dict, Iterator, List, Mapping, Tuple

from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resources import RowKind
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.read import found_rows
from bt_migrate.rows.streams import StreamCopy

# Row ids in one query. An id can occur in two objects, and both rows must fit into the answer.
IDS_LOOKED_UP = 500
# Bytes of the rows in one answer, estimated from the rows that are to be sent.
BYTES_LOOKED_UP = 8 << 20

RowsById = Mapping[str, JsonObject]  # row id -> row
# source object -> row id -> the destination's row
Found = Dict[str, Dict[str, JsonObject]]
Refusals = Dict[str, ApiError]  # row id -> how the destination refuses it in a query


class DestRows:
    """The destination's rows of the objects of one stream."""

    def __init__(self, catalog: Catalog, kind: RowKind, members: Mapping[str, StreamCopy]) -> None:
        self._catalog = catalog
        self._kind = kind
        self._members = members

    def look_up(self, wanted: Mapping[str, Mapping[str, int]]) -> Tuple[Found, Refusals]:
        """Returns the rows that exist in the destination, and the ids that it refuses in a query.

        `wanted`: source object -> row id -> bytes of the new row, as an estimate for the existing
        row.
        """
        dest_rows: Found = {object_id: {} for object_id in wanted}
        refusals: Refusals = {}
        alone = list(wanted)
        ids = list(dict.fromkeys(row_id for sizes in wanted.values() for row_id in sizes))
        size = sum(sum(sizes.values()) for sizes in wanted.values())
        if len(wanted) > 1 and len(ids) <= IDS_LOOKED_UP and size <= BYTES_LOOKED_UP:
            alone = self._look_up_together(wanted, ids, dest_rows, refusals)
        for object_id in alone:
            dest_id = self._members[object_id].stream.dest_id
            for portion in lookups(wanted[object_id]):
                dest = self._catalog.dest
                rows, refused = found_rows(dest, self._kind.name, [dest_id], portion)
                dest_rows[object_id].update((row["id"], row) for row in rows)
                refusals.update(refused)
        return dest_rows, refusals

    def _look_up_together(
        self,
        wanted: Mapping[str, Mapping[str, int]],
        ids: List[str],
        dest_rows: Found,
        refusals: Refusals,
    ) -> List[str]:
        """Look up rows of several objects with one query; returns the objects to query alone.

        Ids are unique only inside an object, so the answer may hold rows of other objects, and
        reach its limit, or that of the server, because of them.
        """
        dest = self._catalog.dest
        by_dest = {self._members[object_id].stream.dest_id: object_id for object_id in wanted}
        rows, refused = found_rows(dest, self._kind.name, list(by_dest), ids)
        refusals.update(refused)
        if len(rows) >= dest.capabilities.query_limit.most:
            return list(wanted)
        for row in rows:
            object_id = by_dest[row[self._kind.id_field]]
            if row["id"] in wanted[object_id]:
                dest_rows[object_id][row["id"]] = row
        shown = {row[self._kind.id_field] for row in rows}
        dest.capabilities.reads_groups = dest.capabilities.reads_groups or len(shown) > 1
        if not dest.capabilities.reads_groups:
            return [object_id for dest_id, object_id in by_dest.items() if dest_id not in shown]
        shown_ids = {row["id"] for row in rows}
        return [
            object_id
            for object_id, sizes in wanted.items()
            if not shown_ids.isdisjoint(sizes.keys() - dest_rows[object_id].keys())
        ]


def lookups(sizes: Mapping[str, int]) -> Iterator[List[str]]:
    """Yields row ids for one query each.

    At most IDS_LOOKED_UP ids, of rows with at most BYTES_LOOKED_UP bytes.
    """
    ids: List[str] = []
    size = 0
    for row_id, row_bytes in sizes.items():
        if ids and (len(ids) == IDS_LOOKED_UP or size + row_bytes > BYTES_LOOKED_UP):
            yield ids
            ids = []
            size = 0
        ids.append(row_id)
        size += row_bytes
    if ids:
        yield ids
