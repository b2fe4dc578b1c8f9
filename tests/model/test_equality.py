"""What counts as equal: nothing but what the server is known to change."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from typing import Any, Dict, List, Optional, Tuple

import pytest

from bt_migrate.model.equality import (
    TOLERATED,
    canonical,
    canonical_text,
    day_of,
    differing_fields,
    differing_paths,
    digest,
    merged,
    row_digest,
    same,
)

SAME: List[Tuple[Any, Any]] = [
    (None, None),
    ({}, {"a": None}),
    ({"a": 1, "b": None}, {"a": 1}),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ([], []),
    (math.nan, float("nan")),
    ({"n": [math.nan]}, {"n": [float("nan")]}),
    (10**400, 10**400),
    ("2026-01-15T08:30:00+01:00", "2026-01-15T07:30:00Z"),
    ("2026-01-15T07:30:00.500Z", "2026-01-15T07:30:00.5Z"),
    ("2026-01-15 07:30:00Z", "2026-01-15T07:30:00Z"),
    (
        {"deep": [{"at": "2026-01-15T08:30:00+0100"}]},
        {"deep": [{"at": "2026-01-15T07:30:00.000Z"}]},
    ),
    ("2026-13-45T00:00:00Z", "2026-13-45T00:00:00Z"),
    ("\ud83d", "\ud83d"),
    ("0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00+01:00"),
    ("2026-01-15T08:30:00.123456789+01:00", "2026-01-15T07:30:00.123456789Z"),
    ("2026-01-15T07:30:00.123456700Z", "2026-01-15T07:30:00.1234567Z"),
    ("2026-01-15T07:30:00.0000000Z", "2026-01-15T07:30:00Z"),
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
    (1, True),
    (0, False),
    (1, "1"),
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
    (
        "2026-01-15",
        "2026-01-15T00:00:00Z",
    ),  # a date is no RFC 3339 timestamp: the server leaves it as it is
    ("2026-01-15T07:30:00", "2026-01-15T07:30:00Z"),
    ("2026-13-45T00:00:00Z", "2026-13-45T00:00:00+00:00"),
    ("at 2026-01-15T07:30:00Z", "at 2026-01-15T08:30:00+01:00"),
    ("2026-01-15T07:30:00Z\n", "2026-01-15T07:30:00Z"),
    ("2026-01-15T07:30:00.1234567Z", "2026-01-15T07:30:00.1234568Z"),  # nanoseconds are content
    ("2026-01-15T08:30:00.123456789+01:00", "2026-01-15T07:30:00.123456788Z"),
    (
        "0001-01-01T00:00:00+01:00",
        "0001-01-01T00:00:00+02:00",
    ),  # beyond the calendar in UTC: compared as text
    ("9999-12-31T23:59:59-08:00", "9999-12-31T23:59:59-07:00"),
]


# A whole number is the same in objects, and not in rows.
WHOLE: List[Tuple[Any, Any]] = [(1, 1.0), (0.0, -0.0), ([1e22], [10**22])]


@pytest.mark.parametrize(("left", "right"), [*SAME, *WHOLE, ({"a": {"b": None}}, {"a": {}})])
def test_what_the_server_may_change_of_an_object_is_the_same(left: Any, right: Any) -> None:
    assert (same(left, right), same(right, left), digest(left) == digest(right)) == (
        True,
        True,
        True,
    )


@pytest.mark.parametrize(("left", "right"), DIFFERENT)
def test_values_that_are_not_equal_are_different(left: Any, right: Any) -> None:
    assert (same(left, right), same(right, left)) == (False, False)


@pytest.mark.parametrize(
    ("left", "right"), [pair for pair in SAME if not isinstance(pair[0], dict)]
)
def test_a_field_of_a_row_that_is_the_same_has_the_same_digest(left: Any, right: Any) -> None:
    assert row_digest({"field": left}) == row_digest({"field": right})


@pytest.mark.parametrize(
    ("left", "right"),
    [*[pair for pair in DIFFERENT if None not in pair], *WHOLE, ({"b": None}, {})],
)
def test_a_field_of_a_row_that_differs_has_another_digest(left: Any, right: Any) -> None:
    assert row_digest({"field": left}) != row_digest({"field": right})


@pytest.mark.parametrize(("left", "right"), [pair for pair in DIFFERENT if None not in pair])
def test_a_field_of_an_object_that_differs_has_another_digest(left: Any, right: Any) -> None:
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
def test_the_canonical_form_has_no_nulls_and_all_timestamps_in_utc(
    value: Any, expected: Any
) -> None:
    assert canonical(value) == expected


def test_the_canonical_form_is_a_new_value() -> None:
    value = {"a": None, "at": "2026-01-15T08:30:00+01:00"}
    canonical(value)
    assert value == {"a": None, "at": "2026-01-15T08:30:00+01:00"}


@pytest.mark.parametrize(
    ("row", "text", "stamps"),
    [
        ({"b": [None, {"c": None}], "a": None}, '{"b":[null,{"c":null}]}', 0),
        ({"at": "2026-01-15T08:30:00+01:00"}, '{"at":"2026-01-15T07:30:00Z"}', 1),
        (
            {"at": ["2026-01-15T07:30:00.500Z", "2026-01-15 07:30:00Z"]},
            '{"at":["2026-01-15T07:30:00.5Z","2026-01-15T07:30:00Z"]}',
            2,
        ),
        ({"at": "2026-13-45T00:00:00+01:00"}, '{"at":"2026-13-45T00:00:00+01:00"}', 0),
        (
            {"2026-01-15T08:30:00+01:00": 1},
            '{"2026-01-15T08:30:00+01:00":1}',
            0,
        ),  # a key is content
        ({"a": '"2026-01-15T08:30:00+01:00",'}, r'{"a":"\"2026-01-15T08:30:00+01:00\","}', 0),
        ({"a": ':"2026-01-15T08:30:00+01:00'}, r'{"a":":\"2026-01-15T08:30:00+01:00"}', 0),
        ({"n": 1.0, "m": -0.0}, '{"m":-0.0,"n":1.0}', 0),
    ],
)
def test_the_canonical_text_has_no_null_fields_and_all_timestamps_in_utc(
    row: Any, text: str, stamps: int
) -> None:
    found, exact, counted = canonical_text(row)
    assert (found, counted, (found == exact) == (not stamps)) == (text, stamps, True)


def test_a_digest_is_16_bytes_and_is_the_same_in_every_process() -> None:
    assert (
        digest({"b": [1, "é"], "a": None}).hex()
        == row_digest({"b": [1, "é"]}).hex()
        == "0df30137b61ce53f9d9468168102cd46"
    )


def test_differing_fields_come_in_the_given_order() -> None:
    left = {"name": "a", "tags": ["x"], "created": "2026-01-15T08:30:00+01:00", "gone": None}
    right = {"name": "b", "tags": ["y"], "created": "2026-01-15T07:30:00Z", "other": 1}
    assert differing_fields(left, right, ("tags", "created", "name", "gone")) == ["tags", "name"]


PICTURE = {"type": "braintrust_attachment", "key": "sha256:" + hashlib.sha256(b"abc").hexdigest()}
PATHS: List[Tuple[Any, Any, List[str], Dict[str, int]]] = [
    ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 2.0}]}}, ["a.b[1].c"], {}),
    ({"a": [1, 2]}, {"a": [1]}, ["a"], {}),
    ({"a": 1}, {"b": 1}, ["a", "b"], {}),
    ({"a": None}, {}, ["a"], {}),
    ({"a": {}}, {"a": []}, ["a"], {}),
    ({"a": ["2026-01-15T08:30:00+01:00"]}, {"a": ["2026-01-15T07:30:00Z"]}, [], {"timestamp": 1}),
    ({"url": "data:image/png;base64,YWJj"}, {"url": PICTURE}, [], {"inline": 1}),
    ({"data": "YWJj"}, {"data": PICTURE}, [], {"inline": 1}),
    ({"data": "YWJk"}, {"data": PICTURE}, ["data"], {}),
    ({"data": "not base64"}, {"data": PICTURE}, ["data"], {}),
    ({"data": PICTURE}, {"data": "YWJj"}, ["data"], {}),  # the other way round nobody does
]


@pytest.mark.parametrize(("left", "right", "paths", "tolerated"), PATHS)
def test_paths_that_differ_are_named_and_tolerated_changes_counted(
    left: Any, right: Any, paths: List[str], tolerated: Dict[str, int]
) -> None:
    counted: Counter[str] = Counter()
    assert (list(differing_paths(left, right, "", counted)), dict(counted)) == (paths, tolerated)


def test_null_and_absent_are_equal_in_objects_only() -> None:
    counted: Counter[str] = Counter()
    assert (
        list(differing_paths({"a": {"b": None}}, {"a": {}}, "", counted, nulls_count=False)) == []
    )
    assert dict(counted) == {"unset": 1}


@pytest.mark.parametrize(
    ("created", "day"),
    [
        ("2026-01-15T23:30:00.5Z", "2026-01-15"),
        ("2026-01-15T23:30:00-01:00", "2026-01-16"),
        ("2026-01-15", "2026-01-15"),
        ("2026-13-45T00:00:00Z", ""),
        ("never", ""),
        (None, ""),
    ],
)
def test_the_day_of_a_row_is_that_of_utc(created: Optional[str], day: str) -> None:
    assert day_of(created) == day


def test_uses_are_summed_in_the_order_of_the_table() -> None:
    assert list(merged([{"origin": 1, "unset": 0}, {"timestamp": 2}, {"origin": 3}]).items()) == [
        ("timestamp", 2),
        ("origin", 4),
    ]
    assert all(TOLERATED.values())
