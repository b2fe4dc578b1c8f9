"""When two objects or rows count as equal, and where they differ. Pure.

What the server is known to change on its own is equal; TOLERATED is the whole list. Everything
else is compared exactly, types included: true is not 1, and in rows 1 is not 1.0.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections import Counter
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

from bt_migrate.model.date_windows import instant, iso
from bt_migrate.model.json_object import JsonObject

DIGEST_BYTES = 16
BYTES_MARK = "sha256:"

# What counts as equal although it is different, and why. Each use is counted under its name.
TOLERATED: Mapping[str, str] = {
    "timestamp": "the same instant, written in another zone or precision: the server normalizes"
    " RFC 3339 strings to UTC",
    "reference": "an id of the source became the id of its counterpart",
    "version": "a transaction of the source was removed (version pins, origin._xact_id): it means"
    " nothing in the destination",
    "left_out": "a reference to what is not in the destination (a user, what cannot be moved, what"
    " is missing itself) was left out; in an earlier state of a dataset, also a reference to what"
    " was created after that state",
    "attachment": "another key, the same bytes, file name and content type",
    "attachment_unreadable": "an attachment whose bytes can be read on neither side",
    "inline": "inline base64 became an attachment of the same bytes",
    "oversize": "a field of a row above the size limit became a JSON attachment of the same value",
    "origin": "the row of the destination has an origin, and that of the source has none",
    "unset": "null, absent, empty or false: a field of an object that nobody set",
    "made_private": "a public experiment is private in the destination (without --keep-public)",
    "owner": "a project that was in the destination before belongs to another user there",
    "whole_number": "a whole number of an object lost its fraction: 1.0 is read as 1",
    "not_listed": "the destination refuses the views or ACLs of an object that has none in the"
    " source",
    "comments_unreadable": "comments of a row, in a destination that shows no comments of any row",
}

_STAMP = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:Z|[+-]\d{2}:?\d{2})"
_TIMESTAMP = re.compile(_STAMP + r"\Z", re.ASCII)
_FRACTION = re.compile(r"\.\d+", re.ASCII)
# A string that is a timestamp and not a key, in compact JSON.
_STAMP_IN_JSON = re.compile(rf'"({_STAMP})"(?=[,}}\]])', re.ASCII)
# A date that is surely in UTC: only its form can differ from that of `iso`.
_PLAIN = re.compile(
    r"(?!0000)(\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8]))"
    r"[T ]((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(\.\d+)?(?:Z|\+00:?00)\Z",
    re.ASCII,
)
# A part of what looks like a timestamp and is not written as `iso` writes it. A pattern that starts
# with a fixed character is fast.
_OTHERWISE = re.compile(
    r'-\d{2}-\d{2}(?:T\d{2}:\d{2}:\d{2}(?!(?:\.\d*[1-9])?Z")| \d{2}:\d{2}:\d{2})', re.ASCII
)
_DATA_URL = re.compile(r"data:[^,]*;base64,")

_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), check_circular=False
).encode  # decoded JSON contains no cycle


# -- objects: null and absent are equal, at any depth


def same(left: Any, right: Any) -> bool:
    """Equality of two JSON values of objects."""
    if left is right:
        return True
    if isinstance(left, dict) and isinstance(right, dict):
        return all(same(left.get(key), right.get(key)) for key in left.keys() | right.keys())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return _same_scalar(_number(left), _number(right))


def _number(value: Any) -> Any:
    """Returns the integer for a whole float, which databases of objects write without fraction."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# assumption: whole_numbers_keep_their_fraction
def _same_scalar(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, str):
        return left == right or _same_instant(left, right)
    if isinstance(left, float):
        return _same_float(left, right)
    return bool(left == right)


def _same_float(left: float, right: float) -> bool:
    if math.isnan(left) or math.isnan(right):
        return math.isnan(left) and math.isnan(right)
    return left == right and math.copysign(1.0, left) == math.copysign(1.0, right)


def _same_instant(left: str, right: str) -> bool:
    if not (_TIMESTAMP.match(left) and _TIMESTAMP.match(right)):
        return False
    try:
        return _in_utc(left) == _in_utc(right)
    except ValueError:  # 2026-13-45 looks like a date and is none
        return False


def differing_fields(left: JsonObject, right: JsonObject, fields: Iterable[str]) -> List[str]:
    """Returns the names among `fields` whose values differ, in the given order."""
    return [field for field in fields if not same(left.get(field), right.get(field))]


def canonical(value: Any) -> Any:
    """Returns a form that is identical for equal values: no nulls in objects, no fraction of whole
    numbers, timestamps in UTC.

    Lists keep their order and nulls.
    """
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, str) and _TIMESTAMP.match(value):
        try:
            return _in_utc(value)
        except ValueError:
            return value
    return _number(value)


def _in_utc(timestamp: str) -> str:
    """The timestamp as `iso` writes it, but with all digits of the fraction; a datetime holds six.

    Raises ValueError for a text that is not a date.
    """
    plain = _PLAIN.match(timestamp)
    if plain:
        seconds, fraction = f"{plain[1]}T{plain[2]}", plain[3]
    else:
        seconds = iso(instant(timestamp).replace(microsecond=0))[:-1]
        match = _FRACTION.search(timestamp)
        fraction = match[0] if match else ""
    return f"{seconds}{(fraction or '').rstrip('0').rstrip('.')}Z"


def digest(value: Any) -> bytes:
    """16 bytes, equal exactly for equal values of objects."""
    return text_digest(_encode(canonical(value)))


def difference_print(source: str, dest: str) -> str:
    """Returns what identifies a difference: both fingerprints, "" for a missing side."""
    return f"{source}.{dest}"


# -- rows: exact but for nulls and timestamps


def canonical_text(row: Mapping[str, Any]) -> Tuple[str, str, int]:
    """(canonical text, exact text, number of timestamps that differ between the two).

    Equal rows have equal canonical texts, with timestamps in UTC. A null field of the row is left
    out: a row is read with null for each field that it does not have. Inside of fields, nulls are
    content.
    """
    exact = _encode(
        {name: value for name, value in row.items() if value is not None}
        if None in row.values()
        else row
    )
    parts, end = [], 0
    for match in _OTHERWISE.finditer(exact):
        opening = match.start() - len('"2026')
        # not behind a backslash: that is a quote inside of a string
        stamp = (
            _STAMP_IN_JSON.match(exact, opening)
            if opening > 0 and exact[opening - 1] in "[,:"
            else None
        )
        if stamp:
            try:
                parts += [exact[end : opening + 1], _in_utc(stamp[1])]
                end = stamp.end(1)
            except ValueError:  # it looks like a timestamp and is none
                pass
    return ("".join((*parts, exact[end:])), exact, len(parts) // 2) if parts else (exact, exact, 0)


def text_digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("ascii"), digest_size=DIGEST_BYTES).digest()


def row_digest(row: Mapping[str, Any]) -> bytes:
    """16 bytes that are equal exactly for rows of equal canonical text."""
    return text_digest(canonical_text(row)[0])


# -- where two values differ


def differing_paths(
    left: Any, right: Any, path: str, tolerated: Counter[str], *, nulls_count: bool = True
) -> Iterator[str]:
    """Dotted paths at which `right` differs from `left`; each tolerated change is counted.

    Without `nulls_count`, null and absent are equal, as in objects. The key of each attachment is
    replaced by `sha256:…` on both sides.
    """
    if left is right:
        return
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            inner = f"{path}.{key}" if path else key
            if key in left and key in right:
                yield from differing_paths(
                    left[key], right[key], inner, tolerated, nulls_count=nulls_count
                )
            elif nulls_count or left.get(key) is not None or right.get(key) is not None:
                yield inner
            else:
                tolerated["unset"] += 1
    elif isinstance(left, list) and isinstance(right, list):
        if len(left) != len(right):
            yield path
            return
        for number, pair in enumerate(zip(left, right)):
            yield from differing_paths(
                *pair, f"{path}[{number}]", tolerated, nulls_count=nulls_count
            )
    elif not _same_scalar(left, right):
        if not nulls_count and same(left, right):
            tolerated["whole_number"] += 1
        elif _became_attachment(left, right):
            tolerated["inline"] += 1
        else:
            yield path
    elif isinstance(left, str) and left != right:
        tolerated["timestamp"] += 1


def _became_attachment(left: Any, right: Any) -> bool:
    """Whether `right` is an attachment of the bytes that `left` holds as base64.

    The server moves such bytes into an attachment when a row is inserted.
    """
    if not (
        isinstance(left, str)
        and isinstance(right, dict)
        and str(right.get("key")).startswith(BYTES_MARK)
    ):
        return False
    try:
        content = base64.b64decode(_DATA_URL.sub("", left, count=1), validate=True)
    except (binascii.Error, ValueError):
        return False
    return bool(bytes_mark(hashlib.sha256(content).hexdigest()) == right["key"])


def bytes_mark(sha256: str) -> str:
    """The replacement for the key of an attachment of these bytes."""
    return BYTES_MARK + sha256


def day_of(created: Optional[str]) -> str:
    """`2026-01-15`, the day of a row in UTC; "" for a date that cannot be read."""
    text = str(created)
    plain = _PLAIN.match(text)
    if plain:
        return plain[1]
    try:
        return iso(instant(text))[:10]
    except ValueError:
        return ""


def merged(uses: Iterable[Mapping[str, int]]) -> Dict[str, int]:
    """Returns the sums of uses, in the order of the table."""
    total: Counter[str] = Counter()
    for counts in uses:
        total.update(counts)
    return {name: total[name] for name in TOLERATED if total[name]}
