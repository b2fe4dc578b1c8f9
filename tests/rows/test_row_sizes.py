"""Rows that are larger than a request, or than a row may be: they arrive another way, or are
reported with their size.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Fault
from tests.support.orgs import AtRequest, is_insert, run_with
from tests.support.row_runs import (
    WRITE,
    World,
    content,
    counted,
    forbidding,
    refused,
    small_rows,
    told,
    world,
)

LOGS = "project_logs"
LIMIT = 20_000
SMALL_REQUESTS = {"MIGRATION_INSERT_MAX_REQUEST_BYTES": str(LIMIT), "MIGRATION_RETRY_ATTEMPTS": "1"}
HUGE = {"id": "huge", "input": "h" * 50_000, "output": {"n": 2**70}}
SPILLING = {"MIGRATION_MAX_ROW_BYTES": "10000"}


def with_limits(w: World, overflow: Optional[int]) -> None:
    w.sandbox.max_request_bytes, w.sandbox.logs3_payload_max_bytes = LIMIT, overflow


def writes(w: World) -> List[str]:
    """Method and place of each request that wrote to the destination, in order, without ids."""
    found = [
        f"{request.method} {request.path.split('?')[0]}"
        for request in w.sandbox.requests
        if request.org_name == WRITE and request.method in ("POST", "PUT")
    ]
    return [
        "PUT signed" if found_request.startswith("PUT /bucket") else found_request
        for found_request in found
        if "/v1/project" not in found_request and "/btql" not in found_request
    ]


def row_of(w: World, row_id: str, kind: str = LOGS, source_id: str = "") -> Dict[str, Any]:
    rows: List[Dict[str, Any]] = w.dest.rows(kind, w.twin(kind, source_id or w.project))
    return next(row for row in rows if row["id"] == row_id)


def attached(w: World, reference: Dict[str, Any]) -> bytes:
    data = w.dest.attachment(reference["key"])
    assert data is not None
    return bytes(data)


# Larger than a request
# -------------------------------------------------------------------------------


def test_a_row_above_the_request_limit_goes_through_the_overflow_upload_without_the_key(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [*small_rows(3), HUGE, *small_rows(3, 3)])
        with_limits(w, LIMIT)
        assert w.move(LOGS, **SMALL_REQUESTS) == 0
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, w.sandbox.leaks()) == (True, [])
        assert Counter(writes(w)) == {"POST /logs3": 3, "POST /logs3/overflow": 1, "PUT signed": 1}
        assert counted(w.root) == {"rows": {"fetched": 7, "created": 7}}


def test_a_row_between_the_share_that_is_used_and_the_limit_needs_no_upload(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [{"id": "large", "input": "x" * 18_000}])
        with_limits(w, LIMIT)
        assert w.move(LOGS, **SMALL_REQUESTS) == 0
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, writes(w)) == (True, ["POST /logs3"])


@pytest.mark.parametrize("kind", ["experiment", "dataset"])
def test_a_huge_row_of_a_group_finds_its_object(kind: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = w.make(kind, "one", "two")
        for number, object_id in enumerate(ids):
            w.source.insert(
                kind, object_id, [*small_rows(3), {"id": "huge", "input": str(number) * 50_000}]
            )
        with_limits(w, LIMIT)
        assert w.move(kind, **SMALL_REQUESTS) == 0
        source, dest = w.contents(kind, ids)
        assert source == dest


def test_a_signed_post_form_is_sent_as_the_server_asks_for_it(tmp_path: Path) -> None:
    """Some stores are written with a form: fields, then the bytes as a file."""
    forms: List[bytes] = []
    with world(tmp_path) as w:

        def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
            if path == "/logs3/overflow":
                body = {
                    "method": "POST",
                    "signedUrl": w.sandbox.url + "/form?X-Amz-Signature=s",
                    "fields": {"policy": "p1"},
                    "key": "k",
                }
                return Answer(200, json.dumps(body).encode())
            if path.startswith("/form"):
                forms.append(raw)
                return Answer(204, b"")
            taken = b'{"ids":["huge"],"xact_id":"1000192656880881099"}'
            return Answer(200, taken) if path == "/logs3" else None

        w.source.insert(LOGS, w.project, [HUGE])
        with_limits(w, LIMIT)
        w.sandbox.refuse = refuse
        assert w.move(LOGS, **SMALL_REQUESTS) == 0
        assert [
            (b'name="policy"' in form, b"p1" in form, b'name="file"' in form, b"h" * 50_000 in form)
            for form in forms
        ] == [(True,) * 4]


def test_without_an_overflow_upload_a_row_that_is_too_large_is_reported_with_its_size(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [*small_rows(5), HUGE, *small_rows(5, 5)])
        with_limits(w, None)
        assert w.move(LOGS, **SMALL_REQUESTS) == 1
        source, dest = w.contents(LOGS, [w.project])
        assert dest[0] == [row for row in source[0] if '"huge"' not in row]
        (line,) = refused(w.root)
        assert (
            line["id"],
            50_000 < line["bytes"] < 51_000,
            line["reason"].startswith("413") and "MIGRATION_MAX_ROW_BYTES" in line["reason"],
        ) == ("huge", True, True)
        assert f"{line['bytes']:,} bytes" in line["reason"]
        assert (counted(w.root), told(w.root)) == (
            {"rows": {"fetched": 11, "created": 10, "failed": 1}},
            {"row_refused": 1},
        )


@pytest.mark.parametrize("at", [4, 9])
@pytest.mark.variants(1)
def test_a_refused_row_is_reported_even_if_the_run_was_killed_afterwards(
    at: int, tmp_path: Path
) -> None:
    """Killed between the record of the row and the checkpoint that holds the finding."""
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [{"id": "bad", "input": "needle"}, *small_rows(60)])
        w.sandbox.refuse = forbidding("needle", status=400, text="row is wrong")
        w.sandbox.latency = {
            "insert": 0.03
        }  # what was inserted is recorded while the next is on its way
        settings = {
            "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "5",
            "MIGRATION_MAX_CONCURRENT": "1",
            "MIGRATION_EVENTS_FETCH_LIMIT": "55",
        }
        kill = AtRequest(at, "after", 9, lambda method, path: is_insert(path))
        ended = run_with(w, w.root, kill, program="migrate_logs", **settings)
        code = w.move(LOGS, **settings)
        assert (ended.code, code, told(w.root)) == (-9, 1, {"row_refused": 1})
        assert counted(w.root) == {"rows": {"fetched": 61, "created": 60, "failed": 1}}


def test_a_row_that_the_server_finds_too_large_before_we_do_goes_through_the_overflow_upload_too(
    tmp_path: Path,
) -> None:
    """The server's limit is lower than MIGRATION_INSERT_MAX_REQUEST_BYTES says, and it has a way
    for such rows.
    """
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [*small_rows(3), HUGE])
        with_limits(w, LIMIT)
        assert w.move(LOGS) == 0
        source, dest = w.contents(LOGS, [w.project])
        assert source == dest


@pytest.mark.parametrize("kind", ["reset_before", "truncate"])
def test_an_overflow_upload_that_breaks_off_is_not_taken_for_done(
    kind: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [*small_rows(3), HUGE])
        with_limits(w, LIMIT)
        w.sandbox.faults.add(Fault(kind, WRITE, "PUT", path="/bucket/", times=1))
        codes = [w.move(LOGS, **SMALL_REQUESTS)]
        if codes != [0]:
            codes.append(w.move(LOGS, **SMALL_REQUESTS))
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, codes[-1]) == (True, 0)


@pytest.mark.parametrize("status", [503, 403])
def test_a_signed_put_that_is_refused_once_is_asked_for_again(status: int, tmp_path: Path) -> None:
    """A signed URL expires, a store is busy: neither is the row's fault."""
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [*small_rows(3), HUGE])
        with_limits(w, LIMIT)
        w.sandbox.faults.add(
            Fault("status", WRITE, "PUT", path="/bucket/", times=1, status=status, body="SlowDown")
        )
        assert w.move(LOGS, **SMALL_REQUESTS) == 0
        source, dest = w.contents(LOGS, [w.project])
        assert source == dest


# Larger than a row may be
# ----------------------------------------------------------------------------


FIELDS: List[Any] = [
    "text" * 5000,
    {"deep": [{"list": ["\U0001f600" * 3000, 2**80, -0.0, None, "\ud83d"]}]},
    ["a" * 20000, 1.5e300],
]


@pytest.mark.parametrize("value", FIELDS, ids=["text", "object", "list"])
@pytest.mark.parametrize("name", ["input", "output", "metadata", "expected", "error"])
def test_the_largest_field_of_a_row_that_is_too_large_becomes_a_json_attachment(
    name: str, value: Any, tmp_path: Path
) -> None:
    if name == "metadata":
        value = {"m": value}
    with world(tmp_path) as w:
        w.source.insert(
            LOGS,
            w.project,
            [{"id": "r", "tags": ["kept"], "scores": {"s": 1}, name: value}, *small_rows(2)],
        )
        assert w.move(LOGS, **SPILLING) == 0
        row = row_of(w, "r")
        reference = row[name]
        assert {**reference, "key": ""} == {
            "type": "braintrust_attachment",
            "key": "",
            "filename": f"{name}.json",
            "content_type": "application/json",
        }
        assert json.dumps(json.loads(attached(w, reference)), sort_keys=True) == json.dumps(
            value, sort_keys=True
        )
        assert (row["tags"], row["scores"], told(w.root)) == (
            ["kept"],
            {"s": 1},
            {"field_made_attachment": 1},
        )


def test_only_as_many_fields_become_attachments_as_are_needed_the_largest_first(
    tmp_path: Path,
) -> None:
    row = {
        "id": "r",
        "input": "i" * 6000,
        "output": "o" * 9000,
        "expected": "e" * 3000,
        "error": "x" * 2000,
    }
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [row])
        assert w.move(LOGS, **SPILLING) == 0
        found = row_of(w, "r")
        assert (
            json.loads(attached(w, found["output"])),
            json.loads(attached(w, found["input"])),
        ) == (row["output"], row["input"])
        assert (found["expected"], found["error"]) == (row["expected"], row["error"])
        assert told(w.root) == {"field_made_attachment": 2}


def test_rows_of_equal_ids_in_two_objects_get_attachments_of_their_own(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = w.make("dataset", "one", "two")
        for number, object_id in enumerate(ids):
            w.source.insert("dataset", object_id, [{"id": "same", "input": str(number) * 20_000}])
        assert w.move("dataset", **SPILLING) == 0
        found = [
            json.loads(attached(w, row_of(w, "same", "dataset", object_id)["input"]))
            for object_id in ids
        ]
        assert found == ["0" * 20_000, "1" * 20_000]


def test_a_second_run_finds_rows_whose_fields_became_attachments(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [{"id": "r", "input": "i" * 20_000}, *small_rows(2)])
        assert w.move(LOGS, **SPILLING) == 0
        w.sandbox.clear_requests()
        assert w.move(LOGS, "--new-run", **SPILLING) == 0
        assert (w.sandbox.writes(WRITE), counted(w.root)) == (
            [],
            {"rows": {"fetched": 3, "found": 3}},
        )


def test_a_row_that_fits_to_the_byte_stays_as_it_is(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [{"id": "r", "input": "\U0001f600" * 4000}])
        row = next(row for row in w.source.rows(LOGS, w.project))
        names = [
            name
            for name in row
            if name
            not in (
                "_xact_id",
                "_pagination_key",
                "is_root",
                "org_id",
                "project_id",
                "log_id",
                "comments",
            )
        ]
        names = [
            name
            for name in names
            if name not in ("audit_data", "classifications", "_async_scoring_state")
        ]
        size = len(
            json.dumps(
                {name: row[name] for name in names}, ensure_ascii=False, separators=(",", ":")
            ).encode()
        )
        assert w.move(LOGS, MIGRATION_MAX_ROW_BYTES=str(size)) == 0
        assert (content(w.dest, LOGS, w.twin(LOGS, w.project)), told(w.root)) == (
            content(w.source, LOGS, w.project),
            {},
        )
        w.dest.delete("project", w.twin(LOGS, w.project))
        assert w.move(LOGS, "--new-run", MIGRATION_MAX_ROW_BYTES=str(size - 1)) == 0
        assert told(w.root) == {"field_made_attachment": 1}


def test_a_row_that_is_too_large_even_with_attachments_is_reported_and_the_others_arrive(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        w.source.insert(
            LOGS,
            w.project,
            [*small_rows(2), {"id": "wide", "context": {"c": "c" * 30_000}, "input": "i" * 3000}],
        )
        with_limits(w, None)
        assert w.move(LOGS, **SMALL_REQUESTS, **SPILLING) == 1
        assert [
            (row["id"], row["bytes"] > 30_000, row["reason"][:3]) for row in refused(w.root)
        ] == [("wide", True, "413")]
        assert counted(w.root) == {"rows": {"fetched": 3, "created": 2, "failed": 1}}


# Bytes, not characters
# -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["\U0001f600", "é", "\ud83d", "\x00", "a"])
@pytest.mark.parametrize("kind", [LOGS, "dataset"])
@pytest.mark.variants(1)
def test_requests_keep_to_the_bound_in_bytes_of_utf8(kind: str, text: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = [w.project] if kind == LOGS else w.make("dataset", "one", "two", "three")
        for object_id in ids:
            w.source.insert(
                kind, object_id, [{"id": f"r{n}", "input": text * (100 + 7 * n)} for n in range(60)]
            )
        w.sandbox.max_request_bytes = 9000
        code = w.move(
            kind,
            MIGRATION_INSERT_MAX_REQUEST_BYTES="9000",
            MIGRATION_INSERT_REQUEST_HEADROOM_RATIO="1.0",
        )
        source, dest = w.contents(kind, ids)
        inserts = [request for request in w.sandbox.requests if is_insert(request.path)]
        assert (
            code,
            source == dest,
            [request.status for request in inserts if request.status != 200],
        ) == (
            0,
            True,
            [],
        )
        assert len(inserts) > 1
