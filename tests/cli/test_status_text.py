"""The status as text: the head always, open streams next, the rest as a count."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from bt_migrate.cli.status_text import status_lines


def stream(number: int, *, complete: bool) -> Dict[str, Any]:
    return {
        "kind": "logs",
        "name": f"stream {number:02}",
        "project": "a\x1b[31m",
        "done": 5,
        "total": 10,
        "rows_per_second": 0.0,
        "eta_seconds": None,
        "complete": complete,
        "error": "",
    }


def status(streams: int) -> Dict[str, Any]:
    return {
        "run": "/runs/1", "state": "finished", "source": "acme", "dest": "globex",
        "window": {"created_after": None, "created_before": None}, "phases_done": ["validate"],
        "rows": {"done": 5, "total": None, "rows_per_second": 0.0, "eta_seconds": None},
        "sides": {}, "last_error": "", "lag": None,
        "streams": [stream(number, complete=number % 2 == 0) for number in range(streams)],
    }  # fmt: skip


@pytest.mark.parametrize(("streams", "height"), [(40, 24), (40, 10), (3, 24), (0, 24), (40, 4)])
def test_the_status_fits_the_window(streams: int, height: int) -> None:
    lines = status_lines(status(streams), height)
    assert len(lines) <= max(height, 5)
    assert lines[0].startswith("run /runs/1: finished; acme -> globex")


def test_open_streams_come_first_and_the_rest_is_counted() -> None:
    lines = status_lines(status(8), 4 + 5)
    shown = [line for line in lines if "stream " in line]
    assert [line.split("'")[1] for line in shown] == [f"stream {n:02}" for n in (1, 3, 5, 7)]
    assert lines[-1] == "  … and 4 more, 4 of them complete (--json shows all)"
    assert not any("\x1b" in line for line in lines)


def test_without_a_window_all_streams_up_to_a_limit_are_shown() -> None:
    assert len(status_lines(status(60))) == 4 + 25 + 1
