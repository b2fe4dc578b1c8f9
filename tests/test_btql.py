"""Query text, exactly as it is sent."""

from __future__ import annotations

from typing import Optional, Tuple

import pytest

from bt_migrate.btql import MIN_LIMIT, count_query, page_query, quoted, rate_in, smaller_limit, source_expression

KEY = "p07344267447683088384"


@pytest.mark.parametrize(
    ("kind", "ids", "expected"),
    [
        ("logs", ["a"], "project_logs('a') spans"),
        ("experiments", ["a", "b"], "experiment('a', 'b') spans"),
        ("datasets", ["it's"], "dataset('it\\'s') spans"),
    ],
)
def test_the_source_of_rows_names_its_objects_and_its_shape(kind: str, ids: list, expected: str) -> None:
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
def test_a_literal_cannot_end_before_its_end(text: str, expected: str) -> None:
    assert quoted(text) == expected


def test_the_first_page_has_no_filter() -> None:
    assert page_query("logs", ["a"], limit=1000) == (
        "select: *\nfrom: project_logs('a') spans\nsort: _pagination_key asc\nlimit: 1000"
    )


def test_a_later_page_of_a_window_filters_by_dates_and_by_the_last_key() -> None:
    query = page_query(
        "experiments",
        ["a"],
        limit=250,
        after_key=KEY,
        created_after="2026-01-15T00:00:00Z",
        created_before="2026-01-16T00:00:00Z",
    )
    assert query == (
        "select: *\n"
        "from: experiment('a') spans\n"
        "filter: created >= '2026-01-15T00:00:00Z' and created < '2026-01-16T00:00:00Z' "
        f"and _pagination_key > '{KEY}'\n"
        "sort: _pagination_key asc\n"
        "limit: 250"
    )


@pytest.mark.parametrize(
    ("after_key", "after", "before", "expected"),
    [
        (KEY, None, None, f"filter: _pagination_key > '{KEY}'"),
        (None, "2026-01-15T00:00:00Z", None, "filter: created >= '2026-01-15T00:00:00Z'"),
        (None, None, "2026-01-16T00:00:00Z", "filter: created < '2026-01-16T00:00:00Z'"),
    ],
)
def test_each_condition_stands_alone_too(
    after_key: Optional[str], after: Optional[str], before: Optional[str], expected: str
) -> None:
    query = page_query("datasets", ["a"], limit=25, after_key=after_key, created_after=after, created_before=before)
    assert query.splitlines()[2] == expected


def test_a_count_is_one_number_for_all_the_objects() -> None:
    assert count_query("datasets", ["a", "b"]) == "measures: count(1) as rows\nfrom: dataset('a', 'b') spans"


def test_a_count_of_a_window_has_both_bounds() -> None:
    assert count_query("logs", ["a"], "2026-01-15T00:00:00Z", "2026-01-16T00:00:00Z") == (
        "measures: count(1) as rows\n"
        "from: project_logs('a') spans\n"
        "filter: created >= '2026-01-15T00:00:00Z' and created < '2026-01-16T00:00:00Z'"
    )


def test_limits_halve_down_to_the_least() -> None:
    limits = [1000]
    while limits[-1] > MIN_LIMIT:
        limits.append(smaller_limit(limits[-1]))
    assert (limits, smaller_limit(MIN_LIMIT)) == ([1000, 500, 250, 125, 62, 31, 25], MIN_LIMIT)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"Code":"TooManyRequestsError","Message":"Rate limit: 20 requests per 60 seconds. Consumed: 21"}', (20, 60)),
        ("1 request per 1 second", (1, 1)),
        ("100 REQUESTS PER 10 SECONDS", (100, 10)),
        ("slow down", None),
        ("", None),
        ("20 requests per minute", None),
    ],
)
def test_a_rate_in_words_is_requests_and_seconds(body: str, expected: Optional[Tuple[int, int]]) -> None:
    assert rate_in(body) == expected
