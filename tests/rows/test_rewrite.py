"""How a source row becomes an insertable row: which references are rewritten, kept or reported."""

from __future__ import annotations

import copy
from typing import Any, Dict, Mapping, Optional, Tuple

import pytest

from bt_migrate.model.references import dotted
from bt_migrate.model.resource import Pin
from bt_migrate.model.resource_table import CALLABLE
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.rows.rewrite import (
    ASSIGNMENTS,
    FieldSplit,
    RewriteNotes,
    insertable_row,
    may_hold_references,
    rewrite_row,
)

PROJECT, PROMPT, DATASET, USER, LOST, LOST_USER = (
    f"aaaaaaaa-0000-4000-8000-{number:012d}" for number in range(6)
)
NEW = {source_id: source_id.replace("a", "d") for source_id in (PROJECT, PROMPT, DATASET, USER)}
KNOWN: Dict[str, Tuple[str, ...]] = {
    PROJECT: ("projects",),
    PROMPT: CALLABLE,
    DATASET: ("datasets",),
    LOST: CALLABLE,
    USER: ("users",),
    LOST_USER: ("users",),
}


def resolve(targets: Tuple[str, ...], source_id: str) -> Optional[str]:
    return NEW.get(source_id) if KNOWN.get(source_id) == targets else None


def unresolved(notes: RewriteNotes) -> list:
    return [(dotted(path), targets, ref) for path, targets, ref in notes.unresolved]


def rewritten(row: Dict[str, Any]) -> Tuple[Dict[str, Any], RewriteNotes]:
    out = copy.deepcopy(row)
    return out, rewrite_row(out, resolve, known_ids=KNOWN)


SPAN = {
    "id": "row-1",
    "created": "2026-01-15T08:30:00.123+01:00",
    "span_id": "s",
    "root_span_id": "r",
    "span_parents": ["p"],
    "input": {"n": 123456789012345678901234567890},
    "output": None,
    "expected": "\ud83d",
    "error": {"message": "x"},
    "scores": {"exact": 1, "none": None},
    "metrics": {"start": 1.5, "tokens": 7},
    "metadata": {"a": [1, None]},
    "tags": ["t"],
    "context": {"caller_line": 3},
    "span_attributes": {"type": "llm", "exec_counter": 4},
    "facets": {"f": "v"},
    "origin": {"object_type": "dataset", "object_id": DATASET, "id": "d-1"},
}
SERVER = {
    "_xact_id": "1000192656880881099",
    "_pagination_key": "p00000000000000000001",
    "org_id": "o",
    "project_id": PROJECT,
    "experiment_id": "e",
    "dataset_id": "d",
    "log_id": "g",
    "is_root": True,
    "_async_scoring_state": {"token": "t"},
}


@pytest.mark.parametrize("kind", ["logs", "experiments"])
def test_a_span_keeps_every_field_that_its_insert_takes_nulls_included(kind: str) -> None:
    assert insertable_row(ROW_KINDS[kind], {**SPAN, **SERVER}) == SPAN


def test_a_dataset_row_has_no_fields_of_spans() -> None:
    of_spans = ("output", "error", "scores", "metrics", "context", "span_attributes")
    expected = {name: value for name, value in SPAN.items() if name not in of_spans}
    assert insertable_row(ROW_KINDS["datasets"], {**SPAN, **SERVER}) == expected


@pytest.mark.parametrize("kind", ["logs", "experiments", "datasets"])
def test_a_row_is_never_inserted_with_control_fields(kind: str) -> None:
    row = {
        "id": "1",
        "_is_merge": True,
        "_object_delete": True,
        "_merge_paths": [["a"]],
        "_array_delete": [],
        "_parent_id": "2",
    }
    assert insertable_row(ROW_KINDS[kind], row) == {"id": "1"}


def test_an_absent_field_stays_absent() -> None:
    assert insertable_row(ROW_KINDS["logs"], {"id": "1", "input": None}) == {
        "id": "1",
        "input": None,
    }


def test_fields_that_no_insert_takes_are_named_where_they_hold_something() -> None:
    row = {
        **SPAN,
        **SERVER,
        "audit_data": [],
        "classifications": {"topic": [1]},
        "newer": 1,
        "none": None,
        "audit": [{"a": 1}],
    }
    split = FieldSplit(ROW_KINDS["logs"])
    plain = {**SPAN, **SERVER}
    found = [split.of(each) for each in (row, plain, {**plain, "newer": 0}, {**plain, "newer": 2})]
    assert [(out, sorted(lost)) for out, lost in found] == [
        (SPAN, ["audit", "classifications", "newer"]),
        (SPAN, []),
        (SPAN, []),
        (SPAN, ["newer"]),
    ]


@pytest.mark.parametrize("kind", ["logs", "experiments", "datasets"])
def test_comments_are_carried_as_records_of_their_own(kind: str) -> None:
    row = {"id": "1", "comments": [{"id": "c", "comment": {"text": "hi"}}]}
    assert FieldSplit(ROW_KINDS[kind]).of(row) == ({"id": "1"}, [])


def test_scores_of_a_dataset_row_are_reported_as_not_carried() -> None:
    row = {"id": "1", "scores": {"a": 1}, "output": None}
    assert FieldSplit(ROW_KINDS["datasets"]).of(row) == ({"id": "1"}, ["scores"])


def test_a_row_without_references_stays_as_it_is() -> None:
    row = {name: value for name, value in SPAN.items() if name != "origin"}
    assert rewritten(row) == (row, RewriteNotes())


# -- origin


def test_an_origin_points_at_the_new_object_and_at_the_same_row() -> None:
    origin = {
        "object_type": "dataset",
        "object_id": DATASET,
        "id": "d-1",
        "created": "2026-01-15T00:00:00Z",
        "_xact_id": "1",
    }
    out, notes = rewritten({"id": "1", "origin": origin})
    assert (out, notes) == (
        {
            "id": "1",
            "origin": {
                "object_type": "dataset",
                "object_id": NEW[DATASET],
                "id": "d-1",
                "created": "2026-01-15T00:00:00Z",
            },
        },
        RewriteNotes(pins=["origin._xact_id"]),
    )


def test_the_origin_of_a_prompt_has_the_new_id_in_both_places() -> None:
    out, notes = rewritten(
        {"id": "1", "origin": {"object_type": "prompt", "object_id": PROMPT, "id": PROMPT}}
    )
    assert (out["origin"], notes) == (
        {"object_type": "prompt", "object_id": NEW[PROMPT], "id": NEW[PROMPT]},
        RewriteNotes(),
    )


@pytest.mark.parametrize(
    ("origin", "targets", "ref"),
    [
        ({"object_type": "function", "object_id": LOST, "id": LOST}, CALLABLE, LOST),
        ({"object_type": "experiment", "object_id": "gone", "id": "x"}, ("experiments",), "gone"),
        (
            {"object_type": "prompt_session", "object_id": "play", "id": "x"},
            ("playgrounds",),
            "play",
        ),
        ({"object_type": "something new", "object_id": "y", "id": "x"}, (), "y"),
    ],
)
def test_an_origin_without_counterpart_is_left_out_as_a_whole_and_reported(
    origin: dict, targets: tuple, ref: str
) -> None:
    assert rewritten({"id": "1", "origin": origin}) == (
        {"id": "1"},
        RewriteNotes(unresolved=[(("origin",), targets, ref)]),
    )


@pytest.mark.parametrize("origin", [None, "text"])
def test_a_value_that_is_no_origin_stays(origin: Any) -> None:
    assert rewritten({"id": "1", "origin": origin}) == (
        {"id": "1", "origin": origin},
        RewriteNotes(),
    )


# -- metadata


def test_the_prompt_of_a_span_is_rewritten_and_its_version_goes() -> None:
    prompt = {
        "id": PROMPT,
        "project_id": PROJECT,
        "version": "1",
        "variables": {"q": PROMPT},
        "key": "k",
    }
    out, notes = rewritten({"id": "1", "metadata": {"prompt": prompt, "model": "m"}})
    expected = {
        "id": NEW[PROMPT],
        "project_id": NEW[PROJECT],
        "variables": {"q": NEW[PROMPT]},
        "key": "k",
    }
    assert (out, notes) == (
        {"id": "1", "metadata": {"prompt": expected, "model": "m"}},
        RewriteNotes(pins=["metadata.prompt.version"]),
    )


def test_versions_of_the_origin_and_of_the_prompt_become_those_of_the_destination() -> None:
    row = {
        "id": "1",
        "origin": {"object_type": "prompt", "object_id": PROMPT, "id": PROMPT, "_xact_id": "1"},
        "metadata": {"prompt": {"id": PROMPT, "version": "2"}},
    }

    def resolve_version(pin: Pin, holder: Mapping[str, Any], version: Any) -> Optional[str]:
        return f"{version} of {holder[pin.of[0]]} in {' or '.join(pin.to)}"

    notes = rewrite_row(row, resolve, resolve_version, known_ids=KNOWN)
    text = f"of {PROMPT} in functions or prompts"
    assert (row["origin"]["_xact_id"], row["metadata"]["prompt"]["version"], notes) == (
        f"1 {text}",
        f"2 {text}",
        RewriteNotes(),
    )


def test_what_cannot_be_resolved_in_a_prompt_is_left_out_and_reported() -> None:
    prompt = {"id": LOST, "project_id": PROJECT, "prompt_session_id": "play"}
    out, notes = rewritten({"id": "1", "metadata": {"prompt": prompt}})
    assert (out["metadata"], unresolved(notes)) == (
        {"prompt": {"project_id": NEW[PROJECT]}},
        [
            ("metadata.prompt.id", CALLABLE, LOST),
            ("metadata.prompt.prompt_session_id", ("playgrounds",), "play"),
        ],
    )


@pytest.mark.parametrize(
    "prompt", ["text", {"id": "mine", "version": "3"}, {"version": 2}, ["x"], None, {"id": 5}]
)
def test_a_users_own_field_named_prompt_stays(prompt: Any) -> None:
    row = {"id": "1", "metadata": {"prompt": prompt}}
    assert rewritten(row) == (row, RewriteNotes())


def test_review_assignments_are_mapped_and_users_without_counterpart_are_reported() -> None:
    out, notes = rewritten({"id": "1", "metadata": {ASSIGNMENTS: [USER, LOST_USER, 7]}})
    assert (out["metadata"], unresolved(notes)) == (
        {ASSIGNMENTS: [NEW[USER], 7]},
        [(f"metadata.{ASSIGNMENTS}[1]", ("users",), LOST_USER)],
    )


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        (f"project_id:{PROJECT}", f"project_id:{NEW[PROJECT]}"),
        ("project_name:beta", "project_name:Gamma"),
        ("project_name:other", "project_name:other"),
        (f"experiment_id:{LOST}", f"experiment_id:{LOST}"),
        (7, 7),
    ],
)
def test_the_parent_of_an_opentelemetry_span_is_rewritten(parent: Any, expected: Any) -> None:
    row = {"id": "r", "metadata": {"braintrust.parent": parent}}
    assert may_hold_references(row)
    rewrite_row(row, resolve, known_ids=KNOWN, new_names={"beta": "Gamma"})
    assert row["metadata"] == {"braintrust.parent": expected}


@pytest.mark.parametrize("field", ["metadata", "context", "span_attributes"])
def test_known_ids_in_fields_of_references_are_rewritten_at_any_depth(field: str) -> None:
    out, notes = rewritten({"id": "1", field: {"a": [{"b": DATASET}, LOST, "text"]}})
    assert (out[field], unresolved(notes)) == (
        {"a": [{"b": NEW[DATASET]}, "text"]},
        [(f"{field}.a[1]", CALLABLE, LOST)],
    )


def test_metadata_that_is_nothing_but_an_id_is_rewritten_or_left_out() -> None:
    assert (rewritten({"metadata": DATASET})[0], rewritten({"metadata": LOST})[0]) == (
        {"metadata": NEW[DATASET]},
        {},
    )


@pytest.mark.parametrize(
    "field", ["input", "output", "expected", "error", "scores", "facets", "tags"]
)
def test_user_content_is_never_rewritten(field: str) -> None:
    row = {"id": "1", field: {"a": [DATASET, f"see {PROMPT}"]}}
    assert rewritten(row) == (row, RewriteNotes())


def test_the_source_row_is_not_changed_through_its_shared_values() -> None:
    source = {
        "id": "1",
        "metadata": {
            "prompt": {"id": PROMPT, "version": "1"},
            ASSIGNMENTS: [USER],
            "deep": [DATASET],
        },
    }
    before = copy.deepcopy(source)
    rewrite_row(insertable_row(ROW_KINDS["logs"], source), resolve, known_ids=KNOWN)
    assert source == before


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, False),
        ({"metadata": {"a": 1}, "origin": None}, False),
        ({"metadata": "prompt"}, False),
        ({"metadata": {"prompt": {}}}, True),
        ({"metadata": {ASSIGNMENTS: []}}, True),
        ({"origin": {"id": "1"}}, True),
    ],
)
def test_rows_that_may_hold_references_are_recognized(row: dict, expected: bool) -> None:
    assert may_hold_references(row) is expected
