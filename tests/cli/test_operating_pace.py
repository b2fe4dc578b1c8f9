"""Limits of a running process changed from a second shell, and what status then says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Dict

import pytest

from tests.support.compare_orgs import differences
from tests.support.operating import (
    BATCH,
    control,
    held_at,
    next_beats,
    rows_there,
    status,
    told,
    until,
)
from tests.support.orgs import TIME_LIMIT_S, Pair, ended, run, tiny_pair

SIDES = {"source": "acme", "destination": "globex"}


def begun(pair: Pair) -> Dict[str, int]:
    """Side -> requests that are done or on their way."""
    in_flight = dict(pair.sandbox._log._in_flight)
    requests = [entry.org_name for entry in pair.sandbox.requests]
    return {side: requests.count(org) + in_flight.get(org, 0) for side, org in SIDES.items()}


@pytest.mark.long
def test_a_lower_request_rate_slows_both_sides_and_a_higher_one_frees_them(
    pair: Pair, tmp_path: Path
) -> None:
    root, a_second = tmp_path / "runs", 0.1
    with held_at(pair, root, 5) as (process, gate):
        control(pair, root, "set", f"requests-per-second={a_second}")
        until(
            lambda: (
                [side["requests_per_second"] for side in told(root)["sides"].values()]
                == [a_second] * 2
            )
        )
        before, since = begun(pair), time.monotonic()
        gate.opened.set()
        next_beats(root, 3)
        slow, most = begun(pair), 2 + a_second * (time.monotonic() - since)
        control(pair, root, "set", "requests-per-second=off")
        whole = ended(process)
    assert {side: slow[side] - before[side] <= most for side in SIDES} == {
        "source": True,
        "destination": True,
    }
    left = {side: count - slow[side] for side, count in begun(pair).items()}
    assert min(left.values()) * (1 / a_second) > TIME_LIMIT_S, (
        left
    )  # it would not have ended in time without getting faster
    assert (whole.code, differences(pair)) == (0, []), whole.last_words


@pytest.mark.long
def test_max_concurrent_can_be_lowered_and_raised_again(pair: Pair, tmp_path: Path) -> None:
    """All inserts wait at a gate, so that what is on its way is what may be."""
    root = tmp_path / "runs"

    def at_once() -> int:
        return int(pair.sandbox._log._in_flight.get("globex", 0))

    with held_at(pair, root, 20) as (
        process,
        gate,
    ):  # among the log rows: there is always one more batch to send
        until(lambda: at_once() > 1)
        control(pair, root, "set", "max-concurrent=1")
        until(lambda: told(root)["sides"]["destination"]["max_concurrent"] == 1)
        gate.opened.set()
        gate.opened.clear()  # requests in flight end, the next ones wait
        next_beats(root)
        fewer = at_once()
        control(pair, root, "set", "max-concurrent=3")
        until(lambda: at_once() == 3)
        gate.opened.set()
        whole = ended(process)
    assert (fewer, whole.code, differences(pair)) == (1, 0, []), whole.last_words


@pytest.mark.parametrize("insert", [13, pytest.param(22, marks=pytest.mark.long)])
def test_status_counts_rows_to_within_one_batch_of_each_open_stream(
    insert: int, pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    with held_at(pair, root, insert) as (process, gate):
        next_beats(root)
        shown, there = status(pair, root), rows_there(pair)
        gate.opened.set()
        ended(process)
    under_way = [entry for entry in shown["streams"] if 0 < entry["done"] < entry["total"]]
    assert shown["rows"]["done"] == sum(entry["done"] for entry in shown["streams"])
    assert abs(shown["rows"]["done"] - there) <= BATCH * max(1, len(under_way)), (
        shown["rows"],
        there,
    )


def an_hour_later(pair: Pair) -> None:
    pair.sandbox.clock.set(pair.sandbox.clock.seconds() + 3600)


def test_the_status_of_a_sync_is_that_of_its_round(tmp_path: Path) -> None:
    with tiny_pair(ago_s=86400) as pair:
        status_of_a_sync(pair, tmp_path / "runs", fresh=60)


def status_of_a_sync(pair: Pair, root: Path, fresh: int) -> None:
    an_hour_later(pair)  # what is older than the copy is not looked at again
    assert run(pair.sandbox, root).code == 0
    an_hour_later(pair)
    project, before = pair.source.objects("project")[0]["id"], rows_there(pair)
    for start in range(0, fresh, 10):
        pair.source.insert(
            "project_logs", project, [{"id": f"fresh {start + n}"} for n in range(10)]
        )
    with held_at(
        pair, root, 3, "--since-last", "--preserve-order", MIGRATION_MAX_CONCURRENT="1"
    ) as (process, gate):
        next_beats(root)
        shown, there = status(pair, root), rows_there(pair) - before
        gate.opened.set()
        whole = ended(process)
    assert (shown["state"], there) == ("running", 2 * BATCH)
    assert abs(shown["rows"]["done"] - there) <= BATCH, (
        there,
        [
            (entry["name"], entry["done"], entry["total"], entry["complete"])
            for entry in shown["streams"]
        ],
    )
    assert (whole.code, rows_there(pair) - before, differences(pair)) == (0, fresh, []), (
        whole.last_words
    )
