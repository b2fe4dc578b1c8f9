"""One row that makes trouble is that row's failure; the others arrive."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import pytest

from bt_migrate.model.references import attachment_places, strings
from bt_migrate.rows.rewrite import copied, lost_history
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Incoming
from tests.support.orgs import DEST_KEY, SOURCE_KEY, findings
from tests.support.row_runs import (
    World,
    call,
    counted,
    forbidding,
    small_rows,
    told,
    world,
    write_as_server,
)
from tests.support.syncs import LOGS, equal, holder, living, row, sync, twin

LEVELS = 6_000
UNKNOWN = "0a0a0a0a-0000-4000-8000-000000000001"
ODD_IDS = ["\ud83d", "a\udc00b", "\x00", "'", "x" * 2000, "line\nbreak", "%s", "\u202e"]


def nested(levels: int, value: Any = "bottom") -> Any:
    for level in range(levels):
        value = {"k": value} if level % 2 else [value]
    return value


def test_a_deep_value_is_searched_without_recursion() -> None:
    reference = {"type": "braintrust_attachment", "key": "k"}
    deep = nested(LEVELS, [reference, "text"])
    assert len(attachment_places(deep)) == 1
    assert [text for _, text in strings(deep)][-1] == "text"
    assert json.dumps(copied(deep)) == json.dumps(deep)


@pytest.mark.parametrize("place", ["input", "metadata", "attachment", "reference"])
def test_a_row_of_6000_levels_arrives_or_fails_alone(place: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        value: Any = nested(LEVELS)
        if place == "attachment":
            value = nested(LEVELS, w.source.attach(b"b", filename="f", content_type="x/y"))
        if place == "reference":
            value = nested(LEVELS, w.project)
        name = "metadata" if place == "reference" else place if place != "attachment" else "input"
        deep = {"id": "deep", name: {"deep": value}}
        w.source.insert(LOGS, w.project, [*small_rows(5), deep, *small_rows(5, 5)])
        assert w.move(LOGS) == 0
        assert counted(w.root) == {"rows": {"fetched": 11, "created": 11}}
        assert call(w, "verify", "--resources", "logs", "--full", MIGRATION_VERIFY_WAIT="0") == 0


@pytest.mark.parametrize("seen", ["true", "false"])
@pytest.mark.variants(1)
def test_odd_ids_arrive_once_and_are_known_to_syncs(seen: str, tmp_path: Path) -> None:
    settings = {"MIGRATION_EVENTS_USE_SEEN_DB": seen, "MIGRATION_EVENTS_FETCH_LIMIT": "10"}
    with living(tmp_path) as w:
        w.source.insert(LOGS, holder(w, LOGS), [row(item) for item in ODD_IDS])
        first = sync(w, **settings)
        assert (first.code, equal(w)) == (0, True), first.last_words
        w.source.insert(LOGS, holder(w, LOGS), [row(entry, output="edited") for entry in ODD_IDS])
        second = sync(w, **settings)
        assert (second.code, equal(w)) == (0, True), second.last_words
        third = sync(w, "--full", **settings)
        assert third.code == 0, third.last_words


def test_a_refused_row_with_an_odd_id_is_one_failure(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, [{"id": "\ud83d", "input": "needle"}, *small_rows(5)])
        w.sandbox.refuse = forbidding("needle", status=400)
        assert w.move(LOGS) == 1
        assert (told(w.root), counted(w.root)["rows"]["created"]) == ({"row_refused": 1}, 5)


def refusing_literals(w: World, *keys: str) -> None:
    """Queries with the literal of an odd id are refused from now on, on one side or both."""

    def refuse(request: Incoming) -> Optional[Answer]:
        raw = request.body or b""
        odd = b"line\\nbreak" in raw or b"%s" in raw
        asked = request.path == "/btql" and odd and request.headers["Authorization"][7:] in keys
        return Answer(400, b'{"error": "cannot parse the query"}') if asked else None

    w.sandbox.intercept = refuse


@pytest.mark.parametrize("keys", [(DEST_KEY,), (SOURCE_KEY, DEST_KEY)])
@pytest.mark.variants(1)
def test_ids_that_a_server_refuses_in_a_query_are_failures_of_their_rows(
    keys: Tuple[str, ...], data_plane: str, tmp_path: Path
) -> None:
    """An older destination names no transaction: what was sent shows whose the rows are."""
    with living(tmp_path) as w:
        w.source.insert(LOGS, holder(w, LOGS), [row(item) for item in ODD_IDS])
        assert sync(w).code == 0
        watch = w.sandbox.intercept
        refusing_literals(w, *keys)
        edited = [row(item, output="edited") for item in [*ODD_IDS, "r00001", "r00002"]]
        w.source.insert(LOGS, holder(w, LOGS), edited)
        assert (sync(w).code, told(w.root).get("row_refused")) == (1, 2)
        again = sync(w)
        assert (again.code, "2 rows" in again.out) == (1, True), again.out
        there = {item["id"]: item.get("output") for item in w.dest.rows(LOGS, twin(w, LOGS))}
        assert {item for item in ODD_IDS if there[item] != "edited"} == {"line\nbreak", "%s"}
        assert call(w, "verify", MIGRATION_VERIFY_WAIT="0") == 1
        w.sandbox.intercept = watch
        sync(w, "--full")  # ends what the comparison found open, then copies what is new
        last = sync(w, "--full")
        assert (last.code, equal(w)) == (0, True), last.out


def entry(action: str, **more: Any) -> Dict[str, Any]:
    return {
        "_xact_id": "1",
        "audit_data": {"action": action},
        "metadata": {},
        "source": "api",
        **more,
    }


@pytest.mark.parametrize(
    ("audit", "lost"),
    [
        (None, {}),
        ([], {}),
        ([entry("upsert")], {}),
        ([entry("upsert", source="app")], {}),
        ([entry("upsert"), entry("upsert")], {"upsert": 1}),
        ([entry("upsert"), entry("merge"), entry("merge")], {"merge": 2}),
        ([entry("upsert", metadata={"by": "a person"})], {"upsert": 1}),
        ([entry("merge")], {"merge": 1}),
        ([{"action": "upsert"}], {}),
        ([{"action": "merge"}], {"merge": 1}),
        (["text", 7, None], {"unknown": 3}),
        ({"action": "upsert"}, {}),
        ([{"audit_data": {"action": ["x"]}}], {"unknown": 1}),
    ],
)
def test_an_audit_history_with_more_than_the_creation_is_a_loss(
    audit: Any, lost: Dict[str, int]
) -> None:
    assert lost_history({"id": "1", "audit_data": audit}) == lost


def test_plain_rows_of_the_hosted_service_lose_nothing(tmp_path: Path) -> None:
    nulls = dict.fromkeys(("classifications", "comments", "facets", "_async_scoring_state"))
    with world(tmp_path) as w:
        for row in small_rows(4):
            write_as_server(w, LOGS, w.project, {**row, **nulls, "audit_data": [entry("upsert")]})
        assert w.move(LOGS, "--fail-on-loss") == 0
        assert told(w.root) == {}
        history = [entry("upsert"), entry("merge"), entry("comment")]
        write_as_server(w, LOGS, w.project, {"id": "edited", "audit_data": history})
        assert w.move(LOGS, "--new-run") == 0
        assert [
            (finding["path"], finding["detail"])
            for finding in findings(w.root, "row_field_not_carried")
        ] == [("audit_data", "merge"), ("audit_data", "comment")]


def test_differing_rows_with_eight_attachments_are_compared_in_one_pass(tmp_path: Path) -> None:
    """An earlier run may have left any of them in the source: 2^8 ways for each row."""
    with world(tmp_path) as w:
        files = [w.source.attach(bytes([n]), filename=f"{n}", content_type="x/y") for n in range(8)]
        w.source.insert(LOGS, w.project, small_rows(30, metadata={"files": files}))
        assert w.move(LOGS) == 0
        twin = w.twin(LOGS, w.project)
        there = {row["id"]: row for row in w.dest.rows(LOGS, twin)}
        edited = [{"id": row_id, "output": "edited"} for row_id in there]
        w.dest.insert(LOGS, twin, [{**item, "_is_merge": True} for item in edited])
        started = time.process_time()
        assert w.move(LOGS, "--new-run") == 1
        assert counted(w.root) == {"rows": {"fetched": 30, "differs": 30}}
        assert time.process_time() - started < 10


def test_a_row_that_an_earlier_run_left_with_some_attachments_is_completed(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        files = [w.source.attach(bytes([n]), filename=f"{n}", content_type="x/y") for n in range(3)]
        place = (w.source.id, files[1]["key"])
        w.sandbox.files.attachments[place].upload_status = "uploading"
        w.source.insert(LOGS, w.project, small_rows(3, metadata={"files": files}))
        assert w.move(LOGS) == 1
        w.sandbox.files.attachments[place].upload_status = "done"
        assert w.move(LOGS, "--new-run") == 0
        for row in w.dest.rows(LOGS, w.twin(LOGS, w.project)):
            keys = [file["key"] for file in row["metadata"]["files"]]
            assert [w.dest.attachment(key) for key in keys] == [b"\x00", b"\x01", b"\x02"]


def test_an_origin_of_a_kind_that_is_not_known_yet_is_listed_and_is_no_failure(
    tmp_path: Path,
) -> None:
    """No list of the API can hold its target: moving more would never complete the row."""
    with world(tmp_path) as w:
        origin = {"object_type": "brand_new", "object_id": UNKNOWN, "id": "x"}
        w.source.insert("project_logs", w.project, [{"id": "r", "origin": origin}])
        code = w.move("project_logs")
        assert (code, told(w.root)) == (0, {"reference_to_unmovable": 1})
