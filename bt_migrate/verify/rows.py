"""Rows by content: all of them by a digest for each day, or a sample; then, where these disagree only, row by row. Never writes.

Memory is constant: a page in use and one on its way for each side; what grows with the rows lies in a private file.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import repeat
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from bt_migrate.api.btql import OBJECTS_PER_COUNT, Bounds, ids_query
from bt_migrate.api.client import Api
from bt_migrate.api.transactions import key_number, pagination_key, xact_of, xact_seconds
from bt_migrate.errors import ApiError
from bt_migrate.model.equality import day_of, differing_paths, text_digest
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.rows.count import Summaries, day_ranges
from bt_migrate.rows.read import pages, rows_of_ids
from bt_migrate.rows.rewrite import COMMENTS
from bt_migrate.rows.streams import bounds_of
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.verify.counts import CompareContext, Pair, copy_second
from bt_migrate.verify.normalize import DestForms, Form, SourceForms
from bt_migrate.verify.objects import (
    DIFFERS,
    EXTRA,
    MATCH,
    MISSING,
    UNREADABLE,
    Comparison,
    first_paths,
)

ROWS_TOGETHER = 2000  # objects whose rows are fewer in all are read together
ROWS_LOOKED_UP = 50  # ids in one query for single rows
SAMPLE_PLACES = 4  # of the key range of a large object, from which its sample is taken
IDS_AT_PLACE = 500  # read there
SEED = b"bt_migrate"  # of the hash that chooses a sample
NEVER = 1 << 62  # a second after which nothing was written

Forms = Any  # SourceForms or DestForms: both have form() and tolerated


@dataclass(frozen=True)
class ReadSide:
    """One side of a group of objects while it is read. `ids`: object id on this side -> the source's."""

    api: Api
    ids: Mapping[str, str]
    forms: Forms


@dataclass
class Day:
    """The rows of one object and day: how many, and sums of hashes, which no order changes. Of one process, whose hashes are seeded."""

    rows: int = 0
    canonical: int = 0
    exact: int = 0
    stamps: int = 0

    def add(self, form: Form) -> None:
        self.rows += 1
        self.canonical += hash(form.text)
        self.exact += hash(form.exact)
        self.stamps += form.stamps


Days = Dict[Tuple[str, str], Day]  # by source object and day


def batches_of(pairs: Sequence[Pair], counts: Summaries) -> Iterator[List[Pair]]:
    """Pairs of one kind that are read together: small objects up to ROWS_TOGETHER rows, large ones and uncounted ones alone."""
    for kind in ROW_KINDS:
        batch: List[Pair] = []
        held = 0
        for pair in (one for one in pairs if one.kind == kind):
            count = counts.get(pair.source_id)
            rows = ROWS_TOGETHER if count is None else count.rows
            if batch and (held + rows > ROWS_TOGETHER or len(batch) == OBJECTS_PER_COUNT):
                yield batch
                batch, held = [], 0
            batch.append(pair)
            held += rows
        if batch:
            yield batch


def compare_full(sides: CompareContext, batch: Sequence[Pair]) -> List[Comparison]:
    """Every row of every object."""
    return _each_alone_on_error(sides, batch, _full)


def compare_sample(sides: CompareContext, batch: Sequence[Pair]) -> List[Comparison]:
    """Some rows of every object, the same on both sides: those whose seeded hash is lowest."""
    return _each_alone_on_error(sides, batch, _sample)


def _each_alone_on_error(
    sides: CompareContext,
    batch: Sequence[Pair],
    compare: Callable[[CompareContext, Sequence[Pair]], List[Comparison]],
) -> List[Comparison]:
    """What the API says of one object is that object's: unreadable, and the others are read without it."""
    sides.catalog.source.check()
    told: List[
        Dict[str, Any]
    ] = []  # of several objects nothing is told until all are compared: some may be compared twice
    try:
        results = compare(replace(sides, tell=told.append) if len(batch) > 1 else sides, batch)
    except ApiError as error:
        if error.status >= 500:
            raise
        if len(batch) > 1:
            return [one for pair in batch for one in _each_alone_on_error(sides, [pair], compare)]
        result = sides.result(batch[0])
        result.add(UNREADABLE, **batch[0].facts, detail=f"{error.side} answered {error.status}")
        return [result]
    for record in told:
        sides.tell(record)
    return results


def _both(sides: CompareContext, batch: Sequence[Pair]) -> Tuple[ReadSide, ReadSide]:
    catalog, kind = sides.catalog, ROW_KINDS[batch[0].kind]
    source = SourceForms(catalog, kind, sides.bytes_of.source)
    dest = DestForms(catalog, kind, sides.bytes_of.dest)
    return (
        ReadSide(catalog.source, {pair.source_id: pair.source_id for pair in batch}, source),
        ReadSide(catalog.dest, {pair.dest_id: pair.source_id for pair in batch}, dest),
    )


def _together(
    function: Callable[..., Any], source: ReadSide, dest: ReadSide, *more: Any
) -> List[Any]:
    """The function of both sides, at the same time."""
    with ThreadPoolExecutor(2, thread_name_prefix="side") as pool:
        return [
            one.result() for one in [pool.submit(function, side, *more) for side in (source, dest)]
        ]


def _read(
    sides: CompareContext, side: ReadSide, kind_name: str, bounds: Bounds
) -> Iterator[Tuple[str, dict]]:
    """(source object, row) of all rows inside the bounds.

    A server that knew only the first id of a FROM would leave the others without rows and without a word: until it has shown
    rows of two objects together, each object that seems empty is asked for alone.
    """
    kind, ids = ROW_KINDS[kind_name], list(side.ids)
    limit = sides.catalog.settings.rows(kind_name).fetch_limit
    shown: Set[str] = set()
    for page in pages(side.api, kind_name, ids, bounds, limit=limit):
        side.api.check()
        if len(ids) == 1:
            yield from zip(repeat(side.ids[ids[0]]), page.rows)
            continue
        for row in page.rows:
            found = row[kind.id_field]
            shown.add(found)
            yield side.ids[found], row
    if len(ids) == 1:
        return
    side.api.reads_groups = side.api.reads_groups or len(shown) > 1
    for one in ids if not side.api.reads_groups else ():
        if one not in shown:
            yield from _read(sides, replace(side, ids={one: side.ids[one]}), kind_name, bounds)


# -- all rows


def _full(sides: CompareContext, batch: Sequence[Pair]) -> List[Comparison]:
    """Digests by day, then the days that disagree row by row."""
    source, dest = _both(sides, batch)
    kind = batch[0].kind
    bounds = bounds_of(sides.catalog, ROW_KINDS[kind])
    wanted, found = _together(_days, source, dest, sides, kind, bounds)
    results = []
    for pair in batch:
        result = sides.result(pair)
        unequal = {
            day: not _equal_day(wanted, found, pair.source_id, day)
            for day in _days_of(pair, wanted, found)
        }
        if unequal.get(""):  # rows without a readable date can only be found among all
            unequal = dict.fromkeys(unequal, True)
        for day in (day for day, differs in unequal.items() if not differs):
            _add_equal_day(wanted, found, (pair.source_id, day), result)
        if any(unequal.values()):
            _descend(sides, pair, result, day_ranges(unequal, bounds))
        results.append(result)
    for side in (source, dest):
        results[0].tolerated.update(side.forms.tolerated)
    return results


def _days(side: ReadSide, sides: CompareContext, kind: str, bounds: Bounds) -> Days:
    days: Days = {}
    for object_id, row in _read(sides, side, kind, bounds):
        where = (object_id, day_of(row.get("created")))
        if where not in days:
            days[where] = Day()
        days[where].add(side.forms.form(row, object_id))
    return days


def _days_of(pair: Pair, wanted: Days, found: Days) -> List[str]:
    return sorted({day for object_id, day in (*wanted, *found) if object_id == pair.source_id})


def _equal_day(wanted: Days, found: Days, source_id: str, day: str) -> bool:
    left, right = wanted.get((source_id, day), Day()), found.get((source_id, day), Day())
    return (left.rows, left.canonical) == (right.rows, right.canonical)


def _add_equal_day(wanted: Days, found: Days, where: Tuple[str, str], result: Comparison) -> None:
    left, right = wanted[where], found[where]
    result.counts[MATCH] += left.rows
    if left.exact != right.exact:
        result.tolerated["timestamp"] += max(left.stamps, right.stamps)


def _descend(
    sides: CompareContext, pair: Pair, result: Comparison, ranges: Iterable[Bounds]
) -> None:
    """Row by row through a part of one object. Digests of both sides lie in a private SQLite file; what disagrees is looked up."""
    source, dest = _both(sides, [pair])
    db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
    lock = threading.Lock()

    def load(side: ReadSide, bounds: Bounds) -> None:
        add = _ADD["wanted" if side is source else "found"]
        for object_id, row in _read(sides, side, pair.kind, bounds):
            digest = text_digest(side.forms.form(row, object_id).text)
            with lock:
                db.execute(add, {"id": _blob(row["id"]), "digest": digest})

    try:
        for table in _ADD:
            db.execute(
                f"create table {table} (id blob primary key, digest blob, times integer) without rowid"
            )
        db.execute("begin")
        for bounds in ranges:
            _together(load, source, dest, bounds)
        result.counts[MATCH] += db.execute(
            "select count(*) from wanted join found using (id, digest)"
        ).fetchone()[0]
        for row_id, times, more in db.execute(_DOUBLED):
            result.add(
                EXTRA,
                **pair.facts,
                row=_text(row_id),
                detail=f"there {more} times instead of {times}",
            )
        unequal = db.execute(_UNEQUAL)
        looking = _LookUp(sides, pair, result, source, dest)
        while True:
            ids = [_text(one) for (one,) in unequal.fetchmany(ROWS_LOOKED_UP)]
            if not ids:
                return
            looking.compare(ids)
    finally:
        db.close()


_ADD = {
    table: f"insert or replace into {table} values (:id, :digest, 1 + coalesce((select times from {table} where id = :id), 0))"
    for table in ("wanted", "found")
}
_DOUBLED = "select id, wanted.times, found.times from found join wanted using (id) where found.times > wanted.times"
_UNEQUAL = (
    "select wanted.id from wanted left join found on found.id = wanted.id where found.digest is not wanted.digest"
    " union all select id from found where id not in (select id from wanted)"
)


def _blob(row_id: str) -> bytes:
    """An id may hold a lone surrogate, which SQLite's text may not."""
    return row_id.encode("utf-8", "surrogatepass")


def _text(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogatepass")


# -- single rows


class _LookUp:
    """Rows of one object by their ids, on both sides, until it is certain what became of them."""

    def __init__(
        self,
        sides: CompareContext,
        pair: Pair,
        result: Comparison,
        source: ReadSide,
        dest: ReadSide,
    ) -> None:
        self.sides, self.pair, self.result, self.source, self.dest = (
            sides,
            pair,
            result,
            source,
            dest,
        )
        self._copied_at: Optional[int] = None

    def compare(self, ids: Sequence[str]) -> None:
        """An outcome for each id. A destination that does not show a row, or an old state of it, is given time."""
        open_ids = list(ids)
        while open_ids:
            wanted, found = _together(self._fetch, self.source, self.dest, open_ids)
            behind = [
                one
                for one in open_ids
                if one in wanted and (one not in found or found[one][1].text != wanted[one][1].text)
            ]
            patient = bool(behind) and self.sides.patience.wait()
            settled = [one for one in open_ids if one not in behind] if patient else open_ids
            self._judge(settled, wanted, found)
            open_ids = behind if patient else []

    def _fetch(self, side: ReadSide, ids: Sequence[str]) -> Dict[str, Tuple[dict, Form]]:
        """The rows of these ids that there are."""
        rows = rows_of_ids(side.api, self.pair.kind, list(side.ids), ids)
        return {row["id"]: (row, side.forms.form(row, self.pair.source_id)) for row in rows}

    def _judge(
        self,
        ids: Sequence[str],
        wanted: Mapping[str, Tuple[dict, Form]],
        found: Mapping[str, Tuple[dict, Form]],
    ) -> None:
        delivered = self._delivered(ids)
        for row_id in ids:
            facts = {**self.pair.facts, "row": row_id}
            if row_id not in wanted:
                if row_id in found:
                    ours = row_id in delivered or self._is_ours(
                        found[row_id][1]
                    )  # so the source had it then
                    self.result.add(EXTRA, since=ours, **facts)
                continue
            newer = self._is_newer(wanted[row_id][1], delivered.get(row_id))
            if row_id not in found:
                self.result.add(MISSING, since=newer, **facts)
                continue
            paths = self._paths(wanted[row_id][1], *found[row_id])
            self.result.add(DIFFERS if paths else MATCH, since=newer, **facts, fields=paths)

    def _delivered(self, ids: Sequence[str]) -> Dict[str, Tuple[int, str]]:
        """row id -> (transaction, outcome) of what the run is known to have delivered."""
        if self.pair.seen is None:
            return {}
        seen = SeenRows(self.pair.seen)
        try:
            return seen.outcomes_of(self.pair.source_id, ids) if seen.holds_rows() else {}
        finally:
            seen.close()

    def _is_newer(self, form: Form, delivered: Optional[Tuple[int, str]]) -> bool:
        """Whether the source wrote this state of the row after the copy."""
        if delivered:
            return xact_of(form.xact) > delivered[0]
        if self._copied_at is None:
            self._copied_at = copy_second(self.sides.catalog, self.pair) or NEVER
        return xact_seconds(xact_of(form.xact)) > self._copied_at

    def _is_ours(self, form: Form) -> bool:
        """Whether the destination's row was written while the run copied."""
        written = xact_seconds(xact_of(form.xact))
        return (
            self.pair.copied is not None
            and int(self.pair.copied[0]) <= written <= self.pair.copied[1]
        )

    def _paths(self, wanted: Form, found_row: Mapping[str, Any], found: Form) -> List[str]:
        """Where the destination's row is not what it should be."""
        tolerated = self.result.tolerated
        if wanted.text == found.text:
            tolerated["timestamp"] += (
                max(wanted.stamps, found.stamps) if wanted.exact != found.exact else 0
            )
            return []
        left, right = json.loads(wanted.text), json.loads(found.text)
        if "origin" in right and "origin" not in left:
            del right["origin"]
            tolerated["origin"] += 1
        if COMMENTS in left and COMMENTS not in found_row and not self.dest.api.shows_comments:
            del left[COMMENTS]
            tolerated["comments_unreadable"] += 1
        theirs = right.get(COMMENTS) or {}
        for name, (date, _) in (left.get(COMMENTS) or {}).items():
            if date is None and name in theirs:  # the destination gave it one
                theirs[name][0] = None
                tolerated["unset"] += 1
        return first_paths(differing_paths(left, right, "", tolerated))


# -- a sample


def _sample(sides: CompareContext, batch: Sequence[Pair]) -> List[Comparison]:
    """Objects read as a whole, the rows of lowest hash compared."""
    source, dest = _both(sides, batch)
    kind = batch[0].kind
    bounds = bounds_of(sides.catalog, ROW_KINDS[kind])
    wanted, found = _together(_lowest, source, dest, sides, kind, bounds)
    results = []
    for pair in batch:
        result = sides.result(pair)
        left, right = wanted.get(pair.source_id, {}), found.get(pair.source_id, {})
        unequal = [
            one
            for one in left.keys() | right.keys()
            if one not in left or one not in right or left[one] != right[one]
        ]
        result.counts[MATCH] += len(left.keys() | right.keys()) - len(unequal)
        if unequal:
            _look_up(sides, pair, result, *_both(sides, [pair]), sorted(unequal))
        results.append(result)
    for side in (source, dest):
        results[0].tolerated.update(side.forms.tolerated)
    return results


def _lowest(
    side: ReadSide, sides: CompareContext, kind: str, bounds: Bounds
) -> Dict[str, Dict[str, str]]:
    """source object -> row id -> exact text, of the rows whose hash is lowest."""
    chosen: Dict[str, List[Tuple[int, str, dict]]] = {}
    for object_id, row in _read(sides, side, kind, bounds):
        rows = chosen.setdefault(object_id, [])
        heappush(rows, (-rank(row["id"]), row["id"], row))
        if len(rows) > sides.sample:
            heappop(rows)
    return {
        object_id: {row_id: side.forms.form(row, object_id).text for _, row_id, row in rows}
        for object_id, rows in chosen.items()
    }


def rank(row_id: str) -> int:
    """The seeded hash of an id: the same on both sides, and in every run."""
    return int.from_bytes(hashlib.blake2b(_blob(row_id), digest_size=8, key=SEED).digest(), "big")


def compare_large_sample(sides: CompareContext, batch: Sequence[Pair]) -> List[Comparison]:
    """A sample of one large object, not all of which is read: ids from some places of both sides, those of lowest hash looked up."""
    return _each_alone_on_error(sides, batch, _large_sample)


def _large_sample(sides: CompareContext, batch: Sequence[Pair]) -> List[Comparison]:
    (pair,) = batch
    result = sides.result(pair)
    source, dest = _both(sides, batch)
    ids = {one for found in _together(_ids_at_places, source, dest, sides, pair) for one in found}
    _look_up(sides, pair, result, source, dest, sorted(ids))
    for side in (source, dest):
        result.tolerated.update(side.forms.tolerated)
    return [result]


def _ids_at_places(side: ReadSide, sides: CompareContext, pair: Pair) -> List[str]:
    """Ids of lowest hash out of pages at some places of the key range, the same places in every run: as many as were asked for."""
    (own_id,) = side.ids
    bounds = bounds_of(sides.catalog, ROW_KINDS[pair.kind])

    def ids(bounds: Bounds, limit: int, *, newest_first: bool = False) -> List[dict]:
        return side.api.query(
            ids_query(pair.kind, own_id, bounds, limit, newest_first=newest_first)
        ).json

    first, last = ids(bounds, 1), ids(bounds, 1, newest_first=True)
    if not first or not last:
        return []
    chosen: Set[str] = set()
    shift = rank(pair.source_id) / (1 << 64)
    keys = places(first[0]["_pagination_key"], last[0]["_pagination_key"], SAMPLE_PLACES, shift)
    for number, key in enumerate(
        (*keys, None), 1
    ):  # rows lie in lumps: what the places lack is taken from the beginning
        share = math.ceil(sides.sample * number / SAMPLE_PLACES) if key else sides.sample
        more: Set[str] = set()
        behind = key
        while len(chosen) + len(more) < share:
            rows = ids(replace(bounds, after_key=behind), IDS_AT_PLACE)
            more.update(row["id"] for row in rows if row["id"] not in chosen)
            if len(rows) < IDS_AT_PLACE or rows[-1]["_pagination_key"] == behind:
                break
            behind = rows[-1]["_pagination_key"]
        chosen.update(sorted(more, key=rank)[: share - len(chosen)])
    return sorted(chosen)


def places(first: str, last: str, count: int, shift: float) -> List[str]:
    """Keys spread evenly over the range, each `shift` (0 to 1) into its part."""
    low, high = key_number(first) - 1, key_number(last) - 1
    return [
        pagination_key(low + int((high - low) * (number + shift) / count))
        for number in range(count)
    ]


def _look_up(
    sides: CompareContext,
    pair: Pair,
    result: Comparison,
    source: ReadSide,
    dest: ReadSide,
    ids: Sequence[str],
) -> None:
    looking = _LookUp(sides, pair, result, source, dest)
    for start in range(0, len(ids), ROWS_LOOKED_UP):
        looking.compare(ids[start : start + ROWS_LOOKED_UP])
