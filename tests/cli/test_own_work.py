"""What a comparison, a validation and an undo do is in their status, in a unit of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from bt_migrate.cli.run_status import run_status
from bt_migrate.cli.status_text import status_lines
from bt_migrate.model.date_windows import instant
from tests.support.orgs import TIME_LIMIT_S, AtRequest, Pair, environment, run, runs, tiny_pair


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("moved") / "runs"
    with tiny_pair() as pair:
        assert run(pair.sandbox, root, "--no-verify").code == 0
        yield pair, root


class Seen:
    """Called at a request, which it holds until the status shows some work."""

    def __init__(self, folder: Callable[[], Path], unit: str) -> None:
        self._folder, self._unit = folder, unit
        self.lines: List[str] = []
        self.status: Dict[str, Any] = {}

    @property
    def head(self) -> str:
        """`run checkpoints/1: verifying`, which takes two lines if the path is long."""
        return " ".join(" ".join(self.lines).split()).partition("; ")[0]

    def __call__(self) -> None:
        end = time.monotonic() + TIME_LIMIT_S
        while time.monotonic() < end and (self.status.get("work") or {}).get("unit") != self._unit:
            time.sleep(0.05)
            path = self._folder()
            self.status = run_status(
                path, instant(json.loads((path / "status.json").read_text())["updated"])
            )
        self.lines = status_lines(self.status, instant("2026-01-15T12:00:00Z"))


def program(pair: Pair, name: str, *arguments: str, at: Callable[..., Any]) -> None:
    pair.sandbox.on_request = at
    try:
        command = [sys.executable, "-m", f"bt_migrate.phases.{name}", *arguments]
        env = environment(pair.sandbox, MIGRATION_EVENTS_FETCH_LIMIT="25")
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=TIME_LIMIT_S
        )
    finally:
        pair.sandbox.on_request = None
    assert done.returncode == 0, done.stderr


def is_query(method: str, path: str) -> bool:
    return path == "/btql"


def test_a_comparison_shows_rows_compared_and_open_streams(moved: Any) -> None:
    pair, root = moved
    seen = Seen(lambda: runs(root)[-1], "rows compared")
    at = AtRequest(40, "before", seen, is_query)
    program(pair, "verify", "--full", "--state-dir", str(root), at=at)
    assert seen.head == f"run {runs(root)[-1]}: verifying"
    assert [part["kind"] for part in seen.status["parts"]] != []
    assert any(line.startswith("rows compared: ") and " of 480 (" in line for line in seen.lines)


def test_a_validation_shows_objects_counted(moved: Any) -> None:
    pair, root = moved
    place = root.parent / "validated"
    seen = Seen(lambda: runs(place)[-1], "objects counted")
    at = AtRequest(2, "before", seen, is_query)
    program(pair, "validate", "--state-dir", str(place), at=at)
    assert seen.head == f"run {runs(place)[-1]}: validating"
    assert seen.status["work"]["total"] == 2 * 7  # they are counted on both sides


@pytest.mark.parametrize(
    ("unit", "at", "path"), [("experiments", 2, "/v1/experiment"), ("objects counted", 1, "/btql")]
)
@pytest.mark.variants(1)
def test_a_move_without_rows_shows_the_objects_that_it_creates_and_counts(
    unit: str, at: int, path: str, pair: Pair, tmp_path: Path
) -> None:
    seen = Seen(lambda: runs(tmp_path)[-1], unit)
    # The earlier versions of functions are counted at the same time: either query may be the first.
    held = [
        AtRequest(number, "before", seen, lambda method, asked: (method, asked) == ("POST", path))
        for number in (at, at + 1)
    ]
    arguments = ("--no-rows", "--state-dir", str(tmp_path))
    program(pair, "migrate_all", *arguments, at=lambda *request: [one(*request) for one in held])
    assert seen.status["work"]["total"] == {"experiments": 3, "objects counted": 7}[unit]
    assert seen.status["phase"] == {"experiments": "migrate-experiments"}.get(unit, "validate")


def test_an_undo_shows_objects_examined_before_it_lists_them(moved: Any) -> None:
    pair, root = moved
    made = runs(root)[0]
    seen = Seen(lambda: made, "objects examined")
    program(pair, "undo", str(made), at=AtRequest(2, "before", seen, is_query))
    assert 0 < seen.status["work"]["done"] < seen.status["work"]["total"]


def test_an_undo_shows_objects_deleted(moved: Any) -> None:
    pair, root = moved
    made = runs(root)[-1]
    seen = Seen(lambda: made, "objects deleted")
    at = AtRequest(5, "before", seen, lambda method, _: method == "DELETE")
    program(pair, "undo", str(made), "--yes", at=at)
    assert seen.head == f"run {made}: undoing"
    assert 0 < seen.status["work"]["done"] <= seen.status["work"]["total"]
    assert run_status(made, instant("2026-01-15T12:00:00Z"))["state"] == "undone"


@pytest.mark.parametrize(
    ("unit", "at", "path"), [("lists read", 5, "/v1/"), ("objects counted", 2, "/btql")]
)
@pytest.mark.variants(1)
def test_a_plan_of_shards_shows_the_lists_it_reads_and_the_objects_of_both_sides(
    unit: str, at: int, path: str, moved: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, root = moved
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    seen = Seen(lambda: runs(next(tmp_path.glob("bt_migrate_*")))[-1], unit)
    held = AtRequest(at, "before", seen, lambda _, asked: asked.startswith(path))
    program(pair, "plan_shards", "--shards", "2", "--state-dir", str(root), at=held)
    total = seen.status["work"]["total"]
    # the second side may be about to begin, or have begun
    assert (total is None) if unit == "lists read" else (total in (3, 4)), total
