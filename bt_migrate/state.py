"""The run directory: lock, run.json, JSON checkpoints, SQLite seen rows. The only module that writes files of a run.

JSON is written to a temporary file, flushed to disk and renamed, so a file is whole or the old one. A file that cannot be read
stops the run and is named; nothing is ever silently started over. Directories are 0700 and files 0600; no key, signed URL or
row content is in them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import sqlite3
import threading
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from bt_migrate.errors import LockedError, StateError, UsageError
from bt_migrate.settings import Settings
from bt_migrate.windows import iso

log = logging.getLogger("bt_migrate.state")

FORMAT = 1
RUN_FILE = "run.json"
LOCK_FILE = "run.lock"
ORGANIZATION_FOLDER = "organization"
MAX_FOLDER_BYTES = 80
RESERVED_FOLDERS = frozenset(
    [ORGANIZATION_FOLDER, "con", "prn", "aux", "nul", *(f"com{n}" for n in "123456789"), *(f"lpt{n}" for n in "123456789")]
)

RUN_FILES = frozenset(
    (RUN_FILE, LOCK_FILE, "attachments.sqlite3", "attachments.sqlite3-wal", "attachments.sqlite3-shm", "findings.jsonl",
     "migration_report.json", "migration_summary.txt", f"{RUN_FILE}.tmp")
)  # fmt: skip  # beside which the folders of projects lie

# Outcomes of objects and rows. Every listed one ends in exactly one.
CREATED, FOUND, UPDATED, DIFFERS, SKIPPED, FAILED = OUTCOMES = ("created", "found", "updated", "differs", "skipped", "failed")

LATER = "moved by a later phase"  # reason of an object that is skipped for now


def now() -> str:
    return iso(datetime.now(timezone.utc))


# -- files


def write_json(path: Path, value: Any) -> None:
    """Replace the file as a whole. Raises StateError (the old file is still there)."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        make_private(path.parent)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself
        finally:
            os.close(folder)
    except OSError as error:
        raise StateError(
            f"{path}: cannot be written ({error.strerror}); the last checkpoint is whole: make room, then run again"
        ) from None


def make_private(folder: Path) -> None:
    """Make the folder and those above it that are missing, all 0700: `parents=True` alone would give those above to everybody."""
    for one in (*reversed(folder.parents), folder):
        one.mkdir(mode=0o700, exist_ok=True)


def append_line(path: Path, value: Any) -> None:
    """Add one JSON line. Raises StateError."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
    except OSError as error:
        raise StateError(f"{path}: cannot be written ({error.strerror}); make room, then run again") from None


def read_json(path: Path) -> Any:
    """The file's content. Raises StateError naming the file."""
    damaged = StateError(
        f"{path}: is damaged; restore it from a copy, or start anew with --new-run (what is there is found, not doubled)"
    )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise damaged from None
    if not isinstance(value, dict):
        raise damaged
    if value.get("format") != FORMAT:
        raise StateError(
            f"{path}: has format {value.get('format')}, this program writes {FORMAT}; use the version that wrote it, or --new-run"
        )
    return value


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


# -- objects


class ObjectStates:
    """What became of the objects of one resource in one project (or the organization): outcomes, id mapping, findings, open
    references.

    Safe for many threads; `save` writes the file.
    """

    def __init__(self, path: Path, resource: str, project: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        data = read_json(path) if path.exists() else {}
        self.resource: str = resource
        self.project: str = project
        self.outcomes: Dict[str, Dict[str, Any]] = data.get("outcomes", {})
        self.findings: Dict[str, List[Dict[str, Any]]] = data.get("findings", {})
        self.deferred: Dict[str, str] = data.get("deferred", {})  # source id -> dest id, to be completed by a second pass
        self.intended: List[str] = data.get("intended", [])  # about to be created: found afterwards, they are ours
        self.listed: int = data.get("listed", 0)

    def record(self, source_id: str, name: str, outcome: str, *, dest_id: Optional[str] = None, **more: Any) -> None:
        """Set the outcome of one object; it replaces an earlier one. `more`: reason, fields."""
        entry = {"name": name, "outcome": outcome, "dest_id": dest_id, **more}
        with self._lock:
            self.outcomes[source_id] = {key: value for key, value in entry.items() if value not in (None, "", (), [])}

    def note(self, source_id: str, findings: Sequence[Dict[str, Any]]) -> None:
        """Replace the findings of one object."""
        with self._lock:
            self.findings.pop(source_id, None)
            if findings:
                self.findings[source_id] = list(findings)

    def completed(self, source_id: str) -> bool:
        """Whether the object has an outcome that stands; a failed one is tried again."""
        entry = self.outcomes.get(source_id, {"outcome": FAILED})
        return entry["outcome"] != FAILED and entry.get("reason") != LATER

    def id_mapping(self) -> Dict[str, str]:
        with self._lock:
            return {source: entry["dest_id"] for source, entry in self.outcomes.items() if entry.get("dest_id")}

    def save(self) -> None:
        with self._lock:
            value = {
                "format": FORMAT,
                "resource": self.resource,
                "project": self.project,
                "listed": self.listed,
                "completed_ids": [one for one, entry in self.outcomes.items() if entry["outcome"] != FAILED],
                "failed_ids": [one for one, entry in self.outcomes.items() if entry["outcome"] == FAILED],
                "id_mapping": {one: entry["dest_id"] for one, entry in self.outcomes.items() if entry.get("dest_id")},
                "outcomes": dict(self.outcomes),
                "findings": dict(self.findings),
                "deferred": dict(self.deferred),
                "intended": list(self.intended),
            }
            write_json(self.path, value)


# -- rows


class StreamState:
    """Checkpoint of the rows of one object. `slices`: parts of the key range, each with the key up to which all its rows have
    an outcome.

    `after` is where a slice stands, `end` its last key (None: to the end of the stream). Safe for many threads: counts, notes
    and a slice's position move together under the lock.
    """

    COUNTS = ("fetched", *OUTCOMES, "bytes")

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path = path
        self.lock = threading.RLock()
        data = read_json(path) if path.exists() else {}
        self.header = {**data.get("header", {}), **header}  # kind, project, name, source_id, dest_id
        self.slices: List[Dict[str, Any]] = data.get("slices") or [{"after": None, "end": None, "done": False}]
        self.counts: Dict[str, int] = {name: data.get("counts", {}).get(name, 0) for name in self.COUNTS}
        self.findings: List[Dict[str, Any]] = data.get("findings", [])
        self.done: bool = data.get("done", False)
        self.compared: bool = data.get("compared", False)  # the destination's rows from before this run are known
        self.error: str = data.get("error", "")
        self.seconds: float = data.get("seconds", 0.0)
        self.waiting: int = data.get("waiting", 0)  # rows that wait for an object to exist

    def save(self) -> None:
        with self.lock:
            names = ("header", "slices", "counts", "findings", "done", "compared", "error", "seconds", "waiting")
            value = {"format": FORMAT, **{name: getattr(self, name) for name in names}}
            write_json(self.path, {**value, "pagination_key": self.slices[0]["after"]})

    def sibling(self, ending: str) -> Path:
        """Path of another file of the stream, such as `_seen.sqlite3`."""
        return self.path.with_name(self.path.name.replace("_state.json", ending))


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StateError(
            f"{path}: cannot be used ({error}); if it is damaged, start anew with --new-run, else make room and go on"
        ) from None


class SeenRows:
    """Which rows were delivered, by object, row id and transaction, in SQLite. Safe for many threads.

    Also holds what the destination had before (`before`: id -> digest of the canonical row) and rows that wait for an object to
    exist. The file is made when there is something to remember: an object of a few rows needs none.
    """

    _SCHEMA = """
        create table if not exists seen (object text, id text, xact integer, outcome text, primary key (object, id)) without rowid;
        create table if not exists before (object text, id text, digest blob, primary key (object, id)) without rowid;
        create table if not exists deferred (object text, id text, path text, targets text, ref text, origin text,
            primary key (object, id, path)) without rowid;
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._db: Optional[sqlite3.Connection] = None
        if path.exists():
            self._open()

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            with self._lock, _sqlite_errors(self.path):
                self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
                self._db = sqlite3.connect(str(self.path), isolation_level=None, check_same_thread=False)
                # WAL with NORMAL: a commit survives kill -9; a power cut takes the last ones back, and those rows are sent again.
                self._db.executescript("pragma journal_mode=wal; pragma synchronous=normal;" + self._SCHEMA)
        return self._db

    def is_empty(self) -> bool:
        return not self._rows("select 1 from seen limit 1")

    def forget_before(self) -> None:
        if self._db is not None:
            self._write([("delete from before", [()])])

    def outcomes_of(self, object_id: str, ids: Sequence[str]) -> Dict[str, Tuple[int, str]]:
        """row id -> (transaction, outcome) of those that are recorded."""
        return {row[0]: (row[1], row[2]) for row in self._of("id, xact, outcome from seen", object_id, ids)}

    def before(self, object_id: str, ids: Sequence[str]) -> Dict[str, bytes]:
        """row id -> digest of the row that the destination had before this run."""
        return {row[0]: row[1] for row in self._of("id, digest from before", object_id, ids)}

    def _of(self, what: str, object_id: str, ids: Sequence[str]) -> Iterator[tuple]:
        for start in range(0, len(ids), 500):  # SQLite takes 999 parameters by default
            some = ids[start : start + 500]
            yield from self._rows(f"select {what} where object = ? and id in ({','.join('?' * len(some))})", (object_id, *some))

    def _rows(self, query: str, values: Sequence[Any] = ()) -> List[tuple]:
        if self._db is None:
            return []
        with self._lock, _sqlite_errors(self.path):
            return self._db.execute(query, values).fetchall()

    def _write(self, statements: Sequence[Tuple[str, Iterable[tuple]]]) -> None:
        """All or nothing, committed when it returns."""
        db = self._open()
        with self._lock, _sqlite_errors(self.path):
            db.execute("begin")
            try:
                for statement, rows in statements:
                    db.executemany(statement, rows)
                db.execute("commit")
            except sqlite3.Error:
                db.execute("rollback")
                raise

    def record(self, rows: Iterable[Tuple[str, str, int, str]], deferred: Iterable[tuple] = ()) -> None:
        """Commit (object, id, transaction, outcome) of delivered rows, and what they still wait for, in one transaction."""
        waiting = ("insert or replace into deferred values (?, ?, ?, ?, ?, ?)", deferred)
        self._write([("insert or replace into seen values (?, ?, ?, ?)", rows), waiting])

    def record_before(self, rows: Iterable[Tuple[str, str, bytes]]) -> None:
        self._write([("insert or replace into before values (?, ?, ?)", rows)])

    def deferred(self) -> List[Tuple[str, str, str, str, str, str]]:
        """(object, row id, path, resources, source id, origin as JSON) of all references that wait."""
        return self._rows("select object, id, path, targets, ref, origin from deferred order by object, id")

    def forget_deferred(self, keys: Iterable[Tuple[str, str, str]]) -> None:
        self._write([("delete from deferred where object = ? and id = ? and path = ?", keys)])

    def close(self) -> None:
        if self._db is not None:
            with self._lock, _sqlite_errors(self.path):
                self._db.close()
                self._db = None


class CopiedAttachments:
    """Which attachment keys have their bytes in the destination, with size and SHA-256, in SQLite. Safe for many threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with _sqlite_errors(path):
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
            self._db.executescript(
                "pragma journal_mode=wal; pragma synchronous=normal;"
                "create table if not exists copied (key text primary key, dest_key text, bytes integer, sha256 text) without rowid"
            )

    def has(self, key: str) -> bool:
        with self._lock, _sqlite_errors(self.path):
            return self._db.execute("select 1 from copied where key = ?", (key,)).fetchone() is not None

    def record(self, key: str, dest_key: str, size: int, sha256: str) -> None:
        with self._lock, _sqlite_errors(self.path):
            self._db.execute("insert or replace into copied values (?, ?, ?, ?)", (key, dest_key, size, sha256))

    def totals(self) -> Tuple[int, int]:
        """(attachments, bytes) copied in this run."""
        with self._lock, _sqlite_errors(self.path):
            count, size = self._db.execute("select count(*), coalesce(sum(bytes), 0) from copied").fetchone()
            return int(count), int(size)


# -- runs


class RunDirectory:
    """One run: `with` holds its lock. Gives out the states of objects and streams, each opened once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: Dict[str, Any] = read_json(path / RUN_FILE)
        self._objects: Dict[Path, ObjectStates] = {}
        self._lock = threading.RLock()
        self._lock_fd: Optional[int] = None

    def __enter__(self) -> RunDirectory:
        fd = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the system when the process dies, however it dies
        except OSError:
            holder = os.read(fd, 20).decode("ascii", "replace").strip()
            os.close(fd)
            raise LockedError(
                f"{self.path}: process {holder or 'unknown'} is working on this run; wait for it or stop it first"
            ) from None
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
        write_json(self.path / RUN_FILE, self.data)

    def same_pair(self, identity: Mapping[str, Any]) -> bool:
        """Whether the run is one of these two organizations, and dry or real as asked."""
        pair = all(self.data[side]["org_id"] == identity[side]["org_id"] for side in ("source", "dest"))
        return bool(pair and self.data["dry_run"] == identity["dry_run"])

    def phase_done(self, phase: str) -> bool:
        return phase in self.data["phases_done"]

    def mark_phase_done(self, phase: str) -> None:
        if not self.phase_done(phase):
            self.data["phases_done"].append(phase)
            self.save()

    def folder(self, project: str) -> Path:
        """The folder of a project, "" for the organization's; the mapping is kept in run.json."""
        if not project:
            return self.path / ORGANIZATION_FOLDER
        with self._lock:
            folders = self.data["folders"]
            if project not in folders:
                folders[project] = folder_name(project, folders.values())
                self.save()
            return self.path / folders[project]

    def objects(self, resource: str, project: str = "") -> ObjectStates:
        path = self.folder(project) / f"{resource}_state.json"
        with self._lock:
            if path not in self._objects:
                self._objects[path] = ObjectStates(path, resource, project)
            return self._objects[path]

    def stream_path(self, folder: str, project: str, source_id: str) -> Path:
        """Path of a stream's files without their endings: <project>/dataset_events/<id>, or <project>/logs."""
        return self.folder(project) / folder / source_id if folder else self.folder(project) / "logs"

    def all_objects(self) -> List[ObjectStates]:
        """Every object state of the run, also of earlier processes, in the order of the projects."""
        states = []
        for project in ["", *self.data["folders"]]:
            for path in sorted(self.folder(project).glob("*_state.json")):
                if path.name != "logs_state.json":
                    states.append(self.objects(path.name[: -len("_state.json")], project))
        return states

    def all_streams(self) -> List[StreamState]:
        paths: List[Path] = []
        for project in self.data["folders"]:
            folder = self.folder(project)
            paths += [*sorted(folder.glob("*_events/*_state.json")), *folder.glob("logs_state.json")]
        return [StreamState(path, {}) for path in paths]


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
        refuse_disagreement(run, identity)
        return run, settings
    root = Path(settings.state_dir)
    if not settings.new_run:
        newest = next((run for run in runs_in(root) if run.same_pair(identity)), None)
        if newest is not None and _resumable(newest, identity, command):
            return newest, settings
    return create_run(root, identity, command), settings


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


def _only_project(settings: Settings, run: RunDirectory, folder: str) -> Settings:
    names = [name for name, one in run.data["folders"].items() if one == folder]
    if not names:
        raise UsageError(f"--state-dir: {folder} is no project folder of the run {run.path}")
    return replace(settings, projects=(names[0],))


def _resumable(run: RunDirectory, identity: Mapping[str, Any], command: str) -> bool:
    """Unfinished and made for the same selection. Phase scripts share a run until one of them comes a second time."""
    if run.data["finished"] or run.data["selection"] != identity["selection"] or run.data["dry_run"]:
        return False
    if command == "migrate-all":
        return bool(run.data["command"] == "migrate-all")
    return not run.phase_done(command)


def refuse_disagreement(run: RunDirectory, identity: Mapping[str, Any]) -> None:
    """A named run is used for its own two organizations and window; resources and projects may be fewer."""
    for side in ("source", "dest"):
        if run.data[side]["org_id"] != identity[side]["org_id"]:
            was, today = run.data[side], identity[side]
            raise UsageError(
                f"{run.path}: was made for {side} organization {was['org_name']} ({was['org_id']}), "
                f"today's is {today['org_name']} ({today['org_id']}); use its keys or another --state-dir"
            )
    for name in ("created_after", "created_before"):
        was, today = run.data["selection"][name], identity["selection"][name]
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


def create_run(root: Path, identity: Mapping[str, Any], command: str) -> RunDirectory:
    """A new directory named by the time, with its run.json."""
    stamp = datetime.now().strftime("%Y%m%d_%H%M%S")
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
