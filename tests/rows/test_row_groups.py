"""Many small objects are read and written together, and none of them pays for another."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Dict, List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Fault
from tests.support.orgs import AtRequest, events_in, is_insert, report, run_with
from tests.support.row_runs import (
    READ,
    WRITE,
    World,
    content,
    counted,
    forbidding,
    insert_together,
    refused,
    small_rows,
    states,
    told,
    world,
)

KINDS = ("experiment", "dataset")


def names(count: int) -> List[str]:
    return [f"object {number:03}" for number in range(count)]


def filled(w: World, kind: str, count: int, rows: int) -> List[str]:
    """Objects whose rows have the same ids and, each, other contents."""
    ids = w.make(kind, *names(count))
    for number, object_id in enumerate(ids):
        w.source.insert(kind, object_id, small_rows(rows, metadata={"of": number}))
    return ids


def inserts_of(w: World) -> int:
    return sum(
        request.org_name == WRITE and is_insert(request.path) for request in w.sandbox.requests
    )


# Requests
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_small_objects_are_read_and_written_25_at_a_time(kind: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = filled(w, kind, 57, 7)
        assert w.move(kind, MIGRATION_MAX_CONCURRENT="1") == 0
        # a count and a page of each group, and whether any row has facets
        assert w.asked(READ, "POST", "/btql") == 3 + 3 + 1
        assert 3 <= inserts_of(w) <= 3 + 1
        source, dest = w.contents(kind, ids)
        assert source == dest


@pytest.mark.parametrize(("count", "rows"), [(25, 20), (50, 20), (51, 10), (75, 4)])
@pytest.mark.variants(1)
def test_pages_of_a_round_size_cost_no_query_more(count: int, rows: int, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = filled(w, "experiment", count, rows)
        assert w.move("experiment", MIGRATION_MAX_CONCURRENT="1") == 0
        source, dest = w.contents("experiment", ids)
        assert source == dest
        assert w.asked(READ, "POST", "/btql") == 2 * -(-count // 25) + 1


@pytest.mark.long
def test_500_experiments_of_20_rows_take_at_most_42_queries(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = filled(w, "experiment", 500, 20)
        assert w.move("experiment") == 0
        source, dest = w.contents("experiment", ids)
        assert source == dest
        assert w.asked(READ, "POST", "/btql") <= 42


def test_rows_written_together_keep_to_the_bound_of_rows(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = filled(w, "dataset", 26, 9)
        assert w.move("dataset", "--insert-batch-size", "10", MIGRATION_MAX_CONCURRENT="1") == 0
        source, dest = w.contents("dataset", ids)
        assert (source == dest, len(w.sandbox.sent), len(set(w.sandbox.sent))) == (
            True,
            26 * 9,
            26 * 9,
        )
        assert 23 + 1 <= inserts_of(w) <= 23 + 2  # 225 rows of 25 objects, 9 rows of one


def test_objects_without_rows_and_objects_with_many_share_a_group(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = w.make("dataset", *names(9))
        for number, object_id in enumerate(ids):
            if number % 3:
                w.source.insert("dataset", object_id, small_rows(number * 30))
        assert w.move("dataset", "--fetch-limit", "50") == 0
        source, dest = w.contents("dataset", ids)
        assert source == dest
        assert {name: counts.get("created", 0) for name, counts in counted(w.root).items()} == {
            name: number * 30 if number % 3 else 0 for number, name in enumerate(names(9))
        }


# Ties
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [25, 26, 27, 28, 29, 30, 49, 50, 51, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_one_key_are_neither_lost_nor_repeated_at_the_border_of_a_page(
    kind: str, limit: int, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        ids = w.make(kind, *names(25))
        insert_together(
            w, kind, {object_id: small_rows(4, metadata={"of": object_id[:4]}) for object_id in ids}
        )  # 25 rows of each key
        insert_together(w, kind, {object_id: small_rows(3, 4) for object_id in ids[:11]})
        assert w.move(kind, "--fetch-limit", str(limit)) == 0
        source, dest = w.contents(kind, ids)
        assert source == dest
        expected = {
            name: {"fetched": n, "created": n} for n, name in zip([7] * 11 + [4] * 14, names(25))
        }
        assert (counted(w.root), max(Counter(w.sandbox.sent).values())) == (expected, 1)


@pytest.mark.parametrize("limit", [1, 2, 7, 24])
def test_a_page_smaller_than_a_group_loses_no_row_of_one_key(limit: int, tmp_path: Path) -> None:
    """MIGRATION_EVENTS_FETCH_LIMIT takes any number from 1 on."""
    with world(tmp_path) as w:
        ids = w.make("dataset", *names(25))
        insert_together(w, "dataset", {object_id: small_rows(3) for object_id in ids})
        code = w.move("dataset", "--fetch-limit", str(limit))
        source, dest = w.contents("dataset", ids)
        assert (code, sum(map(len, dest)), source == dest) == (0, 75, True)


def test_pages_that_shrink_because_queries_time_out_lose_no_row_of_one_key(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = w.make("dataset", *names(25))
        insert_together(w, "dataset", {object_id: small_rows(5) for object_id in ids})
        w.sandbox.faults.add(
            Fault("status", READ, path="/btql", times=None, status=504, above_limit=25)
        )
        code = w.move("dataset", "--fetch-limit", "110")
        source, dest = w.contents("dataset", ids)
        assert (code, source == dest, max(Counter(w.sandbox.sent).values())) == (0, True, 1)


@pytest.mark.parametrize("most", [600, 40, 7])
def test_a_lower_limit_than_that_of_the_hosted_service_is_kept_once_it_was_refused(
    most: int, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        ids = w.make("dataset", *names(3))
        insert_together(w, "dataset", {object_id: small_rows(50) for object_id in ids})
        body = '{"Code": "BadRequestError", "Message": "LIMIT must be at most %d"}' % most
        w.sandbox.faults.add(
            Fault("status", path="/btql", times=None, status=400, body=body, above_limit=most)
        )
        code = w.move("dataset")
        source, dest = w.contents("dataset", ids)
        assert (code, source == dest, max(Counter(w.sandbox.sent).values())) == (0, True, 1)


# An object at fault
# ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_cannot_be_read_does_not_take_its_group_with_it(
    kind: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        ids = filled(w, kind, 12, 5)
        w.sandbox.refuse = forbidding(ids[4], path="/btql")
        assert w.move(kind) == 1
        assert {name: state["done"] for name, state in states(w.root).items()} == {
            name: name != "object 004" for name in names(12)
        }
        source, dest = w.contents(kind, ids)
        assert dest == [rows if number != 4 else [] for number, rows in enumerate(source)]
        assert told(w.root) == {"stream_failed": 1}
        w.sandbox.refuse = None
        assert w.move(kind) == 0
        source, dest = w.contents(kind, ids)
        assert (source == dest, max(Counter(w.sandbox.sent).values())) == (True, 1)


def test_an_object_that_can_no_longer_be_read_after_some_pages_leaves_the_rest_of_its_group_whole(
    tmp_path: Path,
) -> None:
    """What was written before the trouble is not written again, neither at once nor by the next
    run.
    """
    with world(tmp_path) as w:
        ids = filled(w, "dataset", 5, 60)
        queries: List[int] = []

        def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
            queries.append(1) if path == "/btql" else None
            return (
                Answer(403, b'{"Code":"ForbiddenError"}')
                if len(queries) > 5 and path == "/btql" and ids[2].encode() in raw
                else None
            )

        w.sandbox.refuse = refuse
        assert w.move("dataset", "--fetch-limit", "40") == 1
        w.sandbox.refuse = None
        assert w.move("dataset", "--fetch-limit", "40") == 0
        source, dest = w.contents("dataset", ids)
        assert source == dest
        assert counted(w.root) == {name: {"fetched": 60, "created": 60} for name in names(5)}
        assert max(Counter(w.sandbox.sent).values()) == 1


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.variants(1)
def test_an_object_that_cannot_be_written_does_not_take_its_group_with_it(
    kind: str, status: int, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        ids = filled(w, kind, 12, 5)
        w.sandbox.refuse = lambda method, path, raw: (
            forbidding(w.twin(kind, ids[7]), status=status)(method, path, raw)
            if is_insert(path)
            else None
        )
        assert w.move(kind) == 1
        assert {name: state["done"] for name, state in states(w.root).items()} == {
            name: name != "object 007" for name in names(12)
        }
        source, dest = w.contents(kind, ids)
        assert dest == [rows if number != 7 else [] for number, rows in enumerate(source)]
        w.sandbox.refuse = None
        assert w.move(kind) == 0
        source, dest = w.contents(kind, ids)
        assert (source == dest, max(Counter(w.sandbox.sent).values())) == (True, 1)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_row_that_is_refused_takes_neither_its_object_nor_its_group_with_it(
    status: int, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        ids = filled(w, "dataset", 6, 8)
        w.source.insert("dataset", ids[3], [{"id": "bad", "input": "needle"}])
        w.sandbox.refuse = forbidding("needle", status=status, text="row is wrong")
        assert w.move("dataset") == 1
        assert [(row["id"], row["reason"][:3]) for row in refused(w.root)] == [("bad", str(status))]
        source, dest = w.contents("dataset", ids)
        source[3] = [row for row in source[3] if "needle" not in row]
        assert source == dest
        assert counted(w.root)["object 003"] == {"fetched": 9, "created": 8, "failed": 1}
        assert told(w.root) == {"row_refused": 1}


# Resuming
# --------------------------------------------------------------------------------------------


def refusing_from(w: World, kind: str, when: Dict[str, int]) -> None:
    """Refuse inserts into an object (source id) from its n-th request on."""
    met: Counter = Counter()

    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        if not is_insert(path):
            return None
        wanted = {object_id: w.twin(kind, object_id) for object_id in when}
        hit = [
            object_id for object_id, dest in wanted.items() if dest in path or dest.encode() in raw
        ]
        alone = len({object_id for object_id, _ in events_in(path, raw)}) == 1
        if not alone and any(met[object_id] >= when[object_id] for object_id in hit):
            return Answer(403, b'{"Code":"ForbiddenError"}')
        met.update(hit)
        return (
            Answer(403, b'{"Code":"ForbiddenError"}')
            if alone and any(met[object_id] > when[object_id] for object_id in hit)
            else None
        )

    w.sandbox.refuse = refuse


@pytest.mark.parametrize("seen", ["true", "false"])
def test_each_member_of_a_group_is_resumed_at_its_own_key(seen: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = w.make("dataset", *names(3))
        for start in range(0, 80, 5):
            insert_together(w, "dataset", {object_id: small_rows(5, start) for object_id in ids})
        refusing_from(w, "dataset", {ids[0]: 4, ids[1]: 0})
        settings = {
            "MIGRATION_EVENTS_FETCH_LIMIT": "30",
            "MIGRATION_EVENTS_USE_SEEN_DB": seen,
            "MIGRATION_CHECKPOINT_INTERVAL": "1",
        }
        assert w.move("dataset", "--preserve-order", **settings) == 1
        stand = {name: state["slices"][0]["after"] for name, state in states(w.root).items()}
        assert stand["object 001"] is None
        assert stand["object 000"] is not None
        before = len(w.sandbox.sent)
        w.sandbox.refuse = None
        assert w.move("dataset", "--preserve-order", **settings) == 0
        source, dest = w.contents("dataset", ids)
        assert source == dest
        assert counted(w.root) == {name: {"fetched": 80, "created": 80} for name in names(3)}
        assert before + len(w.sandbox.sent[before:]) == 3 * 80
        assert max(Counter(w.sandbox.sent).values()) == 1


@pytest.mark.parametrize("at", [2, 5, 9])
@pytest.mark.variants(1)
def test_a_group_that_was_killed_goes_on(at: int, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = w.make("experiment", *names(25))
        for start in range(0, 12, 3):
            insert_together(w, "experiment", {object_id: small_rows(3, start) for object_id in ids})
        settings = {
            "MIGRATION_EVENTS_FETCH_LIMIT": "30",
            "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "10",
            "MIGRATION_CHECKPOINT_INTERVAL": "1",
        }
        kill = AtRequest(at, "after", 9, lambda method, path: is_insert(path))
        ended = run_with(w, w.root, kill, program="migrate_experiments", **settings)
        assert ended.code == -9
        assert w.move("experiment", **settings) == 0
        source, dest = w.contents("experiment", ids)
        assert source == dest
        assert counted(w.root) == {name: {"fetched": 12, "created": 12} for name in names(25)}


def test_an_object_that_was_begun_in_slices_is_resumed_in_a_group_without_loss(
    tmp_path: Path,
) -> None:
    """--read-streams of the first run cut one of the two; the second run reads both together."""
    with world(tmp_path) as w:
        ids = w.make("dataset", "first", "second")
        for start in range(0, 200, 10):
            insert_together(w, "dataset", {object_id: small_rows(10, start) for object_id in ids})
        codes = []
        cannot_read_second = forbidding(ids[1], path="/btql")
        w.sandbox.refuse = lambda method, path, raw: (
            Answer(403, b'{"Code":"ForbiddenError"}')
            if is_insert(path) and b'"r00150"' in raw
            else cannot_read_second(method, path, raw)
        )
        one_by_one = {"MIGRATION_MAX_CONCURRENT": "1"}  # the objects stay in order
        codes.append(w.move("dataset", "--read-streams", "4", "--fetch-limit", "20", **one_by_one))
        assert len(states(w.root)["first"]["slices"]) > 1
        w.sandbox.refuse = None
        for _ in range(3):
            codes.append(w.move("dataset", **one_by_one))
            if codes[-1] == 0:
                break
        source, dest = w.contents("dataset", ids)
        assert [len(rows) for rows in dest] == [200, 200]
        assert (source == dest, codes[-1]) == (True, 0)


def test_two_objects_that_were_begun_in_slices_are_resumed_together_without_loss(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        ids = w.make("dataset", "first", "second")
        w.source.insert("dataset", ids[0], small_rows(100))
        w.source.insert("dataset", ids[1], small_rows(300))
        w.sandbox.refuse = lambda method, path, raw: (
            Answer(403, b'{"Code":"ForbiddenError"}')
            if is_insert(path) and b'"r00070"' in raw
            else None
        )
        assert w.move("dataset", "--read-streams", "4", "--fetch-limit", "10") == 1
        assert [len(states(w.root)[name]["slices"]) > 1 for name in ("first", "second")] == [
            True,
            True,
        ]
        w.sandbox.refuse = None
        code = w.move("dataset")
        source, dest = w.contents("dataset", ids)
        assert (code, [len(rows) for rows in dest], source == dest) == (0, [100, 300], True)


def test_a_second_run_finds_the_rows_of_a_group_and_writes_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        filled(w, "dataset", 8, 6)
        assert w.move("dataset") == 0
        w.sandbox.clear_requests()
        assert w.move("dataset", "--new-run") == 0
        assert w.sandbox.writes(WRITE) == []
        assert report(w.root)["totals"]["rows"] == {"found": 48, "fetched": 48, "bytes": 0}


def test_equal_row_ids_in_different_objects_are_different_rows(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = w.make("experiment", "left", "right")
        insert_together(
            w,
            "experiment",
            {
                ids[0]: [{"id": "same", "output": "left"}],
                ids[1]: [{"id": "same", "output": "right"}],
            },
        )
        assert w.move("experiment") == 0
        outputs = [
            w.dest.rows("experiment", w.twin("experiment", object_id))[0]["output"]
            for object_id in ids
        ]
        assert (
            outputs,
            [
                len(content(w.dest, "experiment", w.twin("experiment", object_id)))
                for object_id in ids
            ],
        ) == (["left", "right"], [1, 1])


# A server that reads only the first object of a FROM
# -------------------------------------------------


@pytest.mark.parametrize("filled", [range(6), range(1, 6), range(5, 6)])
def test_objects_that_seem_empty_are_read_alone(filled: range, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = w.make("dataset", *names(6))
        for number in filled:
            w.source.insert("dataset", ids[number], small_rows(7, metadata={"of": number}))
        w.sandbox.only_first_id = True
        assert w.move("dataset") == 0
        source, dest = w.contents("dataset", ids)
        assert (source == dest, [len(rows) for rows in dest]) == (
            True,
            [7 if number in filled else 0 for number in range(6)],
        )
