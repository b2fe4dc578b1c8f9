"""What happens to each object, decided without asking anybody."""

from __future__ import annotations

from typing import Any, Dict, List, Set

import pytest

from bt_migrate.model.resource_table import (
    ACLS,
    DATASETS,
    EXPERIMENTS,
    FUNCTIONS,
    GROUPS,
    PROJECT_AUTOMATIONS,
    PROMPTS,
    ROLES,
    VIEWS,
)
from bt_migrate.model.resources import BY_NAME
from bt_migrate.objects.decide import (
    CREATE,
    DIFFERS,
    FOUND,
    Action,
    comparable,
    creation_order,
    dependencies,
    dependency_levels,
    differing,
    display_name,
    lost_fields,
    membership_patch,
    natural_key,
    plan_object,
    second_pass_body,
    writable_fields,
)

SOURCE = {"id": "s1", "name": "Questions", "description": "d", "tags": ["a"], "metadata": {"k": 1}}


@pytest.mark.parametrize(
    ("resource", "obj", "expected"),
    [
        (DATASETS, {"name": "a", "id": "1"}, ("a",)),
        (PROMPTS, {"name": "a", "slug": "s"}, ("s",)),
        (
            VIEWS,
            {"name": "v", "object_type": "dataset", "object_id": "1", "view_type": "dataset"},
            ("dataset", "1", "dataset", "v"),
        ),
        (
            ACLS,
            {
                "object_type": "project",
                "object_id": "1",
                "group_id": "g",
                "role_id": "r",
                "user_id": None,
            },
            ("project", "1", None, "g", None, None, "r"),
        ),
    ],
)
def test_objects_with_equal_natural_keys_are_counterparts(
    resource: Any, obj: dict, expected: tuple
) -> None:
    assert natural_key(resource, obj) == expected


@pytest.mark.parametrize(
    ("resource", "obj", "expected"),
    [
        (DATASETS, {"id": "1", "name": "Questions"}, "Questions"),
        (PROMPTS, {"id": "1", "name": None, "slug": "ask"}, "ask"),
        (BY_NAME["users"], {"id": "1", "email": "a@b.c"}, "a@b.c"),
        (DATASETS, {"id": "1"}, "1"),
        (
            ACLS,
            {"id": "1", "object_type": "project", "user_id": "u", "permission": "read"},
            "read on project for user u",
        ),
        (
            ACLS,
            {"id": "1", "object_type": "dataset", "group_id": "g", "role_id": "r"},
            "role on dataset for group g",
        ),
    ],
)
def test_the_display_name_is_one_that_people_know(resource: Any, obj: dict, expected: str) -> None:
    assert display_name(resource, obj) == expected


def test_writable_fields_are_those_of_post_without_nulls() -> None:
    obj = {
        **SOURCE,
        "description": None,
        "tags": [],
        "created": "x",
        "project_id": "p",
        "url_slug": "u",
        "_xact_id": "1",
    }
    assert writable_fields(DATASETS, obj) == {"name": "Questions", "tags": [], "metadata": {"k": 1}}


def test_fields_that_no_endpoint_takes_are_named_where_they_hold_something() -> None:
    obj = {
        **SOURCE,
        "url_slug": "u",
        "created": "x",
        "org_id": "o",
        "newer": {"a": 1},
        "another": 0,
        "empty": {},
        "none": None,
        "e": "",
    }
    assert lost_fields(DATASETS, obj) == ["another", "newer"]


def test_why_a_server_stopped_an_automation_is_no_content() -> None:
    stopped = {"name": "n", "config": {}, "runtime_block": {"model": "m", "reason": "r"}}
    assert lost_fields(PROJECT_AUTOMATIONS, stopped) == []


@pytest.mark.parametrize(
    ("desired", "existing", "expected"),
    [
        ({"name": "a"}, {"name": "a", "description": None}, []),
        ({"name": "a"}, {"name": "a", "tags": [], "metadata": {}}, []),
        ({"name": "a", "tags": []}, {"name": "a"}, []),
        ({"name": "a"}, {"name": "a", "description": "theirs"}, ["description"]),
        ({"name": "a", "description": "ours"}, {"name": "a"}, ["description"]),
        ({"name": "a", "metadata": {"k": 1}}, {"name": "a", "metadata": {"k": 1.0}}, []),
        ({"name": "a", "metadata": {"k": 1}}, {"name": "a", "metadata": {"k": 1.5}}, ["metadata"]),
        ({"name": "a", "tags": ["x", "y"]}, {"name": "a", "tags": ["y", "x"]}, ["tags"]),
        ({"name": "a", "metadata": {"k": None}}, {"name": "a", "metadata": {"j": None}}, []),
        ({"name": "a", "url_slug": "1"}, {"name": "a", "url_slug": "2"}, []),
    ],
)
def test_objects_differ_in_writable_fields_that_hold_something(
    desired: dict, existing: dict, expected: List[str]
) -> None:
    assert differing(DATASETS, desired, existing) == expected


def test_a_field_that_waits_for_a_reference_is_not_compared_yet() -> None:
    desired, existing = (
        {"name": "a", "tags": ["x"]},
        {"name": "a", "base_exp_id": "b", "tags": ["y"]},
    )
    assert (
        differing(EXPERIMENTS, desired, existing, {"base_exp_id"}),
        differing(EXPERIMENTS, desired, existing),
    ) == (
        ["tags"],
        ["base_exp_id", "tags"],
    )


def test_the_order_of_members_does_not_matter() -> None:
    left = {
        "name": "g",
        "member_users": ["b", "a"],
        "member_permissions": [{"permission": "read"}, {"permission": "create"}],
    }
    right = {
        "name": "g",
        "member_users": ["a", "b"],
        "member_permissions": [{"permission": "create"}, {"permission": "read"}],
    }
    assert (comparable(left) == comparable(right), left["member_users"]) == (True, ["b", "a"])


def test_the_order_of_members_depends_on_neither_the_order_of_their_fields_nor_nulls() -> None:
    desired = {
        "name": "r",
        "member_permissions": [
            {"permission": "update", "restrict_object_type": "project"},
            {"permission": "read"},
        ],
    }
    existing = {
        "name": "r",
        "member_permissions": [
            {"restrict_object_type": None, "permission": "read"},
            {"permission": "update", "restrict_object_type": "project"},
        ],
    }
    assert differing(ROLES, desired, existing) == []


def test_an_object_that_is_not_there_is_created() -> None:
    body = {"name": "Questions"}
    assert plan_object(DATASETS, SOURCE, body, None) == Action(
        "datasets", "s1", "Questions", CREATE, body=body
    )


def test_an_object_with_the_same_content_is_found() -> None:
    body = {"name": "Questions", "tags": ["a"]}
    existing = {"id": "d1", "name": "Questions", "tags": ["a"], "description": None}
    assert plan_object(DATASETS, SOURCE, body, existing) == Action(
        "datasets", "s1", "Questions", FOUND, dest_id="d1", body=body
    )


def test_an_object_with_other_content_differs_and_its_fields_are_named() -> None:
    body = {"name": "Questions", "tags": ["a"], "description": "ours"}
    existing = {"id": "d1", "name": "Questions", "tags": ["b"], "description": "theirs"}
    assert plan_object(DATASETS, SOURCE, body, existing) == Action(
        "datasets",
        "s1",
        "Questions",
        DIFFERS,
        "exists with other content; left alone",
        ("description", "tags"),
        "d1",
        body,
    )


def test_an_object_that_waits_for_a_reference_is_found() -> None:
    existing = {"id": "d1", "name": "Questions", "base_exp_id": "d0"}
    action = plan_object(EXPERIMENTS, SOURCE, {"name": "Questions"}, existing, {"base_exp_id"})
    assert (action.verb, action.fields) == (FOUND, ())


# -- order


def test_objects_depend_on_those_of_their_own_kind_that_they_refer_to() -> None:
    function = {
        "id": "f1",
        "prompt_data": {
            "tool_functions": [{"type": "function", "id": "f2"}, {"type": "function", "id": "f1"}]
        },
        "function_data": {
            "nodes": {
                "n": {"function": {"function_id": "f3"}},
                "m": {"function": {"function_id": 7}},
            }
        },
        "origin": {"object_type": "prompt", "object_id": "p1"},
    }
    assert dependencies(FUNCTIONS, function, {"f1", "f2", "f3", "f4"}) == {"f2", "f3"}


def levels(depends: Dict[str, Set[str]]) -> List[List[str]]:
    objects = [{"id": entry} for entry in depends]
    return [
        [item["id"] for item in level]
        for level in dependency_levels(objects, lambda obj: set(depends[obj["id"]]))
    ]


@pytest.mark.parametrize(
    ("depends", "expected"),
    [
        ({}, []),
        ({"a": set(), "b": set()}, [["a", "b"]]),
        (
            {"c": {"b"}, "b": {"a"}, "a": set()},
            [["a"], ["b"], ["c"]],
        ),  # newest first, as the API lists them
        ({"a": set(), "b": {"a"}, "c": {"a"}, "d": {"b", "c"}}, [["a"], ["b", "c"], ["d"]]),
        ({"a": {"b"}, "b": {"a"}}, [["a", "b"]]),
        ({"free": set(), "a": {"b"}, "b": {"a"}, "hangs": {"a"}}, [["free"], ["a", "b", "hangs"]]),
    ],
)
def test_objects_come_after_what_they_need_and_cycles_come_last(
    depends: Dict[str, Set[str]], expected: List[List[str]]
) -> None:
    assert levels(depends) == expected


def test_a_long_chain_has_as_many_levels_as_links() -> None:
    chain = {str(number): {str(number - 1)} if number else set() for number in reversed(range(300))}
    assert levels(chain) == [[str(number)] for number in range(300)]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([], []),
        ([{"id": "new"}, {"id": "old"}], ["old", "new"]),
        (
            [
                {"id": "1", "position": "0|b"},
                {"id": "2", "position": "0|a"},
                {"id": "3", "position": "0|c"},
            ],
            ["2", "1", "3"],
        ),
        (
            [{"id": "1", "position": "0|a"}, {"id": "2"}],
            ["2", "1"],
        ),  # one without a position: all by age
        ([{"id": "new", "position": "0|a"}, {"id": "old", "position": "0|a"}], ["old", "new"]),
    ],
)
def test_objects_are_made_oldest_first_or_by_position(
    listed: List[dict], expected: List[str]
) -> None:
    assert [item["id"] for item in creation_order(listed)] == expected


# -- second pass


def test_only_missing_members_are_added() -> None:
    desired = {"member_users": ["u1", "u2"], "member_groups": ["g1"], "member_roles": None}
    existing = {"member_users": ["u2", "u3"], "member_groups": ["g1"]}
    assert membership_patch(desired, existing) == {"add_member_users": ["u1"]}


@pytest.mark.parametrize(
    ("resource", "desired", "existing", "expected"),
    [
        (
            GROUPS,
            {"name": "g", "member_users": ["u"]},
            {"name": "g"},
            ("PATCH", {"add_member_users": ["u"]}),
        ),
        (
            ROLES,
            {"name": "r", "member_roles": ["a"]},
            {"name": "r", "member_roles": ["a"]},
            ("PATCH", {}),
        ),
        (
            EXPERIMENTS,
            {"name": "e", "base_exp_id": "b", "tags": ["t"]},
            {"name": "e", "tags": ["t"]},
            ("PATCH", {"base_exp_id": "b"}),
        ),
        (
            EXPERIMENTS,
            {"name": "e", "base_exp_id": "b"},
            {"name": "e", "base_exp_id": "b"},
            ("PATCH", {}),
        ),
        (
            FUNCTIONS,  # PATCH takes no origin: PUT replaces by slug, with all the rest
            {"name": "f", "slug": "f", "origin": {"object_type": "prompt", "object_id": "p"}},
            {"name": "f", "slug": "f"},
            (
                "PUT",
                {"name": "f", "slug": "f", "origin": {"object_type": "prompt", "object_id": "p"}},
            ),
        ),
    ],
)
def test_the_second_pass_sends_what_is_missing_by_the_verb_that_takes_it(
    resource: Any, desired: dict, existing: dict, expected: tuple
) -> None:
    assert second_pass_body(resource, desired, existing) == expected


@pytest.mark.parametrize("value", [7, "text", {"a": 1}, True])
def test_members_that_are_no_list_are_nobody(value: Any) -> None:
    wrong = {"member_users": value}
    assert comparable(wrong) == wrong
    assert membership_patch(wrong, {"member_users": ["u"]}) == {}
    assert membership_patch({"member_users": ["u"]}, wrong) == {"add_member_users": ["u"]}
