"""Runs that nobody watches: two at once, a limited time, quiet or JSON lines, no terminal."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from bt_migrate.sandbox.http.server import Fault
from tests.support.compare_orgs import differences
from tests.support.operating import SMALL, held_at, inserts_rows, tree, until
from tests.support.orgs import AtRequest, Ended, Pair, ended, report, run, run_with, runs, started
from tests.support.row_runs import forbidding


def test_the_second_of_two_processes_ends_at_once_with_4_and_touches_nothing(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    with held_at(pair, root, 5, MIGRATION_MAX_CONCURRENT="1") as (
        process,
        gate,
    ):  # nothing is on its way but what is held
        os.kill(
            process.pid, signal.SIGSTOP
        )  # frozen, so that whatever changes is of the second one
        state = Path(f"/proc/{process.pid}/stat")
        until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
        before, writes = tree(root), pair.sandbox.writes("globex")
        for place in (root, runs(root)[0]):
            second = run(pair.sandbox, place, **SMALL)
            told_holder = f"process {process.pid} is working on this run" in second.err
            assert (second.code, second.out, len(second.err.splitlines()), told_holder) == (
                4,
                "",
                1,
                True,
            )
            assert (tree(root), pair.sandbox.writes("globex")) == (before, writes)
        os.kill(process.pid, signal.SIGCONT)
        gate.opened.set()
        whole = ended(process)
    assert (whole.code, differences(pair)) == (0, []), whole.last_words


@pytest.mark.long
def test_a_process_that_waits_for_the_lock_gets_a_run_of_its_own_once_the_first_is_done(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    waiting = ("--wait-lock", "1m", "--log-level", "DEBUG")
    with held_at(pair, root, 5) as (first, gate), started(
        pair.sandbox, root, *waiting, **SMALL
    ) as second:
        until(lambda: "waiting for at most " in second.stderr.readline())
        gate.opened.set()
        assert (ended(first).code, ended(second).code) == (0, 0)
    assert ([entry["outcome"] for entry in outcomes(root)], len(runs(root)), differences(pair)) == (
        [],
        2,
        [],
    )


def outcomes(root: Path) -> List[Dict[str, Any]]:
    """What the newest run wrote."""
    return [
        {"outcome": name}
        for entry in report(root)["objects"] + report(root)["rows"]
        for name in entry["outcomes"]
        if name == "created"
    ]


@pytest.mark.long
def test_a_wait_for_the_lock_has_an_end(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with held_at(pair, root, 5) as (first, gate):
        second = run(pair.sandbox, root, "--wait-lock", "0.6", **SMALL)
        gate.opened.set()
        assert (second.code, ended(first).code) == (4, 0)


def test_max_duration_that_passes_before_the_first_phase_ends_the_start_cleanly(
    pair: Pair, tmp_path: Path
) -> None:
    pair.sandbox.latency = {"default": 0.5}
    end = run(pair.sandbox, tmp_path / "runs", "--max-duration", "0.1")
    assert (end.code, "run the same command to continue" in end.err) == (0, True), end.err


@pytest.mark.long
def test_max_duration_ends_each_start_cleanly_until_all_is_done(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    pair.sandbox.latency = {"insert": 0.15}
    ends: List[Ended] = []
    while not ends or report(root)["status"] == "stopped":
        ends.append(
            run(
                pair.sandbox,
                root,
                "--max-duration",
                "1.5",
                **{**SMALL, "MIGRATION_MAX_CONCURRENT": "1"},
            )
        )
        assert (ends[-1].code, len(ends) < 20) == (0, True), ends[-1].last_words
    assert (len(ends) > 1, len(runs(root)), differences(pair)) == (True, 1, [])
    assert ["more to do" in entry.out for entry in ends] == [True] * (len(ends) - 1) + [False]
    sent = [(dest, row) for dest, row, merge in pair.sandbox.inserted if not merge]
    assert len(sent) == len(set(sent))


def test_a_quiet_run_says_nothing_as_long_as_all_goes_well(pair: Pair, tmp_path: Path) -> None:
    pair.sandbox.faults.add(
        Fault("status", "globex", "POST", path="/logs3", status=503, times=2)
    )  # retried, so all is well
    for root in (tmp_path / "runs", tmp_path / "runs"):
        end = run(pair.sandbox, root, "--quiet")
        assert (end.code, end.out, end.err) == (0, "", "")


def test_a_quiet_run_says_in_one_line_that_not_everything_arrived(
    pair: Pair, tmp_path: Path
) -> None:
    pair.sandbox.refuse = forbidding("boom", path="/logs3", status=400)
    end = run(pair.sandbox, tmp_path / "runs", "--quiet")
    (line,) = end.out.splitlines()
    assert (
        end.code,
        line.startswith("Migration incomplete: acme -> globex, "),
        "rows 478 created, 2 failed" in line,
    ) == (
        1,
        True,
        True,
    )
    assert str(runs(tmp_path / "runs")[0]) in line


@pytest.mark.parametrize("args", [[], ["--quiet"], ["--dry-run"]])
@pytest.mark.parametrize("key", ["", pytest.param("sk-wrong", marks=pytest.mark.long)])
@pytest.mark.variants(1)
def test_every_line_of_a_run_in_json_is_one_object(
    args: List[str], key: str, pair: Pair, tmp_path: Path
) -> None:
    settings = {"BT_SOURCE_API_KEY": key} if key else {}
    end = run(pair.sandbox, tmp_path / "runs", "--json", *args, **settings)
    lines = [json.loads(line) for line in [*end.out.splitlines(), *end.err.splitlines()]]
    summary: Optional[Dict[str, Any]] = next(
        (entry for entry in lines if entry["event"] == "summary"), None
    )
    if key:
        assert (end.code, lines[-1]["event"], lines[-1]["exit_code"]) == (2, "ended", 2)
    elif "--quiet" in args:
        assert (end.code, lines) == (0, [])
    else:
        assert summary and (
            end.code,
            summary["exit_code"],
            summary["more_to_do"],
            len(lines) > 20,
        ) == (0, 0, False, True)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_run_under_nohup_or_in_a_script_outlives_the_terminal(
    number: signal.Signals, pair: Pair, tmp_path: Path
) -> None:
    before = signal.signal(number, signal.SIG_IGN)  # inherited, as nohup or `&` does it
    try:
        at = AtRequest(5, "before", number, inserts_rows)
        whole = run_with(pair, tmp_path / "runs", at, **SMALL)
    finally:
        signal.signal(number, before)
    assert (at.done.is_set(), whole.code, differences(pair)) == (True, 0, []), whole.last_words
