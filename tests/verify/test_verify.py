"""The comparison as a program: depths, lag, changes since the copy, what is tolerated, what cannot
be read, where the result goes.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import signal
import time
from pathlib import Path
from typing import Any, Dict, Iterator, Set, Tuple

import pytest

from bt_migrate.api.btql import Bounds
from bt_migrate.rows.count import inside
from bt_migrate.sandbox.data import inserts as inserts
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.faults import Fault
from bt_migrate.verify.sample import places, rank
from tests.support.orgs import (
    AtRequest,
    Pair,
    ended,
    environment,
    report,
    run,
    run_with,
    runs,
    started,
    tiny_pair,
)

Json = Dict[str, Any]


@pytest.fixture
def tiny() -> Iterator[Pair]:
    with tiny_pair() as pair:
        yield pair


def program(name: str, pair: Pair, root: Path, *args: str, **settings: str) -> Tuple[int, str]:
    """Run a program in this process: its exit code and what it printed."""
    root.parent.mkdir(parents=True, exist_ok=True)
    values = environment(pair.sandbox, LOG_LEVEL="ERROR", MIGRATION_VERIFY_WAIT="0")
    values.update(settings)
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.chdir(root.parent)
        for key, value in values.items():
            patch.setenv(key, value)
        code = importlib.import_module(f"bt_migrate.phases.{name}").main(
            ["--state-dir", str(root), *args]
        )
    return int(code), out.getvalue()


def moved(pair: Pair, root: Path, *args: str, **settings: str) -> None:
    assert program("migrate_all", pair, root, "--no-verify", *args, **settings)[0] == 0


def verified(pair: Pair, root: Path, *args: str, **settings: str) -> Tuple[int, Json]:
    code, out = program("verify", pair, root, *args, "--json", **settings)
    return code, json.loads(out)


def told(result: Json) -> Set[Tuple[Any, ...]]:
    return {
        (
            difference["outcome"],
            difference["resource"],
            difference["name"],
            difference.get("row"),
            difference.get("changed_since_copy", False),
        )
        for difference in result["differences"]
    }


def object_id(org: Any, kind: str, name: str) -> str:
    return str(next(obj["id"] for obj in org.objects(kind) if obj["name"] == name))


def later() -> int:
    """A moment after everything that was done so far, whatever the second."""
    return int(time.time()) + 60


# Where the result goes ----------------------------------------------------------------------------


def test_the_result_is_kept_with_the_newest_run_of_the_same_selection_finished_or_not(
    tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs")
    project = object_id(tiny.dest, "project", "beta")
    tiny.dest.insert("project_logs", project, [{"id": "theirs", "input": "a secret text"}])
    for expected in (1, 0):
        code, out = program("verify", tiny, tmp_path / "runs", "--full")
        (only,) = runs(tmp_path / "runs")
        files = {path.name: path.read_text() for path in (only / "verify").iterdir()}
        assert (code, sorted(files)) == (
            expected,
            [
                "accepted.jsonl",
                "differs.jsonl",
                "extra.jsonl",
                "match.json",
                "missing.jsonl",
                "unreadable.jsonl",
            ],
        )
        assert [json.loads(line)["row"] for line in files["extra.jsonl"].splitlines()] == [
            "theirs"
        ] * expected
        assert json.loads(files["match.json"]) == {"objects": 36, "rows": 480}
        assert (
            "a secret text" not in "".join(files.values()) + out + (only / "run.json").read_text()
        )
        assert f"Details: {only / 'verify'}" in out and report(tmp_path / "runs")["verification"][
            "equal"
        ] is not bool(expected)
        tiny.dest.insert("project_logs", project, [{"id": "theirs", "_object_delete": True}])


def test_a_dry_run_is_refused_and_a_new_run_is_made_where_there_is_none(
    tiny: Pair, tmp_path: Path
) -> None:
    refused = run(tiny.sandbox, tmp_path / "runs", "--dry-run", program="verify")
    assert (refused.code, runs(tmp_path / "runs"), len(refused.err.splitlines())) == (2, [], 1)
    code, result = verified(tiny, tmp_path / "runs")
    missing = {
        difference["name"]
        for difference in result["differences"]
        if difference["resource"] == "projects"
    }
    assert (code, missing, len(runs(tmp_path / "runs"))) == (1, {"Alpha/α", "beta"}, 1)
    assert tiny.sandbox.writes("globex") == []


def test_of_some_projects_only_these_are_compared(tiny: Pair, tmp_path: Path) -> None:
    moved(tiny, tmp_path / "runs")
    tiny.dest.create("project", {"name": "theirs"})
    tiny.dest.create("role", {"name": "theirs"})
    alpha = object_id(tiny.dest, "project", "Alpha/α")
    tiny.dest.create("project_tag", {"project_id": alpha, "name": "theirs"})
    assert told(verified(tiny, tmp_path / "runs", "--projects", "beta")[1]) == set()
    names = {(entry[1], entry[2]) for entry in told(verified(tiny, tmp_path / "runs")[1])}
    assert names == {("projects", "theirs"), ("roles", "theirs"), ("project_tags", "theirs")}


@pytest.mark.usefixtures("data_plane")
def test_objects_of_a_deleted_project_are_missing_too(tiny: Pair, tmp_path: Path) -> None:
    moved(tiny, tmp_path / "runs")
    tiny.dest.delete("project", object_id(tiny.dest, "project", "beta"))
    code, result = verified(tiny, tmp_path / "runs", "--counts")
    missing = {
        (difference["resource"], difference["name"])
        for difference in result["differences"]
        if difference["outcome"] == "missing" and difference["project"] == "beta"
    }
    assert (code, missing) == (
        1,
        {
            ("datasets", "answers"),
            ("mcp_servers", "mcp"),
            ("agents", "agent"),
            ("functions", "Made-From"),
            ("prompts", "Ask"),
            ("experiments", "last"),
            ("project_automations", "Alert"),
            ("views", "on project_log"),
        },
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("dataset", "questions"),
        ("project_tag", "red"),
        ("view", "mine"),
        ("group", "people"),
        ("acl", ""),
    ],
)
def test_an_object_that_exists_twice_is_extra(
    kind: str, name: str, tiny: Pair, tmp_path: Path
) -> None:
    """No server should let that be; a comparison that counts on it proves nothing."""
    moved(tiny, tmp_path / "runs")
    entries = tiny.sandbox.store.entries[kind]
    first = next(obj["id"] for obj in tiny.dest.objects(kind) if obj.get("name", "") == name)
    again = copy.deepcopy(entries[first])
    again.data["id"] = "00000000-0000-4000-8000-000000000000"
    entries[again.data["id"]] = again
    code, result = verified(tiny, tmp_path / "runs", "--counts")
    found = [
        (difference["outcome"], difference["resource"], difference["id"], difference["detail"])
        for difference in result["differences"]
    ]
    assert (code, found) == (1, [("extra", f"{kind}s", again.data["id"], "there more than once")])


# Depths -------------------------------------------------------------------------------------------


def test_counts_name_the_object_whose_rows_are_not_as_many_or_of_other_dates(
    tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs")
    dest = tiny.dest
    beta, alpha = object_id(dest, "project", "beta"), object_id(dest, "project", "Alpha/α")
    dest.insert("project_logs", beta, [{"id": "0001", "_object_delete": True}])
    dest.insert("project_logs", alpha, [{"id": "0001", "created": "2001-01-01T00:00:00.000Z"}])
    dest.insert("experiment", object_id(dest, "experiment", "middle"), [{"id": "theirs"}])
    questions = object_id(dest, "dataset", "questions")
    with tiny.sandbox.store.lock:
        rows = inserts.row_set(tiny.sandbox.store, (dest.id,), "dataset", questions)
        rows.rows[3] = rows.rows[4]  # one row twice, another not at all
    code, result = verified(tiny, tmp_path / "runs", "--counts")
    assert (code, told(result)) == (
        1,
        {
            ("missing", "row counts of logs", "beta", None, False),
            ("differs", "row counts of logs", "Alpha/α", None, False),
            ("extra", "row counts of experiments", "middle", None, False),
            ("differs", "row counts of datasets", "questions", None, False),
        },
    )


def test_counts_cost_one_query_for_each_group_and_side(tiny: Pair, tmp_path: Path) -> None:
    moved(tiny, tmp_path / "runs")
    tiny.sandbox.clear_requests()
    assert verified(tiny, tmp_path / "runs", "--counts")[0] == 0
    assert [
        sum(
            request.path == "/btql" and request.org_name == org for request in tiny.sandbox.requests
        )
        for org in ("acme", "globex")
    ] == [3, 3]


@pytest.mark.recorded  # where spans hide facets, rows are asked for twice
def test_a_sample_of_a_large_object_reads_a_part_of_it_and_finds_what_is_wrong_everywhere(
    tiny: Pair, tmp_path: Path
) -> None:
    beta = object_id(tiny.source, "project", "beta")
    for start in range(0, 6000, 500):
        rows = [
            {"id": f"many {n}", "input": n, "created": "2025-10-03T00:00:00.000Z"}
            for n in range(start, start + 500)
        ]
        tiny.source.insert("project_logs", beta, rows)
    moved(tiny, tmp_path / "runs")
    tiny.sandbox.clear_requests()
    sample = ["--resources", "logs", "--projects", "beta", "--sample", "100"]
    code, result = verified(tiny, tmp_path / "runs", *sample)
    queries = sum(request.path == "/btql" for request in tiny.sandbox.requests)
    compared = result["kinds"]["rows of logs"]["outcomes"]["match"]
    assert (code, 100 <= compared <= 200, queries < 30) == (0, True, True)
    code, result = verified(
        tiny, tmp_path / "runs", *sample[:-1], "3000"
    )  # more than there are pages at the places
    assert (code, 3000 <= result["kinds"]["rows of logs"]["outcomes"]["match"] <= 6001) == (0, True)
    theirs = object_id(tiny.dest, "project", "beta")
    tiny.dest.insert(
        "project_logs",
        theirs,
        [
            {"id": f"many {n}", "input": n + 0.0, "created": "2025-10-03T00:00:00.000Z"}
            for n in range(6000)
        ],
    )
    code, result = verified(tiny, tmp_path / "runs", *sample)
    wrong = [
        difference
        for difference in result["differences"]
        if difference["resource"] == "rows of logs"
    ]
    assert (code, len(wrong) >= 100, {tuple(difference["fields"]) for difference in wrong}) == (
        1,
        True,
        {("input",)},
    )
    assert told(verified(tiny, tmp_path / "runs", *sample)[1]) == told(
        result
    )  # the same rows again


@pytest.mark.parametrize(
    ("window", "days", "expected"),
    [
        (
            (None, None),
            ("2026-01-15", "2026-01-15"),
            ("2026-01-15T00:00:00Z", "2026-01-16T00:00:00Z"),
        ),
        (
            (None, None),
            ("2026-01-15", "2026-02-28"),
            ("2026-01-15T00:00:00Z", "2026-03-01T00:00:00Z"),
        ),
        (
            ("2026-01-15T06:00:00Z", "2026-01-16T06:00:00Z"),
            ("2026-01-15", "2026-01-16"),
            ("2026-01-15T06:00:00Z", "2026-01-16T06:00:00Z"),
        ),
        (
            ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("2026-01-15", "2026-01-16"),
            ("2026-01-15T00:00:00Z", "2026-01-17T00:00:00Z"),
        ),
        ((None, None), ("9999-12-30", "9999-12-31"), ("9999-12-30T00:00:00Z", None)),
    ],
)
def test_days_are_compared_inside_the_window(
    window: Tuple[Any, Any], days: Tuple[str, str], expected: Tuple[Any, Any]
) -> None:
    found = inside(Bounds(*window), *days)
    assert (found.created_after, found.created_before) == expected


def test_places_of_a_sample_lie_inside_the_keys_and_are_the_same_each_time() -> None:
    first, last = "p00000000000000001000", "p00000000000000005000"
    assert places(first, last, 4, 0.0) == [
        f"p{1000 + step - 1:020}" for step in (0, 1000, 2000, 3000)
    ]
    assert places(first, last, 4, 0.5) == [
        f"p{1500 + step - 1:020}" for step in (0, 1000, 2000, 3000)
    ]
    assert places(first, first, 2, 0.9) == ["p00000000000000000999"] * 2
    assert [rank("a"), rank("\ud83d")] == [rank("a"), rank("\ud83d")] and rank("a") != rank("b")


@pytest.mark.parametrize("depth", ["--counts", "--full"])
def test_a_server_that_reads_only_the_first_of_several_objects_is_not_believed(
    depth: str, tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs")
    tiny.sandbox.only_first_id = True
    assert verified(tiny, tmp_path / "runs", depth)[0] == 0
    middle = object_id(tiny.dest, "experiment", "middle")
    tiny.dest.insert("experiment", middle, [{"id": "e4", "_object_delete": True}])
    code, result = verified(tiny, tmp_path / "runs", depth)
    assert (code, {(entry[0], entry[2]) for entry in told(result)}) == (1, {("missing", "middle")})


# Time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", ["--counts", "--sample=50", "--full"])
def test_verify_waits_for_rows_that_the_destination_does_not_show_yet(
    depth: str, tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs")
    beta = object_id(tiny.dest, "project", "beta").encode()
    hidden = iter(range(3))

    def hide(method: str, path: str, raw: bytes) -> Any:
        """The first queries of this project's rows see none of them."""
        hit = path == "/btql" and beta in raw and next(hidden, None) is not None
        return Answer(200, b'{"data":[],"cursor":null}') if hit else None

    tiny.sandbox.refuse = hide
    code, result = verified(tiny, tmp_path / "runs", depth, MIGRATION_VERIFY_WAIT="30")
    assert (code, told(result), next(hidden, None)) == (0, set(), None)


@pytest.mark.parametrize("root", ["runs", "fresh"])
def test_changes_since_the_copy_are_separated_from_losses_of_the_copy(
    root: str, tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs", MIGRATION_EVENTS_FETCH_LIMIT="20")
    ours, theirs = (
        object_id(tiny.source, "project", "beta"),
        object_id(tiny.dest, "project", "beta"),
    )
    tiny.dest.insert("project_logs", theirs, [{"id": "0002", "_object_delete": True}])
    row = next(row for row in tiny.source.rows("project_logs", ours) if row["id"] == "0001")
    tiny.source.insert("project_logs", ours, [{"id": "0003", "_object_delete": True}], at=later())
    tiny.source.insert(
        "project_logs",
        ours,
        [{"id": "0001", "created": row["created"], "input": "edited"}, {"id": "new"}],
        at=later(),
    )
    code, result = verified(tiny, tmp_path / root, "--full")
    assert (code, told(result), result["changed_since_copy"]) == (
        1,
        {
            ("missing", "rows of logs", "beta", "0002", False),
            ("differs", "rows of logs", "beta", "0001", True),
            ("missing", "rows of logs", "beta", "new", True),
            ("extra", "rows of logs", "beta", "0003", root == "runs"),
        },
        3 if root == "runs" else 2,
    )


def test_a_count_explained_by_growth_of_the_source_is_reported_so(
    tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs")
    tiny.source.insert(
        "project_logs", object_id(tiny.source, "project", "beta"), [{"id": "new"}], at=later()
    )
    for root in ("runs", "fresh"):
        assert told(verified(tiny, tmp_path / root, "--counts")[1]) == {
            ("missing", "row counts of logs", "beta", None, True)
        }


def test_a_source_that_grows_while_it_is_moved_does_not_make_the_move_a_failure(
    tiny: Pair, tmp_path: Path
) -> None:
    beta = object_id(tiny.source, "project", "beta")
    grow = AtRequest(
        1,
        "after",
        lambda: tiny.source.insert("project_logs", beta, [{"id": "new"}], at=later()),
        lambda method, path: path == "/v1/acl",
    )
    whole = run_with(tiny, tmp_path / "runs", grow, "--verify", "--full", MIGRATION_VERIFY_WAIT="0")
    result = report(tmp_path / "runs")["verification"]
    assert (whole.code, result["equal"], result["arrived"], told(result)) == (
        0, False, True, {("missing", "rows of logs", "beta", "new", True)},
    )  # fmt: skip
    assert verified(tiny, tmp_path / "runs", "--full")[0] == 1


# What is tolerated --------------------------------------------------------------------------------


def test_public_experiments_are_private_unless_they_are_to_stay_public(
    tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs")
    assert [obj["public"] for obj in tiny.dest.objects("experiment")] == [False] * 3
    code, result = verified(tiny, tmp_path / "runs", "--resources", "experiments")
    assert (code, result["tolerated"]["made_private"], result["security"]) == (0, 1, [])
    code, result = verified(tiny, tmp_path / "runs", "--resources", "experiments", "--keep-public")
    assert (code, [difference["fields"] for difference in result["differences"]]) == (
        1,
        [["public"]],
    )


def test_public_experiments_stay_public_on_request(tiny: Pair, tmp_path: Path) -> None:
    moved(tiny, tmp_path / "runs", "--keep-public")
    assert {obj["name"]: obj["public"] for obj in tiny.dest.objects("experiment")} == {
        "first": True,
        "middle": False,
        "last": False,
    }
    for flag in ([], ["--keep-public"]):
        code, result = verified(tiny, tmp_path / "runs", "--resources", "experiments", *flag)
        assert (code, "made_private" in result["tolerated"]) == (0, False)


def test_a_row_above_the_size_limit_equals_its_attachments(tiny: Pair, tmp_path: Path) -> None:
    beta = object_id(tiny.source, "project", "beta")
    tiny.source.insert(
        "project_logs", beta, [{"id": "large", "input": ["x" * 5000, 1.0], "output": {"n": 2**70}}]
    )
    moved(tiny, tmp_path / "runs", MIGRATION_MAX_ROW_BYTES="4000")
    code, result = verified(tiny, tmp_path / "runs", "--full")
    assert (code, result["tolerated"]["oversize"]) == (0, 1)
    there = next(
        row
        for row in tiny.dest.rows("project_logs", object_id(tiny.dest, "project", "beta"))
        if row["id"] == "large"
    )
    tiny.sandbox.files.blobs[(tiny.dest.id, there["input"]["key"])] = json.dumps(
        ["x" * 5000, 1]
    ).encode()
    code, result = verified(tiny, tmp_path / "runs", "--full")
    assert (code, [difference["fields"] for difference in result["differences"]]) == (
        1,
        [["input[1]"]],
    )


def test_an_added_origin_inline_base64_and_comments_that_are_not_shown_are_tolerated_and_counted(
    tiny: Pair, tmp_path: Path
) -> None:
    ours = object_id(tiny.source, "project", "beta")
    content = {"type": "image_url", "image_url": {"url": "data:image/png;base64,YWJj"}}
    tiny.source.insert(
        "project_logs",
        ours,
        [{"id": "picture", "input": [content], "created": "2025-10-02T00:00:00.000Z"}],
    )
    tiny.source.comment("project_logs", ours, "0006", "good")
    moved(tiny, tmp_path / "runs")
    theirs = object_id(tiny.dest, "project", "beta")
    there = {row["id"]: row for row in tiny.dest.rows("project_logs", theirs)}
    reference = tiny.dest.attach(b"abc", "image.png", "image/png")
    fields = (
        "id",
        "created",
        "input",
        "tags",
        "metrics",
        "span_attributes",
        "span_id",
        "root_span_id",
        "span_parents",
    )
    kept = {
        row_id: {
            name: there[row_id][name] for name in fields if there[row_id].get(name) is not None
        }
        for row_id in ("picture", "0005", "0006")
    }
    kept["picture"]["input"] = [{"type": "image_url", "image_url": {"url": reference}}]
    kept["0005"]["origin"] = {"object_type": "project_logs", "object_id": theirs, "id": "0005"}
    with tiny.sandbox.store.lock:
        rows = inserts.row_set(tiny.sandbox.store, (tiny.dest.id,), "project_logs", theirs)
        rows.comments.clear()
        rows.nullable = tuple(
            name for name in rows.nullable if name != "comments"
        )  # as an older server
    tiny.dest.insert("project_logs", theirs, list(kept.values()))
    code, result = verified(tiny, tmp_path / "runs", "--full", "--resources", "logs")
    counted = {
        name: result["tolerated"].get(name) for name in ("origin", "inline", "comments_unreadable")
    }
    assert (told(result), code, counted) == (
        set(),
        0,
        {"origin": 1, "inline": 1, "comments_unreadable": 1},
    )


def test_a_lost_comment_is_found_where_a_row_without_comments_has_no_such_field(
    tiny: Pair, tmp_path: Path
) -> None:
    ours = object_id(tiny.source, "project", "beta")
    for row in ("0006", "0007"):
        tiny.source.comment("project_logs", ours, row, "good")
    moved(tiny, tmp_path / "runs")
    theirs = object_id(tiny.dest, "project", "beta")
    row = next(row for row in tiny.dest.rows("project_logs", theirs) if row["id"] == "0006")
    with tiny.sandbox.store.lock:
        rows = inserts.row_set(tiny.sandbox.store, (tiny.dest.id,), "project_logs", theirs)
        del rows.comments["0006"]
        rows.nullable = tuple(name for name in rows.nullable if name != "comments")
    fields = (
        "id",
        "created",
        "input",
        "tags",
        "metrics",
        "span_attributes",
        "span_id",
        "root_span_id",
        "span_parents",
    )
    tiny.dest.insert(
        "project_logs", theirs, [{name: row[name] for name in fields if row.get(name) is not None}]
    )
    code, result = verified(tiny, tmp_path / "runs", "--full", "--resources", "logs")
    found = [(difference["row"], difference["fields"]) for difference in result["differences"]]
    assert (code, found) == (1, [("0006", ["comments"])])


# What cannot be read ------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", ["--counts", "--full"])
def test_what_cannot_be_read_is_reported_and_the_rest_is_compared(
    depth: str, tiny: Pair, tmp_path: Path
) -> None:
    tiny.source.create("dataset_snapshot", snapshot_of(tiny.source))
    moved(tiny, tmp_path / "runs")
    middle = object_id(tiny.dest, "experiment", "middle").encode()
    refusal = Answer(403, b'{"Message":"no"}', "application/json")
    tiny.sandbox.refuse = lambda method, path, raw: (
        refusal if path == "/btql" and middle in raw else None
    )
    tiny.sandbox.faults.add(
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
    code, result = verified(tiny, tmp_path / "runs", depth)
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
    tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs")
    tiny.sandbox.faults.add(
        Fault("status", "globex", "POST", path="^/btql", times=None, status=500, body="no")
    )
    end = run(
        tiny.sandbox,
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
    tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs")
    beta = object_id(tiny.dest, "project", "beta")
    tiny.dest.insert(
        "project_logs",
        beta,
        [{"id": f"{number:04}", "_object_delete": True} for number in range(20)],
    )
    slow = Answer(504, b'{"Message":"timeout"}', "application/json")
    tiny.sandbox.refuse = lambda method, path, raw: (
        slow if path == "/btql" and b"id in [" in raw and raw.count(b", '") > 3 else None
    )
    code, result = verified(tiny, tmp_path / "runs", "--full", MIGRATION_RETRY_ATTEMPTS="0")
    assert (code, {entry[3] for entry in told(result)}) == (
        1,
        {f"{number:04}" for number in range(20)},
    )


def test_rows_are_looked_up_on_a_server_without_the_in_operator(tiny: Pair, tmp_path: Path) -> None:
    moved(tiny, tmp_path / "runs")
    beta = object_id(tiny.dest, "project", "beta")
    tiny.dest.insert("project_logs", beta, [{"id": "0003", "_object_delete": True}])
    unknown = Answer(400, b"unexpected '['", "text/plain")
    tiny.sandbox.refuse = lambda method, path, raw: (
        unknown if path == "/btql" and b" in [" in raw else None
    )
    code, result = verified(tiny, tmp_path / "runs", "--full")
    assert (code, {(entry[0], entry[3]) for entry in told(result)}) == (1, {("missing", "0003")})


def test_dates_at_the_ends_of_the_calendar_are_compared_too(tiny: Pair, tmp_path: Path) -> None:
    beta = object_id(tiny.source, "project", "beta")
    dates = {"first": "0001-01-01T00:00:00.000Z", "last": "9999-12-31T23:59:59.000Z"}
    tiny.source.insert(
        "project_logs",
        beta,
        [{"id": row_id, "created": created, "input": 1} for row_id, created in dates.items()],
    )
    moved(tiny, tmp_path / "runs")
    assert verified(tiny, tmp_path / "runs", "--full")[0] == 0
    theirs = object_id(tiny.dest, "project", "beta")
    tiny.dest.insert(
        "project_logs",
        theirs,
        [{"id": row_id, "created": created, "input": 2} for row_id, created in dates.items()],
    )
    code, result = verified(tiny, tmp_path / "runs", "--full")
    assert (
        code,
        {(difference["row"], *difference["fields"]) for difference in result["differences"]},
    ) == (
        1,
        {("first", "input"), ("last", "input")},
    )


def test_an_interrupted_comparison_ends_at_once_and_is_no_result(
    tiny: Pair, tmp_path: Path
) -> None:
    moved(tiny, tmp_path / "runs")

    def interrupt() -> None:
        process.send_signal(signal.SIGINT)
        tiny.sandbox.latency = {"btql": 1.0}  # time enough to hear of it before the next pages

    asked = AtRequest(12, "before", interrupt, lambda method, path: path == "/btql")
    few = {"MIGRATION_EVENTS_FETCH_LIMIT": "3", "MIGRATION_VERIFY_WAIT": "0"}
    tiny.sandbox.clear_requests()
    with started(
        tiny.sandbox, tmp_path / "runs", "--full", "--json", program="verify", **few
    ) as process:
        tiny.sandbox.on_request = asked
        end = ended(process)
    queries = sum(request.path == "/btql" for request in tiny.sandbox.requests)
    assert (end.code, end.out, queries < 100) == (130, "", True), (
        end.last_words
    )  # all of it takes more than 300
    tiny.sandbox.on_request, tiny.sandbox.latency = None, {}
    assert verified(tiny, tmp_path / "runs", "--full")[0] == 0


def test_projects_under_other_names_are_compared_by_these(tiny: Pair, tmp_path: Path) -> None:
    names = ["--rename-projects", "beta=gamma"]
    moved(tiny, tmp_path / "runs", *names)
    assert verified(tiny, tmp_path / "runs", "--full", *names)[0] == 0
    gamma = object_id(tiny.dest, "project", "gamma")
    tiny.dest.insert("project_logs", gamma, [{"id": "0001", "_object_delete": True}])
    assert told(verified(tiny, tmp_path / "runs", "--full", *names)[1]) == {
        ("missing", "rows of logs", "gamma", "0001", False)
    }
