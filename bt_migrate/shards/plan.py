"""Plan shards: count the rows, and find the keys at which large objects are divided. Reads only."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, Sequence, Set

from bt_migrate.api.btql import Bounds, count_query, ids_query
from bt_migrate.api.transactions import after_second, key_number, pagination_key
from bt_migrate.errors import NetworkError
from bt_migrate.model.outcomes import CREATED
from bt_migrate.model.resource_table import PROJECTS
from bt_migrate.model.resources import BY_NAME, REFERABLE, ROW_KINDS
from bt_migrate.model.run_identity import Shard, ShardMark, ShardUnit
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.lists import LISTS_READ
from bt_migrate.report.display import plural
from bt_migrate.rows.count import OBJECTS_COUNTED, RowCounts, count_objects, count_rows, row_objects
from bt_migrate.rows.streams import bounds_of
from bt_migrate.shards.shard_file import shards_with
from bt_migrate.shards.share_out import (
    NEAR_FRACTION,
    Keys,
    Piece,
    Point,
    cut_at,
    shared_out,
)
from bt_migrate.state.find_run import state_root
from bt_migrate.state.run_directory import readable_runs_in
from bt_migrate.state.run_record import Identity

log = logging.getLogger("bt_migrate.shards")


def shards_of(catalog: Catalog, identity: Identity, shards: int) -> List[Shard]:
    """Returns the shards of all selected rows.

    Rows that are written after this call began are in none of them.
    """
    # Both marks err on the safe side: a source mark in the future would leave rows out, a
    # destination mark in the past would overwrite rows.
    mark = ShardMark(
        source=int(catalog.source.clock.mark_s()),
        dest=int(max(catalog.dest.clock.latest_s(), time.time())) + 1,
    )
    kinds = [kind for kind in ROW_KINDS if catalog.settings.selects(kind)]
    _read_lists(catalog, kinds)
    created = _created_before(state_root(catalog.settings), identity)
    units = [unit for kind in kinds for unit in _units(catalog, kind, created)]
    return shards_with(identity, mark, _planned(catalog, units, shards, mark.source))


def _read_lists(catalog: Catalog, kinds: Sequence[str]) -> None:
    """Read the lists of both sides that the objects with rows are found in."""
    with catalog.run.live.working(LISTS_READ, None) as task:
        catalog.lists.prefetch(REFERABLE, [PROJECTS], note_read=task.step)
        projects = [project["id"] for project in catalog.lists.projects()]
        there = [catalog.targets.resolve((PROJECTS.name,), source_id) for source_id in projects]
        held = [BY_NAME[kind] for kind in kinds if kind in BY_NAME]
        catalog.lists.prefetch((), held, filter(None, there), note_read=task.step)


def _planned(
    catalog: Catalog, units: Sequence[ShardUnit], shards: int, mark_s: int
) -> List[List[ShardUnit]]:
    """Returns the units of each shard, in the order of `units`; large ones are cut into slices."""
    page_rows = min(catalog.settings.rows(kind).fetch_limit for kind in ROW_KINDS)
    pieces = shared_out(units, shards, page_rows)
    near = max(page_rows, sum(unit.rows for unit in units) / shards / NEAR_FRACTION)
    cut = {piece.unit.id: piece.unit for own in pieces for piece in own if piece.begin}
    cuts = catalog.lists.at_once(
        lambda unit: _places(catalog, unit, pieces, mark_s, near), cut.values()
    )
    places = dict(zip(cut, cuts))
    order = {unit.id: number for number, unit in enumerate(units)}
    return [
        sorted(
            (unit for piece in own for unit in _slice(piece, places)),
            key=lambda unit: order[unit.id],
        )
        for own in pieces
    ]


def _created_before(root: Path, identity: Identity) -> Set[str]:
    """Returns the ids of destination objects that runs in this folder created."""
    runs = (
        run for run in readable_runs_in(root) if run.same_pair(identity) and not run.record.undone
    )
    entries = (
        entry
        for run in runs
        for states in run.all_objects()
        for entry in states.over_all_rounds().values()
    )
    return {entry.dest_id for entry in entries if entry.outcome == CREATED}


def _units(catalog: Catalog, kind: str, created: Set[str]) -> Iterator[ShardUnit]:
    """Returns every object of a kind, also those without rows.

    A server that counts one object at a time may report no rows. Only a destination object that was
    created for this move and has no rows is certainly empty.
    """
    missing = 0
    objects = list(row_objects(catalog, kind))
    there = sum(bool(obj["dest_id"]) for obj in objects)
    with catalog.run.live.working(OBJECTS_COUNTED, len(objects) + there):
        count_objects(catalog, RowCounts(), kind, objects)
    for obj in objects:
        missing += not obj["dest_id"]
        rows = count_rows(catalog, kind, [obj["id"]]) if obj["rows"] is None else obj["rows"]
        yield ShardUnit(
            kind=kind,
            project=obj["project"],
            id=obj["id"],
            name=obj["name"],
            rows=rows or 0,
            new=obj["rows_there"] == 0 and obj["dest_id"] in created,
        )
    if missing:
        log.warning(
            "not in the destination yet: %s; move the objects before the first shard"
            " (migrate-all --no-rows)",
            plural(missing, kind[:-1]),
        )


# -- slices


def _places(
    catalog: Catalog, unit: ShardUnit, pieces: Sequence[Sequence[Piece]], mark_s: int, near: float
) -> Dict[int, Point]:
    """Returns begin or end of a piece -> where the object is cut: (key, rows up to it).

    The places are ascending, each within `near` rows of its target.
    """
    bounds = replace(bounds_of(catalog, ROW_KINDS[unit.kind]), end_key=after_second(mark_s))
    keys = _keys_of(catalog, unit, bounds)
    first = _edge(catalog, unit, bounds, newest_first=False) or 1
    last = _edge(catalog, unit, bounds, newest_first=True) or 1
    points: List[Point] = [(first - 1, 0), (last, keys.rows_upto(last))]
    places: Dict[int, Point] = {0: points[0]}
    own = [piece for group in pieces for piece in group if piece.unit.id == unit.id]
    for begin in sorted({piece.begin for piece in own if piece.begin}):
        places[begin] = max(cut_at(begin, near, points, keys), list(places.values())[-1])
    return {**places, unit.rows: points[-1]}


def _keys_of(catalog: Catalog, unit: ShardUnit, bounds: Bounds) -> Keys:
    """Returns the queries about the keys of an object inside the bounds."""

    def upto(number: int) -> Bounds:
        return replace(bounds, end_key=pagination_key(number))

    def rows_upto(number: int) -> int:
        counts = catalog.source.query(count_query(unit.kind, [unit.id], upto(number))).json
        return _checked(unit, lambda: int(counts[0]["rows"])) if counts else 0

    def first_above(number: int) -> int:
        above = bounds.after(pagination_key(number))
        return _edge(catalog, unit, above, newest_first=False) or number + 1

    def last_upto(number: int) -> int:
        return _edge(catalog, unit, upto(number), newest_first=True) or number

    return Keys(rows_upto, first_above, last_upto)


def _edge(catalog: Catalog, unit: ShardUnit, bounds: Bounds, *, newest_first: bool) -> int:
    """Returns the key of the first or last row inside the bounds, 0 if there is none."""
    query = ids_query(unit.kind, unit.id, bounds, 1, newest_first=newest_first)
    rows = catalog.source.query(query).json
    return _checked(unit, lambda: key_number(rows[0]["_pagination_key"])) if rows else 0


def _checked(unit: ShardUnit, read: Callable[[], int]) -> int:
    """Returns the number in an answer. Raises NetworkError if there is none."""
    try:
        return read()
    except (KeyError, TypeError, ValueError, IndexError):
        raise NetworkError(
            f"source: a query about {unit} was not answered with what it asks for; is"
            " BT_SOURCE_URL a Braintrust data plane?",
            final=True,
        ) from None


def _slice(piece: Piece, places: Mapping[str, Mapping[int, Point]]) -> Iterator[ShardUnit]:
    """Returns the unit of a piece, None if equal keys left no row between its ends."""
    unit, begin, end = piece
    if unit.id not in places:
        yield unit
        return
    above, before = places[unit.id][begin]
    upto, rows = places[unit.id][end]
    after_key = pagination_key(above) if begin else None
    end_key = pagination_key(upto) if end < unit.rows else None
    if above < upto or end_key is None:
        yield replace(unit, rows=rows - before, after=after_key, end=end_key)
