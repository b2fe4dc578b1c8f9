"""JSON to values and back by the standard library alone, as it is where orjson is not installed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from bt_migrate.api import json_codec as json_text
from bt_migrate.api.json_codec import decode, encode, encode_plain


@pytest.fixture(autouse=True)
def _without_orjson(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "orjson", None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": 1, "b": [True, None]}, b'{"a":1,"b":[true,null]}'),
        ({"n": 123456789012345678901234567890}, b'{"n":123456789012345678901234567890}'),
        ({"n": -0.0, "m": 1.0, "k": 1}, b'{"n":-0.0,"m":1.0,"k":1}'),
        ({"n": math.nan}, b'{"n":NaN}'),
        ({"n": [math.inf, -math.inf]}, b'{"n":[Infinity,-Infinity]}'),
        ({"s": "Zoë 日本 🙂"}, '{"s":"Zoë 日本 🙂"}'.encode()),
        ({"s": "\x00\n\u2028"}, b'{"s":"\\u0000\\n\xe2\x80\xa8"}'),
        ({"s": "half a pair: \ud83d", "t": "é"}, b'{"s":"half a pair: \\ud83d","t":"\\u00e9"}'),
        ({"\ud83d": 1}, b'{"\\ud83d":1}'),
        ([], b"[]"),
        (None, b"null"),
        ("text", b'"text"'),
    ],
)
def test_values_are_encoded_compactly_and_come_back_the_same(value: Any, expected: bytes) -> None:
    assert (encode(value), encode_plain(value), repr(json.loads(encode(value)))) == (
        expected,
        expected,
        repr(value),
    )
    assert (repr(decode(expected)[0]), decode(expected)[1]) == (repr(value), False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1e400", b"1" + b"0" * 400),
        (b"[-1.5E+309]", b"[-15" + b"0" * 308 + b"]"),
        (b"1e-7", b"1e-07"),
        (b"1e-400", b"0.0"),
        (b"1e99999", b"Infinity"),
    ],
)
def test_a_number_beyond_all_floats_stays_a_number(text: bytes, expected: bytes) -> None:
    assert encode(decode(text)[0]) == expected


def test_fields_keep_their_order_and_the_last_of_two_equal_names_counts() -> None:
    value, _ = decode(b'{"b":1,"a":2,"b":3}')
    assert encode(value) == b'{"b":3,"a":2}'


@pytest.mark.parametrize("text", [b"", b"{", b"<html>", b'{"a":1}{', b"\xff\xfe\x00", b"{'a':1}"])
def test_text_that_is_not_json_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        decode(text)
