"""Query text, exactly as it is sent."""

from __future__ import annotations

from typing import List, Optional, Tuple

import pytest

from bt_migrate.api.btql import (
    MIN_LIMIT,
    Bounds,
    count_query,
    filter_lines,
    page_query,
    quoted,
    rate_in,
    smaller_limit,
    source_expression,
)

KEY, END = "p07344267447683088384", "p07344267447683099999"
AFTER, BEFORE = "2026-01-15T00:00:00Z", "2026-01-16T00:00:00Z"


@pytest.mark.parametrize(
    ("kind", "ids", "expected"),
    [
        ("logs", ["a"], "project_logs('a') spans"),
        ("experiments", ["a", "b"], "experiment('a', 'b') spans"),
        ("datasets", ["it's"], "dataset('it\\'s') spans"),
    ],
)
def test_the_source_of_rows_names_its_objects_and_its_shape(
    kind: str, ids: list, expected: str
) -> None:
    assert source_expression(kind, ids) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "'plain'"),
        ("it's", "'it\\'s'"),
        ("back\\slash", "'back\\\\slash'"),
        ("\\'", "'\\\\\\''"),
        ("' or 1=1 | limit: 5", "'\\' or 1=1 | limit: 5'"),
        ("", "''"),
    ],
)
def test_a_literal_is_escaped_so_that_its_text_cannot_end_it(text: str, expected: str) -> None:
    assert quoted(text) == expected


def test_the_first_page_has_no_filter() -> None:
    assert page_query("logs", ["a"], Bounds(), 1000) == (
        "select: *\nfrom: project_logs('a') spans\nsort: _pagination_key asc\nlimit: 1000"
    )


def test_a_later_page_of_a_slice_of_a_window_filters_by_dates_and_by_keys() -> None:
    query = page_query("experiments", ["a"], Bounds(AFTER, BEFORE, end_key=END).after(KEY), 250)
    assert query == (
        "select: *\n"
        "from: experiment('a') spans\n"
        f"filter: created >= '{AFTER}' and created < '{BEFORE}' and _pagination_key > "
        f"'{KEY}' and _pagination_key <= '{END}'\n"
        "sort: _pagination_key asc\n"
        "limit: 250"
    )


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (Bounds(), []),
        (Bounds(created_after="", end_key=""), []),
        (Bounds(after_key=KEY), [f"filter: _pagination_key > '{KEY}'"]),
        (Bounds(end_key=END), [f"filter: _pagination_key <= '{END}'"]),
        (Bounds(created_after=AFTER), [f"filter: created >= '{AFTER}'"]),
        (Bounds(created_before=BEFORE), [f"filter: created < '{BEFORE}'"]),
        (Bounds(after_key="it's"), ["filter: _pagination_key > 'it\\'s'"]),
    ],
)
def test_each_condition_can_be_the_only_one(bounds: Bounds, expected: List[str]) -> None:
    assert filter_lines(bounds) == expected
    assert page_query("datasets", ["a"], bounds, 25).splitlines()[2:-2] == expected


def test_bounds_after_a_key_keep_all_other_bounds() -> None:
    whole = Bounds(AFTER, BEFORE, None, END)
    assert (whole.after(KEY), whole.after(KEY).after(END), whole) == (
        Bounds(AFTER, BEFORE, KEY, END),
        Bounds(AFTER, BEFORE, END, END),
        Bounds(AFTER, BEFORE, None, END),
    )


def test_the_last_rows_are_asked_for_in_descending_order() -> None:
    assert page_query("logs", ["a"], Bounds(AFTER, newest_first=True), 7) == (
        "select: *\n"
        "from: project_logs('a') spans\n"
        f"filter: created >= '{AFTER}'\n"
        "sort: _pagination_key desc\n"
        "limit: 7"
    )


def test_a_count_is_one_number_for_all_the_objects() -> None:
    assert (
        count_query("datasets", ["a", "b"], Bounds())
        == "measures: count(1) as rows\nfrom: dataset('a', 'b') spans"
    )


def test_a_count_inside_a_window_has_both_bounds() -> None:
    assert count_query("logs", ["a"], Bounds(AFTER, BEFORE)) == (
        "measures: count(1) as rows\n"
        "from: project_logs('a') spans\n"
        f"filter: created >= '{AFTER}' and created < '{BEFORE}'"
    )


def test_page_limits_are_halved_down_to_the_minimum() -> None:
    limits = [1000]
    while limits[-1] > MIN_LIMIT:
        limits.append(smaller_limit(limits[-1]))
    assert (limits, smaller_limit(MIN_LIMIT)) == ([1000, 500, 250, 125, 62, 31, 25], MIN_LIMIT)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            '{"Code":"TooManyRequestsError","Message":"Rate limit: 20 requests per 60 seconds. '
            'Consumed: 21"}',
            (20, 60),
        ),
        ("1 request per 1 second", (1, 1)),
        ("100 REQUESTS PER 10 SECONDS", (100, 10)),
        ("slow down", None),
        ("", None),
        ("20 requests per minute", None),
    ],
)
def test_a_rate_in_the_text_of_a_429_is_read(
    body: str, expected: Optional[Tuple[int, int]]
) -> None:
    assert rate_in(body) == expected
