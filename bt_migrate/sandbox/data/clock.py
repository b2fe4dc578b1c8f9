"""Transactions, pagination keys and versions in Braintrust's own encoding.

A `moment` is the 48-bit number `unix seconds << 16 | counter`. A transaction id and a pagination
key are made from it:
- _xact_id: decimal of 0x0DE1 << 48 | moment
- _pagination_key: 'p' and 20 digits of moment << 16 | number of the row in its transaction
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from functools import lru_cache
from typing import Optional

XACT_PREFIX = 0x0DE1 << 48
MOMENT_MASK = (1 << 48) - 1
MAX_ROWS_IN_TRANSACTION = 1 << 16
PRETTY_INVERSE = 1522336535492693385
U64 = (1 << 64) - 1


class Clock:
    """The time of one sandbox: the time of this machine, or the time that was set and goes on.

    Its moments are unique and increase, even when the clock is set back.
    """

    def __init__(self) -> None:
        # for strftime; "" for milliseconds, as the hosted service writes; a test may change it
        self.date_format = ""
        self._lock = threading.Lock()
        self._last = 0
        self._last_past = 0
        self.set(time.time())

    def set(self, seconds: float) -> None:
        """Set the clock to this time, in unix seconds."""
        self._ahead = seconds - time.monotonic()

    def seconds(self) -> float:
        """Now, in unix seconds."""
        return time.monotonic() + self._ahead

    def timestamp(self) -> str:
        """Now as the API writes it: UTC, milliseconds, Z."""
        whole, rest = divmod(self.seconds(), 1)
        if self.date_format:
            return time.strftime(self.date_format, time.gmtime(whole))
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        return f"{second}.{int(rest * 1000):03}Z"

    def next_moment(self, at: Optional[int] = None) -> int:
        """Returns an unused moment of now, or of `at` (unix seconds). Both kinds increase."""
        with self._lock:
            if at is not None:
                self._last_past = max(self._last_past + 1, at << 16)
                return self._last_past
            self._last = max(self._last + 1, int(self.seconds()) << 16)
            return self._last


def xact_id(moment: int) -> str:
    return str(XACT_PREFIX | moment)


def moment_of_xact(text: object) -> Optional[int]:
    """The moment of a transaction id, decimal or pretty; None if it is neither."""
    if not isinstance(text, str):
        return None
    if len(text) == 16 and re.fullmatch("[0-9a-f]{16}", text):
        return (int(text, 16) * PRETTY_INVERSE & U64) & MOMENT_MASK
    if re.fullmatch("[0-9]{1,20}", text):
        return int(text) & MOMENT_MASK
    return None


def pagination_key(number: int) -> str:
    return f"p{number:020}"


def key_number(moment: int, row_number: int) -> int:
    return moment << 16 | row_number


def new_id() -> str:
    return str(uuid.uuid4())


_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?\s*([Zz]|[+-]\d\d:?\d\d)?)?$"
)


@lru_cache(maxsize=4096)
def micros(text: str) -> Optional[int]:
    """Microseconds since 1970 of a date or RFC 3339 timestamp (UTC without a zone), else None."""
    match = _RFC3339.match(text)
    if not match:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        return None
    days = _days(year, month, day)
    fraction = int(((match.group(7) or ".")[1:7]).ljust(6, "0"))
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second - _offset_seconds(match.group(8))
    return seconds * 1_000_000 + fraction


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the proleptic Gregorian calendar."""
    shifted = year - (month <= 2)
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


def _offset_seconds(zone: Optional[str]) -> int:
    if not zone or zone in "Zz":
        return 0
    digits = zone[1:].replace(":", "")
    seconds = int(digits[:2]) * 3600 + int(digits[2:]) * 60
    return seconds if zone[0] == "+" else -seconds
