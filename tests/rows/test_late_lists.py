"""References inside lists of a row's metadata, whose targets are moved later."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from tests.support.compare_orgs import differences
from tests.support.orgs import (
    AtRequest,
    Pair,
    findings,
    is_insert,
    recorded_pair,
    run,
    run_with,
)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A dataset whose rows name experiments, which are moved after it."""
    with recorded_pair() as organizations:
        source = organizations.source
        alpha = source.create("project", {"name": "alpha"})["id"]
        dataset = source.create("dataset", {"project_id": alpha, "name": "cases"})["id"]
        first, second = (
            source.create("experiment", {"project_id": alpha, "name": name})["id"]
            for name in ("first", "second")
        )
        lists = {
            "both": ["text", first, {"deep": [second, 1.5]}, second],
            "inner": {"more": [[first], {"kept": True}]},
        }
        rows = [{"id": f"r{number}", "input": 1, "metadata": lists} for number in range(3)]
        source.insert("dataset", dataset, rows)
        yield organizations


def lists_of(org: Any) -> List[Any]:
    names = {obj["id"]: obj["name"] for obj in org.objects("experiment")}
    rows = org.rows("dataset", org.objects("dataset")[0]["id"])
    return [named(row["metadata"], names) for row in rows]


def named(value: Any, names: Any) -> Any:
    if isinstance(value, dict):
        return {key: named(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [named(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def test_lists_are_completed_by_the_same_command(pair: Pair, tmp_path: Path) -> None:
    ended = run(pair.sandbox, tmp_path, "--verify")
    assert (ended.code, differences(pair)) == (0, []), ended.out + ended.err
    assert lists_of(pair.dest) == lists_of(pair.source)


def test_lists_wait_for_the_phase_that_moves_their_targets(pair: Pair, tmp_path: Path) -> None:
    first = run(pair.sandbox, tmp_path, program="migrate_datasets")
    waits = findings(tmp_path, "waits")
    assert (first.code, {found["detail"] for found in waits}) == (1, {"experiments"}), first.out
    # Somebody changes a list in the destination meanwhile.
    dataset = pair.dest.objects("dataset")[0]["id"]
    mine = {"id": "r1", "_is_merge": True, "metadata": {"both": ["mine"]}}
    pair.dest.insert("dataset", dataset, [mine])
    second = run(pair.sandbox, tmp_path, program="migrate_experiments")
    assert second.code == 1, second.out + second.err
    (kept,) = findings(tmp_path, "row_differs")
    assert (kept["row"], findings(tmp_path, "waits")) == ("r1", [])
    wanted = lists_of(pair.source)
    found = lists_of(pair.dest)
    assert [item["inner"] for item in found] == [item["inner"] for item in wanted]
    assert sorted(map(str, (item["both"] for item in found))) == sorted(
        map(str, [["mine"], wanted[0]["both"], wanted[0]["both"]])
    )


def test_a_kill_while_lists_are_completed_loses_nothing(pair: Pair, tmp_path: Path) -> None:
    kill = AtRequest(2, "after", signal.SIGKILL, lambda _, path: is_insert(path))
    assert run_with(pair, tmp_path, kill).code == -signal.SIGKILL
    ended = run(pair.sandbox, tmp_path, "--verify")
    assert (ended.code, differences(pair)) == (0, []), ended.out + ended.err
    assert lists_of(pair.dest) == lists_of(pair.source)
