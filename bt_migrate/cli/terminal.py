"""Log lines on a person's screen: few by default, and a pinned line below them on a terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
import time
from typing import Any, Dict, TextIO

from bt_migrate.cli.streams import raw_stream
from bt_migrate.report.display import escaped, shown

# Events that a person sees with -v only: those about one object, one stream or one count. All of
# them are in run.log.
DETAILS = frozenset(
    (
        "created", "found", "updated", "differs", "skipped", "planned", "planned update",
        "waiting", "completed", "progress", "rows_copied", "rows_deleted", "planned_rows",
        "validation",
        "phase", "phase_skipped", "smaller_pages", "verified",
    )
)  # fmt: skip
# Shown even with --quiet.
ALWAYS = frozenset(("gap",))
# A rate limit is announced again only if the wait ends this much later.
WAIT_SLACK_S = 2.0
RED = "\033[31m"
YELLOW = "\033[33m"
RESET = "\033[0m"
CLEAR_LINE = "\r\033[K"


class Terminal(logging.StreamHandler):
    """Writes the lines of a level to a stream; on a terminal, a pinned line stays below them.

    `short`: leaves out details at level INFO.
    """

    def __init__(self, stream: TextIO, level: str, *, short: bool) -> None:
        super().__init__(stream)
        self.setLevel(logging.DEBUG)
        self.least = logging.getLevelName(level)
        self.short = short and self.least >= logging.INFO
        self._pinned = ""
        self._waits_until: Dict[str, float] = {}

    @property
    def can_pin(self) -> bool:
        """True on a terminal that can clear a line, unless only errors are wanted."""
        is_able = self.stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        return is_able and self.short and self.least <= logging.INFO

    def filter(self, record: logging.LogRecord) -> Any:
        event = getattr(record, "event", "")
        if record.levelno < self.least and event not in ALWAYS:
            return False
        if self.short and record.levelno == logging.INFO and event in DETAILS:
            return False
        return self._is_new_wait(record) and super().filter(record)

    def _is_new_wait(self, record: logging.LogRecord) -> bool:
        """Every thread meets a rate limit; one line says it."""
        if getattr(record, "event", "") != "rate_limited" or not self.short:
            return True
        side = getattr(record, "side", "")
        until = time.monotonic() + getattr(record, "seconds", 0.0)
        is_new = until > self._waits_until.get(side, 0.0) + WAIT_SLACK_S
        self._waits_until[side] = max(until, self._waits_until.get(side, 0.0))
        return is_new

    def emit(self, record: logging.LogRecord) -> None:
        pinned = self._pinned
        self.pin("")
        colour = self._colour_of(record)
        self._write_raw(colour)
        super().emit(record)
        self._write_raw(RESET if colour else "")
        self.pin(pinned)

    def _colour_of(self, record: logging.LogRecord) -> str:
        """Red for failures, yellow for warnings, on a terminal that wants colours."""
        has_colours = self.stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        if not has_colours or os.environ.get("NO_COLOR") or not self.short:
            return ""
        if record.levelno >= logging.ERROR:
            return RED
        return YELLOW if record.levelno >= logging.WARNING else ""

    def _write_raw(self, code: str) -> None:
        if code:
            with contextlib.suppress(OSError, ValueError):
                raw_stream(self.stream).write(code)

    def pin(self, text: str) -> None:
        """Replace the pinned line, "" for none."""
        if not (text or self._pinned) or not self.stream.isatty():
            return
        self.acquire()
        try:
            self._pinned = text
            raw = raw_stream(self.stream)
            raw.write(CLEAR_LINE + shown(text, shutil.get_terminal_size().columns - 1))
            raw.flush()
        except (OSError, ValueError):
            self._pinned = ""
        finally:
            self.release()

    def line(self, text: str) -> None:
        """Print a line that is no record of the log."""
        record = logging.LogRecord("bt_migrate", logging.INFO, "", 0, "%s", (escaped(text),), None)
        self.acquire()
        try:
            self.emit(record)
        finally:
            self.release()


def is_file(stream: TextIO) -> bool:
    """True if the lines are kept: their times then need a date."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):
        return False


def screen() -> Any:
    """Returns the handler that shows lines to a person, None if there is none."""
    handlers = logging.getLogger().handlers
    return next((handler for handler in handlers if isinstance(handler, Terminal)), None)
