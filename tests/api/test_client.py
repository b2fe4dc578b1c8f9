"""The HTTP client: what is sent again and what is not, who waits, and where the key goes."""

from __future__ import annotations

import gzip
import json
import math
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime, formatdate
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import responses

from bt_migrate.api.client import Api
from bt_migrate.api.http import origin, retry_after_s, shown
from bt_migrate.api.lists import looks_capped
from bt_migrate.api.organization import connect
from bt_migrate.api.request import RETRY_STATUSES, Limits
from bt_migrate.api.throttle import Refused, Throttle
from bt_migrate.api.transport import CURSOR_HEADER
from bt_migrate.errors import (
    EXIT_STOPPED,
    AnswerError,
    ApiError,
    Interrupted,
    NetworkError,
    UsageError,
)
from tests.support.loopback import Asked, Loopback, Reply, closed_port

URL = "https://api.example.test"
KEY = "sk-key-of-a-test"
HTML = {"Content-Type": "text/html"}


def client(
    url: str = URL,
    *,
    side: str = "destination",
    writable: bool = True,
    attempts: int = 3,
    delay_s: float = 0.001,
    max_concurrent: int = 4,
    per_minute: int = 0,
    stop: Optional[threading.Event] = None,
) -> Api:
    limits = Limits(attempts, delay_s, max_concurrent, per_minute)
    return Api(side, url, KEY, limits, writable=writable, stop=stop)


def outcome(call: Any) -> Any:
    """What a call returns, or the error that it raises."""
    try:
        return call()
    except Exception as error:  # compared as a whole by the test
        return error


# -- what is tried again


@pytest.mark.parametrize(("attempts", "sent"), [(0, 1), (1, 2), (3, 4)])
@pytest.mark.parametrize("status", sorted(RETRY_STATUSES - {429}))
@responses.activate
def test_a_temporary_failure_is_retried_as_often_as_set(
    status: int, attempts: int, sent: int
) -> None:
    responses.get(f"{URL}/v1/project", status=status, body="busy")
    error = outcome(lambda: client(attempts=attempts).get("/v1/project"))
    assert (str(error), len(responses.calls)) == (
        f"destination: GET /v1/project was answered {status}: busy",
        sent,
    )


@pytest.mark.parametrize("status", [400, 404, 405, 409, 413, 422, 501])
@responses.activate
def test_a_refusal_is_not_retried(status: int) -> None:
    responses.post(f"{URL}/v1/dataset", status=status, json={"error": "no"})
    error = outcome(lambda: client().post("/v1/dataset", {"name": "x"}))
    assert (type(error), error.status, error.is_page, len(responses.calls)) == (
        ApiError,
        status,
        False,
        1,
    )


EXPRESS_PAGE = """<!DOCTYPE html>
<html lang="en"><head><title>Error</title><style>pre { color: red }</style></head>
<body><pre>Cannot GET /v1/{}</pre></body></html>"""


@pytest.mark.parametrize(("path", "lacks_route"), [("agent", True), ("project", False)])
@responses.activate
def test_the_page_of_a_route_that_does_not_exist_is_the_servers_own(
    path: str, lacks_route: bool
) -> None:
    page = EXPRESS_PAGE.replace("{}", "agent")
    responses.get(f"{URL}/v1/{path}", status=404, body=page, content_type="text/html")
    error = outcome(lambda: client().get(f"/v1/{path}", {"limit": 1}))
    assert (error.lacks_route, error.body) == (
        lacks_route,
        "an HTML page: Error Cannot GET /v1/agent",
    )


@pytest.mark.parametrize("method", ["post", "put", "patch"])
@responses.activate
def test_writes_are_sent_again_with_the_same_body(method: str) -> None:
    responses.add(method.upper(), f"{URL}/v1/x", status=503)
    responses.add(method.upper(), f"{URL}/v1/x", status=500)
    responses.add(method.upper(), f"{URL}/v1/x", json={"id": "x"})
    getattr(client(), method)("/v1/x", {"name": "Zoë"})
    assert [call.request.body for call in responses.calls] == ['{"name":"Zoë"}'.encode()] * 3


@responses.activate
def test_an_answer_after_retries_is_the_answer_and_retries_are_counted() -> None:
    for status in (500, 502):
        responses.get(f"{URL}/v1/project", status=status)
    responses.get(f"{URL}/v1/project", json={"objects": [1]})
    api = client()
    assert (api.get("/v1/project"), api.transport.requests_sent, api.transport.retries) == (
        {"objects": [1]},
        3,
        2,
    )


@responses.activate
def test_an_error_names_the_request_its_id_and_the_beginning_of_the_text() -> None:
    responses.get(
        f"{URL}/v1/project",
        status=400,
        body="a\n" + "b" * 600,
        headers={"x-bt-internal-trace-id": "t-1"},
    )
    error = outcome(lambda: client(side="source").get("/v1/project", {"limit": 1}))
    assert str(error) == f"source: GET /v1/project was answered 400 (request t-1): a {'b' * 498}"


@responses.activate
def test_a_query_may_leave_some_failures_to_its_caller() -> None:
    responses.post(f"{URL}/btql", status=504)
    error = outcome(lambda: client().query("select: *", retry_statuses=RETRY_STATUSES - {500, 504}))
    assert (error.status, len(responses.calls)) == (504, 1)


# -- rate limits


@responses.activate
def test_without_retries_a_rate_limit_is_a_failure_at_once() -> None:
    responses.get(f"{URL}/v1/project", status=429, headers={"Retry-After": "60"})
    error = outcome(lambda: client(attempts=0).get("/v1/project"))
    assert (error.status, error.retry_after, len(responses.calls)) == (429, 60.0, 1)


@responses.activate
def test_a_rate_limit_is_no_failure_however_often_it_comes() -> None:
    for _ in range(5):
        responses.get(f"{URL}/v1/project", status=429, headers={"Retry-After": "0"})
    responses.get(f"{URL}/v1/project", json=[])
    api = client(attempts=1)
    assert (api.get("/v1/project"), api.throttle.hits, len(responses.calls)) == ([], 5, 6)


@pytest.mark.parametrize(
    ("headers", "body", "least", "most"),
    [
        ({"Retry-After": "0.3"}, "", 0.3, 0.6),
        ({"Retry-After": "0.3"}, "1 request per 60 seconds", 0.3, 0.6),  # the header wins
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
    assert 88 < (seconds_of(format_datetime(moment, usegmt=True)) or 0) <= 90


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
        ("86400", "24 h"),
        ("1000", "17 min"),
        ("604800", "7 days"),
        (str(int(time.time()) + 86400), "24 h"),
        (str(int(time.time() + 86400) * 1000), "24 h"),
    ],
    # The processes of a parallel run must agree on the names.
    ids=["a day", "minutes", "a week", "an epoch", "an epoch in milliseconds"],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_for_a_day_is_not_waited_for(
    status: int, header: str, words: str
) -> None:
    with Loopback([Reply(), Reply(status, b"", {"Retry-After": header})]) as server:
        api = client(server.url)
        api.get("/v1/project")
        error = outcome(lambda: api.get("/v1/project"))
    assert (type(error), error.exit_code, len(server.asked)) == (NetworkError, 3, 2)
    assert f"asks to wait {words}, more than MIGRATION_MAX_RETRY_AFTER (15 min)" in str(error)


def test_a_retry_after_in_epoch_seconds_is_waited_for() -> None:
    header = {"Retry-After": str(int(time.time()) + 2)}
    with Loopback([Reply(429, b"", header), Reply()]) as server:
        started = time.monotonic()
        client(server.url).get("/v1/project")
    assert 0.5 < time.monotonic() - started < 30


def test_a_request_that_is_refused_too_often_stops_the_run() -> None:
    limits = Limits(1, 0.001, 4, rate_limit_tries=2)
    with Loopback([Reply(429, b"slow down")]) as server:
        api = Api("source", server.url, KEY, limits, writable=False)
        error = outcome(lambda: api.get("/v1/project"))
    assert (type(error), error.exit_code, len(server.asked)) == (NetworkError, 3, 3)
    assert "2 times in a row (MIGRATION_RATE_LIMIT_TRIES)" in str(error)


def test_a_read_that_fails_at_random_is_retried_and_a_write_is_not() -> None:
    flaky = Reply(400, b"memory access out of bounds", {"Content-Type": "text/plain"})
    with Loopback([flaky, flaky, Reply(200, b'{"data":[]}')]) as server:
        assert client(server.url).query("select: *").json == []
    with Loopback([flaky, Reply()]) as server:
        assert outcome(lambda: client(server.url).post("/v1/dataset", {})).status == 400


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://h:99999", "http://a b", "http://" + "a" * 80 + ".test"]
)
def test_a_url_that_cannot_be_used_is_one_line(url: str) -> None:
    error = outcome(lambda: client(url, attempts=0).get("/v1/project"))
    assert isinstance(error, (UsageError, NetworkError)), error


def test_a_missing_file_of_certificates_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent/ca.pem")
    error = outcome(lambda: client("https://127.0.0.1:9", attempts=0).get("/v1/project"))
    assert (type(error), "REQUESTS_CA_BUNDLE" in str(error)) == (UsageError, True)


# -- keys that are doubted


def statuses(first: List[Tuple[int, str]], rest: Tuple[int, str]) -> List[Reply]:
    """Replies with a JSON body, or a page or plain text where the text says so."""
    types = {"<": HTML, "{": {}}
    return [
        Reply(status, body.encode(), types.get(body[:1], {"Content-Type": "text/plain"}))
        for status, body in [*first, rest]
    ]


@pytest.mark.parametrize(
    ("proven", "status", "body", "sent"),
    [
        (False, 401, "{}", 1),
        (False, 403, "{}", 1),
        (False, 403, "<html>no", 1),
        (True, 401, "{}", 4),
        (True, 401, "<html>no", 4),
        (True, 403, "<html>no", 4),
        (True, 403, '{"error":"not yours"}', 1),
        (True, 403, "missing read_acls permission", 4),
        (True, 403, "", 4),
    ],
)
def test_a_refused_key_is_doubted_only_after_it_was_good(
    proven: bool, status: int, body: str, sent: int
) -> None:
    with Loopback(statuses([(200, "{}")] if proven else [], (status, body))) as server:
        api = client(server.url)
        if proven:
            api.get("/v1/project")
        error = outcome(lambda: api.get("/v1/project"))
    shown = body.replace("<html>", "an HTML page: ") or "no text"
    told = f"destination: GET /v1/project was answered {status}: {shown}"
    stops = sent > 1 and (status == 401 or body[:1] == "<")
    if stops:  # not the object's trouble: the run stops, and can go on later
        told += "; the key or a gateway fails since a moment ago: run the same command again"
    assert (type(error), str(error), error.exit_code, len(server.asked) - proven) == (
        NetworkError if stops else ApiError,
        told,
        EXIT_STOPPED,
        sent,
    )


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, "invalid x-api-key"), (403, "<html>loaded</html>"), (403, "Forbidden"), (403, "")],
)
def test_a_good_key_that_is_refused_for_a_moment_is_retried(status: int, body: str) -> None:
    with Loopback(
        statuses([(200, "{}"), (status, body), (status, body)], (200, '{"ok":1}'))
    ) as server:
        api = client(server.url)
        api.get("/v1/project")
        assert api.get("/v1/project") == {"ok": 1}


# -- broken answers


WHOLE = b'{"data":[{"id":"a"},{"id":"b"}],"cursor":null}'


@pytest.mark.parametrize(
    "broken",
    [Reply(200, WHOLE, sent=20), Reply(200, WHOLE, sent=0), Reply(200, b"<html>", HTML), Reply(0)],
)
def test_a_broken_answer_is_requested_again(broken: Reply) -> None:
    with Loopback([broken, broken, Reply(200, WHOLE)]) as server:
        answer = client(server.url).query("select: *")
    assert (answer.json, len(server.asked)) == ([{"id": "a"}, {"id": "b"}], 3)


@pytest.mark.parametrize("attempts", [0, 2])
@pytest.mark.parametrize(
    "broken", [Reply(200, WHOLE, sent=20), Reply(200, b"<html>", HTML), Reply(0)]
)
def test_answers_that_stay_broken_are_an_error_and_never_half_a_result(
    broken: Reply, attempts: int
) -> None:
    with Loopback([broken]) as server:
        error = outcome(lambda: client(server.url, attempts=attempts).query("select: *"))
    assert (type(error), len(server.asked)) == (NetworkError, attempts + 1)


@responses.activate
def test_an_html_page_instead_of_json_is_reported_as_such() -> None:
    responses.get(f"{URL}/v1/project", body="<html>welcome</html>")
    error = outcome(lambda: client(side="source", attempts=1).get("/v1/project"))
    assert str(error) == "source: GET /v1/project was answered 200 with a body that is not JSON"


# -- outages


@pytest.mark.parametrize("attempts", [0, 1])
def test_a_closed_port_is_reported_with_what_to_check(attempts: int) -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    error = outcome(
        lambda: client(url, side="source", attempts=attempts).get("/v1/organization", {"limit": 1})
    )
    assert (type(error), str(error), error.exit_code) == (
        NetworkError,
        f"source: no answer from {url} for GET /v1/organization (ConnectionError); is the "
        "URL right, the host up, the proxy set?",
        3,
    )


def test_a_host_that_answered_before_is_waited_for() -> None:
    with Loopback([Reply()]) as server:
        api = client(server.url, attempts=1, delay_s=0.05)
        api.get("/v1/before")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(api.get, "/v1/during")
        time.sleep(0.5)
        with Loopback([Reply(200, b'{"back":true}')], port=server.port):
            assert answer.result(timeout=10) == {"back": True}


@pytest.mark.parametrize(
    ("organizations", "projects", "expected"),
    [
        ([{"id": "o", "name": {"a": 1}}], [], None),
        ([{"id": "o"}], [], None),
        (None, [{"id": "p", "org_id": {}}], AnswerError),
        (None, [{"id": "p"}], AnswerError),
        (None, {"error": "no"}, AnswerError),
        (None, [], UsageError),
        (None, [{"id": "p", "org_id": "o"}], None),
    ],
)
def test_the_organization_of_a_key_is_found_or_it_is_said_why_not(
    organizations: Any, projects: Any, expected: Any
) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.path.startswith("/v1/project"):
            return Reply(200, json.dumps(projects).encode())
        if organizations is None:
            return Reply(404, b'{"Code":"NotFound"}')
        return Reply(200, json.dumps(organizations).encode())

    with Loopback(answer) as server:
        api = client(server.url, attempts=0)
        error = outcome(lambda: connect(api, "", "BT_SOURCE"))
    assert (error if expected is None else type(error), api.org_id) == (
        expected,
        "" if expected else "o",
    )


def test_a_text_instead_of_a_refusal_is_doubted_once_for_each_route() -> None:
    refused = Reply(403, b"Forbidden", {"Content-Type": "text/plain"})

    def answer(asked: Asked) -> Reply:
        return Reply() if asked.path == "/v1/project" else refused

    with Loopback(answer) as server:
        api = client(server.url, attempts=3)
        api.get("/v1/project")
        for path, owner in (("/v1/acl", "a"), ("/v1/acl", "b"), ("/v1/view", "a")):
            error = outcome(partial(api.get, path, {"object_id": owner}))
            assert error.status == 403
    counts = Counter(asked.path.partition("?")[0] for asked in server.asked)
    assert counts == {"/v1/project": 1, "/v1/acl": 4 + 1, "/v1/view": 4}


def test_an_outage_without_a_retry_delay_pauses_between_requests_and_can_be_interrupted() -> None:
    stop = threading.Event()
    with Loopback([Reply(), Reply(0)]) as server:
        api = client(server.url, delay_s=0.0, stop=stop)
        api.get("/v1/before")
        timer = threading.Timer(0.5, stop.set)
        timer.start()
        error = outcome(lambda: api.get("/v1/during"))
        timer.cancel()
    assert (type(error), len(server.asked) < 50) == (Interrupted, True)


def test_a_wait_ends_when_the_stop_event_is_set() -> None:
    stop = threading.Event()
    with Loopback([Reply(429, b"", {"Retry-After": "60"})]) as server:
        api = client(server.url, stop=stop)
        threading.Timer(0.2, stop.set).start()
        started = time.monotonic()
        error = outcome(lambda: api.get("/v1/project"))
    assert (type(error), error.exit_code, time.monotonic() - started < 30) == (
        Interrupted,
        130,
        True,
    )


# -- redirects and the key


ROWS = b'{"data":[{"id":"a"}]}'


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
@pytest.mark.parametrize("cursor_header", [{}, {CURSOR_HEADER: "abc+/="}])
def test_a_large_answer_is_fetched_from_its_other_origin_without_the_key(
    headers: Dict[str, str], cursor_header: Dict[str, str]
) -> None:
    with Loopback(
        [Reply(200, gzip.compress(ROWS), {"Content-Type": "application/octet-stream", **headers})]
    ) as files:
        target = f"{files.url}/bucket/result.json.gz?X-Signature=s%2Bs"
        with Loopback([Reply(303, b"", {"Location": target, **cursor_header})]) as server:
            answer = client(server.url, writable=False).query("select: *")
    (fetched,) = files.asked
    assert (answer.json, answer.headers[CURSOR_HEADER]) == (
        [{"id": "a"}],
        cursor_header.get(CURSOR_HEADER, ""),
    )
    assert (fetched.method, fetched.path, fetched.body) == (
        "GET",
        "/bucket/result.json.gz?X-Signature=s%2Bs",
        b"",
    )
    assert (
        "Authorization" in fetched.headers,
        KEY in str(fetched.headers),
        server.asked[0].headers["Authorization"],
    ) == (
        False,
        False,
        f"Bearer {KEY}",
    )


def test_a_redirect_within_the_origin_keeps_the_key() -> None:
    def answer(asked: Asked) -> Reply:
        return (
            Reply(200, ROWS)
            if asked.method == "GET"
            else Reply(303, b"", {"Location": "/results/1"})
        )

    with Loopback(answer) as server:
        assert client(server.url).query("select: *").json == [{"id": "a"}]
    assert [(asked.path, asked.headers.get("Authorization")) for asked in server.asked] == [
        ("/btql", f"Bearer {KEY}"),
        ("/results/1", f"Bearer {KEY}"),
    ]


@pytest.mark.parametrize(
    "second",
    [
        Reply(403, b"<Error>expired</Error>", {"Content-Type": "application/xml"}),
        Reply(200, b"\x1f\x8bcut"),
    ],
)
def test_a_signed_object_that_fails_is_requested_again(second: Reply) -> None:
    with Loopback([second, Reply(200, gzip.compress(ROWS))]) as files:
        redirect = Reply(303, b"", {"Location": f"{files.url}/x"})
        with Loopback([Reply(200, ROWS), redirect]) as server:
            api = client(server.url)
            api.query("proves the key")
            assert api.query("select: *").json == [{"id": "a"}]
    assert (len(server.asked), len(files.asked)) == (3, 2)


def test_an_object_that_redirects_again_is_not_followed() -> None:
    files = Loopback([Reply(302, b"", {"Location": "http://127.0.0.1:9/"})])
    with files, Loopback([Reply(303, b"", {"Location": f"{files.url}/x"})]) as server:
        error = outcome(lambda: client(server.url).query("select: *"))
    assert (type(error), error.status, len(files.asked)) == (ApiError, 302, 1)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("post", "/v1/dataset/1/insert", status) for status in (301, 302, 303, 307, 308)),
        ("post", "/v1/dataset", 307),
        ("put", "/v1/prompt", 308),
        ("patch", "/v1/project/1", 302),
    ],
)
def test_a_write_that_is_redirected_is_an_error_and_never_becomes_a_read(
    method: str, path: str, status: int
) -> None:
    def answer(asked: Asked) -> Reply:
        return (
            Reply(200, b'{"row_ids":["1"],"id":"x"}')
            if asked.method == "GET"
            else Reply(status, b"", {"Location": "/elsewhere"})
        )

    with Loopback(answer) as server:
        error = outcome(
            lambda: getattr(client(server.url), method)(path, {"events": [{"id": "1"}]})
        )
    assert (
        type(error),
        getattr(error, "status", None),
        [asked.method for asked in server.asked],
    ) == (
        ApiError,
        status,
        [method.upper()],
    )


def test_a_password_in_netrc_does_not_replace_the_key(home: Path) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    (home / ".netrc").chmod(0o600)
    files = Loopback([Reply(200, gzip.compress(ROWS))])
    with files, Loopback([Reply(303, b"", {"Location": f"{files.url}/query"})]) as server:
        api = client(server.url)
        api.query("select: *")
        api.store.open_download(f"{files.url}/download?sig=1").close()
        api.store.upload(f"{files.url}/upload?sig=2", {"Content-Type": "image/png"}, b"bytes")
    sent = [
        (asked.method, asked.path, asked.headers.get("Authorization"))
        for asked in [*server.asked, *files.asked]
    ]
    assert sent == [
        ("POST", "/btql", f"Bearer {KEY}"),
        ("GET", "/query", None),
        ("GET", "/download?sig=1", None),
        ("PUT", "/upload?sig=2", None),
    ]


@pytest.mark.parametrize("status", [302, 400, 403, 404, 500])
def test_a_refused_signed_url_is_reported_without_its_signature(status: int) -> None:
    with Loopback(
        [Reply(status, b"<Error>sig=secret</Error>", {"Location": "http://127.0.0.1:9/"})]
    ) as files:
        api = client(f"http://127.0.0.1:{closed_port()}")
        errors = [
            outcome(lambda: api.store.open_download(f"{files.url}/k?sig=secret")),
            outcome(lambda: api.store.upload(f"{files.url}/k?sig=secret", {}, b"x")),
        ]
    assert [str(error) for error in errors] == [
        f"destination: GET http://127.0.0.1/k was answered {status}: signed URL refused",
        f"destination: PUT http://127.0.0.1/k was answered {status}: upload refused",
    ]


@responses.activate
def test_a_signed_url_that_the_api_refuses_is_not_requested_again() -> None:
    responses.get(f"{URL}/attachment", json={"downloadUrl": "https://files.example.test/k"})
    responses.get("https://files.example.test/k")
    stop = threading.Event()
    api = client(attempts=1, stop=stop)
    api.store.retrying(
        lambda: api.store.open_download(api.get("/attachment")["downloadUrl"]).close()
    )
    responses.replace(responses.GET, f"{URL}/attachment", status=401)
    timer = threading.Timer(10, stop.set)  # so that it ends where it would go on
    timer.start()
    error = outcome(lambda: api.store.retrying(lambda: api.get("/attachment")))
    timer.cancel()
    assert (type(error), len(responses.calls)) == (NetworkError, 4)


def test_a_signed_url_without_answer_is_reported_without_its_signature() -> None:
    error = outcome(
        lambda: client().store.open_download(f"http://127.0.0.1:{closed_port()}/k?sig=secret")
    )
    assert (isinstance(error, NetworkError), "secret" in str(error)) == (True, False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/p?sig=1#x", "https://h/p"),
        ("https://user:word@h/p", "https://h/p"),
        ("http://h:8000/p/q?x", "http://h/p/q"),
    ],
)
def test_a_url_is_shown_without_query_and_user(url: str, expected: str) -> None:
    assert shown(url) == expected


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("https://h/a", "https://h:443/b?c", True),
        ("http://h", "http://h:80", True),
        ("https://H/a", "https://h/a", True),
        ("https://h", "http://h", False),
        ("https://h", "https://h:8443", False),
        ("https://h", "https://h.evil.test", False),
        ("https://h", "https://h@evil.test", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(left: str, right: str, equal: bool) -> None:
    assert (origin(left) == origin(right)) is equal


# -- the source is read only


@pytest.mark.parametrize(
    "write",
    [
        lambda api, url: api.post("/v1/dataset", {"name": "x"}),
        lambda api, url: api.post("/v1/dataset/1/insert", b'{"events":[]}'),
        lambda api, url: api.post("/btql/async", {}),
        lambda api, url: api.post("/btql?x=1", {}),
        lambda api, url: api.put("/v1/prompt", {}),
        lambda api, url: api.put("/btql", {}),
        lambda api, url: api.patch("/v1/project/1", {}),
        lambda api, url: api.delete("/v1/project/1"),
        lambda api, url: api.store.upload(f"{url}/bucket", {}, b"x"),
    ],
)
def test_the_sources_client_refuses_every_write_before_anything_is_sent(write: Any) -> None:
    with Loopback([Reply()]) as server:
        api = client(server.url, side="source", writable=False)
        with pytest.raises(PermissionError, match="^the source cannot be written"):
            write(api, server.url)
    assert (server.asked, api.transport.requests_sent) == ([], 0)


# -- what is sent


@responses.activate
def test_a_query_is_native_text_and_includes_unindexed_rows() -> None:
    responses.post(f"{URL}/btql", json={"data": [{"id": "a"}], "cursor": "next"})
    answer = client().query("select: *\nlimit: 1")
    assert (json.loads(responses.calls[0].request.body or b""), answer.json, answer.headers) == (
        {"query": "select: *\nlimit: 1", "fmt": "json", "brainstore_realtime": True},
        [{"id": "a"}],
        {CURSOR_HEADER: "next"},
    )


def test_the_organization_is_named_in_lists_and_queries_once_it_is_known() -> None:
    with Loopback([Reply(200, b'{"objects":[]}'), Reply(200, b'{"data":[]}')]) as server:
        api = client(server.url)
        api.org_name = "Zoë & Söhne"
        list(api.list("/v1/project", page_size=10))
        api.query("select: *")
    listed, queried = server.asked
    header = queried.headers["x-bt-org-name"].encode("latin-1").decode("utf-8")
    assert (parse_qs(urlsplit(listed.path).query), header) == (
        {"limit": ["10"], "org_name": ["Zoë & Söhne"]},
        "Zoë & Söhne",
    )


def test_numbers_and_texts_are_decoded_exactly() -> None:
    text = (
        '{"data":[{"big":123456789012345678901234567890,"huge":'
        + "9" * 5000
        + ',"zero":-0.0,"one":1.0,"nan":NaN,'
        '"half":"\\ud83d","nul":"\\u0000","é":"日本 🙂"}],"cursor":null}'
    )
    with Loopback([Reply(200, text.encode()), Reply()]) as server:
        api = client(server.url)
        (row,) = api.query("select: *").json
        api.post("/v1/dataset/1/insert", {"data": [row], "cursor": None})
    (sent,) = json.loads(server.asked[1].body)["data"]
    assert (repr(sent), math.copysign(1, sent["zero"]), sent["big"]) == (
        repr(row),
        -1.0,
        123456789012345678901234567890,
    )


def test_half_of_a_surrogate_pair_is_accepted() -> None:
    with Loopback([Reply(200, b'{"data":[{"s":"\xed\xa0\xbd"}]}')]) as server:
        assert client(server.url).query("select: *").json == [{"s": "\ud83d"}]


def test_no_more_requests_are_in_flight_than_allowed() -> None:
    with Loopback([Reply(seconds=0.05)]) as server:
        api = client(server.url, max_concurrent=3)
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda number: api.get(f"/v1/{number}"), range(12)))
    assert (server.in_flight_max, len(server.asked)) == (3, 12)


# -- lists


def listing(
    total: int,
    *,
    cap: int = 10**9,
    ignores_paging: bool = False,
    ignores_limit: bool = False,
    bare: bool = False,
) -> Any:
    """A list endpoint of `total` objects, newest first."""
    objects = [{"id": f"o{number}"} for number in range(total)]

    def answer(asked: Asked) -> Reply:
        params = parse_qs(urlsplit(asked.path).query)
        after = params.get("starting_after", [""])[0]
        start = (
            0 if ignores_paging or not after else [item["id"] for item in objects].index(after) + 1
        )
        limit = total if ignores_limit else min(int(params["limit"][0]), cap)
        page = objects[start : start + limit]
        return Reply(200, json.dumps(page if bare else {"objects": page}).encode())

    return answer


def listed(answer: Any, page_size: int = 100) -> Tuple[List[str], int]:
    with Loopback(answer) as server:
        found = [item["id"] for item in client(server.url).list("/v1/project", page_size=page_size)]
    return found, len(server.asked)


@pytest.mark.parametrize("total", [0, 1, 99, 100, 101, 250, 300])
def test_a_list_is_read_to_its_end(total: int) -> None:
    found, _ = listed(listing(total))
    assert found == [f"o{number}" for number in range(total)]


@pytest.mark.parametrize(("total", "sent"), [(0, 1), (1, 2), (99, 2), (101, 3), (250, 4)])
def test_a_list_asks_for_no_more_pages_than_it_must(total: int, sent: int) -> None:
    assert listed(listing(total))[1] == sent


@pytest.mark.parametrize("page_size", [1, 2, 7, 1000])
def test_a_list_is_the_same_whatever_the_size_of_its_pages(page_size: int) -> None:
    assert listed(listing(23), page_size)[0] == [f"o{number}" for number in range(23)]


@pytest.mark.parametrize("cap", [1, 7, 10, 25, 64, 97, 99])
def test_a_server_that_caps_its_pages_is_read_to_its_end(cap: int) -> None:
    assert listed(listing(230, cap=cap))[0] == [f"o{number}" for number in range(230)]


@pytest.mark.parametrize("total", [3, 100, 150])
def test_a_list_of_a_server_that_ignores_paging_ends_with_each_object_once(total: int) -> None:
    assert listed(listing(total, ignores_paging=True, ignores_limit=True))[0] == [
        f"o{number}" for number in range(total)
    ]


def test_objects_that_are_hidden_after_the_limit_was_applied_do_not_end_a_list() -> None:
    """A key that may not see each object gets pages with gaps."""
    objects = [{"id": f"o{number}"} for number in range(320)]
    visible = {item["id"] for number, item in enumerate(objects) if number % 33 != 5}

    def answer(asked: Asked) -> Reply:
        params = parse_qs(urlsplit(asked.path).query)
        after = params.get("starting_after", [""])[0]
        start = int(after[1:]) + 1 if after else 0
        page = objects[start : start + int(params["limit"][0])]
        return Reply(200, json.dumps([item for item in page if item["id"] in visible]).encode())

    assert set(listed(answer)[0]) == visible


@pytest.mark.parametrize("total", [99, 100, 250, 1000, 1001, 3000])
def test_a_server_without_next_pages_is_asked_for_larger_pages(total: int) -> None:
    found, _ = listed(listing(total, ignores_paging=True))
    assert found == [f"o{number}" for number in range(total)]


def test_a_bare_array_is_a_list_too() -> None:
    assert listed(listing(130, bare=True))[0] == [f"o{number}" for number in range(130)]


@responses.activate
def test_an_object_on_two_pages_is_listed_once() -> None:
    responses.get(f"{URL}/v1/project", json={"objects": [{"id": "b"}, {"id": "a"}]})
    responses.get(f"{URL}/v1/project", json={"objects": [{"id": "a"}, {"id": "z"}]})
    responses.get(f"{URL}/v1/project", json={"objects": []})
    assert [item["id"] for item in client().list("/v1/project", page_size=2)] == ["b", "a", "z"]


@responses.activate
def test_a_list_yields_its_first_page_before_it_requests_the_second() -> None:
    responses.get(f"{URL}/v1/project", json={"objects": [{"id": "a"}]})
    next(iter(client().list("/v1/project", page_size=1)))
    assert len(responses.calls) == 1


def test_the_parameters_of_a_list_are_sent_with_every_page_and_not_changed() -> None:
    params = {"project_id": "p 1"}
    with Loopback(listing(3)) as server:
        list(client(server.url).list("/v1/dataset", params, page_size=2))
    sent = [parse_qs(urlsplit(asked.path).query) for asked in server.asked]
    assert (sent, params) == (
        [
            {"project_id": ["p 1"], "limit": ["2"]},
            {"project_id": ["p 1"], "limit": ["2"], "starting_after": ["o1"]},
            {"project_id": ["p 1"], "limit": ["2"], "starting_after": ["o2"]},
        ],
        {"project_id": "p 1"},
    )


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, False), (1, False), (7, False), (10, True), (25, True), (64, True), (100, True)],
)
def test_a_full_page_of_a_round_size_may_be_cut_off(count: int, expected: bool) -> None:
    assert looks_capped(count) is expected


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_a_mark_is_not_later_than_any_clock(hours: int) -> None:
    with Loopback(
        [Reply(headers={"Date": formatdate(time.time() + 3600 * hours, usegmt=True)})]
    ) as server:
        api = client(server.url)
        api.get("/v1/organization")
        theirs = (api.clock.earliest_s() - time.time()) / 3600
        mark = (api.clock.mark_s() - time.time()) / 3600
    assert (round(theirs), round(mark)) == (hours, min(hours, 0))
