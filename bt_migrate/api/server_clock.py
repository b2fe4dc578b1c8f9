"""The clock of one server, as the Date header of its answers shows it."""

from __future__ import annotations

import contextlib
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Optional, Tuple


class ServerClock:
    """Bounds of the server's time. Without an answer yet, our own clock. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # the server's clock minus ours: least and most
        self._ahead_s: Tuple[float, float] = (0.0, 0.0)

    def note(self, date: Optional[str], asked_s: float) -> None:
        """Takes the Date of an answer to a request that was sent at `asked_s` (Unix seconds).

        A Date is a full second of some moment since the request was sent, so each answer narrows
        the bounds.
        """
        with contextlib.suppress(TypeError, ValueError):
            second = parsedate_to_datetime(date or "").timestamp()
            new = (second - time.time(), second + 1 - asked_s)
            with self._lock:
                before = self._ahead_s
                both = max(new[0], before[0]), min(new[1], before[1])
                # disjoint: the first answer, or somebody set a clock
                self._ahead_s = both if both[0] < both[1] else new

    def earliest_s(self) -> float:
        """Returns a time that is not later than the server's clock."""
        return time.time() + self._ahead_s[0]

    def latest_s(self) -> float:
        """Returns a time that is not earlier than the server's clock."""
        return time.time() + self._ahead_s[1]

    def mark_s(self) -> float:
        """Returns the time for a mark: the earlier of the server's clock and the local one.

        A mark ahead of what the server writes would skip rows, and a Date may be a gateway's.
        """
        return min(self.earliest_s(), time.time())
