"""Malformed answers are requested again, and then raise an error that names route and field."""

from __future__ import annotations

import json
from typing import Any, Callable, List, Tuple

import pytest

from bt_migrate.api.answers import (
    created_object,
    error_free,
    inserted_groups,
    inserted_rows,
    keys_after,
    list_of_objects,
    logs3_rows,
    object_with_id,
    rows_asked_for,
    rows_of_query,
    signed_download,
    signed_upload,
    text_at,
)
from bt_migrate.api.client import Api
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.errors import AnswerError, Route
from tests.support.loopback import Loopback, Reply

NONSENSE: List[Any] = [{}, [], None, 5, "text", True, {"error": "no"}, {"objects": None}]


@pytest.mark.parametrize("answer", NONSENSE)
@pytest.mark.parametrize(
    "check",
    [
        object_with_id(),
        object_with_id("a"),
        created_object({"project_id": "p"}),
        rows_of_query,
        inserted_rows(["a"]),
        inserted_groups("dataset", {"d": ["a"]}),
        logs3_rows(["a"]),
        signed_download,
        signed_upload(),
    ],
)
def test_malformed_answers_are_refused(check: Callable[[Any], str], answer: Any) -> None:
    assert check(answer) != ""


@pytest.mark.parametrize(
    ("check", "answer", "problem"),
    [
        (object_with_id("a"), {"id": "a"}, ""),
        (object_with_id("a"), {"id": "b"}, "it is another object: `id` is a text (\"b\"), not 'a'"),
        (object_with_id(), {"id": 5}, "`id` is a whole number (5), not a text"),
        (object_with_id(), {"id": ""}, "`id` is empty, not a text"),
        (object_with_id(), {"name": "x"}, '`id` is missing in {"name": "x"}, not a text'),
        (created_object({"name": "x"}), {"id": "a", "project_id": "p"}, ""),
        (created_object({"project_id": "p"}), {"id": "a"}, ""),
        (
            created_object({"project_id": "p"}),
            {"id": "a", "project_id": "q"},
            "it is another object: `project_id` is a text (\"q\"), not 'p'",
        ),
        (created_object({"name": "Name "}), {"id": "a", "name": "name"}, ""),
        (created_object({"name": "n" * 300}), {"id": "a", "name": "n" * 255}, ""),
        (
            created_object({"name": "first"}),
            {"id": "0", "name": "x"},
            "it is another object: `name` is a text (\"x\"), not 'first'",
        ),
        (list_of_objects, [], ""),
        (list_of_objects, {"objects": [{"id": "a"}]}, ""),
        (list_of_objects, [{"id": "a"}, {"id": "a"}], ""),
        (
            list_of_objects,
            [{"id": "a", "name": "x"}, {"id": "b"}, {"id": "a", "name": "y"}],
            "`objects[2].id` is that of another object of the list",
        ),
        (
            list_of_objects,
            {"objects": {"id": "a"}},
            '`objects` is an object ({"id": "a"}), not a list',
        ),
        (list_of_objects, {"error": "no"}, '`objects` is missing in {"error": "no"}, not a list'),
        (list_of_objects, [{"id": "a"}, 5], "`objects[1]` is a whole number (5), not an object"),
        (list_of_objects, [{"id": None}], '`objects[0].id` is missing in {"id": null}, not a text'),
        (rows_of_query, {"data": [], "cursor": None}, ""),
        (rows_of_query, {"data": [{}, "secret"]}, "`data[1]` is a text, not a row"),
        (rows_of_query, {"data": [], "cursor": 5}, "`cursor` is a whole number (5), not a text"),
        (rows_asked_for(["a"], "project_id", ["p"]), {"data": [{"id": "a"}, {"id": "a"}]}, ""),
        (
            rows_asked_for(["a"], "project_id", ["p"]),
            {"data": [{"id": "a"}, {"id": "b"}]},
            "`data[1]` was not asked for; the server ignores the filter of ids",
        ),
        (
            rows_asked_for(["a"], "project_id", ["p", "q"]),
            {"data": [{"id": "a", "project_id": {}}]},
            "`data[0]` is of another object than those asked for (`project_id`)",
        ),
        *(
            (
                rows_asked_for(["a"], "project_id", ["p"]),
                {"data": [{"id": "a", "project_id": holder}]},
                "`data[0]` is of another object than those asked for (`project_id`)",
            )
            for holder in ("q", [], {})
        ),
        (keys_after(None), {"data": [{"id": "a", "_pagination_key": "p01"}]}, ""),
        (
            keys_after("p01"),
            {"data": [{"id": "a", "_pagination_key": "p01"}]},
            "`data[0]` is not after the key p01; the server ignores the filter of keys",
        ),
        (
            keys_after(None),
            {"data": [{"id": "a", "_pagination_key": "x"}]},
            "`data[0]` has no id or no pagination key",
        ),
        (keys_after(None), {"data": [{"id": []}]}, "`data[0]` has no id or no pagination key"),
        (inserted_rows(["a", "b"]), {"row_ids": ["b", "a"]}, ""),
        (inserted_rows(["a", "b"]), {"row_ids": ["a"]}, "`row_ids` has 1 ids for 2 rows"),
        (inserted_rows(["a", "b"]), {"row_ids": ["a", "c"]}, "`row_ids` lacks row 'b'"),
        (inserted_rows(["a", "b"]), {"row_ids": ["a", ["b"]]}, "`row_ids` lacks row 'b'"),
        (inserted_groups("dataset", {"d": ["a"]}), {"dataset": {"d": {"row_ids": ["a"]}}}, ""),
        (
            inserted_groups("dataset", {"d": ["a"], "e": ["b"]}),
            {"dataset": {"d": {"row_ids": ["a"]}}},
            "`dataset.e` is null, not an object",
        ),
        (logs3_rows(["a", "b"]), {"ids": ["a", "b"], "xact_id": "1"}, ""),
        (logs3_rows(["a", "b"]), {"ids": ["a"]}, "`ids` has 1 ids for 2 rows"),
        (signed_download, {"status": {"upload_status": "error"}}, ""),
        (signed_download, {"status": {"upload_status": "done"}, "downloadUrl": "http://h"}, ""),
        (
            signed_download,
            {"status": {"upload_status": "done"}},
            '`downloadUrl` is missing in {"status": {"upload_status": "done"}}, not a text',
        ),
        (signed_upload(), {"signedUrl": "http://h", "headers": {"A": "b"}}, ""),
        (
            signed_upload(),
            {"signedUrl": "http://h", "headers": ["A"]},
            '`headers` is a list (["A"]), not an object of texts',
        ),
        (signed_upload("key"), {"signedUrl": "http://h"}, None),
        (error_free, None, ""),
        (error_free, {"error": "no"}, 'it holds an error: a text ("no")'),
    ],
)
def test_a_check_says_what_is_wrong(check: Callable[[Any], str], answer: Any, problem: Any) -> None:
    assert check(answer) == problem if problem is not None else check(answer) != ""


def test_a_field_without_a_check_of_its_own_names_its_route() -> None:
    route = Route("source", "GET", "/version")
    assert text_at(route, {"a": [{"b": "x"}]}, "a", 0, "b") == "x"
    with pytest.raises(AnswerError) as raised:
        text_at(route, {"n": -1}, "n")
    assert str(raised.value) == (
        "source: GET /version was answered 200, but `n` is a whole number (-1), not a text"
    )


def client(url: str, attempts: int = 2) -> Api:
    return Api(Endpoint("destination", url, "sk-key"), Limits(attempts, 0.001, 2), writable=True)


CALLS: List[Tuple[str, Callable[[Api], Any], Any]] = [
    ("create", lambda api: api.create("/v1/dataset", {"name": "x"}).json, {"id": "a"}),
    ("put", lambda api: api.put("/v1/prompt", {}, "a"), {"id": "a"}),
    ("patch", lambda api: api.patch("/v1/dataset/a", {}), {"id": "a"}),
    ("list", lambda api: list(api.list("/v1/dataset", page_size=0)), [{"id": "a"}]),
    ("query", lambda api: api.query("select: *").json, {"data": [{"id": "a"}]}),
]


def sent(answer: Any) -> Reply:
    return Reply(200, json.dumps(answer).encode())


@pytest.mark.parametrize("call", [call for _, call, _ in CALLS], ids=[name for name, *_ in CALLS])
@pytest.mark.parametrize(
    "nonsense",
    [
        *map(sent, ({}, None, 5, {"error": "no"})),
        Reply(200, b""),
        Reply(204, b""),
        Reply(200, b"Bad gateway"),
    ],
)
def test_an_answer_that_stays_malformed_is_an_error_of_that_request(
    call: Callable[[Api], Any], nonsense: Reply
) -> None:
    with Loopback([nonsense]) as server, pytest.raises(AnswerError) as raised:
        call(client(server.url))
    assert (len(server.asked), raised.value.status) == (3, nonsense.status)


@pytest.mark.parametrize(("name", "call", "good"), CALLS, ids=[name for name, *_ in CALLS])
def test_an_answer_that_was_malformed_once_is_requested_again(
    name: str, call: Callable[[Api], Any], good: Any
) -> None:
    with Loopback([sent({}), Reply(200, b""), sent(good)]) as server:
        assert call(client(server.url)) == (good["data"] if name == "query" else good)


def test_an_answer_about_another_object_is_refused() -> None:
    with Loopback([sent({"id": "b"})]) as server, pytest.raises(AnswerError) as raised:
        client(server.url, attempts=0).patch("/v1/dataset/a", {})
    assert str(raised.value) == (
        "destination: PATCH /v1/dataset/a was answered 200, but it is another object:"
        " `id` is a text (\"b\"), not 'a'"
    )


def test_a_deletion_that_is_answered_with_an_error_has_not_happened() -> None:
    with Loopback([sent({"error": "busy"})]) as server, pytest.raises(AnswerError):
        client(server.url).delete("/v1/dataset/a")
