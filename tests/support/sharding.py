"""Shards of the tiny organization: planned, moved and merged in this process, which is faster."""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any, Iterator, List, Set, Tuple

from bt_migrate.phases import merge_runs as merge_runs
from bt_migrate.sandbox.data import inserts as inserts
from tests.support import row_runs
from tests.support.orgs import Ended, Json, Pair

FETCH, BATCH, CONCURRENT = 40, 15, 4
SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": str(FETCH), "MIGRATION_EVENTS_INSERT_BATCH_SIZE": str(BATCH),
    "MIGRATION_CHECKPOINT_INTERVAL": "2", "MIGRATION_MAX_CONCURRENT": str(CONCURRENT),
}  # fmt: skip
BIG = "Big"
TIES = 30  # rows of one key: fewer than a page, which is what a stream can take


def fill_big(org: Any, sandbox: Any) -> str:
    """A log with most of the data: single rows, bulks, months of silence, many rows of one key."""
    project = str(org.create("project", {"name": BIG})["id"])
    rows: Iterator[Json] = (
        {"id": f"big {number:05}", "input": {"n": number}, "tags": ["x"]}
        for number in range(10_000)
    )
    for number, count in enumerate((1, 1, 700, 1, *[3] * 20, 400, *[1] * 40, 300)):
        org.insert(
            "project_logs",
            project,
            [next(rows) for _ in range(count)],
            at=1_700_000_000 + number * 86_400,
        )
    with sandbox.store.lock:
        held = inserts.row_set(sandbox.store, (org.id,), "project_logs", project)
        last = held.rows[-1].moment + 1
        for _ in range(TIES):
            held.write(last, 7, next(rows))
        held.moments[last] = 0.0
    org.insert("project_logs", project, [next(rows) for _ in range(150)])
    return project


def call(
    pair: Pair, root: Path, *args: str, program: str = "migrate_all", **settings: str
) -> Ended:
    """Run a program in this process, which is faster. migrate-all does not verify here."""
    out, err = io.StringIO(), io.StringIO()
    given = ("--no-verify", *args) if program == "migrate_all" else args
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        world = row_runs.World(pair.sandbox, pair.source, pair.dest, "", root)
        code = row_runs.call(world, program, *given, **SMALL, **settings)
    return Ended(code, out.getvalue(), err.getvalue())


def plan(pair: Pair, root: Path, shards: int, *args: str) -> List[Json]:
    """Plan into root/shards.jsonl; returns the lines."""
    done = call(pair, root / "objects", "--shards", str(shards), *args, program="plan_shards")
    assert done.code == 0, done.last_words
    (root / "shards.jsonl").write_text(done.out, encoding="utf-8")
    return [json.loads(line) for line in done.out.splitlines()]


def move_objects(pair: Pair, root: Path) -> None:
    done = call(pair, root / "objects", "--no-rows")
    assert done.code == 0, done.out + done.last_words


def move(pair: Pair, root: Path, number: int, program: str = "migrate_all") -> Ended:
    return call(
        pair, root / str(number), "--shard", f"{root}/shards.jsonl:{number}", program=program
    )


def merge(root: Path, *names: str) -> Ended:
    """Without any key: nobody is asked."""
    given = [str(root / name) if not name.startswith("--") else name for name in names]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = merge_runs.main([*given, "--state-dir", str(root / "whole")])
    return Ended(code, out.getvalue(), err.getvalue())


def units_of(shard: Json, **wanted: Any) -> List[Json]:
    return [
        item
        for item in shard["units"]
        if all(item[name] == value for name, value in wanted.items())
    ]


def twice(pair: Pair) -> Set[Tuple[str, str]]:
    """Rows that were inserted more than once; a merge of one field is no second insert."""
    counted = Counter((dest, row) for dest, row, is_merge in pair.sandbox.inserted if not is_merge)
    return {place for place, count in counted.items() if count > 1}
