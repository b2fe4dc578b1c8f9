"""Rows encoded once and cut by count and by the bytes that are really sent."""

from __future__ import annotations

import json
import math
from typing import Any, List

import pytest

from bt_migrate.batches import EncodedRow, batched, encode, events_body, halves


def row(row_id: str, body: bytes = b"{}") -> EncodedRow:
    return EncodedRow(row_id, 0, body)


def ids_of(batches: Any) -> List[List[str]]:
    return [[one.id for one in batch] for batch in batches]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1, "b": [True, None]}, b'{"a":1,"b":[true,null]}'),
        ({"n": 123456789012345678901234567890}, b'{"n":123456789012345678901234567890}'),
        ({"n": -0.0, "m": 1.0, "k": 1}, b'{"n":-0.0,"m":1.0,"k":1}'),
        ({"n": math.nan}, b'{"n":NaN}'),
        ({"s": "Zoë 日本 🙂"}, '{"s":"Zoë 日本 🙂"}'.encode()),
        ({"s": "\x00\n\u2028"}, b'{"s":"\\u0000\\n\xe2\x80\xa8"}'),
        ({"s": "half a pair: \ud83d", "t": "é"}, b'{"s":"half a pair: \\ud83d","t":"\\u00e9"}'),
        ({"\ud83d": 1}, b'{"\\ud83d":1}'),
    ],
)
def test_values_are_encoded_compactly_and_come_back_the_same(value: Any, expected: bytes) -> None:
    assert (encode(value), repr(json.loads(encode(value)))) == (expected, repr(value))


@pytest.mark.parametrize(
    ("count", "max_rows", "expected"),
    [(0, 3, []), (1, 3, [1]), (3, 3, [3]), (4, 3, [3, 1]), (7, 3, [3, 3, 1]), (3, 1, [1, 1, 1])],
)
def test_batches_are_bounded_by_count(count: int, max_rows: int, expected: List[int]) -> None:
    rows = [row(str(number)) for number in range(count)]
    batches = list(batched(rows, max_rows, 10_000))
    assert ([len(batch) for batch in batches], [one for batch in batches for one in batch]) == (expected, rows)


@pytest.mark.parametrize("max_bytes", [14, 60, 61, 62, 63, 64, 100, 333, 5000])
def test_no_request_is_larger_than_the_bound_unless_it_is_one_row(max_bytes: int) -> None:
    rows = [row(str(number), encode({"s": "é" * (number % 17)})) for number in range(200)]
    batches = list(batched(rows, 1000, max_bytes))
    too_large = [ids_of([batch]) for batch in batches if len(events_body(batch)) > max_bytes and len(batch) > 1]
    assert (too_large, [one for batch in batches for one in batch]) == ([], rows)


def test_bytes_are_counted_as_utf8() -> None:
    rows = [row(str(number), encode("é" * 50)) for number in range(4)]  # 102 bytes each, 52 characters
    assert ids_of(batched(rows, 100, 13 + 2 * 103)) == [["0", "1"], ["2", "3"]]


def test_a_row_above_the_bound_is_a_batch_of_its_own_between_its_neighbours() -> None:
    rows = [row("a"), row("large", b"x" * 500), row("b"), row("c")]
    assert ids_of(batched(rows, 100, 100)) == [["a"], ["large"], ["b", "c"]]


def test_two_versions_of_one_row_are_never_in_one_request() -> None:
    rows = [row("a"), row("b"), row("a"), row("a"), row("c")]
    assert ids_of(batched(rows, 100, 1000)) == [["a", "b"], ["a"], ["a", "c"]]


def test_batches_are_made_as_rows_come() -> None:
    drawn: List[int] = []

    def rows() -> Any:
        for number in range(1000):
            drawn.append(number)
            yield row(str(number))

    next(iter(batched(rows(), 10, 10_000)))
    assert len(drawn) == 11


@pytest.mark.parametrize(("count", "expected"), [(2, (1, 1)), (3, (1, 2)), (10, (5, 5)), (11, (5, 6))])
def test_halves_of_a_batch_are_the_batch(count: int, expected: tuple) -> None:
    batch = tuple(row(str(number)) for number in range(count))
    first, second = halves(batch)
    assert ((len(first), len(second)), first + second) == (expected, batch)


def test_halving_ends_at_single_rows() -> None:
    def singles(batch: Any) -> List[str]:
        return [batch[0].id] if len(batch) == 1 else [one for half in halves(batch) for one in singles(half)]

    assert singles([row(str(number)) for number in range(13)]) == [str(number) for number in range(13)]


def test_the_body_of_an_insert_is_its_rows_in_order() -> None:
    assert events_body([row("a", b'{"id":"a"}'), row("b", b'{"id":"b"}')]) == b'{"events":[{"id":"a"},{"id":"b"}]}'


def test_the_body_of_no_rows_is_an_empty_list() -> None:
    assert events_body([]) == b'{"events":[]}'
