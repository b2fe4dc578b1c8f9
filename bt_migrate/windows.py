"""Date windows: half-open, `created >= after and created < before`, in UTC. Pure; the clock is passed in by whoever has one."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any, Optional

from bt_migrate.errors import UsageError

_ISO = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})(?:[T ](?P<time>\d{2}:\d{2}(?::\d{2})?)(?P<frac>\.\d+)?)?(?P<zone>Z|[+-]\d{2}:?\d{2})?$",
    re.ASCII,
)


def instant(text: str) -> datetime:
    """A date or ISO timestamp as an aware UTC datetime (no zone means UTC); ValueError for any other text."""
    match = _ISO.match(text.strip())
    if not match:
        raise ValueError(f"not a date: {text[:60]!r}")
    time = match["time"] or "00:00"
    micros = ((match["frac"] or ".")[1:] + "000000")[:6]
    zone = (match["zone"] or "Z").replace("Z", "+0000").replace(":", "")
    full = f"{match['day']} {time if time.count(':') == 2 else time + ':00'}.{micros} {zone}"
    try:
        return datetime.strptime(full, "%Y-%m-%d %H:%M:%S.%f %z").astimezone(timezone.utc)
    except OverflowError:  # 0001-01-01T00:00:00+01:00, the least date of .NET, is before the calendar in UTC
        raise ValueError(f"not a date: {text[:60]!r}") from None


def window_bound(name: str, text: Optional[str]) -> Optional[str]:
    """The bound as an absolute ISO timestamp in UTC (`2026-01-15T00:00:00Z`), None for none.

    Raises UsageError naming the setting when the text is not a date.
    """
    if not text or not text.strip():
        return None
    try:
        moment = instant(text)
    except ValueError:
        raise UsageError(f"{name}: {text[:60]!r} is not a date; use 2026-01-15 or 2026-01-15T08:30:00+01:00") from None
    return iso(moment)


def iso(moment: datetime) -> str:
    """ISO text in UTC ending in Z, without a fraction where there is none."""
    text = moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="microseconds")
    return text.rstrip("0").rstrip(".") + "Z"


def in_window(created: Any, after: Optional[str], before: Optional[str]) -> bool:
    """Whether an object's `created` lies in [after, before). An object without a readable date is in: never lost in silence."""
    if not (after or before):
        return True
    try:
        moment = instant(str(created))
    except ValueError:
        return True
    return (not after or moment >= instant(after)) and (not before or moment < instant(before))
