"""JSON to values and back without changing a value: the standard library, and `orjson` where it is installed and as exact. Pure.

orjson reads integers beyond 64 bits as floats and writes NaN as null; so whatever holds such is left to the standard library, and
what was read by the one is written by the one.
"""

from __future__ import annotations

import json
import re
from typing import Any, Tuple

try:
    import orjson
except ImportError:  # an optional extra
    orjson = None

_LONG_INTEGER = re.compile(rb"(?:^|[:,\[\s])-?\d{19}")

_encode_utf8 = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":")).encode


def decode(text: bytes) -> Tuple[Any, bool]:
    """(value, plain). `plain`: orjson read it, so `encode_plain` writes it exactly. Raises ValueError for what is no JSON."""
    if orjson is not None and not _LONG_INTEGER.search(text):
        try:
            return orjson.loads(text), True
        except ValueError:  # NaN, a lone surrogate, deep nesting: for the standard library to judge
            pass
    return json.loads(text), False


def encode(value: Any) -> bytes:
    """Compact UTF-8 JSON. A lone surrogate has no UTF-8 form, so such a value is written with \\u escapes throughout.

    Integers of any size, -0.0 and NaN keep their text, as the standard library writes what it read.
    """
    try:
        return _encode_utf8(value).encode("utf-8")
    except UnicodeEncodeError:
        return _encode_ascii(value).encode("ascii")


def encode_plain(value: Any) -> bytes:
    """The same for a value of which `decode` said that it is plain."""
    if orjson is not None:
        try:
            return orjson.dumps(value)
        except TypeError:  # it reads deeper nesting than it writes
            pass
    return encode(value)
