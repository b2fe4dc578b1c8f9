"""Each kind of object is in every place that the guide "How do I add a kind of object?" names."""

from __future__ import annotations

import importlib
from typing import List

import pytest

from bt_migrate.model import resource_table
from bt_migrate.model.references import paths_matching
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import OBJECT_RESOURCES, PROJECT_SETTINGS, USERS
from bt_migrate.report.actions import noun_of
from bt_migrate.report.display import plural
from bt_migrate.sandbox.data.schema import KINDS
from tests.support.compare_orgs import NATURAL_KEYS
from tests.support.orgs import example_pair, tiny_pair
from tests.support.tiny import NOT_IN_TINY

# kind -> why it has no schema in the sandbox, so that nothing here can list it
WITHOUT_SCHEMA = {
    "environment_assignment": "a part of a version: see sandbox/routes/environments.py",
}
# nouns that a docstring says in other words
IN_OTHER_WORDS = {
    "project_automations": "automations of projects",
    "org_automations": "of the organization",
}
MOVED = [resource for resource in OBJECT_RESOURCES if resource.phase]
STORED = {resource.kind for resource in OBJECT_RESOURCES} - set(WITHOUT_SCHEMA)


def plural_of(resource: str) -> str:
    return plural(0, noun_of(resource))[len("0 ") :]


def test_every_row_of_the_table_is_in_the_order_of_moving() -> None:
    rows = {name: row for name, row in vars(resource_table).items() if isinstance(row, Resource)}
    left_out = [name for name, row in rows.items() if row not in (*OBJECT_RESOURCES, USERS)]
    assert left_out == [], "add these to the tuple OBJECT_RESOURCES of model/resource_table.py"


def test_every_kind_has_a_schema_in_the_sandbox() -> None:
    lacking = {resource.kind for resource in OBJECT_RESOURCES} - set(KINDS)
    assert lacking == set(WITHOUT_SCHEMA), "add a KindRow to sandbox/data/schema.py"


def test_the_example_has_an_object_of_every_kind() -> None:
    with example_pair() as pair:
        lacking = {kind for kind in STORED & set(KINDS) if not list(pair.source.objects(kind))}
    assert lacking == set(), "add one to sandbox/example/objects.py (or fill.py)"


def test_the_example_has_every_place_of_the_table() -> None:
    """Each reference, version, query and project name: the whole-organization test moves it."""
    with example_pair() as pair:
        lacking = [
            f"{resource.name}: {path}"
            for resource in OBJECT_RESOURCES
            if resource.kind in STORED & set(KINDS)
            for path in places(resource)
            if not any(paths_matching(obj, path) for obj in pair.source.objects(resource.kind))
        ]
    assert lacking == [], "add one to sandbox/example/objects.py (or fill.py)"


def places(resource: Resource) -> List[str]:
    held = [place.path for place in (*resource.references, *resource.pins)]
    return [*held, *resource.queries, *resource.project_names]


def test_the_tiny_organization_has_an_object_of_every_kind_but_for_a_reason() -> None:
    with tiny_pair() as pair:
        lacking = {kind for kind in STORED & set(KINDS) if not list(pair.source.objects(kind))}
    older = {kind for kind in lacking if not KINDS[kind].is_later}
    assert older == set(NOT_IN_TINY), "add one to tests/support/tiny.py, or a reason there"


def test_every_id_that_the_sandbox_checks_is_a_reference_of_the_table() -> None:
    """A known id is rewritten wherever it stands, but only a reference waits for its target."""
    settings = [reference.path for reference in PROJECT_SETTINGS.references]
    lacking = []
    for resource in OBJECT_RESOURCES:
        known = {"project_id", *settings, *(reference.path for reference in resource.references)}
        links = KINDS[resource.kind].links if resource.kind in KINDS else ()
        paths = [path.replace("[]", ".[]") for path, _ in links]
        lacking += [f"{resource.name}: {path}" for path in paths if path not in known]
    assert lacking == [], "add these to `references` of the row in model/resource_table.py"


def test_every_kind_is_compared() -> None:
    assert STORED - set(NATURAL_KEYS) == set(), "add `unique` to its KindRow"


def test_the_comparison_knows_every_place_of_a_query() -> None:
    """The table and the sandbox are written by hand: what one of them lacks is found here."""
    in_table = {
        resource.kind: {
            [step for step in path.split(".") if step not in ("*", "[]")][-1]
            for path in resource.queries
        }
        for resource in OBJECT_RESOURCES
        if resource.queries
    }
    in_sandbox = {kind.name: {*kind.queries} for kind in KINDS.values() if kind.queries}
    assert in_table == in_sandbox, "see `queries` of the table and of sandbox/data/schema.py"


@pytest.mark.parametrize("resource", MOVED, ids=[resource.name for resource in MOVED])
def test_the_help_of_a_phase_names_each_kind_that_it_moves(resource: Resource) -> None:
    words = IN_OTHER_WORDS.get(resource.name, plural_of(resource.name)).lower()
    for phase in {resource.phase, resource.reacting_phase} - {""}:
        module = importlib.import_module(f"bt_migrate.phases.{phase.replace('-', '_')}")
        help_text = " ".join((module.__doc__ or "").lower().split())
        assert words in help_text, f"name {words!r} in the docstring of {module.__name__}"
