"""The file that bin/plan-shards prints: one JSON line for each shard.

A shard has units. Each is one object, with all of its rows (for a project, its log) or with a
slice: the rows with keys above `after` and up to `end`, or up to the mark if there is no `end`. The
mark, in seconds of each server's clock, is the same for all shards: rows written later are in none
of them. The file contains names and ids, no row content and no API key.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict, List, Mapping, Sequence

from bt_migrate.config.settings import shard_name
from bt_migrate.errors import UsageError
from bt_migrate.shards.share_out import Unit
from bt_migrate.state.records import check_part
from bt_migrate.state.run_record import Shard

SHARD_FORMAT = 1
SIDES = ("source", "dest")
PLAN_CHARS = 12  # of the digest that names a plan


def shard_lines(facts: Mapping[str, Any], units: Sequence[Sequence[Unit]]) -> List[Dict[str, Any]]:
    """Returns the shards as they are written.

    `facts` (mark, source, dest, selection) are part of each.
    """
    content = json.dumps([facts, units], sort_keys=True).encode("ascii")
    plan = hashlib.sha256(content).hexdigest()[:PLAN_CHARS]
    return [
        {
            "format": SHARD_FORMAT,
            "plan": plan,
            "number": number,
            "of": len(units),
            **facts,
            "resources": sorted({unit["kind"] for unit in own}),
            "rows": sum(unit["rows"] for unit in own),
            "units": list(own),
        }
        for number, own in enumerate(units)
    ]


def shard_in(lines: Sequence[str], number: int, place: str) -> Dict[str, Any]:
    """Returns the shard with that number; `place` names the file. Raises UsageError."""
    count = len(lines)
    if not 0 <= number < count:
        raise UsageError(
            f"--shard: {place} has {count} lines, so shards 0 to {count - 1}; there is no shard"
            f" {number}"
        )
    shard = _read_line(lines[number], f"line {number + 1} of {place}")
    if (shard["number"], shard["of"]) != (number, count):
        raise UsageError(
            f"--shard: line {number + 1} of {count} in {place} is shard {shard['number']} of"
            f" {shard['of']}; use the file as bin/plan-shards wrote it"
        )
    return shard


def _read_line(line: str, place: str) -> Dict[str, Any]:
    try:
        shard = json.loads(line)
        if isinstance(shard, dict) and shard.get("format") != SHARD_FORMAT:
            raise UsageError(
                f"--shard: {place} has format {str(shard.get('format'))[:20]}, this program reads"
                f" {SHARD_FORMAT}; plan again with bin/plan-shards"
            )
        check_part(Shard, shard)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"--shard: {place} is not a shard ({error}); plan again with bin/plan-shards"
        ) from None
    return dict(shard)


def unit_name(unit: Mapping[str, Any]) -> str:
    return f"{unit['kind']} {unit['name']!r} of {unit['project']!r}{_slice_name(unit)}"


def _slice_name(unit: Mapping[str, Any]) -> str:
    """Returns ` (keys above p… up to p…)`, "" for a whole object."""
    words = (("after", "above"), ("end", "up to"))
    bounds = [f"{word} {unit[name]}" for name, word in words if unit.get(name)]
    return f" (keys {' '.join(bounds)})" if bounds else ""


def refuse_other_organizations(shard: Mapping[str, Any], org_ids: Mapping[str, str]) -> None:
    """Raises UsageError unless the shard is for these organizations.

    `org_ids`: side (source, dest) -> organization id.
    """
    for side, today in org_ids.items():
        planned = shard[side]
        if planned["org_id"] != today:
            raise UsageError(
                f"{shard_name(shard)} was planned for {side} organization {planned['org_name']}"
                f" ({planned['org_id']}), today's is {today}; use its keys or plan again"
            )
