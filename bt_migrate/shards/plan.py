"""Share out the rows of a move: count them, and find the keys at which large objects are cut. Reads only."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Set

from bt_migrate.api.btql import Bounds, count_query, ids_query
from bt_migrate.api.transactions import after_second, key_number, pagination_key
from bt_migrate.model.outcomes import CREATED
from bt_migrate.model.resource_table import PROJECTS
from bt_migrate.model.resources import REFERABLE, ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.count import RowCounts, count_objects, count_rows, row_objects
from bt_migrate.rows.streams import bounds_of
from bt_migrate.shards.share_out import (
    NEAR,
    Keys,
    Piece,
    Point,
    Unit,
    cut_at,
    shard_lines,
    shared_out,
)
from bt_migrate.state.find_run import state_root
from bt_migrate.state.records import json_of
from bt_migrate.state.run_directory import readable_runs_in
from bt_migrate.state.run_record import Identity

log = logging.getLogger("bt_migrate.shards")


def plan_shards(catalog: Catalog, identity: Identity, shards: int) -> List[Dict[str, Any]]:
    """The shards of all rows that are selected. What is written after this call began is in none of them."""
    # Each on the safe side: a mark ahead of what the source writes would pass over it, one behind what the destination has would
    # overwrite it.
    mark = {
        "source": int(catalog.source.clock.mark_s()),
        "dest": int(max(catalog.dest.clock.latest_s(), time.time())) + 1,
    }
    catalog.lists.prefetch(REFERABLE, [PROJECTS])
    made = _made_before(state_root(catalog.settings), identity)
    units = [
        unit
        for kind in ROW_KINDS
        if catalog.settings.selects(kind)
        for unit in _units(catalog, kind, made)
    ]
    page_rows = min(catalog.settings.rows(kind).fetch_limit for kind in ROW_KINDS)
    pieces = shared_out(units, shards, page_rows)
    near = max(page_rows, sum(unit["rows"] for unit in units) / shards / NEAR)
    cut = {piece.unit["id"]: piece.unit for some in pieces for piece in some if piece.begin}
    places = catalog.lists.at_once(
        lambda unit: _places(catalog, unit, pieces, mark["source"], near), cut.values()
    )
    points = dict(zip(cut, places))
    order = {unit["id"]: number for number, unit in enumerate(units)}
    planned = [
        sorted(
            (unit for piece in some for unit in _slice(piece, points)),
            key=lambda unit: order[unit["id"]],
        )
        for some in pieces
    ]
    return shard_lines(
        {
            "mark": mark,
            "source": json_of(identity.source),
            "dest": json_of(identity.dest),
            "selection": json_of(identity.selection),
        },
        planned,
    )


def _made_before(root: Path, identity: Identity) -> Set[str]:
    """Ids of the destination's objects that runs in this folder made."""
    runs = (
        run for run in readable_runs_in(root) if run.same_pair(identity) and not run.record.undone
    )
    entries = (
        entry for run in runs for states in run.all_objects() for entry in states.known().values()
    )
    return {entry["dest_id"] for entry in entries if entry["outcome"] == CREATED}


def _units(catalog: Catalog, kind: str, made: Set[str]) -> Iterator[Unit]:
    """Every object of a kind. One without rows too: that it has none may be what a server says which counts one object at a time.

    Only a destination object that was made for this move and has no rows is surely empty.
    """
    missing = 0
    objects = list(row_objects(catalog, kind))
    count_objects(catalog, RowCounts(), kind, objects)
    for one in objects:
        missing += not one["dest_id"]
        rows = count_rows(catalog, kind, [one["id"]]) if one["rows"] is None else one["rows"]
        named = {"kind": kind, **{name: one[name] for name in ("project", "id", "name")}}
        yield {**named, "rows": rows or 0, "new": one["rows_there"] == 0 and one["dest_id"] in made}
    if missing:
        log.warning(
            "%d objects with %s are not in the destination yet: they have to be before a shard is moved",
            missing,
            kind,
        )


# -- slices


def _places(
    catalog: Catalog, unit: Unit, pieces: Sequence[Sequence[Piece]], mark_s: int, near: float
) -> Dict[int, Point]:
    """Begin or end of a piece of the object -> where it is cut: ascending (key, rows up to it), each within `near` rows."""
    kind = unit["kind"]
    bounds = replace(bounds_of(catalog, ROW_KINDS[kind]), end_key=after_second(mark_s))

    def rows_upto(number: int) -> int:
        query = count_query(kind, [unit["id"]], replace(bounds, end_key=pagination_key(number)))
        found = catalog.source.query(query).json
        return int(found[0]["rows"]) if found else 0

    def first_above(number: int) -> int:
        return (
            _edge(catalog, unit, bounds.after(pagination_key(number)), newest_first=False)
            or number + 1
        )

    def last_upto(number: int) -> int:
        return (
            _edge(catalog, unit, replace(bounds, end_key=pagination_key(number)), newest_first=True)
            or number
        )

    keys = Keys(rows_upto, first_above, last_upto)
    first, last = (
        _edge(catalog, unit, bounds, newest_first=newest) or 1 for newest in (False, True)
    )
    known: List[Point] = [(first - 1, 0), (last, rows_upto(last))]
    found: Dict[int, Point] = {0: known[0]}
    for begin in sorted(
        {
            piece.begin
            for some in pieces
            for piece in some
            if piece.unit["id"] == unit["id"] and piece.begin
        }
    ):
        found[begin] = max(cut_at(begin, near, known, keys), list(found.values())[-1])
    return {**found, unit["rows"]: known[-1]}


def _edge(catalog: Catalog, unit: Unit, bounds: Bounds, *, newest_first: bool) -> int:
    """The key of the first or last row inside the bounds, 0 where there is none."""
    rows = catalog.source.query(
        ids_query(unit["kind"], unit["id"], bounds, 1, newest_first=newest_first)
    ).json
    return key_number(rows[0]["_pagination_key"]) if rows else 0


def _slice(piece: Piece, places: Mapping[str, Mapping[int, Point]]) -> Iterator[Unit]:
    """The unit of a piece; nothing where ties have left no key between its ends."""
    unit, begin, end = piece
    if unit["id"] not in places:
        yield unit
        return
    (above, before), (upto, rows) = places[unit["id"]][begin], places[unit["id"]][end]
    keys = {
        "after": pagination_key(above) if begin else "",
        "end": pagination_key(upto) if end < unit["rows"] else "",
    }
    if above < upto or not keys["end"]:
        yield {**unit, "rows": rows - before, **{name: key for name, key in keys.items() if key}}
