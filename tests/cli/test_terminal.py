"""What a person sees while a program runs: little by default, all of it in run.log."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Dict, List

import pytest

from bt_migrate.cli.run_log import RunLog, rotate
from bt_migrate.cli.terminal import Terminal
from bt_migrate.sandbox.http.faults import Fault
from tests.support.orgs import (
    DEST_KEY,
    REPOSITORY,
    SOURCE_KEY,
    TIME_LIMIT_S,
    Pair,
    environment,
    run,
    runs,
)
from tests.support.screen import Screen

COLUMNS = 80
# A line of progress: how many there are, and what they say, depends on how long a run takes.
PROGRESS = re.compile(r"\S+ phase \d+(/| of )\d+")


def test_the_demo_is_forty_lines_of_eighty_columns_and_ends_with_what_is_next(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bt_migrate.phases.migrate_all", "--demo"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": "/tmp"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIME_LIMIT_S,
    )
    lines = [line for line in done.stdout.splitlines() if not PROGRESS.match(line)]
    assert done.returncode == 0, done.stdout
    assert ([line for line in lines if len(line) > COLUMNS], len(lines) <= 38) == ([], True), lines
    assert lines[-1].startswith("Next: bin/")


def test_objects_are_shown_only_on_request_and_always_in_the_log_of_the_run(
    pair: Pair, tmp_path: Path
) -> None:
    first = run(pair.sandbox, tmp_path / "runs")
    log = (runs(tmp_path / "runs")[0] / "run.log").read_text(encoding="utf-8")
    assert (first.code, "created dataset" in first.err, "created dataset" in log) == (
        0,
        False,
        True,
    )
    assert len(first.err.splitlines()) <= 12, first.err
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in log.splitlines())
    assert SOURCE_KEY not in log and DEST_KEY not in log
    second = run(pair.sandbox, tmp_path / "runs", "-v")
    assert (second.code, "found dataset" in second.err) == (0, True), second.err


def test_each_start_of_a_run_has_a_log_of_its_own(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run(pair.sandbox, root, program="migrate_organization")
    run(pair.sandbox, root, program="migrate_datasets")
    logs = sorted(path.name for path in runs(root)[0].glob("run.log*"))
    assert logs == ["run.log", "run.log.1"]
    assert [(runs(root)[0] / name).stat().st_mode & 0o077 for name in logs] == [0, 0]


def test_logs_are_rotated_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    for number in range(12):
        rotate(path)
        path.write_text(str(number))
    found = {item.name: item.read_text() for item in tmp_path.iterdir()}
    assert found["run.log"] == "11" and found["run.log.9"] == "2"
    assert len(found) == 10


def test_a_log_that_is_full_says_so_and_ends(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("bt_migrate.cli.run_log.MAX_LOG_BYTES", 100)
    log = RunLog(tmp_path / "run.log", logging.Formatter())
    log.open()
    for _ in range(10):
        log.emit(record("x" * 40))
    log.close()
    lines = (tmp_path / "run.log").read_text(encoding="utf-8").splitlines()
    assert (len(lines), lines[-1].startswith("…")) == (3, True)


def record(text: str, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("bt_migrate.x", level, "", 0, text, (), None)
    vars(made).update(extra)
    return made


def screen(level: str = "INFO", *, short: bool = True) -> Terminal:
    terminal = Terminal(io.StringIO(), level, short=short)
    terminal.setFormatter(logging.Formatter())
    return terminal


@pytest.mark.parametrize(
    ("level", "short", "facts", "is_shown"),
    [
        ("INFO", True, {"event": "created"}, False),
        ("INFO", True, {"event": "window"}, True),
        ("INFO", False, {"event": "created"}, True),
        ("DEBUG", True, {"event": "created"}, True),
        ("ERROR", True, {"event": "window"}, False),
        ("ERROR", True, {"event": "gap", "level": logging.WARNING}, True),
        ("INFO", True, {"event": "failed", "level": logging.ERROR}, True),
    ],
)
def test_details_are_left_out_by_default(
    level: str, short: bool, facts: Dict[str, Any], is_shown: bool
) -> None:
    terminal = screen(level, short=short)
    assert bool(terminal.handle(record("text", **facts))) is is_shown


def test_a_wait_is_announced_once_however_many_threads_meet_it() -> None:
    terminal = screen()
    wait = {"event": "rate_limited", "side": "source"}
    for seconds in (1.0, 60.0, 60.0, 59.5, 90.0):
        terminal.handle(record(f"wait {seconds}", seconds=seconds, **wait))
    terminal.handle(record("other side", seconds=60.0, event="rate_limited", side="destination"))
    assert terminal.stream.getvalue().splitlines() == ["wait 60.0", "wait 90.0", "other side"]


def test_a_retry_is_announced_once_however_many_threads_try_again() -> None:
    terminal = screen()
    for number in (1, 1, 1, 2, 2):
        terminal.handle(record(f"no answer (failed {number} of 4 tries)", event="retry"))
    assert len(terminal.stream.getvalue().splitlines()) == 2


def on_terminal(pair: Pair, folder: Path, *arguments: str, code: int = 0, **settings: str) -> str:
    """Returns what a program writes to a terminal."""
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "bt_migrate.phases.migrate_all", "--state-dir", "runs"]
    env = {**environment(pair.sandbox), "TERM": "xterm", "COLUMNS": "80", **settings}
    process = subprocess.Popen(
        [*command, *arguments], env=env, cwd=folder, stdout=writer, stderr=writer
    )
    os.close(writer)
    chunks: List[bytes] = []

    def read() -> None:
        try:
            while True:
                chunks.append(os.read(reader, 65536))
        except OSError:  # the other end is closed
            pass

    thread = threading.Thread(target=read)
    thread.start()
    assert process.wait(120) == code
    thread.join(10)
    os.close(reader)
    return b"".join(chunks).decode()


SLOW_INSERTS = {"MIGRATION_EVENTS_INSERT_BATCH_SIZE": "20", "MIGRATION_MAX_CONCURRENT": "2"}


def test_a_terminal_has_pinned_lines_that_go_away(pair: Pair, tmp_path: Path) -> None:
    pair.sandbox.latency = {"insert": 0.3}
    text = on_terminal(pair, tmp_path, "--no-verify", **SLOW_INSERTS)
    pinned = re.findall(r"\r(phase [^\x1b]+)\x1b\[[KJ]", text)
    assert pinned and all(
        re.match(r"phase \d+/\d+ [a-z-]+(: [\d,]+|$)", line) for line in pinned
    ), text
    assert max(map(len, pinned)) < COLUMNS
    screen = Screen(24, COLUMNS)
    screen.feed(text)
    assert "Migration completed" in screen.text and "phase 6/" not in screen.text


@pytest.mark.parametrize("lacking", ["a terminal that can clear a line", "tqdm"])
@pytest.mark.variants(1)
def test_there_are_plain_lines_where_nothing_can_be_pinned(
    lacking: str, pair: Pair, tmp_path: Path
) -> None:
    settings = {"TERM": "dumb"}
    if lacking == "tqdm":
        (tmp_path / "tqdm").mkdir()
        (tmp_path / "tqdm" / "__init__.py").write_text("raise ImportError")
        settings = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}", "NO_COLOR": "1"}
    text = on_terminal(pair, tmp_path, "--no-verify", "--resources", "roles", **settings)
    assert "\x1b" not in text and "Migration completed" in text
    assert ("pip install tqdm" in text) is (lacking == "tqdm")


def test_failures_are_red_where_a_terminal_wants_colours(pair: Pair, tmp_path: Path) -> None:
    for folder, settings, wanted in (("a", {}, True), ("b", {"NO_COLOR": "1"}, False)):
        (tmp_path / folder).mkdir()
        pair.sandbox.faults.add(
            Fault(
                "status", "globex", "POST", path="^/v1/project_tag", times=1, status=400, body="no"
            )
        )
        text = on_terminal(
            pair,
            tmp_path / folder,
            "--no-verify",
            "--resources",
            "project_tags",
            code=1,
            **settings,
        )
        assert ("\033[31m" in text) is wanted
        for tag in pair.dest.objects("project_tag"):
            pair.dest.delete("project_tag", tag["id"])


def test_json_lines_hold_every_event(pair: Pair, tmp_path: Path) -> None:
    end = run(pair.sandbox, tmp_path / "runs", "--json")
    events = {json.loads(line).get("event") for line in end.err.splitlines()}
    assert {"run", "phase", "created", "rows_copied"} <= events
