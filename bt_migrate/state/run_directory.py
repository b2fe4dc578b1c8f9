"""A run: one directory with its lock, run.json, and the states of its objects and streams.

A run belongs to two organizations and one selection; `find_run` decides which run a program works
in.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import threading
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Set, Union

from bt_migrate.errors import LockedError, StateError, UsageError
from bt_migrate.state.files import cannot_write
from bt_migrate.state.folder_names import folder_name, id_file_name, storable
from bt_migrate.state.join_stores import copy_store
from bt_migrate.state.live_counts import LiveCounts
from bt_migrate.state.object_file import ObjectOutcome
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_files import (
    LOCK_FILE,
    LOGS_STATE_FILE,
    ORGANIZATION_FOLDER,
    RUN_FILE,
    RUN_NAME,
    STATE_ENDING,
)
from bt_migrate.state.run_record import Identity, RunRecord, read_run, write_run
from bt_migrate.state.stream_state import StreamState

log = logging.getLogger("bt_migrate.state")

# What flock answers if another process holds the lock; anything else means that there are no locks.
HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class RunDirectory:
    """One run; `with` holds its lock. Opens the state of each object and stream once.

    A run that is not `kept` is only read: nothing is written, and its lock excludes writers but not
    other readers.
    """

    def __init__(self, path: Path, *, kept: bool = True) -> None:
        self.path = path
        self.kept = kept
        # True if this process plans objects: a sync round then starts with empty outcomes.
        self.moves = False
        # In the plan of a sync: the run that the sync would continue.
        self.planned_from: Optional[Path] = None
        self.record: RunRecord = read_run(path / RUN_FILE)
        self.live = LiveCounts()
        self._objects: Dict[Path, ObjectStates] = {}
        # Projects whose object files of earlier processes are open.
        self._searched: Set[str] = set()
        # By path: each file is read once, except while a stream is being written.
        self._streams: Dict[str, StreamState] = {}
        self._written: Set[str] = set()
        # Checkpoints of the streams that this process has read to their end.
        self._completed: Set[Path] = set()
        self._lock = threading.RLock()
        self._lock_fd: Optional[int] = None

    def __enter__(self) -> RunDirectory:
        self._lock_fd = _take_lock(self.path, exclusive=self.kept)
        try:
            self.record = read_run(self.path / RUN_FILE)  # as the last holder left it
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def save(self) -> None:
        """Write run.json. Any thread may call it."""
        with self._lock:
            if self.kept:
                write_run(self.path / RUN_FILE, self.record)

    def note_write(self) -> None:
        """Record that a write to the destination begins. Any thread may call it, and returns once
        that is stored.
        """
        with self._lock:
            if not self.record.wrote:
                self.record.wrote = True
                self.save()

    def same_pair(self, identity: Identity, *, dry_run: Optional[bool] = None) -> bool:
        """Whether the run is for the same two organizations and project names, and dry or real as
        `identity` is (or as `dry_run` says).
        """
        record = self.record
        wanted = identity.dry_run if dry_run is None else dry_run
        return (
            record.source.org_id == identity.source.org_id
            and record.dest.org_id == identity.dest.org_id
            and record.selection.rename_projects == identity.selection.rename_projects
            and record.dry_run == wanted
        )

    def phase_done(self, phase: str) -> bool:
        return phase in self.record.phases_done

    def mark_phases_done(self, phases: Iterable[str]) -> None:
        new = [phase for phase in phases if not self.phase_done(phase)]
        if new:
            self.record.phases_done += new
            self.save()

    # -- projects

    def folder(self, project: str) -> Path:
        """Returns the folder of a project ("": of the organization), which run.json records."""
        if not project:
            return self.path / ORGANIZATION_FOLDER
        self.name_folders([project])
        name = self.record.folders[project]
        if storable(name) != name:
            raise StateError(
                f"{self.path / RUN_FILE}: the locale of this process cannot name the folder {name};"
                " set LC_ALL=C.UTF-8, as when the run was made"
            )
        return self.path / name

    def name_folders(self, projects: Iterable[str]) -> None:
        """Choose folders for the projects that have none yet."""
        with self._lock:
            folders = self.record.folders
            new = [project for project in projects if project not in folders]
            for project in new:
                folders[project] = folder_name(project, folders.values())
            if new:
                self.save()

    def project_names(
        self, today: Mapping[str, str], outcomes: Mapping[str, ObjectOutcome]
    ) -> Dict[str, str]:
        """Source id of a project -> the name by which this run has its files: the first one it had,
        whatever the project is called `today`.

        Kept in run.json; `outcomes`: those of the projects, for runs of earlier versions.
        """
        with self._lock:
            names = self.record.project_names
            before = dict(names)
            earlier = {source_id: entry.name for source_id, entry in outcomes.items()}
            for source_id, name in {**earlier, **today, **names}.items():
                free = name and name not in names.values()  # "" is the organization
                names.setdefault(source_id, name if free else f"{name} [{source_id}]".strip())
            if names != before:
                self.save()
            return names

    # -- objects

    def objects(self, resource: str, project: str = "") -> ObjectStates:
        path = self.folder(project) / f"{resource}{STATE_ENDING}"
        with self._lock:
            if path not in self._objects:
                self._objects[path] = ObjectStates(path, resource, project, kept=self.kept)
                if self.moves:
                    self._objects[path].begin_round(self.record.round)
            return self._objects[path]

    def all_objects(self) -> List[ObjectStates]:
        """Every object state of the run, those of earlier processes included, by project."""
        places = {project: place for place, project in enumerate(["", *self.record.folders])}
        for project in places.keys() - self._searched:
            for path in self.folder(project).glob(f"*{STATE_ENDING}"):
                if path.name != LOGS_STATE_FILE:
                    self.objects(path.name[: -len(STATE_ENDING)], project)
            self._searched.add(project)
        return sorted(
            self._objects.values(), key=lambda states: (places[states.project], states.resource)
        )

    # -- streams

    def stream_path(self, folder: str, project: str, source_id: str) -> Path:
        """A stream's files without endings: <project>/dataset_events/<id>, <project>/logs."""
        inside = self.folder(project)
        return inside / folder / id_file_name(source_id) if folder else inside / "logs"

    def has_stream(self, folder: str, project: str, source_id: str) -> bool:
        """Whether the rows of an object have a checkpoint."""
        path = self.stream_path(folder, project, source_id)
        return path.with_name(path.name + STATE_ENDING).exists()

    def all_streams(self) -> List[StreamState]:
        paths = [path for project in self.record.folders for path in self._stream_files(project)]
        return [self._stream(path) for path in paths]

    def _stream_files(self, project: str) -> Iterator[str]:
        inside = _entries(self.folder(project))
        for folder in inside:
            if folder.name.endswith("_events") and folder.is_dir():
                files = _entries(folder.path)
                yield from (file.path for file in files if file.name.endswith(STATE_ENDING))
        yield from (file.path for file in inside if file.name == LOGS_STATE_FILE)

    def lend_seen(self, state: StreamState) -> None:
        """In the plan of a sync, copy the stream's delivered rows from the run that it continues.

        Only the decision about rows that are gone from the source needs them. See `return_seen`.
        """
        if self.planned_from is None:
            return
        lent = self.planned_from / state.seen_path.relative_to(self.path)
        copy_store(lent, state.seen_path)

    def return_seen(self, state: StreamState) -> None:
        """Delete what `lend_seen` copied, after it was closed: it can be large."""
        if self.planned_from is not None and state.seen_path.exists():
            state.seen_path.unlink()

    def open_stream(self, path: Path) -> None:
        """Announce that the checkpoint will be written: it is read again until `close_stream`."""
        with self._lock:
            self._written.add(str(path))

    def close_stream(self, state: StreamState, *, written: bool) -> None:
        """Keep the state as that of its file, unless it was not `written`."""
        with self._lock:
            self._written.discard(str(state.path))
            if state.done:
                self._completed.add(state.path)
            if written:
                self._streams[str(state.path)] = state

    def was_completed(self, state: StreamState) -> bool:
        """Whether this process has read the stream to its end, also where nothing was written."""
        return state.path in self._completed

    def _stream(self, path: str) -> StreamState:
        with self._lock:
            if path in self._written:
                return StreamState.open(Path(path), {})
            if path not in self._streams:
                self._streams[path] = StreamState.open(Path(path), {})
            return self._streams[path]


# -- the lock


def _take_lock(run: Path, *, exclusive: bool) -> Optional[int]:
    """A file descriptor that holds the lock of a run, None if there is no lock to take. The system
    releases the lock when the process dies, however it dies. Raises LockedError or StateError.
    """
    path = run / LOCK_FILE
    if not exclusive and not path.exists():  # the copy of a run, without its lock
        return None
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT if exclusive else os.O_RDONLY, 0o600)
    except OSError as error:
        raise cannot_write(path, error) from None
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD:
            holder = os.read(fd, 20).decode("ascii", "replace").strip()
            os.close(fd)
            raise LockedError(
                f"{run}: process {holder or 'unknown'} is working on this run; wait for it"
                " or stop it first"
            ) from None
        log.warning(
            "%s: this file system has no locks (%s); see to it that only one process works on this"
            " run at a time",
            run,
            error.strerror,
            extra={"event": "no_locks"},
        )
    if exclusive:
        _write_holder(fd)
    return fd


def _write_holder(fd: int) -> None:
    """Write who holds the lock, for people only: a full disk must not end the run here."""
    with contextlib.suppress(OSError):
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode("ascii"))


def _entries(folder: Union[str, Path]) -> List[os.DirEntry[str]]:
    """What is in a folder, by name; nothing if the folder does not exist."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


# -- the runs of a folder


def window_of(run: RunDirectory) -> Dict[str, Any]:
    """The absolute bounds that a run was made with, by the names of the settings."""
    return run.record.selection.window


def run_at(path: Path) -> Path:
    """The run that a path names: a run, a project in one, or a folder of runs, whose newest it is.
    Raises UsageError.
    """
    for folder in (path, path.absolute().parent):
        if (folder / RUN_FILE).is_file():
            return folder
    paths = run_paths_in(path)
    if not paths:
        raise UsageError(
            f"{path}: there is no run; name a run, or the folder of runs (--state-dir of the move)"
        )
    return paths[0]


def runs_in(root: Path) -> Iterator[RunDirectory]:
    """All runs of a folder, newest first. Each is read when it is asked for, so that an old damaged
    one does not matter to a program that stops before it.
    """
    return (RunDirectory(path) for path in run_paths_in(root))


def readable_runs_in(root: Path) -> Iterator[RunDirectory]:
    """The runs of a folder that can be read, newest first; others are reported and left out."""
    for path in run_paths_in(root):
        try:
            yield RunDirectory(path)
        except StateError as error:
            log.warning("skipped: %s", error)


def fingerprints_in(run: RunDirectory, resource: str) -> Dict[str, List[str]]:
    """Source id -> fingerprints of a resource, over all real runs of the same two organizations in
    the folder of `run`, the newest first.
    """
    by_source_id: Dict[str, List[str]] = {}
    for earlier in readable_runs_in(run.path.parent):
        if earlier.record.undone or not earlier.same_pair(run.record, dry_run=False):
            continue
        try:
            for project in ["", *earlier.record.folders]:
                for source_id, prints in earlier.objects(resource, project).fingerprints.items():
                    by_source_id.setdefault(source_id, prints)
        except StateError as error:
            log.warning("skipped: %s", error)
    return by_source_id


def run_paths_in(root: Path) -> List[Path]:
    """The directories of the runs of a folder, newest first.

    Raises StateError for one that this user cannot enter: it may be the run to continue.
    """
    if not root.is_dir():
        return []
    for path in root.iterdir():
        if RUN_NAME.match(path.name) and not os.access(path, os.X_OK):
            raise StateError(
                f"{path}: this user cannot read it; run as the user who owns it, or name another"
                " --state-dir"
            )
    return sorted((path.parent for path in root.glob(f"*/{RUN_FILE}")), reverse=True)
