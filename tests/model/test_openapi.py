"""The table of resources compared with small OpenAPI documents."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from bt_migrate.model.openapi import differences
from bt_migrate.model.resource import BY_PROJECT, PROJECT, Pin, Reference, Resource
from bt_migrate.model.resources import BY_NAME
from bt_migrate.phases import check_openapi

UUID = {"type": "string", "format": "uuid"}
TEXT = {"type": "string"}
NOTES = Resource(
    "notes",
    "note",
    "/v1/note",
    PROJECT,
    ("name",),
    create=("name", "text", "config"),
    patch=("name", "text"),
    put=True,
    server=("length",),
    listed=BY_PROJECT,
    references=(Reference("config.links.[].id", ("notes",)),),
    pins=(Pin("config.links.[].version", ("notes",)),),
)


def schema(name: str) -> Dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def body(name: str) -> Dict[str, Any]:
    return {"content": {"application/json": {"schema": schema(name)}}}


def operation(answer: str = "Note", request: str = "", parameters: str = "") -> Dict[str, Any]:
    made: Dict[str, Any] = {"responses": {"200": body(answer)}}
    if request:
        made["requestBody"] = body(request)
    made["parameters"] = [{"name": name} for name in parameters.split()]
    return made


LINK = {"type": "object", "properties": {"id": UUID, "version": TEXT}}
CONFIG = {"type": "object", "properties": {"links": {"type": "array", "items": LINK}}}
WRITTEN = {"name": TEXT, "text": TEXT}
DOCUMENT: Dict[str, Any] = {
    "openapi": "3.0.3",
    "components": {
        "schemas": {
            "Config": {"anyOf": [CONFIG, {"type": "object", "properties": {}}]},
            "CreateNote": {
                "properties": {"project_id": UUID, **WRITTEN, "config": schema("Config")},
                "required": ["project_id", "name"],
            },
            "PatchNote": {"properties": dict(WRITTEN)},
            "Note": {"properties": {"id": UUID, "created": TEXT, "length": TEXT, **WRITTEN}},
        }
    },
    "paths": {
        "/v1/note": {
            "get": operation(parameters="limit starting_after project_id"),
            "post": operation(request="CreateNote"),
            "put": operation(request="CreateNote"),
        },
        "/v1/note/{note_id}": {
            "get": operation(),
            "patch": operation(request="PatchNote"),
            "delete": operation(),
        },
    },
}


def test_an_equal_openapi_document_has_no_differences() -> None:
    assert differences(DOCUMENT, [NOTES]) == []


def test_a_field_that_is_known_to_be_unwritable_is_no_difference() -> None:
    document = copy.deepcopy(DOCUMENT)
    schemas(document)["Note"]["properties"]["category"] = TEXT
    known = replace(NOTES, unwritable=("category",))
    assert differences(document, [NOTES]) != []
    assert differences(document, [known]) == []


def schemas(document: Dict[str, Any]) -> Dict[str, Any]:
    return dict(document["components"]["schemas"])


def add_field(document: Dict[str, Any]) -> None:
    schemas(document)["CreateNote"]["properties"]["color"] = TEXT


def drop_field(document: Dict[str, Any]) -> None:
    del schemas(document)["PatchNote"]["properties"]["text"]


def require_field(document: Dict[str, Any]) -> None:
    schemas(document)["CreateNote"]["required"].append("owner")


def show_field(document: Dict[str, Any]) -> None:
    schemas(document)["Note"]["properties"]["stars"] = TEXT


def add_id(document: Dict[str, Any]) -> None:
    schemas(document)["Config"]["anyOf"][1]["properties"]["reader"] = UUID


def add_version(document: Dict[str, Any]) -> None:
    properties = schemas(document)["Config"]["anyOf"][1]["properties"]
    properties.update(prompt_id=TEXT, prompt_version=TEXT)


def add_object_type(document: Dict[str, Any]) -> None:
    schemas(document)["CreateNote"]["properties"]["object_type"] = {"enum": ["project", "planet"]}


def require_in_patch(document: Dict[str, Any]) -> None:
    schemas(document)["PatchNote"]["required"] = ["text"]


def drop_put(document: Dict[str, Any]) -> None:
    del document["paths"]["/v1/note"]["put"]


def drop_paging(document: Dict[str, Any]) -> None:
    document["paths"]["/v1/note"]["get"]["parameters"] = [{"name": "project_id"}]


def drop_path(document: Dict[str, Any]) -> None:
    del document["paths"]["/v1/note"]


def add_kind(document: Dict[str, Any]) -> None:
    document["paths"]["/v1/saved_query"] = {"get": operation(), "post": operation()}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (add_field, ["note: POST takes color, which the table does not send"]),
        (drop_field, ["note: PATCH does not take text, which the table sends"]),
        (require_field, ["note: POST requires owner, which the table does not always send"]),
        (require_in_patch, ["note: PATCH requires text, which the table does not always send"]),
        (
            show_field,
            ["note: stars is read, and neither copied nor known as set by the server"],
        ),
        (add_id, ["note: config.reader is an id, and no reference of the table"]),
        (add_version, ["note: config.prompt_version is a version, and no pin of the table"]),
        (
            add_object_type,
            [
                "note: POST takes object_type, which the table does not send",
                "note: object_type 'planet' is new",
            ],
        ),
        (drop_put, ["note: PUT /v1/note is gone"]),
        (
            drop_paging,
            ["note: the list does not take limit", "note: the list does not take starting_after"],
        ),
        (drop_path, ["note: /v1/note is not in the document"]),
        (add_kind, ["/v1/saved_query can be listed and created, and is not in the table"]),
    ],
)
def test_each_kind_of_difference_is_one_line(
    change: Callable[[Dict[str, Any]], None], found: List[str]
) -> None:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    assert differences(document, [NOTES]) == found


AUTOMATIONS = BY_NAME["project_automations"]
ACLS = BY_NAME["acls"]
ORG_AUTOMATIONS = BY_NAME["org_automations"]


@pytest.mark.parametrize(
    ("resource", "field", "values", "found"),
    [
        (AUTOMATIONS, "event_type", ["logs", "daily"], "config.event_type 'daily' is new"),
        (ACLS, "object_type", ["role", "mcp_server", None], "object_type 'mcp_server' is new"),
    ],
)
def test_a_value_that_decides_how_an_object_moves_is_new(
    resource: Resource, field: str, values: List[Any], found: str
) -> None:
    document = copy.deepcopy(DOCUMENT)
    place = {field: {"enum": values}}
    document["paths"][resource.path] = {"post": operation(request="Made")}
    schemas_of = document["components"]["schemas"]
    schemas_of["Made"] = {"properties": place if field == "object_type" else {}}
    schemas_of["Made"]["properties"]["config"] = {"anyOf": [{"properties": place}, {}]}
    lines = [line for line in differences(document, [resource]) if line.endswith("is new")]
    assert lines == [f"{resource.kind}: {found}"]


def test_a_kind_that_an_older_document_lacks_is_said_to_be_newer() -> None:
    (line, *_) = differences(DOCUMENT, [ORG_AUTOMATIONS])
    assert "is not in the document (new in October 2026: is the document older?)" in line


def test_a_schema_that_refers_to_itself_ends_the_search() -> None:
    document = copy.deepcopy(DOCUMENT)
    schemas(document)["Config"]["anyOf"][0]["properties"]["inner"] = schema("Config")
    found = differences(document, [NOTES])
    assert "note: config.inner.links.[].id is an id, and no reference of the table" in found


@pytest.mark.parametrize("text", ["", "[]", '{"swagger": 1}', '{"paths": []}'])
def test_another_file_is_refused_with_its_name(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    assert check_openapi.main([str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_the_program_prints_the_differences_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(DOCUMENT))
    assert check_openapi.main([str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["differences"]
    assert found[0] == "project: /v1/project is not in the document"
    assert found[-1] == "/v1/note can be listed and created, and is not in the table"
    assert check_openapi.main([str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], max(map(len, lines)) <= 80) == (found[0], True)
    count = f"{len(found)} differences; what to do: docs/probe.md#has-the-api-changed"
    assert lines[-1] == count
    assert check_openapi.main([str(tmp_path / "none.json")]) == 2
