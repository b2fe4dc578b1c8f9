"""A comparison of every row that was killed goes on from what it has read, where that holds."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from bt_migrate.errors import StateError
from bt_migrate.state.files import read_record
from bt_migrate.verify.kept import KeptSide
from tests.support.orgs import AtRequest, Ended, Pair, ended, run, runs, started, tiny_pair

ROWS = 2600  # more than are read together with other objects
SMALL = {"MIGRATION_EVENTS_FETCH_LIMIT": "100", "MIGRATION_CHECKPOINT_INTERVAL": "1"}

DAYS = [f"2026-01-0{day}T00:00:00Z" for day in (1, 2, 3)]
AT = 50  # the request at which a comparison is killed


class Moved:
    """A moved organization, and how many pages of rows each comparison asked for."""

    def __init__(self, pair: Pair, root: Path) -> None:
        self.pair = pair
        self.root = root
        self.pages = 0
        pair.sandbox.refuse = self._count

    def _count(self, method: str, path: str, body: bytes) -> None:
        self.pages += path == "/btql" and b"select: *" in body and b"id IN" not in body

    def compare(self, at: Any = None) -> Ended:
        self.pages = 0
        self.pair.sandbox.on_request = at
        arguments = (self.pair.sandbox, self.root, "--full", "-v")
        with started(*arguments, program="verify", **SMALL) as process:
            if at is not None:
                at.process = process
            done = ended(process)
        self.pair.sandbox.on_request = None
        return done


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    root = tmp_path_factory.mktemp("moved") / "runs"
    with tiny_pair() as pair:
        project = pair.source.create("project", {"name": "Large"})["id"]
        rows = [{"id": f"{n:05}", "input": n, "created": DAYS[n % 3]} for n in range(ROWS)]
        pair.source.insert("project_logs", project, rows)
        assert run(pair.sandbox, root, "--no-verify").code == 0
        # Rows of the second in which a comparison began may be new: they are read again.
        time.sleep(2)
        yield Moved(pair, root)


def is_query(method: str, path: str) -> bool:
    return path == "/btql"


def kept_files(root: Path) -> List[Dict[str, Any]]:
    found = runs(root)[-1].glob("verify/read/*.json")
    return [json.loads(path.read_text(encoding="utf-8")) for path in found]


# An older data plane is asked more about facets, so the kill comes after fewer pages.
@pytest.mark.recorded
def test_what_was_read_before_a_kill_is_not_read_again(moved: Moved) -> None:
    whole = moved.compare()
    pages = moved.pages
    assert (whole.code, kept_files(moved.root)) == (0, []), whole.last_words
    cost = r"comparing 3,080 rows: \d+ queries a side, .*at 20 a minute"
    assert re.search(cost, whole.err), whole.err

    killed = moved.compare(AtRequest(AT, "before", signal.SIGKILL, is_query))
    held = sum(side["rows"] for side in kept_files(moved.root))
    assert (killed.code, 1000 < held < 5500) == (-signal.SIGKILL, True), held
    interrupted = moved.compare(AtRequest(36, "before", signal.SIGINT, is_query))
    # What is compared already has no file any more.
    held = sum(side["rows"] for side in kept_files(moved.root))
    assert (interrupted.code, held > 1000) == (130, True), held

    rest = moved.compare()
    assert (rest.code, "all rows 3,080 match" in rest.out) == (0, True), rest.out + rest.last_words
    assert moved.pages < pages / 2, (moved.pages, pages)
    assert "continuing the comparison of an earlier start" in rest.err
    assert kept_files(moved.root) == []


def test_rows_that_were_read_and_changed_since_are_read_again(moved: Moved) -> None:
    pair = moved.pair
    moved.compare(AtRequest(AT, "before", signal.SIGKILL, is_query))
    log = next(item["id"] for item in pair.dest.objects("project") if item["name"] == "Large")
    row = pair.dest.rows("project_logs", log)[0]
    pair.dest.insert("project_logs", log, [{"id": row["id"], "input": "new", "_is_merge": True}])
    assert any(log in side["ids"] and side["rows"] for side in kept_files(moved.root))
    rest = moved.compare()
    differs = json.loads((runs(moved.root)[-1] / "verify" / "differs.jsonl").read_text())
    assert (rest.code, differs["row"], differs["fields"]) == (1, row["id"], ["input"])
    pair.dest.insert("project_logs", log, [{**differs_back(row), "_is_merge": True}])


def differs_back(row: Dict[str, Any]) -> Dict[str, Any]:
    return {name: row[name] for name in ("id", "input")}


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "logs_1.source.json"
    path.write_text("{")
    with pytest.raises(StateError, match=re.escape(str(path))):
        read_record(path, KeptSide)
