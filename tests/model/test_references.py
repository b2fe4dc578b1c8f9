"""References inside objects: each place in the table, at any depth, is rewritten or reported."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Dict, List, Mapping, Optional, Tuple

import pytest

from bt_migrate.model.references import (
    Rewritten,
    Unresolved,
    dotted,
    paths_matching,
    remove,
    rewrite,
    set_at,
    strings,
    value_at,
)
from bt_migrate.model.resource import Pin, Reference, Resource
from bt_migrate.model.resource_table import CALLABLE, OBJECT_RESOURCES
from bt_migrate.model.resources import BY_NAME


def source_id(number: int) -> str:
    return f"aaaaaaaa-0000-4000-8000-{number:012d}"


def dest_id(number: int) -> str:
    return f"dddddddd-0000-4000-8000-{number:012d}"


ONE, TWO, LOST = source_id(1), source_id(2), source_id(99)
KNOWN = {ONE: ("datasets",), TWO: CALLABLE, LOST: CALLABLE}
RESOLVED = {ONE: dest_id(1), TWO: dest_id(2)}


def resolve(targets: Tuple[str, ...], obj: str) -> Optional[str]:
    return RESOLVED.get(obj)


def holding(*references: Reference, pins: Tuple[Pin, ...] = ()) -> Resource:
    return replace(BY_NAME["datasets"], references=references, pins=pins)


def rewritten(
    value: Dict[str, Any], *references: Reference, pins: Tuple[Pin, ...] = ()
) -> Rewritten:
    return rewrite(value, holding(*references, pins=pins), resolve=resolve, known_ids=KNOWN)


# -- places


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("id", [("id",)]),
        ("absent", []),
        ("null", []),
        ("null.deeper", []),
        ("id.deeper", []),
        ("tools.[].id", [("tools", 0, "id"), ("tools", 2, "id")]),
        ("tools.[]", [("tools", 0), ("tools", 1), ("tools", 2)]),
        ("nodes.*.f.id", [("nodes", "a", "f", "id"), ("nodes", "b", "f", "id")]),
        ("maps.*.[].id", [("maps", "x", 0, "id"), ("maps", "x", 1, "id"), ("maps", "y", 0, "id")]),
        ("id.[]", []),
        ("tools.id", []),
    ],
)
def test_a_pattern_names_the_places_that_hold_something(
    pattern: str, expected: List[tuple]
) -> None:
    value = {
        "id": "1",
        "null": None,
        "tools": [{"id": "2"}, {"name": "no id"}, {"id": "3"}],
        "nodes": {"a": {"f": {"id": "4"}}, "b": {"f": {"id": "5"}}, "c": {"f": None}},
        "maps": {"x": [{"id": "6"}, {"id": "7"}], "y": [{"id": "8"}]},
    }
    assert list(paths_matching(value, pattern)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ((), ""),
        (("a",), "a"),
        (("a", "b"), "a.b"),
        (("a", 0, "id"), "a[0].id"),
        (("a", 1, 2), "a[1][2]"),
    ],
)
def test_a_path_is_shown_with_dots_and_positions(path: tuple, expected: str) -> None:
    assert dotted(path) == expected


def test_values_are_read_written_and_removed_by_path() -> None:
    value: Dict[str, Any] = {"a": [{"b": 1}, {"b": 2}], "c": {"d": 3}}
    set_at(value, ("a", 1, "b"), 20)
    remove(value, ("a", 0))
    remove(value, ("c", "d"))
    found = [
        value_at(value, path)
        for path in [("a", 0, "b"), ("a", 5, "b"), ("c", "d"), ("x", "y"), ("a", "b"), ()]
    ]
    assert found == [20, None, None, None, None, {"a": [{"b": 20}], "c": {}}]


def test_strings_come_in_document_order_with_their_paths() -> None:
    value = {"a": "1", "b": [None, "2", {"c": "3"}], "d": 4, "e": {"f": "5"}}
    assert list(strings(value)) == [
        (("a",), "1"),
        (("b", 1), "2"),
        (("b", 2, "c"), "3"),
        (("e", "f"), "5"),
    ]


# -- rewriting


def test_the_argument_is_never_changed() -> None:
    value = {"tools": [{"id": ONE, "version": "1"}, {"id": LOST}], "text": f"see {ONE}"}
    before = copy.deepcopy(value)
    result = rewritten(
        value,
        Reference("tools.[].id", CALLABLE, "holder"),
        pins=(Pin("tools.[].version", CALLABLE),),
    )
    result.value["tools"][0]["id"] = "changed"
    assert value == before


def test_places_of_the_table_are_rewritten_at_any_depth() -> None:
    value = {"a": {"b": [{"id": ONE}, {"id": TWO}], "c": {"x": {"id": ONE}}}}
    result = rewritten(
        value, Reference("a.b.[].id", ("datasets",)), Reference("a.c.*.id", ("datasets",))
    )
    assert result == Rewritten(
        {"a": {"b": [{"id": dest_id(1)}, {"id": dest_id(2)}], "c": {"x": {"id": dest_id(1)}}}},
        [],
        [],
        [],
    )


def test_a_reference_that_cannot_be_resolved_is_left_out_and_reported() -> None:
    result = rewritten({"dataset_id": LOST, "name": "x"}, Reference("dataset_id", ("datasets",)))
    assert result == Rewritten(
        {"name": "x"}, [Unresolved("dataset_id", ("datasets",), LOST)], [], []
    )


def test_an_object_that_is_useless_without_its_id_is_removed_as_a_whole() -> None:
    value = {
        "tools": [{"type": "function", "id": LOST, "note": 1}, {"type": "function", "id": ONE}]
    }
    result = rewritten(value, Reference("tools.[].id", CALLABLE, "holder", when="function"))
    assert result == Rewritten(
        {"tools": [{"type": "function", "id": dest_id(1)}]},
        [Unresolved("tools[0].id", CALLABLE, LOST)],
        [],
        [],
    )


def test_several_lost_items_of_one_list_leave_the_others_in_order() -> None:
    value = {"members": [LOST, ONE, source_id(98), TWO, source_id(97)]}
    result = rewritten(value, Reference("members.[]", ("users",)))
    assert (result.value, [item.path for item in result.unresolved]) == (
        {"members": [dest_id(1), dest_id(2)]},
        ["members[4]", "members[2]", "members[0]"],
    )


def test_a_reference_for_one_type_leaves_the_others_alone() -> None:
    value = {
        "tools": [{"type": "global", "id": "sum"}, {"type": "function", "id": ONE}, {"id": TWO}]
    }
    result = rewritten(value, Reference("tools.[].id", CALLABLE, "holder", when="function"))
    assert result.value == {
        "tools": [
            {"type": "global", "id": "sum"},
            {"type": "function", "id": dest_id(1)},
            {"id": dest_id(2)},
        ]
    }


@pytest.mark.parametrize(
    ("object_type", "targets"),
    [
        ("project", ("projects",)),
        ("project_log", ("projects",)),
        ("experiment", ("experiments",)),
        ("dataset", ("datasets",)),
        ("prompt", CALLABLE),
        ("organization", ("organizations",)),
        ("org_project", ("organizations",)),
        ("group", ("groups",)),
        ("role", ("roles",)),
        ("prompt_session", ("playgrounds",)),
        ("something new", ()),
    ],
)
def test_the_sibling_field_object_type_says_which_kind_an_id_names(
    object_type: str, targets: tuple
) -> None:
    asked: List[tuple] = []

    def asking(where: Tuple[str, ...], obj: str) -> Optional[str]:
        asked.append((where, obj))
        return dest_id(5)

    value = {"object_type": object_type, "object_id": ONE}
    resource = holding(Reference("object_id", ("@object_type",)))
    result = rewrite(value, resource, resolve=asking, known_ids={})
    assert (asked, result.value) == (
        [(targets, ONE)],
        {"object_type": object_type, "object_id": dest_id(5)},
    )


def test_version_pins_are_removed_and_reported() -> None:
    value = {
        "tools": [{"id": ONE, "version": "1000192656880881099"}, {"id": ONE, "version": None}],
        "dataset_version": "1",
    }
    result = rewritten(
        value,
        Reference("tools.[].id", CALLABLE),
        pins=tuple(
            Pin(path, CALLABLE) for path in ("tools.[].version", "dataset_version", "absent")
        ),
    )
    assert result == Rewritten(
        {"tools": [{"id": dest_id(1)}, {"id": dest_id(1), "version": None}]},
        [],
        ["tools[0].version", "dataset_version"],
        [],
    )


# -- strays


def test_any_other_string_that_is_a_known_id_is_rewritten() -> None:
    value = {"options": {"deep": [{"x": ONE}, [TWO]]}, "filter": "dddddddd"}
    assert rewritten(value).value == {
        "options": {"deep": [{"x": dest_id(1)}, [dest_id(2)]]},
        "filter": "dddddddd",
    }


def test_an_id_elsewhere_that_cannot_be_resolved_is_left_out_and_reported() -> None:
    result = rewritten({"options": {"ids": [LOST, ONE, LOST], "one": LOST}})
    assert result == Rewritten(
        {"options": {"ids": [dest_id(1)]}},
        [
            Unresolved("options.one", CALLABLE, LOST),
            Unresolved("options.ids[2]", CALLABLE, LOST),
            Unresolved("options.ids[0]", CALLABLE, LOST),
        ],
        [],
        [],
    )


def test_an_id_behind_a_prefix_is_rewritten_or_reported() -> None:
    """As OpenTelemetry names the parent of a span, wherever an exporter puts its attributes."""
    result = rewritten({"options": {"a": [f"project_id:{ONE}", f"experiment_id:{LOST}"]}})
    assert result.value == {"options": {"a": [f"project_id:{dest_id(1)}", f"experiment_id:{LOST}"]}}
    assert result.free_text == [("options.a[1]", LOST)]
    assert result.unresolved == []


def test_an_id_inside_a_longer_text_stays_and_is_reported() -> None:
    text = f"dataset_id = '{ONE}' or dataset_id = '{source_id(50)}' or id = '{LOST}'"
    result = rewritten({"config": {"btql_filter": text}})
    assert result == Rewritten(
        {"config": {"btql_filter": text}},
        [],
        [],
        [("config.btql_filter", ONE), ("config.btql_filter", LOST)],
    )


def test_an_id_that_is_a_key_of_an_object_is_reported() -> None:
    result = rewritten({"options": {"columns": {ONE: {"width": 5}, "plain": 1}}})
    assert [item for _, item in result.free_text] == [ONE]


@pytest.mark.parametrize("name", ["name", "slug"])
def test_an_object_named_like_an_id_keeps_its_name(name: str) -> None:
    assert rewritten({name: ONE, "deep": {name: ONE}}).value == {
        name: ONE,
        "deep": {name: dest_id(1)},
    }


def test_unknown_ids_are_user_data() -> None:
    value = {"metadata": {"trace": source_id(70), "customer": "c-1"}}
    assert rewritten(value) == Rewritten(value, [], [], [])


def test_an_id_that_was_put_in_is_not_taken_for_one_of_the_source() -> None:
    known = {**KNOWN, dest_id(1): ("projects",)}
    resource = holding(Reference("dataset_id", ("datasets",)))
    result = rewrite({"dataset_id": ONE}, resource, resolve=resolve, known_ids=known)
    assert result == Rewritten({"dataset_id": dest_id(1)}, [], [], [])


def test_a_word_that_may_stand_in_the_place_of_an_id_stays() -> None:
    reference = Reference("target.id", ("views",), "holder", words=("overview",))
    assert rewritten({"target": {"id": "overview"}}, reference).value == {
        "target": {"id": "overview"}
    }
    assert rewritten({"target": {"id": "x"}}, reference).value == {}


# -- the table itself


def example_of(path: str, leaf: Any, when: Optional[str]) -> Any:
    """A value that holds `leaf` at a pattern's place, two of it where the pattern says any."""
    step, _, rest = path.partition(".")
    if not step:
        return leaf
    inner = example_of(rest, leaf, when)
    if when and not rest and isinstance(leaf, str):
        return {"type": when, step: inner}
    if step == "[]":
        return [copy.deepcopy(inner), copy.deepcopy(inner)]
    return {"k1" if step == "*" else step: inner}


TABLE_REFERENCES = [
    (thing, reference) for thing in OBJECT_RESOURCES for reference in thing.references
]


@pytest.mark.parametrize(
    ("resource", "reference"),
    TABLE_REFERENCES,
    ids=[f"{member.name}.{ref.path}" for member, ref in TABLE_REFERENCES],
)
def test_every_reference_of_the_table_is_rewritten_or_left_out_and_reported(
    resource: Resource, reference: Reference
) -> None:
    good, lost = (
        example_of(reference.path, ONE, reference.when),
        example_of(reference.path, LOST, reference.when),
    )
    rewritten_good = rewrite(good, resource, resolve=resolve, known_ids=KNOWN)
    rewritten_lost = rewrite(lost, resource, resolve=resolve, known_ids=KNOWN)
    ids = [
        [text for _, text in strings(value.value) if "-" in text]
        for value in (rewritten_good, rewritten_lost)
    ]
    expected = [item for _, item in strings(good) if item == ONE]
    assert (ids, [entry.id for entry in rewritten_lost.unresolved]) == (
        [[dest_id(1)] * len(expected), []],
        [LOST] * len(expected),
    )


PINS = [(member, pin) for member in OBJECT_RESOURCES for pin in member.pins]


@pytest.mark.parametrize(
    ("resource", "pin"), PINS, ids=[f"{item.name}.{pin.path}" for item, pin in PINS]
)
def test_every_version_pin_without_counterpart_is_removed(resource: Resource, pin: Pin) -> None:
    version = "1000192656880881099"
    result = rewrite(
        example_of(pin.path, version, None), resource, resolve=resolve, known_ids=KNOWN
    )
    assert ([text for _, text in strings(result.value) if text == version], bool(result.pins)) == (
        [],
        True,
    )


@pytest.mark.parametrize(
    ("resource", "pin"), PINS, ids=[f"{item.name}.{pin.path}" for item, pin in PINS]
)
def test_every_version_pin_of_the_table_becomes_the_version_of_its_object(
    resource: Resource, pin: Pin
) -> None:
    value = example_of(pin.path, "1000192656880881099", None)
    for path in paths_matching(value, pin.path):
        value_at(value, path[:-1]).update({pin.of[-1]: ONE, "type": "function"})

    def resolve_version(asked: Pin, holder: Mapping[str, Any], version: Any) -> Optional[str]:
        return f"{version} of {holder[asked.of[-1]]}" if asked == pin else None

    result = rewrite(
        value, resource, resolve=resolve, known_ids=KNOWN, resolve_version=resolve_version
    )
    versions = {value_at(result.value, path) for path in paths_matching(result.value, pin.path)}
    assert (versions, result.pins) == ({f"1000192656880881099 of {ONE}"}, [])


def test_references_and_pins_lie_in_fields_that_are_written() -> None:
    outside = [
        (item.name, path)
        for item in OBJECT_RESOURCES
        for path in (*(part.path for part in (*item.references, *item.pins)),)
        if path.split(".")[0] not in item.create
    ]
    assert outside == []


def test_references_point_at_kinds_that_exist() -> None:
    beyond_the_table = {"organizations", "playgrounds"}  # told by the connection; not movable
    unknown = [
        (item.name, target)
        for item, reference in TABLE_REFERENCES
        for target in reference.to
        if not target.startswith("@") and target not in BY_NAME and target not in beyond_the_table
    ]
    assert unknown == []
