"""A row that an earlier run left unfinished, and a row that a person changed."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, Dict, Optional

import pytest

from bt_migrate.model.references import Path
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.rows import encode
from bt_migrate.rows.encode import RowEncoder
from bt_migrate.rows.unfinished import is_left_unfinished


def attached(key: str, **more: Any) -> Dict[str, Any]:
    return {"type": "braintrust_attachment", "key": key, "filename": "f", **more}


ORIGIN = {"object_type": "experiment", "object_id": "new", "id": "r"}
WITH_ORIGIN = {"id": "1", "input": {"a": None}, "origin": ORIGIN}
LATE_ORIGIN: Dict[Path, Optional[str]] = {("origin",): None}
PINNED = {"id": "1", "origin": {**ORIGIN, "_xact_id": "2"}}
LATE_PIN: Dict[Path, Optional[str]] = {("origin", "_xact_id"): None}
PROMPT = {"id": "1", "metadata": {"prompt": {"id": "new", "name": "p"}, "list": ["x", "y", "x"]}}
LATE_PROMPT: Dict[Path, Optional[str]] = {("metadata", "prompt", "id"): None}
LATE_ITEMS: Dict[Path, Optional[str]] = {("metadata", "list", n): None for n in (0, 2)}
PARENT = {"id": "1", "metadata": {"braintrust.parent": "experiment_id:new"}}
LATE_PARENT: Dict[Path, Optional[str]] = {("metadata", "braintrust.parent"): "experiment_id:old"}
NESTED = {"id": "1", "metadata": {"list": ["x", {"to": "y", "n": 1}, attached("d1")]}}
LATE_NESTED: Dict[Path, Optional[str]] = {
    ("metadata", "list", 0): None,
    ("metadata", "list", 1, "to"): None,
}
FILES = {"id": "1", "input": [attached("d1"), attached("d2")], "output": attached("d1")}


def prompt(**fields: Any) -> Dict[str, Any]:
    return {"id": "1", "metadata": {**PROMPT["metadata"], "prompt": fields}}


def items(*values: Any) -> Dict[str, Any]:
    return {"id": "1", "metadata": {**PROMPT["metadata"], "list": [*values]}}


def nested(*values: Any) -> Dict[str, Any]:
    return {"id": "1", "metadata": {"list": [*values]}}


def files(first: Any, second: Any, output: Any) -> Dict[str, Any]:
    return {"id": "1", "input": [first, second], "output": output}


@pytest.mark.parametrize(
    ("row", "late", "there", "unfinished"),
    [
        # A reference is left out: absent, null, or written by now.
        (WITH_ORIGIN, LATE_ORIGIN, {"id": "1", "input": {"a": None}}, True),
        (WITH_ORIGIN, LATE_ORIGIN, {"id": "1", "input": {"a": None}, "origin": None}, True),
        (WITH_ORIGIN, LATE_ORIGIN, {**WITH_ORIGIN, "error": None, "tags": None}, True),
        (WITH_ORIGIN, LATE_ORIGIN, {**WITH_ORIGIN, "origin": {**ORIGIN, "id": "s"}}, False),
        (WITH_ORIGIN, LATE_ORIGIN, {**WITH_ORIGIN, "origin": "new"}, False),
        (WITH_ORIGIN, {}, {"id": "1", "input": {"a": None}}, False),
        (PINNED, LATE_PIN, {"id": "1", "origin": ORIGIN}, True),
        (PINNED, LATE_PIN, {"id": "1"}, False),
        (PINNED, {**LATE_PIN, **LATE_ORIGIN}, {"id": "1", "origin": ORIGIN}, True),
        (PINNED, {**LATE_PIN, **LATE_ORIGIN}, {"id": "1"}, True),
        (PINNED, {**LATE_PIN, **LATE_ORIGIN}, {"id": "1", "origin": {**ORIGIN, "id": "s"}}, False),
        (PROMPT, LATE_PROMPT, prompt(name="p"), True),
        (PROMPT, LATE_PROMPT, prompt(name="p", id=None), True),
        (PROMPT, LATE_PROMPT, prompt(name="p", id="new"), True),
        (PROMPT, LATE_PROMPT, prompt(name="p", id="other"), False),
        (PROMPT, LATE_PROMPT, prompt(id="new"), False),
        (PROMPT, LATE_PROMPT, {"id": "1", "metadata": {"list": ["x", "y", "x"]}}, False),
        # An item that is left out moves the others.
        (PROMPT, LATE_ITEMS, items("y"), True),
        (PROMPT, LATE_ITEMS, items("x", "y"), True),
        (PROMPT, LATE_ITEMS, items("y", "x"), True),
        (PROMPT, LATE_ITEMS, items("x", "y", "x"), True),
        (PROMPT, LATE_ITEMS, items("x", "x"), False),
        (PROMPT, LATE_ITEMS, items(), False),
        (PROMPT, LATE_ITEMS, items("x", "y", "x", "x"), False),
        (PROMPT, LATE_ITEMS, items("y", "z"), False),
        (NESTED, LATE_NESTED, nested({"n": 1}, attached("s1")), True),
        (NESTED, LATE_NESTED, nested("x", {"n": 1}, attached("d1")), True),
        (NESTED, LATE_NESTED, nested({"n": 1, "to": "y"}, attached("s1")), True),
        (NESTED, LATE_NESTED, nested({"n": 2}, attached("s1")), False),
        # The source's text stays.
        (PARENT, LATE_PARENT, PARENT, True),
        (PARENT, LATE_PARENT, {"id": "1", "metadata": {}}, False),
        (
            PARENT,
            LATE_PARENT,
            {"id": "1", "metadata": {"braintrust.parent": "experiment_id:old"}},
            True,
        ),
        (
            PARENT,
            LATE_PARENT,
            {"id": "1", "metadata": {"braintrust.parent": "experiment_id:x"}},
            False,
        ),
        # An attachment still names the source's.
        (FILES, {}, files(attached("s1"), attached("s2"), attached("s1")), True),
        (FILES, {}, files(attached("s1"), attached("d2"), attached("d1")), True),
        (FILES, {}, files(attached("s2"), attached("d2"), attached("d1")), False),
        (FILES, {}, files(attached("s1", filename="g"), attached("d2"), attached("d1")), False),
        (FILES, {}, files(None, attached("d2"), attached("d1")), False),
        (FILES, {}, {"id": "1", "input": [attached("s1")], "output": attached("d1")}, False),
        # Any other place was changed by a person.
        (WITH_ORIGIN, LATE_ORIGIN, {"id": "1", "input": {}}, False),
        (WITH_ORIGIN, LATE_ORIGIN, {"id": "1", "input": {"a": None}, "tags": ["t"]}, False),
        (WITH_ORIGIN, LATE_ORIGIN, {"id": "1", "input": {"a": 0}}, False),
        # Equal as rows are.
        ({"id": "1", "input": 1}, {}, {"id": "1", "input": 1}, True),
        ({"id": "1", "input": 1}, {}, {"id": "1", "input": 1.0}, False),
        ({"id": "1", "input": 1}, {}, {"id": "1", "input": True}, False),
        ({"id": "1", "input": -0.0}, {}, {"id": "1", "input": 0.0}, False),
        ({"id": "1", "input": [None]}, {}, {"id": "1", "input": []}, False),
        (
            {"id": "1", "created": "2026-01-02T03:04:05.000Z"},
            {},
            {"id": "1", "created": "2026-01-02T03:04:05Z"},
            True,
        ),
    ],
)
def test_what_an_earlier_run_may_have_left_is_completed_and_nothing_else(
    row: Dict[str, Any], late: Dict[Path, Optional[str]], there: Dict[str, Any], unfinished: bool
) -> None:
    assert is_left_unfinished(row, there, late, {"d1": "s1", "d2": "s2"}) is unfinished


def test_the_time_does_not_grow_with_the_number_of_possible_rows() -> None:
    """Half of 20,000 references and of 20,000 attachments are left: 2^40,000 ways."""
    count = 20_000
    row = {
        "id": "1",
        "metadata": {"list": [f"x{n}" for n in range(count)]},
        "input": [attached(f"d{n}") for n in range(count)],
    }
    there = {
        "id": "1",
        "metadata": {"list": [f"x{n}" for n in range(0, count, 2)]},
        "input": [attached(f"{'sd'[n % 2]}{n}") for n in range(count)],
    }
    late: Dict[Path, Optional[str]] = {("metadata", "list", n): None for n in range(count)}
    keys = {f"d{n}": f"s{n}" for n in range(count)}
    started = time.process_time()
    assert is_left_unfinished(row, there, late, keys)
    assert not is_left_unfinished(row, {**there, "output": 1}, late, keys)
    assert time.process_time() - started < 10


def test_a_deep_row_is_compared_without_recursion() -> None:
    deep: Any = "bottom"
    for _ in range(1_500):
        deep = {"k": [deep]}
    row = {"id": "1", "input": deep, "origin": ORIGIN}
    assert is_left_unfinished(row, {"id": "1", "input": deep}, LATE_ORIGIN, {})


def test_a_version_of_an_origin_that_is_known_now_may_have_been_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    targets = SimpleNamespace(
        resolve=lambda to, ref: "new",
        known_ids=dict,
        known_tails=lambda digits: frozenset(),
    )
    settings = SimpleNamespace(attachments=True, max_row_bytes=1, rename_projects={})
    catalog: Any = SimpleNamespace(targets=targets, settings=settings)
    row = {"id": "1", "origin": {**ORIGIN, "_xact_id": "2"}}
    version, id_only = [("origin", "_xact_id"), ("origin",)], [("origin",)]
    for dest_version, late in (("7", version), (None, id_only)):
        monkeypatch.setattr(encode, "resolve_version", lambda *of, found=dest_version: found)
        encoder = RowEncoder(catalog, ROW_KINDS["experiments"])
        assert list(encoder.late_references(row)) == late
