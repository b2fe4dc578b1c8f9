"""Comments travel with their rows, once, and what cannot travel is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import AtRequest, run_with
from tests.support.row_runs import (
    WRITE,
    World,
    call,
    comment_as_server,
    counted,
    forbidding,
    small_rows,
    told,
    world,
    write_as_server,
)

KINDS = ("project_logs", "experiment", "dataset")
CREATED = "2024-05-06T07:08:09.123Z"


def holder(w: World, kind: str) -> str:
    return w.project if kind == "project_logs" else w.make(kind, "only")[0]


def comment(number: int, **more: Any) -> Dict[str, Any]:
    return {
        "id": f"c{number:04}",
        "created": CREATED,
        "comment": {"text": f"text {number} \U0001f600"},
        **more,
    }


def comments(w: World, kind: str, source_id: str) -> Dict[str, List[Any]]:
    """Row id -> (id, text, created) of its comments in the destination."""
    found = w.dest.comments(kind, w.twin(kind, source_id))
    return {
        row: [(comment["id"], comment["comment"]["text"], comment["created"]) for comment in some]
        for row, some in found.items()
        if some
    }


def expected(rows: int, each: int = 1) -> Dict[str, List[Any]]:
    return {
        f"r{n:05}": [
            (f"c{n * each + k:04}", f"text {n * each + k} \U0001f600", CREATED) for k in range(each)
        ]
        for n in range(rows)
    }


def commented(w: World, kind: str, rows: int, each: int = 1) -> str:
    source_id = holder(w, kind)
    w.source.insert(kind, source_id, small_rows(rows))
    for number in range(rows * each):
        comment_as_server(w, kind, source_id, f"r{number // each:05}", comment(number))
    return source_id


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("data_plane")
def test_comments_travel_with_id_text_and_date(kind: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        source_id = commented(w, kind, 12, each=2)
        assert w.move(kind) == 0
        assert comments(w, kind, source_id) == expected(12, 2)
        shown = {
            row["id"]: [comment["id"] for comment in row["comments"]]
            for row in w.dest.rows(kind, w.twin(kind, source_id))
        }
        assert shown == {
            row: [fields[0] for fields in some] for row, some in expected(12, 2).items()
        }
        assert told(w.root) == {}


def test_author_source_and_metadata_of_a_comment_are_kept(tmp_path: Path) -> None:
    author = {"user": {"id": "u-1", "email": "ana@acme.example"}, "user_id": "u-1"}
    with world(tmp_path) as w:
        w.source.insert("project_logs", w.project, small_rows(2))
        comment_as_server(
            w,
            "project_logs",
            w.project,
            "r00000",
            comment(0, source="app", metadata={"review": 1}, **author),
        )
        comment_as_server(w, "project_logs", w.project, "r00001", comment(1))
        assert w.move("project_logs") == 0
        found = w.dest.comments("project_logs", w.twin("project_logs", w.project))
        assert [
            (comment["source"], comment["metadata"])
            for row in ("r00000", "r00001")
            for comment in found[row]
        ] == [
            ("app", {"review": 1, "original_author": author}),
            (None, None),
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_run_does_not_double_comments(kind: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        source_id = commented(w, kind, 6)
        assert w.move(kind) == 0
        w.sandbox.clear_requests()
        assert w.move(kind, "--new-run") == 0
        assert (comments(w, kind, source_id), w.sandbox.writes(WRITE)) == (expected(6), [])


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_between_rows_and_their_comments_neither_loses_nor_doubles_comments(
    kind: str, at: int, moment: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        source_id = commented(w, kind, 40)
        settings = {
            "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "8",
            "MIGRATION_EVENTS_FETCH_LIMIT": "25",
            "MIGRATION_CHECKPOINT_INTERVAL": "1",
        }
        program = {
            "project_logs": "migrate_logs",
            "experiment": "migrate_experiments",
            "dataset": "migrate_datasets",
        }[kind]
        kill = AtRequest(at, moment, 9, lambda method, path: path == "/logs3")
        ended = run_with(w, w.root, kill, program=program, **settings)
        assert (ended.code, w.move(kind, **settings)) == (-9, 0)
        source, dest = w.contents(kind, [source_id])
        assert (source == dest, comments(w, kind, source_id)) == (True, expected(40))


@pytest.mark.usefixtures("data_plane")
def test_a_new_run_after_a_kill_between_rows_and_their_comments_brings_the_comments(
    tmp_path: Path,
) -> None:
    """After --new-run the rows are found, and their missing comments are written."""
    with world(tmp_path) as w:
        commented(w, "project_logs", 5)
        kill = AtRequest(2, "before", 9, lambda method, path: path == "/logs3")
        run_with(w, w.root, kill, program="migrate_logs")
        code = w.move("project_logs", "--new-run")
        assert (code, comments(w, "project_logs", w.project)) == (0, expected(5))


def test_comments_of_objects_that_are_read_together_go_to_their_own_rows(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = w.make("experiment", *(f"e{number}" for number in range(6)))
        for number, object_id in enumerate(ids):
            w.source.insert("experiment", object_id, small_rows(3))
            comment_as_server(w, "experiment", object_id, "r00001", comment(number))
        assert w.move("experiment") == 0
        assert [comments(w, "experiment", object_id) for object_id in ids] == [
            {"r00001": [(f"c{number:04}", f"text {number} \U0001f600", CREATED)]}
            for number in range(6)
        ]


def test_comments_of_a_row_that_goes_through_the_overflow_upload_travel(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert("project_logs", w.project, [{"id": "r00000", "input": "h" * 50_000}])
        comment_as_server(w, "project_logs", w.project, "r00000", comment(0))
        w.sandbox.max_request_bytes = w.sandbox.logs3_payload_max_bytes = 20_000
        assert w.move("project_logs", MIGRATION_INSERT_MAX_REQUEST_BYTES="20000") == 0
        assert comments(w, "project_logs", w.project) == expected(1)


def test_many_long_comments_keep_to_the_bound_of_a_request(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert("project_logs", w.project, small_rows(30))
        for number in range(30):
            text = {"comment": {"text": "\U0001f600" * 500}}
            comment_as_server(
                w, "project_logs", w.project, f"r{number:05}", comment(number, **text)
            )
        w.sandbox.max_request_bytes = 9000
        settings = {
            "MIGRATION_INSERT_MAX_REQUEST_BYTES": "9000",
            "MIGRATION_INSERT_REQUEST_HEADROOM_RATIO": "1.0",
        }
        assert w.move("project_logs", **settings) == 0
        assert sum(len(some) for some in comments(w, "project_logs", w.project).values()) == 30
        assert [request.path for request in w.sandbox.requests if request.status == 413] == []


@pytest.mark.parametrize("status", [400, 413])
def test_a_refused_comment_is_reported_and_fails_no_row(status: int, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert("project_logs", w.project, small_rows(10))
        for number in range(10):
            comment_as_server(w, "project_logs", w.project, f"r{number:05}", comment(number))
        w.sandbox.refuse = forbidding(
            '"c0004"', status=status, path="/logs3", text="comment is wrong"
        )
        assert w.move("project_logs", MIGRATION_EVENTS_INSERT_BATCH_SIZE="3") == 1
        source, dest = w.contents("project_logs", [w.project])
        assert (source == dest, counted(w.root)["rows"]["fetched"]) == (True, 10)
        assert sorted(comments(w, "project_logs", w.project)) == [
            row for row in sorted(expected(10)) if row != "r00004"
        ]


@pytest.mark.parametrize("status", [404, 405, 501])
def test_rows_are_recorded_where_no_route_takes_their_comments(status: int, tmp_path: Path) -> None:
    """Their stream ended as failed, and each start wrote the rows again."""
    with world(tmp_path) as w:
        commented(w, "project_logs", 10)
        w.sandbox.refuse = lambda method, path, raw: (
            Answer(status, b"Cannot POST /logs3") if path == "/logs3" else None
        )
        assert w.move("project_logs") == 1
        assert counted(w.root) == {"rows": {"fetched": 10, "created": 10}}
        source, dest = w.contents("project_logs", [w.project])
        assert (source == dest, comments(w, "project_logs", w.project)) == (True, {})


def test_rows_whose_comments_cannot_be_written_are_not_recorded_as_done(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        commented(w, "project_logs", 10)
        w.sandbox.refuse = lambda method, path, raw: (
            Answer(403, b'{"Code":"ForbiddenError"}')
            if path == "/logs3" and b'"comment":' in raw
            else None
        )
        assert w.move("project_logs") == 1
        w.sandbox.refuse = None
        assert w.move("project_logs") == 0
        assert (comments(w, "project_logs", w.project), counted(w.root)) == (
            expected(10),
            {"rows": {"fetched": 10, "created": 10}},
        )


@pytest.mark.parametrize("strange", ["a text", {"a": 1}, ["a text", None, {"text": "no id"}, 7]])
def test_comments_of_an_unknown_form_are_reported_and_fail_nothing_else(
    strange: Any, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        write_as_server(w, "project_logs", w.project, {"id": "a", "input": 1, "comments": strange})
        assert (w.move("project_logs"), w.move("project_logs", "--new-run")) == (0, 0)
        assert {
            row["id"]: row["input"]
            for row in w.dest.rows("project_logs", w.twin("project_logs", w.project))
        } == {"a": 1}
        assert {record["path"] for record in _findings(w)} == {"comments"}


def test_a_comment_without_a_date_gets_one_and_is_the_same_comment(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        write_as_server(
            w,
            "project_logs",
            w.project,
            {"id": "a", "comments": [{"id": "c0000", "comment": {"text": "x"}}]},
        )
        assert (
            w.move("project_logs"),
            call(w, "verify", "--resources", "logs", "--full", MIGRATION_VERIFY_WAIT="0"),
        ) == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_fields_that_no_insert_takes_are_counted_as_not_carried(kind: str, tmp_path: Path) -> None:
    classified = {"topic": [{"id": "t", "label": "T", "confidence": 0.5}]}
    with world(tmp_path) as w:
        source_id = holder(w, kind)
        w.source.insert(kind, source_id, small_rows(3))
        write_as_server(
            w,
            kind,
            source_id,
            {"id": "a", "classifications": classified, "audit_data": [{"action": "merge"}]},
        )
        write_as_server(
            w, kind, source_id, {"id": "b", "classifications": classified, "audit_data": []}
        )
        assert w.move(kind) == 0
        assert told(w.root) == {"row_field_not_carried": 3}
        names: List[Optional[str]] = sorted(record.get("path") for record in _findings(w))
        assert names == ["audit_data", "classifications"]


def _findings(w: World) -> List[Dict[str, Any]]:
    from tests.support.orgs import findings

    return findings(w.root, "row_field_not_carried")
