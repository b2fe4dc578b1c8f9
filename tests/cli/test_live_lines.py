"""What is pinned to a terminal while a program runs: its text, its place, and its way out."""

from __future__ import annotations

import io
import logging
from datetime import datetime, timezone
from typing import Any, Dict, List

import pytest

from bt_migrate.cli.live_lines import Window, live_lines, progress_text
from bt_migrate.cli.log_lines import TextLines
from bt_migrate.cli.pinned import Pinned
from bt_migrate.cli.process_status import not_before_the_longest
from bt_migrate.cli.progress import bar_drawer
from bt_migrate.cli.rates import Beat, Rates
from bt_migrate.cli.streams import SafeStream, agrees
from bt_migrate.cli.terminal import Terminal, print_result
from bt_migrate.report.display import columns_of
from tests.support.screen import Screen

NOW = datetime(2026, 1, 15, 12, 0, 0, tzinfo=timezone.utc)
RATE_LIMIT = {
    "reason": "rate limit: next query in", "detail": "20 a minute, learnt",
    "until": "2026-01-15T12:00:41Z",
}  # fmt: skip
WORK = {"unit": "rows", "done": 31_968, "total": 40_000, "per_second": 3200.0, "seconds_left": 3}


def status(streams: int = 0, **changes: Any) -> Dict[str, Any]:
    found = {
        "phase_number": (6, 10), "phase": "migrate-logs", "paused": False, "stopping": "",
        "work": WORK, "wait": None, "parts": [],
        "streams": [
            {
                "kind": "logs", "name": f"Project {n}", "done": 1000 * n, "total": 10_000 - n,
                "rows_per_second": 100.0 * n,
            }
            for n in range(streams)
        ],
    }  # fmt: skip
    return {**found, **changes}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "phase 6/10 migrate-logs: 31,968 / 40,000 rows (79%), 3,200/s, 3 s left"),
        (
            {"work": {**WORK, "unit": "rows compared", "done": 1, "total": None}},
            "phase 6/10 migrate-logs: 1 row compared, 3,200/s, 3 s left",
        ),
        (
            {"wait": RATE_LIMIT, "work": {**WORK, "per_second": 0.0, "seconds_left": 180}},
            "phase 6/10 migrate-logs: 31,968 / 40,000 rows (79%), 3 min left,"
            " rate limit: next query in 41 s (20 a minute, learnt)",
        ),
        ({"paused": True}, "phase 6/10 migrate-logs: 31,968 / 40,000 rows (79%), paused"),
        (
            {"stopping": "interrupted", "work": {**WORK, "total": None}},
            "phase 6/10 migrate-logs: 31,968 rows, ending: interrupted",
        ),
        (
            {
                "phase_number": (1, 1),
                "phase": "undo",
                "work": {**WORK, "unit": "objects deleted", "total": 0},
            },
            "undo: 31,968 objects deleted, 3,200/s, 3 s left",
        ),
        # between two phases there is nothing to count, and a rate of what was counted before
        ({"work": {**WORK, "unit": "", "seconds_left": None}}, "phase 6/10 migrate-logs"),
    ],
)
def test_the_line_for_the_whole_run_is_one_text(changes: Dict[str, Any], expected: str) -> None:
    assert progress_text(status(**changes), NOW) == expected


def drawn(found: Dict[str, Any], columns: int, lines: int = 24) -> List[str]:
    draw_bar = bar_drawer("utf-8")
    assert draw_bar is not None
    return live_lines(found, Window(columns, lines), draw_bar, NOW)


def test_a_usual_window_shows_each_open_stream_with_a_bar() -> None:
    assert drawn(status(3, work={**WORK, "seconds_left": 50}), 79) == [
        "phase 6/10 migrate-logs: 31,968 / 40,000 rows (79%), 3,200/s, 50 s left",
        "  logs Project 0    0%                 0 / 10,000",
        # 90 s at its rate, which is low because it waits for its turn
        "  logs Project 1   10%  █           1,000 / 9,999  100/s  50 s",
        "  logs Project 2   20%  ██          2,000 / 9,998  200/s  40 s",
    ]


def test_a_wide_window_has_a_bar_for_the_whole() -> None:
    assert drawn(status(), 119) == [
        "phase 6/10 migrate-logs: 31,968 / 40,000 rows (79%), 3,200/s, 3 s left "
        "███████████████▉    "
    ]


def test_a_narrow_window_wraps_the_whole_and_leaves_out_columns_of_the_streams() -> None:
    assert drawn(status(2, wait=RATE_LIMIT), 39) == [
        "phase 6/10 migrate-logs",
        "  31,968 / 40,000 rows (79%), 3,200/s,",
        "  3 s left,",
        "  rate limit: next query in 41 s (20 a…",
        "  logs Project 0    0%",
        "  logs Project 1   10%  █",
    ]


def test_streams_that_fit_are_shown_and_others_counted() -> None:
    lines = drawn(status(40), 79, lines=12)
    assert (len(lines), lines[-1]) == (6, "  … and 36 more open streams")
    assert len(drawn(status(40), 79, lines=3)) == 2


def test_wide_and_zero_width_characters_keep_the_columns() -> None:
    names = ["日本語プロジェクト", "Cafe\u0301", "a\u200bb", "x" * 200, "\x1b[31m\n"]
    streams = [
        {"kind": "logs", "name": name, "done": 5, "total": 10, "rows_per_second": 0.0}
        for name in names
    ]
    for columns in (30, 60, 79):
        lines = drawn(status(streams=0, parts=streams), columns)[-len(names) :]
        assert len({columns_of(line.partition("%")[0]) for line in lines}) == 1, lines
        assert all(
            columns_of(line) <= columns and line.isprintable() or "\u200b" in line for line in lines
        )


def test_only_a_finished_stream_has_a_hundred_percent() -> None:
    stream = {"kind": "logs", "name": "a", "rows_per_second": 0.0, "total": 6000}
    lines = drawn(status(streams=0, parts=[{**stream, "done": n} for n in (5994, 6000)]), 79)
    assert [line.split()[2] for line in lines[1:]] == ["99%", "100%"]


def test_log_lines_are_broken_between_words_on_a_terminal_only(tty: Tty) -> None:
    text = f"failed prompt 'a': {'a long answer of the server ' * 5}"
    for stream, longest in ((tty, 80), (io.StringIO(), 200)):
        terminal = Terminal(stream, "INFO", short=True)
        terminal.setFormatter(TextLines(()))
        terminal.handle(logging.LogRecord("bt_migrate", logging.ERROR, "", 0, text, (), None))
        lines = stream.getvalue().splitlines()
        assert max(map(columns_of, lines)) <= longest
        assert (" ".join(text.split()) in " ".join(" ".join(lines).split()), len(lines) > 1) == (
            True,
            stream is tty,
        ), lines


def test_a_terminal_without_unicode_gets_bars_of_ascii() -> None:
    draw_bar = bar_drawer("ascii")
    assert draw_bar is not None and draw_bar(0.55, 10) == "#####5    "


class Tty(io.StringIO):
    """A terminal that keeps what is written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def taken(self) -> str:
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Tty:
    monkeypatch.setenv("COLUMNS", "30")
    return Tty()


def test_what_is_printed_scrolls_above_the_pinned_lines(tty: Tty) -> None:
    screen, pinned = Screen(24, 30), Pinned(tty)
    out, err = SafeStream(tty, pinned), SafeStream(tty, pinned)
    print("first", file=out)
    pinned.show(["whole 1", "日本 1"])
    print("second", file=err)
    out.write("half")
    pinned.show(["whole 2", "日本 2"])
    screen.feed(tty.taken())
    assert screen.text == "first\nsecond\nhalf"
    print(" line", file=out)
    screen.feed(tty.taken())
    assert screen.text == "first\nsecond\nhalf line\nwhole 2\n日本 2"
    pinned.show(["x" * 40])
    screen.feed(tty.taken())
    assert screen.text == f"first\nsecond\nhalf line\n{'x' * 28}…"
    pinned.show([])
    print("end", file=out)
    screen.feed(tty.taken())
    assert screen.text.split() == "first second half line end".split()


@pytest.mark.parametrize("no_color", ["", "1"])
def test_the_titles_of_failures_are_red_and_of_what_to_do_yellow(
    no_color: str, tty: Tty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    red, yellow, off = ("", "", "") if no_color else ("\x1b[31m", "\x1b[33m", "\x1b[0m")
    text = "Migration incomplete: a -> b\nTo do:\n  x\nFailed:\n  y\nRows: 1 failed"
    print_result(text, SafeStream(tty))
    assert tty.getvalue() == (
        f"{red}Migration incomplete: a -> b{off}\n{yellow}To do:{off}\n  x\n"
        f"{red}Failed:{off}\n  y\nRows: 1 failed\n"
    )


def test_lines_are_pinned_again_after_a_question(tty: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = Pinned(tty)
    monkeypatch.setattr("sys.stdin", io.StringIO("Yes\n"))
    assert agrees("Delete it now?", SafeStream(tty, pinned))
    pinned.show(["undo"])
    assert "Delete it now? [y/N] " in tty.getvalue() and "undo" in tty.getvalue()


def test_a_narrower_window_leaves_no_old_lines(tty: Tty, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, pinned = Screen(24, 30), Pinned(tty)
    out = SafeStream(tty, pinned)
    print("kept", file=out)
    pinned.show(["a" * 25, "日" * 12])
    screen.feed(tty.taken())
    screen.resize(10)
    monkeypatch.setenv("COLUMNS", "10")
    pinned.show(["a" * 25, "日" * 12])
    screen.feed(tty.taken())
    assert screen.text == f"kept\n{'a' * 8}…\n{'日' * 4}…"


def test_the_time_left_takes_the_query_limit_into_account() -> None:
    rates = Rates()
    for second in range(4):  # a burst, and then nothing until the window opens again
        rates.add(Beat(second, {"": min(second, 2) * 10_000}, {"source": min(second, 2) * 10}))
    unlimited = rates.seconds_left("", 100_000, {})
    assert (rates.per_second(""), round(unlimited)) == (6666.7, 15)
    # 1,000 rows a query, 20 queries a minute
    assert rates.seconds_left("", 100_000, {"source": 20.0}) == 300.0
    assert rates.seconds_left("", 100_000, {"source": None}) == pytest.approx(unlimited)
    assert rates.seconds_left("", 0, {"source": 20.0}) == 0.0


def test_a_stream_that_opened_late_is_measured_since_then() -> None:
    rates = Rates()
    rates.add(Beat(0.0, {"": 0}, {}))
    rates.add(Beat(10.0, {"": 100, "late": 0}, {}))
    rates.add(Beat(12.0, {"": 100, "late": 50}, {}))
    assert (rates.per_second("late"), rates.per_second("")) == (25.0, 8.3)


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        ([], 3),
        ([(0, 100, 0.0), (0, None, 5.0)], 20),
        ([(0, 100, 10.0), (900, 1000, 20.0)], 5),
        ([(0, 20, 10.0)], 3),
    ],
)
def test_the_whole_does_not_end_before_its_longest_stream(
    streams: List[Any], expected: int
) -> None:
    rows = [{"done": done, "total": total, "rows_per_second": r} for done, total, r in streams]
    assert not_before_the_longest(WORK, rows)["seconds_left"] == expected


def test_a_rate_below_one_is_not_shown_as_nothing() -> None:
    slow = {"unit": "kinds of rows examined", "done": 2, "total": 3, "per_second": 0.4}
    text = progress_text(status(work={**slow, "seconds_left": 4}), NOW)
    assert text.endswith("2 / 3 kinds of rows examined (66%), 4 s left")
