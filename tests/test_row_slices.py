"""One large stream read in slices of its key range: each row once, and a resumed run keeps its slices."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
from orgs import AtRequest, run_with
from row_runs import READ, World, counted, small_rows, states, world

from bt_migrate.keys import key_number, key_slices, pagination_key
from bt_migrate.sandbox.origins import Answer

LOGS = "project_logs"


def fill(w: World, rows: int, at_once: int = 10) -> None:
    for start in range(0, rows, at_once):
        w.source.insert(LOGS, w.project, small_rows(min(at_once, rows - start), start))


def edges(w: World) -> List[Tuple[Any, Any]]:
    """Where the slices of the project's logs end, and whether each is done."""
    return [(one["end"], one["done"]) for one in states(w.root)["rows"]["slices"]]


# The arithmetic --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "count", "expected"),
    [
        (7, 7, 4, [(6, 7)]),
        (7, 8, 4, [(6, 7), (7, 8)]),
        (1, 8, 4, [(0, 2), (2, 4), (4, 6), (6, 8)]),
        (1, 9, 4, [(0, 2), (2, 4), (4, 6), (6, 9)]),
        (0, 3, 1, [(-1, 3)]),
        (1, 3, 32, [(0, 1), (1, 2), (2, 3)]),
        (10**19, 10**20 - 1, 3, [(10**19 - 1, 4 * 10**19 - 1), (4 * 10**19 - 1, 7 * 10**19 - 1), (7 * 10**19 - 1, 10**20 - 1)]),
    ],
)
def test_a_range_of_keys_is_cut_into_ranges_of_equal_width(first: int, last: int, count: int, expected: List[Tuple[int, int]]) -> None:
    slices = key_slices(pagination_key(first), pagination_key(last), count)
    assert slices == [(pagination_key(above), pagination_key(upto)) for above, upto in expected]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 32, 800])
@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 2), (5, 1000), (1 << 48, (1 << 48) + 17), (1_700_000_000 << 32, 1_800_000_000 << 32)])
def test_slices_have_no_gap_and_no_overlap_and_hold_both_edges(first: int, last: int, count: int) -> None:
    slices = [(key_number(above), key_number(upto)) for above, upto in key_slices(pagination_key(first), pagination_key(last), count)]
    assert (slices[0][0], slices[-1][1]) == (first - 1, last)
    assert all(above < upto for above, upto in slices)
    assert [upto for _, upto in slices[:-1]] == [above for above, _ in slices[1:]]
    assert len(slices) <= count


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
        before = edges(w)
        assert (len(before) >= 4, all(done for _, done in before)) == (True, False)
        assert w.move(LOGS, "--read-streams", again, **settings) == 0
        ends = [end for end, _ in edges(w)]
        assert ({end for end, _ in before} <= set(ends), all(done for _, done in edges(w))) == (True, True)
        assert again != "1" or len(ends) == len(before)
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, counted(w.root)) == (True, {"rows": {"fetched": 900, "created": 900}})


def test_a_stream_that_was_begun_by_one_reader_is_ended_by_four(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 300)
        settings = {"MIGRATION_EVENTS_FETCH_LIMIT": "30", "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "10", "MIGRATION_CHECKPOINT_INTERVAL": "1"}
        kill = AtRequest(8, "after", 9, lambda method, path: path.endswith("/insert"))
        # one batch after the other, so that the first pages are in the checkpoint whatever the load
        ended = run_with(w, w.root, kill, program="migrate_logs", MIGRATION_PRESERVE_ORDER="true", **settings)  # type: ignore[arg-type]
        assert (ended.code, edges(w)) == (-9, [(None, False)])
        assert w.move(LOGS, "--read-streams", "4", **settings) == 0
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, len(edges(w)) >= 4, counted(w.root)) == (True, True, {"rows": {"fetched": 300, "created": 300}})


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
