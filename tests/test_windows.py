"""Date windows: half-open, in UTC, whatever way a date is written."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, Optional

import pytest

from bt_migrate.errors import UsageError
from bt_migrate.windows import in_window, instant, iso, window_bound

UTC = timezone.utc
JANUARY_15 = "2026-01-15T00:00:00Z"
JANUARY_16 = "2026-01-16T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-15", datetime(2026, 1, 15, tzinfo=UTC)),
        ("  2026-01-15\n", datetime(2026, 1, 15, tzinfo=UTC)),
        ("2026-01-15T08:30", datetime(2026, 1, 15, 8, 30, tzinfo=UTC)),
        ("2026-01-15 08:30:05", datetime(2026, 1, 15, 8, 30, 5, tzinfo=UTC)),
        ("2026-01-15T08:30:05Z", datetime(2026, 1, 15, 8, 30, 5, tzinfo=UTC)),
        ("2026-01-15T08:30:05+01:00", datetime(2026, 1, 15, 7, 30, 5, tzinfo=UTC)),
        ("2026-01-15T08:30:05-0530", datetime(2026, 1, 15, 14, 0, 5, tzinfo=UTC)),
        ("2026-01-15T00:30:00+02:00", datetime(2026, 1, 14, 22, 30, tzinfo=UTC)),
        ("2026-01-15T08:30:05.5Z", datetime(2026, 1, 15, 8, 30, 5, 500000, tzinfo=UTC)),
        ("2026-01-15T08:30:05.123456Z", datetime(2026, 1, 15, 8, 30, 5, 123456, tzinfo=UTC)),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_date_is_one_instant_in_utc(text: str, expected: datetime) -> None:
    assert (instant(text), instant(text).utcoffset()) == (expected, timedelta(0))


NO_DATES = [
    "", "yesterday", "2026", "2026-01", "15.01.2026", "2026-13-01", "2026-02-30", "2026-01-15T25:00", "2026-01-15T08:30:61",
    "2026-01-15T08", "2026-01-15 or so", "2026-01-15T08:30:00+1", "20260115", "2026-01-15T08:30:00 Europe/Berlin",
    "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-08:00",  # .NET's least and greatest date in a zone: beyond the calendar in UTC
]  # fmt: skip


@pytest.mark.parametrize("text", NO_DATES)
def test_any_other_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        instant(text)


@pytest.mark.parametrize("text", [one for one in NO_DATES if one])
def test_a_bound_that_is_no_date_is_refused_with_the_name_of_its_setting(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        window_bound("MIGRATION_CREATED_AFTER", text)
    assert str(refused.value) == (
        f"MIGRATION_CREATED_AFTER: {text[:60]!r} is not a date; use 2026-01-15 or 2026-01-15T08:30:00+01:00"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("2026-01-15", JANUARY_15),
        ("2026-01-15T08:30:00+01:00", "2026-01-15T07:30:00Z"),
        ("2026-01-15T08:30:00.250Z", "2026-01-15T08:30:00.25Z"),
    ],
)
def test_a_bound_is_an_absolute_timestamp_or_none(text: Optional[str], expected: Optional[str]) -> None:
    assert window_bound("MIGRATION_CREATED_AFTER", text) == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2026, 1, 15, tzinfo=UTC), JANUARY_15),
        (datetime(2026, 1, 15, 8, 30, 5, 120000, tzinfo=UTC), "2026-01-15T08:30:05.12Z"),
        (datetime(2026, 1, 15, 8, 30, 5, 1, tzinfo=UTC), "2026-01-15T08:30:05.000001Z"),
        (datetime(2026, 1, 15, 8, 30, 10, tzinfo=UTC), "2026-01-15T08:30:10Z"),
        (datetime(2026, 1, 15, 0, 30, tzinfo=timezone(timedelta(hours=2))), "2026-01-14T22:30:00Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
    ],
)
def test_an_instant_is_written_in_utc_without_an_empty_fraction(moment: datetime, expected: str) -> None:
    assert iso(moment) == expected


@pytest.mark.parametrize(
    ("created", "after", "before", "expected"),
    [
        ("2026-01-15T00:00:00Z", JANUARY_15, JANUARY_16, True),  # the lower bound is inside
        ("2026-01-14T23:59:59.999999Z", JANUARY_15, JANUARY_16, False),
        ("2026-01-15T23:59:59.999999Z", JANUARY_15, JANUARY_16, True),
        ("2026-01-16T00:00:00Z", JANUARY_15, JANUARY_16, False),  # the upper bound is outside
        ("2026-01-16T00:30:00+01:00", JANUARY_15, JANUARY_16, True),
        ("2026-01-15T00:30:00+01:00", JANUARY_15, JANUARY_16, False),
        ("2030-01-01T00:00:00Z", JANUARY_15, None, True),
        ("2026-01-14T00:00:00Z", JANUARY_15, None, False),
        ("2020-01-01T00:00:00Z", None, JANUARY_16, True),
        ("2026-01-16T00:00:00Z", None, JANUARY_16, False),
        ("2020-01-01T00:00:00Z", None, None, True),
        (None, JANUARY_15, JANUARY_16, True),  # never lost in silence
        ("some day", JANUARY_15, JANUARY_16, True),
        ("0001-01-01T00:00:00+01:00", JANUARY_15, JANUARY_16, True),
    ],
)
def test_a_window_takes_its_lower_bound_and_leaves_its_upper_one(
    created: Any, after: Optional[str], before: Optional[str], expected: bool
) -> None:
    assert in_window(created, after, before) is expected


def test_two_windows_that_touch_share_nothing_and_lose_nothing() -> None:
    moments = [f"2026-01-{day:02d}T{hour:02d}:00:00Z" for day in (14, 15, 16) for hour in range(24)]
    first = [one for one in moments if in_window(one, None, JANUARY_15)]
    second = [one for one in moments if in_window(one, JANUARY_15, None)]
    assert [*first, *second] == moments
