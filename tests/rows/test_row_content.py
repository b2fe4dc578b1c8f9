"""What rows hold arrives exactly as it was, with orjson and without it."""

from __future__ import annotations

import importlib.util
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, Iterator, List, Optional

import pytest

import bt_migrate.api.client  # noqa: F401  the edge at which integers of any size are let through
from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import environment, is_insert
from tests.support.row_runs import World, counted, refused, small_rows, told, world

KINDS = ("project_logs", "experiment", "dataset")
ORJSON = importlib.util.find_spec("orjson") is not None


def nested(levels: int) -> Any:
    value: Any = "bottom"
    for level in range(levels):
        value = {"k": value} if level % 2 else [value]
    return value


VALUES: Dict[str, Any] = {
    "integers": [
        0,
        -1,
        2**53 + 1,
        2**63 - 1,
        2**63,
        2**64 - 1,
        2**64,
        -(2**63),
        -(2**63) - 1,
        10**40,
        -(10**400),
        int("7" * 4400),
    ],
    "floats": [
        0.1,
        -0.0,
        1.0,
        100.0,
        1e-320,
        5e-324,
        1.7976931348623157e308,
        1e22,
        1e16,
        123456789.123456789,
        2**53 + 0.0,
        1e-7,
    ],
    "lone surrogates": ["\ud83d", "a\udc00b", {"\ud83d": "\udfff"}, "\ude00\ud83d"],
    "control characters": [
        "\x00",
        "\x00\x01\x1f\x7f",
        "\u2028\u2029",
        {"\x00": "\x00"},
        "\ufeff",
        "\uffff",
    ],
    "other letters": ["Zoë", "日本語", "\U0001f600" * 10, "e\u0301", "\u202e", {"\U0001f600": 1}],
    "timestamps": ["2024-01-01T00:00:00Z", "2024-01-01T01:00:00+01:00", "2024-13-45T99:00:00Z"],
    "texts like JSON": ['{"a":1}', "null", "NaN", "1e5", "-0", "\\ud83d", '"'],
    "empty": [{}, [], "", None, {"": ""}, [[]], {"a": None}],
    "deep": nested(500),
    "deep in the middle": nested(252),
    "a megabyte": "x" * 1_000_000,
    "a megabyte of emoji": "\U0001f600" * 250_000,
    "10,000 keys": {f"key {number}": number for number in range(10_000)},
    "100,000 numbers": list(range(100_000)),
    "true is not 1": [True, 1, 1.0, False, 0, 0.0, None],
}


def rows(kind: str) -> List[Dict[str, Any]]:
    """Returns a row for each value, with the value in every field that takes any JSON."""
    places = (
        ("input", "expected") if kind == "dataset" else ("input", "output", "expected", "error")
    )
    found: List[Dict[str, Any]] = []
    for name, value in VALUES.items():
        found.append(
            {
                "id": name,
                "created": "2024-01-01T00:00:00.000Z",
                "metadata": {"m": value},
                **dict.fromkeys(places, value),
            }
        )
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.variants(1)
def test_awkward_values_arrive_equal(kind: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = [w.project] if kind == "project_logs" else w.make(kind, "one", "two")
        for object_id in ids:
            w.source.insert(kind, object_id, rows(kind))
        code = w.move(kind)
        source, dest = w.contents(kind, ids)
        assert (code, source == dest, told(w.root)) == (0, True, {})


WITHOUT = """
import sys
sys.modules["orjson"] = None  # as if it were not installed
from bt_migrate.phases.{phase} import main
sys.exit(main(sys.argv[1:]))
"""


def run_without_orjson(w: World, phase: str, *args: str, **settings: str) -> int:
    command = [sys.executable, "-c", WITHOUT.format(phase=phase), "--state-dir", str(w.root), *args]
    return subprocess.run(
        command, env=environment(w.sandbox, **settings), cwd=str(w.root.parent), capture_output=True
    ).returncode


def test_awkward_values_arrive_equal_without_orjson(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert("project_logs", w.project, rows("project_logs"))
        code = run_without_orjson(w, "migrate_logs")
        source, dest = w.contents("project_logs", [w.project])
        assert (code, source == dest) == (0, True)


@pytest.mark.skipif(not ORJSON, reason="needs orjson")
@pytest.mark.parametrize("first", ["with", "without"])
@pytest.mark.variants(1)
def test_what_was_written_with_one_library_is_found_with_the_other(
    first: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        w.source.insert("project_logs", w.project, rows("project_logs"))
        if first == "without":
            codes = [run_without_orjson(w, "migrate_logs"), w.move("project_logs", "--new-run")]
        else:
            codes = [w.move("project_logs"), run_without_orjson(w, "migrate_logs", "--new-run")]
        assert (codes, counted(w.root)) == (
            [0, 0],
            {"rows": {"fetched": len(VALUES), "found": len(VALUES)}},
        )


@pytest.mark.parametrize("name", ["deep", "integers", "lone surrogates", "10,000 keys"])
def test_a_row_with_an_attachment_among_awkward_values_arrives_equal(
    name: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        file = w.source.attach(b"bytes", filename="f", content_type="x/y")
        w.source.insert(
            "project_logs", w.project, [{"id": "r", "input": VALUES[name], "output": file}]
        )
        assert w.move("project_logs") == 0
        (row,) = w.dest.rows("project_logs", w.twin("project_logs", w.project))
        assert json.dumps(row["input"]) == json.dumps(VALUES[name])
        assert w.dest.attachment(row["output"]["key"]) == b"bytes"


def test_rows_with_awkward_ids_arrive_once(tmp_path: Path) -> None:
    ids = [
        "\x00",
        "a\nb",
        "'; drop table seen; --",
        '"',
        "\\",
        " ",
        "é",
        "e\u0301",
        "\U0001f600",
        "x" * 2000,
        "A",
        "a",
    ]
    with world(tmp_path) as w:
        w.source.insert(
            "project_logs",
            w.project,
            [{"id": row_id, "input": number} for number, row_id in enumerate(ids)],
        )
        for start in range(0, 60, 10):
            w.source.insert("project_logs", w.project, small_rows(10, start))
        code = w.move("project_logs", "--fetch-limit", "30", "--insert-batch-size", "4")
        source, dest = w.contents("project_logs", [w.project])
        assert (code, source == dest, counted(w.root)) == (
            0,
            True,
            {"rows": {"fetched": 60 + len(ids), "created": 60 + len(ids)}},
        )


def test_nan_is_sent_as_the_source_sends_it(tmp_path: Path) -> None:
    """The sandbox refuses NaN, so the test examines what was sent."""
    bodies: List[bytes] = []
    with world(tmp_path) as w:
        w.source.insert("project_logs", w.project, [{"id": "r", "input": ["here", 1.5]}])
        row = w.sandbox.store.rows[("project_logs", w.project)].rows[0]
        row.body = row.body.replace(b'"here"', b"NaN,Infinity,-Infinity")

        def keep(method: str, path: str, raw: bytes) -> Optional[Answer]:
            bodies.append(raw) if is_insert(path) else None
            return None

        w.sandbox.refuse = keep
        assert w.move("project_logs") == 1
        assert [b'"input":[NaN,Infinity,-Infinity,1.5]' in body for body in bodies] == [True]
        assert [(row["id"], row["reason"][:3]) for row in refused(w.root)] == [("r", "400")]


# -- with orjson and without


@pytest.fixture(params=["with orjson", "without"])
def json_text(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    """The module, as it is where orjson is installed and as it is elsewhere."""
    if request.param == "with orjson" and not ORJSON:
        pytest.skip("needs orjson")
    spec = importlib.util.spec_from_file_location(
        "json_codec_alone", Path(bt_migrate.api.client.__file__).with_name("json_codec.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "without":
            patch.setitem(sys.modules, "orjson", None)
        spec.loader.exec_module(module)
    yield module


TEXTS = [
    b'{"a":1,"b":[true,false,null],"c":"x"}',
    b'{"n":9223372036854775807}',
    b'{"n":9223372036854775808}',
    b'{"n":18446744073709551615}',
    b'{"n":18446744073709551616}',
    b'{"n":-9223372036854775809}',
    b'{"n":123456789012345678901234567890}',
    b'{"n": 123456789012345678901234567890}',
    b"[\t-123456789012345678901234567890\n]",
    b"[1,\r\n123456789012345678901234567890]",
    b'{"n":' + b"9" * 5000 + b"}",
    b'{"n":0.1234567890123456789012}',
    b'{"n":1234567890123456789012.5}',
    b'{"n":1e22,"m":1E+5,"k":1.0}',
    b'{"n":-0.0,"m":-0,"k":0}',
    b'{"n":1e-320}',
    b'{"n":5e-324}',
    b'{"n":2.2250738585072011e-308}',
    b'{"n":1.7976931348623157e308}',
    b'{"n":NaN}',
    b"[Infinity,-Infinity]",
    b'{"s":"\\ud83d"}',
    b'{"\\udc00":"\\ud83d\\ude00"}',
    b'{"s":"\\u0000\\u001f"}',
    '{"s":"Zoë 日本 🙂"}'.encode(),
    b'{"a":1,"b":2,"a":3}',
    b'{"a":{"a":{}},"b":[[],[[]]]}',
    b"[" * 300 + b"]" * 300,
    b"[" * 500 + b"]" * 500,
    b'{"s":"1000192656880881099","t":"2024-01-01T00:00:00Z"}',
    b'{"x":"' + b"y" * 100_000 + b'"}',
    b'"text"',
    b"null",
    b"123456789012345678901234567890",
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:24].decode("utf-8", "replace"))
def test_json_is_decoded_as_the_standard_library_does(json_text: ModuleType, text: bytes) -> None:
    value, _ = json_text.decode(text)
    assert repr(value) == repr(json.loads(text))


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:24].decode("utf-8", "replace"))
def test_encoded_json_means_what_was_read(json_text: ModuleType, text: bytes) -> None:
    value, plain = json_text.decode(text)
    assert repr(json.loads(json_text.encode(value))) == repr(json.loads(text))
    if plain:
        assert repr(json.loads(json_text.encode_plain(value))) == repr(json.loads(text))


@pytest.mark.parametrize("seed", range(20))
def test_numbers_of_any_form_mean_the_same_in_both_libraries(
    json_text: ModuleType, seed: int
) -> None:
    rng = random.Random(seed)
    numbers = [
        rng.choice(
            (
                repr(rng.uniform(-1, 1) * 10 ** rng.randrange(-320, 308)),
                str(rng.randrange(-(10**25), 10**25)),
            )
        )
        for _ in range(200)
    ]
    numbers += [
        f"{rng.randrange(10**6)}.{rng.randrange(10**18):018}e{rng.randrange(-300, 280)}"
        for _ in range(200)
    ]
    text = (
        "[" + ",".join(number for number in numbers if not math.isinf(float(number))) + "]"
    ).encode()
    value, plain = json_text.decode(text)
    written = json_text.encode_plain(value) if plain else json_text.encode(value)
    assert (repr(value), repr(json.loads(written))) == (
        repr(json.loads(text)),
        repr(json.loads(text)),
    )


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1,]", b"{'a':1}", b"<html>", b'{"a":01}', b"\xff\xfe\x00", b'{"a":"\n"}']
)
def test_what_is_no_json_is_refused(json_text: ModuleType, text: bytes) -> None:
    with pytest.raises(ValueError):
        json_text.decode(text)
