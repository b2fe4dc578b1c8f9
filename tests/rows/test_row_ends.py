"""The end of a stream is checked against its count, and each page against what was requested."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest

import bt_migrate.sandbox.routes.table as routes
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Incoming
from tests.support.orgs import DEST_KEY, SOURCE_KEY, findings
from tests.support.row_runs import READ, WRITE, World, call, counted, small_rows, world
from tests.support.syncs import (
    DATASET,
    KINDS,
    LOGS,
    equal,
    holder,
    living,
    queries,
    row,
    sync,
    twin,
)

Json = Dict[str, Any]
ChangeAnswer = Callable[[str, Json], None]
ChangeQuery = Callable[[str], str]


def serving(
    w: World,
    *,
    answer: ChangeAnswer = lambda query, found: None,
    query: ChangeQuery = lambda text: text,
    key: str = SOURCE_KEY,
    before: Any = None,
) -> None:
    """A source whose queries and answers are changed; `before`: another such hook, for the other
    side.
    """

    def intercept(incoming: Incoming) -> Optional[Answer]:
        refused = (before or watch)(incoming)
        ours = incoming.headers.get("Authorization", "").endswith(key)
        if refused is not None or incoming.path != "/btql" or not ours:
            return refused
        body = json.loads(incoming.body)
        asked = body["query"]
        body["query"] = query(asked)
        carried_out = routes.answer(
            w.sandbox.api, "POST", "/btql", incoming.headers, json.dumps(body).encode()
        )
        if carried_out.status != 200:
            return carried_out
        found = json.loads(carried_out.body)
        answer(asked, found)
        return Answer(200, json.dumps(found).encode())

    watch = w.sandbox._watch
    w.sandbox.intercept = intercept


def is_page(query: str) -> bool:
    return "select: *" in query and "limit:" in query


def capped(most: int) -> ChangeAnswer:
    """Pages of so many rows at most."""

    def cap(query: str, found: Json) -> None:
        if is_page(query):
            del found["data"][most:]

    return cap


def fill(w: World, kind: str, object_id: str, count: int) -> None:
    for start in range(0, count, 10):
        w.source.insert(kind, object_id, small_rows(min(10, count - start), start))


# A cursor with every page, pages of any size
# ---------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "limit", "pages"),
    [(0, 1000, 1), (1, 1000, 1), (5, 1000, 1), (30, 1000, 1), (70, 30, 3)],
)
def test_a_stream_costs_its_pages_and_one_count(
    count: int, limit: int, pages: int, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        fill(w, LOGS, w.project, count)
        serving(w)
        assert w.move(LOGS, "--fetch-limit", str(limit)) == 0
        source, dest = w.contents(LOGS, [w.project])
        # a count and, at the same time, the question whether any row has facets
        assert (source == dest, w.asked(READ, "POST", "/btql")) == (True, pages + 2)


def test_small_streams_of_many_projects_are_counted_and_read_25_at_a_time(tmp_path: Path) -> None:
    with living(tmp_path, projects=30, rows=2) as w:
        serving(w)
        assert (sync(w, "--resources", "logs,experiments,datasets").code, equal(w)) == (0, True)
        # of 30 objects of each kind: two counts, two pages; and a page of each kind that validation
        # samples, and the question whether any row has facets
        assert queries(w, READ) <= 3 * (2 + 2 + 1 + 1)
        w.sandbox.clear_requests()
        assert sync(w, "--resources", "logs,experiments,datasets").code == 0
        # and the question whether 25 of the streams that had rows still show some
        assert queries(w, READ) <= 3 * (2 + 2 + 1)


@pytest.mark.parametrize("streams", ["1", "4"])
@pytest.mark.parametrize("most", [7, 10, 19])
def test_a_server_that_caps_pages_at_any_size_loses_nothing(
    most: int, streams: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        fill(w, LOGS, w.project, 130)
        serving(w, answer=capped(most))
        assert w.move(LOGS, "--read-streams", streams) == 0
        source, dest = w.contents(LOGS, [w.project])
        assert (source == dest, counted(w.root)) == (
            True,
            {"rows": {"fetched": 130, "created": 130}},
        )


@pytest.mark.parametrize("most", [7, 25])
@pytest.mark.variants(1)
def test_a_server_that_caps_the_pages_of_groups_loses_nothing(most: int, tmp_path: Path) -> None:
    with living(tmp_path, projects=3, rows=20) as w:
        serving(w, answer=capped(most))
        assert (sync(w, "--full").code, equal(w)) == (0, True)
        for kind in KINDS:
            w.source.insert(kind, holder(w, kind), [row(f"new {number}") for number in range(30)])
        assert (sync(w).code, equal(w)) == (0, True)


def test_a_server_that_does_not_count_is_read_to_an_empty_page(tmp_path: Path) -> None:
    def uncounted(query: str, found: Json) -> None:
        if "count(1)" in query:
            found["data"] = [{"rows": "many"}]
        capped(9)(query, found)

    with world(tmp_path) as w:
        fill(w, LOGS, w.project, 50)
        serving(w, answer=uncounted)
        assert w.move(LOGS) == 0
        source, dest = w.contents(LOGS, [w.project])
        assert source == dest


# Fewer rows than were counted
# ------------------------------------------------------------------------


def hiding(*row_ids: str) -> ChangeAnswer:
    """Rows that are counted and never shown."""

    def hide(query: str, found: Json) -> None:
        if is_page(query):
            found["data"] = [entry for entry in found["data"] if entry.get("id") not in row_ids]

    return hide


@pytest.mark.parametrize("streams", ["1", "3"])
@pytest.mark.parametrize("hidden", ["r00000", "r00027", "r00049"])
@pytest.mark.variants(1)
def test_a_stream_that_shows_fewer_rows_than_it_counts_is_not_done(
    hidden: str, streams: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        fill(w, LOGS, w.project, 50)
        serving(w, answer=hiding(hidden))
        limits = ("--read-streams", streams, "--fetch-limit", "20")
        assert w.move(LOGS, *limits) == 1
        (failed,) = findings(w.root, "stream_failed")
        assert "50 rows counted and 49 read" in failed["detail"]
        serving(w)
        assert w.move(LOGS, *limits) == 0
        source, dest = w.contents(LOGS, [w.project])
        assert source == dest


def test_a_member_of_a_group_that_is_not_shown_whole_fails_alone(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = w.make("dataset", "one", "two", "three")
        for number, object_id in enumerate(ids):
            w.source.insert("dataset", object_id, [row(f"{number}-{item}") for item in range(12)])
        serving(w, answer=hiding("1-4"))
        assert w.move("dataset") == 1
        assert [finding["name"] for finding in findings(w.root, "stream_failed")] == ["two"]
        serving(w)
        assert w.move("dataset") == 0
        source, dest = w.contents("dataset", ids)
        assert source == dest


@pytest.mark.parametrize("kind", [LOGS, DATASET])
@pytest.mark.variants(1)
def test_a_sync_that_is_shown_fewer_rows_than_are_counted_is_not_done(
    kind: str, tmp_path: Path
) -> None:
    with living(tmp_path, projects=2) as w:
        assert sync(w).code == 0
        for number in range(2):
            w.source.insert(kind, holder(w, kind, number), [row("a"), row("b")])
        serving(w, answer=hiding("b"))
        for _ in range(2):
            assert (sync(w).code, len(findings(w.root, "stream_failed"))) == (1, 2)
        serving(w)
        assert (sync(w).code, equal(w)) == (0, True)


# Servers that ignore what they are asked
# -------------------------------------------------------------


def without(pattern: str) -> ChangeQuery:
    return lambda query: re.sub(pattern, "", query) if is_page(query) else query


IGNORED = {
    "keys": (without(r"filter: _pagination_key > '[^']*'\n"), "filter of keys"),
    "the sort": (lambda query: query.replace("asc", "desc"), "sort"),
    "the limit": (lambda query: re.sub(r"limit: \d+", "limit: 900", query), "limit"),
}


@pytest.mark.parametrize("what", IGNORED)
def test_a_server_that_ignores_the_query_ends_the_stream_with_a_failure(
    what: str, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        fill(w, LOGS, w.project, 40)
        change, word = IGNORED[what]
        serving(w, query=change)
        assert w.move(LOGS, "--fetch-limit", "15") == 1
        (failed,) = findings(w.root, "stream_failed")
        assert (f"ignores the {word}" in failed["detail"], len(w.sandbox.sent) <= 40) == (
            True,
            True,
        )


def test_a_server_that_ignores_the_filter_of_keys_of_a_small_log_copies_it_once(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        fill(w, LOGS, w.project, 10)
        serving(w, query=without(r"filter: _pagination_key > '[^']*'\n"))
        assert (w.move(LOGS), len(w.sandbox.sent)) == (0, 10)


def test_a_server_that_ignores_the_filter_of_transactions_ends_the_sync_of_the_stream(
    tmp_path: Path,
) -> None:
    with living(tmp_path) as w:
        assert sync(w).code == 0
        w.source.insert(LOGS, w.project, [row("new")])
        serving(w, query=without(r"filter: _xact_id > '[^']*'\n"))
        assert sync(w).code == 1
        assert "ignores the filter of _xact_id" in findings(w.root, "stream_failed")[0]["detail"]
        serving(w)
        assert (sync(w).code, equal(w)) == (0, True)


@pytest.mark.parametrize("holder", ["somebody-else", ["a list"], 7])
def test_rows_of_another_object_are_refused(holder: Any, tmp_path: Path) -> None:
    def mixed(query: str, found: Json) -> None:
        if is_page(query) and found["data"]:
            found["data"][-1]["project_id"] = holder

    with world(tmp_path) as w:
        fill(w, LOGS, w.project, 10)
        serving(w, answer=mixed)
        assert (w.move(LOGS), w.sandbox.sent) == (1, [])
        assert "project_id was not asked for" in findings(w.root, "stream_failed")[0]["detail"]


@pytest.mark.parametrize("rubbish", [None, 5, "row", [], {}, {"id": 7, "_pagination_key": "p1"}])
@pytest.mark.variants(1)
def test_malformed_rows_fail_only_their_stream(rubbish: Any, tmp_path: Path) -> None:
    def spoil(query: str, found: Json) -> None:
        if is_page(query) and "'" + bad + "'" in query and found["data"]:
            found["data"][0] = rubbish

    with world(tmp_path) as w:
        good, bad = w.make("dataset", "good", "bad")
        fill(w, "dataset", good, 10)
        fill(w, "dataset", bad, 10)
        serving(w, answer=spoil)
        assert w.move("dataset") == 1
        assert [finding["name"] for finding in findings(w.root, "stream_failed")] == ["bad"]
        serving(w)
        source, dest = w.contents("dataset", [good])
        assert source == dest


def test_a_plan_is_made_although_rows_do_not_name_their_object(tmp_path: Path) -> None:
    """The first rows of small objects, which a plan reads together."""

    def nameless(query: str, found: Json) -> None:
        if is_page(query):
            for found_row in found["data"]:
                found_row.pop("dataset_id", None)

    with world(tmp_path) as w:
        for name in ("a", "b", "c", "d", "e"):
            fill(w, "dataset", w.make("dataset", name)[0], 3)
        serving(w, answer=nameless)
        assert w.move("dataset", "--dry-run") == 0


def test_rows_outside_of_the_date_window_are_refused(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert(
            LOGS,
            w.project,
            [
                row("old", created="2024-01-01T00:00:00Z"),
                row("new", created="2025-01-01T00:00:00Z"),
            ],
        )
        serving(w, query=without(r"filter: created >= '[^']*'\n"))
        assert w.move(LOGS, "--created-after", "2024-06-01") == 1
        assert "date window" in findings(w.root, "stream_failed")[0]["detail"]


def test_rows_that_are_deleted_after_they_were_counted_are_not_missed(tmp_path: Path) -> None:
    deleted: List[int] = []

    def delete(query: str, found: Json) -> None:
        if "count(1)" in query and not deleted:
            deleted.append(1)
            w.source.insert(LOGS, w.project, [{"id": "r00003", "_object_delete": True}])

    with world(tmp_path) as w:
        fill(w, LOGS, w.project, 20)
        serving(w, answer=delete)
        assert (w.move(LOGS), len(w.sandbox.sent)) == (0, 19)


# The comparison
# --------------------------------------------------------------------------------------


def test_a_comparison_costs_its_pages_and_a_count_of_each_side(tmp_path: Path) -> None:
    with living(tmp_path, projects=30, rows=2) as w:
        assert sync(w).code == 0
        serving(w)
        w.sandbox.clear_requests()
        assert call(w, "verify", "--full", MIGRATION_VERIFY_WAIT="0") == 0
        # of 30 objects of each kind: two counts and two pages; and whether any row of the source
        # has facets
        assert [queries(w, side) for side in (READ, WRITE)] == [3 * 5, 3 * 4]


@pytest.mark.parametrize("depth", ["--full", "--sample"])
@pytest.mark.variants(1)
def test_a_comparison_that_is_shown_fewer_rows_than_are_counted_is_not_equal(
    depth: str, tmp_path: Path
) -> None:
    with living(tmp_path, projects=2) as w:
        assert sync(w).code == 0
        serving(w, answer=hiding("r00004"), key=SOURCE_KEY)
        hide_there = w.sandbox.intercept
        serving(w, answer=hiding("r00004"), key=DEST_KEY, before=hide_there)
        words = [depth, "1000"] if depth == "--sample" else [depth]
        assert call(w, "verify", *words, MIGRATION_VERIFY_WAIT="0") == 1


# A host that is down
# -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [502, 503])
@pytest.mark.variants(1)
def test_queries_that_answer_nothing_but_5xx_for_a_while_are_waited_for(
    status: int, tmp_path: Path
) -> None:
    """Longer than all retries of one request take."""
    began: List[float] = []

    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        if path != "/btql" or b"select: *" not in raw:
            return None
        began.append(time.monotonic())
        down = began[-1] - began[0] < 3
        return Answer(status, b"no healthy upstream", "text/plain") if down else None

    with living(tmp_path, projects=3) as w:
        w.sandbox.refuse = refuse
        once = {"MIGRATION_RETRY_ATTEMPTS": "1", "MIGRATION_READ_STREAMS": "1"}
        assert (sync(w, "--resources", "logs", **once).code, len(began) > 3) == (0, True)
        assert len({row["id"] for row in w.dest.rows(LOGS, twin(w, LOGS))}) == 30


# A whole organization --------------------------------------------------------------------------


def test_188_rows_in_207_streams_cost_at_most_60_queries_and_a_second_run_at_most_70(
    tmp_path: Path,
) -> None:
    """Before, with a cursor on each page: 112 and 367."""
    rng = random.Random(1)
    with world(tmp_path) as w:
        projects = [w.project]
        for number in range(22):
            projects.append(str(w.source.create("project", {"name": f"p{number}"})["id"]))
        streams = [(LOGS, project) for project in projects]
        for kind in ("dataset", "experiment"):
            for number in range(92):
                body = {"project_id": projects[number % 23], "name": f"{kind} {number}"}
                streams.append((kind, str(w.source.create(kind, body)["id"])))
        for number, (kind, object_id) in enumerate(rng.sample(streams, 60)):
            w.source.insert(kind, object_id, small_rows(4 if number < 8 else 3))
        serving(w)
        totals = []
        for words in ([], ["--new-run"]):
            w.sandbox.clear_requests()
            assert call(w, "migrate_all", *words, MIGRATION_VERIFY_WAIT="0") == 0
            totals.append(queries(w, READ) + queries(w, WRITE))
        assert totals[0] <= 60
        assert totals[1] <= 70
