"""Compare all rows. Never writes.

First by a digest for each object and day, then row by row where digests disagree.

Memory is constant: one page in use and one in flight for each side. What grows with the number of
rows lies in a private SQLite file.
"""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import replace
from functools import partial
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence

from bt_migrate.api.btql import Bounds
from bt_migrate.api.transactions import xact_of
from bt_migrate.errors import ApiError
from bt_migrate.model.equality import day_of, text_digest
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.rows.count import Summaries, day_ranges
from bt_migrate.rows.query_counts import IDS_PER_LOOKUP, ROWS_READ_TOGETHER, read_together
from bt_migrate.rows.streams import bounds_of
from bt_migrate.state.sqlite import id_bytes, id_text
from bt_migrate.verify.kept import DayDigest, DayDigests, KeptRows, SideReading
from bt_migrate.verify.lookup import RowLookup
from bt_migrate.verify.pairs import CompareContext, ObjectPair
from bt_migrate.verify.result import EXTRA, UNREADABLE, Comparison
from bt_migrate.verify.sample import sample_large, sample_small
from bt_migrate.verify.sides import (
    ReadPair,
    ReadSide,
    read_pair,
    read_rows,
    rows_of_object,
    show_rows_counted,
    shown_as_open,
)

CompareGroup = Callable[[CompareContext, Sequence[ObjectPair]], List[Comparison]]


def read_groups(pairs: Sequence[ObjectPair], counts: Summaries) -> Iterator[List[ObjectPair]]:
    """Groups of pairs of one kind that are read with one query."""

    def rows_of(pair: ObjectPair) -> Optional[int]:
        count = counts.get(pair.source_id)
        return None if count is None else count.rows

    for kind in ROW_KINDS:
        yield from read_together((pair for pair in pairs if pair.kind == kind), rows_of)


def compare_full(
    context: CompareContext, group: Sequence[ObjectPair], kept: KeptRows
) -> List[Comparison]:
    """Compare every row of every object; go on from what is `kept`."""
    with shown_as_open(context, group):
        return _alone_on_error(context, group, partial(_compare_all_rows, kept=kept))


def compare_state(context: CompareContext, pair: ObjectPair) -> Comparison:
    """Compare every row of one object as it was at a version of each side."""
    (result,) = _alone_on_error(context, [pair], _compare_versions)
    return result


def _compare_versions(context: CompareContext, group: Sequence[ObjectPair]) -> List[Comparison]:
    (pair,) = group
    result = context.result(pair)
    _compare_by_row(context, pair, result, [Bounds()])
    return [result]


def compare_sample(
    context: CompareContext, group: Sequence[ObjectPair], counts: Summaries
) -> List[Comparison]:
    """Compare some rows of every object."""
    count = counts.get(group[0].source_id)
    large = len(group) == 1 and (count is None or count.rows > ROWS_READ_TOGETHER)
    return _alone_on_error(context, group, sample_large if large else sample_small)


def _alone_on_error(
    context: CompareContext, group: Sequence[ObjectPair], compare: CompareGroup
) -> List[Comparison]:
    """Compare the group; where the API refuses it, compare each object alone.

    An object that is refused by itself is unreadable.
    """
    context.catalog.source.check()
    # Reported once the whole group is compared: after an error some objects are compared twice.
    held: List[Dict[str, Any]] = []
    try:
        held_back = replace(context, report=held.append) if len(group) > 1 else context
        results = compare(held_back, group)
    except ApiError as error:
        if error.status >= 500:
            raise
        if len(group) > 1:
            return [
                result for pair in group for result in _alone_on_error(context, [pair], compare)
            ]
        result = context.result(group[0])
        unusable = error.status == 200
        detail = str(error) if unusable else f"{error.side} answered {error.status}"
        result.add(UNREADABLE, **group[0].facts, detail=detail)
        return [result]
    for record in held:
        context.report(record)
    return results


# -- digests by day


def _compare_all_rows(
    context: CompareContext, group: Sequence[ObjectPair], *, kept: KeptRows
) -> List[Comparison]:
    sides = read_pair(context, group)
    kind = group[0].kind
    bounds = bounds_of(context.catalog, ROW_KINDS[kind])
    wanted, actual = sides.at_once(_day_digests, context, kept, kind, bounds)
    results = [_compare_days(context, pair, wanted, actual, bounds) for pair in group]
    sides.count_tolerated(results[0])
    return results


def _day_digests(
    side: ReadSide, context: CompareContext, kept: KeptRows, kind: str, bounds: Bounds
) -> DayDigests:
    reading = kept.reading(side, kind, bounds)
    if reading.rows and side.api is context.catalog.source:
        show_rows_counted(context, next(iter(side.ids.values())), reading.rows)
    if reading.complete:
        return reading.digests
    if len(side.ids) == 1:
        _read_one(side, context, kind, reading, bounds)
    else:
        for object_id, row in read_rows(context, side, kind, bounds):
            _add_row(reading, side, object_id, row)
    reading.end()
    return reading.digests


def _add_row(reading: SideReading, side: ReadSide, object_id: str, row: JsonObject) -> None:
    reading.add(object_id, day_of(row.get("created")), side.forms.form(row, object_id))


def _read_one(
    side: ReadSide, context: CompareContext, kind: str, reading: SideReading, bounds: Bounds
) -> None:
    """Read the rest of one object, which is kept page by page."""
    ((there, source_id),) = side.ids.items()
    counted = context.counted_rows([there])
    if counted == 0:
        return
    expected = None if counted is None else max(0, counted - reading.rows)
    for page in rows_of_object(context, side, kind, reading.rest_of(bounds), expected):
        for row in page.rows:
            _add_row(reading, side, source_id, row)
        reading.end_page(page)


def _compare_days(
    context: CompareContext,
    pair: ObjectPair,
    wanted: DayDigests,
    actual: DayDigests,
    bounds: Bounds,
) -> Comparison:
    result = context.result(pair)
    days = sorted({day for object_id, day in (*wanted, *actual) if object_id == pair.source_id})
    differs = {}
    for day in days:
        left = wanted.get((pair.source_id, day), DayDigest())
        right = actual.get((pair.source_id, day), DayDigest())
        differs[day] = not left.equals(right)
    if differs.get(""):
        # Rows without a readable date can only be found among all rows.
        differs = dict.fromkeys(differs, True)
    for day in days:
        if not differs[day]:
            _add_equal_day(wanted[pair.source_id, day], actual[pair.source_id, day], result, day)
    if any(differs.values()):
        _compare_by_row(context, pair, result, day_ranges(differs, bounds))
    return result


def _add_equal_day(wanted: DayDigest, actual: DayDigest, result: Comparison, day: str) -> None:
    result.add_matches(wanted.rows, day)
    if wanted.exact != actual.exact:
        result.tolerated["timestamp"] += max(wanted.stamps, actual.stamps)


# -- row by row

# Of two versions of a row, the one of the last transaction counts.
_ADD_ROW = {
    table: (
        f"insert or replace into {table} values (:id, :day,"
        f" coalesce((select digest from {table} where id = :id and xact > :xact), :digest),"
        f" 1 + coalesce((select times from {table} where id = :id), 0),"
        f" max(:xact, coalesce((select xact from {table} where id = :id), 0)))"
    )
    for table in ("wanted", "found")
}
_EQUAL_ROWS = (
    "select count(*), wanted.day from wanted join found using (id, digest) group by wanted.day"
)
_REPEATED_ROWS = (
    "select id, wanted.day, wanted.times, found.times from found join wanted using (id)"
    " where found.times > wanted.times"
)
_UNEQUAL_ROWS = (
    "select wanted.id from wanted left join found on found.id = wanted.id"
    " where found.digest is not wanted.digest"
    " union all select id from found where id not in (select id from wanted)"
)


def _compare_by_row(
    context: CompareContext, pair: ObjectPair, result: Comparison, ranges: Iterable[Bounds]
) -> None:
    """Compare a part of one object by the digest of each row; look up what disagrees.

    The digests of both sides lie in a private SQLite file.
    """
    sides = read_pair(context, [pair])
    db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    try:
        _load_digests(context, pair, sides, db, ranges)
        for rows, day in db.execute(_EQUAL_ROWS):
            result.add_matches(rows, day)
        for row_id, day, wanted, actual in db.execute(_REPEATED_ROWS):
            detail = f"there {actual} times instead of {wanted}"
            result.add(EXTRA, **pair.facts, row=id_text(row_id), day=day, detail=detail)
        lookup = RowLookup(context, pair, sides, result)
        unequal = db.execute(_UNEQUAL_ROWS)
        ids = unequal.fetchmany(IDS_PER_LOOKUP)
        while ids:
            lookup.compare([id_text(row_id) for (row_id,) in ids])
            ids = unequal.fetchmany(IDS_PER_LOOKUP)
    finally:
        db.close()


def _load_digests(
    context: CompareContext,
    pair: ObjectPair,
    sides: ReadPair,
    db: sqlite3.Connection,
    ranges: Iterable[Bounds],
) -> None:
    lock = threading.Lock()

    def load(side: ReadSide, bounds: Bounds) -> None:
        add_row = _ADD_ROW["wanted" if side is sides.source else "found"]
        for object_id, row in read_rows(context, side, pair.kind, bounds):
            digest = text_digest(side.forms.form(row, object_id).text)
            xact = xact_of(row.get("_xact_id"))
            with lock:
                day = day_of(row.get("created"))
                values = {"id": id_bytes(row["id"]), "day": day, "digest": digest, "xact": xact}
                db.execute(add_row, values)

    for table in _ADD_ROW:
        columns = "id blob primary key, day text, digest blob, times integer, xact integer"
        db.execute(f"create table {table} ({columns}) without rowid")
    db.execute("begin")
    for bounds in ranges:
        sides.at_once(load, bounds)
