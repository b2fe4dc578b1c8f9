"""timeline.jsonl: rows over time, with waits, for the picture in report.html.

A start appends a point per second at first and fewer as it gets longer: a point at most every
1/POINTS of its time so far, so that a start of a week adds about 3,000 lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any, Callable, Mapping

from bt_migrate.cli.process_status import RATE_LIMIT
from bt_migrate.report.html import read_timeline

POINTS = 300


class Timeline:
    """The timeline of a run, continued by this start. `clock` returns seconds since the epoch."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._began = clock()
        self._next = self._began
        points = read_timeline(path)
        self._rows_before = points[-1]["rows"] if points else 0
        # how often `add` was called while the process waited for a rate limit
        self._limited = 0

    def add(self, status: Mapping[str, Any], *, last: bool = False) -> None:
        """Append a point from the process's status if one is due, or if it is the `last`."""
        now = self._clock()
        wait = status.get("wait")
        self._limited += bool(wait and wait["reason"] == RATE_LIMIT)
        if now < self._next and not last:
            return
        self._next = now + (now - self._began) / POINTS
        sides = status["sides"].values()
        point = {
            "t": round(now, 1),
            "rows": self._rows_before + status["rows"],
            "limited": self._limited + sum(side["rate_limited"] for side in sides),
            "retries": sum(side["retries"] for side in sides),
            "paused": status["paused"],
        }
        # The line break comes first, so that a line that was cut short ends there. A full disk must
        # not end the run here; it ends it where data is written.
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(fd, "w", encoding="utf-8") as file:
                file.write("\n" + json.dumps(point))
