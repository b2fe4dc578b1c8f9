"""Attachments of rows: copied once per key and streamed; a failed copy is reported."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List

import pytest

from bt_migrate.api.client import Api
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.attachments.copy import _refused
from bt_migrate.errors import ApiError
from bt_migrate.sandbox.data.answer import Answer
from tests.support.loopback import Loopback, Reply
from tests.support.orgs import AtRequest, is_insert, run_with
from tests.support.row_attachments import LOGS, PICTURE, attach, dest_row
from tests.support.row_runs import (
    READ,
    WRITE,
    World,
    call,
    copied,
    counted,
    small_rows,
    told,
    world,
)

SMALL = {"MIGRATION_EVENTS_INSERT_BATCH_SIZE": "5", "MIGRATION_EVENTS_FETCH_LIMIT": "40"}


def transfers(w: World) -> Dict[str, int]:
    """Downloads and uploads of bytes."""
    paths = [
        request.method for request in w.sandbox.requests if request.path.startswith("/bucket/")
    ]
    return {method: paths.count(method) for method in sorted(set(paths))}


# -- copied


def test_a_key_that_many_rows_use_in_concurrent_batches_is_copied_once(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        picture = attach(w)
        w.source.insert(LOGS, w.project, small_rows(120, metadata={"file": picture}))
        w.sandbox.latency = {"download": 0.1, "upload": 0.1}
        assert w.move(LOGS, **SMALL) == 0
        keys = {
            row["metadata"]["file"]["key"] for row in w.dest.rows(LOGS, w.twin(LOGS, w.project))
        }
        (key,) = keys
        assert (w.dest.attachment(key), transfers(w)) == (PICTURE, {"GET": 1, "PUT": 1})
        assert copied(w.root) == [
            (picture["key"], key, len(PICTURE), hashlib.sha256(PICTURE).hexdigest())
        ]
        assert key != picture["key"]


def test_several_attachments_are_on_their_way_at_once(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        for number in range(12):
            w.source.insert(
                LOGS, w.project, small_rows(1, number, output=attach(w, bytes([number]) * 100))
            )
        w.sandbox.latency = {"upload": 0.1}
        w.sandbox.clear_requests()
        assert w.move(LOGS, MIGRATION_EVENTS_INSERT_BATCH_SIZE="1") == 0
        assert w.sandbox.in_flight_max(WRITE) > 3


@pytest.mark.parametrize("kind", ["experiment", "dataset"])
def test_objects_that_are_read_together_share_an_attachment(kind: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        picture = attach(w)
        for object_id in w.make(kind, "one", "two", "three"):
            w.source.insert(kind, object_id, small_rows(3, expected=[picture]))
        assert w.move(kind) == 0
        assert (transfers(w), len(copied(w.root))) == ({"GET": 1, "PUT": 1}, 1)


def nested(levels: int, value: Any) -> Any:
    for level in range(levels):
        value = {"k": value} if level % 2 else [value]
    return value


@pytest.mark.parametrize("depth", [0, 1, 7, 100, 490])
@pytest.mark.parametrize("name", ["input", "output", "expected", "error", "metadata"])
def test_an_attachment_is_found_at_any_depth(name: str, depth: int, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        value = nested(depth, attach(w))
        w.source.insert(
            LOGS, w.project, [{"id": "r", name: {"m": value} if name == "metadata" else value}]
        )
        assert w.move(LOGS) == 0
        found = dest_row(w, "r")[name]
        for _ in range(depth + (name == "metadata")):
            (found,) = found.values() if isinstance(found, dict) else found
        assert w.dest.attachment(found["key"]) == PICTURE


@pytest.mark.usefixtures("data_plane")
def test_several_attachments_of_one_row_keep_their_places(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        files = [attach(w, bytes([n]) * (n + 1), f"{n}.png") for n in range(6)]
        w.source.insert(
            LOGS,
            w.project,
            [
                {
                    "id": "r",
                    "input": files[:3],
                    "output": {"a": files[3], "b": [files[4], files[3]]},
                    "error": files[5],
                }
            ],
        )
        assert w.move(LOGS) == 0
        row = dest_row(w, "r")
        found = [*row["input"], row["output"]["a"], row["output"]["b"][0], row["error"]]
        assert [
            (reference["filename"], w.dest.attachment(reference["key"])) for reference in found
        ] == [(f"{n}.png", bytes([n]) * (n + 1)) for n in range(6)]
        assert row["output"]["b"][1] == row["output"]["a"]


@pytest.mark.usefixtures("data_plane")
def test_attachments_of_prompts_are_copied(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        content = [{"type": "image_url", "image_url": {"url": attach(w)}}]
        data = {
            "prompt": {"type": "chat", "messages": [{"role": "user", "content": "look"}]},
            "options": {"shown": content},
        }
        w.source.create(
            "prompt", {"project_id": w.project, "name": "p", "slug": "p", "prompt_data": data}
        )
        assert call(w, "migrate_definitions") == 0
        key = w.dest.objects("prompt")[0]["prompt_data"]["options"]["shown"][0]["image_url"]["url"][
            "key"
        ]
        assert w.dest.attachment(key) == PICTURE


def test_an_empty_attachment_is_copied(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        empty = attach(w, b"")
        w.source.insert(LOGS, w.project, [{"id": "r", "input": empty}])
        assert w.move(LOGS) == 0
        assert w.dest.attachment(dest_row(w, "r")["input"]["key"]) == b""
        assert [record[2:] for record in copied(w.root)] == [(0, hashlib.sha256(b"").hexdigest())]


@pytest.mark.usefixtures("data_plane")
def test_a_killed_run_does_not_copy_again_what_is_recorded(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        for number in range(20):
            w.source.insert(
                LOGS, w.project, small_rows(1, number, output=attach(w, bytes([number]) * 100))
            )
        settings = {"MIGRATION_EVENTS_INSERT_BATCH_SIZE": "2", "MIGRATION_MAX_CONCURRENT": "2"}
        kill = AtRequest(5, "before", 9, lambda method, path: is_insert(path))
        ended = run_with(w, w.root, kill, program="migrate_logs", **settings)
        recorded = {record[0] for record in copied(w.root)}
        w.sandbox.clear_requests()
        assert (ended.code, w.move(LOGS, **settings)) == (-9, 0)
        assert (len(recorded) >= 8, transfers(w)) == (
            True,
            {"GET": 20 - len(recorded), "PUT": 20 - len(recorded)},
        )


def test_a_second_run_finds_rows_with_attachments_and_copies_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, small_rows(6, metadata={"file": attach(w)}))
        assert w.move(LOGS) == 0
        w.sandbox.clear_requests()
        assert w.move(LOGS, "--new-run") == 0
        assert (w.sandbox.writes(WRITE), transfers(w), counted(w.root)) == (
            [],
            {},
            {"rows": {"fetched": 6, "found": 6}},
        )


# -- not copied


def unavailable(w: World, why: str) -> Dict[str, Any]:
    """An attachment that cannot be copied, and for what reason."""
    reference = attach(w)
    place = (w.source.id, reference["key"])
    if why == "missing":
        del w.sandbox.files.attachments[place]
    elif why == "no bytes":
        del w.sandbox.files.blobs[place]
    elif why in ("uploading", "error"):
        w.sandbox.files.attachments[place].upload_status = why
    return reference


WHY = {  # why an attachment stays: what the detail says, and the kind of the finding
    "missing": ("404", "attachment_missing"),
    "no bytes": ("404", "attachment_missing"),
    "error": ("not ready", "attachment_missing"),
    "uploading": ("not ready", "attachment_not_copied"),
    "too large": ("MIGRATION_ATTACHMENT_MAX_BYTES", "attachment_not_copied"),
}


@pytest.mark.parametrize("why", sorted(WHY))
def test_a_failed_copy_is_reported_and_its_row_keeps_the_reference(
    why: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        broken, whole = unavailable(w, why), attach(w, b"small")
        w.source.insert(
            LOGS,
            w.project,
            [*small_rows(4), {"id": "r", "input": {"bad": broken, "good": whole, "n": 2**70}}],
        )
        says, kind = WHY[why]
        code = w.move(LOGS, MIGRATION_ATTACHMENT_MAX_BYTES=str(len(PICTURE) - 1))
        assert code == (
            0 if kind == "attachment_missing" else 1
        )  # what the source does not hold is no failure of the run
        found = dest_row(w, "r")["input"]
        assert (found["bad"], w.dest.attachment(found["good"]["key"]), found["n"]) == (
            broken,
            b"small",
            2**70,
        )
        assert (told(w.root), counted(w.root)) == (
            {kind: 1},
            {"rows": {"fetched": 5, "created": 5}},
        )
        report = next(w.root.glob("*/migration_report.json")).read_text()
        (finding,) = [
            finding for finding in json.loads(report)["findings"] if finding["kind"] == kind
        ]
        assert (finding["ref"], finding["row"], finding["path"], says in finding["detail"]) == (
            broken["key"],
            "r",
            "input.bad",
            True,
        )
        assert [record[0] for record in copied(w.root)] == [whole["key"]]


def test_an_attachment_at_the_limit_to_the_byte_is_copied(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [{"id": "r", "input": attach(w)}])
        assert w.move(LOGS, MIGRATION_ATTACHMENT_MAX_BYTES=str(len(PICTURE))) == 0


def test_an_html_page_for_an_attachment_does_not_prove_that_it_is_lost(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [{"id": "r", "input": attach(w)}])
        page = Answer(404, b"<!DOCTYPE html><pre>Cannot GET /attachment</pre>", "text/html")
        w.sandbox.refuse = lambda method, path, raw: (
            page if method == "GET" and path.startswith("/attachment") else None
        )
        assert (w.move(LOGS), told(w.root)) == (1, {"attachment_not_copied": 1})


def test_an_html_page_from_the_store_does_not_prove_that_the_file_is_lost() -> None:
    page = Reply(
        status=404,
        body=b"<html>no route</html>",
        headers={"Content-Type": "text/html; charset=utf-8"},
    )
    with Loopback(lambda asked: page) as server:
        api = Api(Endpoint("source", server.url, "sk"), Limits(0, 0.01, 4), writable=False)
        with pytest.raises(ApiError) as raised:
            api.store.open_download(f"{server.url}/bucket/key?sig=secret", "image/png")
    assert (raised.value.status, raised.value.is_page, _refused(raised.value).kind) == (
        404,
        True,
        "attachment_not_copied",
    )


def test_every_row_of_a_missing_attachment_is_counted_and_it_is_asked_for_once(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        w.source.insert(
            LOGS, w.project, small_rows(60, metadata={"file": unavailable(w, "missing")})
        )
        assert w.move(LOGS, **SMALL) == 0
        asked = [
            request.org_name
            for request in w.sandbox.requests
            if request.path.startswith("/attachment?")
        ]
        # the destination is asked whether an earlier run copied it
        assert (told(w.root), asked) == ({"attachment_missing": 60}, [READ, WRITE])


@pytest.mark.parametrize("at", [4, 9])
def test_a_failed_copy_is_reported_after_a_kill_too(at: int, tmp_path: Path) -> None:
    """Killed between the record of the row and the checkpoint that holds the finding."""
    with world(tmp_path) as w:
        rows = small_rows(60)
        rows[2]["input"] = unavailable(w, "missing")
        w.source.insert(LOGS, w.project, rows)
        settings = {
            "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "5",
            "MIGRATION_MAX_CONCURRENT": "1",
            "MIGRATION_EVENTS_FETCH_LIMIT": "55",
        }
        w.sandbox.latency = {
            "insert": 0.03
        }  # what was inserted is recorded while the next is on its way
        kill = AtRequest(at, "after", 9, lambda method, path: is_insert(path))
        ended = run_with(w, w.root, kill, program="migrate_logs", **settings)
        assert ended.code == -9
        assert (w.move(LOGS, **settings), told(w.root)) == (0, {"attachment_missing": 1})


@pytest.mark.parametrize(("why", "code"), [("uploading", 1), ("error", 0)])
def test_an_attachment_that_appears_later_arrives_with_a_later_run(
    why: str, code: int, tmp_path: Path
) -> None:
    """The report promises it: after the cause is fixed, the same command tries again."""
    with world(tmp_path) as w:
        late = unavailable(w, why)
        w.source.insert(LOGS, w.project, [{"id": "r", "input": late}, *small_rows(2)])
        assert w.move(LOGS) == code
        w.sandbox.files.attachments[(w.source.id, late["key"])].upload_status = "done"
        assert w.move(LOGS) == 0
        assert w.dest.attachment(dest_row(w, "r")["input"]["key"]) == PICTURE


def test_an_external_attachment_is_unchanged_and_reported(tmp_path: Path) -> None:
    external = {
        "type": "external_attachment",
        "url": "s3://bucket/key",
        "filename": "f.bin",
        "content_type": "x/y",
    }
    with world(tmp_path) as w:
        w.source.insert(
            LOGS,
            w.project,
            [{"id": "a", "input": external}, {"id": "b", "input": [external, attach(w)]}],
        )
        assert w.move(LOGS) == 0
        assert (dest_row(w, "a")["input"], dest_row(w, "b")["input"][0]) == (external, external)
        assert told(w.root) == {"external_attachment": 2}


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_attachments_are_left_and_counted_on_request(way: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        picture = attach(w)
        w.source.insert(LOGS, w.project, small_rows(7, metadata={"files": [picture, picture]}))
        args = ("--no-attachments",) if way == "flag" else ()
        assert w.move(LOGS, *args, **({} if args else {"MIGRATION_ATTACHMENTS": "false"})) == 0
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, told(w.root)) == (True, {"attachment_left": 14})
        assert [
            request.path
            for request in w.sandbox.requests
            if "/attachment" in request.path or "/bucket/" in request.path
        ] == []


def test_a_value_that_only_looks_like_an_attachment_stays(tmp_path: Path) -> None:
    odd: List[Any] = [
        {"type": "braintrust_attachment"},
        {"type": "braintrust_attachment", "key": 5},
        {"type": "inline_attachment", "src": "data:,x"},
    ]
    with world(tmp_path) as w:
        w.source.insert(
            LOGS,
            w.project,
            [{"id": "r", "input": odd, "output": '{"type":"braintrust_attachment"}'}],
        )
        assert w.move(LOGS) == 0
        assert (w.contents(LOGS, [w.project])[0], told(w.root)) == (
            w.contents(LOGS, [w.project])[1],
            {},
        )
