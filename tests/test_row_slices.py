"""One large stream read in slices of its key range: each row once, and a resumed run keeps its slices."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from orgs import AtRequest, run_with
from row_runs import READ, World, counted, small_rows, states, world

from bt_migrate.sandbox.origins import Answer

LOGS = "project_logs"


def fill(w: World, rows: int, at_once: int = 10) -> None:
    for start in range(0, rows, at_once):
        w.source.insert(LOGS, w.project, small_rows(min(at_once, rows - start), start))


def slices_of(w: World) -> List[Dict[str, Any]]:
    """The slices of the project's logs, each with what is left of it and whether it is done."""
    slices: List[Dict[str, Any]] = states(w.root)["rows"]["slices"]
    return slices


def lie_inside(later: List[Dict[str, Any]], before: List[Dict[str, Any]]) -> bool:
    """Whether each slice of before is still there, and became smaller at most, but for what was cut off behind."""
    pairs = list(zip(later, before))
    return len(later) >= len(before) and all(
        (one["after"] or "") >= (was["after"] or "") and one["end"] <= (was["end"] or one["end"]) and one["done"] >= was["done"]
        for one, was in pairs
    )


# Real runs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 20, 700])
def test_four_readers_bring_each_row_once(rows: int, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, rows)
        assert w.move(LOGS, "--read-streams", "4", "--fetch-limit", "30") == 0
        source, dest = w.contents(LOGS, [w.project])
        assert source == dest
        assert (sorted(Counter(w.sandbox.sent).values()), counted(w.root)) == (
            [1] * rows,
            {"rows": {"fetched": rows, "created": rows} if rows else {}},
        )


def test_rows_that_are_all_in_one_transaction_are_read_by_several_readers_too(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 400, at_once=400)
        assert w.move(LOGS, "--read-streams", "3") == 0
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, max(Counter(w.sandbox.sent).values())) == (True, 1)


def test_readers_read_at_the_same_time_and_never_more_of_them_than_asked_for(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 600)
        w.sandbox.latency = {"btql": 0.03}
        w.sandbox.clear_requests()
        assert w.move(LOGS, "--read-streams", "4", "--fetch-limit", "20") == 0
        assert w.sandbox.in_flight_max(READ) == 4


@pytest.mark.parametrize("again", ["1", "2", "4", "9"])
def test_a_killed_run_keeps_its_slices_whatever_it_is_told_then(again: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 900)
        settings = {"MIGRATION_EVENTS_FETCH_LIMIT": "40", "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "15", "MIGRATION_CHECKPOINT_INTERVAL": "1"}
        kill = AtRequest(25, "after", 9, lambda method, path: path.endswith("/insert"))
        ended = run_with(w, w.root, kill, "--read-streams", "4", program="migrate_logs", **settings)  # type: ignore[arg-type]
        assert ended.code == -9
        before = slices_of(w)
        assert (len(before) >= 2, all(one["done"] for one in before)) == (True, False)  # each with a reader at both ends
        assert w.move(LOGS, "--read-streams", again, **settings) == 0
        later = slices_of(w)
        assert (lie_inside(later, before), all(one["done"] for one in later)) == (True, True)
        assert again != "1" or len(later) == len(before)
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, counted(w.root)) == (True, {"rows": {"fetched": 900, "created": 900}})


def test_a_stream_that_was_begun_by_one_reader_is_ended_by_four(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 300)
        settings = {"MIGRATION_EVENTS_FETCH_LIMIT": "30", "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "10", "MIGRATION_CHECKPOINT_INTERVAL": "1"}
        kill = AtRequest(8, "after", 9, lambda method, path: path.endswith("/insert"))
        # one batch after the other, so that the first pages are in the checkpoint whatever the load
        ended = run_with(w, w.root, kill, program="migrate_logs", MIGRATION_PRESERVE_ORDER="true", **settings)  # type: ignore[arg-type]
        assert (ended.code, [(one["end"], one["done"]) for one in slices_of(w)]) == (-9, [(None, False)])
        assert w.move(LOGS, "--read-streams", "4", **settings) == 0
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, len(slices_of(w)) >= 2, counted(w.root)) == (True, True, {"rows": {"fetched": 300, "created": 300}})


def test_a_slice_that_cannot_be_written_is_completed_by_the_next_run(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 600)
        w.sandbox.refuse = lambda method, path, raw: (
            Answer(403, b'{"Code":"ForbiddenError"}') if path.endswith("/insert") and b'"r00300"' in raw else None
        )
        assert w.move(LOGS, "--read-streams", "4", "--fetch-limit", "25") == 1
        w.sandbox.refuse = None
        assert w.move(LOGS, "--read-streams", "4", "--fetch-limit", "25") == 0
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, counted(w.root)) == (True, {"rows": {"fetched": 600, "created": 600}})
        assert len(w.sandbox.sent) <= 600 + 4 * 25  # at most a page of each reader comes twice


def test_counts_and_findings_of_all_slices_add_up(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        for start in range(0, 500, 10):
            rows = small_rows(10, start)
            rows[3]["input"] = {"elsewhere": {"type": "external_attachment", "url": "s3://b/k", "filename": "f", "content_type": "x"}}
            w.source.insert(LOGS, w.project, rows)
        assert w.move(LOGS, "--read-streams", "4", "--fetch-limit", "30") == 0
        notes: Dict[str, int] = {one["kind"]: one["count"] for one in states(w.root)["rows"]["findings"]}
        assert (notes, counted(w.root)) == ({"external_attachment": 50}, {"rows": {"fetched": 500, "created": 500}})


def test_slices_of_a_source_that_grows_end_at_the_mark_taken_at_the_start(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 500)
        grown: List[int] = []

        def grow(number: int, moment: str, method: str, path: str) -> None:
            if moment == "after" and path.endswith("/insert") and len(grown) < 400:
                grown.append(number)
                w.source.insert(LOGS, w.project, small_rows(20, 10_000 + 20 * len(grown)))

        w.sandbox.on_request = grow
        assert w.move(LOGS, "--read-streams", "4", "--fetch-limit", "30") == 0
        w.sandbox.on_request = None
        source, dest = w.contents(LOGS, [w.project])
        there = len(dest[0])  # at the mark, which is asked for beside the first page
        assert len(grown) > 10
        assert 500 <= there < 700
        assert (dest[0] == source[0][:there], counted(w.root)) == (True, {"rows": {"fetched": there, "created": there}})
