"""What verify tolerates, what it cannot read, and what stops it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from bt_migrate.sandbox.data import inserts as inserts
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.faults import Fault
from tests.support.orgs import AtRequest, Pair, ended, run, started
from tests.support.verifying import Json, moved, object_id, told, verified

# What is tolerated --------------------------------------------------------------------------------


# fields of a row that are written again when a test replaces it
KEPT_FIELDS = (
    "id", "created", "input", "tags", "metrics", "span_attributes", "span_id", "root_span_id",
    "span_parents",
)  # fmt: skip


def test_public_experiments_are_private_unless_they_are_to_stay_public(
    pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    assert [obj["public"] for obj in pair.dest.objects("experiment")] == [False] * 3
    code, result = verified(pair, tmp_path / "runs", "--resources", "experiments")
    assert (code, result["tolerated"]["made_private"], result["security"]) == (0, 1, [])
    code, result = verified(pair, tmp_path / "runs", "--resources", "experiments", "--keep-public")
    assert (code, [difference["fields"] for difference in result["differences"]]) == (
        1,
        [["public"]],
    )


def test_public_experiments_stay_public_on_request(pair: Pair, tmp_path: Path) -> None:
    moved(pair, tmp_path / "runs", "--keep-public")
    assert {obj["name"]: obj["public"] for obj in pair.dest.objects("experiment")} == {
        "first": True,
        "middle": False,
        "last": False,
    }
    for flag in ([], ["--keep-public"]):
        code, result = verified(pair, tmp_path / "runs", "--resources", "experiments", *flag)
        assert (code, "made_private" in result["tolerated"]) == (0, False)


def test_a_whole_number_of_a_function_may_lose_its_fraction(pair: Pair, tmp_path: Path) -> None:
    pair.sandbox.behaviour.whole_numbers_in_functions = False  # as an older source
    choices = {"parser": {"type": "llm_classifier", "choice_scores": {"A": 1.0, "B": 0.5}}}
    kind = {"function_data": {"type": "prompt"}, "function_type": "scorer"}
    beta = object_id(pair.source, "project", "beta")
    scorer = {"project_id": beta, "name": "s", "slug": "s", "prompt_data": choices, **kind}
    pair.source.create("function", scorer)
    pair.sandbox.behaviour.whole_numbers_in_functions = True
    for _ in range(2):
        moved(pair, tmp_path / "runs")
    code, result = verified(pair, tmp_path / "runs", "--resources", "functions")
    assert (code, result["tolerated"]["whole_number"]) == (0, 1)


def test_a_row_above_the_size_limit_equals_its_attachments(pair: Pair, tmp_path: Path) -> None:
    beta = object_id(pair.source, "project", "beta")
    pair.source.insert(
        "project_logs", beta, [{"id": "large", "input": ["x" * 5000, 1.0], "output": {"n": 2**70}}]
    )
    moved(pair, tmp_path / "runs", MIGRATION_MAX_ROW_BYTES="4000")
    code, result = verified(pair, tmp_path / "runs", "--full")
    assert (code, result["tolerated"]["oversize"]) == (0, 1)
    there = next(
        row
        for row in pair.dest.rows("project_logs", object_id(pair.dest, "project", "beta"))
        if row["id"] == "large"
    )
    pair.sandbox.files.blobs[(pair.dest.id, there["input"]["key"])] = json.dumps(
        ["x" * 5000, 1]
    ).encode()
    code, result = verified(pair, tmp_path / "runs", "--full")
    assert (code, [difference["fields"] for difference in result["differences"]]) == (
        1,
        [["input[1]"]],
    )


def test_an_added_origin_inline_base64_and_comments_that_are_not_shown_are_tolerated_and_counted(
    pair: Pair, tmp_path: Path
) -> None:
    ours = object_id(pair.source, "project", "beta")
    content = {"type": "image_url", "image_url": {"url": "data:image/png;base64,YWJj"}}
    pair.source.insert(
        "project_logs",
        ours,
        [{"id": "picture", "input": [content], "created": "2025-10-02T00:00:00.000Z"}],
    )
    pair.source.comment("project_logs", ours, "0006", "good")
    moved(pair, tmp_path / "runs")
    theirs = object_id(pair.dest, "project", "beta")
    there = {row["id"]: row for row in pair.dest.rows("project_logs", theirs)}
    reference = pair.dest.attach(b"abc", "image.png", "image/png")
    kept = {
        row_id: {
            name: there[row_id][name] for name in KEPT_FIELDS if there[row_id].get(name) is not None
        }
        for row_id in ("picture", "0005", "0006")
    }
    kept["picture"]["input"] = [{"type": "image_url", "image_url": {"url": reference}}]
    kept["0005"]["origin"] = {"object_type": "project_logs", "object_id": theirs, "id": "0005"}
    with pair.sandbox.store.lock:
        rows = inserts.row_set(pair.sandbox.store, (pair.dest.id,), "project_logs", theirs)
        rows.comments.clear()
        rows.nullable = tuple(
            name for name in rows.nullable if name != "comments"
        )  # as an older server
    pair.dest.insert("project_logs", theirs, list(kept.values()))
    code, result = verified(pair, tmp_path / "runs", "--full", "--resources", "logs")
    counted = {
        name: result["tolerated"].get(name) for name in ("origin", "inline", "comments_unreadable")
    }
    assert (told(result), code, counted) == (
        set(),
        0,
        {"origin": 1, "inline": 1, "comments_unreadable": 1},
    )


def test_a_lost_comment_is_found_where_a_row_without_comments_has_no_such_field(
    pair: Pair, tmp_path: Path
) -> None:
    ours = object_id(pair.source, "project", "beta")
    for row in ("0006", "0007"):
        pair.source.comment("project_logs", ours, row, "good")
    moved(pair, tmp_path / "runs")
    theirs = object_id(pair.dest, "project", "beta")
    row = next(row for row in pair.dest.rows("project_logs", theirs) if row["id"] == "0006")
    with pair.sandbox.store.lock:
        rows = inserts.row_set(pair.sandbox.store, (pair.dest.id,), "project_logs", theirs)
        del rows.comments["0006"]
        rows.nullable = tuple(name for name in rows.nullable if name != "comments")
    pair.dest.insert(
        "project_logs",
        theirs,
        [{name: row[name] for name in KEPT_FIELDS if row.get(name) is not None}],
    )
    code, result = verified(pair, tmp_path / "runs", "--full", "--resources", "logs")
    found = [(difference["row"], difference["fields"]) for difference in result["differences"]]
    assert (code, found) == (1, [("0006", ["comments"])])


# What cannot be read ------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", ["--counts", "--full"])
@pytest.mark.variants(1)
def test_what_cannot_be_read_is_reported_and_the_rest_is_compared(
    depth: str, pair: Pair, tmp_path: Path
) -> None:
    pair.source.create("dataset_snapshot", snapshot_of(pair.source))
    moved(pair, tmp_path / "runs")
    middle = object_id(pair.dest, "experiment", "middle").encode()
    refusal = Answer(403, b'{"Message":"no"}', "application/json")
    pair.sandbox.refuse = lambda method, path, raw: (
        refusal if path == "/btql" and middle in raw else None
    )
    pair.sandbox.faults.add(
        Fault(
            "status",
            "globex",
            "GET",
            path="^/v1/(project_tag|dataset_snapshot)",
            times=None,
            status=403,
            body={"Message": "no"},
        )
    )
    code, result = verified(pair, tmp_path / "runs", depth)
    kinds = [
        (difference["outcome"], difference["resource"], difference["name"])
        for difference in result["differences"]
    ]
    what = "row counts of experiments" if depth == "--counts" else "rows of experiments"
    assert (code, sorted(kinds)) == (
        1,
        [
            *[("unreadable", "dataset_snapshots", "dataset_snapshots")] * 2,
            *[("unreadable", "project_tags", "project_tags")] * 2,
            ("unreadable", what, "middle"),
        ],
    )


def snapshot_of(org: Any) -> Json:
    dataset = org.objects("dataset")[0]["id"]
    version = max(row["_xact_id"] for row in org.rows("dataset", dataset))
    return {"dataset_id": dataset, "name": "kept", "xact_id": version}


def test_a_server_that_fails_stops_the_comparison_which_is_no_result(
    pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    pair.sandbox.faults.add(
        Fault("status", "globex", "POST", path="^/btql", times=None, status=500, body="no")
    )
    end = run(
        pair.sandbox,
        tmp_path / "runs",
        "--full",
        "--json",
        program="verify",
        MIGRATION_RETRY_ATTEMPTS="1",
    )
    last = json.loads(end.err.splitlines()[-1])
    assert (end.code, end.out, last["event"], last["exit_code"]) == (3, "", "ended", 3), (
        end.last_words
    )


def test_rows_that_take_too_long_together_are_looked_up_in_parts(
    pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    beta = object_id(pair.dest, "project", "beta")
    pair.dest.insert(
        "project_logs",
        beta,
        [{"id": f"{number:04}", "_object_delete": True} for number in range(20)],
    )
    slow = Answer(504, b'{"Message":"timeout"}', "application/json")
    pair.sandbox.refuse = lambda method, path, raw: (
        slow if path == "/btql" and b"id in [" in raw and raw.count(b", '") > 3 else None
    )
    code, result = verified(pair, tmp_path / "runs", "--full", MIGRATION_RETRY_ATTEMPTS="0")
    assert (code, {entry[3] for entry in told(result)}) == (
        1,
        {f"{number:04}" for number in range(20)},
    )


def test_rows_are_looked_up_on_a_server_without_the_in_operator(pair: Pair, tmp_path: Path) -> None:
    moved(pair, tmp_path / "runs")
    beta = object_id(pair.dest, "project", "beta")
    pair.dest.insert("project_logs", beta, [{"id": "0003", "_object_delete": True}])
    unknown = Answer(400, b"unexpected '['", "text/plain")
    pair.sandbox.refuse = lambda method, path, raw: (
        unknown if path == "/btql" and b" in [" in raw else None
    )
    code, result = verified(pair, tmp_path / "runs", "--full")
    assert (code, {(entry[0], entry[3]) for entry in told(result)}) == (1, {("missing", "0003")})


def test_dates_at_the_ends_of_the_calendar_are_compared_too(pair: Pair, tmp_path: Path) -> None:
    beta = object_id(pair.source, "project", "beta")
    dates = {"first": "0001-01-01T00:00:00.000Z", "last": "9999-12-31T23:59:59.000Z"}
    pair.source.insert(
        "project_logs",
        beta,
        [{"id": row_id, "created": created, "input": 1} for row_id, created in dates.items()],
    )
    moved(pair, tmp_path / "runs")
    assert verified(pair, tmp_path / "runs", "--full")[0] == 0
    theirs = object_id(pair.dest, "project", "beta")
    pair.dest.insert(
        "project_logs",
        theirs,
        [{"id": row_id, "created": created, "input": 2} for row_id, created in dates.items()],
    )
    code, result = verified(pair, tmp_path / "runs", "--full")
    assert (
        code,
        {(difference["row"], *difference["fields"]) for difference in result["differences"]},
    ) == (
        1,
        {("first", "input"), ("last", "input")},
    )


def test_an_interrupted_comparison_ends_at_once_and_is_no_result(
    pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")

    def interrupt() -> None:
        process.send_signal(signal.SIGINT)
        pair.sandbox.latency = {"btql": 1.0}  # time enough to hear of it before the next pages

    asked = AtRequest(12, "before", interrupt, lambda method, path: path == "/btql")
    few = {"MIGRATION_EVENTS_FETCH_LIMIT": "3", "MIGRATION_VERIFY_WAIT": "0"}
    pair.sandbox.clear_requests()
    with started(
        pair.sandbox, tmp_path / "runs", "--full", "--json", program="verify", **few
    ) as process:
        pair.sandbox.on_request = asked
        end = ended(process)
    queries = sum(request.path == "/btql" for request in pair.sandbox.requests)
    assert (end.code, end.out, queries < 100) == (130, "", True), (
        end.last_words
    )  # all of it takes more than 300
    pair.sandbox.on_request, pair.sandbox.latency = None, {}
    assert verified(pair, tmp_path / "runs", "--full")[0] == 0


def test_projects_under_other_names_are_compared_by_these(pair: Pair, tmp_path: Path) -> None:
    names = ["--rename-projects", "beta=gamma"]
    moved(pair, tmp_path / "runs", *names)
    assert verified(pair, tmp_path / "runs", "--full", *names)[0] == 0
    gamma = object_id(pair.dest, "project", "gamma")
    pair.dest.insert("project_logs", gamma, [{"id": "0001", "_object_delete": True}])
    assert told(verified(pair, tmp_path / "runs", "--full", *names)[1]) == {
        ("missing", "rows of logs", "gamma", "0001", False)
    }
