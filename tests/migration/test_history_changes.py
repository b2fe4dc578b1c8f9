"""Starts with --history and without it take turns on one pair of organizations."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Dict, Tuple

import pytest

from tests.migration.test_history import ALL, assert_equal, greet_of, pinned_tools
from tests.support.following import follow, next_line
from tests.support.orgs import Pair, findings, run
from tests.support.pinned import histories, pinned_content, pinned_pair, text

NONE: Tuple[str, ...] = ()
SYNC = ("--since-last",)
VERIFIED = ("--verify", "--full")


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (ALL, NONE),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in ((NONE, NONE), (NONE, ALL), (ALL, ALL))
        ),
    ],
)
def test_a_start_on_an_unchanged_source_writes_nothing(
    before: Tuple[str, ...], now: Tuple[str, ...], tmp_path: Path
) -> None:
    """Also in a new run, and in a new folder, where nothing is recorded."""
    with pinned_pair() as pair:
        for _ in range(2):
            assert run(pair.sandbox, tmp_path / "runs", *before).code == 0
        shutil.copytree(tmp_path / "runs", tmp_path / "sync")
        for folder, arguments in (("sync", SYNC), ("runs", ("--new-run",)), ("fresh", NONE)):
            pair.sandbox.clear_requests()
            done = run(pair.sandbox, tmp_path / folder, *now, *arguments, *VERIFIED)
            assert (done.code, pair.sandbox.writes("globex")) == (0, []), (folder, done.out)


def tool(org: Any, slug: str) -> Dict[str, Any]:
    return next(dict(obj) for obj in org.objects("function") if obj["slug"] == slug)


def use_greet(pair: Pair, slug: str, number: int) -> None:
    """The tool uses that version of the prompt."""
    greet = greet_of(pair.source)["id"]
    version = pair.source.versions("prompt", greet)[number]["_xact_id"]
    uses = [{"type": "function", "id": greet, "version": version}]
    changes = {"description": f"uses {number}", "prompt_data": {"tool_functions": uses}}
    pair.source.patch("function", tool(pair.source, slug)["id"], changes)


def pins(org: Any) -> Dict[str, Any]:
    return {name: found for name, found in pinned_content(org).items() if name.startswith("tool")}


def unchanged(pair: Pair, root: Path, *arguments: str) -> bool:
    pair.sandbox.clear_requests()
    done = run(pair.sandbox, root, *arguments, *SYNC)
    return (done.code, pair.sandbox.writes("globex")) == (0, [])


def edit(pair: Pair) -> None:
    """Two versions of the prompt, of which a tool uses the latest; another tool is edited."""
    greet = greet_of(pair.source)["id"]
    number = len(pair.source.versions("prompt", greet))
    for more in (1, 2):
        pair.source.patch("prompt", greet, {"prompt_data": text(number + more)})
    use_greet(pair, "first", number + 1)
    second = tool(pair.source, "second")
    pair.source.patch("function", second["id"], {"description": f"edit {number}"})


def test_a_sync_without_history_goes_on_with_the_histories_of_its_run(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        assert run(pair.sandbox, root, *ALL).code == 0
        edit(pair)
        done = run(pair.sandbox, root, *SYNC, *VERIFIED)
        assert done.code == 0, done.out
        assert_equal(pair)
        assert unchanged(pair, root)
        edit(pair)
        done = run(pair.sandbox, root, *ALL, *SYNC, *VERIFIED)
        assert done.code == 0, done.out
        assert_equal(pair)


def test_a_sync_of_a_run_without_history_follows_what_changed(tmp_path: Path) -> None:
    """What an earlier run with --history wrote is found, and versions that still fit are kept."""
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        assert run(pair.sandbox, tmp_path / "before", *ALL).code == 0
        assert run(pair.sandbox, root).code == 0
        edit(pair)
        done = run(pair.sandbox, root, *SYNC, *VERIFIED)
        assert done.code == 0, done.out
        assert greet_of(pair.dest)["prompt_data"] == greet_of(pair.source)["prompt_data"]
        assert (
            tool(pair.dest, "second")["description"] == tool(pair.source, "second")["description"]
        )
        wanted, there = pins(pair.source), pins(pair.dest)
        assert there == {**wanted, "tool of first": "latest"}
        assert [one["name"] for one in findings(root, "version_pin_removed")][:1] == ["first"]
        assert unchanged(pair, root)

        # The version between, which was not written, is not taken for the one before it.
        use_greet(pair, "first", 5)
        done = run(pair.sandbox, root, *ALL, *SYNC, *VERIFIED)
        assert done.code == 0, done.out
        assert pins(pair.dest)["tool of first"] == "latest"
        (left,) = (one for one in findings(root, "earlier_versions") if one["name"] == "Greeting")
        assert left["detail"].startswith("1 would")
        assert unchanged(pair, root)


def test_what_refers_to_a_deleted_prompt_names_the_command_that_creates_it_again(
    tmp_path: Path,
) -> None:
    """A person deleted it in the destination; all of its versions come again."""
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        assert run(pair.sandbox, root, *ALL).code == 0
        pair.dest.delete("prompt", greet_of(pair.dest)["id"])
        edit(pair)
        for _ in range(2):
            done = run(pair.sandbox, root, *ALL, *SYNC)
            deleted = findings(root, "deleted_there")
            assert (done.code, deleted[0]["name"]) == (1, "Greeting"), done.out
            assert "greet" not in histories(pair.dest)
        done = follow(pair, done, tmp_path)
        assert (done.code, findings(root, "deleted_there")) == (0, []), done.out
        assert histories(pair.dest)["greet"] == histories(pair.source)["greet"]
        assert pinned_tools(pair.dest)["first"] == pinned_tools(pair.source)["first"]
        assert unchanged(pair, root, *ALL)


def test_a_newer_version_of_what_is_left_out_is_waited_for(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        assert run(pair.sandbox, root, *ALL).code == 0
        edit(pair)
        arguments = (*ALL, "--resources", "functions", "--on-conflict", "update")
        done = run(pair.sandbox, root, *arguments)
        (waits,) = findings(root, "waits")
        assert (done.code, waits["name"], findings(root, "version_pin_removed")) == (1, "first", [])
        assert "--resources" not in next_line(done)
        done = follow(pair, done, tmp_path)
        assert done.code == 0, done.out
        assert_equal(pair)
