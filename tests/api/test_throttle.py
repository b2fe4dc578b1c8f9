"""One throttle per organization: it learns the rate from 429 answers and slows no other one."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest

from bt_migrate.api.concurrency import ConcurrencyLimit
from bt_migrate.api.jitter import jittered
from bt_migrate.api.throttle import Refused, Throttle
from bt_migrate.sandbox.http.server import Fault
from tests.support.orgs import most_in_flight
from tests.support.row_runs import READ, WRITE, World, small_rows, world

LOGS = "project_logs"
RATE = {
    "Code": "TooManyRequestsError",
    "Message": "Source: checkBtqlOrgRateLimit. Rate limit: 5 requests per 1 seconds. Consumed: 6",
}


def no_jitter() -> float:
    return 0.0


def sent_by(throttle: Throttle, threads: int, seconds: float) -> List[float]:
    """When queries were let through, asked for by some threads that send as fast as they may."""
    moments: List[float] = []
    lock, end, never = threading.Lock(), time.monotonic() + seconds, threading.Event()

    def ask() -> None:
        while time.monotonic() < end:
            never.wait(min(throttle.wait_s(query=True), max(0.0, end - time.monotonic())))
            if throttle.take(query=True):
                with lock:
                    moments.append(time.monotonic())

    workers = [threading.Thread(target=ask) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sorted(moments)


@pytest.mark.parametrize("threads", [8])
def test_a_known_rate_is_used_fully_and_never_exceeded(threads: int) -> None:
    throttle = Throttle()
    throttle.refused(Refused(0.0, (5, 1), 1), 0.1)
    moments = sent_by(throttle, threads, 2.4)
    assert max(sum(start <= item < start + 1.0 for item in moments) for start in moments) <= 5
    assert len(moments) == 15


@pytest.mark.parametrize(
    ("known", "retry_after", "rate", "times", "base", "expected"),
    [
        (0, 7.0, None, 1, 1.0, 7.0),
        (0, 0.0, None, 1, 1.0, 0.1),
        (0, 0.0, None, 5, 1.0, 1.6),
        (0, 0.0, None, 50, 1.0, 5.0),
        (0, 500.0, (20, 60), 1, 1.0, 500.0),
        (0, None, (20, 60), 1, 1.0, 3.0),
        (20, None, None, 1, 1.0, 3.0),
        (20, None, None, 3, 1.0, 12.0),
        (0, None, (20, 60), 9, 1.0, 60.0),
        (0, None, None, 1, 1.0, 1.0),
        (0, None, None, 2, 1.0, 2.0),
        (0, None, None, 4, 0.5, 4.0),
        (0, None, None, 30, 1.0, 60.0),
        (0, None, None, 1, 0.0, 0.1),
    ],
)
def test_the_retry_after_of_a_429_is_waited_for_in_full(
    known: int,
    retry_after: Optional[float],
    rate: Optional[Tuple[int, int]],
    times: int,
    base: float,
    expected: float,
) -> None:
    throttle = Throttle(known, rand=no_jitter)
    assert throttle.refused(Refused(retry_after, rate, times), base) == expected
    if expected:
        waits = [throttle.wait_s(query=query) for query in (True, False)]
        assert all(expected - 0.5 < wait <= expected for wait in waits)


def test_a_shorter_429_does_not_open_what_a_longer_one_has_closed() -> None:
    throttle = Throttle(rand=no_jitter)
    throttle.refused(Refused(30.0, None, 1), 1.0)
    throttle.refused(Refused(1.0, None, 1), 1.0)
    assert 29 < throttle.wait_s(query=True) <= 30


def test_only_queries_count_towards_the_rate() -> None:
    throttle = Throttle(2)
    assert [throttle.take(query=False) for _ in range(50)] == [True] * 50
    assert [throttle.take(query=True) for _ in range(3)] == [True, True, False]
    assert 59 < throttle.wait_s(query=True) <= 60.1
    assert throttle.take(query=False)


def test_a_given_rate_paces_from_the_first_query_on() -> None:
    throttle = Throttle(3)
    assert [throttle.take(query=True) for _ in range(4)] == [True, True, True, False]
    assert 59 < throttle.wait_s(query=True) <= 60.1


@pytest.mark.parametrize(
    ("given", "rate", "queries", "window"),
    [
        (20, (5, 60), 5, 60),
        (4, (20, 60), 4, 60),
        (20, (40, 10), 20, 60),
        (0, (7, 60), 7, 60),
        (0, (7, 10), 7, 10),
    ],
)
def test_the_slower_of_a_given_and_a_learnt_rate_is_used(
    given: int, rate: Tuple[int, int], queries: int, window: float
) -> None:
    throttle = Throttle(given, rand=no_jitter)
    throttle.refused(Refused(0.0, rate, 1), 0.1)
    time.sleep(0.15)  # the least pause
    assert sum(throttle.take(query=True) for _ in range(100)) == queries
    assert throttle.wait_s(query=True) >= window - 0.5


def test_a_short_window_that_is_learnt_does_not_lift_a_rate_that_was_given() -> None:
    """5 in a second are 300 a minute: no reason to go beyond the 6 a minute that were asked for."""
    throttle = Throttle(6, rand=no_jitter)
    throttle.refused(Refused(0.0, (5, 1), 1), 0.1)
    assert len(sent_by(throttle, 1, 2.3)) == 6


def test_a_rate_that_is_named_for_other_requests_is_not_one_of_queries() -> None:
    throttle = Throttle(rand=no_jitter)
    throttle.refused(Refused(0.0, (5, 60), 1), 0.1, query=False)
    time.sleep(0.15)  # the least pause
    assert sum(throttle.take(query=False) for _ in range(100)) == 5
    assert (throttle.queries_per_minute, throttle.limit_text) == (None, "")
    assert sum(throttle.take(query=True) for _ in range(100)) == 100


@pytest.mark.parametrize(
    ("refusal", "least", "most"),
    [
        (Refused(), 1.0, 1.25),
        (Refused(times=3), 4.0, 5.0),
        (Refused(rate=(20, 60)), 3.0, 3.75),
        (Refused(2.0), 2.0, 2.5),
        (Refused(500.0), 500.0, 501.0),
    ],
)
def test_each_pause_has_jitter(refusal: Refused, least: float, most: float) -> None:
    def pause(share: float) -> float:
        return Throttle(rand=lambda: share).refused(refusal, 1.0)

    assert [pause(share) for share in (0.0, 0.5, 1.0)] == [least, (least + most) / 2, most]


@pytest.mark.parametrize(
    ("pause", "is_asked", "expected"),
    [
        (4.0, False, [4.0, 4.5, 5.0]),
        (60.0, False, [60.0, 67.5, 75.0]),
        (0.4, True, [0.4, 0.45, 0.5]),
        (60.0, True, [60.0, 60.5, 61.0]),
        (0.0, True, [0.0, 0.0, 0.0]),
    ],
)
def test_jitter_is_a_quarter_and_of_a_pause_that_was_asked_for_a_second_at_most(
    pause: float, is_asked: bool, expected: List[float]
) -> None:
    shares = (0.0, 0.5, 1.0)
    found = [jittered(pause, share, is_asked=is_asked) for share in shares]
    assert found == pytest.approx(expected)


def test_without_a_refusal_pauses_grow_no_more() -> None:
    """A probe that is refused makes the pause longer; an answer makes it as short as at first."""
    now = [0.0]
    throttle = Throttle(clock=lambda: now[0], rand=no_jitter)
    pauses = []
    for is_refused in (True, True, True, False, True):
        now[0] += throttle.wait_s(query=True)
        assert throttle.take(query=True)
        if is_refused:
            refusal = Refused(2.0, started_s=now[0])
            pauses.append(throttle.refused(refusal, 1.0))
        else:
            throttle.answered(query=True, started_s=now[0])
    assert pauses == [2.0, 8.0, 32.0, 2.0]


def test_after_a_refusal_one_request_is_a_probe_and_answers_let_more_start() -> None:
    now = [0.0]
    throttle = Throttle(clock=lambda: now[0], rand=no_jitter)
    for _ in range(500):
        throttle.answered(query=True, started_s=0.0)
    throttle.refused(Refused(1.0), 1.0)

    def started() -> int:
        count = 0
        while throttle.take(query=True):
            count += 1
            now[0] += 0.01
        return count

    now[0] = 1.0
    starts = [started()]
    for _ in range(4):
        for _ in range(starts[-1]):
            throttle.answered(query=True, started_s=now[0])
        starts.append(started())
    assert starts == [1, 1, 2, 3, 4]
    now[0] += 5.0
    assert throttle.take(query=True), "a probe that is not answered does not stop a run"


# Limits that a person sets ---------------------------------------------------------------------


def test_while_paused_no_request_starts_and_waiting_threads_check_again_soon() -> None:
    throttle = Throttle()
    throttle.steer(paused=True, requests_per_second=None)
    assert [throttle.take(query=query) for query in (True, False)] == [False, False]
    assert 0 < throttle.wait_s(query=False) < 1
    throttle.steer(paused=False, requests_per_second=None)
    assert throttle.take(query=True)


def test_a_pace_is_kept_by_requests_of_every_kind() -> None:
    throttle = Throttle()
    throttle.steer(paused=False, requests_per_second=20.0)
    assert len(sent_by(throttle, 4, 1.0)) <= 21


def test_threads_continue_at_once_when_a_slow_pace_is_lifted() -> None:
    throttle = Throttle()
    throttle.steer(paused=False, requests_per_second=0.001)
    assert [throttle.take(query=False) for _ in range(2)] == [True, False]
    assert throttle.wait_s(query=False) < 1  # until the next look; the next request is 1000 s away
    throttle.steer(paused=False, requests_per_second=50.0)
    assert throttle.take(query=False)


def test_a_429_is_waited_for_in_full_at_any_pace() -> None:
    throttle = Throttle()
    throttle.steer(paused=True, requests_per_second=1.0)
    throttle.refused(Refused(30.0, None, 1), 1.0)
    assert throttle.wait_s(query=False) > 29


def test_who_waits_for_a_place_gets_it_before_a_thread_that_comes_back() -> None:
    places, order = ConcurrencyLimit(1), []

    def ask_once() -> None:
        with places:
            order.append("one that waits")

    asking = threading.Thread(target=ask_once)
    with places:
        asking.start()
        end = time.monotonic() + 20
        while not places.waiting and time.monotonic() < end:
            time.sleep(0.001)
    with places:
        order.append("one that comes back")
    asking.join(20)
    assert (order, places.taken) == (["one that waits", "one that comes back"], 0)


def test_the_concurrency_limit_can_change_while_requests_are_in_flight() -> None:
    places, entered, leave = ConcurrencyLimit(3), threading.Semaphore(0), threading.Semaphore(0)

    def stay() -> None:
        with places:
            entered.release()
            leave.acquire()

    workers = [threading.Thread(target=stay) for _ in range(6)]
    for worker in workers:
        worker.start()
    assert [entered.acquire(timeout=20) for _ in range(3)] == [True] * 3
    places.limit = 1
    leave.release()
    leave.release()
    end = time.monotonic() + 20
    while places.taken > 1 and time.monotonic() < end:
        time.sleep(0.01)
    assert (places.taken, entered.acquire(blocking=False)) == (
        1,
        False,
    )  # two went, and nobody came
    places.limit = 6
    assert [entered.acquire(timeout=20) for _ in range(3)] == [True] * 3
    for _ in range(4):
        leave.release()
    for worker in workers:
        worker.join(20)
    assert places.taken == 0


# Real runs -------------------------------------------------------------------------------------


def fill(w: World, rows: int) -> None:
    for start in range(0, rows, 50):
        w.source.insert(LOGS, w.project, small_rows(50, start))


def queries(w: World) -> List[Any]:
    return [
        request
        for request in w.sandbox.requests
        if (request.org_name, request.path) == (READ, "/btql")
    ]


def refusals(w: World) -> int:
    return sum(request.status == 429 for request in w.sandbox.requests)


LONG = pytest.mark.long


@pytest.mark.parametrize(
    ("told", "streams"),
    [
        (True, "4"),
        (False, "1"),
        pytest.param(True, "1", marks=LONG),
        pytest.param(False, "4", marks=LONG),
    ],
)
@pytest.mark.variants(1)
def test_a_rate_limit_is_hit_once_and_kept_from_then_on(
    told: bool, streams: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        fill(w, 600)
        w.sandbox.btql_per_minute, w.sandbox.btql_window, w.sandbox.send_retry_after = 12, 1, told
        began = time.monotonic()
        assert w.move(LOGS, "--fetch-limit", "25", "--read-streams", streams) == 0
        took = time.monotonic() - began
        source, dest = w.contents(LOGS, [w.project])
        assert source == dest
        asked = len([item for item in queries(w) if item.status == 200])
        assert refusals(w) <= int(streams)  # those that were in flight together
        assert took < asked / 12 + 60


def test_a_rate_that_is_given_keeps_the_first_429_away(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 200)
        w.sandbox.btql_per_minute = 20
        assert w.move(LOGS, "--fetch-limit", "25", "--btql-per-minute", "20") == 0
        assert refusals(w) == 0


@pytest.mark.long
def test_a_rate_that_is_given_paces_a_run_of_more_queries_than_a_minute_allows(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        fill(w, 600)
        w.sandbox.btql_per_minute = 20
        began = time.monotonic()
        assert w.move(LOGS, "--fetch-limit", "25", "--btql-per-minute", "20") == 0
        assert (refusals(w), len(queries(w)) > 20, time.monotonic() - began > 55) == (0, True, True)


@pytest.mark.parametrize(
    "details",
    [
        {"headers": {"Retry-After": "1"}, "body": "slow down"},
        {"headers": {"Retry-After": "0.5"}, "body": RATE},
        {"body": RATE},
        {"body": "Too many requests"},
    ],
    ids=["header", "header and rate", "rate", "neither"],
)
@pytest.mark.variants(1)
def test_a_429_of_any_form_is_waited_for_and_costs_no_row(details: dict, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 400)
        fault = w.sandbox.faults.add(
            Fault("status", READ, path="/btql", times=1, after=3, status=429, **details)
        )
        assert w.move(LOGS, "--fetch-limit", "50") == 0
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, w.sandbox.faults.hits(fault), refusals(w)) == (True, 1, 1)


def started_in(w: World, org_name: str, begin: float, end: float) -> int:
    return sum(
        request.org_name == org_name and begin < request.started < end
        for request in w.sandbox.requests
    )


@pytest.mark.parametrize(
    ("slow", "path", "other"), [(READ, "/btql", WRITE), (WRITE, "insert$|^/logs3$", READ)]
)
@pytest.mark.variants(1)
def test_a_429_of_one_organization_keeps_only_that_one_waiting(
    slow: str, path: str, other: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        fill(w, 600)
        w.sandbox.latency = {"insert": 0.05, "btql": 0.02}
        w.sandbox.faults.add(
            Fault(
                "status",
                slow,
                path=path,
                times=1,
                after=4,
                status=429,
                headers={"Retry-After": "1"},
            )
        )
        settings = {
            "MIGRATION_EVENTS_FETCH_LIMIT": "40",
            "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "8",
            "MIGRATION_MAX_CONCURRENT": "2",
        }
        assert w.move(LOGS, **settings) == 0
        told = next(request.finished for request in w.sandbox.requests if request.status == 429)
        assert started_in(w, slow, told + 0.1, told + 0.95) == 0
        assert started_in(w, other, told + 0.1, told + 0.95) > 0


def busy(w: World) -> Dict[str, str]:
    """Fill the source with rows of every kind; return settings that make all threads work."""
    ids = w.make("experiment", *(f"e{number:02}" for number in range(26)))
    for number, object_id in enumerate(ids):
        file = w.source.attach(bytes([number]) * 100, filename="f", content_type="x/y")
        w.source.insert("experiment", object_id, small_rows(2, metadata={"file": file}))
        w.source.comment("experiment", object_id, "r00001", "text")
    files = [
        w.source.attach(b"x" * size, filename="f", content_type="x/y") for size in range(1, 17)
    ]
    for start in range(0, 160, 10):
        w.source.insert(LOGS, w.project, small_rows(10, start, output=files[start // 10]))
    w.source.insert(LOGS, w.project, [{"id": "huge", "input": "h" * 50_000}])
    w.sandbox.max_request_bytes = w.sandbox.logs3_payload_max_bytes = 20_000
    w.sandbox.latency = {
        "btql": 0.05,
        "insert": 0.05,
        "download": 0.02,
        "upload": 0.02,
        "attachment": 0.01,
    }
    return {
        "MIGRATION_INSERT_MAX_REQUEST_BYTES": "20000",
        "MIGRATION_EVENTS_FETCH_LIMIT": "25",
        "MIGRATION_READ_STREAMS": "4",
    }


@pytest.mark.parametrize("most", [pytest.param("1", marks=LONG), "4"])
def test_no_more_requests_are_in_flight_at_the_api_than_allowed_whatever_is_going_on(
    most: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        settings = busy(w)
        codes = [
            w.move(kind, MIGRATION_MAX_CONCURRENT=most, **settings) for kind in ("experiment", LOGS)
        ]
        api = [request for request in w.sandbox.requests if request.origin == "api"]
        peaks = [
            most_in_flight(item for item in api if item.org_name == org_name)
            for org_name in (READ, WRITE)
        ]
        assert (codes, [peak for peak in peaks if peak > int(most)], max(peaks)) == (
            [0, 0],
            [],
            int(most),
        )


@pytest.mark.parametrize("most", ["1", "4"])
@pytest.mark.variants(1)
def test_with_signed_urls_counted_no_more_requests_are_in_flight_than_allowed_either(
    most: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        settings = busy(w)
        assert w.move(LOGS, MIGRATION_MAX_CONCURRENT=most, **settings) == 0
        assert [
            w.sandbox.in_flight_max(name)
            for name in (READ, WRITE)
            if w.sandbox.in_flight_max(name) > int(most)
        ] == []
