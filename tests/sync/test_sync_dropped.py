"""Rows that the destination confirms in a sync and drops are found, named and sent again."""

from __future__ import annotations

import json
import signal
import uuid
from pathlib import Path
from typing import Iterator, List, Optional

import pytest

from bt_migrate.phases.accept import main as accept
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Incoming
from tests.support.dropping import Dropping
from tests.support.orgs import AtRequest, Ended, ended, findings, is_insert, report, started
from tests.support.row_runs import WRITE, World
from tests.support.syncs import (
    DATASET,
    EXPERIMENT,
    LOGS,
    add_prompt,
    equal,
    first_sync,
    holder,
    later,
    living,
    queries,
    row,
    sent,
    sync,
    twin,
)

LONG = pytest.mark.long
NOT_SHOWN = "row_not_shown"


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with living(tmp_path) as world:
        first_sync(world)
        yield world


def there(w: World, kind: str = LOGS) -> List[str]:
    return sorted(row_["id"] for row_ in w.dest.rows(kind, twin(w, kind)))


def night(w: World, *args: str) -> Ended:
    """A sync; what it wrote is not waited for: the sandbox shows it at once."""
    return sync(w, *args, MIGRATION_VERIFY_WAIT="0")


@pytest.mark.parametrize(
    "kind", [DATASET, pytest.param(EXPERIMENT, marks=LONG), pytest.param(LOGS, marks=LONG)]
)
def test_a_row_that_is_dropped_once_is_sent_again_by_the_same_sync(kind: str, w: World) -> None:
    w.source.insert(kind, holder(w, kind), [row("a"), row("b"), row("c")])
    Dropping(w, {"b"}, times=1)
    end = night(w)
    assert (end.code, equal(w)) == (0, True), end.last_words
    assert [row_id for _, row_id in sent(w)] == ["a", "b", "c", "b"]
    (counts,) = [rows for rows in report(w.root)["rows"] if rows["outcomes"]]
    assert (counts["fetched"], counts["outcomes"]) == (3, {"created": 3})


@pytest.mark.recorded  # without transactions, an edit is not told from a version that was kept
def test_an_edit_that_is_dropped_once_is_sent_again_by_the_same_sync(w: World) -> None:
    for change in ("first", "second"):
        w.source.insert(LOGS, holder(w, LOGS), [row("r00003", output=change), row(change)])
        dropping = Dropping(w, {"r00003"}, times=1)
        end = night(w)
        assert (end.code, equal(w), len(dropping.dropped)) == (0, True, 1), end.last_words
        dropping.stop()


def test_a_row_that_is_always_dropped_is_named_and_tried_by_each_sync(w: World) -> None:
    w.source.insert(LOGS, holder(w, LOGS), [row("a"), row("b"), row("c")])
    dropping = Dropping(w, {"b", "c"})
    for recommended in ("bin/migrate-all --since-last ", "bin/accept "):
        end = night(w)
        assert end.code == 1
        (told,) = findings(w.root, NOT_SHOWN)
        assert (told["count"], told["name"], told["row"]) == (2, "p00", "b")
        assert "2 rows" in end.out, end.out
        (command,) = report(w.root)["next_commands"]
        assert command.startswith(recommended), command
        assert "a" in there(w)
    assert report(w.root)["totals"]["rows"]["failed"] == 2
    dropping.stop()
    assert (night(w).code, findings(w.root, NOT_SHOWN), equal(w)) == (0, [], True)
    w.sandbox.clear_requests()
    assert (night(w).code, queries(w, WRITE)) == (0, 0)


def test_rows_that_never_arrive_can_be_accepted(w: World) -> None:
    w.source.insert(LOGS, holder(w, LOGS), [row("a"), row("b")])
    dropping = Dropping(w, {"b", "d"})
    assert night(w).code == 1
    assert accept([str(w.root), "--all", "--yes"]) == 0
    assert [night(w).code for _ in range(2)] == [0, 0]
    w.source.insert(LOGS, holder(w, LOGS), [row("d")])
    assert night(w).code == 1  # another row
    dropping.stop()
    assert (night(w).code, equal(w)) == (0, True)


@pytest.mark.recorded  # without transactions, rows of others are counted with ours
def test_rows_and_edits_of_a_person_neither_hide_nor_fake_a_difference(w: World) -> None:
    def meddle() -> None:
        w.dest.insert(LOGS, twin(w, LOGS), [row("theirs"), row("a", output="edited")])

    w.source.insert(LOGS, holder(w, LOGS), [row("a"), row("b"), row("c")])
    dropping = Dropping(w, {"b"})
    at = AtRequest(1, "after", meddle, lambda method, path: is_insert(path))
    w.sandbox.on_request = at
    assert night(w).code == 1
    assert [told["count"] for told in findings(w.root, NOT_SHOWN)] == [1]
    dropping.stop()
    assert night(w).code == 0
    held = {row_["id"]: row_ for row_ in w.dest.rows(LOGS, twin(w, LOGS))}
    assert (held["a"]["output"], {"b", "c", "theirs"} <= held.keys()) == ("edited", True)


def test_rows_of_a_new_object_are_confirmed_too(w: World) -> None:
    project = w.project
    made = w.source.create("experiment", {"project_id": project, "name": "new"})["id"]
    w.source.insert(EXPERIMENT, made, [row(f"n{number}") for number in range(5)])
    dropping = Dropping(w, {"n3"})
    assert night(w).code == 1
    assert [told["name"] for told in findings(w.root, NOT_SHOWN)] == ["new"]
    dropping.stop()
    assert (night(w).code, equal(w)) == (0, True)


@pytest.mark.parametrize("moment", [pytest.param("before", marks=LONG), "after"])
def test_what_a_killed_sync_delivered_is_confirmed_by_the_next(moment: str, w: World) -> None:
    for kind in (LOGS, DATASET):
        w.source.insert(kind, holder(w, kind), [row("a"), row("b")])
    dropping = Dropping(w, {"b"})
    later(w, 3600)
    settings = {"MIGRATION_VERIFY_WAIT": "0"}
    at = AtRequest(2, moment, signal.SIGKILL, lambda method, path: is_insert(path))
    with started(w.sandbox, w.root, "--since-last", "--no-verify", **settings) as process:
        at.process, w.sandbox.on_request = process, at
        assert ended(process).code == -signal.SIGKILL
    w.sandbox.on_request = None
    assert night(w).code == 1
    assert [told["count"] for told in findings(w.root, NOT_SHOWN)] == [1, 1]
    dropping.stop()
    assert (night(w).code, equal(w)) == (0, True)


def test_a_destination_that_shows_rows_late_is_waited_for(w: World) -> None:
    w.source.insert(LOGS, holder(w, LOGS), [row("a"), row("b")])
    w.sandbox.indexing_lag = 1.0
    assert (sync(w).code, equal(w)) == (0, True)
    assert [row_id for _, row_id in sent(w)] == ["a", "b"]


@pytest.mark.recorded
def test_one_query_counts_the_delivered_rows_of_many_objects(tmp_path: Path) -> None:
    with living(tmp_path, projects=6, rows=2) as w:
        first_sync(w)
        for number in range(6):
            w.source.insert(LOGS, holder(w, LOGS, number), [row("new")])
        w.sandbox.clear_requests()
        assert night(w).code == 0
        # A look-up of the new rows together, then of each object that seems empty; one count.
        assert queries(w, WRITE) == 1 + 6 + 1
        w.sandbox.clear_requests()
        assert (night(w).code, queries(w, WRITE)) == (0, 0)


@pytest.mark.recorded  # only a transaction proves that a row may be deleted
@pytest.mark.parametrize("times", [pytest.param(1, marks=LONG), None])
def test_a_delete_that_is_confirmed_and_not_done_is_reported(
    times: Optional[int], w: World
) -> None:
    deletes = ("--propagate-deletes", "--max-deletes", "50%")
    rows = [{"id": row_id, "_object_delete": True} for row_id in ("r00003", "r00004")]
    w.source.insert(LOGS, holder(w, LOGS), rows)
    assert night(w, *deletes).code == 0
    dropping = Dropping(w, {"r00003"}, times=times)
    end = night(w, *deletes)
    assert (end.code, dropping.dropped, "r00003" in there(w)) == (1, [("r00003", True)], True)
    (told,) = findings(w.root, "row_not_deleted")
    assert (told["count"], told["row"]) == (1, "r00003")
    assert [rows["deleted"] for rows in report(w.root)["rows"] if rows.get("deleted")] == [1]
    if times is None:
        assert accept([str(w.root), "--all", "--yes"]) == 0
        assert [night(w, *deletes).code for _ in range(2)] == [0, 0]
        dropping.stop()
    assert (night(w, *deletes).code, equal(w)) == (0, True)
    assert findings(w.root, "row_not_deleted") == []


def test_an_object_that_is_confirmed_and_not_kept_is_created_again(w: World) -> None:
    watch = w.sandbox.intercept
    assert watch is not None

    def answer(request: Incoming) -> Optional[Answer]:
        if (request.method, request.path) != ("POST", "/v1/prompt"):
            return watch(request)
        made = {"id": str(uuid.uuid4()), "created": w.sandbox.clock.timestamp()}
        return Answer(200, json.dumps({**json.loads(request.body), **made}).encode())

    add_prompt(w)
    w.sandbox.intercept = answer
    assert (night(w).code, w.dest.objects("prompt")) == (1, [])
    (problem,) = report(w.root)["problems"]
    assert (problem["name"], problem["outcome"]) == ("Ask", "failed")
    assert "does not list it" in problem["reason"]
    w.sandbox.intercept = watch
    assert [night(w).code for _ in range(2)] == [0, 0]
    assert [obj["name"] for obj in w.dest.objects("prompt")] == ["Ask"]


@pytest.mark.recorded  # without transactions, a merge is not told from the row before it
def test_a_reference_that_was_added_and_dropped_is_added_again(w: World) -> None:
    body = {"project_id": w.project, "name": "late"}
    made = w.source.create("experiment", body)["id"]
    w.source.insert(EXPERIMENT, made, [row("e")])
    origin = {"object_type": "experiment", "object_id": made, "id": "e"}
    w.source.insert(DATASET, holder(w, DATASET), [row("a", origin=origin)])
    dropping = Dropping(w, {"a"}, times=1, only_merges=True)
    end = night(w)
    assert (end.code, dropping.dropped) == (0, [("a", False)]), end.last_words
    (there_,) = [row_ for row_ in w.dest.rows(DATASET, twin(w, DATASET)) if row_["id"] == "a"]
    assert there_["origin"]["object_id"] == w.twin(EXPERIMENT, made)
