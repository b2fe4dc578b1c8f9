"""How far a start is: pinned on a terminal once a second, else a line every ten seconds."""

from __future__ import annotations

import logging
import time
from typing import Any, Mapping, Optional

from bt_migrate.cli.terminal import screen
from bt_migrate.report.display import duration_text
from bt_migrate.state.run_directory import RunDirectory

log = logging.getLogger("bt_migrate")

LINE_S = 10.0
# A phase that has taken this many seconds gets a line.
PHASE_LINE_BEATS = 4


class Progress:
    """The progress of one start in a run. For one thread."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._screen: Any = None
        self._pins = False
        self._next_line_s = 0.0
        self._phase = ""
        self._phase_beats = 0
        # Rows of earlier starts of the run.
        self._before = 0

    def begin(self) -> None:
        self._screen = screen()
        self._pins = self._screen is not None and self._screen.can_pin
        self._next_line_s = time.monotonic() + LINE_S
        self._before = _rows_before(self._run)

    def beat(self, status: Mapping[str, Any], wait_s: float) -> None:
        """Show the status of this second. `wait_s`: until a rate limit lets a request through."""
        self._show_phase(status)
        text = progress_text(status, self._before, _total_rows(self._run), wait_s)
        if self._pins:
            self._screen.pin(text)
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + LINE_S
            log.info("%s", text, extra={"event": "overall"})

    def _show_phase(self, status: Mapping[str, Any]) -> None:
        """A phase that takes a while has a line of its own."""
        phase = status["phase"]
        if phase != self._phase:
            self._phase = phase
            self._phase_beats = 0
        self._phase_beats += 1
        is_due = self._phase_beats == PHASE_LINE_BEATS and phase
        if is_due and self._shows_phases:
            self._screen.line("phase {} of {}: {}".format(*status["phase_number"], phase))

    @property
    def _shows_phases(self) -> bool:
        """False for JSON, where every phase is an event of the log, and with --quiet."""
        screen = self._screen
        return screen is not None and screen.short and screen.least <= logging.INFO

    def end(self) -> None:
        if self._pins:
            self._screen.pin("")


def progress_text(
    status: Mapping[str, Any], before: int, total: Optional[int], wait_s: float
) -> str:
    """`phase 6/10 migrate-logs: 31,968 / 40,000 rows (80%), 3,200/s, 3 s left`"""
    number, count = status["phase_number"]
    done = before + status["rows"]
    rate = status["rows_per_second"]
    text = f"phase {number}/{count} {status['phase']}: {done:,}"
    if total:
        total = max(total, done)
        text += f" / {total:,} rows ({100 * done // total}%)"
    else:
        text += " rows"
    if status["paused"]:
        return f"{text}, paused"
    if status["stopping"]:
        return f"{text}, ending: {status['stopping']}"
    if rate:
        text += f", {rate:,.0f}/s"
    if wait_s >= 1:
        text += f", rate limit: next request in {wait_s:.0f} s"
    elif rate and total and total > done:
        text += f", {duration_text((total - done) / rate)} left"
    return text


def _rows_before(run: RunDirectory) -> int:
    if len(run.record.sessions) < 2:
        return 0
    return sum(stream.counts["fetched"] for stream in run.all_streams())


def _total_rows(run: RunDirectory) -> Optional[int]:
    """Returns the rows that a validation or a plan of shards counted, None if any is unknown."""
    if run.record.shard is not None:
        counts = [unit["rows"] for unit in run.record.shard["units"]]
    else:
        streams = (run.record.validation or {}).get("streams", {})
        counts = [stream["rows"] for found in streams.values() for stream in found]
    return None if not counts or None in counts else sum(counts)
