"""References inside lists of a row's metadata, whose targets are moved later."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Iterator, List, Optional

import pytest

from bt_migrate.rows.second_pass import ROW_NOT_SHOWN
from bt_migrate.sandbox.data.answer import Answer
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


@pytest.mark.parametrize("org_name", ["acme", "globex"])
@pytest.mark.variants(1)
def test_lists_of_rows_that_are_not_shown_once_are_completed_later(
    org_name: str, pair: Pair, tmp_path: Path
) -> None:
    assert run(pair.sandbox, tmp_path, program="migrate_datasets").code == 1
    clock = pair.sandbox.clock
    clock.set(clock.seconds() + 3600)
    side = pair.source if org_name == "acme" else pair.dest
    dataset = side.objects("dataset")[0]["id"]

    def shows_nothing(method: str, path: str, raw: bytes) -> Optional[Answer]:
        asks = path == "/btql" and dataset.encode() in raw and b"r1" in raw
        return Answer(200, b'{"data": [], "schema": {}}') if asks else None

    pair.sandbox.refuse = shows_nothing
    hidden = run(pair.sandbox, tmp_path, program="migrate_experiments")
    told = {found["detail"] for found in findings(tmp_path, "reference_not_added")}
    assert (hidden.code, told) == (1, {ROW_NOT_SHOWN}), hidden.out
    pair.sandbox.refuse = None
    seen = run(pair.sandbox, tmp_path, "--verify")
    assert (seen.code, differences(pair)) == (0, []), seen.out


@pytest.mark.parametrize("org_name", ["acme", "globex"])
@pytest.mark.variants(1)
def test_lists_of_rows_that_are_gone_wait_for_ten_minutes_only(
    org_name: str, pair: Pair, tmp_path: Path
) -> None:
    assert run(pair.sandbox, tmp_path, program="migrate_datasets").code == 1
    side = pair.source if org_name == "acme" else pair.dest
    dataset = side.objects("dataset")[0]["id"]
    side.insert("dataset", dataset, [{"id": f"r{n}", "_object_delete": True} for n in range(3)])
    codes = []
    clock = pair.sandbox.clock
    for _ in range(2):
        clock.set(clock.seconds() + 3600)
        codes.append(run(pair.sandbox, tmp_path, program="migrate_experiments").code)
    assert (codes, findings(tmp_path, "reference_not_added")) == ([1, 0], [])


@pytest.mark.parametrize("age_s", [0, 7200])
@pytest.mark.variants(1)
def test_a_late_reference_is_not_merged_into_a_row_that_was_deleted_meanwhile(
    age_s: int, pair: Pair, tmp_path: Path
) -> None:
    alpha = pair.source.objects("project")[0]["id"]
    origin = {"object_type": "experiment", "object_id": "", "id": "e1"}
    origin["object_id"] = pair.source.objects("experiment")[0]["id"]
    cases = pair.source.create("dataset", {"project_id": alpha, "name": "from experiments"})["id"]
    rows = [{"id": row_id, "input": 1, "origin": origin} for row_id in ("gone", "there")]
    pair.source.insert("dataset", cases, rows)
    assert run(pair.sandbox, tmp_path, program="migrate_datasets").code == 1
    copy = next(o["id"] for o in pair.dest.objects("dataset") if o["name"] == "from experiments")
    pair.dest.insert("dataset", copy, [{"id": "gone", "_object_delete": True}])
    clock = pair.sandbox.clock
    codes = []
    for pause_s in (age_s, 7200):
        clock.set(clock.seconds() + pause_s)
        wait = {"MIGRATION_VERIFY_WAIT": "1"}
        codes.append(run(pair.sandbox, tmp_path, program="migrate_experiments", **wait).code)
        shown = {row["id"]: (row["origin"] or {}).keys() for row in pair.dest.rows("dataset", copy)}
        assert shown == {"there": origin.keys()}
    assert codes == [1, 0]


def test_references_into_rows_that_are_shown_late_are_added_in_one_start(
    pair: Pair, tmp_path: Path
) -> None:
    experiment = pair.source.objects("experiment")[0]["id"]
    dataset = pair.source.objects("dataset")[0]["id"]
    origin = {"object_type": "experiment", "object_id": experiment, "id": "e1"}
    pair.source.insert("dataset", dataset, [{"id": "fresh", "input": 1, "origin": origin}])
    clock = pair.sandbox.clock
    clock.set(clock.seconds() + 60)
    pair.sandbox.indexing_lag = 3
    ended = run(pair.sandbox, tmp_path, "--verify")
    assert (ended.code, differences(pair)) == (0, []), ended.out + ended.err
