"""The status as text: the head always, open streams next, the rest as counts; of many runs too."""

from __future__ import annotations

import json
import os
import socket
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict

import pytest

from bt_migrate.cli.many_runs import all_runs, all_runs_lines, parts_below, summed, summed_lines
from bt_migrate.cli.process_status import ProcessStatus
from bt_migrate.cli.run_status import newest_run, run_status
from bt_migrate.cli.status_text import broken_lines, status_lines
from bt_migrate.model.run_identity import RunSide, Selection
from bt_migrate.state.find_run import create_run
from bt_migrate.state.live_counts import LiveCounts
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_files import LOGS_STATE_FILE
from bt_migrate.state.run_record import Identity, Session

NOW = datetime(2026, 1, 15, 12, 0, 0, tzinfo=timezone.utc)
ROWS = {"done": 5, "total": None, "rows_per_second": 0.0, "eta_seconds": None}


def stream(number: int, *, complete: bool = False, done: int = 5) -> Dict[str, Any]:
    return {
        "kind": "logs",
        "name": f"stream {number:02}",
        "project": "a\x1b[31m",
        "done": done,
        "total": 10,
        "rows_per_second": 0.0,
        "eta_seconds": None,
        "complete": complete,
        "error": "",
    }


def status(count: int, **changes: Any) -> Dict[str, Any]:
    found = {
        "run": "/runs/1",
        "state": "finished",
        "result": "completed",
        "dry_run": False,
        "source": "acme",
        "dest": "globex",
        "command": "migrate-all",
        "window": {"created_after": None, "created_before": None},
        "phases_done": ["validate"],
        "rows": ROWS,
        "work": None,
        "wait": None,
        "parts": [],
        "undone": None,
        "verification": "",
        "sides": {},
        "last_error": "",
        "lag": None,
        "streams": [stream(number, complete=number % 2 == 0) for number in range(count)],
    }
    return {**found, **changes}


RUNNING = {
    "state": "running",
    "phase": "verify",
    "phase_number": (10, 10),
    "stopping": "",
    "process": {"pid": 7, "host": "vm", "started": "2026-01-15T11:00:00.123Z", "updated": ""},
}


def test_a_long_line_of_the_status_is_broken_once_at_the_edge_of_the_window() -> None:
    verdict = "equal, except what cannot be moved: objects 121 match, 3 cannot be moved"
    lines = status_lines(status(0, verification=verdict), NOW, 24, 79)
    assert broken_lines(lines, 79) == lines
    assert lines[-2:] == [
        "verification: equal, except what cannot be moved: objects 121 match, 3 cannot",
        "    be moved",
    ]
    wide = status_lines(status(0, verification=verdict), NOW, 34, 119)
    assert wide[-1] == f"verification: {verdict}"


@pytest.mark.parametrize(("streams", "height"), [(40, 24), (40, 10), (3, 24), (0, 24), (40, 2)])
def test_the_status_fits_the_window(streams: int, height: int) -> None:
    lines = status_lines(status(streams), NOW, height)
    assert len(lines) <= height
    assert lines[0] == "run /runs/1: finished; acme -> globex"


def test_open_streams_come_first_and_the_rest_is_counted() -> None:
    streams = [*status(8)["streams"], stream(8, done=0)]
    assert status_lines(status(0, streams=streams), NOW, 6) == [
        "run /runs/1: finished; acme -> globex",
        "phases done: validate",
        "rows: 5 of ?",
        "  logs 'stream 01': 5 of 10 (50%)",
        "  logs 'stream 03': 5 of 10 (50%)",
        "streams: 2 more open, 1 not begun, 4 complete (--json shows all)",
    ]


def test_lines_are_broken_where_the_window_is_narrower() -> None:
    lines = status_lines(status(2), NOW)
    assert broken_lines(lines, 79) == lines
    assert broken_lines(lines, 20) == [
        "run /runs/1:",
        "    finished; acme",
        "    -> globex",
        "phases done:",
        "    validate",
        "rows: 5 of ?",
        "  logs 'stream 01':",
        "      5 of 10 (50%)",
        "streams: 1 complete",
        "    (--json shows",
        "    all)",
    ]


def test_a_name_cannot_control_the_terminal() -> None:
    odd = {**stream(1), "kind": "datasets"}
    lines = status_lines(status(0, streams=[odd]), NOW)
    assert lines[-1] == "  datasets 'stream 01' of 'a\\x1b[31m': 5 of 10 (50%)"


def test_without_a_window_all_open_streams_up_to_a_limit_are_shown() -> None:
    assert len(status_lines(status(60), NOW)) == 3 + 25 + 1


def test_a_comparison_shows_what_it_compares_and_why_it_waits() -> None:
    work = {
        "unit": "rows compared",
        "done": 120,
        "total": 480,
        "per_second": 30.0,
        "seconds_left": 12,
    }
    wait = {
        "reason": "rate limit: next query in",
        "detail": "20 a minute, learnt",
        "until": "2026-01-15T12:00:41Z",
    }
    lines = status_lines(status(8, **RUNNING, work=work, wait=wait, parts=[stream(3)]), NOW)
    assert lines == [
        "run /runs/1: running migrate-all; acme -> globex",
        "phase 10 of 10: verify (process 7 on vm, started 2026-01-15T11:00:00)",
        "rows compared: 120 of 480 (25%), 30 a second, about 12 s left",
        "rate limit: next query in 41 s (20 a minute, learnt)",
        "to stop it: bin/control /runs/1 stop; the same command continues",
        "  logs 'stream 03': 5 of 10 (50%)",
    ]
    alone = {**status(0, **RUNNING, work=work), "command": "verify", "phase_number": (1, 1)}
    assert [line.partition(";")[0] for line in status_lines(alone, NOW)][:2] == [
        "run /runs/1: verifying",
        "verify (process 7 on vm, started 2026-01-15T11:00:00)",
    ]
    # Between two kinds of work, the rows of the copy are not those of an undo.
    undoing = {**status(8, **RUNNING, work={**work, "unit": ""}), "command": "undo"}
    assert [line for line in status_lines(undoing, NOW) if line.startswith("rows: ")] == []


def test_a_dry_run_is_not_taken_for_a_move() -> None:
    lines = status_lines(status(0, dry_run=True), NOW)
    assert lines[0] == "dry run /runs/1: finished; acme -> globex"


# -- several runs


def made(root: Path, command: str = "migrate-all", **facts: Any) -> RunDirectory:
    selection = Selection(["logs"], [], None, None)
    sides = (RunSide("s", "acme", "https://a"), RunSide("d", "globex", "https://b"))
    run = create_run(root, Identity(*sides, selection, dry_run=False), command)
    run.record.sessions.append(
        Session("2026-01-15T11:00:00Z", command, ended="2026-01-15T11:30:00Z")
    )
    for name, value in facts.items():
        setattr(run.record, name, value)
    run.save()
    return run


def at_work(run: RunDirectory, rows: int = 0) -> None:
    """As if this process worked on the run."""
    said = {
        "format": 1,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "command": "migrate-all",
        "started": "2026-01-15T11:00:00Z",
        "state": "running",
        "updated": "2026-01-15T12:00:00Z",
        "paused": False,
        "phase": "migrate-logs",
        "phase_number": [6, 10],
        "rows_per_second": 10.0,
        "work": {"unit": "rows", "done": rows, "total": 100, "per_second": 10.0, "seconds_left": 9},
        "streams": [
            {
                "kind": "logs",
                "project": "P",
                "name": "P",
                "source_id": "p",
                "done": rows,
                "total": 100,
                "rows_per_second": 1.0,
            }
        ],
    }
    (run.path / "status.json").write_text(json.dumps(said))


def test_all_runs_name_the_program_at_work_and_the_rows_of_all_syncs(tmp_path: Path) -> None:
    run = made(tmp_path, round=1)
    run.record.sessions[0].rows = 40
    run.save()
    at_work(run, rows=5)
    said = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**said, "command": "verify"}))
    [entry] = all_runs(tmp_path, NOW)
    assert (entry["command"], entry["result"], entry["rows"]) == ("verify", "running", 40)


UNDONE = {"started": "2026-01-15T11:00:00Z", "objects": 3, "rows": 40, "restored": 1, "left": 2}


def test_all_runs_of_a_folder_are_listed_and_the_active_one_is_shown(tmp_path: Path) -> None:
    runs = [
        made(tmp_path),
        made(tmp_path, "verify", verification={"text": "equal", "equal": True, "folder": ""}),
        made(tmp_path, finished=True),
        made(tmp_path, undone={**UNDONE, "ended": "x"}, finished=True),
        made(tmp_path),
    ]
    (runs[2].path / "migration_report.json").write_text('{"status": "incomplete"}')
    at_work(runs[0], rows=20)
    (runs[4].path / "run.json").write_text("{")
    found = all_runs(tmp_path, NOW)
    assert [(entry["command"], entry["result"], entry["rows"]) for entry in found] == [
        ("", "damaged", None),
        ("migrate-all", "undone", 0),
        ("migrate-all", "incomplete", 0),
        ("verify", "finished", 0),
        ("migrate-all", "running", 20),
    ]
    lines = all_runs_lines(found)
    # A narrow window cuts the end of a line.
    assert len(lines) == 6 and lines[5].split()[:4] == [
        "running",
        runs[0].path.name,
        "migrate-all",
        "20",
    ]
    # At its rate, which is low because it waits for its turn, the stream would take 80 s.
    assert run_status(runs[0].path, NOW)["streams"][0]["eta_seconds"] == 9
    assert newest_run(tmp_path, NOW) == runs[0].path
    assert newest_run(runs[2].path, NOW) == runs[2].path


def test_of_runs_that_ended_the_one_that_worked_last_is_shown(tmp_path: Path) -> None:
    """A plan is checked in a run of its own, which begins after the run of the plan."""
    planned, checked = made(tmp_path), made(tmp_path)
    for run, minute in ((planned, 2), (checked, 1)):
        at_work(run)
        file = run.path / "status.json"
        ended = {"state": "ended", "updated": f"2026-01-15T00:0{minute}:00Z"}
        file.write_text(json.dumps({**json.loads(file.read_text()), **ended}))
    assert newest_run(tmp_path, NOW) == planned.path


def test_a_finished_run_says_if_not_everything_arrived(tmp_path: Path) -> None:
    run = made(tmp_path, finished=True)
    (run.path / "migration_report.json").write_text('{"status": "incomplete"}')
    status = run_status(run.path, NOW)
    text = " ".join(" ".join(status_lines(status, NOW)).split())
    assert status["result"] == "incomplete"
    assert f"{run.path}: finished, incomplete (see report.html in it); acme -> globex" in text


def test_an_undone_run_says_what_was_deleted(tmp_path: Path) -> None:
    ended = made(tmp_path, undone={**UNDONE, "ended": "x"}, finished=True)
    lines = status_lines(run_status(ended.path, NOW), NOW)
    assert ": undone; acme -> globex" in " ".join(" ".join(lines).split())
    assert "undone: 3 objects and 40 rows deleted, 1 object restored, 2 left" in lines
    begun = made(tmp_path, undone={"started": "2026-01-15T11:00:00Z"}, finished=True)
    lines = status_lines(run_status(begun.path, NOW), NOW)
    assert "undo began 2026-01-15T11:00:00Z and has not ended; run bin/undo again" in lines


def test_the_shards_of_a_move_are_summed_up(tmp_path: Path) -> None:
    made(tmp_path / "objects", finished=True)
    for number, rows in ((0, 20), (1, 60)):
        at_work(made(tmp_path / f"shard-{number}"), rows)
    parts = parts_below(tmp_path, NOW)
    found = summed(tmp_path, parts, NOW)
    assert (found["at_work"], found["rows"]) == (
        True,
        {"done": 80, "total": 200, "rows_per_second": 20.0, "eta_seconds": 9},
    )
    lines = summed_lines(found)
    assert lines[:2] == [
        f"3 runs in {tmp_path}: 1 finished, 2 running",
        "rows: 80 of 200, about 9.0 s left",
    ]
    assert [line.split()[:2] for line in lines[3:]] == [
        ["objects", "finished"],
        ["shard-0", "running"],
        ["shard-1", "running"],
    ]
    assert parts_below(tmp_path / "objects", NOW) == []


def test_the_run_of_the_objects_alone_counts_no_rows(tmp_path: Path) -> None:
    """Its validation counted the rows that the shards move."""
    objects = made(tmp_path, finished=True)
    counted = {"id": "p", "project": "a", "name": "a", "rows": 7}
    objects.record.validation = {"streams": {"logs": [counted]}}
    for part, total in ((None, 7), ("objects", None)):
        objects.record.selection.part = part
        objects.save()
        assert run_status(objects.path, NOW)["rows"]["total"] == total


def test_a_damaged_stream_does_not_end_the_thread_that_writes_the_status(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.record.sessions *= 2
    damaged = run.folder("p") / LOGS_STATE_FILE
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damaged.write_text("not what it was")
    live = LiveCounts()
    live.phase = "migrate-logs"
    work = ProcessStatus(live, (), run).measured()["work"]
    assert (work["unit"], work["done"]) == ("rows", 0)
