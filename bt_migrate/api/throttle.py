"""When the next request to an organization may start: one throttle for all its threads.

It learns from 429s and obeys the limits that a person sets. No HTTP in here.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Callable, Deque, Dict, Optional, Tuple

from bt_migrate.api.jitter import jittered

MAX_BACKOFF_S = 60.0
# how often a waiting thread re-reads the limits set by bin/control
LOOK_S = 0.2
# The starts of this many requests are remembered, or of as many as the known limit allows, if that
# is more. No pricing plan of Braintrust allows more in the time over which it counts queries.
MAX_REMEMBERED_STARTS = 1000
# 429s in a row to one route that are no longer the usual reaction to a pace
REPORTED_REFUSALS = 5
# This is added to the end of a window, because clocks and latencies differ a little.
WINDOW_SLACK_S = 0.05
# BTQL on Starter and Pro plans (docs: btql-rate-limits-on-free-and-pro-plans)
STARTER_QUERIES_PER_MINUTE = 20
# share of the last request in the mean time of a request
LAST_SHARE = 0.1
# After a Retry-After of 0, pauses grow with each refusal up to this.
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
    # its method and the kind of its path
    route: str = ""


@dataclass
class RouteRefusals:
    """The 429s of a route since its last answer; times by the monotonic clock."""

    began_s: float
    last_s: float = 0.0
    count: int = 0


class Pace:
    """Estimates how far apart requests must start so that a server does not refuse them.

    Used where no 429 names a rate. Most limiters gain a constant number of requests per second in
    the long run (a token bucket, a window), and at each refusal they have none left. So between two
    refusals they gained as many as they answered. From that follows `interval_s`, the spacing of
    requests (0: none is needed).

    After a refusal, one request is sent as a probe, and each answer lets more follow, so that the
    next refusal meets few. Refusals without an answer between them make the pause longer: then the
    limiter counts over a longer time than its answer says.

    Not locked: the throttle does that.
    """

    # The spacing is a little longer than measured and shrinks with each answer: slowly at first,
    # because each refusal costs a request, then faster, because the server may allow more now.
    MARGIN = 1.16
    SLOW_SHRINK = 0.002
    SLOW_ANSWERS = 50
    FAST_SHRINK = 0.01
    # divided by the number of answers over which it was measured
    UNSURE_SHRINK = 0.1
    # until something was measured
    GUESS_SHRINK = 0.03
    # A shorter spacing counts as none.
    NONE_S = 0.001
    # The rate is measured over about this many answers.
    MEASURED_ANSWERS = 100
    # The spacing grows at most so much where refusals come faster than measured.
    MOST_GROWTH = 2.0
    # Where so few requests are refused, the measured time grows at most so much: a server that
    # refuses some whatever their spacing is not asked ever more slowly.
    CHEAP = 0.025
    CHEAP_GROWTH = 1.02
    # The fewest requests between two refusals that a guess of the limit assumes.
    LEAST_BURST = 10
    # After more refusals in a row than these, although requests started as far apart as was
    # measured, the spacing is dropped: the server refuses whatever the spacing is.
    MOST_SURPRISES = 3
    # Then no spacing is set before so many refusals in a row agree on a rate; twice as many after
    # each spacing that was dropped. So a server that refuses at random is not paced.
    LEAST_AGREEING = 4
    MOST_DOUBLED = 4
    # how much the rates between two refusals may differ to agree
    AGREEING = 2.0
    # No longer spacing is measured: the slowest limit of Braintrust is a query in 3 s.
    MOST_INTERVAL_S = 5.0
    # how much a pause grows with each refusal without an answer between, and after a spacing was
    # dropped
    PAUSE_GROWTH = 4.0
    DOUBTED_GROWTH = 2.0
    # how many more requests may start per answer after a refusal, until that many may at once
    CREDIT = 1.5
    MOST_CREDITS = 20.0
    # When a probe is not answered for so long, another one is sent.
    PROBE_S = 5.0
    # Waiting threads start sooner than that once they may.
    LEAST_IDLE_S = 1.0
    # how often waiting threads ask whether the probe was answered
    PROBE_LOOK_S = 0.05

    def __init__(self) -> None:
        self.interval_s = 0.0
        self._next_s = 0.0
        self._answered = 0
        # (when, answered requests until then): refusals that came after an answer
        self._measures: Deque[Tuple[float, int]] = deque()
        # the spacing as it was measured last, over so many answers
        self._mean_s = 0.0
        self._measured = 0
        # refusals in a row although requests started at least that far apart
        self._surprises = 0
        # how often the spacing was dropped
        self._doubts = 0
        # (seconds, answers) between refusals since then
        self._gaps: Deque[Tuple[float, int]] = deque(maxlen=self.LEAST_AGREEING)
        # refused requests since the last of these
        self._cost = 0
        self._refused_s = -math.inf
        # without an answer since
        self._refusals = 0
        # how many requests may start before the next answer; None: any number
        self._credits: Optional[float] = None
        self._taken_s = 0.0
        # when the last answer or refusal came
        self._heard_s = 0.0
        # how long no request was wanted, in all: it says nothing about a limit
        self._idle_s = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until the next request may start, or until that is asked again."""
        wait_s = max(0.0, self._next_s - now)
        if self._credits is not None and self._credits < 1:
            probe_s = min(self.PROBE_LOOK_S, self._taken_s + self.PROBE_S - now)
            wait_s = max(wait_s, probe_s)
        return wait_s

    def take(self, now: float) -> None:
        idle_s = now - max(self._taken_s, self._heard_s, self._next_s)
        if self._taken_s and idle_s > self.LEAST_IDLE_S:
            self._idle_s += idle_s
        self._taken_s = now
        if self._credits is not None:
            self._credits = max(0.0, self._credits - 1)
        if self.interval_s:
            self._next_s = max(self._next_s, now) + self.interval_s

    def answered(self, started_s: float, now: float) -> None:
        self._answered += 1
        self._heard_s = now
        if started_s < self._refused_s or not self._measures:
            return
        refused_s, answered = self._measures[-1]
        is_guess = len(self._measures) == 1
        if self._refusals and is_guess and not self._doubts:
            self.interval_s = (now - self._idle_s - refused_s) / max(self.LEAST_BURST, answered)
            self._next_s = now
        self._refusals = 0
        if self._credits is not None:
            self._credits += self.CREDIT
            if self._credits > self.MOST_CREDITS:
                self._credits = None
        if self.interval_s:
            is_slow = self._answered - answered < self.SLOW_ANSWERS
            shrink = self.SLOW_SHRINK if is_slow else self.FAST_SHRINK
            shrink = max(shrink, self.UNSURE_SHRINK / (self._measured + 1))
            self.interval_s *= 1 - (self.GUESS_SHRINK if is_guess else shrink)
            if self.interval_s < self.NONE_S:
                self.interval_s = 0.0

    def refused(
        self, started_s: float, pause_s: float, now: float, *, most_s: float = MAX_BACKOFF_S
    ) -> float:
        """Returns the seconds after which a probe is sent: `pause_s`, or longer up to `most_s`."""
        is_new = started_s >= self._refused_s
        self._heard_s = now
        if is_new and not self._refusals:
            self._measure(now - self._idle_s)
        self._cost += 1
        if not is_new:
            # sent before the last refusal was known
            return pause_s
        self._refused_s = now
        self._refusals += 1
        growth = self.DOUBTED_GROWTH if self._doubts else self.PAUSE_GROWTH
        longer_s = pause_s * growth ** min(self._refusals - 1, 8)
        pause_s = max(pause_s, min(longer_s, most_s))
        self._credits = 1.0
        self._next_s = now + max(pause_s, self.interval_s)
        return pause_s

    def _measure(self, now: float) -> None:
        """Sets the spacing from the (busy) time and the answers since an earlier refusal."""
        if self._measures and self._is_unrelated():
            self._forget()
        if self._measures:
            last_s, last = self._measures[-1]
            first_s, first = self._measures[0]
            # What was gained is a little more than what was answered: up to one.
            least_s = (now - last_s) / (self._answered - last + 1)
            if self.interval_s:
                least_s = min(least_s, self.interval_s * self.MOST_GROWTH)
            self._measured = self._answered - first
            mean_s = max(least_s, (now - first_s) / (self._measured + 0.5))
            if self._mean_s and self._cost < self.CHEAP * (self._answered - last):
                mean_s = min(mean_s, self._mean_s * self.CHEAP_GROWTH)
            self._gaps.append((max(now - last_s, self.NONE_S), self._answered - last))
            if self._is_believed():
                self._mean_s = mean_s
                self.interval_s = min(mean_s * self.MARGIN, self.MOST_INTERVAL_S)
        self._cost = 0
        self._measures.append((now, self._answered))
        oldest = self._answered - self.MEASURED_ANSWERS
        while len(self._measures) > 2 and self._measures[1][1] <= oldest:
            self._measures.popleft()

    def _is_unrelated(self) -> bool:
        """Whether the server refuses whatever the spacing is.

        Where requests start as far apart as was measured, a limiter has no reason to refuse one. It
        does so a few times until the measure is exact, or if it allows less than before.
        """
        if not self._mean_s:
            return False
        is_surprise = self._mean_s <= self.interval_s
        self._surprises = self._surprises + 1 if is_surprise else 0
        return self._surprises > self.MOST_SURPRISES

    def _is_believed(self) -> bool:
        """Whether the answers between the last refusals agree on a rate, once one was wrong."""
        if not self._doubts:
            return True
        if len(self._gaps) < (self._gaps.maxlen or 0):
            return False
        most = max(answers / seconds for seconds, answers in self._gaps)
        least = min((answers + 1) / seconds for seconds, answers in self._gaps)
        return most <= self.AGREEING * least

    def _forget(self) -> None:
        """Drop the spacing and what was measured."""
        needed = self.LEAST_AGREEING * 2 ** min(self._doubts, self.MOST_DOUBLED)
        self._doubts += 1
        self._gaps = deque(maxlen=needed)
        self.interval_s = self._mean_s = 0.0
        self._measured = 0
        self._surprises = 0
        self._measures.clear()


class Window:
    """Lets a number of requests start in any `seconds`: the rate that a person or a 429 named.

    Not locked: the throttle does that.
    """

    def __init__(self, number: int = 0, seconds: float = 60.0) -> None:
        # 0: no rate is known
        self.number = number
        self.seconds = seconds
        # when the last requests started
        self._started: Deque[float] = deque()

    def learn(self, rate: Tuple[int, int]) -> bool:
        """Whether the rate is slower than the known one; then it is respected from now on."""
        if self.number and rate[0] / rate[1] >= self.number / self.seconds:
            return False
        self.number = rate[0]
        self.seconds = float(rate[1])
        return True

    def take(self, now: float) -> None:
        self._started.append(now)
        while len(self._started) > max(MAX_REMEMBERED_STARTS, self.number):
            self._started.popleft()

    def wait_s(self, now: float) -> float:
        if not self.number or len(self._started) < self.number:
            return 0.0
        return self._started[-self.number] + self.seconds + WINDOW_SLACK_S - now


class Throttle:
    """Paces requests to a known or measured rate, and closes for every thread on a 429.

    Queries and other requests have rates of their own.
    """

    def __init__(
        self,
        queries_per_minute: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        rand: Callable[[], float] = random.random,
    ) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._random = rand
        self._open_at = 0.0
        # of queries, and of everything else
        self._windows: Dict[bool, Window] = {True: Window(queries_per_minute), False: Window()}
        self._paces: Dict[bool, Pace] = {True: Pace(), False: Pace()}
        # when the next request may start at the pace that a person set
        self._next_at = 0.0
        self._in_a_row: Dict[str, RouteRefusals] = {}
        # when a query, and any other request, was last answered
        self._answered_s: Dict[bool, float] = {True: 0.0, False: 0.0}
        # number of 429s
        self.hits = 0
        # number of queries that were started
        self.queries = 0
        # mean seconds of the last requests that are no queries
        self.request_s = 0.0
        # the limit of queries was learnt from a refusal
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
            window = self._windows[True]
            return window.number * 60 / window.seconds if window.number else None

    def limit_wait_s(self) -> float:
        """Seconds until the server's limit lets a query through, whatever a person set."""
        with self._lock:
            return self._limit_wait_s(True, self._clock())

    def wait_s(self, *, query: bool) -> float:
        """Seconds until a request may start, 0 if it may start now."""
        with self._lock:
            return self._wait_s(query, self._clock())

    def take(self, *, query: bool) -> bool:
        """Whether the request may start now; if so, it is counted."""
        with self._lock:
            now = self._clock()
            if self._wait_s(query, now) > 0:
                return False
            if self.requests_per_second:
                self._next_at = max(self._next_at, now) + 1 / self.requests_per_second
            self._paces[query].take(now)
            self._windows[query].take(now)
            if query:
                self.queries += 1
            return True

    def _wait_s(self, query: bool, now: float) -> float:
        # at most LOOK_S, because a person may change these meanwhile
        steered = LOOK_S if self.paused else min(LOOK_S, self._next_at - now)
        return max(0.0, steered, self._limit_wait_s(query, now))

    def _limit_wait_s(self, query: bool, now: float) -> float:
        measured_s = self._paces[query].wait_s(now)
        return max(0.0, self._open_at - now, measured_s, self._windows[query].wait_s(now))

    @property
    def limit_text(self) -> str:
        """`20 a minute, learnt`; "" if the limit is not known."""
        rate = self.queries_per_minute
        return f"{rate:g} a minute, {'learnt' if self.is_learnt else 'set'}" if rate else ""

    def refusal_text(self, route: str, most: int) -> str:
        """Returns `limit_text`, and after some 429s in a row how many stop the run."""
        count = self.refusals_in_a_row(route)
        in_a_row = f"{count} times in a row; stops after {most}"
        return "; ".join(filter(None, [self.limit_text, in_a_row * (count >= REPORTED_REFUSALS)]))

    def answered(self, *, query: bool, started_s: float, route: str = "") -> None:
        """Notes an answer that was no 429, to a request that was sent then."""
        with self._lock:
            now = self._clock()
            self._paces[query].answered(started_s, now)
            self._in_a_row.pop(route, None)
            self._answered_s[query] = now
            if not query:
                share = LAST_SHARE if self.request_s else 1.0
                self.request_s += share * (now - started_s - self.request_s)

    def refusals_in_a_row(self, route: str) -> int:
        """Returns how many 429s the route has had since its last answer.

        One of a request that was sent before the last 429 came is not counted: it shows nothing
        new.
        """
        with self._lock:
            row = self._in_a_row.get(route)
            return row.count if row else 0

    def _count_in_a_row(self, refusal: Refused, now: float, *, query: bool) -> bool:
        """Count a 429 of a route.

        Returns whether the route was refused again while others were answered: that shows nothing
        about the pace of the organization.
        """
        row = self._in_a_row.setdefault(refusal.route, RouteRefusals(now))
        if refusal.started_s >= row.last_s:
            row.last_s = now
            row.count += 1
        return row.count > 1 and self._answered_s[query] > row.began_s

    def refused(self, refusal: Refused, base_s: float, *, query: bool = True) -> float:
        """Notes a 429; returns the seconds that everybody waits.

        Learns the rate that its text names, or measures it. Retry-After is honoured in full.
        Otherwise backs off exponentially, starting with one request interval of the known rate, up
        to a whole window: other clients share that quota. A little is added at random, so that
        processes that were refused together do not ask together.
        """
        with self._lock:
            self.hits += 1
            window = self._windows[query]
            if refusal.rate and window.learn(refusal.rate) and query:
                self.is_learnt = True
            pause = self._backoff_s(window, refusal.times, base_s)
            if refusal.retry_after is not None:
                floor_s = min(MAX_FLOOR_S, FLOOR_S * 2.0 ** min(refusal.times - 1, 16))
                pause = max(refusal.retry_after, floor_s)
            now = self._clock()
            of_route_only = self._count_in_a_row(refusal, now, query=query)
            if not (window.number or of_route_only):
                least_s = self._backoff_s(window, 1, base_s)
                if refusal.retry_after is not None:
                    least_s = max(refusal.retry_after, FLOOR_S)
                most_s = MAX_BACKOFF_S if least_s > FLOOR_S else MAX_FLOOR_S
                pace = self._paces[query]
                probe_s = pace.refused(refusal.started_s, least_s, now, most_s=most_s)
                pause = max(pause, probe_s)
            pause = jittered(pause, self._random(), is_asked=refusal.retry_after is not None)
            self._open_at = max(self._open_at, now + pause)
            return pause

    @staticmethod
    def _backoff_s(window: Window, times: int, base_s: float) -> float:
        least = max(base_s, 0.1)
        most = MAX_BACKOFF_S
        if window.number:
            most = window.seconds
            least = most / window.number
        return min(most, least * 2.0 ** min(times - 1, 16))
