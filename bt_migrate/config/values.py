"""values."""

from __future__ import annotations

import csv
import re
from typing import Dict, Tuple
from urllib.parse import urlsplit

from bt_migrate.errors import UsageError
from bt_migrate.model.date_windows import UNITS, zone_of
from bt_migrate.model.resources import OBJECT_RESOURCES, SELECTABLE

DEFAULT_URL = "https://api.braintrust.dev"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FORMATS = ("text", "json")
KEEP, UPDATE, FAIL = POLICIES = (
    "keep",
    "update",
    "fail",
)  # what to do with an object that exists with other content
CONFLICTING = (*(one.name for one in OBJECT_RESOURCES), "logs")


def _whole(name: str, text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise UsageError(f"{name}: {text[:40]!r} is not a whole number of at least {least}")
    return number


def _positive(name: str, text: str) -> int:
    return _whole(name, text, 1)


def _not_negative(name: str, text: str) -> int:
    return _whole(name, text, 0)


def _seconds(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 86400:
        raise UsageError(f"{name}: {text[:40]!r} is not a number of seconds")
    return number


def _ratio(name: str, text: str) -> float:
    number = _seconds(name, text)
    if not 0 < number <= 1:
        raise UsageError(f"{name}: {text[:40]!r} is not a ratio above 0 and at most 1")
    return number


def _switch(name: str, text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise UsageError(f"{name}: {text[:40]!r} is neither true nor false")


def _text(name: str, text: str) -> str:
    return text


def _url(name: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        good = (
            parts.scheme in ("http", "https")
            and parts.hostname
            and parts.port != 0
            and not parts.query
            and not parts.fragment
        )
    except ValueError:  # of a port or an IPv6 address that is none
        good = False
    if not good:
        raise UsageError(f"{name}: {text[:80]!r} is not an http(s) URL such as {DEFAULT_URL}")
    if parts.username or parts.password:
        raise UsageError(f"{name}: leave the user and password out of the URL")
    return text.rstrip("/")


def _level(name: str, text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise UsageError(f"{name}: {text[:40]!r} is none of {', '.join(LOG_LEVELS)}")
    return text.upper()


def _format(name: str, text: str) -> str:
    if text.lower() not in LOG_FORMATS:
        raise UsageError(f"{name}: {text[:40]!r} is none of {', '.join(LOG_FORMATS)}")
    return text.lower()


def _names(name: str, text: str) -> Tuple[str, ...]:
    """Comma-separated names; one that holds a comma stands in double quotes."""
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UsageError(f"{name}: {text[:80]!r}: {error}") from None
    return tuple(one for row in rows for one in row if one.strip())


def _resources(name: str, text: str) -> Tuple[str, ...]:
    asked = [one.strip() for one in _names(name, text)]
    unknown = [one for one in asked if one not in SELECTABLE and one != "all"]
    if unknown:
        raise UsageError(
            f"{name}: unknown resource {unknown[0]!r}; known are: all, {', '.join(SELECTABLE)}"
        )
    if not asked or "all" in asked:
        return SELECTABLE
    return tuple(one for one in SELECTABLE if one in asked)


def _duration(name: str, text: str) -> float:
    """Seconds; `90`, `90s`, `30m` or `2h`."""
    match = re.match(r"(\d+(?:\.\d+)?)([smhd]?)$", text.strip(), re.ASCII)
    if not match:
        raise UsageError(f"{name}: {text[:40]!r} is no duration such as 90, 30m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _most_deletes(name: str, text: str) -> str:
    """`1%` or a number of rows; see `Settings.may_delete`."""
    if not re.match(r"\d{1,9}$|(\d{1,2}(\.\d+)?|100)%$", text, re.ASCII):
        raise UsageError(
            f"{name}: {text[:40]!r} is neither a share such as 1% nor a number of rows"
        )
    return text


def _unit(name: str, text: str) -> str:
    if text and text not in UNITS:
        raise UsageError(f"{name}: {text[:40]!r} is none of {', '.join(UNITS)}")
    return text


def _zone(name: str, text: str) -> str:
    zone_of(name, text)
    return text


def _policies(name: str, text: str) -> Dict[str, str]:
    """Resource -> what to do where it exists with other content. A bare word is for all that are not named."""
    own: Dict[str, str] = {}
    for item in _names(name, text):
        resource, _, word = item.strip().rpartition("=")
        if word not in POLICIES:
            raise UsageError(f"{name}: {word[:40]!r} is none of {', '.join(POLICIES)}")
        if resource and resource not in CONFLICTING:
            raise UsageError(
                f"{name}: unknown resource {resource[:40]!r}; known are: {', '.join(CONFLICTING)}"
            )
        if own.setdefault(resource, word) != word:
            raise UsageError(
                f"{name}: {resource or 'everything'} is to be {own[resource]} and {word}; say one"
            )
    default = own.pop("", KEEP)
    return {resource: own.get(resource, default) for resource in CONFLICTING}


def _renames(name: str, text: str) -> Dict[str, str]:
    """Name of a source project -> its name in the destination, from `Old=New`; `\\=` is an equals sign of a name."""
    renames: Dict[str, str] = {}
    for item in _names(name, text):
        names = [one.replace("\\=", "=") for one in re.split(r"(?<!\\)=", item)]
        if len(names) != 2 or not all(one.strip() for one in names):
            raise UsageError(
                f"{name}: {item[:80]!r} is not Old=New (an equals sign inside a name is written \\=)"
            )
        if names[0] in renames:
            raise UsageError(f"{name}: {names[0][:80]!r} is renamed twice")
        renames[names[0]] = names[1]
    return renames
