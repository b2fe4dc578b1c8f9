"""The status of a process: the time left of a phase is measured in that phase."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Dict, List, Optional

import pytest

from bt_migrate.api.throttle import Throttle
from bt_migrate.cli.process_status import ProcessStatus
from bt_migrate.state.live_counts import LiveCounts


def side_with(throttle: Throttle) -> Any:
    """What a status reads of a side that is allowed 20 queries a minute."""
    transport = SimpleNamespace(
        in_flight=SimpleNamespace(taken=1, limit=10), limits=SimpleNamespace(max_concurrent=10),
        requests_sent=0, retries=0, next_try_s=0.0,
    )  # fmt: skip
    return SimpleNamespace(side="source", throttle=throttle, transport=transport)


def run_with(rows: int, estimate: Optional[Dict[str, Any]] = None) -> Any:
    validation = {"streams": {"logs": [{"id": "a", "rows": rows}]}, "estimate": estimate}
    record = SimpleNamespace(sessions=[], shard=None, validation=validation)
    return SimpleNamespace(record=record)


def test_the_time_left_is_that_of_this_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [0.0]
    monkeypatch.setattr("bt_migrate.cli.process_status.time.monotonic", lambda: seconds[0])
    throttle, live = Throttle(20), LiveCounts()
    left: List[Any] = []
    status = ProcessStatus(live, [side_with(throttle)], run_with(21_000))
    # 50 rows a query in the first phase, 1,000 in the second
    for phase, rows in (("migrate-datasets", 50), ("migrate-logs", 1000)):
        live.phase = phase
        for _ in range(4):
            left.append(status.measured()["work"]["seconds_left"])
            seconds[0] += 1
            throttle.queries += 1
            live.add({"a": rows})
    # 50 of 21,000 rows say nothing
    assert (left[1], left[-1] < 60) == (None, True), left
    assert left[4] is None, "the second phase has just begun"


@pytest.mark.parametrize(("limit", "expected"), [(None, 300), (20, 600)])
def test_before_a_rate_is_known_the_time_left_is_the_estimate(
    limit: Optional[int], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [0.0]
    monkeypatch.setattr("bt_migrate.cli.process_status.time.monotonic", lambda: seconds[0])
    throttle, live = Throttle(limit), LiveCounts()
    live.phase = "migrate-logs"
    run = run_with(200_000, {"rows": 200_000, "queries": 200, "seconds": 300.0})
    status = ProcessStatus(live, [side_with(throttle)], run)
    for _ in range(2):
        # The first rows are those of a small object: at their rate, all would take 3 hours.
        left = status.measured()["work"]["seconds_left"]
        live.add({"a": 20})
        seconds[0] += 1
    assert left == expected


def test_the_rate_of_an_earlier_phase_is_not_taken_for_that_of_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = [0.0]
    monkeypatch.setattr("bt_migrate.cli.process_status.time.monotonic", lambda: seconds[0])
    throttle, live = Throttle(), LiveCounts()
    run = run_with(100_000, {"rows": 100_000, "queries": 100, "seconds": 20.0})
    status = ProcessStatus(live, [side_with(throttle)], run)
    # 100 rows a second of small objects, then the logs begin
    live.phase = "migrate-experiments"
    for _ in range(20):
        status.measured()
        live.add({"a": 100})
        seconds[0] += 1
    live.phase = "migrate-logs"
    assert status.measured()["work"]["seconds_left"] == 20
