"""Nightly windows: no period is copied twice, gaps are reported, a killed night is completed."""

from __future__ import annotations

import json
import shutil
import signal
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from tests.support.orgs import AtRequest, Ended, ended, is_insert, run, runs, started
from tests.support.row_runs import World, forbidding, told, world

LOGS = "project_logs"
NOW = datetime.now(timezone.utc)
# A zone in which it is about noon, so that no test sees a midnight pass.
OFFSET = 12 - NOW.hour
TZ = f"{'-' if OFFSET < 0 else '+'}{abs(OFFSET):02}:00"
TODAY = (NOW + timedelta(hours=OFFSET)).date()
DAYS = 8  # of rows, the last one is today


def midnight(days_ago: int) -> datetime:
    day = TODAY - timedelta(days=days_ago)
    return datetime(
        day.year, day.month, day.day, tzinfo=timezone(timedelta(hours=OFFSET))
    ).astimezone(timezone.utc)


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    """A log with rows in the first second, middle and last millisecond of each recent day."""
    with world(tmp_path) as entry:
        rows: List[Dict[str, Any]] = []
        for days_ago in range(DAYS):
            begin, end = midnight(days_ago), midnight(days_ago - 1)
            moments = (
                text(begin),
                text(begin + timedelta(hours=6)),
                text(end - timedelta(seconds=1))[:-1] + ".999Z",
            )
            rows += [
                {"id": f"{days_ago}-{name}", "created": moment}
                for name, moment in zip("abc", moments)
            ]
        entry.source.insert(LOGS, entry.project, rows)
        yield entry


def night(w: World, *args: str, program: str = "migrate_logs", **settings: str) -> Ended:
    return run(w.sandbox, w.root, "--tz", TZ, *args, program=program, **settings)


def bounds(after: int, before: int) -> List[str]:
    """Options for the window from midnight `after` days ago to midnight `before` days ago."""
    return ["--created-after", text(midnight(after)), "--created-before", text(midnight(before))]


def arrived(w: World) -> List[str]:
    return sorted(row["id"] for row in w.dest.rows(LOGS, w.dest.objects("project")[0]["id"]))


def rows_of(*days_ago: int) -> List[str]:
    return sorted(f"{entry}-{name}" for entry in days_ago for name in "abc")


def lines(end: Ended, *words: str) -> List[str]:
    return [
        line.split(" ", 1)[1]
        for line in end.err.splitlines()
        if any(f" {word}" in line for word in words)
    ]


def window(path: Path) -> Tuple[str, str]:
    selection = json.loads((path / "run.json").read_text())["selection"]
    return selection["created_after"], selection["created_before"]


def test_the_last_full_day_holds_its_first_and_its_last_moment_and_nothing_else(w: World) -> None:
    end = night(w, "--window", "daily")
    assert (end.code, arrived(w), window(runs(w.root)[0])) == (
        0,
        rows_of(1),
        (text(midnight(1)), text(midnight(0))),
    ), end.last_words


def test_windows_of_consecutive_nights_neither_overlap_nor_leave_a_gap(w: World) -> None:
    ends = [night(w, *bounds(day, day - 1)) for day in (5, 4, 3, 2)] + [
        night(w, "--window", "daily")
    ]
    sent = [row for _, row in w.sandbox.sent]
    assert [(end.code, lines(end, "WARNING gap:", "overlap:")) for end in ends] == [(0, [])] * 5
    assert (arrived(w), sorted(sent)) == (rows_of(1, 2, 3, 4, 5), rows_of(1, 2, 3, 4, 5))


def test_a_gap_is_reported_by_each_start_until_it_is_filled(w: World) -> None:
    night(w, *bounds(6, 5))
    gap = (
        f"WARNING gap: no run covered logs created from {text(midnight(5))} to "
        f"{text(midnight(1))}; to copy them: --fill-gaps"
    )
    for _ in range(2):
        end = night(w, "--window", "daily", "--quiet")
        assert (end.code, end.out, [line.split(" ", 1)[1] for line in end.err.splitlines()]) == (
            0,
            "",
            [gap],
        )
        assert told(w.root) == {"window_gap": 1}
    end = night(w, "--window", "daily", "--fill-gaps")
    assert (end.code, lines(end, "WARNING gap:"), arrived(w)) == (0, [], rows_of(1, 2, 3, 4, 5, 6))
    assert window(runs(w.root)[-1]) == (text(midnight(5)), text(midnight(0)))
    assert (night(w, "--window", "daily", "--quiet").err, told(w.root)) == (
        "",
        {},
    )


@pytest.mark.long
def test_an_overlap_is_reported(w: World) -> None:
    night(w, *bounds(5, 2))
    end = night(w, *bounds(3, 0))
    assert (end.code, lines(end, "overlap:")) == (
        0,
        [
            f"overlap: an earlier run covered logs created from {text(midnight(3))} to "
            f"{text(midnight(2))}"
        ],
    )
    assert arrived(w) == rows_of(1, 2, 3, 4, 5)


@pytest.mark.long
def test_a_copy_of_everything_counts_up_to_its_start(w: World) -> None:
    assert night(w).code == 0
    end = night(w, "--window", "daily", "--quiet")
    assert (end.code, end.err) == (0, "")
    history = [
        json.loads(line) for line in (w.root / "windows.jsonl").read_text().splitlines() if line
    ]
    created = [json.loads((path / "run.json").read_text())["created"] for path in runs(w.root)]
    assert [(entry["after"], entry["before"]) for entry in history] == [
        (None, created[0]),
        (text(midnight(1)), text(midnight(0))),
    ]


def test_the_log_of_windows_survives_deleted_runs_and_an_incomplete_line(w: World) -> None:
    """A power cut may leave half a line: it is ignored, and the next line is written whole."""
    night(w, *bounds(5, 4))
    night(w, *bounds(4, 3))
    for path in runs(w.root):
        shutil.rmtree(path)
    history = w.root / "windows.jsonl"
    history.write_text(history.read_text()[:-30])
    end = night(w, *bounds(3, 2), "--quiet")
    assert [line.split(" ", 1)[1] for line in end.err.splitlines()] == [
        f"WARNING gap: no run covered logs created from {text(midnight(4))} to "
        f"{text(midnight(3))}; to copy them: --fill-gaps"
    ]
    assert (night(w, *bounds(2, 1), "--fill-gaps").code, arrived(w)) == (0, rows_of(2, 3, 4, 5))


@pytest.mark.long
def test_windows_of_other_projects_and_resources_are_not_taken_for_those_of_this_one(
    w: World,
) -> None:
    w.source.create("project", {"name": "other"})
    night(w, *bounds(5, 4), "--projects", "other")
    night(w, *bounds(5, 4), program="migrate_experiments")
    night(w, *bounds(6, 5))
    end = night(w, *bounds(3, 2))
    assert lines(end, "WARNING gap:") == [
        f"WARNING gap: no run covered logs created from {text(midnight(5))} to "
        f"{text(midnight(3))}; to copy them: --fill-gaps"
    ]
    named = night(w, *bounds(3, 2), "--projects", "other")
    assert lines(named, "WARNING gap:") == [
        f"WARNING gap: no run covered logs created from {text(midnight(4))} to "
        f"{text(midnight(3))}; to copy them: --fill-gaps"
    ]


@pytest.mark.long
def test_a_dry_run_does_not_count_as_a_copied_window(w: World) -> None:
    night(w, *bounds(5, 4))
    night(w, *bounds(4, 3), "--dry-run")
    assert "gap:" in night(w, *bounds(3, 2)).err


def killed(w: World, *args: str, program: str = "migrate_logs") -> Path:
    """A night that dies before its first insert is carried out; its run directory."""
    at = AtRequest(1, "before", signal.SIGKILL, lambda method, path: is_insert(path))
    with started(w.sandbox, w.root, "--tz", TZ, *args, program=program) as process:
        at.process, w.sandbox.on_request = process, at
        assert ended(process).code == -signal.SIGKILL
    w.sandbox.on_request = None
    return runs(w.root)[-1]


def a_day_passes(path: Path) -> None:
    """The run was made yesterday: what the last full day was then, is the day before it now."""
    data = json.loads((path / "run.json").read_text())
    data["selection"].update(created_after=text(midnight(2)), created_before=text(midnight(1)))
    (path / "run.json").write_text(json.dumps(data))
    history = path.parent / "windows.jsonl"
    old = [
        json.loads(line)
        for line in (history.read_text() if history.exists() else "").splitlines()
        if line
    ]
    then = {"after": text(midnight(2)), "before": text(midnight(1))}
    history.write_text(
        "".join(
            json.dumps({**entry, **(then if entry["run"] == path.name else {})}) + "\n"
            for entry in old
        )
    )


@pytest.mark.parametrize(
    "program", ["migrate_logs", pytest.param("migrate_all", marks=pytest.mark.long)]
)
def test_the_window_of_a_killed_night_is_finished_before_that_of_today(
    w: World, program: str
) -> None:
    night(w, *bounds(4, 2), program=program)
    left = killed(w, "--window", "daily", program=program)
    a_day_passes(left)
    night(
        w, "--projects", "rows", *bounds(7, 6), program=program
    )  # another line of cron, with the same folder of runs
    end = night(w, "--window", "daily", program=program)
    assert (end.code, lines(end, "WARNING gap:", "overlap:"), arrived(w)) == (
        0,
        [],
        rows_of(1, 2, 3, 4, 7),
    ), end.last_words
    assert [window(path)[0] for path in runs(w.root)] == [
        text(midnight(day)) for day in (4, 2, 7, 1)
    ]
    assert lines(end, "resuming", "starting")[0].startswith(f"resuming run {left}")
    again = night(w, "--window", "daily", program=program)
    assert (again.code, len(runs(w.root))) == (0, 5)


def test_a_second_start_for_the_same_window_continues_its_run(w: World) -> None:
    left = killed(w, "--window", "daily")
    end = night(w, "--window", "daily")
    assert (end.code, arrived(w), runs(w.root)) == (0, rows_of(1), [left])


def test_a_window_of_an_earlier_night_that_fails_again_does_not_stop_that_of_today(
    w: World,
) -> None:
    left = killed(w, "--window", "daily")
    a_day_passes(left)
    its_window = f"created >= '{text(midnight(2))}'"
    w.sandbox.refuse = forbidding(its_window, path="/btql")
    end = night(w, "--window", "daily", "--json")
    assert (end.code, arrived(w)) == (1, rows_of(1)), end.last_words
    result = json.loads(end.out)
    (before,) = result["runs_before"]
    assert (result["exit_code"], result["status"]) == (1, "completed")
    assert (before["exit_code"], before["run_directory"]) == (1, str(left))
    w.sandbox.refuse = None
    end = night(w, *bounds(0, -1), "--fill-gaps")
    assert (end.code, arrived(w)) == (0, rows_of(0, 1)), end.last_words


def test_a_named_run_keeps_its_window(w: World) -> None:
    left = killed(w, *bounds(3, 2))
    end = run(w.sandbox, left, program="migrate_logs")
    assert (end.code, arrived(w), runs(w.root)) == (0, rows_of(3), [left]), end.last_words


@pytest.mark.long
def test_relative_bounds_are_recorded_as_absolute_ones(w: World) -> None:
    end = night(w, "--created-after", "-2d", "--created-before", "yesterday")
    begin, finish = window(runs(w.root)[0])
    assert (end.code, finish) == (0, text(midnight(1)))
    ago = datetime.now(timezone.utc) - datetime.fromisoformat(
        begin.split(".")[0].rstrip("Z") + "+00:00"
    )
    assert timedelta(hours=48) <= ago < timedelta(hours=48, minutes=5)


def test_the_lag_after_a_window_is_what_was_written_since(w: World) -> None:
    night(w, "--window", "daily")
    lag = json.loads((runs(w.root)[-1] / "migration_report.json").read_text())["lag"]
    assert (lag["since"], lag["rows"]) == (text(midnight(0)), 3 * DAYS)
    assert 0 <= lag["oldest_seconds"] < 300


@pytest.mark.long
def test_a_lag_that_cannot_be_measured_is_not_a_failure(w: World) -> None:
    w.sandbox.refuse = forbidding("as oldest", path="/btql", status=400)
    end = night(w, "--window", "daily")
    assert (end.code, lines(end, "lag:"), arrived(w)) == (
        0,
        ["lag: this server does not count"],
        rows_of(1),
    )
