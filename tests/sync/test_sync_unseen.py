"""A stream that a sync cannot see keeps its own sync mark: what was written meanwhile arrives once
it is seen again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Incoming
from tests.support.orgs import DEST_KEY, SOURCE_KEY, everything, findings
from tests.support.row_runs import World, forbidding
from tests.support.syncs import (
    DATASET,
    EXPERIMENT,
    KINDS,
    LOGS,
    add_prompt,
    equal,
    first_sync,
    holder,
    later,
    living,
    row,
    sent,
    sync,
)
from tests.support.undoing import undo

LIST_OF = {LOGS: "/v1/project", EXPERIMENT: "/v1/experiment", DATASET: "/v1/dataset"}
LIST_OF["prompt"] = "/v1/prompt"


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    """Two projects with rows of every kind, copied an hour ago."""
    with living(tmp_path, projects=2) as made:
        first_sync(made)
        yield made


def listing(w: World, kind: str, answer: Callable[[List[Any]], Answer], key: str) -> None:
    """Replace the answers to the list of a kind for one of the two keys."""
    org = w.source if key == SOURCE_KEY else w.dest
    holders = {LOGS: "project"}.get(kind, kind)

    def serve(incoming: Incoming) -> Optional[Answer]:
        asked = (incoming.method, incoming.path.split("?")[0])
        ours = incoming.headers.get("Authorization", "").endswith(key)
        if asked == ("GET", LIST_OF[kind]) and ours:
            return answer(org.objects(holders))
        return watch(incoming)

    watch = w.sandbox._watch
    w.sandbox.intercept = serve


def as_it_is(w: World) -> None:
    w.sandbox.intercept = w.sandbox._watch


def listed(objects: List[Any]) -> Answer:
    return Answer(200, json.dumps({"objects": objects}).encode())


def not_found(objects: List[Any]) -> Answer:
    return Answer(404, b"<html>not found</html>", "text/html")


ANSWERS = {
    "the list answers 404": not_found,
    "one object is missing": lambda objects: listed(objects[1:]),
    "the list is empty": lambda objects: listed([]),
}


@pytest.mark.parametrize("what", ANSWERS)
@pytest.mark.parametrize("kind", [EXPERIMENT, DATASET])
@pytest.mark.variants(1)
def test_what_is_written_while_the_source_does_not_list_an_object_arrives_later(
    kind: str, what: str, w: World
) -> None:
    listing(w, kind, ANSWERS[what], SOURCE_KEY)
    for number in range(2):
        w.source.insert(kind, holder(w, kind, number), [row("missed")])
    end = sync(w)
    assert (end.code, len(findings(w.root, "stream_behind")) > 0) == (1, True), end.last_words
    as_it_is(w)
    later(w)
    end = sync(w)
    assert (end.code, equal(w), findings(w.root, "stream_behind")) == (0, True, []), end.last_words
    sent(w)
    assert (sync(w).code, sent(w)) == (0, [])


def test_a_project_that_is_missing_from_the_list_keeps_the_marks_of_its_logs(w: World) -> None:
    listing(w, LOGS, lambda objects: listed(objects[1:]), SOURCE_KEY)
    for kind in KINDS:
        for number in range(2):
            w.source.insert(kind, holder(w, kind, number), [row("missed")])
    end = sync(w)
    assert (end.code, len(findings(w.root, "stream_behind"))) == (1, 3), end.last_words
    as_it_is(w)
    end = sync(w)
    assert (end.code, equal(w)) == (0, True), end.last_words


@pytest.mark.parametrize("kind", [EXPERIMENT, DATASET])
@pytest.mark.variants(1)
def test_a_destination_that_lists_nothing_once_loses_no_rows(kind: str, w: World) -> None:
    listing(w, kind, ANSWERS["the list is empty"], DEST_KEY)
    w.source.insert(kind, holder(w, kind), [row("missed"), row("r00001", metadata={"new": 1})])
    sync(w)
    as_it_is(w)
    end = sync(w)
    assert (end.code, equal(w)) == (0, True), end.last_words


def test_an_object_missing_for_weeks_is_behind_then_gone_and_catches_up_when_it_returns(
    w: World,
) -> None:
    listing(w, DATASET, ANSWERS["one object is missing"], SOURCE_KEY)
    w.source.insert(DATASET, holder(w, DATASET), [row("first")])
    codes = []
    for number in range(4):
        w.source.insert(DATASET, holder(w, DATASET), [row(f"week {number}")])
        w.source.insert(DATASET, holder(w, DATASET, 1), [row(f"week {number}")])
        codes.append((sync(w, after_s=7 * 86400).code, len(findings(w.root, "stream_behind"))))
    assert codes == [(1, 1), (0, 0), (0, 0), (0, 0)]
    as_it_is(w)
    end = sync(w)
    assert (end.code, equal(w)) == (0, True), end.last_words


def test_two_syncs_within_a_minute_do_not_take_an_object_for_deleted(w: World) -> None:
    listing(w, DATASET, ANSWERS["one object is missing"], SOURCE_KEY)
    w.source.insert(DATASET, holder(w, DATASET), [row("first")])
    assert [sync(w, after_s=30).code for _ in range(3)] == [1, 1, 1]
    assert sync(w, after_s=600).code == 0


def test_a_stream_without_new_rows_is_no_longer_behind(w: World) -> None:
    listing(w, DATASET, ANSWERS["one object is missing"], SOURCE_KEY)
    assert sync(w).code == 1
    as_it_is(w)
    assert [sync(w).code, sync(w).code] == [0, 0]
    w.source.insert(DATASET, holder(w, DATASET), [row("new")])
    assert (sync(w).code, equal(w)) == (0, True)


def show_nothing(w: World, kind: str = "") -> None:
    """Every query of the source's rows (of a kind) is answered with a good but empty page."""

    def serve(incoming: Incoming) -> Optional[Answer]:
        ours = incoming.headers.get("Authorization", "").endswith(SOURCE_KEY)
        if ours and incoming.path == "/btql" and kind.encode() in incoming.body:
            return Answer(200, json.dumps({"data": [], "schema": {}}).encode())
        return watch(incoming)

    watch = w.sandbox._watch
    w.sandbox.intercept = serve


def test_a_sync_that_is_shown_no_row_at_all_moves_no_mark(w: World) -> None:
    for kind in KINDS:
        for number in range(2):
            w.source.insert(kind, holder(w, kind, number), [row("new")])
    show_nothing(w)
    blind = sync(w)
    behind = findings(w.root, "stream_behind")
    assert (blind.code, len(behind), sent(w)) == (1, 6, []), blind.last_words
    assert "shows none of its rows" in behind[0]["detail"]
    later(w)  # longer than rows are read again anyway
    as_it_is(w)
    seeing = sync(w)
    assert (seeing.code, equal(w), len(sent(w))) == (0, True, 6), seeing.last_words


def test_all_rows_of_an_object_missing_twice_count_as_deleted(w: World) -> None:
    dataset = holder(w, DATASET)
    ids = [item["id"] for item in w.source.rows(DATASET, dataset)]
    w.source.insert(DATASET, dataset, [{"id": row_id, "_object_delete": True} for row_id in ids])
    codes = [sync(w, after_s=after_s).code for after_s in (3600, 60, 3600, 3600)]
    assert codes == [1, 1, 0, 0]
    w.source.insert(DATASET, dataset, [row("new")])
    end = sync(w)
    assert (end.code, len(sent(w))) == (0, 1), end.last_words


def test_rows_that_arrived_before_a_copy_was_complete_are_counted_too(w: World) -> None:
    young = w.source.create(DATASET, {"project_id": w.project, "name": "young"})["id"]
    w.source.insert(DATASET, young, [row(f"y{number}") for number in range(5)])
    watch = w.sandbox._watch

    def answering(of_copy: Optional[Answer], of_news: Optional[Answer]) -> Any:
        def serve(incoming: Incoming) -> Optional[Answer]:
            body = incoming.body
            is_page = incoming.path == "/btql" and young.encode() in body and b"count(" not in body
            answer = of_news if b"_xact_id >" in body else of_copy
            return answer if is_page and answer else watch(incoming)

        return serve

    w.sandbox.intercept = answering(Answer(400, b'{"Code": "BadRequest"}'), None)
    assert sync(w).code == 1
    w.source.insert(DATASET, young, [row("y0", metadata={"edited": 1})])
    w.sandbox.intercept = answering(None, Answer(200, b'{"data": []}'))
    blind = sync(w)
    failed = findings(w.root, "stream_failed")
    assert (blind.code, [item["name"] for item in failed]) == (1, ["young"]), blind.last_words
    assert "1 row counted and 0 read" in failed[0]["detail"]
    w.sandbox.intercept = watch
    assert (sync(w).code, equal(w)) == (0, True)


@pytest.mark.parametrize("history", ["1", "all"])
@pytest.mark.variants(1)
def test_a_prompt_that_is_listed_as_a_function_only_moves_as_the_prompt_that_it_is(
    history: str, w: World
) -> None:
    """It got a second copy if its slug had changed, because the slug tells functions apart."""
    add_prompt(w)
    assert sync(w, "--history", history).code == 0
    (prompt,) = w.source.objects("prompt")
    w.source.patch("prompt", prompt["id"], {"slug": "moved"})
    listing(w, "prompt", ANSWERS["the list is empty"], SOURCE_KEY)
    end = sync(w, "--history", history)
    slugs = [obj["slug"] for obj in w.dest.objects("prompt")]
    assert (end.code, slugs) == (0, ["moved"]), end.last_words
    as_it_is(w)
    assert (sync(w, "--history", history).code, len(w.dest.objects("prompt"))) == (0, 1)


@pytest.mark.parametrize("kind", [*KINDS, "prompt"])
@pytest.mark.variants(1)
def test_undo_removes_what_the_destination_did_not_list_for_one_night(
    kind: str, tmp_path: Path
) -> None:
    """The sync of that night finds it again by its name; the run created it all the same."""
    with living(tmp_path) as w:
        add_prompt(w)
        before = everything(w.dest)
        first_sync(w)
        listing(w, kind, ANSWERS["the list is empty"], DEST_KEY)
        sync(w)
        as_it_is(w)
        end = sync(w)
        assert (end.code, len(w.dest.objects("project"))) == (0, 1), end.last_words
        done = undo(w, w.root, "--yes")
        assert (done.code, everything(w.dest)) == (0, before), done.out + done.err


@pytest.mark.parametrize("policy", ["keep", "update"])
@pytest.mark.variants(1)
def test_undo_removes_what_the_last_sync_did_not_find(policy: str, tmp_path: Path) -> None:
    """The destination's list lacked the project; with `update` creating it again failed."""
    with living(tmp_path) as w:
        before = everything(w.dest)
        first_sync(w)
        listing(w, LOGS, ANSWERS["the list is empty"], DEST_KEY)
        w.sandbox.refuse = forbidding("p00", path="/v1/project", status=500)
        sync(w, "--on-conflict", policy)
        as_it_is(w)
        w.sandbox.refuse = None
        done = undo(w, w.root, "--yes")
        assert (done.code, everything(w.dest)) == (0, before), done.out + done.err
        assert done.out.count("delete: projects") == 1, done.out
