"""Rows of the sandbox over HTTP: inserts, merges, deletions, comments, transactions."""

from __future__ import annotations

import json
from typing import Any, Dict, List

import pytest

from bt_migrate.sandbox.data import clock as keys
from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg
from tests.support.sandbox_http import Http


@pytest.fixture
def project(acme: SandboxOrg) -> str:
    return str(acme.create("project", {"name": "P"})["id"])


@pytest.fixture
def dataset(acme: SandboxOrg, project: str) -> str:
    return str(acme.create("dataset", {"project_id": project, "name": "D"})["id"])


def some(row: Dict[str, Any], *names: str) -> Dict[str, Any]:
    return {name: row[name] for name in names}


def present(row: Dict[str, Any]) -> Dict[str, Any]:
    """What the caller gave: no nulls, no fields of the server."""
    server = (
        "_xact_id _pagination_key is_root org_id project_id log_id experiment_id dataset_id "
        "audit_data"
    ).split()
    return {name: value for name, value in row.items() if value is not None and name not in server}


def upsert_entry(row: Dict[str, Any]) -> Dict[str, Any]:
    """The audit entry of a row that was written once, through the API."""
    return {
        "_xact_id": row["_xact_id"],
        "audit_data": {"action": "upsert"},
        "metadata": {},
        "source": "api",
    }


def test_transactions_and_keys_have_the_real_encoding() -> None:
    moment = keys.moment_of_xact("1000192656880881099")
    assert moment is not None
    assert (moment >> 16, moment & 0xFFFF) == (1709970518, 52683)
    assert keys.xact_id(moment) == "1000192656880881099"
    assert keys.moment_of_xact("81cd05ee665fdfb3") == moment
    assert keys.pagination_key(keys.key_number(moment, 7)) == "p%020d" % (
        1709970518 << 32 | 52683 << 16 | 7
    )


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("1970-01-01", 0),
        ("2024-02-29T12:00:00.5+01:00", 1709204400500000),
        ("2024-02-29T11:00:00.500000Z", 1709204400500000),
        ("2024-13-01", None),
        ("yesterday", None),
    ],
)
def test_timestamps_are_compared_by_value(text: str, micros: Any) -> None:
    assert keys.micros(text) == micros


def test_one_insert_is_one_transaction_and_keys_follow_the_order_of_insertion(
    http: Http, acme: SandboxOrg, project: str
) -> None:
    assert http.insert("project_logs", project, {"id": "b"}, {"id": "a"}) == ["b", "a"]
    assert http.insert("project_logs", project, {"id": "c"}) == ["c"]
    rows = acme.rows("project_logs", project)
    assert [row["id"] for row in rows] == ["b", "a", "c"]
    numbers = [int(row["_pagination_key"][1:]) for row in rows]
    assert numbers == sorted(numbers)
    assert [number & 0xFFFF for number in numbers] == [0, 1, 0]
    moments = [keys.moment_of_xact(row["_xact_id"]) for row in rows]
    assert moments == [number >> 16 for number in numbers]
    assert moments[0] == moments[1] != moments[2]


def test_a_reader_sees_every_field_and_what_the_server_adds(acme: SandboxOrg, project: str) -> None:
    created = "2020-01-02T03:04:05.678901+02:00"
    acme.insert(
        "project_logs",
        project,
        [{"id": "a", "input": 1, "created": created, "facets": {"f": None}, "span_id": "a"}],
    )
    row = acme.rows("project_logs", project)[0]
    nulls = (
        "output expected error scores metadata tags metrics context span_attributes origin "
        "comments "
        "classifications _async_scoring_state span_parents"
    )
    assert row == dict(
        dict.fromkeys(nulls.split()),
        id="a",
        input=1,
        created=created,
        facets={"f": None},
        span_id="a",
        root_span_id="a",
        audit_data=[upsert_entry(row)],
        is_root=True,
        org_id=acme.id,
        project_id=project,
        log_id="g",
        _xact_id=row["_xact_id"],
        _pagination_key=row["_pagination_key"],
    )


def test_dataset_rows_have_no_span_fields(
    http: Http, acme: SandboxOrg, project: str, dataset: str
) -> None:
    http.insert("dataset", dataset, {"id": "a", "input": 1, "span_parents": ["x"], "span_id": "s"})
    row = acme.rows("dataset", dataset)[0]
    assert present(row) == {
        "id": "a",
        "input": 1,
        "span_id": "s",
        "root_span_id": "s",
        "created": row["created"],
    }
    assert some(row, "is_root", "project_id", "dataset_id") == {
        "is_root": False,
        "project_id": project,
        "dataset_id": dataset,
    }
    for name in ("output", "scores", "metrics", "error", "span_attributes"):
        answer = http.post(f"/v1/dataset/{dataset}/insert", {"events": [{name: {}}]})
        assert (answer.status_code, answer.text) == (
            400,
            f"events[0]: unrecognized field '{name}'",
        )


@pytest.mark.parametrize(
    "event",
    [
        {"_xact_id": "1"},
        {"project_id": "x"},
        {"comments": []},
        {"scores": {"s": 1.5}},
        {"scores": {"s": "x"}},
        {"metrics": {"m": "x"}},
        {"tags": [1]},
        {"metadata": []},
        {"created": "yesterday"},
        {"created": 5},
        {"id": ""},
        {"id": 5},
        {"origin": {"object_type": "dataset"}},
        {"span_parents": "x"},
    ],
)
def test_a_wrong_event_refuses_its_whole_request(
    http: Http, acme: SandboxOrg, project: str, event: Dict[str, Any]
) -> None:
    answer = http.post(f"/v1/project_logs/{project}/insert", {"events": [{"id": "good"}, event]})
    assert answer.status_code == 400
    assert answer.text.startswith("events[1]: ")
    assert acme.rows("project_logs", project) == []


def test_the_same_id_twice_in_one_request_is_refused(http: Http, project: str) -> None:
    answer = http.post(f"/v1/project_logs/{project}/insert", {"events": [{"id": "a"}, {"id": "a"}]})
    assert answer.status_code == 400


def test_rows_without_an_id_get_one_each_time(http: Http, acme: SandboxOrg, project: str) -> None:
    ids = http.insert("project_logs", project, {"input": 1}) + http.insert(
        "project_logs", project, {"input": 1}
    )
    assert len(set(ids)) == 2
    assert [row["id"] for row in acme.rows("project_logs", project)] == ids


def test_numbers_and_texts_are_read_back_as_they_were_written(http: Http, project: str) -> None:
    text = (
        '{"big":123456789012345678901234567890,"zero":-0.0,"small":5e-324,"one":1.0,'
        '"lone":"\\ud83d","pair":"\\ud83d\\ude00","nul":"\\u0000"}'
    )
    body = f'{{"events":[{{"id":"a","input":{text}}}]}}'
    answer = http.session.post(http.url + f"/v1/project_logs/{project}/insert", data=body.encode())
    assert answer.status_code == 200
    raw = http.post("/btql", {"query": f"select: * | from: project_logs('{project}')"}).text
    assert '"input":' + text in raw


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "1e999", "{"])
def test_what_is_no_json_is_refused(
    http: Http, acme: SandboxOrg, project: str, literal: str
) -> None:
    body = f'{{"events":[{{"id":"a","input":{literal}}}]}}'
    answer = http.session.post(http.url + f"/v1/project_logs/{project}/insert", data=body)
    assert answer.status_code == 400
    assert acme.rows("project_logs", project) == []


def test_an_insert_replaces_the_row_and_keeps_its_place(acme: SandboxOrg, project: str) -> None:
    acme.insert("project_logs", project, [{"id": "a", "input": 1, "output": 2}, {"id": "b"}])
    first = acme.rows("project_logs", project)[0]
    acme.insert("project_logs", project, [{"id": "a", "expected": 3}])
    second = acme.rows("project_logs", project)[0]
    assert some(second, "id", "input", "output", "expected") == {
        "id": "a",
        "input": None,
        "output": None,
        "expected": 3,
    }
    assert second["_pagination_key"] == first["_pagination_key"]
    assert int(second["_xact_id"]) > int(first["_xact_id"])


# The two examples of the OpenAPI document, and what follows from its words.
@pytest.mark.parametrize(
    ("old", "new", "merged"),
    [
        (
            {"input": {"a": 5, "b": 10}},
            {"input": {"b": 11, "c": 20}},
            {"input": {"a": 5, "b": 11, "c": 20}},
        ),
        (
            {"input": {"a": {"b": 10}, "c": {"d": 20}}, "output": {"a": 20}},
            {
                "_merge_paths": [["input", "a"], ["output"]],
                "input": {"a": {"q": 30}, "c": {"e": 30}, "bar": "baz"},
                "output": {"d": 40},
            },
            {"input": {"a": {"q": 30}, "c": {"d": 20, "e": 30}, "bar": "baz"}, "output": {"d": 40}},
        ),
        (
            {"tags": ["x", "y", "z"], "metadata": {"c": [1, 2]}},
            {
                "_array_delete": [
                    {"path": ["tags"], "delete": ["x", "z"]},
                    {"path": ["metadata", "c"], "delete": [2]},
                ]
            },
            {"tags": ["y"], "metadata": {"c": [1]}},
        ),
        ({"input": [1, 2], "output": "o"}, {"input": [3]}, {"input": [3], "output": "o"}),
        ({"span_id": "s", "input": 1}, {"span_id": "t", "span_parents": ["p"]}, {"input": 1}),
    ],
)
def test_a_merge_of_rows_merges_nested_objects(
    acme: SandboxOrg, project: str, old: Any, new: Any, merged: Any
) -> None:
    created = "2024-01-01T00:00:00Z"
    acme.insert("project_logs", project, [dict({"span_id": "a"}, **old, id="a", created=created)])
    acme.insert("project_logs", project, [dict(new, id="a", _is_merge=True)])
    span = old.get("span_id", "a")
    fixed = {
        "id": "a",
        "created": created,
        "span_id": span,
        "root_span_id": span,
    }
    assert present(acme.rows("project_logs", project)[0]) == dict(merged, **fixed)


def test_a_merge_into_nothing_is_an_insert(acme: SandboxOrg, project: str) -> None:
    acme.insert("project_logs", project, [{"id": "a", "input": 1, "_is_merge": True}])
    assert [some(row, "id", "input") for row in acme.rows("project_logs", project)] == [
        {"id": "a", "input": 1}
    ]


def test_deleted_rows_are_gone_and_deleting_an_unknown_row_is_accepted(
    http: Http, acme: SandboxOrg, project: str
) -> None:
    http.insert("project_logs", project, {"id": "a"}, {"id": "b"}, {"id": "c"})
    gone = [{"id": "b", "_object_delete": True}, {"id": "unknown", "_object_delete": True}]
    assert http.insert("project_logs", project, *gone) == ["b", "unknown"]
    assert [row["id"] for row in acme.rows("project_logs", project)] == ["a", "c"]
    http.insert("project_logs", project, {"id": "b"})
    assert [row["id"] for row in acme.rows("project_logs", project)] == ["a", "c", "b"]


def test_a_parent_can_be_named_by_its_row_id_in_the_deprecated_field(
    acme: SandboxOrg, project: str
) -> None:
    acme.insert("project_logs", project, [{"id": "a", "span_id": "s", "root_span_id": "r"}])
    acme.insert("project_logs", project, [{"id": "b", "span_id": "b", "_parent_id": "a"}])
    child = acme.rows("project_logs", project)[1]
    assert some(child, "span_id", "root_span_id", "span_parents", "is_root") == {
        "span_id": "b",
        "root_span_id": "r",
        "span_parents": ["s"],
        "is_root": False,
    }


def test_several_objects_in_one_insert_share_a_transaction_and_number_rows_apart(
    http: Http, acme: SandboxOrg, project: str, dataset: str
) -> None:
    body = {
        "project_logs": {
            project: {"events": [{"id": "a"}], "feedback": [{"id": "a", "comment": "hi"}]}
        },
        "dataset": {dataset: {"events": [{"id": "a"}, {"id": "b"}]}},
    }
    assert http.post("/v1/insert", body).json() == {
        "project_logs": {project: {"row_ids": ["a"]}},
        "dataset": {dataset: {"row_ids": ["a", "b"]}},
    }
    log, first = acme.rows("project_logs", project)[0], acme.rows("dataset", dataset)[0]
    assert some(log, "_xact_id", "_pagination_key") == some(first, "_xact_id", "_pagination_key")
    assert [comment["comment"] for comment in log["comments"]] == [{"text": "hi"}]
    assert http.post("/v1/insert", {"prompt": {}}).status_code == 400


def test_feedback_merges_into_the_row_and_comments_are_kept_separately(
    http: Http, acme: SandboxOrg, project: str
) -> None:
    http.insert("project_logs", project, {"id": "a", "scores": {"x": 0.5}})
    item = {
        "id": "a",
        "scores": {"human": 1},
        "comment": "good",
        "metadata": {"user": "u"},
        "source": "app",
    }
    assert http.post(f"/v1/project_logs/{project}/feedback", {"feedback": [item]}).json() == {
        "status": "success"
    }
    row = acme.rows("project_logs", project)[0]
    assert row["scores"] == {"x": 0.5, "human": 1}
    audit = [some(entry, "audit_data", "source", "metadata") for entry in row["audit_data"]]
    assert audit == [
        {"audit_data": {"action": "upsert"}, "source": "api", "metadata": {}},
        {"audit_data": {"action": "merge"}, "source": "app", "metadata": {"user": "u"}},
    ]
    comment = some(row["comments"][0], "origin", "comment", "source", "metadata")
    assert comment == {
        "origin": {"id": "a"},
        "comment": {"text": "good"},
        "source": "app",
        "metadata": {"user": "u"},
    }
    http.insert("project_logs", project, {"id": "a", "input": "replaced"})
    again = acme.rows("project_logs", project)[0]
    assert (again["comments"], again["scores"]) == (row["comments"], None)


def test_feedback_on_datasets_has_no_scores(http: Http, dataset: str) -> None:
    wrong = {"feedback": [{"id": "a", "scores": {"x": 1}}]}
    assert http.post(f"/v1/dataset/{dataset}/feedback", wrong).status_code == 400


def logs3(http: Http, rows: List[Dict[str, Any]]) -> Any:
    # The SDKs send no Content-Type.
    return http.session.post(
        http.url + "/logs3", data=json.dumps({"rows": rows, "api_version": 2}).encode()
    )


def test_logs3_takes_rows_of_several_objects_and_more_fields(
    http: Http, acme: SandboxOrg, project: str, dataset: str
) -> None:
    rows = [
        {
            "id": "a",
            "project_id": project,
            "log_id": "g",
            "input": 1,
            "_is_merge": False,
            "unknown": 1,
        },
        {"id": "b", "dataset_id": dataset, "input": 2, "project_id": project},
    ]
    assert logs3(http, rows).status_code == 200
    assert [row["input"] for row in acme.rows("project_logs", project)] == [1]
    assert [row["input"] for row in acme.rows("dataset", dataset)] == [2]
    assert logs3(http, [{"id": "a", "project_id": project}]).status_code == 400


def test_a_comment_record_shows_on_its_row_once_however_often_it_is_sent(
    http: Http, acme: SandboxOrg, project: str
) -> None:
    comment = {
        "id": "c1",
        "created": "2020-01-01T00:00:00Z",
        "origin": {"id": "a"},
        "comment": {"text": "first"},
        "project_id": project,
        "log_id": "g",
        "_audit_source": "external",
    }
    logs3(http, [comment])  # before its row
    http.insert("project_logs", project, {"id": "a"})
    xact = acme.rows("project_logs", project)[0]["_xact_id"]
    logs3(http, [comment, dict(comment, id="c2", comment={"text": "second"})])
    rows = acme.rows("project_logs", project)
    assert [row["id"] for row in rows] == ["a"]
    assert [(item["id"], item["created"], item["comment"]) for item in rows[0]["comments"]] == [
        ("c1", "2020-01-01T00:00:00Z", {"text": "first"}),
        ("c2", "2020-01-01T00:00:00Z", {"text": "second"}),
    ]
    assert rows[0]["_xact_id"] == xact
    assert list(acme.comments("project_logs", project)) == ["a"]


def test_fetch_answers_whole_traces_newest_first_and_may_repeat_older_states(
    http: Http, project: str
) -> None:
    http.insert("project_logs", project, {"id": "a", "span_id": "a"})
    root = {"id": "b", "span_id": "b"}
    http.insert("project_logs", project, root, {"id": "b1", "span_id": "x", "root_span_id": "b"})
    http.insert("project_logs", project, {"id": "a", "span_id": "a", "input": "new"})
    path = f"/v1/project_logs/{project}/fetch"
    answer = http.post(path, {"limit": 1})
    first = answer.json()
    assert [row["id"] for row in first["events"]] == ["b1", "b"]
    assert (answer.headers["x-bt-cursor"], answer.headers["Content-Type"]) == (
        first["cursor"],
        "application/json",
    )
    second = http.post(path, {"limit": 1, "cursor": first["cursor"]}).json()
    assert [(row["id"], row["input"]) for row in second["events"]] == [("a", "new"), ("a", None)]
    assert http.post(path, {"limit": 1, "cursor": second["cursor"]}).json() == {"events": []}
    everything = http.get(path).json()
    assert [row["id"] for row in everything["events"]] == ["b1", "b", "a", "a"]


def test_too_many_rows_for_one_transaction_are_refused(
    acme: SandboxOrg, http: Http, project: str
) -> None:
    body = {"events": [{} for _ in range(65537)]}
    answer = http.post(f"/v1/project_logs/{project}/insert", body)
    assert answer.status_code == 400
    assert acme.rows("project_logs", project) == []


def test_requests_that_are_too_large_are_refused_with_413(
    sandbox: Sandbox, http: Http, project: str
) -> None:
    path = f"/v1/project_logs/{project}/insert"
    large = {"events": [{"id": "a", "input": "x" * (6 * 1024 * 1024)}]}
    assert http.post(path, large).status_code == 413
    sandbox.max_request_bytes = None
    assert http.post(path, large).status_code == 200
    assert http.post(path, {"events": [{"id": "a", "input": "x" * 20_000_000}]}).status_code == 413


def test_rows_of_another_organization_cannot_be_written_or_read(
    sandbox: Sandbox, http: Http
) -> None:
    foreign = sandbox.add_org("globex").create("project", {"name": "P"})["id"]
    for answer in (
        http.post(f"/v1/project_logs/{foreign}/insert", {"events": [{}]}),
        http.post("/logs3", {"rows": [{"project_id": foreign, "log_id": "g"}]}),
        http.post("/btql", {"query": f"from: project_logs('{foreign}')"}),
        http.post(f"/v1/project_logs/{foreign}/fetch", {}),
    ):
        assert (answer.status_code, answer.json()["Code"]) == (403, "ForbiddenError")
