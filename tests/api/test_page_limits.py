"""A limit that a server refuses is replaced by a lower one, which is remembered for that server."""

from __future__ import annotations

import json
from typing import Any, Callable, List, Tuple
from urllib.parse import parse_qs, urlsplit

import pytest

from bt_migrate.api.btql import Bounds, page_query, versions_query
from bt_migrate.api.client import Api
from bt_migrate.api.page_limits import limit_of, with_limit
from bt_migrate.errors import ApiError
from tests.support.api_client import client, outcome
from tests.support.loopback import Asked, Loopback, Reply

ROWS = page_query("logs", ["p"], Bounds(), 1000)
Ask = Callable[[Api], Any]


def queried(api: Api) -> Any:
    return api.query(ROWS).json


def versions(api: Api) -> Any:
    return api.query_audit_log(versions_query("prompt", ["p"], "c")).json


def listed(api: Api) -> Any:
    return list(api.list("/v1/project", page_size=1000))


ALL: List[Ask] = [queried, versions, listed]


def asked_limit(asked: Asked) -> int:
    if asked.method == "POST":
        return limit_of(json.loads(asked.body)["query"])
    return int(parse_qs(urlsplit(asked.path).query)["limit"][0])


def refusing(most: int, status: int = 400, text: str = "no") -> Callable[[Asked], Reply]:
    def answer(asked: Asked) -> Reply:
        if asked_limit(asked) > most:
            return Reply(status, text.encode())
        return Reply(200, b'{"data": [], "objects": []}')

    return answer


@pytest.mark.parametrize(("status", "text"), [(400, "limit too large"), (400, "x"), (422, "[]")])
@pytest.mark.parametrize(
    ("most", "limits"),
    [
        (1000, [1000]),
        (999, [1000, 1, 500]),
        (100, [1000, 1, 500, 250, 100]),
        (7, [1000, 1, 500, 250, 100, 50, 25, 10, 5]),
    ],
)
@pytest.mark.parametrize("ask", ALL)
def test_a_lower_limit_is_asked_for_until_one_is_accepted_and_then_at_once(
    ask: Ask, most: int, limits: List[int], status: int, text: str
) -> None:
    with Loopback(refusing(most, status, text)) as server:
        api = client(server.url)
        assert [ask(api), ask(api)] == [[], []]
    assert [asked_limit(asked) for asked in server.asked] == [*limits, limits[-1]]


@pytest.mark.parametrize("ask", ALL)
def test_what_is_refused_at_any_limit_is_refused_for_its_own_reason(ask: Ask) -> None:
    with Loopback(lambda asked: Reply(400, f"no: {asked_limit(asked)}".encode())) as server:
        error = outcome(lambda: ask(client(server.url)))
    assert isinstance(error, ApiError)
    assert (error.status, error.body, len(server.asked)) == (400, "no: 1000", 2)


@pytest.mark.parametrize("ask", ALL)
def test_a_limit_that_was_accepted_is_no_reason_for_a_refusal(ask: Ask) -> None:
    accepted = Reply(200, b'{"data": [], "objects": []}')
    with Loopback([accepted, Reply(400, b"no")]) as server:
        api = client(server.url)
        ask(api)
        error = outcome(lambda: ask(api))
    assert (error.status, len(server.asked)) == (400, 2)


def test_limits_of_queries_and_of_lists_are_learnt_apart() -> None:
    with Loopback(refusing(100)) as server:
        api = client(server.url)
        queried(api)
        listed(api)
    sent = [(asked.method, asked_limit(asked)) for asked in server.asked]
    assert (sent[-6:-5], sent[-5], sent[-1]) == ([("POST", 100)], ("GET", 1000), ("GET", 100))


def test_a_list_without_next_pages_is_an_error_where_larger_pages_are_refused() -> None:
    """The pages that were read are not taken for the whole list."""
    page = json.dumps({"objects": [{"id": f"o{number}"} for number in range(100)]}).encode()

    def answer(asked: Asked) -> Reply:
        return Reply(400, b"limit") if asked_limit(asked) > 100 else Reply(200, page)

    with Loopback(answer) as server:
        error = outcome(lambda: list(client(server.url).list("/v1/project", page_size=100)))
    assert (type(error), len(server.asked)) == (ApiError, 3)


@pytest.mark.parametrize(
    ("query", "limit", "lower"),
    [
        ("select: *\nlimit: 1000", 1000, "select: *\nlimit: 7"),
        ("select: *\nfilter: id = 'a\nlimit: 5'", 0, "select: *\nfilter: id = 'a\nlimit: 5'"),
        ("measures: count(1) as rows", 0, "measures: count(1) as rows"),
    ],
)
def test_the_limit_of_a_query_is_its_last_line(query: str, limit: int, lower: str) -> None:
    found: Tuple[int, str] = (limit_of(query), with_limit(query, 7))
    assert found == (limit, lower)
