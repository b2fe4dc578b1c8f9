"""Which side changed, and by which request a destination's object gets the source's content."""

from __future__ import annotations

from typing import Any

import pytest

from bt_migrate.model.resource_table import (
    DATASETS,
    EXPERIMENTS,
    FUNCTIONS,
    GROUPS,
    PROJECT_TAGS,
    PROMPTS,
    ROLES,
    VIEWS,
)
from bt_migrate.objects.decide import (
    CREATE,
    DIFFERS,
    FOUND,
    UPDATE,
    Action,
    conflict_reason,
    differing,
    fingerprint,
    settled,
    update_body,
)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (None, ("s", "d"), "exists with other content"),
        (("s", "d"), ("s", "d"), "differs as it did before"),
        (("s", "d"), ("S", "d"), "changed at the source"),
        (("s", "d"), ("s", "D"), "changed at the destination"),
        (("s", "d"), ("S", "D"), "changed on both sides"),
    ],
)
def test_the_fingerprints_of_both_sides_show_which_side_changed(
    before: Any, now: Any, expected: str
) -> None:
    assert conflict_reason(before, now) == expected


@pytest.mark.parametrize(
    ("verb", "policy", "expected"),
    [
        (CREATE, "update", (CREATE, "")),
        (FOUND, "update", (FOUND, "")),
        (DIFFERS, "keep", (DIFFERS, "changed on both sides; left alone")),
        (DIFFERS, "fail", (DIFFERS, "changed on both sides; left alone")),
        (DIFFERS, "update", (UPDATE, "changed on both sides")),
    ],
)
def test_only_update_writes_and_only_what_differs(verb: str, policy: str, expected: tuple) -> None:
    action = settled(Action("datasets", "s1", "Questions", verb), policy, "changed on both sides")
    assert (action.verb, action.reason) == expected


@pytest.mark.parametrize(
    ("resource", "obj", "other", "equal"),
    [
        (
            DATASETS,
            {"id": "1", "name": "a", "tags": []},
            {"id": "2", "name": "a", "description": None, "metadata": {}},
            True,
        ),
        (
            DATASETS,
            {"name": "a", "metadata": {"k": None}},
            {"name": "a", "metadata": {"j": None}},
            True,
        ),
        (
            DATASETS,
            {"name": "a", "metadata": {"k": 1}},
            {"name": "a", "metadata": {"k": 1.0}},
            True,
        ),
        (DATASETS, {"name": "a", "tags": ["x", "y"]}, {"name": "a", "tags": ["y", "x"]}, False),
        (
            GROUPS,
            {"name": "a", "member_users": ["x", "y"]},
            {"name": "a", "member_users": ["y", "x"]},
            True,
        ),
        (EXPERIMENTS, {"name": "a", "public": False}, {"name": "a"}, True),
        (EXPERIMENTS, {"name": "a", "commit": "x"}, {"name": "a", "commit": "y"}, True),
    ],
)
def test_fingerprints_are_equal_where_nothing_differs(
    resource: Any, obj: dict, other: dict, equal: bool
) -> None:
    same_print = fingerprint(resource, obj) == fingerprint(resource, other)
    assert (same_print, not differing(resource, obj, other)) == (equal, equal)


EXISTING_GRANT = {"permission": "update", "restrict_object_type": None}


@pytest.mark.parametrize(
    ("resource", "desired", "existing", "expected"),
    [
        # what PATCH can do it does, with the fields that differ only
        (
            PROMPTS,
            {"name": "n", "slug": "s", "prompt_data": {"a": 1}},
            {"name": "o", "slug": "s", "prompt_data": {"a": 1}},
            ("PATCH", {"name": "n"}),
        ),
        (
            PROMPTS,
            {"slug": "s", "prompt_data": {"a": {"b": 2}}},
            {"slug": "s", "prompt_data": {"a": {"b": 1}}},
            ("PATCH", {"prompt_data": {"a": {"b": 2}}}),
        ),
        # a key too much, or a field that PATCH does not take: PUT
        (
            PROMPTS,
            {"slug": "s", "prompt_data": {"a": 1}},
            {"slug": "s", "prompt_data": {"a": 1, "b": 2}},
            ("PUT", {"slug": "s", "prompt_data": {"a": 1}}),
        ),
        (
            PROMPTS,
            {"slug": "s", "prompt_data": {"a": {"b": 1}}},
            {"slug": "s", "prompt_data": {"a": {"b": 1, "c": [2]}}},
            ("PUT", {"slug": "s", "prompt_data": {"a": {"b": 1}}}),
        ),
        (
            FUNCTIONS,
            {"slug": "s", "function_schema": {"a": 1}},
            {"slug": "s"},
            ("PUT", {"slug": "s", "function_schema": {"a": 1}}),
        ),
        (PROJECT_TAGS, {"name": "t"}, {"name": "t", "color": "#fff"}, ("PUT", {"name": "t"})),
        # no PUT: empty values where the field has one, and nothing for what cannot be taken away
        (
            DATASETS,
            {"name": "d"},
            {"name": "d", "description": "x", "tags": ["y"]},
            ("PATCH", {"description": "", "tags": []}),
        ),
        (
            DATASETS,
            {"name": "d", "metadata": {"a": 1}},
            {"name": "d", "metadata": {"a": 1, "b": 2}},
            ("PATCH", {}),
        ),
        (
            DATASETS,
            {"name": "d", "metadata": {"a": 2}},
            {"name": "d", "metadata": {"a": 1, "b": 2}},
            ("PATCH", {"metadata": {"a": 2}}),
        ),
        (
            EXPERIMENTS,
            {"name": "e"},
            {"name": "e", "public": True, "dataset_id": "x"},
            ("PATCH", {"public": False}),
        ),
        # members are added and removed
        (
            GROUPS,
            {"name": "g", "member_users": ["u1", "u2"]},
            {"name": "g", "member_users": ["u2", "u3"]},
            ("PATCH", {"add_member_users": ["u1"], "remove_member_users": ["u3"]}),
        ),
        (
            ROLES,
            {"name": "r", "member_permissions": [{"permission": "read"}]},
            {
                "name": "r",
                "member_permissions": [
                    {"permission": "read", "restrict_object_type": None},
                    EXISTING_GRANT,
                ],
            },
            ("PATCH", {"remove_member_permissions": [EXISTING_GRANT]}),
        ),
        # views are named by their owner
        (
            VIEWS,
            {
                "object_type": "project",
                "object_id": "p",
                "view_type": "logs",
                "name": "v",
                "options": {"a": 2},
            },
            {
                "object_type": "project",
                "object_id": "p",
                "view_type": "logs",
                "name": "v",
                "options": {"a": 1},
            },
            ("PATCH", {"object_type": "project", "object_id": "p", "options": {"a": 2}}),
        ),
    ],
)
def test_an_update_takes_the_verb_that_reaches_the_sources_content(
    resource: Any, desired: dict, existing: dict, expected: tuple
) -> None:
    assert update_body(resource, desired, existing) == expected


def test_an_update_leaves_what_waits_for_a_reference_and_never_puts_meanwhile() -> None:
    existing = {"slug": "s", "prompt_data": {"a": 1, "b": 2}, "origin": {"object_id": "x"}}
    assert update_body(
        FUNCTIONS, {"slug": "s", "name": "n", "prompt_data": {"a": 1}}, existing, ["origin"]
    ) == ("PATCH", {"name": "n"})
