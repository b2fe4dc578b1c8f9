"""Two organizations with one project of rows, and the programs that move rows.

Knows the sandbox and the programs' documented files only, none of the code under test.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import pytest

from bt_migrate.sandbox.data import inserts as inserts
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.rows import CONTENT
from tests.support.orgs import (
    DEST_KEY,
    ROWS_OF,
    SOURCE_KEY,
    WatchedSandbox,
    environment,
    runs,
)

Json = Dict[str, Any]
READ, WRITE = "acme", "globex"
PROJECT = "rows"
PHASE_OF = {
    "project_logs": "migrate_logs",
    "experiment": "migrate_experiments",
    "dataset": "migrate_datasets",
}
SPAN_IDS = ("span_id", "root_span_id", "span_parents")


@dataclass(frozen=True)
class World:
    """A source with one project, an empty destination, and the folder of runs."""

    sandbox: WatchedSandbox
    source: Any
    dest: Any
    project: str  # its id in the source
    root: Path

    def make(self, kind: str, *names: str) -> List[str]:
        """Experiments or datasets of these names, in the source; their ids."""
        return [
            str(self.source.create(kind, {"project_id": self.project, "name": name})["id"])
            for name in names
        ]

    def twin(self, kind: str, source_id: str) -> str:
        """The id of the destination's object of the same name."""
        holder = ROWS_OF[kind]
        name = next(item["name"] for item in self.source.objects(holder) if item["id"] == source_id)
        return str(next(obj["id"] for obj in self.dest.objects(holder) if obj["name"] == name))

    def contents(self, kind: str, ids: Iterable[str]) -> Tuple[List[List[str]], List[List[str]]]:
        """The rows of these objects on both sides, by row id, with attachments' keys unchanged."""
        pairs = [(source_id, self.twin(kind, source_id)) for source_id in ids]
        return [content(self.source, kind, pair) for pair, _ in pairs], [
            content(self.dest, kind, item) for _, item in pairs
        ]

    def asked(self, org_name: str, method: str, path: str) -> int:
        """How many requests there were to exactly this path."""
        return sum(
            (request.org_name, request.method, request.path) == (org_name, method, path)
            for request in self.sandbox.requests
        )

    def move(self, kind: str, *args: str, **settings: str) -> int:
        """Run the phase of this kind of rows in this process; returns its exit code."""
        return call(self, PHASE_OF[kind], *args, **settings)


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    with WatchedSandbox() as sandbox:
        source, dest = (
            sandbox.add_org(READ, api_key=SOURCE_KEY),
            sandbox.add_org(WRITE, api_key=DEST_KEY),
        )
        project = str(source.create("project", {"name": PROJECT})["id"])
        yield World(sandbox, source, dest, project, folder / "runs")


def call(w: World, program: str, *args: str, **settings: str) -> int:
    """Call a program's main() with nothing but these settings in the environment."""
    main = importlib.import_module(f"bt_migrate.phases.{program}").main
    values = {
        name: value
        for name, value in environment(w.sandbox, **settings).items()
        if name.startswith(("BT_", "MIGRATION_", "LOG_"))
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(w.root.parent)
        for name, value in values.items():
            patch.setenv(name, value)
        return int(main(["--state-dir", str(w.root), *args]))


# -- rows


def content(org: Any, kind: str, object_id: str) -> List[str]:
    """The rows of an object by id, as texts that are equal for equal values only."""
    names = ("id", "created", *SPAN_IDS, *CONTENT[kind])
    return sorted(
        json.dumps({name: row.get(name) for name in names}, sort_keys=True)
        for row in org.rows(kind, object_id)
    )


def ids_in_order(org: Any, kind: str, object_id: str) -> List[str]:
    """Row ids in order of their pagination key."""
    return [row["id"] for row in org.rows(kind, object_id)]


def small_rows(count: int, start: int = 0, **fields: Any) -> List[Json]:
    return [
        {"id": f"r{number:05}", "input": {"n": number}, **fields}
        for number in range(start, start + count)
    ]


def insert_together(w: World, kind: str, rows: Mapping[str, Sequence[Json]]) -> None:
    """Insert into several source objects with one request, which gives their rows equal keys."""
    body = {kind: {object_id: {"events": list(events)} for object_id, events in rows.items()}}
    with w.sandbox.store.lock:
        inserts.cross_insert(w.sandbox.store, (w.source.id,), body)


def write_as_server(w: World, kind: str, object_id: str, event: Json) -> None:
    """A row with fields that no insert takes, such as classifications."""
    with w.sandbox.store.lock:
        rows = inserts.row_set(w.sandbox.store, (w.source.id,), kind, object_id)
        inserts.Transaction(w.sandbox.store).write(rows, event)


def comment_as_server(w: World, kind: str, object_id: str, row_id: str, comment: Json) -> None:
    """A comment with fields that no client can set, such as its author."""
    with w.sandbox.store.lock:
        rows = inserts.row_set(w.sandbox.store, (w.source.id,), kind, object_id)
        inserts.Transaction(w.sandbox.store).comment(
            rows, row_id, {"origin": {"id": row_id}, **comment}
        )


# -- files of a run


def states(root: Path) -> Dict[str, Json]:
    """Object name -> its checkpoint, of the newest run."""
    paths = [
        path
        for pattern in ("*/logs_state.json", "*/*_events/*_state.json")
        for path in runs(root)[-1].glob(pattern)
    ]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return {entry["header"]["name"]: entry for entry in found}


def counted(root: Path) -> Dict[str, Dict[str, int]]:
    """Object name -> its counts that are not 0, without bytes."""
    return {
        name: {word: n for word, n in state["counts"].items() if n and word != "bytes"}
        for name, state in states(root).items()
    }


def refused(root: Path) -> List[Json]:
    """The lines of all files of refused rows."""
    paths = sorted(runs(root)[-1].rglob("*_failed.jsonl"))
    return [
        json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()
    ]


def copied(root: Path) -> List[Tuple[Any, ...]]:
    """(key, key in the destination, bytes, SHA-256) of all copied attachments."""
    database = sqlite3.connect(str(runs(root)[-1] / "attachments.sqlite3"))
    try:
        return database.execute(
            "select key, dest_key, bytes, sha256 from copied order by key"
        ).fetchall()
    finally:
        database.close()


def told(root: Path) -> Dict[str, int]:
    """Kind of finding -> how many rows or objects it is about, of the newest run."""
    report = json.loads((runs(root)[-1] / "migration_report.json").read_text(encoding="utf-8"))
    found: Dict[str, int] = {}
    for finding in report["findings"]:
        found[finding["kind"]] = found.get(finding["kind"], 0) + finding.get("count", 1)
    return found


def forbidding(
    *needles: str,
    status: int = 403,
    path: Union[str, Tuple[str, ...]] = ("/insert", "/logs3"),
    text: str = "no",
) -> Callable[[str, str, bytes], Optional[Answer]]:
    """Refuses POSTs to a path that ends with `path` and hold a needle in path or body."""
    body = json.dumps({"Code": "ForbiddenError", "Message": text}).encode()

    def refuse(method: str, target: str, raw: bytes) -> Optional[Answer]:
        hit = (
            method == "POST"
            and target.endswith(path)
            and any(needle in target or needle.encode() in raw for needle in needles)
        )
        return Answer(status, body) if hit else None

    return refuse
