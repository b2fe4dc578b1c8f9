"""Facets and classifications, on servers that show them in shape `traces` only."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

import bt_migrate.sandbox.routes.table as routes
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.behaviour import older
from bt_migrate.sandbox.http.faults import Fault
from bt_migrate.sandbox.http.server import Incoming
from tests.support.orgs import DEST_KEY, SOURCE_KEY, findings, report
from tests.support.row_runs import World, call, told, world, write_as_server
from tests.support.syncs import DATASET, EXPERIMENT, LOGS, holder, living, sync, twin

Json = Dict[str, Any]
CLASSIFIED = {"topic": [{"id": "t", "label": "Refund"}]}


def spans(trace: str, count: int, **root: Any) -> List[Json]:
    """The spans of one trace; its root has these fields."""
    made: List[Json] = []
    for number in range(count):
        span = {"id": f"{trace} {number}", "span_id": f"{trace} {number}", "input": trace}
        parents = [f"{trace} 0"] if number else []
        made.append({**span, "root_span_id": f"{trace} 0", "span_parents": parents})
    made[0].update(root)
    return made


class TraceQueries:
    """The queries in shape `traces` of one side; those with the text `refused` are refused."""

    def __init__(self, w: World, *, key: str = SOURCE_KEY, refused: str = "nothing") -> None:
        self.texts: List[str] = []
        self._key, self._refused = key, refused
        self._others = w.sandbox.intercept
        w.sandbox.intercept = self._see

    def _see(self, request: Incoming) -> Optional[Answer]:
        ours = request.headers.get("Authorization", "").endswith(self._key)
        query = json.loads(request.body)["query"] if request.path == "/btql" else ""
        if ours and ") traces" in query:
            self.texts.append(query)
            if self._refused in query:
                return Answer(400, b"unknown shape")
        return self._others(request) if self._others else None


def hidden(w: World) -> None:
    w.sandbox.store.behaviour.spans_show_facets = older().spans_show_facets


def facets(org: Any, kind: str, object_id: str) -> Json:
    return {row["id"]: row["facets"] for row in org.rows(kind, object_id) if row.get("facets")}


def test_facets_that_only_traces_show_are_copied_compared_and_reported(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        hidden(w)
        (experiment,) = w.make("experiment", "e")
        plain, (dataset,) = w.make("experiment", "plain"), w.make("dataset", "d")
        w.source.insert(LOGS, w.project, spans("a", 4, facets={"Task": "refund"}) + spans("b", 8))
        w.source.insert(EXPERIMENT, experiment, spans("c", 3, facets={"Mood": "calm"}))
        w.source.insert(EXPERIMENT, plain[0], spans("d", 3))
        w.source.insert(DATASET, dataset, [{"id": "r", "input": 1}])
        write_as_server(w, LOGS, w.project, {"id": "z", "classifications": CLASSIFIED})
        asked = TraceQueries(w)
        assert call(w, "migrate_all", "--full", "--fetch-limit", "5", "--new-run") == 0
        assert facets(w.dest, LOGS, w.twin(LOGS, w.project)) == {"a 0": {"Task": "refund"}}
        assert facets(w.dest, EXPERIMENT, w.twin(EXPERIMENT, experiment)) == {
            "c 0": {"Mood": "calm"}
        }
        # the audit history of a row that the server wrote is not part of this
        assert told(w.root)["row_field_not_carried"] == 1
        assert [item["path"] for item in findings(w.root, "row_field_not_carried")] == [
            "classifications"
        ]
        # an object whose rows have none is not asked for by row
        by_row = [text for text in asked.texts if "filter: id in" in text]
        assert [text for text in by_row if plain[0] in text or dataset in text] == []
        # Of each kind once; of datasets, which have none, the comparison asks again.
        assert sum("count(1)" in text for text in asked.texts) == 3 + 1

        # What was copied is found again, and not taken for changed.
        assert call(w, "migrate_all", "--full", "--new-run") == 0
        assert "row_differs" not in told(w.root)
        # A facet that differs is seen.
        w.dest.insert(
            LOGS,
            w.twin(LOGS, w.project),
            [{"id": "a 0", "_is_merge": True, "facets": {"Task": "x"}}],
        )
        assert call(w, "verify", "--full") == 1


def test_a_dry_run_reports_classifications_that_only_traces_show(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        hidden(w)
        write_as_server(w, LOGS, w.project, {"id": "z", "classifications": CLASSIFIED})
        assert call(w, "migrate_all", "--dry-run") == 0
        assert told(w.root)["row_field_not_carried"] == 1


def test_a_sync_carries_the_first_facets_of_a_stream(tmp_path: Path) -> None:
    with living(tmp_path, projects=2, rows=3) as w:
        hidden(w)
        assert sync(w).code == 0
        w.source.insert(LOGS, holder(w, LOGS, 1), spans("n", 2, facets={"Task": "new"}))
        w.source.insert(EXPERIMENT, holder(w, EXPERIMENT), spans("e", 2, facets={"Task": "old"}))
        assert sync(w).code == 0
        assert facets(w.dest, LOGS, twin(w, LOGS, 1)) == {"n 0": {"Task": "new"}}
        # Edited in the source only: the destination's row is not taken for edited.
        edit = {"id": "e 0", "_is_merge": True, "facets": {"Task": "newer"}}
        w.source.insert(EXPERIMENT, holder(w, EXPERIMENT), [edit])
        assert sync(w, "--full").code == 0
        assert facets(w.dest, EXPERIMENT, twin(w, EXPERIMENT)) == {"e 0": {"Task": "newer"}}
        assert "row_differs" not in told(w.root)
        # Nothing is new: nothing is asked for.
        asked = TraceQueries(w)
        assert (sync(w).code, asked.texts) == (0, [])


def test_an_empty_answer_of_a_server_that_hides_facets_is_not_believed(tmp_path: Path) -> None:
    with living(tmp_path, projects=2, rows=3) as w:
        hidden(w)
        w.source.insert(LOGS, holder(w, LOGS), spans("n", 2, facets={"Task": "known"}))
        assert sync(w).code == 0
        w.source.insert(LOGS, holder(w, LOGS, 1), spans("m", 2, facets={"Task": "new"}))

        def empty(method: str, path: str, raw: bytes) -> Optional[Answer]:
            is_aggregate = path == "/btql" and b"facets is not null" in raw and b"measures" in raw
            return Answer(200, b'{"data": [], "schema": {}}') if is_aggregate else None

        w.sandbox.refuse = empty
        assert sync(w, "--full").code == 0
        assert facets(w.dest, LOGS, twin(w, LOGS, 1)) == {"m 0": {"Task": "new"}}


@pytest.mark.parametrize("since_last", [[], ["--since-last"]])
@pytest.mark.variants(1)
def test_a_first_wrong_answer_about_facets_is_found_and_completed(
    since_last: List[str], tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        hidden(w)
        w.source.insert(LOGS, w.project, spans("a", 4, facets={"Task": "refund"}) + spans("b", 8))
        lies = [b'{"data": []}']
        w.sandbox.refuse = lambda method, path, body: (
            Answer(200, lies.pop()) if lies and b"facets is not null" in body else None
        )
        assert call(w, "migrate_all", "--full", *since_last) == 1
        (difference,) = report(w.root)["verification"]["differences"]
        assert (difference["row"], difference["fields"], lies) == ("a 0", ["facets"], [])
        (command,) = report(w.root)["next_commands"]
        program, *words = shlex.split(command.partition("  # ")[0])
        assert program == "bin/migrate-all", command
        assert call(w, "migrate_all", *words) == 0
        assert facets(w.dest, LOGS, w.twin(LOGS, w.project)) == {"a 0": {"Task": "refund"}}


def test_a_row_whose_trace_is_too_large_to_show_its_facets_is_reported(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        hidden(w)
        large = spans("a", 1300, facets={"Task": "refund"})
        for start in range(0, len(large), 505):
            w.source.insert(LOGS, w.project, large[start : start + 505])
        w.source.insert(LOGS, w.project, spans("b", 2, facets={"Task": "small"}))
        asked = TraceQueries(w)
        assert w.move(LOGS) == 0
        assert facets(w.dest, LOGS, w.twin(LOGS, w.project)) == {"b 0": {"Task": "small"}}
        # not one query for each row of the trace
        assert len(asked.texts) < 40
        assert [
            (item["path"], item["count"]) for item in findings(w.root, "row_field_not_carried")
        ] == [("facets (not shown)", 300)]


def test_old_facets_are_found_on_a_server_without_the_aggregate(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        hidden(w)
        w.source.insert(LOGS, w.project, spans("a", 1, facets={"Task": "refund"}))
        w.source.insert(LOGS, w.project, [{"id": str(number)} for number in range(1005)])
        TraceQueries(w, refused="count(1)")
        assert w.move(LOGS) == 0
        assert facets(w.dest, LOGS, w.twin(LOGS, w.project)) == {"a 0": {"Task": "refund"}}


def test_facets_arrive_although_the_aggregate_names_no_object_that_was_asked_for(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        hidden(w)
        w.source.insert(LOGS, w.project, spans("a", 3, facets={"Task": "refund"}))
        others = w.sandbox.intercept

        def nameless(request: Incoming) -> Optional[Answer]:
            body = request.body if request.path == "/btql" else b""
            if b"measures" in body and b"facets is not null" in body:
                return Answer(200, b'{"data": [{"project_id": null, "rows": 1}]}')
            return others(request) if others else None

        w.sandbox.intercept = nameless
        assert w.move(LOGS) == 0
        assert facets(w.dest, LOGS, w.twin(LOGS, w.project)) == {"a 0": {"Task": "refund"}}


def test_facets_arrive_from_a_server_that_answers_small_queries_only(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        hidden(w)
        w.sandbox.faults.add(Fault("status", path="/btql", times=None, status=504, above_limit=25))
        for trace in "abc":
            w.source.insert(LOGS, w.project, spans(trace, 20, facets={"Task": trace}))
        assert w.move(LOGS) == 0
        arrived = facets(w.dest, LOGS, w.twin(LOGS, w.project))
        assert arrived == {f"{trace} 0": {"Task": trace} for trace in "abc"}


@pytest.mark.parametrize(("refused", "queries"), [("nothing", 2), (") traces", 5)])
def test_facets_that_spans_show_cost_only_the_queries_that_find_that_out(
    refused: str, queries: int, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        w.sandbox.store.behaviour.spans_show_facets = True
        w.source.insert(LOGS, w.project, spans("a", 8, facets={"Task": "refund"}))
        asked = TraceQueries(w, refused=refused)
        assert w.move(LOGS, "--fetch-limit", "2") == 0
        assert facets(w.dest, LOGS, w.twin(LOGS, w.project)) == {"a 0": {"Task": "refund"}}
        assert len(asked.texts) == queries


def test_facets_are_compared_if_only_the_destination_hides_them_in_spans(tmp_path: Path) -> None:
    """It is another data plane."""
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, spans("a", 8, facets={"Task": "refund"}))
        w.sandbox.store.behaviour.spans_show_facets = True
        _hide_in_dest(w)
        assert call(w, "migrate_all", "--full") == 0
        assert call(w, "migrate_all", "--full", "--new-run") == 0
        assert "row_differs" not in told(w.root)


@pytest.mark.parametrize("depth", ["--full", "--sample=50"])
@pytest.mark.parametrize("rows", [8, 1200])
@pytest.mark.variants(1)
def test_facets_that_the_destination_shows_later_than_the_rows_are_waited_for(
    depth: str, rows: int, tmp_path: Path
) -> None:
    """The rows of the last page are not recorded one by one, so there are some of both sorts."""
    with world(tmp_path) as w:
        w.sandbox.store.behaviour.spans_show_facets = True
        for start in range(0, rows, 400):
            traces = spans(f"t{start}", min(rows, 400), facets={"Task": "refund"})
            w.source.insert(LOGS, w.project, [{**span, "facets": {"n": "1"}} for span in traces])
        hidden_queries = _hide_in_dest(w, for_s=2.0, shape="")
        assert call(w, "migrate_all", depth, "--fetch-limit", "400") == 0
        assert hidden_queries


def test_facets_that_the_destination_never_shows_are_waited_for_with_a_limit(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        w.sandbox.store.behaviour.spans_show_facets = True
        w.source.insert(LOGS, w.project, spans("a", 8, facets={"Task": "refund"}))
        _hide_in_dest(w, shape="")
        began = time.monotonic()
        assert call(w, "migrate_all", "--full", MIGRATION_VERIFY_WAIT="3") == 1
        assert 2.5 < time.monotonic() - began < 60
        # What somebody changed in the destination is not waited for.
        began = time.monotonic()
        edit = {"id": "a 0", "_is_merge": True, "input": "edited"}
        w.dest.insert(LOGS, w.twin(LOGS, w.project), [edit])
        assert call(w, "verify", "--full", MIGRATION_VERIFY_WAIT="3000") == 1
        assert time.monotonic() - began < 60


def _hide_in_dest(w: World, *, for_s: float = 1e9, shape: str = "spans") -> List[str]:
    """Hide facets in the answers to queries of a shape, until so long after the first such answer.

    Returns the queries whose answers hide some.
    """
    others = w.sandbox.intercept
    queries: List[str] = []
    first_s: List[float] = []

    def see(request: Incoming) -> Optional[Answer]:
        refused = others(request) if others else None
        if not request.headers.get("Authorization", "").endswith(DEST_KEY):
            return refused
        query = json.loads(request.body)["query"] if request.path == "/btql" else ""
        is_over = first_s and time.monotonic() > first_s[0] + for_s
        if not query or shape not in query or is_over:
            return refused
        made = routes.answer(
            w.sandbox.api, request.method, request.path, request.headers, request.body
        )
        found = json.loads(made.body)
        for row in found["data"]:
            if row.get("facets"):
                row["facets"] = None
                queries.append(query)
                first_s.append(time.monotonic())
        return Answer(200, json.dumps(found).encode())

    w.sandbox.intercept = see
    return queries
