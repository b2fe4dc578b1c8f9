"""What the running process has done so far, for status and progress.

Knows nothing of files: checkpoints lag by what is not committed yet.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Dict, Mapping


class LiveCounts:
    """The phase, and for each open stream its rows with an outcome. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: Dict[str, Dict[str, Any]] = {}
        self._total = 0
        self.began = time.monotonic()
        self.phase = ""
        self.phase_number = (0, 0)  # of how many

    def begin(self, header: Mapping[str, Any], done: int) -> None:
        """A stream is about to be read from its checkpoint, which counts `done` rows."""
        with self._lock:
            names = ("kind", "project", "name", "source_id")
            self._streams[header["source_id"]] = {
                **{name: header[name] for name in names},
                "done": done,
            }

    def add(self, rows: Mapping[str, int]) -> None:
        """Add rows that got their outcome, by source object: delivered, or not to be sent."""
        with self._lock:
            for source_id, count in rows.items():
                self._streams[source_id]["done"] += count
                self._total += count

    def end(self, source_id: str) -> None:
        """The checkpoint of the stream is complete."""
        with self._lock:
            self._streams.pop(source_id, None)

    def streams(self) -> Dict[str, Dict[str, Any]]:
        """source id -> {kind, project, name, source_id, done} of the open streams."""
        with self._lock:
            return {source_id: dict(stream) for source_id, stream in self._streams.items()}

    @property
    def total(self) -> int:
        """Rows of this process so far."""
        return self._total
