"""Compare a sample of the rows of each object. Never writes.

The same ids are compared on both sides and in every run.

Small objects are read completely, and the rows with the lowest seeded hashes are compared. Of a
large object, ids are read at several places of its key range and looked up.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from heapq import heappop, heappush
from typing import Dict, List, Sequence, Set, Tuple

from bt_migrate.api.answers import keys_after
from bt_migrate.api.btql import Bounds, ids_query
from bt_migrate.api.transactions import key_number, pagination_key, xact_of
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.rows.query_counts import IDS_AT_PLACE, SAMPLE_PLACES
from bt_migrate.rows.streams import bounds_of
from bt_migrate.state.sqlite import id_bytes
from bt_migrate.verify.lookup import RowLookup
from bt_migrate.verify.pairs import CompareContext, ObjectPair
from bt_migrate.verify.result import MATCH, Comparison
from bt_migrate.verify.sides import ReadSide, read_pair, read_rows

SEED = b"bt_migrate"  # of the hash that chooses the rows

FormTexts = Dict[str, str]  # row id -> canonical text


def sample_small(context: CompareContext, group: Sequence[ObjectPair]) -> List[Comparison]:
    """Compare the rows with the lowest hashes, of objects that are read completely."""
    sides = read_pair(context, group)
    kind = group[0].kind
    bounds = bounds_of(context.catalog, ROW_KINDS[kind])
    wanted, actual = sides.at_once(_lowest_hashes, context, kind, bounds)
    results = []
    for pair in group:
        left, right = wanted.get(pair.source_id, {}), actual.get(pair.source_id, {})
        results.append(_compare_texts(context, pair, left, right))
    sides.count_tolerated(results[0])
    return results


def _compare_texts(
    context: CompareContext, pair: ObjectPair, wanted: FormTexts, actual: FormTexts
) -> Comparison:
    result = context.result(pair)
    ids = wanted.keys() | actual.keys()
    equal = {row_id for row_id in ids if wanted.get(row_id) == actual.get(row_id)}
    result.counts[MATCH] += len(equal)
    if ids - equal:
        lookup = RowLookup(context, pair, read_pair(context, [pair]), result)
        lookup.compare(sorted(ids - equal))
    return result


def _lowest_hashes(
    side: ReadSide, context: CompareContext, kind: str, bounds: Bounds
) -> Dict[str, FormTexts]:
    """Returns source object -> texts of the rows with the lowest hashes."""
    chosen: Dict[str, List[Tuple[int, str, int, int, JsonObject]]] = {}
    for number, (object_id, row) in enumerate(read_rows(context, side, kind, bounds)):
        rows = chosen.setdefault(object_id, [])
        # The number keeps two versions of a row from being compared as dicts.
        xact = xact_of(row.get("_xact_id"))
        heappush(rows, (-rank(row["id"]), row["id"], xact, number, row))
        if len(rows) > context.sample:
            heappop(rows)
    return {
        object_id: {row_id: side.forms.form(row, object_id).text for _, row_id, *_, row in rows}
        for object_id, rows in ((object_id, sorted(rows)) for object_id, rows in chosen.items())
    }


def rank(row_id: str) -> int:
    """Returns the seeded hash of an id: the same on both sides, and in every run."""
    return int.from_bytes(
        hashlib.blake2b(id_bytes(row_id), digest_size=8, key=SEED).digest(), "big"
    )


def sample_large(context: CompareContext, group: Sequence[ObjectPair]) -> List[Comparison]:
    """Compare rows of one large object, the only one of its group, without reading all of it."""
    (pair,) = group
    result = context.result(pair)
    sides = read_pair(context, group)
    source_ids, dest_ids = sides.at_once(_ids_at_places, context, pair)
    RowLookup(context, pair, sides, result).compare(sorted({*source_ids, *dest_ids}))
    sides.count_tolerated(result)
    return [result]


def _ids_at_places(side: ReadSide, context: CompareContext, pair: ObjectPair) -> List[str]:
    """Returns the ids with the lowest hashes from pages at several places of the key range.

    The places are the same in every run. As many ids are returned as are to be sampled.
    """
    (object_id,) = side.ids
    bounds = bounds_of(context.catalog, ROW_KINDS[pair.kind])

    def read_ids(bounds: Bounds, limit: int, *, newest_first: bool = False) -> List[JsonObject]:
        query = ids_query(pair.kind, object_id, bounds, limit, newest_first=newest_first)
        check = keys_after(bounds.after_key)
        rows: List[JsonObject] = side.api.query(query, version=side.version, check=check).json
        return rows

    first, last = read_ids(bounds, 1), read_ids(bounds, 1, newest_first=True)
    if not first or not last:
        return []
    chosen: Set[str] = set()
    shift = rank(pair.source_id) / (1 << 64)
    keys = places(first[0]["_pagination_key"], last[0]["_pagination_key"], SAMPLE_PLACES, shift)
    # Rows are clustered: if the places have too few, the rest is taken from the beginning.
    for number, key in enumerate((*keys, None), 1):
        share = math.ceil(context.sample * number / SAMPLE_PLACES) if key else context.sample
        added_ids: Set[str] = set()
        after_key = key
        while len(chosen) + len(added_ids) < share:
            rows = read_ids(replace(bounds, after_key=after_key), IDS_AT_PLACE)
            added_ids.update(row["id"] for row in rows if row["id"] not in chosen)
            # A short page is not the end: the server may limit pages to any size.
            if not rows or rows[-1]["_pagination_key"] == after_key:
                break
            after_key = rows[-1]["_pagination_key"]
        chosen.update(sorted(added_ids, key=rank)[: share - len(chosen)])
    return sorted(chosen)


def places(first: str, last: str, count: int, shift: float) -> List[str]:
    """Returns keys spread evenly over the range, each at `shift` (0 to 1) of its part."""
    low, high = key_number(first) - 1, key_number(last) - 1
    return [
        pagination_key(low + int((high - low) * (number + shift) / count))
        for number in range(count)
    ]
