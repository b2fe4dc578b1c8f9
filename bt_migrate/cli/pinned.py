"""Lines that stay at the bottom of a terminal, below everything that is printed to it.

This module does not know what the lines say.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from typing import Iterator, List, Sequence, TextIO

from bt_migrate.report.display import columns_of, shown

ERASE_LINE = "\033[K"
ERASE_BELOW = "\033[J"


class Pinned:
    """The pinned lines of one terminal. Safe for many threads.

    Code that prints to the terminal does so inside `above`, and calls `printed` with the text.
    """

    def __init__(self, raw: TextIO) -> None:
        self._raw = raw
        self._lock = threading.RLock()
        self._lines: List[str] = []
        # columns of each line that is drawn now
        self._drawn: List[int] = []
        self._depth = 0
        # False while a line is printed in pieces
        self._at_line_start = True

    def show(self, lines: Sequence[str]) -> None:
        """Replace the lines, [] for none."""
        with self._lock:
            self._lines = list(lines)
            if self._at_line_start and not self._depth:
                self._write(self._to_top() + self._text())

    @contextlib.contextmanager
    def above(self) -> Iterator[None]:
        """Inside `with`, printed text appears above the lines."""
        with self._lock:
            if self._drawn and not self._depth:
                self._write(self._to_top() + ERASE_BELOW)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if self._lines and self._at_line_start and not self._depth:
                    self._write(self._text())

    def printed(self, text: str) -> None:
        self._at_line_start = text.endswith("\n")

    def _to_top(self) -> str:
        """Move the cursor to the first of the drawn lines, which a narrower window has wrapped."""
        columns = max(1, terminal_size(self._raw).columns)
        rows = sum(max(1, -(-width // columns)) for width in self._drawn)
        self._drawn = []
        return f"\r\033[{rows - 1}A" if rows > 1 else "\r"

    def _text(self) -> str:
        # A full line would move the cursor to the next one.
        columns = max(1, terminal_size(self._raw).columns - 1)
        lines = [shown(line, columns) for line in self._lines]
        self._drawn = [columns_of(line) for line in lines]
        return f"{ERASE_LINE}\n".join(lines) + ERASE_BELOW

    def _write(self, text: str) -> None:
        """Write to the terminal. A closed terminal is ignored here; other output reports it."""
        with contextlib.suppress(OSError, ValueError):
            self._raw.write(text)
            self._raw.flush()


def terminal_size(stream: TextIO) -> os.terminal_size:
    """Returns the size of the stream's window, also after it was resized."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        size = os.get_terminal_size(stream.fileno())
        if size.columns and size.lines:
            return size
    return shutil.get_terminal_size()
