"""Network and server failures during all kinds of work: the run waits and completes."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from bt_migrate.sandbox.http.faults import Fault
from tests.support.full_rows import SETTINGS, counts_are_right, full_differences, full_pair
from tests.support.orgs import AtRequest, Ended, Pair, ended, report, run, started
from tests.support.relay import Relay

LONG = pytest.mark.long
READ, WRITE = "acme", "globex"
SIDES = ("source", "dest", "store")


def arrived(pair: Pair, root: Path, whole: Ended) -> List[str]:
    """What is wrong with a run that should have come through; [] if nothing is."""
    wrong = [] if whole.code == 0 else [f"ended with {whole.code}: {whole.last_words}"]
    wrong += full_differences(pair) + [str(leak) for leak in pair.sandbox.leaks()]
    return wrong or (
        [] if counts_are_right(pair, report(root)) else ["the report counts other rows"]
    )


# The network --------------------------------------------------------------------------------------


@contextlib.contextmanager
def networks(pair: Pair) -> Iterator[Dict[str, Relay]]:
    """A network of its own for each of `SIDES`; the store's is that of all signed URLs."""
    with Relay(pair.sandbox.url) as source, Relay(pair.sandbox.url) as dest, Relay(
        pair.sandbox.files_url
    ) as store:
        pair.sandbox.files.url = store.url
        yield dict(zip(SIDES, (source, dest, store)))


def run_through(
    pair: Pair,
    root: Path,
    sides: Tuple[str, ...],
    acts: Tuple[str, ...],
    seconds: float,
    **settings: str,
) -> Ended:
    """Run, and disturb the networks of these sides, one act after the other, for `seconds` each."""
    met = threading.Event()
    with networks(pair) as relays:
        urls = {"BT_SOURCE_URL": relays["source"].url, "BT_DEST_URL": relays["dest"].url}
        pair.sandbox.on_request = AtRequest(
            110, "before", met.set, lambda method, path: path != "/btql"
        )
        with started(pair.sandbox, root, **{**SETTINGS, **urls, **settings}) as process:
            assert met.wait(60)
            for act in acts:
                for side in sides:
                    getattr(relays[side], act)()
                time.sleep(seconds)
            assert process.poll() is None  # it waits
            for side in sides:
                relays[side].restore()
            return ended(process)


@pytest.mark.parametrize(
    ("sides", "seconds", "delay"),
    [
        pytest.param(SIDES, 1, "0.05", id="all"),
        pytest.param(("store",), 5, "0.05", id="store", marks=LONG),
        pytest.param(("source",), 5, "0.05", id="source", marks=LONG),
        pytest.param(("dest",), 5, "0.05", id="dest", marks=LONG),
        pytest.param(SIDES, 60, "1.0", id="all-for-a-minute", marks=LONG),
        pytest.param(("store",), 60, "1.0", id="store-for-a-minute", marks=LONG),
    ],
)
def test_a_network_that_is_gone_for_a_while_is_waited_for(
    sides: Tuple[str, ...], seconds: float, delay: str, tmp_path: Path
) -> None:
    """Connections are reset, some before and some after the commit, and new ones refused."""
    with full_pair() as pair:
        whole = run_through(
            pair, tmp_path / "runs", sides, ("cut",), seconds, MIGRATION_RETRY_DELAY=delay
        )
        assert arrived(pair, tmp_path / "runs", whole) == []


@pytest.mark.parametrize(
    ("acts", "seconds"),
    [
        pytest.param(("hold",), 1, id="and-answers"),
        pytest.param(("hold",), 30, id="for-30-s-and-answers", marks=LONG),
        pytest.param(("hold", "cut"), 2, id="and-never-answers", marks=LONG),
    ],
)
def test_a_destination_that_stops_is_waited_for(
    acts: Tuple[str, ...], seconds: float, tmp_path: Path
) -> None:
    """It takes connections and answers nothing, not even what it has carried out."""
    with full_pair() as pair:
        whole = run_through(pair, tmp_path / "runs", ("dest", "store"), acts, seconds)
        assert arrived(pair, tmp_path / "runs", whole) == []


# The server ---------------------------------------------------------------------------------------

QUERY = "^/btql$"
ROUTES = (
    ("POST", QUERY),
    ("POST", "^/logs3$"),
    ("POST", "^/logs3/overflow$"),
    ("GET", r"^/attachment\?"),
    ("POST", "^/attachment$"),
    ("POST", "^/attachment/status$"),
)
STORE = (("GET", "^/bucket/"), ("PUT", "^/bucket/"))


@pytest.mark.parametrize(
    ("kind", "routes", "details"),
    [
        pytest.param("reset_before", ROUTES + STORE, {}, id="reset-before", marks=LONG),
        pytest.param("reset_after", ROUTES + STORE, {}, id="reset-after"),
        pytest.param("truncate", ROUTES + STORE[:1], {}, id="cut-off", marks=LONG),
        pytest.param("garbage", ROUTES, {}, id="garbage", marks=LONG),
        pytest.param(
            "status", ROUTES + STORE, {"status": 503, "body": "SlowDown"}, id="503", marks=LONG
        ),
    ],
)
def test_faults_on_every_route_of_rows_do_not_change_the_result(
    kind: str, routes: Tuple[Tuple[str, str], ...], details: Dict[str, Any], tmp_path: Path
) -> None:
    with full_pair() as pair:
        faults = [
            pair.sandbox.faults.add(Fault(kind, None, method, path, 2, 1, **details))
            for method, path in routes
        ]
        whole = run(pair.sandbox, tmp_path / "runs", **SETTINGS)
        assert [pair.sandbox.faults.hits(fault) for fault in faults] == [2] * len(faults)
        assert arrived(pair, tmp_path / "runs", whole) == []


RATE = {
    "Code": "TooManyRequestsError",
    "Message": "Rate limit: 40 requests per 2 seconds. Consumed: 41",
    "Path": "/btql",
}


@pytest.mark.parametrize(
    ("org", "details"),
    [
        pytest.param(READ, {"headers": {"Retry-After": "0.05"}}, id="reads", marks=LONG),
        pytest.param(WRITE, {"headers": {"Retry-After": "0.05"}}, id="writes", marks=LONG),
        pytest.param(None, {"headers": {"Retry-After": "0.05"}}, id="both", marks=LONG),
        pytest.param(None, {"body": "slow down"}, id="both-without-a-time", marks=LONG),
        pytest.param(None, {"body": RATE}, id="both-with-a-rate", marks=LONG),
    ],
)
def test_a_storm_of_429s_costs_time_only(
    org: Optional[str], details: Dict[str, Any], tmp_path: Path
) -> None:
    path = "^/(btql|attachment|logs3|v1/.*insert)"
    with full_pair() as pair:
        storms = [
            pair.sandbox.faults.add(
                Fault("status", org, None, path, 5, after, status=429, **details)
            )
            for after in range(2, 26, 4)
        ]
        whole = run(pair.sandbox, tmp_path / "runs", **SETTINGS)
        assert [pair.sandbox.faults.hits(storm) for storm in storms] == [5] * 6
        assert arrived(pair, tmp_path / "runs", whole) == []


@LONG
@pytest.mark.parametrize("status", [500, 504])
def test_a_server_that_fails_on_every_limit_above_250_is_read_in_smaller_pages(
    status: int, tmp_path: Path
) -> None:
    with full_pair() as pair:
        fault = pair.sandbox.faults.add(
            Fault("status", path=QUERY, times=None, status=status, above_limit=250, body="timeout")
        )
        whole = run(
            pair.sandbox, tmp_path / "runs", **{**SETTINGS, "MIGRATION_EVENTS_FETCH_LIMIT": "1000"}
        )
        assert pair.sandbox.faults.hits(fault) > 0
        assert arrived(pair, tmp_path / "runs", whole) == []


@pytest.mark.parametrize(
    ("org", "path"),
    [
        (WRITE, "/v1/env_var"),
        (WRITE, "/v1/experiment"),
        pytest.param(WRITE, "/logs3|/insert$", marks=LONG),
        pytest.param(READ, "/v1/dataset", marks=LONG),
        pytest.param(READ, "/btql", marks=LONG),
    ],
)
@pytest.mark.variants(1)
def test_429s_for_ever_with_retry_after_0_end_the_run(org: str, path: str, tmp_path: Path) -> None:
    """Each thread waits for the others' refusals too, and other routes are answered meanwhile."""
    with full_pair() as pair:
        owner = {"object_type": "organization", "object_id": pair.source.id}
        pair.source.create("env_var", {"name": "A", **owner})
        headers = {"Retry-After": "0"}
        pair.sandbox.faults.add(Fault("status", org, None, path, None, status=429, headers=headers))
        began = time.monotonic()
        tries = {**SETTINGS, "MIGRATION_RATE_LIMIT_TRIES": "2"}
        end = run(pair.sandbox, tmp_path, **tries)
        assert (end.code, "2 times in a row" in end.err) == (3, True), end.last_words
        assert time.monotonic() - began < 100
        pair.sandbox.faults.clear()
        assert arrived(pair, tmp_path, run(pair.sandbox, tmp_path, **SETTINGS)) == []
