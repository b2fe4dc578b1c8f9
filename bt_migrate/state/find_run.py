"""Which run a program works in: a named one, the newest that fits, or a new one."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Iterator, List, Optional, Set, Tuple

from bt_migrate.config.settings import Settings
from bt_migrate.config.values import EARLIER_VERSIONS
from bt_migrate.errors import StateError, UsageError
from bt_migrate.model.resource_table import OBJECT_RESOURCES
from bt_migrate.model.run_identity import Selection
from bt_migrate.state.files import make_private, now, read_json, write_json
from bt_migrate.state.read_only import writable
from bt_migrate.state.run_directory import (
    RunDirectory,
    readable_runs_in,
    runs_in,
    window_of,
)
from bt_migrate.state.run_files import ABSENT_ENDING, RUN_FILE, RUN_NAME, STATE_ENDING
from bt_migrate.state.run_record import Identity, RunRecord, write_run

log = logging.getLogger("bt_migrate.state")

ALL_PHASES = "migrate-all"
VERIFY = "verify"
# Starts within one second, each of which has a directory of its own.
MAX_RUNS_OF_A_SECOND = 1000
# What a plan of a sync takes over from the run that the sync continues.
PLANNED_FROM = (
    "phases_done",
    "folders",
    "project_names",
    "round",
    "marks",
    "source_time",
    "reads_groups",
)


def find_run(settings: Settings, identity: Identity, command: str) -> Tuple[RunDirectory, Settings]:
    """The run to work in, resumed or new, and the settings with the project that a project folder
    means, and with the --history that the run has begun.

    A named run that disagrees with `identity` is refused (UsageError). In a folder of runs the
    newest run of the two organizations is resumed if it is unfinished and agrees, else a new run is
    made.
    """
    run, settings = _found_run(settings, identity, command)
    if not settings.history and _has_histories(run):
        # Else a start without --history would remove versions that objects name.
        settings = replace(settings, history=EARLIER_VERSIONS["all"])
    return (writable(run) if command == VERIFY else run), settings


def _has_histories(run: RunDirectory) -> bool:
    """Whether the run moves earlier versions of prompts and functions, and goes on to do so."""
    versioned = [resource.name for resource in OBJECT_RESOURCES if resource.versioned]
    # Not with the states of `run` itself: a sync opens its round before it reads these.
    as_it_is = RunDirectory(run.path)
    return any(
        as_it_is.objects(name, project).versions
        for project in run.record.folders
        for name in versioned
    )


def _found_run(
    settings: Settings, identity: Identity, command: str
) -> Tuple[RunDirectory, Settings]:
    named, project = _named_run(settings)
    if named is not None:
        return _in_named_run(settings, identity, RunDirectory(named), project)
    root = Path(settings.state_dir)
    _refuse_runs_beside(root, identity)
    with _searching_alone(root):
        if settings.since_last and command != VERIFY:
            return _run_to_sync(settings, identity, command), settings
        if not settings.new_run:
            newest = next((run for run in runs_in(root) if run.same_pair(identity)), None)
            if newest is not None and _resumable(newest, identity, command):
                return newest, settings
        return create_run(root, identity, command), settings


@contextlib.contextmanager
def _searching_alone(root: Path) -> Iterator[None]:
    """One process at a time searches a folder of runs, so that two that find none create one.

    The lock is that of the folder itself. Some file systems have none, and `create_run` reports a
    folder that cannot be made.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            make_private(root)
            fd = os.open(root, os.O_RDONLY)
            held.callback(os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield


def _in_named_run(
    settings: Settings, identity: Identity, run: RunDirectory, project: Optional[str]
) -> Tuple[RunDirectory, Settings]:
    if settings.new_run:
        raise UsageError(
            f"--new-run: {run.path} is a run already; name the folder above it with --state-dir"
        )
    selection = identity.selection
    if project is not None:
        settings = _only_project(settings, run, project)
        selection = replace(selection, projects=list(settings.projects))
    if not settings.exclude_projects and run.record.selection.exclude_projects:
        excluded = run.record.selection.exclude_projects
        settings = replace(settings, exclude_projects=tuple(excluded))
        selection = replace(selection, exclude_projects=excluded)
    if _keeps_window(run, settings, selection):
        settings = replace(settings, **window_of(run))
        selection = replace(selection, **window_of(run))
    refuse_disagreement(run, replace(identity, selection=selection))
    if settings.since_last and run.record.selection != selection:
        raise UsageError(
            f"{run.path}: --since-last needs the run's own --resources and --projects, and a run"
            " without a window"
        )
    return run, settings


def _run_to_sync(settings: Settings, identity: Identity, command: str) -> RunDirectory:
    """The run that a sync continues, a copy of it for a plan, or a new one if there is none."""
    root = Path(settings.state_dir)
    alike = [run for run in readable_runs_in(root) if _can_sync(run, identity)]
    own = [run for run in alike if {command, ALL_PHASES} & _commands_of(run)]
    # Phase scripts share a run.
    joined = alike if command != ALL_PHASES else []
    last = next(iter(own or joined), None)
    if last is not None:
        return copy_to_plan(last, identity, command) if settings.dry_run else last
    log.warning(
        "--since-last: first sync with these --resources/--projects; copying everything",
        extra={"event": "first_copy"},
    )
    return create_run(root, identity, command)


def _commands_of(run: RunDirectory) -> Set[str]:
    return {session.command for session in run.record.sessions}


def unfinished_window_run(
    settings: Settings, identity: Identity, command: str
) -> Optional[RunDirectory]:
    """The last run of this relative window and selection, if an earlier start left it unfinished
    with the period that the window meant then: cron finishes the interrupted night before today's.
    """
    if not settings.relative_window or settings.new_run or _named_run(settings)[0] is not None:
        return None
    for run in readable_runs_in(Path(settings.state_dir)):
        selection_then = replace(identity.selection, **window_of(run))
        same_words = run.record.relative_window == settings.relative_window
        if same_words and run.same_pair(identity) and run.record.selection == selection_then:
            then = replace(identity, selection=selection_then)
            is_left_behind = selection_then != identity.selection and _resumable(run, then, command)
            return run if is_left_behind else None
    return None


def state_root(settings: Settings) -> Path:
    """The folder of runs, also if a run or a project in it is named."""
    named = _named_run(settings)[0]
    return named.parent if named else Path(settings.state_dir)


def _named_run(settings: Settings) -> Tuple[Optional[Path], Optional[str]]:
    """(run, folder name of a project in it) that the settings name; (None, None) for a folder of
    runs.
    """
    path = Path(os.path.abspath(settings.resume_run_dir or settings.state_dir))
    if (path / RUN_FILE).is_file():
        return path, None
    if (path.parent / RUN_FILE).is_file():
        return path.parent, path.resolve().name
    if settings.resume_run_dir:
        raise UsageError(
            f"MIGRATION_RESUME_RUN_DIR: {settings.resume_run_dir} is not a run directory (it has no"
            f" {RUN_FILE})"
        )
    _refuse_missing_run(path)
    return None, None


def _refuse_missing_run(path: Path) -> None:
    """Raises UsageError for a missing run: its path must not become a new folder of runs."""
    inside = next((place for place in path.parents if (place / RUN_FILE).is_file()), None)
    if inside is not None:
        raise UsageError(f"--state-dir: {path} is inside the run {inside}; name the run")
    is_folder_of_runs = path.is_dir() and any(path.glob(f"*/{RUN_FILE}"))
    named = next((place for place in (path, path.parent) if RUN_NAME.match(place.name)), None)
    if named is not None and not is_folder_of_runs:
        raise UsageError(
            f"--state-dir: {path} does not exist as a run or project (no {named / RUN_FILE});"
            f" name an existing run, or the folder of runs {named.parent}"
        )


def _keeps_window(run: RunDirectory, settings: Settings, selection: Selection) -> bool:
    """Whether a named run keeps its own window: none is asked for, or the same relative one."""
    has_window = selection.created_after or selection.created_before
    same_words = settings.relative_window == run.record.relative_window
    return not has_window or bool(settings.relative_window and same_words)


def _only_project(settings: Settings, run: RunDirectory, folder: str) -> Settings:
    names = [name for name, place in run.record.folders.items() if place == folder]
    if not names:
        raise UsageError(
            f"--state-dir: {run.path / folder} is not a project folder of the run {run.path}"
        )
    old_names = {new: old for old, new in settings.rename_projects.items()}
    return replace(settings, projects=(old_names.get(names[0], names[0]),))


def _resumable(run: RunDirectory, identity: Identity, command: str) -> bool:
    """Unfinished, and made for the same selection. Phase scripts share a run until one of them is
    started a second time.
    """
    if run.record.selection != identity.selection or run.record.dry_run:
        return False
    # verify compares a run, finished or not; a part of a move is moved once.
    if command == VERIFY or identity.selection.part is not None:
        return True
    if run.record.finished:
        return False
    if command == ALL_PHASES:
        return run.record.command == ALL_PHASES
    return not run.phase_done(command)


def copy_to_plan(last: RunDirectory, identity: Identity, command: str) -> RunDirectory:
    """Returns a dry run with the last run's objects, positions of streams and missing rows, without
    the rows that it delivered.
    """
    run = create_run(last.path.parent, identity, command)
    for name in PLANNED_FROM:
        setattr(run.record, name, getattr(last.record, name))
    run.save()
    for ending in (STATE_ENDING, ABSENT_ENDING):
        for path in [*last.path.glob(f"*/*{ending}"), *last.path.glob(f"*/*_events/*{ending}")]:
            copied = run.path / path.relative_to(last.path)
            make_private(copied.parent)
            write_json(copied, read_json(path))
    planned = RunDirectory(run.path)
    planned.planned_from = last.path
    return planned


def _can_sync(run: RunDirectory, identity: Identity) -> bool:
    """Whether a sync can continue the run: something was moved, with the same selection."""
    moved = any(command.startswith("migrate-") for command in _commands_of(run))
    return (
        moved
        and run.same_pair(identity, dry_run=False)
        and run.record.selection == identity.selection
        and not run.record.undone
    )


# -- refusals


def refuse_disagreement(run: RunDirectory, identity: Identity) -> None:
    """A named run is used for its own organizations and window; resources and projects may be
    fewer. Raises UsageError.
    """
    if run.record.undone:
        raise UsageError(
            f"{run.path}: was undone; start a new run with the folder above it as --state-dir"
        )
    _refuse_other_organizations(run, identity)
    was = run.record.selection
    today = identity.selection
    for name in ("part", "created_after", "created_before", "rename_projects", "exclude_projects"):
        if getattr(was, name) != getattr(today, name):
            raise UsageError(
                f"{run.path}: was made with {name} = {getattr(was, name)}, now it is"
                f" {getattr(today, name)}; use the same or another --state-dir"
            )
    _refuse_wider(run, "resources", was.resources, today.resources)
    _refuse_wider(run, "projects", was.projects, today.projects)
    if run.record.dry_run != identity.dry_run:
        word = "dry" if run.record.dry_run else "real"
        raise UsageError(f"{run.path}: is a {word} run; use another --state-dir")


def _refuse_other_organizations(run: RunDirectory, identity: Identity) -> None:
    for side in ("source", "dest"):
        was = getattr(run.record, side)
        today = getattr(identity, side)
        if was.org_id != today.org_id:
            raise UsageError(
                f"{run.path}: was made for {side} organization {was.org_name} ({was.org_id}),"
                f" now it is {today.org_name} ({today.org_id}); use its keys or another"
                " --state-dir"
            )


def _refuse_wider(run: RunDirectory, word: str, was: List[str], today: List[str]) -> None:
    if was and not set(today or ["all"]) <= set(was):
        raise UsageError(
            f"{run.path}: was made for {word} {', '.join(was)}, now they are"
            f" {', '.join(today) or 'all'}; use another --state-dir"
        )


def _refuse_runs_beside(root: Path, identity: Identity) -> None:
    """Raises UsageError for what the runs of the folder show to be a mistake.

    A shard needs a folder of its own, in which it is found again. Keys that were swapped would
    write to the organization that was the source.
    """
    today = identity.selection.part
    for run in readable_runs_in(root):
        was = run.record.selection.part
        if was != today and "shard" in f"{was} {today}":
            raise UsageError(
                f"{run.path}: holds {was or 'no shard'}, now it is {today or 'no shard'}; use a"
                " --state-dir for each"
            )
        if _moved_back(run, identity):
            raise UsageError(
                f"{run.path}: moved {identity.dest.org_name} to {identity.source.org_name}, now it"
                " would be the other way; swap the keys, or use another --state-dir"
            )


def _moved_back(run: RunDirectory, identity: Identity) -> bool:
    """Whether the run wrote into the organization that is the source now."""
    ids = (run.record.source.org_id, run.record.dest.org_id)
    wrote = run.record.wrote and not run.record.undone
    return wrote and ids == (identity.dest.org_id, identity.source.org_id)


# -- a new run


def create_run(root: Path, identity: Identity, command: str) -> RunDirectory:
    """A new directory named by the time, with its run.json. Raises UsageError or StateError."""
    path = make_run_folder(root, datetime.now(timezone.utc))
    made_for = {name: getattr(identity, name) for name in identity.__dataclass_fields__}
    record = RunRecord(**made_for, command=command, created=now())
    write_run(path / RUN_FILE, record)
    return RunDirectory(path)


def make_run_folder(root: Path, at: datetime) -> Path:
    stamp = at.strftime("%Y%m%d_%H%M%S")
    path = root / stamp
    try:
        make_private(root)
        for number in range(MAX_RUNS_OF_A_SECOND):
            path = root / (f"{stamp}_{number:02d}" if number else stamp)
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
                return path
    except OSError as error:
        hint = f"; {root} is a file, name a folder" if root.is_file() else ""
        raise UsageError(f"--state-dir: {path} cannot be made ({error.strerror}){hint}") from None
    raise StateError(f"{root}: holds {MAX_RUNS_OF_A_SECOND} runs of this second; try again later")
