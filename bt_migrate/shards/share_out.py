"""Divide rows among shards, and find the keys at which large objects are cut. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from typing import Callable, List, NamedTuple, Sequence, Tuple

from bt_migrate.api.btql import OBJECTS_PER_QUERY
from bt_migrate.model.run_identity import ShardUnit

# Objects with at most this part of a shard's rows (here 1/10), or two pages, are not cut. Several
# of them are read together as a group, which costs at most that part.
SMALL_FRACTION = 10
# A large object is cut at a key. The search for the key ends at one that is so near to the wanted
# row: within this part of a shard (here 1/25), or within one page, if that is more.
NEAR_FRACTION = 25
# the most queries for one cut
MAX_PROBES = 60

# (a key as a number, how many rows have keys up to it)
Point = Tuple[int, int]


class Piece(NamedTuple):
    """Consecutive rows of an object, from number `begin` to before number `end`."""

    unit: ShardUnit
    begin: int
    end: int


# -- which rows go into which shard


def shared_out(units: Sequence[ShardUnit], shards: int, page_rows: int) -> List[List[Piece]]:
    """Returns the pieces of each shard, with about the same number of rows in each shard.

    Groups of small objects are placed first, the largest group first, each into the shard with the
    fewest rows. Then the large objects fill the shards one after the other, and are cut where a
    shard is full.
    """
    share = _cost(units, page_rows) / shards
    max_whole = max(share / SMALL_FRACTION, 2 * page_rows)
    pieces: List[List[Piece]] = [[] for _ in range(shards)]
    loads = [0.0] * shards
    small = [unit for unit in units if unit.rows <= max_whole]
    groups = _groups(small, lambda group: _cost(group, page_rows) <= share / SMALL_FRACTION)
    for group in sorted(groups, key=lambda group: -_cost(group, page_rows)):
        number = loads.index(min(loads))
        loads[number] += _cost(group, page_rows)
        pieces[number] += [Piece(unit, 0, unit.rows) for unit in group]
    large = [unit for unit in units if unit.rows > max_whole]
    _fill(pieces, loads, sorted(large, key=lambda unit: -unit.rows), share, page_rows)
    return pieces


def _cost(units: Sequence[ShardUnit], page_rows: int) -> float:
    """Returns what it costs to read the units, counted in rows.

    That is their rows, and for each unit its part of a query: one query reads OBJECTS_PER_QUERY
    units together, and costs about as much as a page of rows.
    """
    return float(sum(unit.rows + page_rows / OBJECTS_PER_QUERY for unit in units))


def _fill(
    pieces: List[List[Piece]],
    loads: List[float],
    large: Sequence[ShardUnit],
    share: float,
    page_rows: int,
) -> None:
    """Add large objects to the shards in order. A rest of less than a page is not cut off."""
    number = 0
    last = len(pieces) - 1
    for unit in large:
        begin = 0
        while begin < unit.rows:
            while number < last and share - loads[number] < page_rows:
                number += 1
            room = math.ceil(share - loads[number]) if number < last else unit.rows
            end = unit.rows if unit.rows - begin < room + page_rows else begin + room
            loads[number] += end - begin
            pieces[number].append(Piece(unit, begin, end))
            begin = end


def _groups(
    units: Sequence[ShardUnit], fits: Callable[[Sequence[ShardUnit]], bool]
) -> List[List[ShardUnit]]:
    """Returns groups of consecutive units of one kind and project.

    A group is read with one query and has as many units as `fits` allows.
    """
    groups: List[List[ShardUnit]] = []
    for unit in units:
        last = groups[-1] if groups else []
        same = last and (last[0].kind, last[0].project) == (unit.kind, unit.project)
        if same and len(last) < OBJECTS_PER_QUERY and fits([*last, unit]):
            last.append(unit)
        else:
            groups.append([unit])
    return groups


# -- where a large object is cut


class Keys(NamedTuple):
    """Questions about the keys of one object, as numbers. Each sends a query."""

    rows_upto: Callable[[int], int]  # number of rows with keys up to this one
    first_above: Callable[[int], int]  # key of the first row above this key
    last_upto: Callable[[int], int]  # key of the last row up to this key


def cut_at(wanted: int, tolerance: float, points: List[Point], keys: Keys) -> Point:
    """Returns a key up to which there are about `wanted` rows.

    `points`: known points, ascending, from before the first row to the last one; new ones are
    added. Keys are clustered, with long gaps: interpolation and bisection alternate, and from the
    second query on a gap is skipped.
    """
    for probe in range(MAX_PROBES + 1):
        at = min(max(1, bisect_left([rows for _, rows in points], wanted)), len(points) - 1)
        low, fewer = points[at - 1]
        high, more = points[at]
        nearest = min(points[at - 1 : at + 1], key=lambda point: abs(point[1] - wanted))
        is_near = abs(nearest[1] - wanted) <= tolerance
        if is_near or high - low <= 1 or more <= fewer or probe == MAX_PROBES:
            break
        interpolated = (high - low) * (wanted - fewer) // (more - fewer)
        step = (high - low) // 2 if probe % 2 else interpolated
        middle = low + min(max(1, step), high - low - 1)
        rows = keys.rows_upto(middle)
        if probe and abs(rows - wanted) > tolerance:
            middle = keys.first_above(middle) - 1 if rows < wanted else keys.last_upto(middle)
        insort(points, (middle, rows))
    return nearest
