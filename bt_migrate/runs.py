"""Runs: one directory each, with its lock and run.json; which one a program works in. The mapping of projects to folders.

A run is bound to its two organizations; a start that disagrees with it is refused with both values shown.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import threading
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Set, Tuple, Union

from bt_migrate.errors import LockedError, StateError, UsageError
from bt_migrate.meter import Meter
from bt_migrate.settings import Settings
from bt_migrate.state import FORMAT, ObjectStates, StreamState, make_private, now, read_json, write_json

log = logging.getLogger("bt_migrate.state")

RUN_FILE = "run.json"
LOCK_FILE = "run.lock"
STATUS_FILE = "status.json"  # what the running process tells of itself
CONTROL_FILE = "control"  # what it is asked to do
ORGANIZATION_FOLDER = "organization"
VERIFY_FOLDER = "verify"
STREAM_FILE = "_state.json"  # the end of a checkpoint's name
MAX_FOLDER_BYTES = 80
KILLED_SLACK_S = 300  # a process that was killed may have had requests on their way
MAX_SESSIONS = 50  # that a run tells one by one
RESERVED_FOLDERS = frozenset(
    [ORGANIZATION_FOLDER, VERIFY_FOLDER, "con", "prn", "aux", "nul", *(f"com{n}" for n in "123456789"), *(f"lpt{n}" for n in "123456789")]
)

RUN_FILES = frozenset(
    (RUN_FILE, LOCK_FILE, "attachments.sqlite3", "attachments.sqlite3-wal", "attachments.sqlite3-shm", "findings.jsonl",
     "migration_report.json", "migration_summary.txt", STATUS_FILE, CONTROL_FILE, f"{RUN_FILE}.tmp")
)  # fmt: skip  # beside which the folders of projects lie


def folder_name(name: str, taken: Iterable[str]) -> str:
    """A folder for a project of any name: no path, no leading dot, no clash of case, short.

    Recognizable where that is possible.
    """
    plain = re.sub(r"[^\w .-]", "_", name).strip(" .")
    plain = plain.encode("utf-8", "ignore")[:MAX_FOLDER_BYTES].decode("utf-8", "ignore").strip(" .")
    folded = plain.casefold()
    clashing = {*RUN_FILES, *(one.casefold() for one in taken)}
    if plain == name and folded.split(".")[0] not in RESERVED_FOLDERS and folded not in clashing:
        return plain
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    marked = (f"{plain or 'project'}-{mark[start : start + 8]}" for start in range(56))
    return next(one for one in marked if one.casefold() not in clashing)


class RunDirectory:
    """One run: `with` holds its lock. Gives out the states of objects and streams, each opened once.

    One that is not `kept` is a copy in memory: nothing that is done to it is written; its lock keeps writers out, not readers.
    """

    def __init__(self, path: Path, *, kept: bool = True) -> None:
        self.path = path
        self.kept = kept
        self.moves = False  # objects are planned in this process: in a round of a sync their outcomes begin anew
        self.data: Dict[str, Any] = read_json(path / RUN_FILE)
        self.meter = Meter()
        self._objects: Dict[Path, ObjectStates] = {}
        self._searched: Set[str] = set()  # projects whose objects' files of earlier processes are open
        self._streams: Dict[str, StreamState] = {}  # by path: each file is read once
        self._written: Set[str] = set()  # but for those that somebody is writing
        self._lock = threading.RLock()
        self._lock_fd: Optional[int] = None

    def __enter__(self) -> RunDirectory:
        if not self.kept and not (self.path / LOCK_FILE).exists():  # a copy of a run, without it
            return self
        fd = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT if self.kept else os.O_RDONLY, 0o600)
        try:
            # released by the system when the process dies, however it dies
            fcntl.flock(fd, (fcntl.LOCK_EX if self.kept else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(fd, 20).decode("ascii", "replace").strip()
            os.close(fd)
            raise LockedError(
                f"{self.path}: process {holder or 'unknown'} is working on this run; wait for it or stop it first"
            ) from None
        with contextlib.suppress(OSError):  # for people only: a full disk is told of where something is lost by it
            if self.kept:
                os.ftruncate(fd, 0)
                os.write(fd, f"{os.getpid()}\n".encode("ascii"))
        self._lock_fd = fd
        self.data = read_json(self.path / RUN_FILE)  # as the last holder left it
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def save(self) -> None:
        """By any thread."""
        with self._lock:
            if self.kept:
                write_json(self.path / RUN_FILE, self.data)

    def same_pair(self, identity: Mapping[str, Any]) -> bool:
        """Whether the run is one of these two organizations and names of projects, and dry or real as asked."""
        pair = all(self.data[side]["org_id"] == identity[side]["org_id"] for side in ("source", "dest"))
        pair = pair and self.data["selection"].get("rename_projects") == identity["selection"].get("rename_projects")
        return bool(pair and self.data["dry_run"] == identity["dry_run"])

    def phase_done(self, phase: str) -> bool:
        return phase in self.data["phases_done"]

    def mark_phases_done(self, phases: Iterable[str]) -> None:
        new = [phase for phase in phases if not self.phase_done(phase)]
        if new:
            self.data["phases_done"] += new
            self.save()

    def folder(self, project: str) -> Path:
        """The folder of a project, "" for the organization's; the mapping is kept in run.json."""
        if not project:
            return self.path / ORGANIZATION_FOLDER
        self.name_folders([project])
        return self.path / self.data["folders"][project]

    def name_folders(self, projects: Iterable[str]) -> None:
        """Choose the folders of projects that have none yet."""
        with self._lock:
            folders = self.data["folders"]
            new = [project for project in projects if project not in folders]
            for project in new:
                folders[project] = folder_name(project, folders.values())
            if new:
                self.save()

    def project_names(self, today: Mapping[str, str], known: Mapping[str, Mapping[str, Any]]) -> Dict[str, str]:
        """Source id -> the name by which this run has its files, whatever the project is called `today`: the one that it had first.
        Kept in run.json; `known`: what the state of projects says, for runs of earlier versions.
        """
        with self._lock:
            names: Dict[str, str] = self.data.setdefault("project_names", {})
            before = dict(names)
            for source_id, name in {**{one: entry["name"] for one, entry in known.items()}, **today, **names}.items():
                free = name not in names.values()
                names.setdefault(source_id, name if free else f"{name} [{source_id}]")
            if names != before:
                self.save()
            return names

    def objects(self, resource: str, project: str = "") -> ObjectStates:
        path = self.folder(project) / f"{resource}_state.json"
        with self._lock:
            if path not in self._objects:
                self._objects[path] = ObjectStates(path, resource, project, kept=self.kept)
                if self.moves:
                    self._objects[path].begin_round(self.data.get("round", 0))
            return self._objects[path]

    def stream_path(self, folder: str, project: str, source_id: str) -> Path:
        """Path of a stream's files without their endings: <project>/dataset_events/<id>, or <project>/logs."""
        return self.folder(project) / folder / source_id if folder else self.folder(project) / "logs"

    def all_objects(self) -> List[ObjectStates]:
        """Every object state of the run, also of earlier processes, in the order of the projects."""
        places = {project: place for place, project in enumerate(["", *self.data["folders"]])}
        for project in places.keys() - self._searched:
            for path in self.folder(project).glob("*_state.json"):
                if path.name != "logs_state.json":
                    self.objects(path.name[: -len("_state.json")], project)
            self._searched.add(project)
        return sorted(self._objects.values(), key=lambda one: (places[one.project], one.resource))

    def has_stream(self, folder: str, project: str, source_id: str) -> bool:
        """Whether the rows of an object have a checkpoint."""
        path = self.stream_path(folder, project, source_id)
        return path.with_name(path.name + STREAM_FILE).exists()

    def all_streams(self) -> List[StreamState]:
        found: List[StreamState] = []
        for project in self.data["folders"]:
            inside = _entries(self.folder(project))
            for folder in inside:
                if folder.name.endswith("_events") and folder.is_dir():
                    found += [self._stream(one.path) for one in _entries(folder.path) if one.name.endswith(STREAM_FILE)]
            found += [self._stream(one.path) for one in inside if one.name == "logs" + STREAM_FILE]
        return found

    def open_stream(self, path: Path) -> None:
        """Somebody is about to write the checkpoint: until it is closed, it is what its file says."""
        with self._lock:
            self._written.add(str(path))

    def close_stream(self, state: StreamState, *, written: bool) -> None:
        """The opposite of `open_stream`, once the file says what the state says, unless it was not `written` at all."""
        with self._lock:
            self._written.discard(str(state.path))
            if written:
                self._streams[str(state.path)] = state

    def _stream(self, path: str) -> StreamState:
        with self._lock:
            if path in self._written:
                return StreamState(Path(path), {})
            if path not in self._streams:
                self._streams[path] = StreamState(Path(path), {})
            return self._streams[path]


def _entries(folder: Union[str, Path]) -> List[os.DirEntry[str]]:
    """What is in a folder, in order of the names; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda one: one.name)
    except FileNotFoundError:
        return []


def find_run(settings: Settings, identity: Mapping[str, Any], command: str) -> Tuple[RunDirectory, Settings]:
    """The run to work in, resumed or new, and the settings with the project that a project's folder stands for.

    `identity`: source and dest {org_id, org_name, url}, selection, dry_run. A named run that disagrees with it is refused
    (UsageError). A root gives its newest run of the two organizations if that is unfinished and agrees, else a new run.
    """
    named, project = _named_run(settings)
    if named is not None:
        if settings.new_run:
            raise UsageError(f"--new-run: {named} is a run already; name the folder above it with --state-dir")
        run = RunDirectory(named)
        if project is not None:
            settings = _only_project(settings, run, project)
            identity = {**identity, "selection": {**identity["selection"], "projects": list(settings.projects)}}
        if _keeps_window(run, settings, identity["selection"]):
            settings = replace(settings, **window_of(run))
            identity = {**identity, "selection": {**identity["selection"], **window_of(run)}}
        refuse_disagreement(run, identity)
        if settings.since_last and run.data["selection"] != identity["selection"]:
            raise UsageError(f"{run.path}: --since-last needs the run's own --resources and --projects, and a run without a window")
        return run, settings
    root = Path(settings.state_dir)
    _refuse_other_parts(root, identity["selection"])
    if settings.since_last and command != "verify":
        real = {**identity, "dry_run": False}
        alike = [run for run in readable_runs_in(root) if _can_go_on(run, real)]
        own = [run for run in alike if {command, "migrate-all"} & {one["command"] for one in run.data["sessions"]}]
        joined = alike if command != "migrate-all" else []  # phase scripts share a run
        last = next(iter(own or joined), None)
        if last is not None:
            return copy_to_plan(last, identity, command) if settings.dry_run else last, settings
        log.info("--since-last: no run of this selection is there to go on in, so everything is copied", extra={"event": "first_copy"})
        return create_run(root, identity, command), settings
    if not settings.new_run:
        newest = next((run for run in runs_in(root) if run.same_pair(identity)), None)
        if newest is not None and _resumable(newest, identity, command):
            return newest, settings
    return create_run(root, identity, command), settings


def left_behind(settings: Settings, identity: Mapping[str, Any], command: str) -> Optional[RunDirectory]:
    """The last run of this relative window and selection, if an earlier start left it unfinished with what the window meant then:
    cron finishes the night that was killed before that of today.
    """
    if not settings.relative_window or settings.new_run or _named_run(settings)[0] is not None:
        return None
    for run in readable_runs_in(Path(settings.state_dir)):
        as_then = {**identity, "selection": {**identity["selection"], **window_of(run)}}
        same_words = run.data.get("relative_window") == settings.relative_window
        if same_words and run.same_pair(identity) and run.data["selection"] == as_then["selection"]:
            left = as_then["selection"] != identity["selection"] and _resumable(run, as_then, command)
            return run if left else None
    return None


def window_of(run: RunDirectory) -> Dict[str, Any]:
    """The absolute bounds that a run was made with, as settings."""
    return {name: run.data["selection"][name] for name in ("created_after", "created_before")}


def state_root(settings: Settings) -> Path:
    """The folder of runs, also where a run or a project in it is named."""
    named = _named_run(settings)[0]
    return named.parent if named else Path(settings.state_dir)


def run_at(path: Path) -> Path:
    """The run directory that a path names: a run, a project in one, or a folder of runs, whose newest it is. Raises UsageError."""
    named = next((one for one in (path, path.absolute().parent) if (one / RUN_FILE).is_file()), None)
    newest = _run_paths(path)
    if named is None and not newest:
        raise UsageError(f"{path}: there is no run")
    return named or newest[0]


def runs_in(root: Path) -> Iterator[RunDirectory]:
    """All runs of a root, newest first, each read when it is asked for: an old one that is damaged is in nobody's way."""
    return (RunDirectory(path) for path in _run_paths(root))


def readable_runs_in(root: Path) -> Iterator[RunDirectory]:
    """All runs of a root that can be read, for those who only look at the others: a damaged one is told and passed over."""
    for path in _run_paths(root):
        try:
            yield RunDirectory(path)
        except StateError as error:
            log.warning("passed over: %s", error)


def add_session(sessions: List[Dict[str, Any]], session: Dict[str, Any]) -> None:
    """Add the start of a process. Of very many, as a sync from cron makes them, the oldest becomes part of the first of its command:
    what is written at each step must not grow with the weeks.
    """
    sessions.append(session)
    if len(sessions) <= MAX_SESSIONS:
        return
    first = {one["command"]: one for one in reversed(sessions)}
    oldest = next(one for one in sessions if one is not first[one["command"]])
    sessions.remove(oldest)
    into = first[oldest["command"]]
    into["starts"] = into.get("starts", 1) + 1
    into["seconds"] = round(into.get("seconds", 0) + oldest.get("seconds", 0), 3)
    into["wrote_until"] = max(into.get("wrote_until", 0.0), oldest.get("wrote_until", 0.0))


def end_killed_session(run: RunDirectory, clock_offset_s: float) -> None:
    """Note until when the last process can have written, by the destination's clock, where it was killed before it could say: its files
    tell, until another process writes them.
    """
    last = run.data["sessions"][-1:]
    if last and "wrote_until" not in last[0]:
        times = [path.stat().st_mtime for path in run.path.rglob("*_state.json")]
        last[0]["wrote_until"] = max(times, default=run.path.stat().st_mtime) + clock_offset_s + KILLED_SLACK_S


def fingerprints_in(run: RunDirectory, resource: str) -> Dict[str, List[str]]:
    """Source id -> fingerprints of a kind, over all real runs of the two organizations beside `run`, the newest first."""
    found: Dict[str, List[str]] = {}
    for earlier in readable_runs_in(run.path.parent):
        if not earlier.same_pair({**run.data, "dry_run": False}) or earlier.data.get("undone"):
            continue
        try:
            for project in ["", *earlier.data["folders"]]:
                for source_id, prints in earlier.objects(resource, project).fingerprints.items():
                    found.setdefault(source_id, prints)
        except StateError as error:
            log.warning("passed over: %s", error)
    return found


def _run_paths(root: Path) -> List[Path]:
    return sorted((path.parent for path in root.glob(f"*/{RUN_FILE}")), reverse=True) if root.is_dir() else []


def _named_run(settings: Settings) -> Tuple[Optional[Path], Optional[str]]:
    """(run, folder name of a project in it) that the settings name; (None, None) for a root."""
    path = Path(os.path.abspath(settings.resume_run_dir or settings.state_dir))
    if (path / RUN_FILE).is_file():
        return path, None
    if (path.parent / RUN_FILE).is_file():
        return path.parent, path.resolve().name
    if settings.resume_run_dir:
        raise UsageError(f"MIGRATION_RESUME_RUN_DIR: {settings.resume_run_dir} is no run directory (it has no {RUN_FILE})")
    return None, None


def _keeps_window(run: RunDirectory, settings: Settings, selection: Mapping[str, Any]) -> bool:
    """A named run goes on with its own window where none is asked for, or the same relative words."""
    asked = selection["created_after"] or selection["created_before"]
    return not asked or bool(settings.relative_window and settings.relative_window == run.data.get("relative_window"))


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
    if command == "verify" or "part" in identity["selection"]:  # judges a run, finished or not; a part of a move is moved once
        return True
    if run.data["finished"]:
        return False
    if command == "migrate-all":
        return bool(run.data["command"] == "migrate-all")
    return not run.phase_done(command)


def copy_to_plan(last: RunDirectory, identity: Mapping[str, Any], command: str) -> RunDirectory:
    """A dry run that knows what the last run knows: its objects and where its streams stand, not its rows."""
    run = create_run(last.path.parent, identity, command)
    names = ("phases_done", "folders", "project_names", "round", "marks", "source_time", "reads_groups")
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
    return moved and run.same_pair(identity) and run.data["selection"] == identity["selection"] and not run.data.get("undone")


def refuse_disagreement(run: RunDirectory, identity: Mapping[str, Any]) -> None:
    """A named run is used for its own two organizations and window; resources and projects may be fewer."""
    if run.data.get("undone"):
        raise UsageError(f"{run.path}: was undone; start a new run with the folder above it as --state-dir")
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
            raise UsageError(f"{run.path}: was made with {name} = {was}, today's is {today}; use the same or another --state-dir")
    for name in ("resources", "projects"):
        was, today = run.data["selection"][name], identity["selection"][name]
        if was and not set(today or ["all"]) <= set(was):
            raise UsageError(
                f"{run.path}: was made for {name} {', '.join(was)}, today's are {', '.join(today) or 'all'}; use another --state-dir"
            )
    if run.data["dry_run"] != identity["dry_run"]:
        raise UsageError(f"{run.path}: is the run of a {'dry' if run.data['dry_run'] else 'real'} run; use another --state-dir")


def _refuse_other_parts(root: Path, selection: Mapping[str, Any]) -> None:
    """A shard is moved in a folder of its own, in which it is found again."""
    today = selection.get("part")
    for run in readable_runs_in(root):
        was = run.data["selection"].get("part")
        if was != today and "shard" in f"{was} {today}":
            raise UsageError(f"{run.path}: holds {was or 'no shard'}, today's is {today or 'no shard'}; use a --state-dir for each")


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
