"""Rows encoded once and cut by count and by the bytes that are really sent."""

from __future__ import annotations

import json
from typing import Any, List

import pytest

from bt_migrate.api.json_codec import encode
from bt_migrate.rows.batches import (
    ENVELOPE_BYTES,
    ROW_EXTRA_BYTES,
    EncodedRow,
    batched,
    cross_body,
    events_body,
    halves,
    logs3_body,
)


def row(row_id: str, body: bytes = b"{}", object_id: str = "") -> EncodedRow:
    return EncodedRow(row_id, 0, body, object_id)


def ids_of(batches: Any) -> List[List[str]]:
    return [[row.id for row in batch] for batch in batches]


@pytest.mark.parametrize(
    ("count", "max_rows", "expected"),
    [(0, 3, []), (1, 3, [1]), (3, 3, [3]), (4, 3, [3, 1]), (7, 3, [3, 3, 1]), (3, 1, [1, 1, 1])],
)
def test_batches_are_bounded_by_count(count: int, max_rows: int, expected: List[int]) -> None:
    rows = [row(str(number)) for number in range(count)]
    batches = list(batched(rows, max_rows, 10_000))
    assert ([len(batch) for batch in batches], [row for batch in batches for row in batch]) == (
        expected,
        rows,
    )


IDS = {
    f"s{number}": f"aaaaaaaa-0000-4000-8000-{number:012d}" for number in range(7)
}  # source object -> destination object


@pytest.mark.parametrize("objects", [1, 2, 7])
@pytest.mark.parametrize("max_bytes", [14, 64, 128, 129, 200, 256, 333, 1000, 5000])
def test_no_request_is_larger_than_the_bound_unless_it_is_one_row(
    max_bytes: int, objects: int
) -> None:
    rows = [
        row(str(number), encode({"s": "é" * (number % 17)}), f"s{number % objects}")
        for number in range(200)
    ]
    batches = list(batched(rows, 1000, max_bytes))
    sizes = [
        max(len(events_body(batch)), len(cross_body("project_logs", IDS, batch)))
        for batch in batches
        if len(batch) > 1
    ]
    assert (
        [size for size in sizes if size > max_bytes],
        [row for batch in batches for row in batch],
    ) == ([], rows)


def test_bytes_are_counted_as_utf8() -> None:
    rows = [
        row(str(number), encode("é" * 50)) for number in range(4)
    ]  # 102 bytes each, 52 characters
    fit = ENVELOPE_BYTES + 2 * (102 + ROW_EXTRA_BYTES)
    assert [ids_of(batched(rows, 100, fit + more)) for more in (0, -1)] == [
        [["0", "1"], ["2", "3"]],
        [["0"], ["1"], ["2"], ["3"]],
    ]


def test_a_row_above_the_bound_is_a_batch_of_its_own_between_its_neighbours() -> None:
    rows = [row("a"), row("large", b"x" * 500), row("b"), row("c")]
    fit = ENVELOPE_BYTES + 2 * (2 + ROW_EXTRA_BYTES)
    assert ids_of(batched(rows, 100, fit)) == [["a"], ["large"], ["b", "c"]]


def test_two_versions_of_one_row_are_never_in_one_request() -> None:
    rows = [row("a"), row("b"), row("a"), row("a"), row("c")]
    assert ids_of(batched(rows, 100, 10_000)) == [["a", "b"], ["a"], ["a", "c"]]


def test_rows_with_the_same_id_in_two_objects_are_two_rows() -> None:
    rows = [row("a", object_id="s0"), row("a", object_id="s1"), row("a", object_id="s0")]
    assert ids_of(batched(rows, 100, 10_000)) == [["a", "a"], ["a"]]


def test_items_without_versions_may_occur_twice_in_one_request() -> None:
    rows = [row("a"), row("a"), row("a")]
    assert ids_of(batched(rows, 2, 10_000, distinct=False)) == [["a", "a"], ["a"]]


def test_batches_are_made_as_rows_come() -> None:
    drawn: List[int] = []

    def rows() -> Any:
        for number in range(1000):
            drawn.append(number)
            yield row(str(number))

    next(iter(batched(rows(), 10, 10_000)))
    assert len(drawn) == 11


@pytest.mark.parametrize(
    ("count", "expected"), [(2, (1, 1)), (3, (1, 2)), (10, (5, 5)), (11, (5, 6))]
)
def test_halves_of_a_batch_are_the_batch(count: int, expected: tuple) -> None:
    batch = tuple(row(str(number)) for number in range(count))
    first, second = halves(batch)
    assert ((len(first), len(second)), first + second) == (expected, batch)


def test_halving_ends_at_single_rows() -> None:
    def singles(batch: Any) -> List[str]:
        return (
            [batch[0].id]
            if len(batch) == 1
            else [row for half in halves(batch) for row in singles(half)]
        )

    assert singles([row(str(number)) for number in range(13)]) == [
        str(number) for number in range(13)
    ]


def test_the_body_of_an_insert_is_its_rows_in_order() -> None:
    assert (
        events_body([row("a", b'{"id":"a"}'), row("b", b'{"id":"b"}')])
        == b'{"events":[{"id":"a"},{"id":"b"}]}'
    )


def test_the_body_of_no_rows_is_an_empty_list() -> None:
    assert events_body([]) == b'{"events":[]}'


def test_rows_of_several_objects_stand_under_their_destination_objects() -> None:
    batch = [
        row("a", b'{"id":"a"}', "s0"),
        row("b", b'{"id":"b"}', "s1"),
        row("c", b'{"id":"c"}', "s0"),
    ]
    assert json.loads(cross_body("experiment", IDS, batch)) == {
        "experiment": {
            IDS["s0"]: {"events": [{"id": "a"}, {"id": "c"}]},
            IDS["s1"]: {"events": [{"id": "b"}]},
        }
    }


def test_the_body_of_the_sdks_endpoint_is_its_rows_and_a_version() -> None:
    assert [logs3_body(iter(rows)) for rows in ([], [b'{"id":"a"}', b'{"id":"b"}'])] == [
        b'{"rows":[],"api_version":2}',
        b'{"rows":[{"id":"a"},{"id":"b"}],"api_version":2}',
    ]
