"""Date windows: half-open, in UTC, whatever way a date is written."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, List, Optional, Tuple

import pytest

from bt_migrate.errors import UsageError
from bt_migrate.model.date_windows import (
    LEAST,
    Interval,
    gaps,
    in_window,
    instant,
    is_relative,
    iso,
    last_full,
    overlaps,
    window_bound,
)

UTC = timezone.utc
NOW = datetime(2026, 7, 10, 23, 15, 30, 500000, tzinfo=UTC)
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
    "",
    "yesterday",
    "2026",
    "2026-01",
    "15.01.2026",
    "2026-13-01",
    "2026-02-30",
    "2026-01-15T25:00",
    "2026-01-15T08:30:61",
    "2026-01-15T08",
    "2026-01-15 or so",
    "2026-01-15T08:30:00+1",
    "20260115",
    "2026-01-15T08:30:00 Europe/Berlin",
    "0001-01-01T00:00:00+01:00",
    # .NET's largest date in a zone west of UTC: in UTC it is beyond the calendar.
    "9999-12-31T23:59:59-08:00",
]


@pytest.mark.parametrize("text", NO_DATES)
def test_any_other_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        instant(text)


NO_BOUNDS = [
    *(entry for entry in NO_DATES if entry not in ("", "yesterday")),
    "-2w",
    "-2",
    "2d",
    "--2d",
    "-1.5h",
    "tomorrow",
    "-999999d",
]


@pytest.mark.parametrize("text", NO_BOUNDS)
def test_a_bound_that_is_no_date_is_refused_with_the_name_of_its_setting(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        window_bound("MIGRATION_CREATED_AFTER", text, NOW)
    assert str(refused.value) == (
        f"MIGRATION_CREATED_AFTER: {text[:60]!r} is not a date; "
        "use 2026-01-15, 2026-01-15T08:30:00+01:00, today, yesterday, -2d or -6h"
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
def test_a_bound_is_an_absolute_timestamp_or_none(
    text: Optional[str], expected: Optional[str]
) -> None:
    assert window_bound("MIGRATION_CREATED_AFTER", text, NOW) == expected


BERLIN_SUMMER, KOLKATA = timezone(timedelta(hours=2)), timezone(timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("today", UTC, "2026-07-10T00:00:00Z"),
        ("Yesterday ", UTC, "2026-07-09T00:00:00Z"),
        ("today", BERLIN_SUMMER, "2026-07-10T22:00:00Z"),  # there it is the 11th already
        ("yesterday", BERLIN_SUMMER, "2026-07-09T22:00:00Z"),
        ("-2d", BERLIN_SUMMER, "2026-07-08T23:15:30.5Z"),
        ("-6h", BERLIN_SUMMER, "2026-07-10T17:15:30.5Z"),
        ("-0h", UTC, "2026-07-10T23:15:30.5Z"),
        ("2026-07-01", BERLIN_SUMMER, "2026-06-30T22:00:00Z"),
        ("2026-07-01T08:30", KOLKATA, "2026-07-01T03:00:00Z"),
        ("2026-07-01T08:30Z", KOLKATA, "2026-07-01T08:30:00Z"),
        ("2026-07-01T08:30+01:00", KOLKATA, "2026-07-01T07:30:00Z"),
    ],
)
def test_a_relative_bound_is_made_absolute_by_the_clock_that_is_passed_in(
    text: str, zone: tzinfo, expected: str
) -> None:
    assert window_bound("--created-after", text, NOW, zone) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("today", True),
        ("YESTERDAY", True),
        ("-2d", True),
        ("-6h", True),
        ("2026-01-15", False),
        ("", False),
        (None, False),
    ],
)
def test_a_bound_that_depends_on_the_day_is_relative(text: Optional[str], expected: bool) -> None:
    assert is_relative(text) is expected


def at(text: str) -> datetime:
    return instant(text)


@pytest.mark.parametrize(
    ("unit", "zone", "now", "expected"),
    [
        ("daily", UTC, "2026-01-15T02:00:00Z", ("2026-01-14T00:00:00Z", "2026-01-15T00:00:00Z")),
        ("daily", UTC, "2026-01-15T00:00:00Z", ("2026-01-14T00:00:00Z", "2026-01-15T00:00:00Z")),
        (
            "daily",
            BERLIN_SUMMER,
            "2026-07-10T23:15:30Z",
            ("2026-07-09T22:00:00Z", "2026-07-10T22:00:00Z"),
        ),
        ("hourly", UTC, "2026-01-15T02:05:00Z", ("2026-01-15T01:00:00Z", "2026-01-15T02:00:00Z")),
        ("hourly", UTC, "2026-01-15T02:00:00Z", ("2026-01-15T01:00:00Z", "2026-01-15T02:00:00Z")),
        (
            "hourly",
            KOLKATA,
            "2026-01-15T02:05:00Z",
            ("2026-01-15T00:30:00Z", "2026-01-15T01:30:00Z"),
        ),
    ],
)
def test_the_last_full_day_or_hour_is_of_the_zone(
    unit: str, zone: tzinfo, now: str, expected: Tuple[str, str]
) -> None:
    assert last_full(unit, at(now), zone) == expected


def test_days_in_which_clocks_change_have_23_and_25_hours() -> None:
    zone = zone_named("Europe/Berlin")
    assert [
        last_full("daily", at(now), zone)
        for now in ("2026-03-30T00:00:00Z", "2026-10-26T01:00:00Z")
    ] == [
        ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
        ("2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
    ]


# Zones that change at midnight (Sao Paulo skips it, Havana repeats it), by half an hour (Lord
# Howe), and by a whole day (Apia skipped one).
ZONES = [
    ("Europe/Berlin", "2026-03-27T12:00Z"),
    ("Europe/Berlin", "2026-10-23T12:00Z"),
    ("America/Sao_Paulo", "2018-11-02T12:00Z"),
    ("America/Sao_Paulo", "2018-02-16T12:00Z"),
    ("America/Havana", "2026-10-30T12:00Z"),
    ("Australia/Lord_Howe", "2026-04-03T12:00Z"),
    ("Australia/Lord_Howe", "2026-10-02T12:00Z"),
    ("Asia/Kathmandu", "2026-01-01T12:00Z"),
    ("Pacific/Apia", "2011-12-28T12:00Z"),
]


@pytest.mark.parametrize("unit", ["daily", "hourly"])
@pytest.mark.parametrize(("name", "start"), ZONES)
def test_one_window_begins_where_the_one_before_it_ended_whatever_the_clocks_do(
    name: str, start: str, unit: str
) -> None:
    zone = zone_named(name)
    moments = [at(start) + timedelta(minutes=7 * step) for step in range(5 * 24 * 60 // 7)]
    windows = list(dict.fromkeys(last_full(unit, moment, zone) for moment in moments))
    assert len(windows) >= (4 if unit == "daily" else 115)
    assert [item[1] for item in windows[:-1]] == [entry[0] for entry in windows[1:]]


def zone_named(name: str) -> tzinfo:
    if sys.version_info < (3, 9):
        pytest.skip("names of zones need Python 3.9")
    from zoneinfo import ZoneInfo

    return ZoneInfo(name)


# -- windows one after the other


def days(text: str) -> List[Interval]:
    """`3-5 7-9`: from the third to the fifth of January, and so on; `-5` from the beginning."""
    return [
        (LEAST if not a else at(f"2026-01-{int(a):02}"), at(f"2026-01-{int(b):02}"))
        for a, b in (item.split("-") for item in text.split())
    ]


@pytest.mark.parametrize(
    ("taken", "until", "expected"),
    [
        ("", 9, ""),  # nothing was taken before: the first window
        ("3-5", 5, ""),
        ("3-5", 9, "5-9"),
        ("3-5 5-6", 6, ""),
        ("5-6 3-5", 6, ""),  # in any order
        ("3-5 7-9", 9, "5-7"),
        ("3-5 7-9 9-10", 12, "5-7 10-12"),
        ("3-9 4-5", 9, ""),
        ("3-6 5-9", 9, ""),
        ("3-5 7-9", 4, ""),
        ("3-5 7-9", 6, "5-6"),
        ("3-5 7-9", 8, "5-7"),
        ("7-9", 5, ""),  # a window before all others
        ("-5", 7, "5-7"),
    ],
)
def test_a_gap_is_a_period_that_no_earlier_window_covered(
    taken: str, until: int, expected: str
) -> None:
    assert gaps(days(taken), at(f"2026-01-{until:02}")) == days(expected)


@pytest.mark.parametrize(
    ("taken", "window", "expected"),
    [
        ("", "3-9", ""),
        ("1-3 9-10", "3-9", ""),
        ("1-4 8-10", "3-9", "3-4 8-9"),
        ("5-6 6-7 5-8", "3-9", "5-8"),
        ("-20", "3-9", "3-9"),
    ],
)
def test_an_overlap_is_a_period_that_an_earlier_window_covered(
    taken: str, window: str, expected: str
) -> None:
    assert overlaps(days(taken), days(window)[0]) == days(expected)


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
def test_an_instant_is_written_in_utc_without_an_empty_fraction(
    moment: datetime, expected: str
) -> None:
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
def test_a_window_includes_its_lower_bound_and_excludes_its_upper_one(
    created: Any, after: Optional[str], before: Optional[str], expected: bool
) -> None:
    assert in_window(created, after, before) is expected


def test_two_windows_that_touch_share_nothing_and_lose_nothing() -> None:
    moments = [f"2026-01-{day:02d}T{hour:02d}:00:00Z" for day in (14, 15, 16) for hour in range(24)]
    first = [item for item in moments if in_window(item, None, JANUARY_15)]
    second = [entry for entry in moments if in_window(entry, JANUARY_15, None)]
    assert [*first, *second] == moments
