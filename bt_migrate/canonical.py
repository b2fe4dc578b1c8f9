"""When two objects or rows count as equal, and where they differ. Pure.

What the server is known to change on its own is equal: a field that is absent and one that is null; a timestamp and the same
instant in UTC (string fields that parse as RFC 3339 are normalized when indexed). Everything else is compared exactly, types
included: 1 is not 1.0 and true is not 1.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, Iterable, List

from bt_migrate.windows import instant, iso

DIGEST_BYTES = 16

_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:?\d{2})\Z", re.ASCII)


def same(left: Any, right: Any) -> bool:
    """Equality of two JSON values in their canonical form."""
    if left is right:
        return True
    if isinstance(left, dict) and isinstance(right, dict):
        return all(same(left.get(key), right.get(key)) for key in left.keys() | right.keys())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
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
        return instant(left) == instant(right)
    except ValueError:  # 2026-13-45 looks like one and is none
        return False


def canonical(value: Any) -> Any:
    """The form in which equal values are identical: nulls left out of objects, timestamps in UTC.

    Lists keep their order and nulls.
    """
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, str) and _TIMESTAMP.match(value):
        try:
            return iso(instant(value))
        except ValueError:
            return value
    return value


def digest(value: Any) -> bytes:
    """16 bytes that are equal exactly for values that are the same in canonical form (types included: json writes 1 and 1.0
    apart).
    """
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode("ascii"), digest_size=DIGEST_BYTES).digest()


def differing_fields(left: dict, right: dict, fields: Iterable[str]) -> List[str]:
    """The names among `fields` whose values are not the same, in the given order."""
    return [field for field in fields if not same(left.get(field), right.get(field))]
