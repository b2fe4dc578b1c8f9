"""Organizations for tests of whole migrations: filled sandboxes and real processes.

Nothing of the migration's own code is used here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.behaviour import NAMES, recorded
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.example import fill as example
from bt_migrate.sandbox.http.server import Incoming, Sandbox
from tests.support.processes import REPOSITORY, Process
from tests.support.tiny import ANA, BEN, BUNDLE, INLINE, fill_tiny, function

__all__ = ["ANA", "BEN", "BUNDLE", "INLINE", "fill_tiny", "function"]

Json = Dict[str, Any]

SOURCE_KEY, DEST_KEY = "sk-source-5f1c9e", "sk-dest-8ab207"
TIME_LIMIT_S = 300  # of one process; a test that needs it has failed

# kind of rows -> (kind of the object that holds them, folder of its checkpoints)
ROWS_OF = {"project_logs": "project", "experiment": "experiment", "dataset": "dataset"}


def is_insert(path: str) -> bool:
    """Whether rows are written by a POST to the path."""
    return path == "/logs3" or path.endswith("/insert")


def events_in(path: str, raw: bytes) -> List[Tuple[str, Json]]:
    """(object id, event) of each row in an insert, without comments and without uploaded rows."""
    if not is_insert(path):
        return []
    body = json.loads(raw)
    if path == "/logs3":
        rows = body["rows"] if isinstance(body["rows"], list) else []
        return [(_object_of(row), row) for row in rows if "comment" not in row]
    if path == "/v1/insert":
        parts = [part for objects in body.values() for part in objects.items()]
        return [(object_id, event) for object_id, part in parts for event in part["events"]]
    return [(path.split("/")[-2], event) for event in body["events"]]


def _object_of(row: Json) -> str:
    return str(row.get("experiment_id") or row.get("dataset_id") or row["project_id"])


@dataclass
class DataPlane:
    """As which data plane the sandboxes of a test behave; the fixture `data_plane` sets it."""

    older: bool = False


DATA_PLANE = DataPlane()
# The source needs datasets with tags. A test of its own has a destination that refuses them.
OLDER = [name for name in NAMES if name != "datasets_have_tags"]


class WatchedSandbox(Sandbox):
    """A sandbox that records inserted and deleted rows, and refuses what a test chooses."""

    def __init__(self) -> None:
        super().__init__(older=OLDER if DATA_PLANE.older else False)
        # (object id, row id, is a merge), in order of arrival, refused ones too
        self.inserted: List[Tuple[str, str, bool]] = []
        # (object id, row id), in order of arrival
        self.deleted: List[Tuple[str, str]] = []
        # (object id, row id) of the inserts that were not refused, in order of arrival
        self.sent: List[Tuple[str, str]] = []
        # Called with (method, path, body); an Answer refuses the request.
        self.refuse: Optional[Callable[[str, str, bytes], Optional[Answer]]] = None
        # A query over several objects is answered with the rows of the first only.
        self.only_first_id = False

        self.intercept = self._watch

    def _watch(self, request: Incoming) -> Optional[Answer]:
        refusal = self.refuse(request.method, request.path, request.body) if self.refuse else None
        if request.method == "POST":
            # one step each: other threads insert too
            events = events_in(request.path, request.body)
            self.deleted.extend(
                (object_id, event["id"])
                for object_id, event in events
                if event.get("_object_delete")
            )
            self.inserted.extend(
                (object_id, event["id"], bool(event.get("_is_merge")))
                for object_id, event in events
                if not event.get("_object_delete")
            )
            if refusal is None:
                self.sent.extend((object_id, event["id"]) for object_id, event in events)
        if self.only_first_id and request.path == "/btql":
            request.body = re.sub(rb"(from: \w+\('[^']*')[^)]*\)", rb"\1)", request.body)
        return refusal


@dataclass(frozen=True)
class Pair:
    """A sandbox with a filled source and an empty destination."""

    sandbox: WatchedSandbox
    source: Any
    dest: Any


@contextlib.contextmanager
def example_pair(rows: int = 600) -> Iterator[Pair]:
    """The example organization, whole and nasty."""
    with WatchedSandbox() as sandbox:
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=example.SOURCE_USERS)
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=example.DEST_USERS)
        example.fill_example(source, rows=rows)
        yield Pair(sandbox, source, dest)


@contextlib.contextmanager
def tiny_pair(*, ago_s: int = 0) -> Iterator[Pair]:
    """The tiny organization. `ago_s`: how far in the past the server's clock is."""
    with WatchedSandbox() as sandbox:
        sandbox.clock.set(sandbox.clock.seconds() - ago_s)
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[{"email": ANA}, {"email": BEN}])
        dest = sandbox.add_org(
            "globex", api_key=DEST_KEY, users=[{"email": "nora@acme.example"}, {"email": ANA}]
        )
        fill_tiny(source)
        yield Pair(sandbox, source, dest)


@contextlib.contextmanager
def recorded_pair() -> Iterator[Pair]:
    """Two empty organizations on a server that behaves as recorded."""
    with WatchedSandbox() as sandbox:
        sandbox.store.behaviour = recorded()
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[])
        yield Pair(sandbox, source, sandbox.add_org("globex", api_key=DEST_KEY, users=[]))


def everything(org: Any) -> Dict[str, Any]:
    """Id -> content of every object; kind and id -> rows and comments of an object with rows."""
    found = {obj["id"]: obj for kind in KINDS for obj in org.objects(kind)}
    for kind, holder in ROWS_OF.items():
        for item in org.objects(holder):
            found[kind + item["id"]] = [org.rows(kind, item["id"]), org.comments(kind, item["id"])]
    return found


# -- programs


@dataclass(frozen=True)
class Ended:
    """How a process ended. A killed one has the negative number of the signal as its code."""

    code: int
    out: str
    err: str

    @property
    def last_words(self) -> str:
        return "\n".join(self.err.splitlines()[-6:])


def environment(sandbox: Any, **settings: str) -> Dict[str, str]:
    """What a process gets to see: nothing of the person who runs the tests but where Python is."""
    env = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    env.update(PYTHONPATH=str(REPOSITORY), PYTHONIOENCODING="utf-8", LANG="C.UTF-8")
    env.update(
        BT_SOURCE_URL=sandbox.url,
        BT_DEST_URL=sandbox.url,
        BT_SOURCE_API_KEY=SOURCE_KEY,
        BT_DEST_API_KEY=DEST_KEY,
    )
    # What acts outside is created too, unless a test says otherwise.
    env.update(MIGRATION_RETRY_DELAY="0.05", MIGRATION_ACTIVATE="all")
    return {name: value for name, value in {**env, **settings}.items() if value}


@contextlib.contextmanager
def started(
    sandbox: Any, root: Path, *args: str, program: str = "migrate_all", **settings: str
) -> Iterator[Process]:
    """The real process, with `root` as its folder of runs; gone at the end whatever happened.

    It does not verify, which would wait for missing rows, unless `--verify` is among `args`.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    compares = ["--no-verify"] if program == "migrate_all" and "--verify" not in args else []
    given = [argument for argument in args if argument != "--verify"]
    words = ["--state-dir", str(root), *compares, *given]
    env = environment(sandbox, **settings)
    process = start(f"bt_migrate.phases.{program}", words, env, root.parent)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(module: str, args: List[str], env: Dict[str, str], cwd: Path) -> Process:
    """`python -m module`, without the time of its start unless a setting is of the interpreter."""
    if env["PYTHONIOENCODING"] == "utf-8":
        return Process(module, args, env, cwd)
    return subprocess.Popen(
        [sys.executable, "-m", module, *args],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def ended(process: Process, limit_s: float = TIME_LIMIT_S) -> Ended:
    out, err = process.communicate(timeout=limit_s)
    return Ended(process.returncode, out, err)


def run(
    sandbox: Any, root: Path, *args: str, program: str = "migrate_all", **settings: str
) -> Ended:
    """Run a program to its end."""
    with started(sandbox, root, *args, program=program, **settings) as process:
        return ended(process)


class AtRequest:
    """Set as `sandbox.on_request`: acts once, before or after the n-th request that matches.

    If `act` is a signal number, the process gets that signal; otherwise `act` is called. SIGKILL
    also ends the request at once, so that a request killed "before" is never carried out.
    """

    def __init__(
        self,
        at: int,
        moment: str,
        act: Any,
        matches: Callable[[str, str], bool] = lambda method, path: True,
    ) -> None:
        self.at, self.moment, self.act, self.matches = at, moment, act, matches
        self.process: Optional[Process] = None
        self.done = threading.Event()
        self._lock = threading.Lock()
        self._met = 0

    def __call__(self, number: int, moment: str, method: str, path: str) -> None:
        with self._lock:
            if moment != self.moment or self.done.is_set() or not self.matches(method, path):
                return
            self._met += 1
            if self._met != self.at:
                return
            self.done.set()
        if callable(self.act):
            self.act()
            return
        assert self.process is not None
        self.process.send_signal(self.act)
        if self.act == signal.SIGKILL:
            raise ConnectionResetError("the client was killed")


def run_with(pair: Pair, root: Path, at: AtRequest, *args: str, **settings: str) -> Ended:
    """Run migrate-all with `at` as what happens at a request."""
    with started(pair.sandbox, root, *args, **settings) as process:
        at.process = process
        pair.sandbox.on_request = at
        try:
            return ended(process)
        finally:
            pair.sandbox.on_request = None


def runs(root: Path) -> List[Path]:
    """Run directories, oldest first."""
    return sorted(path.parent for path in root.glob("*/run.json"))


def most_in_flight(requests: Iterable[Any]) -> int:
    """How many requests were being served at the same moment."""
    changes = sorted(
        change for request in requests for change in ((request.started, 1), (request.finished, -1))
    )
    return max(itertools.accumulate(change for _, change in changes))


def report(root: Path) -> Json:
    """The report of the newest run."""
    value: Json = json.loads((runs(root)[-1] / "migration_report.json").read_text(encoding="utf-8"))
    return value


def findings(root: Path, kind: str) -> List[Json]:
    return [finding for finding in report(root)["findings"] if finding["kind"] == kind]
