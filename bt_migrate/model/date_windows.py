"""Date windows: half-open, `created >= after and created < before`, in UTC.

Pure: the time is passed in. Relative words (`today`, `-6h`, "the last full day") become absolute
once, at the start of a program.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from typing import Any, List, Optional, Sequence, Tuple

from bt_migrate.errors import UsageError

_ISO = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})(?:[T ](?P<time>\d{2}:\d{2}(?::\d{2})?)(?P<frac>\.\d+)?)?"
    r"(?P<zone>Z|[+-]\d{2}:?\d{2})?$",
    re.ASCII,
)
_AGO = re.compile(r"-(\d{1,6})([dh])$", re.ASCII)
_DAYS_AGO = {"today": 0, "yesterday": 1}
UNITS = ("daily", "hourly")
LEAST, LATEST = (moment.replace(tzinfo=timezone.utc) for moment in (datetime.min, datetime.max))

Interval = Tuple[datetime, datetime]  # half-open


def instant(text: str, zone: tzinfo = timezone.utc) -> datetime:
    """A date or ISO timestamp as an aware UTC datetime. `zone` is for a text without a zone.

    Raises ValueError for any other text.
    """
    match = _ISO.match(text.strip())
    if not match:
        raise ValueError(f"not a date: {text[:60]!r}")
    time = match["time"] or "00:00"
    micros = ((match["frac"] or ".")[1:] + "000000")[:6]
    full = f"{match['day']} {time if time.count(':') == 2 else time + ':00'}.{micros}"
    moment = datetime.strptime(full, "%Y-%m-%d %H:%M:%S.%f")
    if match["zone"]:
        zone = (
            timezone.utc
            if match["zone"] == "Z"
            else datetime.strptime(match["zone"].replace(":", ""), "%z").tzinfo or zone
        )
    try:
        return moment.replace(tzinfo=zone).astimezone(timezone.utc)
    except (
        OverflowError
    ):  # 0001-01-01T00:00:00+01:00, the least date of .NET, is before the calendar in UTC
        raise ValueError(f"not a date: {text[:60]!r}") from None


def zone_of(name: str, text: str) -> tzinfo:
    """`UTC`, a fixed offset such as `+01:00`, or a name such as `Europe/Berlin`."""
    if text.upper() in ("UTC", "Z"):
        return timezone.utc
    offset = re.match(r"([+-])(\d{2}):?(\d{2})$", text, re.ASCII)
    if offset and int(offset[2]) < 24 and int(offset[3]) < 60:
        minutes = int(offset[2]) * 60 + int(offset[3])
        return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))
    try:
        from zoneinfo import ZoneInfo
    except ImportError:
        raise UsageError(
            f"{name}: names of time zones need Python 3.9 or later; use UTC or a fixed offset such"
            " as +01:00"
        ) from None
    try:
        return ZoneInfo(text)
    # ZoneInfoNotFoundError is a KeyError; a folder of zones is an OSError.
    except (KeyError, ValueError, OSError):
        raise UsageError(
            f"{name}: {text[:60]!r} is not a time zone that this machine knows; use a name such as"
            " Europe/Berlin (needs the system's tzdata), UTC, or a fixed offset such as +01:00"
        ) from None


def is_relative(text: Optional[str]) -> bool:
    """Whether the text means another moment at another time."""
    word = (text or "").strip().lower()
    return word in _DAYS_AGO or bool(_AGO.match(word))


def window_bound(
    name: str, text: Optional[str], now: datetime, zone: tzinfo = timezone.utc
) -> Optional[str]:
    """The bound as an absolute ISO timestamp in UTC (`2026-01-15T00:00:00Z`), None for none.

    `today` and `yesterday` are midnight in the zone; `-2d` and `-6h` are 48 and 6 hours before
    `now`. Raises UsageError naming the setting when the text is none of these.
    """
    word = (text or "").strip().lower()
    if not word:
        return None
    ago = _AGO.match(word)
    try:
        if word in _DAYS_AGO:
            return iso(_midnight(now, zone, days_ago=_DAYS_AGO[word]))
        if ago:
            return iso(now - timedelta(hours=int(ago[1]) * (24 if ago[2] == "d" else 1)))
        return iso(instant(str(text), zone))
    except (ValueError, OverflowError):
        raise UsageError(
            f"{name}: {str(text)[:60]!r} is not a date; use 2026-01-15, 2026-01-15T08:30:00+01:00,"
            " today, yesterday, -2d or -6h"
        ) from None


def last_full(unit: str, now: datetime, zone: tzinfo) -> Tuple[str, str]:
    """The last full day ("daily") or hour ("hourly") of the zone's clocks, as absolute bounds.

    On the day of a clock change, a day has 23 or 25 hours. A window always starts where the
    previous one ended.
    """
    begin_of = _midnight if unit == "daily" else _full_hour
    end = begin_of(now, zone)
    return iso(begin_of(end - timedelta(microseconds=1), zone)), iso(end)


def _midnight(moment: datetime, zone: tzinfo, days_ago: int = 0) -> datetime:
    day = moment.astimezone(zone).date() - timedelta(days=days_ago)
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(timezone.utc)


def _full_hour(moment: datetime, zone: tzinfo) -> datetime:
    local = moment.astimezone(zone)  # some zones are 30 or 45 minutes off
    return moment - timedelta(
        minutes=local.minute, seconds=local.second, microseconds=local.microsecond
    )


def iso(moment: datetime) -> str:
    """ISO text in UTC ending in Z, without a fraction where there is none."""
    text = moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds")
    return text.rstrip("0").rstrip(".") + "Z"


def in_window(created: Any, after: Optional[str], before: Optional[str]) -> bool:
    """Whether an object's `created` lies in [after, before).

    True for an object without a readable date, so that it is not lost in silence.
    """
    if not (after or before):
        return True
    try:
        moment = instant(str(created))
    except ValueError:
        return True
    return (not after or moment >= instant(after)) and (not before or moment < instant(before))


# -- windows of consecutive runs


def interval(after: Optional[str], before: Optional[str]) -> Interval:
    """A window as two moments; without a bound it goes to the end of the calendar."""
    return (instant(after) if after else LEAST, instant(before) if before else LATEST)


def gaps(covered: Sequence[Interval], until: datetime) -> List[Interval]:
    """The periods between the start of the first window and `until` that no window covers.

    None where no window started before `until`.
    """
    between: List[Interval] = []
    reached: Optional[datetime] = None
    for begin, end in [*sorted(covered), (until, until)]:
        if reached is not None and reached < min(begin, until):
            between.append((reached, min(begin, until)))
        reached = end if reached is None else max(reached, end)
    return between


def overlaps(covered: Sequence[Interval], window: Interval) -> List[Interval]:
    """Returns the parts of the window that earlier windows cover, as few intervals as possible."""
    joined: List[Interval] = []
    for begin, end in sorted(
        (max(begin, window[0]), min(end, window[1])) for begin, end in covered
    ):
        if begin >= end:
            continue
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined
