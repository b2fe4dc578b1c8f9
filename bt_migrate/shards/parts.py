"""The runs of shards: whether they belong together, and what is missing. Reads only."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from bt_migrate.errors import UsageError
from bt_migrate.model.run_identity import Shard, ShardUnit
from bt_migrate.shards.shard_file import SIDES
from bt_migrate.state.find_run import ALL_PHASES
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.stream_state import StreamState

# fields of run.json that make a run impossible to merge if they are set
NOT_JOINED = (
    ("dry_run", "is a dry run"),
    ("undone", "was undone"),
    ("round", "was continued with --since-last"),
)
SAME_IN_ALL = ("created_after", "created_before", "rename_projects", "exclude_projects")


class RunPart(NamedTuple):
    """The part of an object's rows that one run copied. `unit`: None if it is no shard."""

    run: RunDirectory
    state: StreamState
    unit: Optional[ShardUnit]


def shard_of(run: RunDirectory) -> Shard:
    """Returns the shard that a run copied, which must be the run of a shard."""
    shard = run.record.shard
    assert shard is not None
    return shard


# -- refusals


def refuse_other_moves(runs: Sequence[RunDirectory]) -> None:
    """Raises UsageError for a run that cannot be merged, or belongs to another move."""
    first = runs[0]
    for run in runs:
        for field, words in NOT_JOINED:
            if getattr(run.record, field):
                raise UsageError(f"{run.path}: {words}; leave it out")
        for side in SIDES:
            ids = (getattr(run.record, side).org_id for run in (first, run))
            refuse_unequal(f"{side} organization", zip((first, run), ids))
        for name in SAME_IN_ALL:
            values = (getattr(run.record.selection, name) for run in (first, run))
            refuse_unequal(name, zip((first, run), values))
    counts = Counter(run.path.resolve() for run in runs)
    for path, count in counts.items():
        if count > 1:
            raise UsageError(f"{path}: is named twice")


def refuse_other_shards(shards: Sequence[RunDirectory]) -> None:
    """Raises UsageError for shards of different plans, and for a shard that occurs twice."""
    numbers: Dict[int, RunDirectory] = {}
    for run in shards:
        plans = (shard_of(run).plan for run in (shards[0], run))
        refuse_unequal("plan of shards", zip((shards[0], run), plans))
        number = shard_of(run).number
        if number in numbers:
            raise UsageError(
                f"{shard_of(run)} was given twice: {numbers[number].path} and {run.path}"
            )
        numbers[number] = run


def refuse_unequal(name: str, values: Any) -> None:
    """Raises UsageError unless the values are equal. `values`: two pairs of (run, value)."""
    (first, one_value), (other, other_value) = values
    if one_value != other_value:
        raise UsageError(
            f"{name}: {one_value} of {first.path} is not {other_value} of {other.path}; only parts"
            " of one move can be joined"
        )


# -- what is missing


def missing_shards(shards: Sequence[RunDirectory]) -> Iterator[str]:
    """Returns the names of the plan's shards whose runs are missing."""
    if not shards:
        return
    first = shard_of(shards[0])
    present = {shard_of(run).number for run in shards}
    for number in range(first.of):
        if number not in present:
            yield str(replace(first, number=number))


def open_ends(run: RunDirectory) -> Iterator[str]:
    """Returns what a run has not finished."""
    streams = {
        (stream.header["kind"], stream.header["source_id"]): stream for stream in run.all_streams()
    }
    if run.record.shard is not None:
        yield from _open_units(run, streams)
        return
    for stream in streams.values():
        if not stream.done:
            yield f"{stream.header['kind']} {stream.header['name']!r} in {run.path}"
    last = run.record.sessions[-1] if run.record.sessions else None
    has_ended = last is not None and last.ended is not None and last.error is None
    is_open = run.record.command == ALL_PHASES and not run.record.finished
    if not has_ended or is_open:
        yield f"{run.path}"


def _open_units(run: RunDirectory, streams: Mapping[Tuple[str, str], StreamState]) -> Iterator[str]:
    deleted = {(kind, object_id) for kind, ids in run.record.gone.items() for object_id in ids}
    for unit in shard_of(run).units:
        place = unit.kind, unit.id
        if place not in deleted and not (place in streams and streams[place].done):
            yield f"{unit} in {run.path}"


# -- the rows


def parts_of_streams(runs: Sequence[RunDirectory]) -> Dict[Tuple[str, str], List[RunPart]]:
    """Returns (kind, object id) -> the parts of its rows.

    Raises UsageError for rows that two runs copied.
    """
    parts_by_place: Dict[Tuple[str, str], List[RunPart]] = {}
    for run in runs:
        units = shard_of(run).units if run.record.shard else ()
        by_place = {(unit.kind, unit.id): unit for unit in units}
        for state in run.all_streams():
            place = state.header["kind"], state.header["source_id"]
            parts_by_place.setdefault(place, []).append(RunPart(run, state, by_place.get(place)))
    for parts in parts_by_place.values():
        _refuse_doubled(parts)
    return parts_by_place


def _refuse_doubled(parts: Sequence[RunPart]) -> None:
    first, *others = parts
    header = first.state.header
    for part in others:
        if not (first.unit and part.unit):
            raise UsageError(
                f"{header['kind']} {header['name']!r}: its rows are in both {first.run.path} and"
                f" {part.run.path}"
            )
        ids = (header["dest_id"], part.state.header["dest_id"])
        refuse_unequal("counterpart", zip((first.run, part.run), ids))
