"""Merge the runs of shards into one run, so that verify, undo and later syncs see one run.

Sends no requests. The given runs are only read. The new run is built in a folder that no program
takes for a run, and renamed into place when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Iterator, List, Optional, Sequence, Tuple

from bt_migrate.api.transactions import after_second
from bt_migrate.errors import StateError, UsageError
from bt_migrate.model.date_windows import instant, iso
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.outcomes import CREATED, DIFFERS, FAILED, FOUND, SKIPPED, UPDATED
from bt_migrate.model.resources import ROW_KINDS, SELECTABLE
from bt_migrate.model.run_identity import Selection
from bt_migrate.report.display import and_more
from bt_migrate.shards.parts import (
    RunPart,
    missing_shards,
    open_ends,
    parts_of_streams,
    refuse_other_moves,
    refuse_other_shards,
    refuse_unequal,
    shard_of,
)
from bt_migrate.state.files import cannot_write
from bt_migrate.state.find_run import ALL_PHASES, MAX_RUNS_OF_A_SECOND, create_run
from bt_migrate.state.join_stores import join_stores
from bt_migrate.state.live_counts import LiveCounts, Task
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory, runs_in
from bt_migrate.state.run_files import RUN_FILE, STATE_ENDING
from bt_migrate.state.run_record import Identity, RunRecord
from bt_migrate.state.sessions import end_killed_session
from bt_migrate.state.stream_state import KeyRange, StreamState
from bt_migrate.state.window_log import record_window

ATTACHMENTS_FILE = "attachments.sqlite3"
# If several runs have an outcome for an object, the first of these counts: the run that created it
# knows best.
BEST_FIRST = (CREATED, UPDATED, FOUND, DIFFERS, SKIPPED, FAILED)
MAX_SHOWN = 10  # the most unfinished parts that an error names
WINDOWED_KINDS = ("experiments", "logs")


def join_runs(paths: Sequence[Path], root: Path, live: LiveCounts, *, unfinished: bool) -> Path:
    """Merge the runs into one in `root`; returns its directory. Counts rows in `live`.

    Raises UsageError if the runs do not belong together, LockedError if a process works on one,
    and, unless `unfinished`, UsageError that names what is missing.
    """
    if (root / RUN_FILE).exists():
        raise UsageError(
            f"--state-dir: {root} is a run; name the folder of runs in which the new one is made"
        )
    with contextlib.ExitStack() as locks:
        runs = [locks.enter_context(RunDirectory(path, kept=False)) for path in paths]
        shards = [run for run in runs if run.record.shard is not None]
        refuse_other_moves(runs)
        refuse_other_shards(shards)
        identity = _identity(runs, shards)
        missing = [*missing_shards(shards), *(end for run in runs for end in open_ends(run))]
        if missing and not unfinished:
            _refuse_unfinished(missing)
        record, path = _build(root, identity, runs, live, finished=not missing)
    for kind in WINDOWED_KINDS:
        if f"migrate-{kind}" in record.phases_done and kind in record.selection.resources:
            record_window(root, record, path.name, kind)
    return path


def _refuse_unfinished(missing: Sequence[str]) -> None:
    parts = and_more("; ".join(missing[:MAX_SHOWN]), len(missing) - MAX_SHOWN)
    raise UsageError(f"not finished: {parts}; finish it, or join it as it is with --unfinished")


def _build(
    root: Path,
    identity: Identity,
    runs: Sequence[RunDirectory],
    live: LiveCounts,
    *,
    finished: bool,
) -> Tuple[RunRecord, Path]:
    """Returns the record and the directory of the new run. Raises StateError."""
    shards = [run for run in runs if run.record.shard is not None]
    streams = parts_of_streams(runs)
    building = root / f"merging_{os.getpid()}"
    try:
        shutil.rmtree(building, ignore_errors=True)
        new = create_run(building, identity, ALL_PHASES)
        with live.working("runs joined", len(runs)) as task:
            for run in sorted(runs, key=lambda run: run.record.created):
                _join_objects(new, run)
                task.step()
        rows = sum(part.state.counts["fetched"] for parts in streams.values() for part in parts)
        with live.working("rows joined", rows) as task:
            for parts in streams.values():
                _join_stream(new, parts, task)
        stores = [run.path / ATTACHMENTS_FILE for run in runs]
        join_stores(new.path / ATTACHMENTS_FILE, [path for path in stores if path.exists()])
        _add_facts(new.record, runs, shards)
        if finished:
            new.record.phases_done = list(_phases_done(new.record.selection, runs, shards))
        new.save()
        os.sync()
        return new.record, _move_into(new.path, root)
    except OSError as error:
        raise cannot_write(root, error) from None
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _move_into(path: Path, root: Path) -> Path:
    """Rename the new run so that it lies in `root`. Returns its path."""
    for number in range(MAX_RUNS_OF_A_SECOND):
        place = root / (f"{path.name}_{number:02d}" if number else path.name)
        if not place.exists():
            os.rename(path, place)
            return place
    raise StateError(f"{root}: holds {MAX_RUNS_OF_A_SECOND} runs of this second; try again later")


def run_paths(names: Sequence[str]) -> List[Path]:
    """Returns the directories of these runs: each name is a run, or a folder with one run.

    Raises UsageError.
    """
    paths: List[Path] = []
    for name in names:
        path = Path(name)
        runs_of_path = (
            [path] if (path / RUN_FILE).is_file() else [run.path for run in runs_in(path)]
        )
        if len(runs_of_path) != 1:
            raise UsageError(
                f"{path}: holds {len(runs_of_path) or 'no'} runs; name the run to join"
            )
        paths += runs_of_path
    return paths


# -- run.json


def _identity(runs: Sequence[RunDirectory], shards: Sequence[RunDirectory]) -> Identity:
    """Returns what the new run is made for: the selections of all runs that are not shards.

    If there are only shards, it is theirs. Shards must be for the same projects.
    """
    whole = [run for run in runs if run not in shards] or list(shards)
    names = tuple(sorted({name for run in whole for name in run.record.selection.projects}))
    for run in shards:
        own = tuple(run.record.selection.projects)
        refuse_unequal("projects", ((whole[0], names), (run, own)))
    first = whole[0].record
    resources = {name for run in whole for name in run.record.selection.resources}
    has_all = not all(run.record.selection.projects for run in whole)
    selection = replace(
        first.selection,
        resources=[name for name in SELECTABLE if name in resources],
        projects=[] if has_all else list(names),
        part=None,
    )
    return Identity(first.source, first.dest, selection, dry_run=False)


def _add_facts(
    record: RunRecord, runs: Sequence[RunDirectory], shards: Sequence[RunDirectory]
) -> None:
    """Add sessions and sync marks. The new run starts when the first of its parts did."""
    for run in runs:
        end_killed_session(run, 0.0)  # sends no request for the time
    sessions = [session for run in runs for session in run.record.sessions]
    begun = min(run.record.source_time or instant(run.record.created).timestamp() for run in runs)
    mark = int(shard_of(shards[0]).mark.source if shards else begun)
    record.merged = [str(run.path) for run in runs]
    record.created = iso(datetime.fromtimestamp(mark, timezone.utc))
    record.source_time = mark
    record.sessions = sorted(sessions, key=lambda session: session.started)
    record.finished = not shards and all(run.record.finished for run in runs)
    record.wrote = any(run.record.wrote for run in runs)
    record.waiting = any(run.record.waiting for run in runs)
    for run in runs:
        record.project_names.update(run.record.project_names)
        for user, dest_id in run.record.user_map.items():
            record.user_map[user] = dest_id or record.user_map.get(user, "")
        record.window_gaps += run.record.window_gaps
        for kind, rows in run.record.in_flight.items():
            record.in_flight[kind] = max(rows, record.in_flight.get(kind, 0))
    record.reads_groups = sorted({side for run in runs for side in run.record.reads_groups})
    validations = (run.record.validation for run in runs)
    record.validation = next(
        (validation for validation in validations if validation is not None), None
    )


def _phases_done(
    selection: Selection, runs: Sequence[RunDirectory], shards: Sequence[RunDirectory]
) -> Iterator[str]:
    """Returns the phases done: those of rows by every shard, other phases by every other run."""
    others = [run for run in runs if run not in shards]
    for phase in dict.fromkeys(name for run in runs for name in run.record.phases_done):
        kind = phase.replace("migrate-", "")
        needed = list(others)
        if shards and kind in ROW_KINDS:
            if kind in selection.resources and kind not in shards[0].record.selection.resources:
                continue
            if kind != "logs" and not others:  # no run has looked for new objects
                continue
            needed = [*shards, *(others if kind != "logs" else ())]
        if all(run.phase_done(phase) for run in needed):
            yield phase


# -- objects


def _join_objects(new: RunDirectory, run: RunDirectory) -> None:
    for states in run.all_objects():
        into = new.objects(states.resource, states.project)
        _join_states(into, states)
        into.save()


def _join_states(into: ObjectStates, states: ObjectStates) -> None:
    """Add what a run knows about objects. If both know an object, the better outcome counts."""
    for source_id, entry in states.outcomes.items():
        earlier = into.outcomes.get(source_id)
        if earlier and BEST_FIRST.index(earlier.outcome) <= BEST_FIRST.index(entry.outcome):
            continue
        into.outcomes[source_id] = entry
        into.note(source_id, states.findings.get(source_id, ()))
        if source_id in states.fingerprints:
            into.fingerprints[source_id] = states.fingerprints[source_id]
    # the content of an object before the first run that updated it
    into.former = {**states.former, **into.former}
    into.deferred.update(states.deferred)
    into.left_out.update(states.left_out)
    into.intended.update(states.intended)
    into.begun_versions.update(states.begun_versions)
    for source_id, versions in states.versions.items():
        into.versions.setdefault(source_id, {}).update(versions)
    into.listed = max(into.listed, states.listed)


# -- rows


def _join_stream(new: RunDirectory, parts: Sequence[RunPart], task: Task) -> None:
    """Write one checkpoint with the key ranges of all parts and of missing shards."""
    states = [part.state for part in parts]
    joined = _joined_state(new, states, list(_missing_ranges(parts)))
    joined.save()
    rows = {state.seen_path: state.counts["fetched"] for state in states}
    stores = [store for store in rows if store.exists()]
    join_stores(joined.seen_path, stores, lambda store: task.step(rows.pop(store)))
    task.step(sum(rows.values()))
    target = joined.refused_path
    for refused in (state.refused_path for state in states):
        if refused.exists():
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(fd, "ab") as file:
                file.write(refused.read_bytes())


def _joined_state(
    new: RunDirectory, states: Sequence[StreamState], missing: List[KeyRange]
) -> StreamState:
    header = states[0].header
    path = new.stream_path(ROW_KINDS[header["kind"]].folder, header["project"], header["source_id"])
    joined = StreamState.open(path.with_name(path.name + STATE_ENDING), header)
    slices = [part for state in states for part in state.slices] + missing
    joined.slices = sorted(slices, key=lambda part: part.end or "~")  # the open range last
    notes = FindingCounts()
    for state in states:
        notes.merge(FindingCounts(state.findings))
        for name, count in state.counts.items():
            joined.counts[name] += count
    joined.findings = notes.records()
    joined.done = all(part.done for part in slices) and all(state.done for state in states)
    joined.error = next((state.error for state in states if state.error), "")
    for name in ("seconds", "waiting", "failed"):
        setattr(joined, name, sum(getattr(state, name) for state in states))
    _join_copies(joined, states)
    return joined


def _join_copies(joined: StreamState, states: Sequence[StreamState]) -> None:
    copies = [state.copy for state in states]
    before = [copy.before_key for copy in copies]
    joined.copy.before_key = None if None in before else min(str(key) for key in before)
    # A finished part has dropped its record of earlier destination rows: the next start reads them
    # again.
    joined.copy.compared = joined.done
    joined.copy.overwritten = sum(copy.overwritten for copy in copies)
    joined.copy.began = min(copy.began for copy in copies)
    for copy in copies:
        joined.copy.note_transactions(copy.transactions)
    joined.copy.read = sum(copy.read for copy in copies)
    joined.sync.newest = max(state.sync.newest for state in states)
    joined.copy.made = all(copy.made for copy in copies)
    # Shards do not replay states of datasets: at most one part has done so.
    joined.copy.replay = next((copy.replay for copy in copies if copy.replay), "")


def _missing_ranges(parts: Sequence[RunPart]) -> Iterator[KeyRange]:
    """Returns the key ranges of shards whose runs are missing."""
    units = [part.unit for part in parts if part.unit]
    if not units:
        return
    covered_key: Optional[str] = None
    for unit in sorted(units, key=lambda unit: unit.after or ""):
        if unit.after != covered_key:
            yield KeyRange(covered_key, unit.after)
        covered_key = unit.end
    if covered_key is not None:
        yield KeyRange(covered_key, after_second(shard_of(parts[0].run).mark.source))
