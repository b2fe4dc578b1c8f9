"""Log lines on a person's screen: few by default, and pinned lines below them on a terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
import time
from typing import Any, Dict, Sequence, TextIO

from bt_migrate.cli.streams import above_pinned, fitted, raw_stream
from bt_migrate.report.display import escaped

# Events that are shown with -v only: those about one object, stream or count. All of them are in
# run.log.
DETAILS = frozenset(
    (
        "created", "found", "updated", "differs", "skipped", "planned", "planned update",
        "waiting", "completed", "progress", "rows_copied", "rows_deleted", "planned_rows",
        "validation",
        "phase", "phase_skipped", "smaller_pages", "verified", "facets",
    )
)  # fmt: skip
# Shown even with --quiet.
ALWAYS = frozenset(("gap",))
# A rate limit is announced only if the wait is longer, or ends this much later than the last one.
WAIT_SLACK_S = 2.0
# A retry is announced only if no thread announced the same one so shortly before.
RETRY_SLACK_S = 5.0
# of the time before each line
TIME_COLUMNS = 9
RED = "\033[31m"
YELLOW = "\033[33m"
RESET = "\033[0m"
# Titles of failures, and verdicts that are not good.
BAD_LINES = re.compile(
    r"(Failed|Not as in the source|Security):$|Verification: NOT |[\w ]+ (incomplete|ended with)\b"
)


class Terminal(logging.StreamHandler):  # type: ignore[type-arg]  # not before Python 3.11
    """Writes the lines of a level to a stream; on a terminal, pinned lines stay below them.

    `short`: text for a person, without details at level INFO; else each line is left as it is.
    """

    def __init__(self, stream: TextIO, level: str, *, short: bool) -> None:
        super().__init__(stream)
        self.setLevel(logging.DEBUG)
        self.least = logging.getLevelName(level)
        self.short = short and self.least >= logging.INFO
        self._in_text = short
        self._waits_until: Dict[str, float] = {}
        # text of a retry -> when it was announced
        self._retried: Dict[str, float] = {}

    @property
    def can_pin(self) -> bool:
        """True on a terminal that can erase a line, unless only errors are shown."""
        return is_able(self.stream) and self.short and self.least <= logging.INFO

    def filter(self, record: logging.LogRecord) -> Any:
        event = getattr(record, "event", "")
        if record.levelno < self.least and event not in ALWAYS:
            return False
        if self.short and record.levelno == logging.INFO and event in DETAILS:
            return False
        is_new = self._is_new_wait(record) and self._is_new_retry(record)
        return is_new and super().filter(record)

    def _is_new_wait(self, record: logging.LogRecord) -> bool:
        """Whether it is a wait to report, and no other thread has logged it."""
        if getattr(record, "event", "") != "rate_limited" or not self.short:
            return True
        side = getattr(record, "side", "")
        now_s = time.monotonic()
        until = now_s + getattr(record, "seconds", 0.0)
        known_until = max(now_s, self._waits_until.get(side, now_s))
        self._waits_until[side] = max(until, known_until)
        return until > known_until + WAIT_SLACK_S

    def _is_new_retry(self, record: logging.LogRecord) -> bool:
        """False for a retry of which another thread has just said the same."""
        if getattr(record, "event", "") != "retry" or not self.short:
            return True
        now_s = time.monotonic()
        recent = {
            text: at_s for text, at_s in self._retried.items() if now_s < at_s + RETRY_SLACK_S
        }
        self._retried = {record.getMessage(): now_s, **recent}
        return record.getMessage() not in recent

    def emit(self, record: logging.LogRecord) -> None:
        colour = self._colour_of(record)
        with above_pinned(self.stream):
            self._write_raw(colour)
            super().emit(record)
            self._write_raw(RESET if colour else "")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return fitted(line, self.stream, more=TIME_COLUMNS * " ") if self._in_text else line

    def _colour_of(self, record: logging.LogRecord) -> str:
        """Returns red for failures, yellow for warnings, on a terminal with colours."""
        if not wants_colour(self.stream) or not self.short:
            return ""
        if record.levelno >= logging.ERROR:
            return RED
        return YELLOW if record.levelno >= logging.WARNING else ""

    def _write_raw(self, code: str) -> None:
        if code:
            with contextlib.suppress(OSError, ValueError):
                raw_stream(self.stream).write(code)

    def pin(self, lines: Sequence[str]) -> None:
        """Replace the pinned lines, [] for none."""
        pinned = getattr(self.stream, "pinned", None)
        if pinned is not None:
            pinned.show(lines)

    def line(self, text: str) -> None:
        """Print a line that is not part of the log."""
        record = logging.LogRecord("bt_migrate", logging.INFO, "", 0, "%s", (escaped(text),), None)
        self.acquire()
        try:
            self.emit(record)
        finally:
            self.release()


def is_able(stream: TextIO) -> bool:
    """True for a terminal that understands escape sequences."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def wants_colour(stream: TextIO) -> bool:
    return is_able(stream) and not os.environ.get("NO_COLOR")


def print_result(text: str, stream: TextIO) -> None:
    """Print the result of a start; titles of failures are red, and of what to do yellow."""
    for line in text.splitlines():
        colour = RED if BAD_LINES.match(line) else YELLOW if line == "To do:" else ""
        if not colour or not wants_colour(stream):
            print(line, file=stream)
            continue
        raw = raw_stream(stream)
        raw.write(colour)
        print(line, end="", file=stream)
        raw.write(RESET)
        print(file=stream)


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
