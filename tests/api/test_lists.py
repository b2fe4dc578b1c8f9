"""Lists are read to their end, with each object once, whatever the server does with pages."""

from __future__ import annotations

import json
from typing import Any, List, Tuple
from urllib.parse import parse_qs, urlsplit

import pytest
import responses

from tests.support.api_client import URL, client
from tests.support.loopback import Asked, Loopback, Reply


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
