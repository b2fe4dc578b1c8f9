"""JSON Schemas of what programs print, made from the tables of fields in the code."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterator, List, Mapping

from bt_migrate.cli.json_fields import JSON_FIELDS
from bt_migrate.report.fields import PLAN_FIELDS, REPORT_FIELDS, SHAPES, JsonField

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# name of the schema -> title of its fields in the manual
PRINTED = {
    "summary": "validate, migrate-all, migrate-…",
    "verify": "verify",
    "undo": "undo",
    "status": "status",
    "status-all": "status --all (a list)",
    "status-shards": "status of a folder of shards",
    "control": "control",
    "plan-shards": "plan-shards (a line for each shard)",
}
TABLES: Mapping[str, Mapping[str, JsonField]] = {
    **{name: JSON_FIELDS[title] for name, title in PRINTED.items()},
    "plan": PLAN_FIELDS,
    "report": REPORT_FIELDS,
}
LISTS = ("status-all",)
TYPES = ("string", "integer", "number", "boolean")
TOKEN = re.compile(r"[\w*-]+|\S")


def schema_text(name: str) -> str:
    return json.dumps(schema_of(name), indent=1, ensure_ascii=False) + "\n"


def schema_of(name: str) -> Dict[str, Any]:
    """Returns the schema; names of shapes that it uses are in `$defs`."""
    fields = TABLES[name]
    properties = {
        field: {**_schema(shape.rstrip("~")), "description": about}
        for field, (shape, about) in fields.items()
    }
    required = [field for field, (shape, _) in fields.items() if not shape.endswith("~")]
    whole: Dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    if name in LISTS:
        whole = {"type": "array", "items": whole}
    return {"$schema": DIALECT, "title": f"bt_migrate: {name}", **whole, **_definitions(whole)}


def _definitions(schema: Dict[str, Any]) -> Dict[str, Any]:
    """Returns the named shapes that the schema refers to, and those that they refer to."""
    found: Dict[str, Any] = {}
    texts = [json.dumps(schema)]
    while texts:
        for name in re.findall(r"#/[$]defs/(\w+)", texts.pop()):
            if name not in found:
                found[name] = _schema(SHAPES[name])
                texts.append(json.dumps(found[name]))
    return {"$defs": dict(sorted(found.items()))} if found else {}


def _schema(shape: str) -> Dict[str, Any]:
    """Returns the schema of a shape of `report/fields.py`."""
    tokens = TOKEN.findall(shape)
    schema = _read(tokens)
    assert not tokens, shape
    return schema


def _read(tokens: List[str]) -> Dict[str, Any]:
    """Takes one shape from the beginning of the tokens."""
    token = tokens.pop(0)
    if token == "[":
        schema: Dict[str, Any] = {"type": "array", "items": _read(tokens)}
        assert tokens.pop(0) == "]"
    elif token == "{":
        schema = _object(tokens)
    elif token == "any":
        schema = {}
    elif token in TYPES:
        schema = {"type": token}
    else:
        schema = {"$ref": f"#/$defs/{token}"}
    if tokens[:1] == ["?"]:
        tokens.pop(0)
        return {"anyOf": [schema, {"type": "null"}]}
    return schema


def _object(tokens: List[str]) -> Dict[str, Any]:
    properties = {}
    required = []
    for name, is_required in _fields(tokens):
        properties[name] = _read(tokens)
        if is_required:
            required.append(name)
    if set(properties) == {"*"}:
        return {"type": "object", "additionalProperties": properties["*"]}
    return {"type": "object", "properties": properties, "required": required}


def _fields(tokens: List[str]) -> Iterator[Any]:
    """Yields (name, whether it is required) of each field; its shape is taken in between."""
    end = ""
    while end != "}":
        name = tokens.pop(0)
        is_required = tokens[0] != "~"
        if not is_required:
            tokens.pop(0)
        assert tokens.pop(0) == ":"
        yield name, is_required
        end = tokens.pop(0)
