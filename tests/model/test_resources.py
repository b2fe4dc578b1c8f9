"""The table of resources is whole, and its irregular cases decide as their comments say."""

from __future__ import annotations

from typing import Any, Optional

import pytest

from bt_migrate.model.activation import acts_not
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import OBJECT_RESOURCES, PROJECTS, SERVER_FIELDS
from bt_migrate.model.resources import (
    BY_NAME,
    ROW_KINDS,
    ROW_SERVER_FIELDS,
    SELECTABLE,
    TARGETS_OF_TYPE,
    UNMOVABLE_TARGETS,
)
from bt_migrate.model.unmoved import UNMOVED

MISSION = (
    "ai_secrets",
    "roles",
    "groups",
    "datasets",
    "project_tags",
    "span_iframes",
    "functions",
    "prompts",
    "project_scores",
    "experiments",
    "logs",
    "views",
    "acls",
)
each = pytest.mark.parametrize(
    "resource", OBJECT_RESOURCES, ids=[entry.name for entry in OBJECT_RESOURCES]
)


def test_every_kind_can_be_selected_and_is_in_the_order_of_the_move() -> None:
    assert [name for name in SELECTABLE if name in MISSION] == list(MISSION)


def test_every_word_of_resources_is_a_kind_of_objects_or_of_rows() -> None:
    assert sorted(SELECTABLE) == sorted({*BY_NAME, *ROW_KINDS} - {"projects", "users"})


def test_no_kind_is_in_the_table_twice() -> None:
    names = [item.name for item in OBJECT_RESOURCES]
    assert (len(set(names)), len(set(SELECTABLE)), OBJECT_RESOURCES[0]) == (
        len(names),
        len(SELECTABLE),
        PROJECTS,
    )


@each
def test_a_kind_is_found_by_fields_that_can_be_created(resource: Resource) -> None:
    server_made = {"project_settings": {"name"}}.get(resource.name, set())  # a part of its project
    assert set(resource.key) - set(resource.create) == server_made


@each
def test_what_is_patched_can_be_created_and_what_the_server_makes_cannot(
    resource: Resource,
) -> None:
    by_patch_only = {"projects": {"settings"}}.get(resource.name, set())
    server = {*SERVER_FIELDS, *resource.server} - {
        "user_id"
    }  # a view and an ACL name a user of their own
    assert (set(resource.patch) - set(resource.create), server & set(resource.create)) == (
        by_patch_only,
        set(),
    )


@each
def test_a_kind_has_a_path_a_scope_and_a_page(resource: Resource) -> None:
    assert (
        resource.path[:1],
        resource.scope in ("organization", "project", "owner"),
        bool(resource.page),
    ) == ("/", True, True)


def test_secrets_are_never_sent() -> None:
    assert [
        item.name
        for item in OBJECT_RESOURCES
        if {"secret", "value", "key"} & {*item.create, *item.patch}
    ] == []


def test_a_retry_never_creates_a_second_experiment() -> None:
    assert "ensure_new" not in BY_NAME["experiments"].create


@pytest.mark.parametrize("kind", ROW_KINDS.values(), ids=list(ROW_KINDS))
def test_rows_keep_ids_dates_and_spans_and_lose_what_only_the_server_writes(kind: Any) -> None:
    kept = {
        "id",
        "created",
        "span_id",
        "root_span_id",
        "span_parents",
        "origin",
        "facets",
        "tags",
        "metadata",
    }
    assert (
        kept - set(kind.fields),
        set(kind.fields) & ROW_SERVER_FIELDS,
        "{id}" in kind.insert_path,
    ) == (set(), set(), True)


def test_every_type_of_an_object_names_kinds_that_exist_or_cannot_move() -> None:
    named = {item for targets in TARGETS_OF_TYPE.values() for item in targets}
    assert named - set(BY_NAME) == {"organizations", *UNMOVABLE_TARGETS}


BUNDLE = "code bundle cannot be read through the API"
TOPIC_MAP = "topic map artefacts cannot be read through the API"


@pytest.mark.parametrize(
    ("name", "obj", "expected"),
    [
        (
            "functions",
            {"function_data": {"type": "code", "data": {"type": "bundle", "bundle_id": "b"}}},
            BUNDLE,
        ),
        (
            "functions",
            {"function_data": {"type": "code", "data": {"type": "inline", "code": "x"}}},
            None,
        ),
        ("functions", {"function_data": {"type": "code"}}, None),
        ("functions", {"function_data": {"type": "topic_map", "bundle_key": "k"}}, TOPIC_MAP),
        ("functions", {"function_data": {"type": "prompt"}}, None),
        ("functions", {"function_data": None}, None),
        ("functions", {}, None),
        ("roles", {"name": "Owner", "org_id": None}, "built-in"),
        ("roles", {"name": "Owner"}, "built-in"),
        ("roles", {"name": "Owner", "org_id": "o"}, None),
        (
            "project_automations",
            {"config": {"event_type": "async_query"}},
            "made by the server for an asynchronous query",
        ),
        ("project_automations", {"config": {"event_type": "retention"}}, None),
        ("project_automations", {"config": None}, None),
        ("project_settings", {"settings": None}, "no settings"),
        ("project_settings", {"settings": {"comparison_key": None}}, "no settings"),
        ("project_settings", {"settings": {"comparison_key": "input"}}, None),
        ("project_settings", {"settings": {"disable_realtime_queries": False}}, None),
        ("project_settings", {}, "no settings"),
    ],
)
def test_what_cannot_move_says_why(name: str, obj: dict, expected: Optional[str]) -> None:
    assert BY_NAME[name].cannot_move(obj) == expected


@pytest.mark.parametrize(
    ("name", "obj", "expected"),
    [
        ("project_scores", {"score_type": "online"}, True),
        (
            "project_scores",
            {"score_type": "slider", "config": {"online": {"sampling_rate": 1}}},
            True,
        ),
        ("project_scores", {"score_type": "slider", "config": {"online": None}}, False),
        ("project_scores", {"score_type": "slider", "config": None}, False),
        ("project_scores", {"score_type": "categorical"}, False),
        ("project_automations", {"config": {"event_type": "retention"}}, True),
        ("prompts", {"score_type": "online"}, False),
    ],
)
def test_objects_that_react_to_data_are_recognized(name: str, obj: dict, expected: bool) -> None:
    assert BY_NAME[name].reacts_to_data(obj) is expected


def test_kinds_with_something_to_do_by_hand_have_a_next_action() -> None:
    assert {item.name for item in OBJECT_RESOURCES if item.next_action} == {
        "ai_secrets",
        "env_vars",
        "functions",
    }


def test_a_kind_that_does_not_move_completely_has_a_text_about_what_stays() -> None:
    leaving = {
        resource.name
        for resource in OBJECT_RESOURCES
        if resource.hidden_field or resource.unwritable or resource.acts is not acts_not
    }
    assert [name for name in sorted(leaving) if not BY_NAME[name].not_carried] == []


def test_what_does_not_move_is_no_resource_and_says_why_and_what_to_do() -> None:
    assert {kind.path for kind in UNMOVED} & {item.path for item in OBJECT_RESOURCES} == set()
    assert [kind.name for kind in UNMOVED if not (kind.why and kind.next)] == []


@pytest.mark.parametrize("value", [[1], "text", 7, True, {"type": [1]}, [[{}]]], ids=repr)
@pytest.mark.parametrize("resource", OBJECT_RESOURCES, ids=lambda resource: resource.name)
def test_a_field_of_any_type_is_judged_and_ends_no_run(resource: Resource, value: Any) -> None:
    """One such object ended each start with an internal error."""
    obj = dict.fromkeys((*resource.create, *resource.server), value)
    reason = resource.cannot_move(obj)
    assert reason is None or isinstance(reason, str)
    assert resource.reacts_to_data(obj) in (True, False)
    assert all(isinstance(word, str) for word in resource.acts(obj))
