"""The timeline of a run: few points, continued by the next start."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

from bt_migrate.cli.process_status import RATE_LIMIT
from bt_migrate.cli.timeline import Timeline
from bt_migrate.report.html import read_timeline

WEEK_S = 7 * 86_400


def status(rows: int) -> Dict[str, Any]:
    side = {"rate_limited": 1, "retries": 2}
    return {"rows": rows, "paused": False, "sides": {"source": side, "destination": side}}


def test_a_point_is_a_line_with_the_waits_of_both_sides(tmp_path: Path) -> None:
    Timeline(tmp_path / "t.jsonl", lambda: 5.0).add(status(7))
    assert read_timeline(tmp_path / "t.jsonl") == [
        {"t": 5.0, "rows": 7, "limited": 2, "retries": 4, "paused": False}
    ]


def test_a_wait_for_a_rate_limit_is_marked_though_nothing_was_refused(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path / "t.jsonl", iter([0.0, 0.0, 0.0, 0.0]).__next__)
    timeline.add(status(0))
    for reason in (RATE_LIMIT, "source does not answer: next try in"):
        timeline.add({**status(0), "wait": {"reason": reason}}, last=True)
    assert [point["limited"] for point in read_timeline(tmp_path / "t.jsonl")] == [2, 3, 3]


def test_a_week_long_timeline_has_a_few_thousand_points(tmp_path: Path) -> None:
    seconds = [0.0]
    timeline = Timeline(tmp_path / "t.jsonl", lambda: seconds[0])
    while seconds[0] < WEEK_S:
        timeline.add(status(int(seconds[0])))
        seconds[0] += (
            1 + seconds[0] // 1000
        )  # ever longer steps: the test need not take a week's beats
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    assert 1000 < len(lines) < 5000


def test_the_last_point_is_always_written(tmp_path: Path) -> None:
    timeline = Timeline(tmp_path / "t.jsonl", iter([0.0, 0.0, 100.0, 100.1]).__next__)
    timeline.add(status(0))
    timeline.add(status(10))
    timeline.add(status(11), last=True)
    assert [point["rows"] for point in read_timeline(tmp_path / "t.jsonl")] == [0, 10, 11]


def test_the_next_start_continues_the_count(tmp_path: Path) -> None:
    Timeline(tmp_path / "t.jsonl", lambda: 1.0).add(status(40))
    Timeline(tmp_path / "t.jsonl", lambda: 2.0).add(status(2))
    assert [point["rows"] for point in read_timeline(tmp_path / "t.jsonl")] == [40, 42]


def test_only_the_incomplete_line_of_a_timeline_is_lost(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"t": 1.0, "ro')
    Timeline(tmp_path / "t.jsonl", lambda: 1.0).add(status(3))
    assert [point["rows"] for point in read_timeline(tmp_path / "t.jsonl")] == [3]
