"""The HTTP client: what is sent, what is sent again and what is not, and how failures end."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from functools import partial
from typing import Any, List, Tuple
from urllib.parse import parse_qs, urlsplit

import pytest
import responses

from bt_migrate.api.organization import connect
from bt_migrate.api.request import RETRY_STATUSES
from bt_migrate.api.transport import CURSOR_HEADER
from bt_migrate.errors import (
    EXIT_STOPPED,
    AnswerError,
    ApiError,
    Interrupted,
    NetworkError,
    UsageError,
)
from tests.support.api_client import HTML, URL, client, outcome
from tests.support.loopback import Asked, Loopback, Reply, closed_port

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


def test_a_read_that_fails_at_random_is_retried_and_a_write_is_not() -> None:
    flaky = Reply(400, b"memory access out of bounds", {"Content-Type": "text/plain"})
    with Loopback([flaky, flaky, Reply(200, b'{"data":[]}')]) as server:
        assert client(server.url).query("select: *").json == []
    with Loopback([flaky, Reply()]) as server:
        assert outcome(lambda: client(server.url).post("/v1/dataset", {})).status == 400


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://h:99999", "http://a b", "http://" + "a" * 80 + ".test"]
)
def test_a_url_that_cannot_be_used_is_named_in_one_line(url: str) -> None:
    error = outcome(lambda: client(url, attempts=0).get("/v1/project"))
    assert isinstance(error, (UsageError, NetworkError)), error
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        ("socks5://user:word@127.0.0.1:9", "PySocks"),
        ("::nonsense::", "no URL"),
        ("ftp://127.0.0.1:9", "no URL"),
        ("http://", "names no host"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_and_not_shown(
    proxy: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    error = outcome(lambda: client(URL).get("/v1/project"))
    assert type(error) is UsageError
    assert ("ALL_PROXY" in str(error), problem in str(error), proxy in str(error)) == (
        True,
        True,
        False,
    )


@pytest.mark.parametrize("proxy", ["127.0.0.1:{}", "http://127.0.0.1:{}"])
def test_a_proxy_may_be_given_with_or_without_http(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Loopback([Reply(200, b"[]")]) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.format(server.port))
        assert client("http://braintrust.example").get("/v1/project") == []


def test_a_missing_file_of_certificates_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
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
        told += "; the key worked before, now it or a gateway fails: run the same command again"
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
    three = threading.Barrier(3)

    def answer(asked: Asked) -> Reply:
        three.wait(60)  # until three are in flight
        return Reply()

    with Loopback(answer) as server:
        api = client(server.url, max_concurrent=3)
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda number: api.get(f"/v1/{number}"), range(12)))
    assert (server.in_flight_max, len(server.asked)) == (3, 12)


# -- the server's clock


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
