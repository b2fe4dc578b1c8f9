"""Shards: the rows of a move shared out among processes that run apart from each other. Their form, and which rows go into which.

A shard is one JSON line. It holds units of work, of each object one: all of it (of a project, its log), or a slice of a large one,
which is the rows with keys above `after` and up to `end`; without `end`, up to the mark. The mark, in seconds of each server's
clock, is taken once for all shards: what is written later is in none of them. Names and ids, no row content, no API key.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_left, insort
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from bt_migrate.api.btql import OBJECTS_PER_QUERY
from bt_migrate.config.settings import shard_name
from bt_migrate.errors import UsageError
from bt_migrate.state.records import check_part
from bt_migrate.state.run_record import Shard

SHARD_FORMAT = 1
SIDES = ("source", "dest")
SMALL = (
    10  # an object, or objects that are read together, of up to a so-manieth of a shard are not cut
)
NEAR = 25  # a cut is good enough where it is off by no more than a so-manieth of a shard, or a page
MAX_PROBES = 60  # for one cut

Unit = Dict[
    str, Any
]  # UNIT_NAMES, `new` where the destination's object had no rows; of a slice also after, end or both


class Piece(NamedTuple):
    """Rows of an object, counted from its first one, from `begin` to before `end`."""

    unit: Unit
    begin: int
    end: int


Point = Tuple[int, int]  # (a key as a number, rows up to it)


# -- sharing out


def shared_out(units: Sequence[Unit], shards: int, page_rows: int) -> List[List[Piece]]:
    """The pieces of each shard, even by rows. Small objects are kept together as they are read together, and put where least is, the
    largest first; then what is left of each shard is filled with the large ones, one behind the other, cut where a shard is full.
    """

    def cost(some: Sequence[Unit]) -> float:
        return sum(
            unit["rows"] + page_rows / OBJECTS_PER_QUERY for unit in some
        )  # one without rows takes its part of a query

    share = cost(units) / shards
    most = max(share / SMALL, 2 * page_rows)  # rows of an object that is not cut
    pieces: List[List[Piece]] = [[] for _ in range(shards)]
    loads = [0.0] * shards
    small = _together(
        [unit for unit in units if unit["rows"] <= most], lambda some: cost(some) <= share / SMALL
    )
    for together in sorted(small, key=lambda some: -cost(some)):
        number = loads.index(min(loads))
        loads[number] += cost(together)
        pieces[number] += [Piece(unit, 0, unit["rows"]) for unit in together]
    number = 0
    for unit in sorted(
        (unit for unit in units if unit["rows"] > most), key=lambda unit: -unit["rows"]
    ):
        begin = 0
        while begin < unit["rows"]:
            while number < shards - 1 and share - loads[number] < page_rows:
                number += 1
            room = math.ceil(share - loads[number]) if number < shards - 1 else unit["rows"]
            end = unit["rows"] if unit["rows"] - begin < room + page_rows else begin + room
            loads[number] += end - begin
            pieces[number].append(Piece(unit, begin, end))
            begin = end
    return pieces


def _together(units: Sequence[Unit], fit: Callable[[Sequence[Unit]], bool]) -> List[List[Unit]]:
    """Units of one kind and project that follow each other, as many as are read together and `fit`."""
    found: List[List[Unit]] = []
    for unit in units:
        last = found[-1] if found else []
        same = last and (last[0]["kind"], last[0]["project"]) == (unit["kind"], unit["project"])
        if same and len(last) < OBJECTS_PER_QUERY and fit([*last, unit]):
            last.append(unit)
        else:
            found.append([unit])
    return found


class Keys(NamedTuple):
    """What is asked of the keys of one object, as numbers. Each is a query."""

    rows_upto: Callable[[int], int]  # how many rows lie up to a key
    first_above: Callable[[int], int]  # the key of the first row above one
    last_upto: Callable[[int], int]  # the key of the last row up to one


def cut_at(wanted: int, tolerance: float, points: List[Point], keys: Keys) -> Point:
    """A key up to which about `wanted` rows lie. `points` are known, ascending, from before the first row to the last one; what is
    found out is added. Keys lie in heaps, with months of nothing between them: by proportion and by halves in turn, and from the
    second time on past the nothing.
    """
    for probe in range(MAX_PROBES + 1):
        at = min(max(1, bisect_left([rows for _, rows in points], wanted)), len(points) - 1)
        (low, fewer), (high, more) = points[at - 1], points[at]
        nearest = min(points[at - 1 : at + 1], key=lambda point: abs(point[1] - wanted))
        if (
            abs(nearest[1] - wanted) <= tolerance
            or high - low <= 1
            or more <= fewer
            or probe == MAX_PROBES
        ):
            break
        way = (high - low) // 2 if probe % 2 else (high - low) * (wanted - fewer) // (more - fewer)
        middle = low + min(max(1, way), high - low - 1)
        rows = keys.rows_upto(middle)
        if probe and abs(rows - wanted) > tolerance:
            middle = keys.first_above(middle) - 1 if rows < wanted else keys.last_upto(middle)
        insort(points, (middle, rows))
    return nearest


# -- their form


def shard_lines(facts: Mapping[str, Any], units: Sequence[Sequence[Unit]]) -> List[Dict[str, Any]]:
    """The shards as they are written; `facts` are the same in all."""
    plan = hashlib.sha256(json.dumps([facts, units], sort_keys=True).encode("ascii")).hexdigest()[
        :12
    ]
    return [
        {
            "format": SHARD_FORMAT,
            "plan": plan,
            "number": number,
            "of": len(units),
            **facts,
            "resources": sorted({unit["kind"] for unit in some}),
            "rows": sum(unit["rows"] for unit in some),
            "units": list(some),
        }
        for number, some in enumerate(units)
    ]


def shard_in(lines: Sequence[str], number: int, place: str) -> Dict[str, Any]:
    """The shard of that number; `place` names the file. Raises UsageError."""
    if not 0 <= number < len(lines):
        raise UsageError(
            f"--shard: {place} has {len(lines)} lines, so shards 0 to {len(lines) - 1}; there is no shard {number}"
        )
    try:
        shard = json.loads(lines[number])
        if isinstance(shard, dict) and shard.get("format") != SHARD_FORMAT:
            raise UsageError(
                f"--shard: {place} has format {str(shard.get('format'))[:20]}, this program reads"
                f" {SHARD_FORMAT}; plan again with bin/plan-shards"
            )
        check_part(Shard, shard)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"--shard: line {number + 1} of {place} is not a shard ({error}); plan again with"
            " bin/plan-shards"
        ) from None
    if (shard["number"], shard["of"]) != (number, len(lines)):
        raise UsageError(
            f"--shard: line {number + 1} of {len(lines)} in {place} is shard {shard['number']} of {shard['of']}; "
            "use the file as bin/plan-shards wrote it"
        )
    return dict(shard)


def unit_name(unit: Mapping[str, Any]) -> str:
    return f"{unit['kind']} {unit['name']!r} of {unit['project']!r}{slice_name(unit)}"


def slice_name(unit: Mapping[str, Any]) -> str:
    """`` (keys above p… up to p…)``, nothing for a whole object."""
    bounds = [
        f"{word} {unit[name]}"
        for name, word in (("after", "above"), ("end", "up to"))
        if unit.get(name)
    ]
    return f" (keys {' '.join(bounds)})" if bounds else ""


def refuse_other_organizations(shard: Mapping[str, Any], org_ids: Mapping[str, str]) -> None:
    """`org_ids`: side (source, dest) -> today's. Raises UsageError."""
    for side, today in org_ids.items():
        if shard[side]["org_id"] != today:
            raise UsageError(
                f"{shard_name(shard)} was planned for {side} organization {shard[side]['org_name']} ({shard[side]['org_id']}), "
                f"today's is {today}; use its keys or plan anew"
            )
