"""A running process is controlled from a second shell: pause, limits, stop."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any, Dict, List

import pytest

from bt_migrate.cli.control import changed, request_text
from bt_migrate.cli.control_file import control_text, read_control
from bt_migrate.errors import UsageError
from tests.support.compare_orgs import differences
from tests.support.operating import (
    SMALL,
    control,
    held_at,
    idle,
    inserts_rows,
    next_beats,
    rows_there,
    shell,
    status,
    told,
    until,
)
from tests.support.orgs import AtRequest, Pair, ended, report, run, run_with, runs


def test_a_pause_stops_both_sides_within_one_request_and_the_run_goes_on_after_it(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    with held_at(pair, root, 9) as (process, gate):
        control(pair, root, "pause")
        until(lambda: told(root)["paused"])
        begun = len(pair.sandbox.requests) + sum(
            side["in_flight"] for side in told(root)["sides"].values()
        )
        gate.opened.set()
        until(lambda: idle(root))
        next_beats(root)
        assert (
            len(pair.sandbox.requests) <= begun
        )  # what was in flight came to its end, nothing began
        shown = status(pair, root)
        assert (shown["state"], shown["rows"]["done"]) == ("paused", rows_there(pair))
        control(pair, root, "resume")
        whole = ended(process)
    assert (whole.code, differences(pair)) == (0, []), whole.last_words


def test_requests_per_second_can_be_lowered_and_raised(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with held_at(pair, root, 5) as (process, gate):
        control(pair, root, "set", "requests-per-second=5")
        until(lambda: told(root)["sides"]["destination"]["requests_per_second"] == 5)
        pair.sandbox.clear_requests()
        gate.opened.set()
        wanted = 12

        def of_dest() -> List[Any]:
            return [entry for entry in pair.sandbox.requests if entry.org_name == "globex"]

        until(lambda: len(of_dest()) >= wanted)
        moments = [entry.started for entry in of_dest()]
        slowed = sorted(moments)[wanted - 1] - sorted(moments)[3]  # three were in flight before
        control(pair, root, "set", "requests-per-second=off")
        until(
            lambda: (
                process.poll() is not None
                or told(root)["sides"]["source"]["requests_per_second"] is None
            )
        )
        whole = ended(process)
    assert (
        slowed > (wanted - 4) / 5 - 1.0
    )  # eight at five a second; the machine may be slow, the run must not be fast
    assert (whole.code, differences(pair)) == (0, []), whole.last_words


@pytest.mark.long
def test_max_concurrent_can_be_lowered_and_not_raised_above_its_start(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    pair.sandbox.latency = {"insert": 0.05}
    with held_at(pair, root, 4) as (process, gate):
        raised = shell(pair, "control", root, "set", "max-concurrent=50")
        assert (raised.returncode, "was started with 3" in raised.stderr) == (2, True)
        assert told(root)["sides"]["destination"]["max_concurrent"] == 3
        control(pair, root, "pause")
        control(pair, root, "set", "max-concurrent=1")
        until(lambda: told(root)["sides"]["destination"]["max_concurrent"] == 1)
        gate.opened.set()
        until(lambda: idle(root))
        pair.sandbox.clear_requests()
        control(pair, root, "resume")
        whole = ended(process)
    assert (whole.code, pair.sandbox.in_flight_max("globex"), differences(pair)) == (0, 1, []), (
        whole.last_words
    )


def test_a_stopped_run_ends_with_3_and_the_same_command_continues(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    with held_at(pair, root, 9) as (process, gate):
        control(pair, root, "stop")
        until(lambda: told(root)["stopping"])
        gate.opened.set()
        first = ended(process)
    assert (first.code, report(root)["status"]) == (3, "stopped"), first.last_words
    assert "stopped by bin/control" in first.err and "Traceback" not in first.err
    taken = {(dest, row) for dest, row, merge in pair.sandbox.inserted if not merge}
    before = len(pair.sandbox.inserted)
    second = run(
        pair.sandbox, root, **SMALL
    )  # the old word to stop is still there, and does not count
    again = {(dest, row) for dest, row, merge in pair.sandbox.inserted[before:] if not merge}
    assert (second.code, taken & again, differences(pair), len(runs(root))) == (0, set(), [], 1), (
        second.last_words
    )


@pytest.mark.long
def test_an_unknown_control_file_is_reported_once_and_ignored(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with held_at(pair, root, 4) as (process, gate):
        (runs(root)[0] / "control").write_text("pause\nfaster please\n")
        until(lambda: "faster please" in told(root)["last_error"])
        next_beats(root)
        assert not told(root)["paused"]
        gate.opened.set()
        whole = ended(process)
    assert (whole.code, sum("faster please" in line for line in whole.err.splitlines())) == (0, 1)


def test_a_control_file_that_cannot_be_removed_ends_the_next_start_in_one_line(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    run_with(pair, root, AtRequest(9, "before", signal.SIGKILL))
    (runs(root)[0] / "control").mkdir()
    end = run(pair.sandbox, root)
    assert end.code == 3 and "control: cannot be written (Is a directory)" in end.last_words


def test_a_run_without_a_process_cannot_be_controlled(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    at = AtRequest(3, "before", signal.SIGKILL, inserts_rows)
    run_with(pair, root, at, **SMALL)
    for place in (root, runs(root)[0]):
        done = shell(pair, "control", place, "pause")
        assert (done.returncode, done.stderr) == (
            2,
            f"bt_migrate: {runs(root)[0]}: no process is working on this run\n",
        )
    assert not (runs(root)[0] / "control").exists()


NOTHING = {"pause": False, "stop": False, "requests-per-second": None, "max-concurrent": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("\n pause \n\n", {"pause": True}),
        ("pause\nresume", {}),
        ("stop", {"stop": True}),
        (
            "requests-per-second=2.5\nmax-concurrent = 3",
            {"requests-per-second": 2.5, "max-concurrent": 3},
        ),
    ],
)
def test_a_control_file_contains_all_limits(text: str, expected: Dict[str, Any]) -> None:
    wanted = read_control(text)
    assert wanted == {**NOTHING, **expected}
    assert read_control(control_text(wanted)) == wanted


BAD = [
    "paus",
    "pause=1",
    "pause now",
    "requests-per-second",
    "requests-per-second=0",
    "requests-per-second=-1",
    "max-concurrent=0",
    "max-concurrent=2.5",
    "requests-per-second=nan",
    "max-concurrent=١",
    "x" * 1000,
    "{}",
    "max-concurrent=99999999",
]


@pytest.mark.parametrize("text", BAD)
def test_anything_else_in_a_control_file_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as problem:
        read_control(f"pause\n{text}\n")
    assert len(str(problem.value)) < 200


def test_resume_is_named_with_the_limits_that_stay() -> None:
    limited = read_control("max-concurrent=3")
    assert request_text(limited, "resume") == "resume, max-concurrent=3"
    assert request_text(read_control(""), "resume") == "resume, no limits"
    assert request_text(limited, "set") == "max-concurrent=3"


@pytest.mark.parametrize(
    ("before", "words", "expected"),
    [
        ("", ["pause"], "pause\n"),
        ("pause\nmax-concurrent=3\n", ["resume"], "max-concurrent=3\n"),
        (
            "pause\n",
            ["set", "requests-per-second=5", "max-concurrent=2"],
            "pause\nrequests-per-second=5\nmax-concurrent=2\n",
        ),
        (
            "requests-per-second=5\nmax-concurrent=2\n",
            ["set", "requests-per-second=off"],
            "max-concurrent=2\n",
        ),
        ("pause\n", ["stop"], "stop\n"),
    ],
)
def test_control_words_change_earlier_limits(before: str, words: List[str], expected: str) -> None:
    assert control_text(changed(read_control(before), words)) == expected


@pytest.mark.parametrize(
    "words",
    [
        ["halt"],
        ["pause", "now"],
        ["set"],
        ["set", "pause"],
        ["set", "speed=3"],
        ["set", "max-concurrent=many"],
        ["max-concurrent=3"],
    ],
)
def test_unknown_control_words_are_refused(words: List[str]) -> None:
    with pytest.raises(UsageError):
        changed(NOTHING, words)
