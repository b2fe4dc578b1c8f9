"""Functions that read the value of a setting from its text.

Each takes (name, text), where `name` is the flag or variable for error messages. It raises
UsageError if the text is not valid.
"""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import Dict, List, Optional, Tuple
from urllib.parse import urlsplit

from bt_migrate.errors import UsageError
from bt_migrate.model.activation import ACTIVATION_WORDS
from bt_migrate.model.date_windows import UNITS, zone_of
from bt_migrate.model.resource_table import OBJECT_RESOURCES
from bt_migrate.model.resources import SELECTABLE
from bt_migrate.model.selection import chosen, did_you_mean, meant_or_allowed, unmatched

DEFAULT_URL = "https://api.braintrust.dev"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
LOG_FORMATS = ("text", "json")

# What to do with an object that exists in the destination with different content.
KEEP_POLICY = "keep"
UPDATE_POLICY = "update"
FAIL_POLICY = "fail"
# Update objects that changed only in the source since both were equal; default of --since-last.
FOLLOW_POLICY = "follow"
CONFLICT_POLICIES = (KEEP_POLICY, FOLLOW_POLICY, UPDATE_POLICY, FAIL_POLICY)
CONFLICTING = (*(resource.name for resource in OBJECT_RESOURCES), "logs")

UNIT_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
# Words of --history and how many versions before the latest one they mean.
EARLIER_VERSIONS = {"none": 0, "all": 10**9}


def _whole(name: str, text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise UsageError(f"{name}: {text[:40]!r} is not a whole number of at least {least}")
    return number


def positive(name: str, text: str) -> int:
    return _whole(name, text, 1)


def not_negative(name: str, text: str) -> int:
    return _whole(name, text, 0)


def optional_count(name: str, text: str) -> int:
    return positive(name, text) if text else 0


def seconds(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 86400:
        raise UsageError(f"{name}: {text[:40]!r} is not a number of seconds")
    return number


def ratio(name: str, text: str) -> float:
    number = seconds(name, text)
    if not 0 < number <= 1:
        raise UsageError(f"{name}: {text[:40]!r} is not a ratio above 0 and at most 1")
    return number


def switch(name: str, text: str) -> bool:
    if text.lower() in ("true", "1", "yes", "on"):
        return True
    if text.lower() in ("false", "0", "no", "off"):
        return False
    raise UsageError(f"{name}: {text[:40]!r} is not true or false")


def plain_text(name: str, text: str) -> str:
    return text


def optional_text(name: str, text: str) -> Optional[str]:
    return text or None


def output_file(name: str, text: str) -> str:
    """Returns the path if a file can be written there; "" stands for no file."""
    folder = Path(text).absolute().parent
    writable = folder.is_dir() and os.access(folder, os.W_OK) and not Path(text).is_dir()
    if text and not writable:
        raise UsageError(f"{name}: {text} cannot be written as a file")
    return text


def optional_url(name: str, text: str) -> str:
    return url(name, text) if text else ""


def url(name: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        good = bool(parts.scheme in ("http", "https") and parts.hostname and parts.port != 0)
        good = good and not parts.query and not parts.fragment
    except ValueError:  # an invalid port or IPv6 address
        good = False
    if not good:
        raise UsageError(f"{name}: {text[:80]!r} is not an http(s) URL such as {DEFAULT_URL}")
    if parts.username or parts.password:
        raise UsageError(f"{name}: leave the user and password out of the URL")
    return text.rstrip("/")


def log_level(name: str, text: str) -> str:
    if text.upper() not in LOG_LEVELS:
        raise UsageError(f"{name}: {text[:40]!r} is not one of {', '.join(LOG_LEVELS)}")
    return text.upper()


def log_format(name: str, text: str) -> str:
    if text.lower() not in LOG_FORMATS:
        raise UsageError(f"{name}: {text[:40]!r} is not one of {', '.join(LOG_FORMATS)}")
    return text.lower()


def names(name: str, text: str) -> Tuple[str, ...]:
    """Returns comma-separated names. A name with a comma is in double quotes."""
    try:
        lines = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UsageError(f"{name}: {text[:80]!r}: {error}") from None
    return tuple(item for line in lines for item in line if item.strip())


def resources(name: str, text: str) -> Tuple[str, ...]:
    """Returns the resources in the order in which they are moved."""
    wanted = _resource_names(name, text)
    if not wanted or "all" in wanted:
        return SELECTABLE
    return tuple(chosen(SELECTABLE, wanted, ()))


def excluded_resources(name: str, text: str) -> Tuple[str, ...]:
    excluded = _resource_names(name, text)
    return tuple(chosen(SELECTABLE, excluded, ())) if excluded else ()


def _resource_names(name: str, text: str) -> List[str]:
    words = [item.strip() for item in names(name, text)]
    unknown = unmatched((item for item in words if item != "all"), SELECTABLE)
    if unknown:
        allowed = f"use some of: all, {', '.join(SELECTABLE)}"
        hint = meant_or_allowed(unknown[0], SELECTABLE, allowed)
        raise UsageError(f"{name}: unknown resource {unknown[0]!r}{hint}")
    return words


def activations(name: str, text: str) -> Tuple[str, ...]:
    """Returns the words of --activate in the order of ACTIVATION_WORDS."""
    words = [item.strip() for item in names(name, text)]
    unknown = [word for word in words if word not in ("all", *ACTIVATION_WORDS)]
    if unknown:
        allowed = f"use some of: all, {', '.join(ACTIVATION_WORDS)}"
        hint = meant_or_allowed(unknown[0], ACTIVATION_WORDS, allowed)
        raise UsageError(f"{name}: unknown kind {unknown[0]!r}{hint}")
    return tuple(word for word in ACTIVATION_WORDS if word in words or "all" in words)


def duration(name: str, text: str) -> float:
    """Returns seconds, from `90`, `90s`, `30m`, `2h` or `1d`."""
    match = re.match(r"(\d+(?:\.\d+)?)([smhd]?)$", text.strip(), re.ASCII)
    if not match:
        raise UsageError(f"{name}: {text[:40]!r} is not a duration such as 90, 30m or 2h")
    return float(match[1]) * UNIT_SECONDS[match[2]]


def history(name: str, text: str) -> int:
    """Returns how many earlier versions are moved, from `none`, `all` or a number."""
    if text in EARLIER_VERSIONS:
        return EARLIER_VERSIONS[text]
    if not re.match(r"[1-9]\d{0,8}$", text, re.ASCII):
        raise UsageError(f"{name}: {text[:40]!r} is not all, none or a number of versions")
    return int(text)


def max_deletes(name: str, text: str) -> str:
    """`1%` or a number of rows; see `Settings.may_delete`."""
    if not re.match(r"\d{1,9}$|(\d{1,2}(\.\d+)?|100)%$", text, re.ASCII):
        raise UsageError(f"{name}: {text[:40]!r} is not a share such as 1% or a number of rows")
    return text


def window_unit(name: str, text: str) -> str:
    if text and text not in UNITS:
        hint = did_you_mean(text, UNITS)
        raise UsageError(f"{name}: {text[:40]!r} is not one of {', '.join(UNITS)}{hint}")
    return text


def zone(name: str, text: str) -> str:
    zone_of(name, text)
    return text


def conflict_policies(name: str, text: str, default: str = KEEP_POLICY) -> Dict[str, str]:
    """Returns resource -> policy, for each resource that can conflict.

    A word without a resource is the policy of all resources that are not named. If there is none,
    their policy is `default`.
    """
    own: Dict[str, str] = {}
    for item in names(name, text):
        resource, _, word = item.strip().rpartition("=")
        if word not in CONFLICT_POLICIES:
            hint = did_you_mean(word, CONFLICT_POLICIES)
            allowed = ", ".join(CONFLICT_POLICIES)
            raise UsageError(f"{name}: {word[:40]!r} is not one of {allowed}{hint}")
        if resource and resource not in CONFLICTING:
            allowed = f"use some of: {', '.join(CONFLICTING)}"
            hint = meant_or_allowed(resource, CONFLICTING, allowed)
            raise UsageError(f"{name}: unknown resource {resource[:40]!r}{hint}")
        if own.setdefault(resource, word) != word:
            raise UsageError(
                f"{name}: {resource or 'everything'} is set to both {own[resource]} and {word};"
                " choose one"
            )
    default = own.pop("", default)
    return {resource: own.get(resource, default) for resource in CONFLICTING}


def project_renames(name: str, text: str) -> Dict[str, str]:
    """Returns name of a source project -> name in the destination, from `Old=New`.

    An equals sign inside a name is written `\\=`.
    """
    renames: Dict[str, str] = {}
    for item in names(name, text):
        pair = [part.replace("\\=", "=") for part in re.split(r"(?<!\\)=", item)]
        if len(pair) != 2 or not all(part.strip() for part in pair):
            raise UsageError(
                f"{name}: {item[:80]!r} is not Old=New"
                " (an equals sign inside a name is written \\=)"
            )
        if pair[0] in renames:
            raise UsageError(f"{name}: {pair[0][:80]!r} is renamed twice")
        renames[pair[0]] = pair[1]
    return renames
