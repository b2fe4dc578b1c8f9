"""Rate limits of a server and of the settings: who waits, for how long, and who does not."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Callable, Dict, Optional

import pytest
import requests
import responses

from bt_migrate.api.client import Api
from bt_migrate.api.http import retry_after_s
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.api.throttle import Refused, Throttle
from bt_migrate.errors import Interrupted, NetworkError, RateLimitError
from tests.support.api_client import KEY, URL, client, outcome
from tests.support.loopback import Asked, Loopback, Reply


@responses.activate
def test_without_retries_a_rate_limit_is_a_failure_at_once() -> None:
    responses.get(f"{URL}/v1/project", status=429, headers={"Retry-After": "60"})
    error = outcome(lambda: client(attempts=0).get("/v1/project"))
    assert (error.status, error.retry_after, len(responses.calls)) == (429, 60.0, 1)


@responses.activate
def test_a_rate_limit_is_no_failure_however_often_it_comes() -> None:
    for _ in range(4):
        responses.get(f"{URL}/v1/project", status=429, headers={"Retry-After": "0"})
    responses.get(f"{URL}/v1/project", json=[])
    api = client(attempts=1)
    began = time.monotonic()
    assert (api.get("/v1/project"), api.throttle.hits, len(responses.calls)) == ([], 4, 5)
    # The server asks for no pause: pauses grow up to 5 s only.
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("headers", "body", "least", "most"),
    [
        ({"Retry-After": "0.3"}, "", 0.3, 0.6),
        ({"Retry-After": "0.3"}, "2 requests per 60 seconds", 0.3, 0.6),  # the header wins
        ({}, '{"Message":"Rate limit: 10 requests per 3 seconds. Consumed: 11"}', 0.3, 0.6),
        ({}, "slow down", 0.1, 0.4),
        ({"Retry-After": "soon"}, "slow down", 0.1, 0.4),
        ({}, "0 requests per 60 seconds", 0.1, 0.4),
    ],
)
@responses.activate
def test_a_rate_limit_is_waited_for_as_long_as_it_says(
    headers: Dict[str, str], body: str, least: float, most: float
) -> None:
    responses.get(f"{URL}/v1/project", status=429, headers=headers, body=body)
    responses.get(f"{URL}/v1/project", json=[])
    started = time.monotonic()
    assert client().get("/v1/project") == []
    assert least <= time.monotonic() - started < most + 20


def seconds_of(header: Optional[str]) -> Optional[float]:
    response = requests.Response()
    if header is not None:
        response.headers["Retry-After"] = header
    return retry_after_s(response)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("-5", 0.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("inf", None),
        ("nan", None),
        ("1e300", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(
    header: Optional[str], expected: Optional[float]
) -> None:
    assert seconds_of(header) == expected


def test_retry_after_as_a_date_is_the_time_until_then() -> None:
    moment = datetime.now(timezone.utc) + timedelta(seconds=90)
    assert 60 < (seconds_of(format_datetime(moment, usegmt=True)) or 0) <= 90


def test_retry_after_as_a_date_is_of_the_server_s_clock_like_the_date_of_the_answer() -> None:
    """A wrong local clock leads neither to a wait of days nor to requests without a pause."""
    for date in ("Wed, 21 Oct 2015 07:28:00 GMT", "Mon, 21 Oct 2115 07:28:00 GMT"):
        response = requests.Response()
        response.headers.update({"Date": date, "Retry-After": date.replace("07:28:00", "07:29:30")})
        assert retry_after_s(response) == 90


@responses.activate
def test_retry_after_of_another_failure_is_waited_for_too() -> None:
    responses.get(f"{URL}/v1/project", status=503, headers={"Retry-After": "0.3"})
    responses.get(f"{URL}/v1/project", json=[])
    started = time.monotonic()
    client().get("/v1/project")
    assert time.monotonic() - started >= 0.3


def test_a_rate_limit_stops_every_thread_of_the_organization() -> None:
    pause = 0.6
    limited = Reply(429, b"", {"Retry-After": str(pause)}, seconds=0.1)
    with Loopback([limited, Reply()]) as server:
        api = client(server.url, max_concurrent=1)
        with ThreadPoolExecutor(
            6
        ) as pool:  # all of them are past the first look at the throttle when the 429 comes
            answers = list(pool.map(lambda number: api.get(f"/v1/{number}"), range(6)))
    early = [
        asked.path for asked in server.asked[1:] if asked.at < server.answered[0] + pause - 0.01
    ]
    assert (answers, early) == ([{}] * 6, [])


def test_a_thread_that_starts_later_waits_too() -> None:
    pause = 0.4
    with Loopback([Reply(429, b"", {"Retry-After": str(pause)}), Reply()]) as server:
        api = client(server.url)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(api.get, "/v1/first")
            while not api.throttle.hits:
                time.sleep(0.005)
            api.get("/v1/second")
            first.result()
    assert [asked.at >= server.answered[0] + pause - 0.01 for asked in server.asked[1:]] == [
        True,
        True,
    ]


def test_the_other_organization_does_not_wait() -> None:
    entry, other = client(), client()
    entry.throttle.refused(Refused(60.0), 0.001)
    assert (entry.throttle.wait_s(query=False) > 59, entry.throttle.wait_s(query=True) > 59) == (
        True,
        True,
    )
    assert [other.throttle.wait_s(query=query) for query in (False, True)] == [0.0, 0.0]


@pytest.mark.parametrize("limit", [1, 20, 1000, 1001, 5000])
def test_a_rate_of_any_size_is_kept_to(limit: int) -> None:
    throttle = Throttle(limit)
    assert sum(throttle.take(query=True) for _ in range(limit + 10)) == limit


def test_queries_are_paced_as_asked_and_other_requests_are_not() -> None:
    stop = threading.Event()
    with Loopback([Reply(200, b'{"data":[]}')]) as server:
        api = client(server.url, per_minute=2, stop=stop)
        for _ in range(2):
            api.query("select: *")
        api.get("/v1/project")
        timer = threading.Timer(0.2, stop.set)
        timer.start()
        error = outcome(lambda: api.query("select: *"))
        timer.join()
    assert (type(error), [asked.path for asked in server.asked]) == (
        Interrupted,
        ["/btql", "/btql", "/v1/project"],
    )
    assert "run the same command to continue" in str(error)


def test_a_retry_after_of_zero_does_not_cause_a_busy_loop() -> None:
    stop = threading.Event()
    with Loopback([Reply(429, b"", {"Retry-After": "0"})]) as server:
        api = client(server.url, stop=stop)
        timer = threading.Timer(3, stop.set)
        timer.start()
        error = outcome(lambda: api.get("/v1/project"))
        timer.join()
    assert (type(error), len(server.asked) < 8) == (Interrupted, True)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (lambda: 86400, "24 h"),
        (lambda: 1000, "17 min"),
        (lambda: 604800, "7 days"),
        (lambda: int(time.time()) + 86400, "24 h"),
        (lambda: int(time.time() + 86400) * 1000, "24 h"),
    ],
    ids=["a day", "minutes", "a week", "an epoch", "an epoch in milliseconds"],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_a_day_is_not_waited_for(
    status: int, header: Callable[[], int], words: str
) -> None:
    with Loopback([Reply(), Reply(status, b"", {"Retry-After": str(header())})]) as server:
        api = client(server.url)
        api.get("/v1/project")
        error = outcome(lambda: api.get("/v1/project"))
    assert (type(error), error.exit_code, len(server.asked)) == (NetworkError, 3, 2)
    assert f"asks to wait {words}, more than MIGRATION_MAX_RETRY_AFTER (15 min)" in str(error)


def test_a_retry_after_in_epoch_seconds_is_waited_for() -> None:
    def answer(asked: Asked) -> Reply:
        in_two_seconds = {"Retry-After": str(int(time.time()) + 2)}
        return Reply() if asked.number else Reply(429, b"", in_two_seconds)

    with Loopback(answer) as server:
        client(server.url).get("/v1/project")
    refused, answered = server.asked
    assert 0.5 < answered.at - refused.at < 30


def test_a_person_reads_after_some_refusals_in_a_row_how_many_stop_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = Limits(1, 0.001, 4, rate_limit_tries=6)
    with caplog.at_level("INFO"), Loopback([Reply(429, b"", {"Retry-After": "0.01"})]) as server:
        api = Api(Endpoint("source", server.url, KEY), limits, writable=False)
        assert type(outcome(lambda: api.get("/v1/project"))) is RateLimitError
    told = [message.partition(" (")[2] for message in caplog.messages]
    counted = [f"{count} times in a row; stops after 6)" for count in (5, 6)]
    assert told == ["", "", "", "", *counted]


def test_a_request_that_is_refused_too_often_stops_the_run() -> None:
    limits = Limits(1, 0.001, 4, rate_limit_tries=2)
    with Loopback([Reply(429, b"slow down")]) as server:
        api = Api(Endpoint("source", server.url, KEY), limits, writable=False)
        error = outcome(lambda: api.get("/v1/project"))
    assert (type(error), error.exit_code, len(server.asked)) == (RateLimitError, 3, 3)
    assert "2 times in a row (MIGRATION_RATE_LIMIT_TRIES)" in str(error)
