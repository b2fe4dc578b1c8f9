"""find_run."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Mapping, Optional, Tuple

from bt_migrate.config.settings import Settings
from bt_migrate.errors import UsageError
from bt_migrate.state.files import FORMAT, make_private, now, read_json, write_json
from bt_migrate.state.run_directory import (
    RUN_FILE,
    RunDirectory,
    readable_runs_in,
    runs_in,
    window_of,
)

log = logging.getLogger("bt_migrate.state")


def find_run(
    settings: Settings, identity: Mapping[str, Any], command: str
) -> Tuple[RunDirectory, Settings]:
    """The run to work in, resumed or new, and the settings with the project that a project's folder stands for.

    `identity`: source and dest {org_id, org_name, url}, selection, dry_run. A named run that disagrees with it is refused
    (UsageError). A root gives its newest run of the two organizations if that is unfinished and agrees, else a new run.
    """
    named, project = _named_run(settings)
    if named is not None:
        if settings.new_run:
            raise UsageError(
                f"--new-run: {named} is a run already; name the folder above it with --state-dir"
            )
        run = RunDirectory(named)
        if project is not None:
            settings = _only_project(settings, run, project)
            identity = {
                **identity,
                "selection": {**identity["selection"], "projects": list(settings.projects)},
            }
        if _keeps_window(run, settings, identity["selection"]):
            settings = replace(settings, **window_of(run))
            identity = {**identity, "selection": {**identity["selection"], **window_of(run)}}
        refuse_disagreement(run, identity)
        if settings.since_last and run.data["selection"] != identity["selection"]:
            raise UsageError(
                f"{run.path}: --since-last needs the run's own --resources and --projects, and a run without a window"
            )
        return run, settings
    root = Path(settings.state_dir)
    _refuse_other_parts(root, identity["selection"])
    if settings.since_last and command != "verify":
        real = {**identity, "dry_run": False}
        alike = [run for run in readable_runs_in(root) if _can_go_on(run, real)]
        own = [
            run
            for run in alike
            if {command, "migrate-all"} & {one["command"] for one in run.data["sessions"]}
        ]
        joined = alike if command != "migrate-all" else []  # phase scripts share a run
        last = next(iter(own or joined), None)
        if last is not None:
            return copy_to_plan(last, identity, command) if settings.dry_run else last, settings
        log.info(
            "--since-last: no run of this selection is there to go on in, so everything is copied",
            extra={"event": "first_copy"},
        )
        return create_run(root, identity, command), settings
    if not settings.new_run:
        newest = next((run for run in runs_in(root) if run.same_pair(identity)), None)
        if newest is not None and _resumable(newest, identity, command):
            return newest, settings
    return create_run(root, identity, command), settings


def left_behind(
    settings: Settings, identity: Mapping[str, Any], command: str
) -> Optional[RunDirectory]:
    """The last run of this relative window and selection, if an earlier start left it unfinished with what the window meant then:
    cron finishes the night that was killed before that of today.
    """
    if not settings.relative_window or settings.new_run or _named_run(settings)[0] is not None:
        return None
    for run in readable_runs_in(Path(settings.state_dir)):
        as_then = {**identity, "selection": {**identity["selection"], **window_of(run)}}
        same_words = run.data.get("relative_window") == settings.relative_window
        if same_words and run.same_pair(identity) and run.data["selection"] == as_then["selection"]:
            left = as_then["selection"] != identity["selection"] and _resumable(
                run, as_then, command
            )
            return run if left else None
    return None


def state_root(settings: Settings) -> Path:
    """The folder of runs, also where a run or a project in it is named."""
    named = _named_run(settings)[0]
    return named.parent if named else Path(settings.state_dir)


def _named_run(settings: Settings) -> Tuple[Optional[Path], Optional[str]]:
    """(run, folder name of a project in it) that the settings name; (None, None) for a root."""
    path = Path(os.path.abspath(settings.resume_run_dir or settings.state_dir))
    if (path / RUN_FILE).is_file():
        return path, None
    if (path.parent / RUN_FILE).is_file():
        return path.parent, path.resolve().name
    if settings.resume_run_dir:
        raise UsageError(
            f"MIGRATION_RESUME_RUN_DIR: {settings.resume_run_dir} is no run directory (it has no {RUN_FILE})"
        )
    return None, None


def _keeps_window(run: RunDirectory, settings: Settings, selection: Mapping[str, Any]) -> bool:
    """A named run goes on with its own window where none is asked for, or the same relative words."""
    asked = selection["created_after"] or selection["created_before"]
    return not asked or bool(
        settings.relative_window and settings.relative_window == run.data.get("relative_window")
    )


def _only_project(settings: Settings, run: RunDirectory, folder: str) -> Settings:
    names = [name for name, one in run.data["folders"].items() if one == folder]
    if not names:
        raise UsageError(f"--state-dir: {folder} is no project folder of the run {run.path}")
    old_names = {new: old for old, new in settings.rename_projects.items()}
    return replace(settings, projects=(old_names.get(names[0], names[0]),))


def _resumable(run: RunDirectory, identity: Mapping[str, Any], command: str) -> bool:
    """Unfinished and made for the same selection. Phase scripts share a run until one of them comes a second time."""
    if run.data["selection"] != identity["selection"] or run.data["dry_run"]:
        return False
    if (
        command == "verify" or "part" in identity["selection"]
    ):  # judges a run, finished or not; a part of a move is moved once
        return True
    if run.data["finished"]:
        return False
    if command == "migrate-all":
        return bool(run.data["command"] == "migrate-all")
    return not run.phase_done(command)


def copy_to_plan(last: RunDirectory, identity: Mapping[str, Any], command: str) -> RunDirectory:
    """A dry run that knows what the last run knows: its objects and where its streams stand, not its rows."""
    run = create_run(last.path.parent, identity, command)
    names = (
        "phases_done",
        "folders",
        "project_names",
        "round",
        "marks",
        "source_time",
        "reads_groups",
    )
    run.data.update({name: last.data[name] for name in names if name in last.data})
    run.save()
    for pattern in ("*/*_state.json", "*/*_events/*_state.json"):
        for path in last.path.glob(pattern):
            copied = run.path / path.relative_to(last.path)
            make_private(copied.parent)
            write_json(copied, read_json(path))
    return run


def _can_go_on(run: RunDirectory, identity: Mapping[str, Any]) -> bool:
    """Whether a sync can go on in the run: of the same organizations and selection, and something was moved in it."""
    moved = any(session["command"].startswith("migrate-") for session in run.data["sessions"])
    return (
        moved
        and run.same_pair(identity)
        and run.data["selection"] == identity["selection"]
        and not run.data.get("undone")
    )


def refuse_disagreement(run: RunDirectory, identity: Mapping[str, Any]) -> None:
    """A named run is used for its own two organizations and window; resources and projects may be fewer."""
    if run.data.get("undone"):
        raise UsageError(
            f"{run.path}: was undone; start a new run with the folder above it as --state-dir"
        )
    for side in ("source", "dest"):
        if run.data[side]["org_id"] != identity[side]["org_id"]:
            was, today = run.data[side], identity[side]
            raise UsageError(
                f"{run.path}: was made for {side} organization {was['org_name']} ({was['org_id']}), "
                f"today's is {today['org_name']} ({today['org_id']}); use its keys or another --state-dir"
            )
    for name in ("part", "created_after", "created_before", "rename_projects"):
        was, today = run.data["selection"].get(name), identity["selection"].get(name)
        if was != today:
            raise UsageError(
                f"{run.path}: was made with {name} = {was}, today's is {today}; use the same or another --state-dir"
            )
    for name in ("resources", "projects"):
        was, today = run.data["selection"][name], identity["selection"][name]
        if was and not set(today or ["all"]) <= set(was):
            raise UsageError(
                f"{run.path}: was made for {name} {', '.join(was)}, today's are {', '.join(today) or 'all'}; use another --state-dir"
            )
    if run.data["dry_run"] != identity["dry_run"]:
        raise UsageError(
            f"{run.path}: is the run of a {'dry' if run.data['dry_run'] else 'real'} run; use another --state-dir"
        )


def _refuse_other_parts(root: Path, selection: Mapping[str, Any]) -> None:
    """A shard is moved in a folder of its own, in which it is found again."""
    today = selection.get("part")
    for run in readable_runs_in(root):
        was = run.data["selection"].get("part")
        if was != today and "shard" in f"{was} {today}":
            raise UsageError(
                f"{run.path}: holds {was or 'no shard'}, today's is {today or 'no shard'}; use a --state-dir for each"
            )


def create_run(root: Path, identity: Mapping[str, Any], command: str) -> RunDirectory:
    """A new directory named by the time, with its run.json."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
    path = root / stamp
    try:
        make_private(root)
        for attempt in range(100):
            path = root / (stamp if not attempt else f"{stamp}_{attempt:02d}")
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
                break
    except OSError as error:
        raise UsageError(f"--state-dir: {path} cannot be made ({error.strerror})") from None
    write_json(
        path / RUN_FILE,
        {
            "format": FORMAT,
            **identity,
            "command": command,
            "created": now(),
            "phases_done": [],
            "finished": False,
            "sessions": [],
            "folders": {},
        },
    )
    return RunDirectory(path)
