"""Moves between data planes that behave as recorded, and between older ones."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from tests.support.claims import untrue_claims
from tests.support.compare_orgs import differences
from tests.support.orgs import Pair, example_pair, report, run, runs, tiny_pair
from tests.support.undoing import undo


@pytest.fixture
def tiny(data_plane: str) -> Iterator[Pair]:
    with tiny_pair() as pair:
        yield pair


# test_end_to_end moves the example as recorded, too
@pytest.mark.parametrize(
    "data_plane", [pytest.param("recorded", marks=pytest.mark.long), "older"], indirect=True
)
def test_the_example_arrives_and_a_second_run_writes_nothing(
    data_plane: str, tmp_path: Path
) -> None:
    with example_pair() as pair:
        first = run(pair.sandbox, tmp_path / "runs", "--verify")
        assert (first.code, differences(pair)) == (0, []), first.last_words
        assert untrue_claims(pair, runs(tmp_path / "runs")[0]) == []
        for root in (tmp_path / "runs", tmp_path / "fresh"):
            pair.sandbox.clear_requests()
            again = run(pair.sandbox, root, "--verify")
            assert (again.code, pair.sandbox.writes("globex")) == (0, []), again.last_words


@pytest.mark.variants(1)
def test_a_sync_carries_a_changed_prompt_and_then_has_nothing_to_do(
    tiny: Pair, tmp_path: Path
) -> None:
    assert run(tiny.sandbox, tmp_path / "runs", "--since-last").code == 0
    prompt = next(item for item in tiny.source.objects("prompt") if item["slug"] == "ask")
    tiny.source.patch("prompt", prompt["id"], {"description": "changed"})
    update = ("--since-last", "--on-conflict", "prompts=update")
    carried = run(tiny.sandbox, tmp_path / "runs", *update)
    assert carried.code in (0, 1), carried.last_words  # 1: somebody has to be invited
    copy = next(item for item in tiny.dest.objects("prompt") if item["slug"] == "ask")
    assert copy["description"] == "changed"
    tiny.sandbox.clear_requests()
    idle = run(tiny.sandbox, tmp_path / "runs", *update)
    assert (idle.code in (0, 1), tiny.sandbox.writes("globex")) == (True, []), idle.last_words


def test_what_is_there_already_is_found_and_not_written_over(tiny: Pair, tmp_path: Path) -> None:
    project = tiny.dest.create("project", {"name": "beta"})["id"]
    body = {"project_id": project, "name": "Ask", "slug": "ask", "description": "theirs"}
    theirs = tiny.dest.create("prompt", body)
    experiment = tiny.dest.create("experiment", {"project_id": project, "name": "last"})
    done = run(tiny.sandbox, tmp_path / "runs", "--resources", "prompts,experiments")
    assert done.code in (0, 1), done.last_words
    kept = next(item for item in tiny.dest.objects("prompt") if item["id"] == theirs["id"])
    assert (kept["description"], kept["_xact_id"]) == ("theirs", theirs["_xact_id"])
    named = [item["id"] for item in tiny.dest.objects("experiment") if item["name"] == "last"]
    assert named == [experiment["id"]]


@pytest.mark.variants(1)
def test_undo_removes_what_a_run_created(tiny: Pair, tmp_path: Path) -> None:
    assert run(tiny.sandbox, tmp_path / "runs").code == 0
    undone = undo(tiny, tmp_path / "runs", "--yes")
    assert undone.code == 0, undone.out[-2000:] + undone.last_words
    assert [project["name"] for project in tiny.dest.objects("project")] == []
    assert report(tmp_path / "runs")["totals"]["rows"]["fetched"] > 0
