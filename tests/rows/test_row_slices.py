"""One large stream read in slices of its key range: each row once, and a resumed run keeps its
slices.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest

from bt_migrate.api.btql import Bounds
from bt_migrate.api.transactions import pagination_key
from bt_migrate.rows.slices import SliceReader, Slices
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.state.stream_state import KeyRange, StreamState
from tests.support.orgs import AtRequest, is_insert, run_with
from tests.support.row_runs import READ, World, counted, small_rows, states, world

LOGS = "project_logs"


def fill(w: World, rows: int, at_once: int = 10) -> None:
    for start in range(0, rows, at_once):
        w.source.insert(LOGS, w.project, small_rows(min(at_once, rows - start), start))


def slices_of(w: World) -> List[Dict[str, Any]]:
    """The slices of the project's logs, each with what is left of it and whether it is done."""
    slices: List[Dict[str, Any]] = states(w.root)["rows"]["slices"]
    return slices


def is_cut(w: World) -> bool:
    """Whether the checkpoint shows more than one slice."""
    return any(len(state["slices"]) > 1 for state in states(w.root).values())


def lie_inside(later: List[Dict[str, Any]], before: List[Dict[str, Any]]) -> bool:
    """Whether each slice of before is still there, and became smaller at most, but for what was cut
    off behind.
    """
    pairs = list(zip(later, before))
    return len(later) >= len(before) and all(
        (part["after"] or "") >= (was["after"] or "")
        and part["end"] <= (was["end"] or part["end"])
        and part["done"] >= was["done"]
        for part, was in pairs
    )


# Who reads where
# -------------------------------------------------------------------------------------

PAGE = 50
DAY = 86400 << 32
LYING: Dict[str, Callable[[random.Random], int]] = {  # how the keys of rows may lie
    "evenly": lambda rng: rng.randrange(30 * DAY),
    "more by day than by night": lambda rng: (
        rng.randrange(30) * DAY + int(DAY * (rng.random() + rng.random()) / 2)
    ),
    "in heaps": lambda rng: rng.choice((3, 4, 17, 18, 29)) * DAY + rng.randrange(600 << 32),
    "half of them in a burst": lambda rng: rng.choice(
        (rng.randrange(30 * DAY), 7 * DAY + rng.randrange(60 << 32))
    ),
    "behind a huge gap": lambda rng: rng.randrange(3600 << 32) + rng.choice((0, *[300 * DAY] * 9)),
    "ever closer": lambda rng: int(30 * DAY * rng.random() ** 0.2),
    "in one transaction": lambda rng: rng.randrange(1 << 13),
}


def keys_lying(how: str, count: int) -> List[str]:
    rng, found = random.Random(how), set()
    while len(found) < count:
        found.add(pagination_key((1 << 50) + LYING[how](rng)))
    return sorted(found)


def read_all(keys: List[str], readers: int, state: StreamState) -> Tuple[List[str], int, float]:
    """(the keys that were taken, queries, time in pages) where each page takes about as long as
    another.
    """
    slices, rng = Slices(state, lambda: None), random.Random(readers)
    taken: List[str] = []
    asked, idle, now = 0, readers, 0.0
    on_their_way: List[Tuple[float, int, SliceReader, Bounds]] = []
    while True:
        begun = [reader for reader in (slices.enter() for _ in range(idle)) if reader]
        idle -= len(begun)
        for reader in begun:
            asked += 1
            heapq.heappush(
                on_their_way, (now + 1 + rng.random() / 20, asked, reader, reader.unread(Bounds()))
            )
        if not on_their_way:
            return taken, asked, now
        now, _, reader, bounds = heapq.heappop(on_their_way)
        inside = keys[
            bisect_right(keys, bounds.after_key or "") : bisect_right(keys, bounds.end_key or "q")
        ]
        page = inside[-PAGE:] if bounds.newest_first else inside[:PAGE]
        first, behind, ended = reader.take(page, page == inside)
        taken += page[first:behind]
        if ended or not reader.goes_on():
            reader.stop()
            slices.leave(reader)
            idle += 1
        else:
            asked += 1
            heapq.heappush(
                on_their_way, (now + 1 + rng.random() / 20, asked, reader, reader.unread(bounds))
            )


@pytest.mark.parametrize("readers", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("how", LYING)
def test_readers_of_slices_read_each_row_once_and_share_the_work_for_every_distribution_of_keys(
    how: str, readers: int, tmp_path: Path
) -> None:
    keys, state = keys_lying(how, 40 * PAGE), StreamState.open(tmp_path / "state.json", {})
    taken, queries, time = read_all(keys, readers, state)
    assert (sorted(taken) == keys, all(part.done for part in state.slices)) == (True, True)
    assert queries <= 41 + readers
    assert time <= 1.05 * (40 / readers + 4)


@pytest.mark.parametrize("count", [0, 1, 2, 49, 50, 51, 99, 100, 101, 149, 150, 151, 299, 301])
@pytest.mark.parametrize("readers", [1, 2, 3, 4])
def test_few_rows_are_read_once_and_cost_few_queries(
    count: int, readers: int, tmp_path: Path
) -> None:
    keys = keys_lying("evenly", count)
    taken, queries, _ = read_all(keys, readers, StreamState.open(tmp_path / "state.json", {}))
    assert (sorted(taken), queries <= count // PAGE + 1 + readers) == (keys, True)


@pytest.mark.parametrize("seed", range(40))
def test_slices_of_an_earlier_run_are_read_where_they_are_not_done(
    seed: int, tmp_path: Path
) -> None:
    rng, keys = random.Random(seed), keys_lying("in heaps", 20 * PAGE)
    edges = sorted(rng.sample(keys, 6))
    state = StreamState.open(tmp_path / "state.json", {})
    state.slices = [
        KeyRange(above, upto, done=rng.random() < 0.3) for above, upto in zip(edges, edges[1:])
    ]
    wanted = [
        key
        for key in keys
        if any(part.after < key <= part.end and not part.done for part in state.slices)
    ]
    assert sorted(read_all(keys, rng.randrange(1, 6), state)[0]) == wanted


def test_a_slice_is_done_only_once_both_readers_have_written(tmp_path: Path) -> None:
    state = StreamState.open(tmp_path / "state.json", {})
    slices = Slices(state, lambda: None)
    front, back = slices.enter(), slices.enter()
    assert front and back
    keys = keys_lying("evenly", 10)
    front.take(keys[:5], False)
    assert back.take(keys[4:], True) == (1, 6, True)
    back.stop()
    slices.leave(back)
    assert (state.slices[0].done, slices.enter()) == (False, None)
    slices.leave(front)
    assert state.slices == [KeyRange(None, keys[-1], done=True)]


# Real runs
# -------------------------------------------------------------------------------------------


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


def test_rows_that_are_all_in_one_transaction_are_read_by_several_readers_too(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        fill(w, 400, at_once=400)
        assert w.move(LOGS, "--read-streams", "3") == 0
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, max(Counter(w.sandbox.sent).values())) == (True, 1)


def test_readers_read_at_the_same_time_and_never_more_of_them_than_asked_for(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        fill(w, 600)
        w.sandbox.latency = {"btql": 0.03}
        w.sandbox.clear_requests()
        assert w.move(LOGS, "--read-streams", "4", "--fetch-limit", "20") == 0
        assert w.sandbox.in_flight_max(READ) == 4


@pytest.mark.parametrize("again", ["1", "2", "4", "9"])
@pytest.mark.variants(1)
def test_a_resumed_run_keeps_its_slices_whatever_its_options(again: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 900)
        settings = {
            "MIGRATION_EVENTS_FETCH_LIMIT": "40",
            "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "15",
            "MIGRATION_CHECKPOINT_INTERVAL": "1",
        }
        kill = AtRequest(5, "after", 9, lambda method, path: is_insert(path) and is_cut(w))
        ended = run_with(w, w.root, kill, "--read-streams", "4", program="migrate_logs", **settings)
        assert ended.code == -9
        before = slices_of(w)
        assert (len(before) >= 2, all(part["done"] for part in before)) == (
            True,
            False,
        )  # each with a reader at both ends
        assert w.move(LOGS, "--read-streams", again, **settings) == 0
        later = slices_of(w)
        assert (lie_inside(later, before), all(part["done"] for part in later)) == (True, True)
        assert again != "1" or len(later) == len(before)
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, counted(w.root)) == (
            True,
            {"rows": {"fetched": 900, "created": 900}},
        )


def test_a_stream_that_was_begun_by_one_reader_is_ended_by_four(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 300)
        settings = {
            "MIGRATION_EVENTS_FETCH_LIMIT": "30",
            "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "10",
            "MIGRATION_CHECKPOINT_INTERVAL": "1",
        }
        kill = AtRequest(8, "after", 9, lambda method, path: is_insert(path))
        # one batch after the other, so that the first pages are in the checkpoint whatever the load
        ended = run_with(
            w, w.root, kill, program="migrate_logs", MIGRATION_PRESERVE_ORDER="true", **settings
        )
        assert (ended.code, [(part["end"], part["done"]) for part in slices_of(w)]) == (
            -9,
            [(None, False)],
        )
        assert w.move(LOGS, "--read-streams", "4", **settings) == 0
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, len(slices_of(w)) >= 2, counted(w.root)) == (
            True,
            True,
            {"rows": {"fetched": 300, "created": 300}},
        )


def test_a_slice_that_cannot_be_written_is_completed_by_the_next_run(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 600)
        w.sandbox.refuse = lambda method, path, raw: (
            Answer(403, b'{"Code":"ForbiddenError"}')
            if is_insert(path) and b'"r00300"' in raw
            else None
        )
        assert w.move(LOGS, "--read-streams", "4", "--fetch-limit", "25") == 1
        w.sandbox.refuse = None
        assert w.move(LOGS, "--read-streams", "4", "--fetch-limit", "25") == 0
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, counted(w.root)) == (
            True,
            {"rows": {"fetched": 600, "created": 600}},
        )
        assert len(w.sandbox.sent) <= 600 + 4 * 25  # at most a page of each reader comes twice


def test_counts_and_findings_of_all_slices_add_up(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        for start in range(0, 500, 10):
            rows = small_rows(10, start)
            rows[3]["input"] = {
                "elsewhere": {
                    "type": "external_attachment",
                    "url": "s3://b/k",
                    "filename": "f",
                    "content_type": "x",
                }
            }
            w.source.insert(LOGS, w.project, rows)
        assert w.move(LOGS, "--read-streams", "4", "--fetch-limit", "30") == 0
        notes: Dict[str, int] = {
            note["kind"]: note["count"] for note in states(w.root)["rows"]["findings"]
        }
        assert (notes, counted(w.root)) == (
            {"external_attachment": 50},
            {"rows": {"fetched": 500, "created": 500}},
        )


def test_slices_of_a_source_that_grows_end_at_the_mark_taken_at_the_start(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        fill(w, 500)
        grown: List[int] = []

        def grow(number: int, moment: str, method: str, path: str) -> None:
            if moment == "after" and is_insert(path) and len(grown) < 400:
                grown.append(number)
                w.source.insert(LOGS, w.project, small_rows(20, 10_000 + 20 * len(grown)))

        w.sandbox.on_request = grow
        assert w.move(LOGS, "--read-streams", "4", "--fetch-limit", "30") == 0
        w.sandbox.on_request = None
        source, dest = w.contents(LOGS, [w.project])
        there = len(dest[0])  # at the mark, which is requested together with the first page
        assert len(grown) > 10
        assert 500 <= there < 700
        assert (dest[0] == source[0][:there], counted(w.root)) == (
            True,
            {"rows": {"fetched": there, "created": there}},
        )
