"""The comparison reads both sides at the same time and asks neither for more than it allows; it
writes nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, List

import pytest

from bt_migrate.sandbox.http.server import Fault
from tests.support.orgs import Pair, most_in_flight, run, tiny_pair

SIDES = ("acme", "globex")
SMALL = {"MIGRATION_EVENTS_FETCH_LIMIT": "25"}  # a dozen pages of the tiny organization's log rows
WINDOW_S, QUERIES = 1.0, 12


@dataclass(frozen=True)
class Moved:
    pair: Pair
    root: Path


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moved]:
    root = tmp_path_factory.mktemp("moved") / "runs"
    with tiny_pair() as pair:
        assert run(pair.sandbox, root, "--no-verify").code == 0
        yield Moved(pair, root)


@pytest.fixture
def moved(once: Moved) -> Iterator[Moved]:
    """The tiny organization and its copy, which no comparison changes."""
    yield once
    sandbox = once.pair.sandbox
    sandbox.latency, sandbox.btql_per_minute, sandbox.btql_window, sandbox.send_retry_after = (
        {},
        None,
        60,
        True,
    )
    sandbox.faults.clear()


def verify(moved: Moved, *args: str, **settings: str) -> List[Any]:
    """The requests of a comparison that found both sides equal and wrote nothing."""
    moved.pair.sandbox.clear_requests()
    ended = run(moved.pair.sandbox, moved.root, *args, program="verify", **{**SMALL, **settings})
    assert ended.code == 0, ended.out + ended.last_words
    requests = moved.pair.sandbox.requests
    assert [
        request.path for request in requests if request.method != "GET" and request.path != "/btql"
    ] == []
    return requests


def asked(requests: Iterable[Any], org_name: str, path: str = "") -> List[Any]:
    return [
        request
        for request in requests
        if request.org_name == org_name and request.path.startswith(path)
    ]


def test_the_pages_of_both_sides_are_on_their_way_at_the_same_time(moved: Moved) -> None:
    """One request at a time to each side: a comparison that took turns would have none in flight
    together.
    """
    moved.pair.sandbox.latency = {"btql": 0.1}
    requests = verify(moved, "--full", "--resources", "logs", MIGRATION_MAX_CONCURRENT="1")
    source, dest = (asked(requests, side, "/btql") for side in SIDES)
    together = [
        request
        for request in source
        if any(
            other.started < request.finished and request.started < other.finished for other in dest
        )
    ]
    assert min(len(source), len(dest)) >= 12
    # What is asked once, such as where facets are shown, is asked of one side after the other.
    assert len(together) > 0.6 * len(source)


@pytest.mark.parametrize(
    ("depth", "most"),
    [
        ("--full", "1"),
        ("--full", "3"),
        *(
            pytest.param(depth, most, marks=pytest.mark.long)
            for depth in ("--counts", "--sample=20")
            for most in "13"
        ),
    ],
)
@pytest.mark.variants(1)
def test_no_more_requests_are_in_flight_to_a_side_than_allowed(
    most: str, depth: str, moved: Moved
) -> None:
    moved.pair.sandbox.latency = {"btql": 0.03, "list": 0.03, "get": 0.03}
    requests = verify(moved, depth, MIGRATION_MAX_CONCURRENT=most)
    assert [most_in_flight(asked(requests, side)) for side in SIDES] == [int(most)] * 2


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.variants(1)
def test_a_limit_of_both_sides_is_met_once_by_each_and_then_respected(
    told: bool, moved: Moved
) -> None:
    sandbox = moved.pair.sandbox
    sandbox.btql_per_minute, sandbox.btql_window, sandbox.send_retry_after = (
        QUERIES,
        int(WINDOW_S),
        told,
    )
    time.sleep(WINDOW_S)  # what an earlier process asked for is forgotten
    requests = verify(moved, "--full", MIGRATION_MAX_CONCURRENT="2")
    for side in SIDES:
        refused = [request for request in asked(requests, side, "/btql") if request.status == 429]
        assert len(refused) <= 2  # those that were in flight together


def test_a_429_of_one_side_does_not_end_the_comparison_nor_change_it(moved: Moved) -> None:
    faults = [
        Fault(
            "status",
            side,
            path="/btql",
            times=2,
            after=3,
            status=429,
            headers={"Retry-After": "0.2"},
        )
        for side in SIDES
    ]
    numbers = [moved.pair.sandbox.faults.add(fault) for fault in faults]
    verify(moved, "--full")
    assert [moved.pair.sandbox.faults.hits(number) for number in numbers] == [2, 2]
