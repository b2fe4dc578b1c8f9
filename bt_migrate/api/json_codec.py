"""JSON to values and back without changing a value. Pure.

The standard library does it, and `orjson` where it is installed and as exact. orjson reads integers
beyond 64 bits as floats and writes NaN as null. Text with such values is left to the standard
library, and a value is written by the library that read it.
"""

from __future__ import annotations

import importlib
import json
import math
from decimal import Decimal
from functools import partial
from typing import Any, Tuple, Union

# 1e999999999 would fill the memory with its digits
MAX_EXPONENT = 10_000


def _optional(name: str) -> Any:
    """Returns the module, None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


orjson = _optional("orjson")


def _class_of(byte: int) -> bytes:
    """Digits become 0, bytes that can precede a number become a colon, all others become x."""
    if byte in b"0123456789":
        return b"0"
    return b":" if byte in b":,[- \t\r\n" else b"x"


_CLASSES = b"".join(_class_of(byte) for byte in range(256))
_LONG_INTEGER = b":" + b"0" * 19

# A value that was read as JSON holds no circle, so nothing looks for one.
_encoder = partial(json.JSONEncoder, check_circular=False, separators=(",", ":"))
_encode_utf8 = _encoder(ensure_ascii=False).encode
_encode_ascii = _encoder().encode


def decode(text: bytes) -> Tuple[Any, bool]:
    """Returns (value, plain). `plain`: orjson read it, so `encode_plain` writes it exactly.

    Raises ValueError for text that is no JSON.
    """
    if orjson is not None and not _has_long_integer(text):
        try:
            return orjson.loads(text), True
        # NaN, a lone surrogate, deep nesting: the standard library decides
        except ValueError:
            pass
    return json.loads(text, parse_float=_number), False


def _number(text: str) -> Union[int, float]:
    """The float, or an integer for a number that is too large for a float (1e400).

    JSON has no infinity, so a server would refuse the row that such a float is written into.
    """
    value = float(text)
    if -math.inf < value < math.inf or Decimal(text).adjusted() > MAX_EXPONENT:
        return value
    return int(Decimal(text))


def _has_long_integer(text: bytes) -> bool:
    """Whether a number may have 19 digits before its point.

    A wrong yes (digits inside a string) costs only the slower reader.
    """
    classes = text.translate(_CLASSES)
    return _LONG_INTEGER in classes or classes.startswith(_LONG_INTEGER[1:])


def encode(value: Any) -> bytes:
    """Returns compact UTF-8 JSON.

    A lone surrogate has no UTF-8 form, so a value with one is written with \\u escapes throughout.
    Integers of any size, -0.0 and NaN keep their text, as the standard library writes what it read.
    """
    try:
        return _encode_utf8(value).encode("utf-8")
    except UnicodeEncodeError:
        return _encode_ascii(value).encode("ascii")


def encode_plain(value: Any) -> bytes:
    """Returns the same for a value that `decode` called plain."""
    if orjson is not None:
        try:
            # a copy of the right size: the buffer that orjson returns has grown too large
            return bytes(memoryview(orjson.dumps(value)))
        # orjson reads deeper nesting than it writes
        except TypeError:
            pass
    return encode(value)
