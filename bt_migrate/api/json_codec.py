"""JSON to values and back without changing a value: the standard library, and `orjson` where it is installed and as exact. Pure.

orjson reads integers beyond 64 bits as floats and writes NaN as null; so whatever holds such is left to the standard library, and
what was read by the one is written by the one.
"""

from __future__ import annotations

import importlib
import json
from typing import Any, Tuple


def _optional(name: str) -> Any:
    """The module, None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


orjson = _optional("orjson")

# Digits become 0, what may stand before those of a number becomes a colon, all else becomes x.
_KINDS = bytes(
    48 if one in b"0123456789" else 58 if one in b":,[- \t\r\n" else 120 for one in range(256)
)
_LONG_INTEGER = b":" + b"0" * 19

_encode_utf8 = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":")).encode


def decode(text: bytes) -> Tuple[Any, bool]:
    """(value, plain). `plain`: orjson read it, so `encode_plain` writes it exactly. Raises ValueError for what is no JSON."""
    if orjson is not None and not _has_long_integer(text):
        try:
            return orjson.loads(text), True
        except ValueError:  # NaN, a lone surrogate, deep nesting: for the standard library to judge
            pass
    return json.loads(text), False


def _has_long_integer(text: bytes) -> bool:
    """Whether a number may hold 19 digits before its point; a wrong yes (digits inside a string) costs the slower reader."""
    return _LONG_INTEGER in b":" + text.translate(_KINDS)


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
            return bytes(
                memoryview(orjson.dumps(value))
            )  # a copy of the right size: it gives back the buffer it grew into
        except TypeError:  # it reads deeper nesting than it writes
            pass
    return encode(value)
