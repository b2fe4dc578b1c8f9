"""Unknown fields of objects: reported once per kind, carried where nested."""

from __future__ import annotations

import json
import urllib.request
from typing import Any, Dict, Iterator, Optional

import pytest

from bt_migrate.model.resource_table import OBJECT_RESOURCES
from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import SOURCE_KEY, Pair, example_pair, findings, report, run

# An older sandbox does not have all kinds.
pytestmark = pytest.mark.recorded

Json = Dict[str, Any]
FIELD, INNER = "from_the_future", {"inner": "value"}
ASSIGNMENTS = "/environment-object/"
# The mark of the store of prompts: with another field it is a function.
MARK = {"type": "prompt"}


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """(organizations, run directory, end) of a move of objects that all have an unknown field.

    Each value that is an object has one too.
    """
    root = tmp_path_factory.mktemp("new_fields") / "runs"
    with example_pair() as pair:
        with pair.sandbox.store.lock:
            for entries in pair.sandbox.store.entries.values():
                for entry in entries.values():
                    if entry.org_id == pair.source.id:
                        add_fields(entry.data)
        pair.sandbox.refuse = lambda method, path, raw: with_field(pair, method, path)
        done = run(pair.sandbox, root, "--verify", "--history", "all", "--dataset-versions")
        pair.sandbox.refuse = None
        yield pair, root, done


def add_fields(data: Json) -> None:
    for value in data.values():
        if isinstance(value, dict) and value != MARK:
            value[FIELD] = dict(INNER)
    data[FIELD] = dict(INNER)


def with_field(pair: Pair, method: str, path: str) -> Optional[Answer]:
    """Assignments are no objects of the sandbox's store: the field is added to the answer."""
    if method != "GET" or not path.startswith(ASSIGNMENTS) or path.endswith("?"):
        return None
    headers = {"Authorization": f"Bearer {SOURCE_KEY}"}
    request = urllib.request.Request(pair.sandbox.url + path + "?", headers=headers)
    try:
        with urllib.request.urlopen(request) as response:
            listed = json.loads(response.read())
    except urllib.request.HTTPError:
        return None  # an object of the destination
    for assignment in listed["objects"]:
        assignment[FIELD] = INNER
    return Answer(200, json.dumps(listed).encode())


def test_a_move_of_objects_with_new_fields_is_complete(moved: Any) -> None:
    _, root, done = moved
    assert done.code == 0, done.out
    (line,) = (line for line in report(root)["lost"] if line["kind"] == "new_field")
    assert line["text"].startswith("fields that this version does not know: new field '")


@pytest.mark.parametrize("name", [resource.name for resource in OBJECT_RESOURCES])
def test_a_new_field_is_reported_once_for_each_kind(moved: Any, name: str) -> None:
    _, root, _ = moved
    told = [item for item in findings(root, "new_field") if item["resource"] == name]
    # Settings are a field of projects, which tell it.
    expected = [] if name == "project_settings" else [f"new field '{FIELD}' on {name}: not carried"]
    assert [item["detail"] for item in told] == expected


def test_new_fields_inside_of_other_fields_are_carried(moved: Any) -> None:
    pair, _, _ = moved
    with pair.sandbox.store.lock:
        values = [
            (store, name, value)
            for store, entries in pair.sandbox.store.entries.items()
            for entry in entries.values()
            if entry.org_id == pair.dest.id
            for name, value in entry.data.items()
            if isinstance(value, dict) and value and value != MARK
        ]
    lacking = [(store, name) for store, name, value in values if value.get(FIELD) != INNER]
    assert (lacking, len({(store, name) for store, name, _ in values}) > 10) == ([], True)
