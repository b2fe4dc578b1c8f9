"""How many requests are refused by limiters that name no rate: ten threads, simulated.

The clock is a number. Each event is a thread that does its next step: ask the throttle, arrive at
the server, read the answer.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from typing import Any, Callable, Deque, List, NamedTuple, Optional, Tuple

import pytest

from bt_migrate.api.throttle import Pace, Refused, Throttle

# Retry-After of a simulated 429: seconds, NONE, or REST, which is the time that is really left
NONE, REST = None, "rest"
# Returns None for a request that is answered, else the seconds until one would be.
Limiter = Callable[[float], Optional[float]]


def bucket(size: float, per_s: float) -> Limiter:
    left, filled_s = float(size), 0.0

    def ask(now: float) -> Optional[float]:
        nonlocal left, filled_s
        left, filled_s = min(size, left + (now - filled_s) * per_s), now
        if left < 1:
            return (1 - left) / per_s
        left -= 1
        return None

    return ask


def rolling(number: int, seconds: float) -> Limiter:
    starts: Deque[float] = deque()

    def ask(now: float) -> Optional[float]:
        while starts and starts[0] <= now - seconds:
            starts.popleft()
        if len(starts) >= number:
            return starts[0] + seconds - now
        starts.append(now)
        return None

    return ask


def fixed(number: int, seconds: float) -> Limiter:
    counts: List[Any] = [0, 0]

    def ask(now: float) -> Optional[float]:
        window = int(now / seconds + 0.3)
        if counts[0] != window:
            counts[:] = [window, 0]
        counts[1] += 1
        return None if counts[1] <= number else (window + 0.7) * seconds - now

    return ask


def every(number: int) -> Limiter:
    """Refuses one of so many requests, whatever their spacing."""
    counts = itertools.count(1)
    return lambda now: 1.0 if next(counts) % number == 0 else None


def changing(before: Limiter, at_s: float, after: Limiter) -> Limiter:
    return lambda now: (before if now < at_s else after)(now)


class Result(NamedTuple):
    seconds: float
    sent: int
    refused: int
    # of these, sent before the first refusal was known
    first: int

    @property
    def later_share(self) -> float:
        return (self.refused - self.first) / self.sent


class Simulation:
    """Threads that send requests to a limiter as fast as the throttle lets them."""

    def __init__(self, limiter: Limiter, retry_after: Any, latency_s: float, query: bool) -> None:
        self.now = 0.0
        self.limiter, self.retry_after, self.latency_s = limiter, retry_after, latency_s
        self.query = query
        self.random = random.Random(1).random
        self.throttle = Throttle(clock=lambda: self.now, rand=self.random)
        # (when it was sent, whether it was refused)
        self.sent: List[Tuple[float, bool]] = []
        self.known_s = float("inf")
        self._events: List[Any] = []
        self._order = itertools.count()

    def run(self, requests: int, threads: int) -> Result:
        self.left = requests
        for _ in range(threads):
            self._next_request()
        while self._events:
            self.now, _, step, values = heapq.heappop(self._events)
            step(*values)
        refused = [sent_s for sent_s, is_refused in self.sent if is_refused]
        first = sum(sent_s < self.known_s for sent_s in refused)
        return Result(self.now, len(self.sent), len(refused), first)

    def _later(self, seconds: float, step: Callable[..., None], *values: Any) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), step, values))

    def _next_request(self) -> None:
        if self.left:
            self.left -= 1
            self._ask(0)

    def _ask(self, times: int) -> None:
        wait_s = self.throttle.wait_s(query=self.query)
        if wait_s > 0:
            self._later(wait_s + 0.001 * self.random(), self._ask, times)
        elif self.throttle.take(query=self.query):
            half_s = self.latency_s * (0.35 + 0.3 * self.random())
            self._later(half_s, self._arrive, self.now, half_s, times)

    def _arrive(self, sent_s: float, half_s: float, times: int) -> None:
        rest_s = self.limiter(self.now)
        self.sent.append((sent_s, rest_s is not None))
        self._later(half_s, self._answer, sent_s, rest_s, times)

    def _answer(self, sent_s: float, rest_s: Optional[float], times: int) -> None:
        if rest_s is None:
            self.throttle.answered(query=self.query, started_s=sent_s)
            self._next_request()
            return
        self.known_s = min(self.known_s, self.now)
        told_s = rest_s if self.retry_after == REST else self.retry_after
        refusal = Refused(told_s, times=times + 1, started_s=sent_s)
        self.throttle.refused(refusal, 1.0, query=self.query)
        self._ask(times + 1)


def simulated(
    limiter: Limiter,
    retry_after: Any,
    *,
    requests: int = 200,
    threads: int = 10,
    latency_s: float = 0.1,
) -> Result:
    return Simulation(limiter, retry_after, latency_s, True).run(requests, threads)


@pytest.mark.parametrize("threads", [1, 4, 10])
@pytest.mark.parametrize("latency_s", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("retry_after", [1.0, NONE])
def test_a_token_bucket_refuses_few_requests_after_the_first(
    threads: int, latency_s: float, retry_after: Any
) -> None:
    result = simulated(bucket(20, 1), retry_after, threads=threads, latency_s=latency_s)
    assert result.later_share <= 0.05, result
    assert result.seconds < 1.1 * max(180, 200 * latency_s / threads), result


@pytest.mark.parametrize("threads", [1, 10])
@pytest.mark.parametrize("size", [5, 20, 60])
@pytest.mark.parametrize("per_s", [0.33, 5, 20])
@pytest.mark.parametrize("retry_after", [1.0, NONE])
def test_a_token_bucket_of_any_size_and_rate_is_measured(
    threads: int, size: int, per_s: float, retry_after: Any
) -> None:
    result = simulated(bucket(size, per_s), retry_after, threads=threads)
    assert result.later_share <= 0.05, result
    assert result.seconds < 1.2 * max((200 - size) / per_s, 20 / threads) + 15, result


@pytest.mark.parametrize("threads", [1, 10])
@pytest.mark.parametrize("window", [rolling, fixed])
@pytest.mark.parametrize(("number", "seconds"), [(10, 1), (20, 12), (20, 60), (100, 60)])
@pytest.mark.parametrize("retry_after", [1.0, NONE, REST])
def test_a_window_that_is_not_named_refuses_few_requests_after_the_first(
    threads: int, window: Any, number: int, seconds: float, retry_after: Any
) -> None:
    result = simulated(window(number, seconds), retry_after, threads=threads)
    assert result.later_share <= 0.05, result
    # Without the true Retry-After, the first pauses grow to more than a window.
    assert result.seconds < 1.9 * (200 / number) * seconds + 120, result


@pytest.mark.parametrize("query", [True, False])
def test_queries_and_other_requests_are_paced_alike(query: bool) -> None:
    result = Simulation(bucket(20, 1), 1.0, 0.1, query).run(200, 10)
    assert (result.refused > 0, result.later_share <= 0.05) == (True, True), result


def test_a_rate_that_drops_is_followed() -> None:
    limiter = changing(bucket(20, 5), 60, bucket(20, 0.5))
    result = simulated(limiter, 1.0, requests=500)
    assert result.later_share <= 0.05, result
    assert result.seconds < 60 + 1.1 * 200 / 0.5, result


def test_a_rate_that_rises_is_used() -> None:
    limiter = changing(bucket(20, 0.5), 120, bucket(20, 5))
    result = simulated(limiter, 1.0, requests=1000)
    assert result.later_share <= 0.05, result
    assert result.seconds < 800, result  # 1,960 at the first rate


def test_a_server_that_refuses_few_at_any_pace_is_not_asked_ever_more_slowly() -> None:
    assert simulated(every(50), 1.0, requests=1000).seconds < 100


@pytest.mark.parametrize("retry_after", [0.0, 1.0, NONE])
@pytest.mark.parametrize(("number", "seconds"), [(20, 150), (7, 350), (4, 700)])
def test_a_server_that_refuses_many_at_any_pace_costs_little_more_than_the_pauses(
    number: int, seconds: float, retry_after: Any
) -> None:
    """A quarter to a twentieth of all requests: each spacing was taken for too short."""
    result = simulated(every(number), retry_after, requests=500)
    assert result.seconds < seconds, result


@pytest.mark.parametrize("retry_after", [0.0, 1.0, NONE])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("share", "pauses"), [(0.05, 14), (0.1, 5), (0.2, 4), (0.3, 4)])
def test_a_server_that_refuses_at_random_costs_a_few_pauses_for_each_refusal(
    share: float, pauses: int, seed: int, retry_after: Any
) -> None:
    """Not ever longer spacings: these made it 20 pauses for each."""
    roll = random.Random(seed).random
    result = simulated(lambda now: 1.0 if roll() < share else None, retry_after, requests=500)
    assert result.seconds < 30 + pauses * result.refused, result


def test_a_refusal_at_the_start_does_not_slow_a_run_for_long() -> None:
    assert simulated(changing(lambda now: 1.0, 0.1, lambda now: None), NONE).seconds < 10


def test_a_server_without_limits_is_not_slowed() -> None:
    result = simulated(lambda now: None, NONE, requests=1000)
    assert (result.refused, result.seconds < 1000 * 0.13 / 10) == (0, True), result


def test_time_in_which_no_request_was_wanted_is_no_part_of_a_spacing() -> None:
    """Five requests every half minute, of which one is refused: it was 5 s."""
    pace = Pace()
    for burst_s in (100.0, 130.0, 160.0):
        pace.take(burst_s)
        pace.refused(burst_s, 1.0, burst_s)
        now = burst_s
        for _ in range(4):
            now += pace.wait_s(now)
            pace.take(now)
            pace.answered(now, now + 0.05)
    assert 0 < pace.interval_s < 1
