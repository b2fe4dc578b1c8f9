"""What counts as equal: nothing but what the server is known to change."""

from __future__ import annotations

import math
from typing import Any, List, Tuple

import pytest

from bt_migrate.canonical import canonical, differing_fields, digest, same

SAME: List[Tuple[Any, Any]] = [
    (None, None),
    ({}, {"a": None}),
    ({"a": 1, "b": None}, {"a": 1}),
    ({"a": {"b": None}}, {"a": {}}),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ([], []),
    (math.nan, float("nan")),
    ({"n": [math.nan]}, {"n": [float("nan")]}),
    (10**400, 10**400),
    ("2026-01-15T08:30:00+01:00", "2026-01-15T07:30:00Z"),
    ("2026-01-15T07:30:00.500Z", "2026-01-15T07:30:00.5Z"),
    ("2026-01-15 07:30:00Z", "2026-01-15T07:30:00Z"),
    ({"deep": [{"at": "2026-01-15T08:30:00+0100"}]}, {"deep": [{"at": "2026-01-15T07:30:00.000Z"}]}),
    ("2026-13-45T00:00:00Z", "2026-13-45T00:00:00Z"),
    ("\ud83d", "\ud83d"),
    ("0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00+01:00"),
]
DIFFERENT: List[Tuple[Any, Any]] = [
    (None, 0),
    (None, ""),
    (None, False),
    (None, {}),
    (None, []),
    ({"a": 0}, {}),
    ({"a": {}}, {}),
    ([None], []),  # a list keeps its nulls
    ([1, None], [1]),
    ([1, 2], [2, 1]),
    (1, 1.0),
    (1, True),
    (0, False),
    (1, "1"),
    (0.0, -0.0),
    (10**400, 10**400 + 1),
    (2**53, 2**53 + 1),
    (math.nan, 0.0),
    (math.nan, "NaN"),
    ("a", "A"),
    ("a", "a "),
    ("é", "e\u0301"),
    ("\ud83d", "?"),
    ({"a": 1}, [1]),
    ("2026-01-15T07:30:00Z", "2026-01-15T07:30:01Z"),
    ("2026-01-15", "2026-01-15T00:00:00Z"),  # a date is no RFC 3339 timestamp: the server leaves it as it is
    ("2026-01-15T07:30:00", "2026-01-15T07:30:00Z"),
    ("2026-13-45T00:00:00Z", "2026-13-45T00:00:00+00:00"),
    ("at 2026-01-15T07:30:00Z", "at 2026-01-15T08:30:00+01:00"),
    ("2026-01-15T07:30:00Z\n", "2026-01-15T07:30:00Z"),
    ("2026-01-15T07:30:00.1234567Z", "2026-01-15T07:30:00.1234568Z"),  # nanoseconds are content
    ("0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00+02:00"),  # beyond the calendar in UTC: compared as text
    ("9999-12-31T23:59:59-08:00", "9999-12-31T23:59:59-07:00"),
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_what_the_server_may_change_is_the_same(left: Any, right: Any) -> None:
    assert (same(left, right), same(right, left), digest(left) == digest(right)) == (True, True, True)


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_everything_else_is_different(left: Any, right: Any) -> None:
    assert (same(left, right), same(right, left)) == (False, False)


@pytest.mark.parametrize(("left", "right"), [pair for pair in DIFFERENT if None not in pair])
def test_a_field_that_differs_has_another_digest(left: Any, right: Any) -> None:
    assert digest({"field": left}) != digest({"field": right})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": None, "b": [None, {"c": None}]}, {"b": [None, {}]}),
        ("2026-01-15T08:30:00+01:00", "2026-01-15T07:30:00Z"),
        ("2026-01-15", "2026-01-15"),
        ("2026-13-45T00:00:00Z", "2026-13-45T00:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        (1.0, 1.0),
    ],
)
def test_the_canonical_form_leaves_out_nulls_and_knows_one_zone(value: Any, expected: Any) -> None:
    assert canonical(value) == expected


def test_the_canonical_form_is_a_new_value() -> None:
    value = {"a": None, "at": "2026-01-15T08:30:00+01:00"}
    canonical(value)
    assert value == {"a": None, "at": "2026-01-15T08:30:00+01:00"}


def test_a_digest_is_16_bytes_and_is_the_same_in_every_process() -> None:
    assert digest({"b": [1, "é"], "a": None}).hex() == digest({"b": [1, "é"]}).hex() == "0df30137b61ce53f9d9468168102cd46"


def test_differing_fields_come_in_the_given_order() -> None:
    left = {"name": "a", "tags": ["x"], "created": "2026-01-15T08:30:00+01:00", "gone": None}
    right = {"name": "b", "tags": ["y"], "created": "2026-01-15T07:30:00Z", "other": 1}
    assert differing_fields(left, right, ("tags", "created", "name", "gone")) == ["tags", "name"]
