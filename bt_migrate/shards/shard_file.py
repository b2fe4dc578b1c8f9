"""The file that bin/plan-shards prints: one JSON line for each shard.

A shard has units. Each is one object, with all of its rows (for a project, its log) or with a
slice: the rows with keys above `after` and up to `end`, or up to the mark if there is no `end`. The
mark, in seconds of each server's clock, is the same for all shards: rows written later are in none
of them. The file contains names and ids, no row content and no API key.
"""

from __future__ import annotations

import hashlib
import json
from typing import List, Mapping, Sequence

from bt_migrate.errors import UsageError
from bt_migrate.model.run_identity import RunSide, Shard, ShardMark, ShardUnit
from bt_migrate.state.records import json_of, record_from
from bt_migrate.state.run_record import Identity

SHARD_FORMAT = 1
SIDES = ("source", "dest")
PLAN_CHARS = 12  # of the digest that names a plan


def shards_with(
    identity: Identity, mark: ShardMark, units: Sequence[Sequence[ShardUnit]]
) -> List[Shard]:
    """Returns the shards with these units. All have the mark, organizations and selection."""
    facts = {
        "mark": json_of(mark),
        "source": json_of(identity.source),
        "dest": json_of(identity.dest),
        "selection": json_of(identity.selection),
    }
    plain = [[json_of(unit) for unit in own] for own in units]
    content = json.dumps([facts, plain], sort_keys=True).encode("ascii")
    plan = hashlib.sha256(content).hexdigest()[:PLAN_CHARS]
    return [
        Shard(
            format=SHARD_FORMAT,
            plan=plan,
            number=number,
            of=len(units),
            mark=mark,
            source=identity.source,
            dest=identity.dest,
            selection=identity.selection,
            resources=sorted({unit.kind for unit in own}),
            rows=sum(unit.rows for unit in own),
            units=list(own),
        )
        for number, own in enumerate(units)
    ]


def shard_line(shard: Shard) -> str:
    return json.dumps(json_of(shard))


def shard_in(lines: Sequence[str], number: int, place: str) -> Shard:
    """Returns the shard with that number; `place` names the file. Raises UsageError."""
    count = len(lines)
    if not 0 <= number < count:
        raise UsageError(
            f"--shard: {place} has {count} lines, so shards 0 to {count - 1}; there is no shard"
            f" {number}"
        )
    shard = _read_line(lines[number], f"line {number + 1} of {place}")
    if (shard.number, shard.of) != (number, count):
        raise UsageError(
            f"--shard: line {number + 1} of {count} in {place} is shard {shard.number} of"
            f" {shard.of}; use the file as bin/plan-shards wrote it"
        )
    return shard


def _read_line(line: str, place: str) -> Shard:
    try:
        value = json.loads(line)
        if isinstance(value, dict) and value.get("format") != SHARD_FORMAT:
            raise UsageError(
                f"--shard: {place} has format {str(value.get('format'))[:20]}, this program reads"
                f" {SHARD_FORMAT}; plan again with bin/plan-shards"
            )
        return record_from(Shard, value)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"--shard: {place} is not a shard ({error}); plan again with bin/plan-shards"
        ) from None


def refuse_other_organizations(shard: Shard, org_ids: Mapping[str, str]) -> None:
    """Raises UsageError unless the shard is for these organizations.

    `org_ids`: side (source, dest) -> organization id.
    """
    for side, today in org_ids.items():
        planned: RunSide = getattr(shard, side)
        if planned.org_id != today:
            raise UsageError(
                f"{shard} was planned for {side} organization {planned.org_name}"
                f" ({planned.org_id}), now it is {today}; use its keys or plan again"
            )
