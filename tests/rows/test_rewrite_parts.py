"""Parts of a row that go their own way: attachments, later merges, comments, large fields."""

from __future__ import annotations

import copy
from typing import Any, Dict, List, Optional

import pytest

from bt_migrate.api.json_codec import encode
from bt_migrate.model.references import Path, attachment_places
from bt_migrate.rows.rewrite import (
    ASSIGNMENTS,
    can_be_merged,
    comment_record,
    deferred_merge,
    spill_order,
)

DATASET, PROMPT, USER = (f"aaaaaaaa-0000-4000-8000-{number:012d}" for number in range(3))


# -- attachments and later merges


def attachment(key: Any = "k") -> Dict[str, Any]:
    return {
        "type": "braintrust_attachment",
        "key": key,
        "filename": "a.png",
        "content_type": "image/png",
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (attachment(), [()]),
        ({"input": attachment()}, [("input",)]),
        (
            {"input": [1, {"x": [attachment()]}], "output": attachment()},
            [("input", 1, "x", 0), ("output",)],
        ),
        ({"input": {"type": "external_attachment", "url": "s3://b/k"}}, []),
        ({"input": {"type": "inline_attachment", "src": "data:"}}, []),
        ({"input": attachment(key=None)}, []),
        ({"input": {"type": "braintrust_attachment"}}, []),
        ({"input": "braintrust_attachment"}, []),
        (None, []),
    ],
)
def test_attachments_are_found_at_any_depth(value: Any, expected: List[tuple]) -> None:
    assert attachment_places(value) == expected


@pytest.mark.parametrize(
    ("path", "origin", "expected"),
    [
        (
            "origin",
            {"object_type": "dataset", "object_id": DATASET, "id": "d-1"},
            {"origin": {"object_type": "dataset", "object_id": "new", "id": "d-1"}},
        ),
        (  # the row id in the origin of a prompt is the prompt's id
            "origin",
            {"object_type": "prompt", "object_id": PROMPT, "id": PROMPT},
            {"origin": {"object_type": "prompt", "object_id": "new", "id": "new"}},
        ),
        ("metadata.prompt.id", None, {"metadata": {"prompt": {"id": "new"}}}),
        ("metadata.prompt.project_id", None, {"metadata": {"prompt": {"project_id": "new"}}}),
    ],
)
def test_a_later_merge_adds_just_the_reference(
    path: str, origin: Optional[dict], expected: dict
) -> None:
    assert (
        deferred_merge(
            tuple(int(step) if step.isdigit() else step for step in path.split(".")), "new", origin
        )
        == expected
    )


@pytest.mark.parametrize(
    ("path", "can"),
    [
        (("origin",), True),
        (("metadata", "prompt", "id"), True),
        (("metadata", "list", 3), False),
        (("metadata", ASSIGNMENTS, 3), True),
        (("metadata", "mine", ASSIGNMENTS, 3), False),
    ],
)
def test_a_merge_can_add_a_reference_outside_of_lists_and_in_lists_of_references_only(
    path: Path, can: bool
) -> None:
    assert can_be_merged(path) is can


# -- comments and rows that are too large

DATE = "2026-01-15T08:30:00.123Z"
AUTHOR = {"id": USER, "email": "a@example.test"}


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ({"id": "c", "comment": {"text": "hi"}}, {"comment": {"text": "hi"}}),
        ({"id": "c", "text": "hi", "created": DATE}, {"created": DATE, "comment": {"text": "hi"}}),
        ({"id": "c", "comment": {"text": ""}}, {"comment": {"text": ""}}),
        (
            {"id": "c", "comment": "just text", "metadata": ["a"]},
            {"comment": {"text": "just text"}, "_audit_metadata": {"original_metadata": ["a"]}},
        ),
        (
            {"id": "c", "comment": {"text": "hi", "mentions": [USER]}},
            {"comment": {"text": "hi", "mentions": [USER]}},
        ),
        (  # the author cannot be set, and is not forgotten
            {
                "id": "c",
                "comment": {"text": "hi"},
                "user": AUTHOR,
                "user_id": USER,
                "_xact_id": "1",
                "origin": {"id": "elsewhere"},
            },
            {
                "comment": {"text": "hi"},
                "_audit_metadata": {"original_author": {"user": AUTHOR, "user_id": USER}},
            },
        ),
        (
            {
                "id": "c",
                "comment": {"text": "hi"},
                "source": "external",
                "metadata": {"a": 1},
                "user_email": "a@example.test",
            },
            {
                "comment": {"text": "hi"},
                "_audit_source": "external",
                "_audit_metadata": {"a": 1, "original_author": {"user_email": "a@example.test"}},
            },
        ),
        (
            {
                "id": "c",
                "comment": {"text": "hi"},
                "_audit_source": "app",
                "_audit_metadata": {"a": [1]},
            },
            {"comment": {"text": "hi"}, "_audit_source": "app", "_audit_metadata": {"a": [1]}},
        ),
        (
            {
                "id": "c",
                "comment": {"text": "hi"},
                "audit_source": "external",
                "audit_metadata": {"a": 1},
            },
            {
                "comment": {"text": "hi"},
                "_audit_source": "external",
                "_audit_metadata": {"a": 1},
            },
        ),
        (
            {
                "id": "c",
                "comment": {"text": "hi"},
                "source": "app",
                "audit_source": "external",
                "metadata": {"a": 1, "b": 1},
                "audit_metadata": {"a": 2, "c": 3},
            },
            {
                "comment": {"text": "hi"},
                "_audit_source": "app",
                "_audit_metadata": {
                    "a": 1,
                    "b": 1,
                    "c": 3,
                    "original_sources": ["app", "external"],
                },
            },
        ),
        (
            {"id": "c", "comment": {"text": "hi"}, "created": None, "metadata": {}, "user": None},
            {"comment": {"text": "hi"}},
        ),
    ],
)
def test_a_comment_is_a_record_of_its_own_with_its_id_date_and_row(
    comment: Dict[str, Any], expected: Dict[str, Any]
) -> None:
    before = copy.deepcopy(comment)
    assert (comment_record("row-1", comment), comment) == (
        {"id": "c", "origin": {"id": "row-1"}, **expected},
        before,
    )


@pytest.mark.parametrize(
    "comment",
    [
        {},
        {"id": "c"},
        {"comment": {"text": "no id"}},
        {"id": "c", "comment": None},
        {"id": "c", "comment": {}},
        "text",
        1,
        ["text"],
    ],
)
def test_a_comment_without_id_or_text_is_no_record(comment: Any) -> None:
    assert comment_record("row-1", comment) is None


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"id": "1", "input": "x" * 10, "output": "x" * 30, "metadata": {"a": "x" * 20}},
            ["output", "metadata", "input"],
        ),
        (
            {"id": "1", "expected": "é" * 10, "error": "x" * 15},
            ["expected", "error"],
        ),  # in bytes, as they are sent
        (
            {
                "id": "1" * 99,
                "scores": {"a" * 99: 1},
                "tags": ["x" * 99],
                "span_attributes": {"name": "x" * 99},
                "input": 1,
            },
            ["input"],
        ),
        ({"id": "1", "input": None, "output": 0, "error": ""}, ["error", "output"]),
        ({"id": "1"}, []),
    ],
)
def test_the_largest_field_of_content_goes_first(row: Dict[str, Any], expected: List[str]) -> None:
    assert spill_order(row, encode) == expected
