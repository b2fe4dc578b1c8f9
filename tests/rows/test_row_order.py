"""--preserve-order: the destination's rows have the order of the source's, by `_pagination_key`,
row by row.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import List

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Fault
from tests.support.orgs import AtRequest, is_insert, run_with
from tests.support.row_runs import World, ids_in_order, insert_together, small_rows, world

SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": "40",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "9",
    "MIGRATION_CHECKPOINT_INTERVAL": "1",
}
KINDS = ("project_logs", "experiment", "dataset")


def fill(w: World, kind: str, rows: int) -> List[str]:
    """Rows whose ids have no order, in transactions of several sizes; objects of a group share
    them.
    """
    ids = (
        [w.project]
        if kind == "project_logs"
        else w.make(kind, *(f"object {number}" for number in range(5)))
    )
    rng, numbers = random.Random(7), list(range(rows))
    rng.shuffle(numbers)
    while numbers:
        some = [numbers.pop() for _ in range(min(len(numbers), rng.randrange(1, 14)))]
        insert_together(
            w,
            kind,
            {
                object_id: [{"id": f"r{n:04}", "input": "x" * rng.randrange(300)} for n in some]
                for object_id in ids
            },
        )
    return ids


def slow_now_and_then(w: World) -> None:
    for number in range(8):
        w.sandbox.faults.add(
            Fault("delay", path="insert$", times=1, after=number * 3, seconds=0.03)
        )


def orders(w: World, kind: str, ids: List[str]) -> List[bool]:
    """For each object whether its rows are in the same order on both sides."""
    return [
        ids_in_order(w.source, kind, object_id)
        == ids_in_order(w.dest, kind, w.twin(kind, object_id))
        for object_id in ids
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_keep_the_order_of_the_source(kind: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = fill(w, kind, 150)
        slow_now_and_then(w)
        assert w.move(kind, "--preserve-order", **SMALL) == 0
        assert orders(w, kind, ids) == [True] * len(ids)
        source, dest = w.contents(kind, ids)
        assert source == dest


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.variants(1)
def test_without_preserve_order_the_same_rows_arrive_in_any_order(
    kind: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        ids = fill(w, kind, 150)
        slow_now_and_then(w)
        assert w.move(kind, **SMALL) == 0
        source, dest = w.contents(kind, ids)
        assert source == dest


@pytest.mark.parametrize(
    "settings",
    [
        {"MIGRATION_READ_STREAMS": "4"},
        {"MIGRATION_MAX_CONCURRENT": "1"},
        {"MIGRATION_EVENTS_USE_SEEN_DB": "false"},
    ],
)
@pytest.mark.parametrize("kind", ["project_logs", "dataset"])
@pytest.mark.variants(1)
def test_order_is_kept_with_every_other_option(kind: str, settings: dict, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = fill(w, kind, 150)
        slow_now_and_then(w)
        code = w.move(kind, "--preserve-order", **SMALL, **settings)
        assert code == 2 or (code, orders(w, kind, ids)) == (
            0,
            [True] * len(ids),
        )  # or it is refused as a contradiction


@pytest.mark.parametrize("moment", ["before", "after"])
def test_order_is_kept_by_a_run_that_was_killed(moment: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = fill(w, "project_logs", 150)
        kill = AtRequest(6, moment, 9, lambda method, path: is_insert(path))
        ended = run_with(w, w.root, kill, "--preserve-order", program="migrate_logs", **SMALL)
        assert (ended.code, w.move("project_logs", "--preserve-order", **SMALL)) == (-9, 0)
        assert orders(w, "project_logs", ids) == [True]


def test_order_is_kept_by_batches_that_are_halved_and_rows_that_are_uploaded(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        rows = [
            {"id": f"{(n * 7) % 60:03}", "input": "x" * (30_000 if n % 13 == 0 else 900)}
            for n in range(60)
        ]
        w.source.insert("project_logs", w.project, rows)
        w.sandbox.max_request_bytes, w.sandbox.logs3_payload_max_bytes = 5_000, 5_000
        assert (
            w.move("project_logs", "--preserve-order", MIGRATION_INSERT_MAX_REQUEST_BYTES="20000")
            == 0
        )
        assert orders(w, "project_logs", [w.project]) == [True]


def test_order_is_kept_through_inserts_that_fail_and_are_sent_again(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = fill(w, "experiment", 100)
        w.sandbox.faults.add(Fault("status", path="insert$", times=3, after=2, status=503))
        w.sandbox.faults.add(Fault("reset_before", path="insert$", times=2, after=4))
        assert w.move("experiment", "--preserve-order", **SMALL) == 0
        assert orders(w, "experiment", ids) == [True] * len(ids)


def test_many_small_transactions_of_one_object_stay_in_order_without_a_batch_for_each(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        for row in reversed(small_rows(91)):
            w.source.insert("project_logs", w.project, [row])
        assert w.move("project_logs", "--preserve-order") == 0
        assert orders(w, "project_logs", [w.project]) == [True]
        assert sum(is_insert(request.path) for request in w.sandbox.requests) == 1


@pytest.mark.parametrize("readers", ["1", "4"])
def test_a_server_that_ignores_the_sort_ends_the_stream_before_anything_is_lost(
    readers: str, tmp_path: Path
) -> None:
    """Read on from the last key of such a page, rows in between would be lost."""
    with world(tmp_path) as w:
        rows = [
            {**row, "_pagination_key": f"p{number:020}"}
            for number, row in zip((1, 3, 2), small_rows(3))
        ]
        body = json.dumps({"data": rows}).encode()
        w.sandbox.refuse = lambda method, path, raw: Answer(200, body) if path == "/btql" else None
        assert w.move("project_logs", "--read-streams", readers) == 1
        assert w.sandbox.sent == []
