"""A run operated from a second shell: pause, limits, stop, status. Real processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest

from bt_migrate.cli.control import changed
from bt_migrate.cli.control_file import control_text, read_control
from bt_migrate.errors import UsageError
from bt_migrate.sandbox.http.server import Fault
from tests.support.compare_orgs import differences
from tests.support.orgs import (
    AtRequest,
    Ended,
    Pair,
    ended,
    environment,
    is_insert,
    report,
    run,
    run_with,
    runs,
    started,
    tiny_pair,
)
from tests.support.row_runs import forbidding

BATCH = 15
SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": "40",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": str(BATCH),
    "MIGRATION_CHECKPOINT_INTERVAL": "2",
    "MIGRATION_MAX_CONCURRENT": "3",
}
LIMIT_S = 60  # until something must have happened that happens within a second or two


def inserts_rows(method: str, path: str) -> bool:
    return is_insert(path)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with tiny_pair() as entry:
        yield entry


class Gate:
    """Set as `sandbox.on_request`: inserts from the `at`-th on wait until the gate is opened."""

    def __init__(self, at: int) -> None:
        self.at, self.met = at, 0
        self.reached, self.opened = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    def __call__(self, number: int, moment: str, method: str, path: str) -> None:
        if moment == "before" and inserts_rows(method, path):
            with self._lock:
                self.met += 1
                held = self.met >= self.at
            if held:
                self.reached.set()
                assert self.opened.wait(LIMIT_S)


@contextlib.contextmanager
def held_at(
    pair: Pair, root: Path, insert: int, *args: str, **settings: str
) -> Iterator[Tuple[Any, Gate]]:
    """A migration that stands at its n-th insert."""
    gate = pair.sandbox.on_request = Gate(insert)
    with started(pair.sandbox, root, *args, **{**SMALL, **settings}) as process:
        try:
            assert gate.reached.wait(LIMIT_S)
            yield process, gate
        finally:
            gate.opened.set()


def shell(pair: Pair, program: str, *words: Any) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        f"bt_migrate.phases.{program}",
        *(str(entry) for entry in words),
    ]
    return subprocess.run(
        command,
        env=environment(pair.sandbox),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
    )


def control(pair: Pair, root: Path, *words: str) -> None:
    done = shell(pair, "control", root, *words)
    assert done.returncode == 0, done.stderr


def told(root: Path) -> Dict[str, Any]:
    """What the process said last of itself."""
    value: Dict[str, Any] = json.loads((runs(root)[-1] / "status.json").read_text(encoding="utf-8"))
    return value


def until(what: Callable[[], Any]) -> Any:
    """Looks again and again until there is something to be seen."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        seen = what()
        if seen:
            return seen
        time.sleep(0.02)
    raise AssertionError("it did not happen")


def next_beats(root: Path, count: int = 2) -> None:
    """Return once the process has written its status `count` times more."""
    for _ in range(count):
        before = told(root)["updated"]
        until(lambda then=before: told(root)["updated"] != then)  # type: ignore[misc]


def status(pair: Pair, root: Path, *args: str) -> Dict[str, Any]:
    done = shell(pair, "status", root, "--json", *args)
    assert done.returncode == 0, done.stderr
    value: Dict[str, Any] = json.loads(done.stdout)
    return value


def rows_there(pair: Pair) -> int:
    """Rows in the destination."""
    holders = (("dataset", "dataset"), ("experiment", "experiment"), ("project_logs", "project"))
    return sum(
        pair.dest.count(kind, entry["id"])
        for kind, holder in holders
        for entry in pair.dest.objects(holder)
    )


def idle(root: Path) -> bool:
    return all(side["in_flight"] == 0 for side in told(root)["sides"].values())


# Control ------------------------------------------------------------------------------------------


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
        control(pair, root, "set", "max-concurrent=50")
        until(lambda: "control: max-concurrent=50" in "".join(process.stderr.readline()))
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


# Status -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "insert", [13, *(pytest.param(at, marks=pytest.mark.long) for at in (2, 7, 22))]
)
def test_the_status_of_a_running_process_is_right_to_within_one_batch(
    insert: int, pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    with held_at(pair, root, insert, "--preserve-order", MIGRATION_MAX_CONCURRENT="1") as (
        process,
        gate,
    ):
        next_beats(root)
        shown, there = status(pair, root), rows_there(pair)
        gate.opened.set()
        ended(process)
    assert (shown["state"], shown["process"]["pid"], shown["phase"] in shown["phases_done"]) == (
        "running",
        process.pid,
        False,
    )
    assert abs(shown["rows"]["done"] - there) <= BATCH
    assert (shown["rows"]["total"], sum(entry["total"] for entry in shown["streams"])) == (480, 480)
    assert (
        shown["sides"]["destination"]["in_flight"],
        shown["sides"]["destination"]["max_concurrent"],
    ) == (1, 1)


@pytest.mark.long
def test_the_status_has_every_documented_field(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    pair.sandbox.faults.add(Fault("status", "globex", "POST", path="/logs3", status=503, times=1))
    pair.sandbox.faults.add(Fault("status", "acme", "POST", path="/btql", status=429, times=1))
    with held_at(pair, root, 6) as (process, gate):
        next_beats(root)
        shown = status(pair, root)
        text = shell(pair, "status", root).stdout
        gate.opened.set()
        whole = ended(process)
    sides = shown["sides"]
    assert (whole.code, sides["source"]["rate_limited"], sides["destination"]["retries"]) == (
        0,
        1,
        1,
    ), whole.last_words
    assert "503" in shown["last_error"] and "503" in text
    assert (
        f"process {process.pid}" in text
        and " of 480 (" in text
        and "1 retried" in text
        and "phase " in text
    )


def test_status_changes_nothing_and_needs_no_keys(pair: Pair, tmp_path: Path) -> None:
    """At a killed run, at a finished one and at one that goes on."""
    root = tmp_path / "runs"
    run_with(pair, root, AtRequest(9, "before", signal.SIGKILL, inserts_rows), **SMALL)
    states = []
    for end in (None, ended):
        before = tree(root)
        keyless = {
            name: value
            for name, value in environment(pair.sandbox).items()
            if not name.startswith("BT_")
        }
        command = [
            sys.executable,
            "-m",
            "bt_migrate.phases.status",
            str(root),
            "--json",
            "--watch",
        ]  # a run without process ends it
        done = subprocess.run(command, env=keyless, capture_output=True, text=True, timeout=60)
        assert (done.returncode, tree(root)) == (0, before), done.stderr
        states.append(json.loads(done.stdout))
        if end is None:
            assert run(pair.sandbox, root, **SMALL).code == 0
    assert [entry["state"] for entry in states] == ["killed", "finished"]
    assert 0 < states[0]["rows"]["done"] <= rows_there(pair)
    assert (
        states[1]["rows"]["done"],
        states[1]["rows"]["total"],
        states[1]["streams"][0]["complete"],
    ) == (480, 480, True)


def tree(root: Path) -> Dict[str, Tuple[int, bytes]]:
    """Every file and folder with its time of change and its content."""
    paths = [root, *root.rglob("*")]
    return {
        str(entry): (entry.stat().st_mtime_ns, entry.read_bytes() if entry.is_file() else b"")
        for entry in paths
    }


@pytest.mark.long
def test_status_measures_the_lag_again(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert run(pair.sandbox, root, **SMALL).code == 0
    before = status(pair, root, "--lag")["lag"]["rows"]
    project, made = pair.source.objects("project")[0]["id"], pair.source.objects("dataset")[0]["id"]
    pair.source.insert(
        "project_logs",
        project,
        [{"id": "new", "created": "2020-01-01T00:00:00Z"}, {"id": "0001", "input": "edited"}],
    )
    pair.source.insert("dataset", made, [{"id": "late"}])
    fresh = pair.source.create("experiment", {"project_id": project, "name": "fresh"})["id"]
    pair.source.insert("experiment", fresh, [{"id": "first of all"}])
    after = status(pair, root, "--lag")["lag"]
    edited_before = (
        1 if before else 0
    )  # counted before its edit too, where the source was filled just before the run
    assert (after["rows"], status(pair, root)["lag"]) == (before + 4 - edited_before, None)
    assert 0 <= after["oldest_seconds"] < 300


@pytest.mark.parametrize("place", ["", "nothing-here"])
def test_status_without_a_run_says_so(place: str, pair: Pair, tmp_path: Path) -> None:
    done = shell(pair, "status", tmp_path / place)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        f"bt_migrate: {tmp_path / place}: there is no run\n",
    )


# Cron ---------------------------------------------------------------------------------------------


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
        os.waitpid(process.pid, os.WUNTRACED)
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
        until(lambda: "waiting for at most " in second.stderr.readline())  # type: ignore[union-attr]
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


@pytest.mark.long
def test_a_process_on_another_machine_is_judged_by_its_last_status(
    pair: Pair, tmp_path: Path
) -> None:
    """Its process id means nothing here."""
    root = tmp_path / "runs"
    run_with(pair, root, AtRequest(9, "before", signal.SIGKILL, inserts_rows), **SMALL)
    path = runs(root)[0] / "status.json"
    said = json.loads(path.read_text())
    seen = []
    for host, updated in (
        (socket.gethostname(), "2020-01-01T00:00:00Z"),
        ("elsewhere", "2020-01-01T00:00:00Z"),
        ("elsewhere", "2999-01-01T00:00:00Z"),
    ):
        path.write_text(json.dumps({**said, "pid": os.getpid(), "host": host, "updated": updated}))
        seen.append(status(pair, root)["state"])
    assert seen == ["silent", "killed", "running"]
    shutil.rmtree(root)
