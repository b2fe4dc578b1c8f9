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
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Set, Union

from bt_migrate.errors import LockedError, StateError, UsageError
from bt_migrate.state.files import read_json, write_json
from bt_migrate.state.live_counts import LiveCounts
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.stream_state import StreamState

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
    [
        ORGANIZATION_FOLDER,
        VERIFY_FOLDER,
        "con",
        "prn",
        "aux",
        "nul",
        *(f"com{n}" for n in "123456789"),
        *(f"lpt{n}" for n in "123456789"),
    ]
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
        self.live = LiveCounts()
        self._objects: Dict[Path, ObjectStates] = {}
        self._searched: Set[str] = (
            set()
        )  # projects whose objects' files of earlier processes are open
        self._streams: Dict[str, StreamState] = {}  # by path: each file is read once
        self._written: Set[str] = set()  # but for those that somebody is writing
        self._lock = threading.RLock()
        self._lock_fd: Optional[int] = None

    def __enter__(self) -> RunDirectory:
        if not self.kept and not (self.path / LOCK_FILE).exists():  # a copy of a run, without it
            return self
        fd = os.open(
            self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT if self.kept else os.O_RDONLY, 0o600
        )
        try:
            # released by the system when the process dies, however it dies
            fcntl.flock(fd, (fcntl.LOCK_EX if self.kept else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(fd, 20).decode("ascii", "replace").strip()
            os.close(fd)
            raise LockedError(
                f"{self.path}: process {holder or 'unknown'} is working on this run; wait for it or stop it first"
            ) from None
        with contextlib.suppress(
            OSError
        ):  # for people only: a full disk is told of where something is lost by it
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
        pair = all(
            self.data[side]["org_id"] == identity[side]["org_id"] for side in ("source", "dest")
        )
        pair = pair and self.data["selection"].get("rename_projects") == identity["selection"].get(
            "rename_projects"
        )
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

    def project_names(
        self, today: Mapping[str, str], known: Mapping[str, Mapping[str, Any]]
    ) -> Dict[str, str]:
        """Source id -> the name by which this run has its files, whatever the project is called `today`: the one that it had first.
        Kept in run.json; `known`: what the state of projects says, for runs of earlier versions.
        """
        with self._lock:
            names: Dict[str, str] = self.data.setdefault("project_names", {})
            before = dict(names)
            for source_id, name in {
                **{one: entry["name"] for one, entry in known.items()},
                **today,
                **names,
            }.items():
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
        return (
            self.folder(project) / folder / source_id if folder else self.folder(project) / "logs"
        )

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
                    found += [
                        self._stream(one.path)
                        for one in _entries(folder.path)
                        if one.name.endswith(STREAM_FILE)
                    ]
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
                return StreamState.open(Path(path), {})
            if path not in self._streams:
                self._streams[path] = StreamState.open(Path(path), {})
            return self._streams[path]


def _entries(folder: Union[str, Path]) -> List[os.DirEntry[str]]:
    """What is in a folder, in order of the names; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda one: one.name)
    except FileNotFoundError:
        return []


def window_of(run: RunDirectory) -> Dict[str, Any]:
    """The absolute bounds that a run was made with, as settings."""
    return {name: run.data["selection"][name] for name in ("created_after", "created_before")}


def run_at(path: Path) -> Path:
    """The run directory that a path names: a run, a project in one, or a folder of runs, whose newest it is. Raises UsageError."""
    named = next(
        (one for one in (path, path.absolute().parent) if (one / RUN_FILE).is_file()), None
    )
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
    into["rows"] = into.get("rows", 0) + oldest.get("rows", 0)
    into["wrote_until"] = max(into.get("wrote_until", 0.0), oldest.get("wrote_until", 0.0))


def end_killed_session(run: RunDirectory, clock_offset_s: float) -> None:
    """Note until when the last process can have written, by the destination's clock, where it was killed before it could say: its files
    tell, until another process writes them.
    """
    last = run.data["sessions"][-1:]
    if last and "wrote_until" not in last[0]:
        times = [path.stat().st_mtime for path in run.path.rglob("*_state.json")]
        last[0]["wrote_until"] = (
            max(times, default=run.path.stat().st_mtime) + clock_offset_s + KILLED_SLACK_S
        )


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
    return (
        sorted((path.parent for path in root.glob(f"*/{RUN_FILE}")), reverse=True)
        if root.is_dir()
        else []
    )
