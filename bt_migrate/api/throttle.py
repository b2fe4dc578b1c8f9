"""When the next request to an organization may start: one throttle for all its threads.

It learns from 429s and obeys the limits that a person sets. No HTTP in here.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Callable, Deque, Dict, Optional, Tuple

MAX_BACKOFF_S = 60.0
# how often a waiting thread re-reads the limits set by bin/control
LOOK_S = 0.2
# The starts of this many queries are remembered, or of as many as the known limit allows, if that
# is more. No pricing plan of Braintrust allows more in the time over which it counts queries.
MAX_REMEMBERED_STARTS = 1000
# This is added to the end of a window, because clocks and latencies differ a little.
WINDOW_SLACK_S = 0.05
# BTQL on Starter and Pro plans (docs: btql-rate-limits-on-free-and-pro-plans)
STARTER_QUERIES_PER_MINUTE = 20
# After a Retry-After of 0, the shortest pause doubles with each refusal, up to this.
MAX_FLOOR_S = 5.0
FLOOR_S = 0.1


@dataclass(frozen=True)
class Refused:
    """A 429 answer."""

    # seconds of its Retry-After
    retry_after: Optional[float] = None
    # (requests, seconds) that its text names
    rate: Optional[Tuple[int, int]] = None
    # how often its request has been refused
    times: int = 1
    # when its request was sent, by the monotonic clock; 0 if that is not known
    started_s: float = 0.0


@dataclass
class RequestStart:
    """A request that was started, by the monotonic clock."""

    at_s: float
    is_refused: bool = False


class Pace:
    """Estimates how far apart requests must start so that a server does not refuse them.

    Used where no 429 names a rate. The model is a token bucket, as in most rate limiters: it gains
    tokens at a constant rate up to its size; a request that is answered takes one token, a request
    that finds none is refused. What is estimated is the time in which the bucket gains one token;
    the result is `interval_s`, the spacing of requests (0: none is needed).

    It is estimated from the times at which requests started since the first refusal, and from which
    of them were refused: tokens must have come slowly enough that the bucket was empty at each
    refusal, and fast enough that it was not at each answer. `_measured_s` takes a time between
    these two limits. The bucket is taken to hold as many tokens as requests were answered before
    the first refusal. Until a request was answered between two refusals nothing can be measured:
    then the spacing is a guess, which starts with the pause after the first refusal and doubles
    with each further one.

    Not locked: the throttle does that.
    """

    # The spacing is a little longer than measured, and shrinks with each answer: slowly once the
    # rate was measured, because each refusal costs a request; else fast, because it is a guess.
    MARGIN = 1.12
    GROWTH = 0.997
    GUESS_GROWTH = 0.75
    # The rate is measured by this many requests, the last ones.
    MOST_STARTS = 100
    # A guess is doubled up to this multiple of the pause after the first refusal.
    MOST_GUESS = 4
    # A shorter spacing counts as none.
    NONE_S = 0.001

    def __init__(self) -> None:
        self.interval_s = 0.0
        self.next_s = 0.0
        self._refusals = 0
        self._first_pause_s = 0.0
        self._is_measured = False
        self._refused_s = 0.0
        self._answered = 0
        # the size of the bucket: how many requests were answered before the first refusal
        self._burst = 1
        # the last MOST_STARTS requests since the first refusal
        self._starts: Deque[RequestStart] = deque()
        # a time before all of these at which the bucket is taken to have been empty
        self._empty_s = 0.0

    def take(self, now: float) -> None:
        if self._refusals:
            self._starts.append(RequestStart(now))
        if len(self._starts) > self.MOST_STARTS:
            self._empty_s = self._starts.popleft().at_s
        if self.interval_s:
            self.next_s = max(self.next_s, now) + self.interval_s

    def answered(self) -> None:
        self._answered += 1
        if self.interval_s:
            self.interval_s *= self.GROWTH if self._is_measured else self.GUESS_GROWTH
            if self.interval_s < self.NONE_S:
                # as if nothing had been refused
                self.interval_s = 0.0
                self._refusals = 0
                self._is_measured = False
                self._starts.clear()

    def refused(self, refusal: Refused, pause_s: float, now: float) -> None:
        self._note_refused(refusal.started_s)
        if refusal.started_s < self._refused_s:
            # sent before the last refusal: it shows nothing new
            return
        if not self._refusals:
            self.interval_s = self._first_pause_s = pause_s
            self._burst = max(1, self._answered)
            self._empty_s = now
        elif self._answered:
            self._is_measured = True
            least_s = self.interval_s * 1.02
            self.interval_s = min(max(self._measured_s() * self.MARGIN, least_s), MAX_BACKOFF_S)
        else:
            # Nothing was answered, so nothing was measured; the request that is refused again has
            # a back-off of its own.
            self._is_measured = False
            most_s = max(self.interval_s, self.MOST_GUESS * self._first_pause_s)
            self.interval_s = min(self.interval_s * 2, most_s)
        self._refusals += 1
        self._refused_s = now
        self._answered = 0
        self.next_s = now + max(pause_s, self.interval_s)

    def _note_refused(self, started_s: float) -> None:
        """Mark the start of the request that was refused: it took nothing from the bucket."""
        for start in reversed(self._starts):
            if start.at_s <= started_s and not start.is_refused:
                start.is_refused = True
                return

    def _measured_s(self) -> float:
        """Returns the time in which the bucket gains one token, estimated from `_starts`.

        It is the geometric mean of two limits: with less time, the bucket would have had a token
        for a request that was refused; with more, none for a request that was answered. Where these
        contradict each other, the refusals count.
        """
        least_s = self._limit_s(lambda token_s: self._explains(token_s, refused=True))
        most_s = self._limit_s(lambda token_s: not self._explains(token_s, refused=False))
        return math.sqrt(least_s * max(least_s, most_s))

    def _limit_s(self, is_above: Callable[[float], bool]) -> float:
        """Returns, by bisection, the shortest time of one token for which `is_above` is true.

        It is false for all shorter times and true for all longer ones.
        """
        low_s = self.NONE_S
        high_s = MAX_BACKOFF_S
        while high_s > low_s * 1.01:
            middle_s = (low_s * high_s) ** 0.5
            if is_above(middle_s):
                high_s = middle_s
            else:
                low_s = middle_s
        return high_s

    def _explains(self, token_s: float, *, refused: bool) -> bool:
        """Whether a bucket that gains a token in `token_s` seconds behaves as the server did.

        With `refused`: whether it has no token at any request that was refused. Without: whether it
        has one at each request that was answered.
        """
        left = 0.0
        before_s = self._empty_s
        for start in self._starts:
            tokens = min(float(self._burst), left + (start.at_s - before_s) / token_s)
            if start.is_refused == refused and (tokens >= 1) == refused:
                return False
            left = min(tokens, 1.0) if start.is_refused else max(tokens - 1, 0.0)
            before_s = start.at_s
        return True


class Throttle:
    """Paces queries to a known limit, and closes for every thread on a 429.

    The limit is (number, seconds): how many queries may start in a rolling window.
    """

    def __init__(self, queries_per_minute: int = 0) -> None:
        self._lock = threading.Lock()
        self._open_at = 0.0
        self._limit: Optional[Tuple[int, float]] = None
        if queries_per_minute:
            self._limit = (queries_per_minute, 60.0)
        # when the last queries started
        self._sent: Deque[float] = deque()
        # when the next request may start at the pace that a person set
        self._next_at = 0.0
        # of queries, and of everything else
        self._paces: Dict[bool, Pace] = {True: Pace(), False: Pace()}
        # number of 429s
        self.hits = 0
        # number of queries that were started
        self.queries = 0
        # the limit was learnt from a refusal
        self.is_learnt = False
        # a person paused the run: nothing starts
        self.paused = False
        self.requests_per_second: Optional[float] = None

    def steer(self, *, paused: bool, requests_per_second: Optional[float]) -> None:
        """Sets what a person asked for, from now on."""
        with self._lock:
            self.paused = paused
            self.requests_per_second = requests_per_second
            self._next_at = 0.0

    @property
    def queries_per_minute(self) -> Optional[float]:
        """The known rate, from the setting or from a 429; None if unknown."""
        with self._lock:
            return self._limit[0] * 60 / self._limit[1] if self._limit else None

    def limit_wait_s(self) -> float:
        """Seconds until the server's limit lets a query through, whatever a person set."""
        with self._lock:
            return self._limit_wait_s(True, time.monotonic())

    def wait_s(self, *, query: bool) -> float:
        """Seconds until a request may start, 0 if it may start now."""
        with self._lock:
            return self._wait_s(query)

    def take(self, *, query: bool) -> bool:
        """Whether the request may start now; if so, it is counted."""
        with self._lock:
            if self._wait_s(query) > 0:
                return False
            if self.requests_per_second:
                self._next_at = max(self._next_at, time.monotonic()) + 1 / self.requests_per_second
            self._paces[query].take(time.monotonic())
            if query:
                self.queries += 1
                self._sent.append(time.monotonic())
                while len(self._sent) > max(
                    MAX_REMEMBERED_STARTS, self._limit[0] if self._limit else 0
                ):
                    self._sent.popleft()
            return True

    def _wait_s(self, query: bool) -> float:
        now = time.monotonic()
        # at most LOOK_S, because a person may change these meanwhile
        steered = LOOK_S if self.paused else min(LOOK_S, self._next_at - now)
        return max(0.0, steered, self._limit_wait_s(query, now))

    def _limit_wait_s(self, query: bool, now: float) -> float:
        wait = max(0.0, self._open_at - now, self._paces[query].next_s - now)
        if query and self._limit:
            number, seconds = self._limit
            if len(self._sent) >= number:
                wait = max(wait, self._sent[-number] + seconds + WINDOW_SLACK_S - now)
        return wait

    @property
    def limit_text(self) -> str:
        """`20 a minute, learnt`; "" if the limit is not known."""
        rate = self.queries_per_minute
        return f"{rate:g} a minute, {'learnt' if self.is_learnt else 'set'}" if rate else ""

    def answered(self, *, query: bool) -> None:
        """Notes a request that was not refused."""
        with self._lock:
            self._paces[query].answered()

    def refused(self, refusal: Refused, base_s: float, *, query: bool = True) -> float:
        """Notes a 429; returns the seconds that everybody waits.

        Learns the rate that its text names, or measures it. Retry-After is honoured in full.
        Otherwise backs off exponentially, starting with one request interval of the known rate, up
        to a whole window: other clients share that quota.
        """
        with self._lock:
            self.hits += 1
            rate = refusal.rate
            if rate and (
                self._limit is None or rate[0] / rate[1] < self._limit[0] / self._limit[1]
            ):
                self._limit = (rate[0], float(rate[1]))
                self.is_learnt = True
            floor_s = min(MAX_FLOOR_S, FLOOR_S * 2.0 ** min(refusal.times - 1, 16))
            pause = self._backoff_s(refusal.times, base_s)
            if refusal.retry_after is not None:
                pause = max(refusal.retry_after, floor_s)
            now = time.monotonic()
            if not (query and self._limit):
                self._paces[query].refused(refusal, pause, now)
            self._open_at = max(self._open_at, now + pause)
            return pause

    def _backoff_s(self, times: int, base_s: float) -> float:
        least = max(base_s, 0.1)
        most = MAX_BACKOFF_S
        if self._limit:
            number, most = self._limit
            least = most / number
        return min(most, least * 2.0 ** min(times - 1, 16))


class ConcurrencyLimit:
    """Places for requests in flight: `with` waits for a free one. `limit` may change any time."""

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
