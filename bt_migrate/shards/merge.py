"""Join the runs of a move that was made in parts into one run, so that verify, undo and later syncs see one. Asks no server.

The runs are only read. The new one is made beside the others in a folder that nobody takes for a run, and moved to its place whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections import Counter
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from bt_migrate.api.transactions import after_second
from bt_migrate.config.settings import shard_name
from bt_migrate.errors import StateError, UsageError
from bt_migrate.model.date_windows import instant, iso
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.outcomes import CREATED, DIFFERS, FAILED, FOUND, SKIPPED, UPDATED
from bt_migrate.model.resources import ROW_KINDS, SELECTABLE
from bt_migrate.shards.share_out import SIDES, unit_name
from bt_migrate.state.find_run import create_run
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory, runs_in
from bt_migrate.state.run_files import RUN_FILE
from bt_migrate.state.run_record import Identity, RunRecord, Selection
from bt_migrate.state.seen_rows import join_stores
from bt_migrate.state.sessions import end_killed_session
from bt_migrate.state.stream_state import KeyRange, StreamState
from bt_migrate.state.window_log import record_window

log = logging.getLogger("bt_migrate.merge")

COMMAND = "migrate-all"  # goes on with the run that is made
ATTACHMENTS = "attachments.sqlite3"
BEST_FIRST = (
    CREATED,
    UPDATED,
    FOUND,
    DIFFERS,
    SKIPPED,
    FAILED,
)  # of what several runs say of one object: who made it owns it
SHOWN = 10


class RunPart(NamedTuple):
    """What one run has of the rows of an object; `unit` is what its shard takes of it, {} of a run that is no shard."""

    run: RunDirectory
    state: StreamState
    unit: Mapping[str, Any]


def merge_runs(paths: Sequence[Path], root: Path, *, unfinished: bool) -> Path:
    """Make the run, in `root`; gives back its directory. Raises UsageError where the runs do not belong together, LockedError where a
    process works on one, and, unless `unfinished`, UsageError naming what is missing.
    """
    if (root / RUN_FILE).exists():
        raise UsageError(
            f"--state-dir: {root} is a run; name the folder of runs in which the new one is to be"
        )
    with contextlib.ExitStack() as held:
        runs = [held.enter_context(RunDirectory(path, kept=False)) for path in paths]
        shards = [run for run in runs if run.record.shard is not None]
        _refuse_strangers(runs)
        _refuse_other_shards(shards)
        identity = _identity(runs, shards)
        missing = [*_missing_shards(shards), *(name for run in runs for name in _open_ends(run))]
        if missing and not unfinished:
            more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
            raise UsageError(
                f"not finished: {'; '.join(missing[:SHOWN])}{more}; finish it, or join it as it is with --unfinished"
            )
        streams = _streams_of(runs)
        building = root / f"merging_{os.getpid()}"
        try:
            shutil.rmtree(building, ignore_errors=True)
            new = create_run(building, identity, COMMAND)
            for run in sorted(runs, key=lambda run: run.record.created):
                _join_objects(new, run)
            for parts in streams.values():
                _join_stream(new, parts)
            join_stores(
                new.path / ATTACHMENTS,
                [run.path / ATTACHMENTS for run in runs if (run.path / ATTACHMENTS).exists()],
            )
            _add_facts(new.record, runs, shards)
            new.record.phases_done = (
                [] if missing else list(_phases_done(new.record.selection, runs, shards))
            )
            new.save()
            os.sync()
            path = _moved(new.path, root)
        except OSError as error:
            raise StateError(
                f"{root}: cannot be written ({error.strerror}); make room, then run again"
            ) from None
        finally:
            shutil.rmtree(building, ignore_errors=True)
    for kind in ("experiments", "logs"):
        if f"migrate-{kind}" in new.record.phases_done and kind in new.record.selection.resources:
            record_window(root, new.record, path.name, kind)
    return path


def _moved(path: Path, root: Path) -> Path:
    for number in range(100):
        place = root / (path.name if not number else f"{path.name}_{number:02d}")
        if not place.exists():
            break
    os.rename(path, place)
    return place


# -- what does not belong together


def _refuse_strangers(runs: Sequence[RunDirectory]) -> None:
    first = runs[0]
    for run in runs:
        for word, told in (
            ("dry_run", "is a dry run"),
            ("undone", "was undone"),
            ("round", "was gone on with by --since-last"),
        ):
            if getattr(run.record, word):
                raise UsageError(f"{run.path}: {told}; leave it out")
        for side in SIDES:
            _refuse_unequal(
                f"{side} organization",
                (first, getattr(first.record, side).org_id),
                (run, getattr(run.record, side).org_id),
            )
        for name in ("created_after", "created_before", "rename_projects", "exclude_projects"):
            _refuse_unequal(
                name,
                (first, getattr(first.record.selection, name)),
                (run, getattr(run.record.selection, name)),
            )
    twice = next(
        (path for path, count in Counter(run.path.resolve() for run in runs).items() if count > 1),
        None,
    )
    if twice:
        raise UsageError(f"{twice}: is named twice")


def _refuse_other_shards(shards: Sequence[RunDirectory]) -> None:
    numbers: Dict[int, RunDirectory] = {}
    for run in shards:
        shard = run.record.shard or {}
        _refuse_unequal(
            "plan of shards",
            (shards[0], (shards[0].record.shard or {})["plan"]),
            (run, shard["plan"]),
        )
        if shard["number"] in numbers:
            raise UsageError(
                f"{shard_name(shard)} is there twice: {numbers[shard['number']].path} and {run.path}"
            )
        numbers[shard["number"]] = run


def _refuse_unequal(
    what: str, one: Tuple[RunDirectory, Any], other: Tuple[RunDirectory, Any]
) -> None:
    if one[1] != other[1]:
        raise UsageError(
            f"{what}: {one[1]} of {one[0].path} is not {other[1]} of {other[0].path}; only parts of one move can be joined"
        )


def _missing_shards(shards: Sequence[RunDirectory]) -> Iterator[str]:
    if shards:
        first = shards[0].record.shard or {}
        there = {run.record.shard["number"] for run in shards if run.record.shard}
        yield from (
            shard_name({**first, "number": number})
            for number in range(first["of"])
            if number not in there
        )


def _open_ends(run: RunDirectory) -> Iterator[str]:
    """What a run has not brought to its end."""
    streams = {
        (stream.header["kind"], stream.header["source_id"]): stream for stream in run.all_streams()
    }
    if run.record.shard is not None:
        gone = {(kind, one) for kind, ids in run.record.gone.items() for one in ids}
        for unit in run.record.shard["units"]:
            place = unit["kind"], unit["id"]
            if place not in gone and not (place in streams and streams[place].done):
                yield f"{unit_name(unit)} in {run.path}"
        return
    yield from (
        f"{one.header['kind']} {one.header['name']!r} in {run.path}"
        for one in streams.values()
        if not one.done
    )
    last = run.record.sessions[-1] if run.record.sessions else None
    if (
        last is None
        or last.ended is None
        or last.error is not None
        or (run.record.command == COMMAND and not run.record.finished)
    ):
        yield f"{run.path}"


def _streams_of(runs: Sequence[RunDirectory]) -> Dict[Tuple[str, str], List[RunPart]]:
    """(kind, object id) -> the streams of all runs. Raises UsageError for rows that two of them moved."""
    found: Dict[Tuple[str, str], List[RunPart]] = {}
    for run in runs:
        units = {
            (unit["kind"], unit["id"]): unit
            for unit in (run.record.shard or {"units": ()})["units"]
        }
        for state in run.all_streams():
            place = state.header["kind"], state.header["source_id"]
            found.setdefault(place, []).append(RunPart(run, state, units.get(place, {})))
    for first, *others in found.values():
        header = first.state.header
        for part in others:
            if not (first.unit and part.unit):
                raise UsageError(
                    f"{header['kind']} {header['name']!r}: its rows are in both {first.run.path} and {part.run.path}"
                )
            _refuse_unequal(
                "counterpart",
                (first.run, header["dest_id"]),
                (part.run, part.state.header["dest_id"]),
            )
    return found


# -- what is made of them


def _identity(runs: Sequence[RunDirectory], shards: Sequence[RunDirectory]) -> Identity:
    """Of the selections together; those of the shards count where nothing else is there, and have to be for the same projects."""
    whole = [run for run in runs if run not in shards] or shards
    for run in shards:
        names = tuple(sorted({name for one in whole for name in one.record.selection.projects}))
        _refuse_unequal("projects", (whole[0], names), (run, tuple(run.record.selection.projects)))
    first = whole[0].record
    resources = {name for run in whole for name in run.record.selection.resources}
    projects = [set(run.record.selection.projects) for run in whole]
    selection = replace(
        first.selection,
        resources=[name for name in SELECTABLE if name in resources],
        projects=sorted(set().union(*projects)) if all(projects) else [],
        part=None,
    )
    return Identity(first.source, first.dest, selection, dry_run=False)


def _add_facts(
    record: RunRecord, runs: Sequence[RunDirectory], shards: Sequence[RunDirectory]
) -> None:
    """Sessions and marks: what a run made of parts promises begins where all of them do."""
    for run in runs:
        end_killed_session(run, 0.0)  # nobody is asked for the destination's clock
    sessions = [session for run in runs for session in run.record.sessions]
    begun = min(run.record.source_time or instant(run.record.created).timestamp() for run in runs)
    mark = int(shards[0].record.shard["mark"]["source"] if shards else begun)  # type: ignore[index]
    validated = [run.record.validation for run in runs if run.record.validation is not None]
    record.merged = [str(run.path) for run in runs]
    record.created = iso(datetime.fromtimestamp(mark, timezone.utc))
    record.source_time = mark
    record.sessions = sorted(sessions, key=lambda session: session.started)
    record.finished = not shards and all(run.record.finished for run in runs)
    record.wrote = any(run.record.wrote for run in runs)
    record.waiting = any(run.record.waiting for run in runs)
    for run in runs:
        record.project_names.update(run.record.project_names)
        record.window_gaps += run.record.window_gaps
    record.reads_groups = sorted({side for run in runs for side in run.record.reads_groups})
    record.validation = validated[0] if validated else None


def _phases_done(
    selection: Selection, runs: Sequence[RunDirectory], shards: Sequence[RunDirectory]
) -> Iterator[str]:
    """The phases that all the runs have done which had to: the shards those of rows, the other runs those of objects."""
    others = [run for run in runs if run not in shards]
    for phase in dict.fromkeys(name for run in runs for name in run.record.phases_done):
        kind = phase.replace("migrate-", "")
        needed = list(others)
        if shards and kind in ROW_KINDS:
            if kind in selection.resources and kind not in shards[0].record.selection.resources:
                continue
            needed = [run for run in others if kind != "logs"] + list(shards)
            if kind != "logs" and not others:  # nobody has looked for new objects
                continue
        if all(run.phase_done(phase) for run in needed):
            yield phase


def _join_objects(new: RunDirectory, run: RunDirectory) -> None:
    for states in run.all_objects():
        into = new.objects(states.resource, states.project)
        _join_states(into, states)
        into.save()


def _join_states(into: ObjectStates, states: ObjectStates) -> None:
    """Of an object that both know, what the better outcome says."""
    for source_id, entry in states.outcomes.items():
        known = into.outcomes.get(source_id)
        if known and BEST_FIRST.index(known["outcome"]) <= BEST_FIRST.index(entry["outcome"]):
            continue
        into.outcomes[source_id] = entry
        into.note(source_id, states.findings.get(source_id, ()))
        if source_id in states.fingerprints:
            into.fingerprints[source_id] = states.fingerprints[source_id]
    into.former = {**states.former, **into.former}  # what it was before the first of them
    into.deferred.update(states.deferred)
    into.left_out.update(states.left_out)
    into.intended.update(states.intended)
    into.listed = max(into.listed, states.listed)


def _not_begun(parts: Sequence[RunPart]) -> Iterator[KeyRange]:
    """The slices of shards that are not there."""
    if not parts[0].unit:
        return
    upto: Optional[str] = None
    for part in sorted(parts, key=lambda part: part.unit.get("after") or ""):
        after = part.unit.get("after")
        if after != upto:
            yield KeyRange(upto, after)
        upto = part.unit.get("end")
    if upto is not None:
        shard = parts[0].run.record.shard or {}
        yield KeyRange(upto, after_second(shard["mark"]["source"]))


def _join_stream(new: RunDirectory, parts: Sequence[RunPart]) -> None:
    """One checkpoint with the slices of all parts, in order of their keys, and those that no part has; their counts added up."""
    states = [part.state for part in parts]
    header = states[0].header
    path = new.stream_path(ROW_KINDS[header["kind"]].folder, header["project"], header["source_id"])
    joined = StreamState.open(path.with_name(path.name + "_state.json"), header)
    notes = FindingCounts()
    slices = [one for state in states for one in state.slices] + list(_not_begun(parts))
    joined.slices = sorted(slices, key=lambda one: one.end or "~")  # the open end last
    for state in states:
        notes.merge(FindingCounts(state.findings))
        for name, count in state.counts.items():
            joined.counts[name] += count
    joined.findings = notes.records()
    before = [state.copy.before_key for state in states]
    joined.copy.before_key = None if None in before else min(str(one) for one in before)
    # what the destination had before is forgotten once a part is done: who goes on has to look again
    joined.done = all(one.done for one in slices) and all(state.done for state in states)
    joined.copy.compared = joined.done
    joined.error = next((state.error for state in states if state.error), "")
    for name in ("seconds", "waiting", "failed"):
        setattr(joined, name, sum(getattr(state, name) for state in states))
    joined.copy.overwritten = sum(state.copy.overwritten for state in states)
    joined.copy.began = min(state.copy.began for state in states)
    for state in states:
        joined.copy.note_transactions(state.copy.transactions)
    joined.copy.read = sum(state.copy.read for state in states)
    joined.copy.made = all(state.copy.made for state in states)
    joined.save()
    stores = [state.sibling("_seen.sqlite3") for state in states]
    join_stores(joined.sibling("_seen.sqlite3"), [store for store in stores if store.exists()])
    for refused in (state.sibling("_failed.jsonl") for state in states):
        if refused.exists():
            with open(
                os.open(
                    joined.sibling("_failed.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
                ),
                "ab",
            ) as file:
                file.write(refused.read_bytes())


def run_paths(names: Sequence[str]) -> List[Path]:
    """The run directories of these names, each a run or a folder that holds one. Raises UsageError."""
    paths = []
    for name in names:
        path = Path(name)
        found = [path] if (path / RUN_FILE).is_file() else [run.path for run in runs_in(path)]
        if len(found) != 1:
            raise UsageError(
                f"{path}: holds {len(found) or 'no'} runs; name the run that is to be joined"
            )
        paths += found
    return paths
