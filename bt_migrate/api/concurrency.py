"""How many requests to an organization are in flight at once. No HTTP in here."""

from __future__ import annotations

import threading
from collections import deque
from typing import Deque


class ConcurrencyLimit:
    """Places for requests in flight: `with` waits for a free one. `limit` may change any time.

    Who waits longest goes first: a thread that reads page after page would otherwise keep the only
    place until its last page.
    """

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._waiting: Deque[threading.Event] = deque()
        self._limit = limit
        self.taken = 0

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._lock:
            self._limit = limit
            self._admit()

    @property
    def waiting(self) -> int:
        """How many threads wait for a place."""
        return len(self._waiting)

    def __enter__(self) -> None:
        admitted = threading.Event()
        with self._lock:
            self._waiting.append(admitted)
            self._admit()
        try:
            admitted.wait()
        except BaseException:  # a second Ctrl-C
            self._withdraw(admitted)
            raise

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.taken -= 1
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self.taken < self._limit:
            self.taken += 1
            self._waiting.popleft().set()

    def _withdraw(self, admitted: threading.Event) -> None:
        with self._lock:
            if admitted.is_set():
                self.taken -= 1
            else:
                self._waiting.remove(admitted)
            self._admit()
