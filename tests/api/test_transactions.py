"""Transaction ids and pagination keys as numbers.

The pair of numbers is an example of the official documentation.
"""

from __future__ import annotations

from typing import Any

import pytest

from bt_migrate.api.transactions import (
    XACT_PREFIX,
    key_number,
    key_seconds,
    pagination_key,
    version_like,
    xact_of,
    xact_of_version,
    xact_seconds,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1000192656880881099", 1000192656880881099),
        (1000192656880881099, 1000192656880881099),
        ("0", 0),
        (None, 0),
        ("", 0),
        ("81cd05ee665fdfb3", 0),
        ("-5", 0),
        ("1.5", 0),
        (True, 0),
        ({}, 0),
        ("9" * 19, 0),  # more than SQLite stores
        ("1" * 400, 0),
        (10**400, 0),
        ("²", 0),  # a digit to str.isdigit, none to int
    ],
)
def test_a_transaction_is_its_decimal_number_or_zero(value: Any, expected: int) -> None:
    assert xact_of(value) == expected


def test_a_transaction_contains_the_second_of_its_insertion() -> None:
    xact = 1000192656880881099
    assert (xact_seconds(xact), xact & 0xFFFF, xact >> 48) == (1709970518, 52683, XACT_PREFIX >> 48)


@pytest.mark.parametrize(
    ("key", "number"),
    [
        ("p00000000000000000000", 0),
        ("p00000000000000065537", 65537),
        ("p07344267455386812416", (1709970518 << 32) + 52683 * 65536),
        ("p18446744073709551615", 2**64 - 1),
    ],
)
def test_a_pagination_key_and_its_number_are_each_others_inverse(key: str, number: int) -> None:
    assert (key_number(key), pagination_key(number)) == (number, key)


@pytest.mark.parametrize(
    "text", ["", "p", "00000000000000000001", "p-1", "p12x", "q00000000000000000001", "p1.5", "p²"]
)
def test_other_text_is_no_pagination_key(text: str) -> None:
    with pytest.raises(ValueError):
        key_number(text)


def test_text_order_of_keys_is_number_order() -> None:
    numbers = [0, 1, 9, 10, 65535, 65536, 2**32, 1709970518 << 32, 2**63, 2**64 - 1]
    assert sorted(pagination_key(item) for item in reversed(numbers)) == [
        pagination_key(entry) for entry in numbers
    ]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (pagination_key(1709970518 << 32), 1709970518),
        (pagination_key((1709970518 << 32) + 0xFFFFFFFF), 1709970518),
        (pagination_key((1709970519 << 32) - 1), 1709970518),
        (pagination_key(0), 0),
        (pagination_key(2**64 - 1), 2**32 - 1),
        ("", 0),
        ("p", 0),
        ("p-1", 0),
        ("1709970518", 0),
        ("q07344267455386812416", 0),
        ("p²", 0),  # a digit to str.isdigit, none to int
    ],
)
def test_a_pagination_key_contains_its_second_and_other_text_does_not(
    key: str, expected: int
) -> None:
    assert key_seconds(key) == expected


PAIR = (1000192656880881099, "81cd05ee665fdfb3")


@pytest.mark.parametrize("version", [PAIR[0], str(PAIR[0]), PAIR[1]])
def test_a_version_is_a_transaction_in_either_form(version: object) -> None:
    assert xact_of_version(version) == PAIR[0]


@pytest.mark.parametrize("version", [None, "", "x" * 16, "latest", {}, []])
def test_other_text_is_not_a_version(version: object) -> None:
    assert xact_of_version(version) == 0


@pytest.mark.parametrize("version", [str(PAIR[0]), PAIR[1]])
def test_a_transaction_is_written_in_the_form_of_another_version(version: str) -> None:
    assert version_like(version, PAIR[0]) == version
