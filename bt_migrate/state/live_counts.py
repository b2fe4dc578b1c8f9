"""What the running process has done so far, for status and progress.

It does not read files: checkpoints lag behind by what is not committed yet.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

HEADER_FIELDS = ("kind", "project", "name", "source_id")


class CountedStreams:
    """Streams that are open, each with what was done of it. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._streams: Dict[str, Dict[str, Any]] = {}
        self.total = 0

    def begin(self, header: Mapping[str, Any], done: int, total: Optional[int] = None) -> None:
        """Open a stream. `done` of its rows have an outcome already; `total` may be unknown."""
        stream = {**{name: header[name] for name in HEADER_FIELDS}, "done": done}
        if total is not None:
            stream["total"] = total
        with self._lock:
            self._streams[header["source_id"]] = stream

    def add(self, rows: Mapping[str, int]) -> None:
        """Add rows, by source object; those of a stream that is not open count in the total."""
        with self._lock:
            for source_id, count in rows.items():
                if source_id in self._streams:
                    self._streams[source_id]["done"] += count
                self.total += count

    def end(self, source_id: str) -> None:
        with self._lock:
            self._streams.pop(source_id, None)

    def streams(self) -> Dict[str, Dict[str, Any]]:
        """source id -> {kind, project, name, source_id, done, total?} of the open streams."""
        with self._lock:
            return {source_id: dict(stream) for source_id, stream in self._streams.items()}


class Task(CountedStreams):
    """Work other than copying rows, counted in its own unit: "rows compared", "objects deleted".

    `of` is how many there are, None if that is not known. `phase` is the phase that it belongs to.
    """

    def __init__(self, unit: str, of: Optional[int], phase: str) -> None:
        super().__init__()
        self.unit = unit
        self.of = of
        self.phase = phase

    def step(self, count: int = 1) -> None:
        self.add({"": count})


class LiveCounts(CountedStreams):
    """The phase, the rows that got an outcome in this process, by open stream, and other work."""

    def __init__(self) -> None:
        super().__init__()
        self.began = time.monotonic()
        self.phase = ""
        self.phase_number = (0, 0)  # of how many
        # current work; counting for one phase may continue while the next phases work
        self._tasks: List[Task] = []
        # Why the process waits, and until when by the monotonic clock.
        self.wait: Optional[Tuple[str, float]] = None

    @contextlib.contextmanager
    def working(self, unit: str, of: Optional[int], phase: str = "") -> Iterator[Task]:
        """Yields the task that counts the work inside: of a phase, or of the present one."""
        task = Task(unit, of, phase or self.phase)
        with self._lock:
            self._tasks.append(task)
        try:
            yield task
        finally:
            with self._lock:
                self._tasks.remove(task)

    @property
    def task(self) -> Optional[Task]:
        """The last task of this phase that was begun and has not ended."""
        with self._lock:
            return next((task for task in self._tasks[::-1] if task.phase == self.phase), None)

    def step(self, unit: str, count: int = 1) -> None:
        """Add to the tasks of this unit, if there are any."""
        with self._lock:
            tasks = [task for task in self._tasks if task.unit == unit]
        for task in tasks:
            task.step(count)

    @contextlib.contextmanager
    def waiting(self, reason: str, seconds: float) -> Iterator[None]:
        """Inside `with`, the process waits for at most `seconds`."""
        self.wait = (reason, time.monotonic() + seconds)
        try:
            yield
        finally:
            self.wait = None
