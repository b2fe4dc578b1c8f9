"""When the next request to an organization may start: one throttle for all its threads, taught by 429s and by a person.

No HTTP in here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Deque, Optional, Tuple

MAX_BACKOFF_S = 60.0
MAX_REMEMBERED = 1000  # queries; no window of a plan holds more
LOOK_S = 0.2  # between two looks of a waiting thread at what a person wants
SAFETY_S = (
    0.05  # a window is left this much later than it ends: clocks and latencies differ a little
)


class Throttle:
    """Paces queries to `limit` = (number, seconds) of a rolling window once that is known, and closes for everybody on a 429."""

    def __init__(self, queries_per_minute: int = 0) -> None:
        self._lock = threading.Lock()
        self._open_at = 0.0
        self._limit: Optional[Tuple[int, float]] = (
            (queries_per_minute, 60.0) if queries_per_minute else None
        )
        self._sent: Deque[float] = deque()  # when the last queries were let through
        self._next_at = 0.0  # when the next request may start at the pace that a person asked for
        self.hits = 0  # how many 429s were met
        self.paused = False  # nothing starts; a person wants it so
        self.requests_per_second: Optional[float] = None

    def steer(self, *, paused: bool, requests_per_second: Optional[float]) -> None:
        """What a person wants from now on."""
        with self._lock:
            self.paused, self.requests_per_second, self._next_at = paused, requests_per_second, 0.0

    @property
    def queries_per_minute(self) -> Optional[float]:
        """The rate that is known, by the setting or from a 429; None for none."""
        with self._lock:
            return self._limit[0] * 60 / self._limit[1] if self._limit else None

    def wait_s(self, *, query: bool) -> float:
        """Seconds until a request may start, 0 if it may now."""
        with self._lock:
            return self._wait_s(query)

    def take(self, *, query: bool) -> bool:
        """Whether the request may start now; if so, a query is counted."""
        with self._lock:
            if self._wait_s(query) > 0:
                return False
            if self.requests_per_second:
                self._next_at = max(self._next_at, time.monotonic()) + 1 / self.requests_per_second
            if query:
                self._sent.append(time.monotonic())
                while len(self._sent) > max(MAX_REMEMBERED, self._limit[0] if self._limit else 0):
                    self._sent.popleft()
            return True

    def _wait_s(self, query: bool) -> float:
        now = time.monotonic()
        # not longer than a look: a person may change it meanwhile
        wait = max(self._open_at - now, LOOK_S if self.paused else min(LOOK_S, self._next_at - now))
        if query and self._limit:
            number, seconds = self._limit
            if len(self._sent) >= number:
                wait = max(wait, self._sent[-number] + seconds + SAFETY_S - now)
        return max(0.0, wait)

    def refused(
        self,
        retry_after: Optional[float],
        rate: Optional[Tuple[int, int]],
        times: int,
        base_s: float,
    ) -> float:
        """A 429 came, the `times`-th for its request. Learns the rate that its text names; gives back the seconds to wait.

        Retry-After is honoured in full; else it is ever longer, beginning with the time that the known rate leaves between two: others
        may have used up what there was, up to a whole window of it.
        """
        with self._lock:
            self.hits += 1
            if rate and (
                self._limit is None or rate[0] / rate[1] < self._limit[0] / self._limit[1]
            ):
                self._limit = (rate[0], float(rate[1]))
            pause = retry_after
            if pause is None:
                least, most = (
                    (self._limit[1] / self._limit[0], self._limit[1])
                    if self._limit
                    else (max(base_s, 0.1), MAX_BACKOFF_S)
                )
                pause = min(most, least * 2.0 ** (times - 1))
            self._open_at = max(self._open_at, time.monotonic() + pause)
            return pause


class ConcurrencyLimit:
    """Places for requests in flight: `with` takes one as soon as there is one. `limit` may be changed at any time."""

    def __init__(self, limit: int) -> None:
        self._changed = threading.Condition()
        self._limit = limit
        self.taken = 0

    @property
    def limit(self) -> int:
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        with self._changed:
            self._limit = limit
            self._changed.notify_all()

    def __enter__(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.taken < self._limit)
            self.taken += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self.taken -= 1
            self._changed.notify()


STARTER_QUERIES_PER_MINUTE = (
    20  # BTQL on Starter and Pro plans (docs: btql-rate-limits-on-free-and-pro-plans)
)
