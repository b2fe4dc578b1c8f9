"""The progress of a start: pinned on a terminal once a second, else a line every ten seconds."""

from __future__ import annotations

import importlib
import logging
import time
from datetime import datetime, timezone
from typing import Any, Mapping, Optional

from bt_migrate.cli.live_lines import DrawBar, Window, live_lines, progress_text
from bt_migrate.cli.pinned import terminal_size
from bt_migrate.cli.streams import raw_stream
from bt_migrate.cli.terminal import screen

log = logging.getLogger("bt_migrate")

LINE_S = 10.0
# a phase that has taken this many seconds is reported with a line
PHASE_LINE_BEATS = 4


class Progress:
    """The progress of one start in a run. Not safe for several threads."""

    def __init__(self) -> None:
        self._screen: Any = None
        # None: lines instead of bars
        self._draw_bar: Optional[DrawBar] = None
        self._next_line_s = 0.0
        self._phase = ""
        self._phase_beats = 0

    def begin(self) -> None:
        self._screen = screen()
        if self._screen is not None and self._screen.can_pin:
            self._draw_bar = bar_drawer(raw_stream(self._screen.stream).encoding or "ascii")
            if self._draw_bar is None:
                self._screen.line("no progress bars: tqdm is not installed (pip install tqdm)")
        self._next_line_s = time.monotonic() + LINE_S

    def beat(self, status: Mapping[str, Any]) -> None:
        """Show the present status; called once a second."""
        self._show_phase(status)
        now = datetime.now(timezone.utc)
        if self._draw_bar is not None:
            size = terminal_size(raw_stream(self._screen.stream))
            window = Window(size.columns - 1, size.lines)
            self._screen.pin(live_lines(status, window, self._draw_bar, now))
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + LINE_S
            facts = {"event": "overall", **status["work"]}
            log.info("%s", progress_text(status, now), extra=facts)

    def _show_phase(self, status: Mapping[str, Any]) -> None:
        """A phase that takes a while has a line of its own."""
        phase = status["phase"]
        if phase != self._phase:
            self._phase = phase
            self._phase_beats = 0
        self._phase_beats += 1
        is_due = self._phase_beats == PHASE_LINE_BEATS and status["phase_number"][1] > 1
        if is_due and self._shows_phases:
            self._screen.line("phase {} of {}: {}".format(*status["phase_number"], phase))

    @property
    def _shows_phases(self) -> bool:
        """False for JSON, where every phase is an event of the log, and with --quiet."""
        screen = self._screen
        return screen is not None and screen.short and screen.least <= logging.INFO

    def end(self) -> None:
        if self._draw_bar is not None:
            self._screen.pin([])


def bar_drawer(encoding: str) -> Optional[DrawBar]:
    """Returns a function that draws bars in an encoding; None without tqdm (extra `progress`)."""
    try:
        bar_class = importlib.import_module("tqdm.std").Bar
    except ImportError:
        return None
    try:
        bar_class.UTF.encode(encoding)
        characters = bar_class.UTF
    except (UnicodeEncodeError, LookupError):
        characters = bar_class.ASCII

    def draw(share: float, columns: int) -> str:
        return str(format(bar_class(min(1.0, share), columns, characters), ""))

    return draw
