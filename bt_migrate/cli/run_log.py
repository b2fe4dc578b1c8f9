"""run.log: every line of a start, with its date, in the run directory. Keys are masked.

One file a start: earlier ones are run.log.1 (the last one), run.log.2 and so on.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Iterator, Optional, TextIO

from bt_migrate.state.run_files import KEPT_LOGS, LOG_FILE

MAX_LOG_BYTES = 20_000_000
FULL = "… (the file has reached its limit; further lines are left out)\n"


class RunLog(logging.Handler):
    """Writes lines until the file is full. An error of the disk ends the log, not the run."""

    def __init__(self, path: Path, formatter: logging.Formatter) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(formatter)
        self._path = path
        self._file: Optional[TextIO] = None
        self._left = MAX_LOG_BYTES

    def open(self) -> None:
        with contextlib.suppress(OSError):
            rotate(self._path)
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            self._file = open(fd, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115

    def emit(self, record: logging.LogRecord) -> None:
        if self._file is None:
            return
        line = self.format(record) + "\n"
        self._left -= len(line)
        try:
            self._file.write(line if self._left > 0 else FULL)
            if record.levelno >= logging.INFO or self._left <= 0:
                self._file.flush()
        except (OSError, ValueError):
            self._left = 0
        if self._left <= 0:
            self.close()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError, ValueError):
                file.close()
        super().close()


def rotate(path: Path) -> None:
    """Rename run.log to run.log.1, run.log.1 to run.log.2 and so on; the oldest is replaced."""
    for number in range(KEPT_LOGS - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        if newer.exists():
            os.replace(newer, older)


@contextlib.contextmanager
def logged_to(folder: Path, formatter: logging.Formatter) -> Iterator[None]:
    """Write all lines of this package to run.log in the folder."""
    handler = RunLog(folder / LOG_FILE, formatter)
    handler.open()
    ours = logging.getLogger("bt_migrate")
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        handler.close()
