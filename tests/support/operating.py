"""A run that is held at an insert, and a second shell beside it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple

from tests.support.orgs import (
    TIME_LIMIT_S,
    Pair,
    ended,
    environment,
    is_insert,
    runs,
    start,
    started,
)

BATCH = 15
SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": "40",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": str(BATCH),
    "MIGRATION_CHECKPOINT_INTERVAL": "2",
    "MIGRATION_MAX_CONCURRENT": "3",
}


def inserts_rows(method: str, path: str) -> bool:
    return is_insert(path)


class Gate:
    """Set as `sandbox.on_request`: inserts from the `at`-th on wait until the gate is opened."""

    def __init__(self, at: int) -> None:
        self.at, self.met = at, 0
        self.reached, self.opened = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    def __call__(self, number: int, moment: str, method: str, path: str) -> None:
        if moment == "before" and inserts_rows(method, path):
            with self._lock:
                self.met += 1
                held = self.met >= self.at
            if held:
                self.reached.set()
                assert self.opened.wait(TIME_LIMIT_S)


@contextlib.contextmanager
def held_at(
    pair: Pair, root: Path, insert: int, *args: str, **settings: str
) -> Iterator[Tuple[Any, Gate]]:
    """A migration that stands at its n-th insert."""
    gate = pair.sandbox.on_request = Gate(insert)
    with started(pair.sandbox, root, *args, **{**SMALL, **settings}) as process:
        try:
            assert gate.reached.wait(TIME_LIMIT_S)
            yield process, gate
        finally:
            gate.opened.set()


def shell(pair: Pair, program: str, *words: Any) -> subprocess.CompletedProcess:
    args, env = [str(entry) for entry in words], environment(pair.sandbox)
    done = ended(start(f"bt_migrate.phases.{program}", args, env, Path.cwd()))
    return subprocess.CompletedProcess(args, done.code, done.out, done.err)


def control(pair: Pair, root: Path, *words: str) -> None:
    done = shell(pair, "control", root, *words)
    assert done.returncode == 0, done.stderr


def told(root: Path) -> Dict[str, Any]:
    """What the process said last of itself."""
    value: Dict[str, Any] = json.loads((runs(root)[-1] / "status.json").read_text(encoding="utf-8"))
    return value


def until(what: Callable[[], Any]) -> Any:
    """Looks again and again until there is something to be seen."""
    end = time.monotonic() + TIME_LIMIT_S
    while time.monotonic() < end:
        seen = what()
        if seen:
            return seen
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def next_beats(root: Path, count: int = 2) -> None:
    """Return once the process has written its status `count` times more."""
    for _ in range(count):
        before = told(root)["updated"]
        until(lambda then=before: told(root)["updated"] != then)


def status(pair: Pair, root: Path, *args: str) -> Dict[str, Any]:
    done = shell(pair, "status", root, "--json", *args)
    assert done.returncode == 0, done.stderr
    value: Dict[str, Any] = json.loads(done.stdout)
    return value


def rows_there(pair: Pair) -> int:
    """Rows in the destination."""
    holders = (("dataset", "dataset"), ("experiment", "experiment"), ("project_logs", "project"))
    return sum(
        pair.dest.count(kind, entry["id"])
        for kind, holder in holders
        for entry in pair.dest.objects(holder)
    )


def idle(root: Path) -> bool:
    return all(side["in_flight"] == 0 for side in told(root)["sides"].values())


def tree(root: Path) -> Dict[str, Tuple[int, bytes]]:
    """Every file and folder with its time of change and its content."""
    paths = [root, *root.rglob("*")]
    return {
        str(entry): (entry.stat().st_mtime_ns, entry.read_bytes() if entry.is_file() else b"")
        for entry in paths
    }
