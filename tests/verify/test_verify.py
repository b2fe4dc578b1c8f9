"""The comparison as a program: where its result goes, its depths, and changes since the copy."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Callable, List, Tuple

import pytest

from bt_migrate.api.btql import Bounds
from bt_migrate.rows.count import inside
from bt_migrate.sandbox.data import inserts as inserts
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.verify.sample import places, rank
from tests.support.compare_orgs import Translation
from tests.support.kinds import NAME_OF
from tests.support.orgs import AtRequest, Json, Pair, report, run_with, runs
from tests.support.verifying import later, moved, object_id, program, told, verified

# Where the result goes ----------------------------------------------------------------------------


def test_the_result_is_kept_with_the_newest_run_of_the_same_selection_finished_or_not(
    pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    # each once, though a prompt is a function too; and each project's settings are one more
    there = {obj["id"]: obj for kind, obj, _ in Translation(pair).pairs if kind != "user"}
    own = [obj for obj in there.values() if obj.get("org_id", "") is not None]
    objects = len(own) + sum(bool(obj.get("settings")) for obj in own)
    project = object_id(pair.dest, "project", "beta")
    pair.dest.insert("project_logs", project, [{"id": "theirs", "input": "a secret text"}])
    for expected in (1, 0):
        code, out = program("verify", pair, tmp_path / "runs", "--full")
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
                "only_in_dest.jsonl",
                "unreadable.jsonl",
            ],
        )
        assert [json.loads(line)["row"] for line in files["extra.jsonl"].splitlines()] == [
            "theirs"
        ] * expected
        assert json.loads(files["match.json"]) == {"objects": objects, "rows": 480}
        assert (
            "a secret text" not in "".join(files.values()) + out + (only / "run.json").read_text()
        )
        assert f"Details: {only / 'verify'}" in out and report(tmp_path / "runs")["verification"][
            "equal"
        ] is not bool(expected)
        pair.dest.insert("project_logs", project, [{"id": "theirs", "_object_delete": True}])


def test_a_new_run_is_made_where_there_is_none(pair: Pair, tmp_path: Path) -> None:
    code, result = verified(pair, tmp_path / "runs")
    missing = {
        difference["name"]
        for difference in result["differences"]
        if difference["resource"] == "projects"
    }
    assert (code, missing, len(runs(tmp_path / "runs"))) == (1, {"Alpha/α", "beta"}, 1)
    assert pair.sandbox.writes("globex") == []


def test_of_some_projects_only_these_are_compared(pair: Pair, tmp_path: Path) -> None:
    moved(pair, tmp_path / "runs")
    pair.dest.create("project", {"name": "theirs"})
    pair.dest.create("role", {"name": "theirs"})
    alpha = object_id(pair.dest, "project", "Alpha/α")
    pair.dest.create("project_tag", {"project_id": alpha, "name": "theirs"})
    assert verified(pair, tmp_path / "runs", "--projects", "beta")[1]["only_in_dest"] == []
    others = verified(pair, tmp_path / "runs")[1]["only_in_dest"]
    names = {(entry["resource"], entry["name"]) for entry in others}
    assert names == {("projects", "theirs"), ("roles", "theirs"), ("project_tags", "theirs")}


@pytest.mark.usefixtures("data_plane")
@pytest.mark.variants(1)
def test_objects_of_a_deleted_project_are_missing_too(pair: Pair, tmp_path: Path) -> None:
    moved(pair, tmp_path / "runs")
    pair.dest.delete("project", object_id(pair.dest, "project", "beta"))
    code, result = verified(pair, tmp_path / "runs", "--counts")
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
@pytest.mark.variants(1)
def test_an_object_that_exists_twice_is_extra(
    kind: str, name: str, pair: Pair, tmp_path: Path
) -> None:
    """No server should let that be; a comparison that counts on it proves nothing."""
    moved(pair, tmp_path / "runs")
    entries = pair.sandbox.store.entries[kind]
    first = next(obj["id"] for obj in pair.dest.objects(kind) if obj.get("name", "") == name)
    again = copy.deepcopy(entries[first])
    again.data["id"] = "00000000-0000-4000-8000-000000000000"
    entries[again.data["id"]] = again
    code, result = verified(pair, tmp_path / "runs", "--counts")
    found = [
        (difference["outcome"], difference["resource"], difference["id"], difference["detail"])
        for difference in result["differences"]
    ]
    expected = ("extra", NAME_OF[kind], again.data["id"], "there more than once")
    assert (code, found) == (1, [expected])


# Depths -------------------------------------------------------------------------------------------


def test_counts_name_objects_with_another_number_of_rows_or_other_dates(
    pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    dest = pair.dest
    beta, alpha = object_id(dest, "project", "beta"), object_id(dest, "project", "Alpha/α")
    dest.insert("project_logs", beta, [{"id": "0001", "_object_delete": True}])
    dest.insert("project_logs", alpha, [{"id": "0001", "created": "2001-01-01T00:00:00.000Z"}])
    dest.insert("experiment", object_id(dest, "experiment", "middle"), [{"id": "theirs"}])
    questions = object_id(dest, "dataset", "questions")
    with pair.sandbox.store.lock:
        rows = inserts.row_set(pair.sandbox.store, (dest.id,), "dataset", questions)
        rows.rows[3] = rows.rows[4]  # one row twice, another not at all
    code, result = verified(pair, tmp_path / "runs", "--counts")
    assert (code, told(result)) == (
        1,
        {
            ("missing", "row counts of logs", "beta", None, False),
            ("differs", "row counts of logs", "Alpha/α", None, False),
            ("extra", "row counts of experiments", "middle", None, False),
            ("differs", "row counts of datasets", "questions", None, False),
        },
    )


def test_counts_cost_one_query_for_each_group_and_side(pair: Pair, tmp_path: Path) -> None:
    moved(pair, tmp_path / "runs")
    pair.sandbox.clear_requests()
    assert verified(pair, tmp_path / "runs", "--counts")[0] == 0
    assert [
        sum(
            request.path == "/btql" and request.org_name == org for request in pair.sandbox.requests
        )
        for org in ("acme", "globex")
    ] == [3, 3]


MANY = ["--resources", "logs", "--projects", "beta"]


def many_rows(number: Callable[[int], float]) -> List[Json]:
    created = "2025-10-03T00:00:00.000Z"
    return [{"id": f"many {n}", "input": number(n), "created": created} for n in range(6000)]


def move_many(pair: Pair, root: Path) -> None:
    beta = object_id(pair.source, "project", "beta")
    rows = many_rows(int)
    for start in range(0, 6000, 500):
        pair.source.insert("project_logs", beta, rows[start : start + 500])
    moved(pair, root)
    pair.sandbox.clear_requests()


@pytest.mark.recorded  # where spans hide facets, rows are asked for twice
def test_a_sample_of_a_large_object_reads_a_part_of_it(pair: Pair, tmp_path: Path) -> None:
    move_many(pair, tmp_path / "runs")
    code, result = verified(pair, tmp_path / "runs", *MANY, "--sample", "100")
    queries = sum(request.path == "/btql" for request in pair.sandbox.requests)
    compared = result["kinds"]["rows of logs"]["outcomes"]["match"]
    assert (code, 100 <= compared <= 200, queries < 30) == (0, True, True)
    # more than there are pages at the places
    code, result = verified(pair, tmp_path / "runs", *MANY, "--sample", "3000")
    assert (code, 3000 <= result["kinds"]["rows of logs"]["outcomes"]["match"] <= 6001) == (0, True)


@pytest.mark.recorded  # where spans hide facets, rows are asked for twice
def test_a_sample_of_a_large_object_finds_what_is_wrong_everywhere(
    pair: Pair, tmp_path: Path
) -> None:
    move_many(pair, tmp_path / "runs")
    theirs = object_id(pair.dest, "project", "beta")
    pair.dest.insert("project_logs", theirs, many_rows(float))
    sample = [*MANY, "--sample", "100"]
    code, result = verified(pair, tmp_path / "runs", *sample)
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
    # the same rows again
    assert told(verified(pair, tmp_path / "runs", *sample)[1]) == told(result)


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
@pytest.mark.variants(1)
def test_a_server_that_reads_only_the_first_of_several_objects_is_not_believed(
    depth: str, pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    pair.sandbox.only_first_id = True
    assert verified(pair, tmp_path / "runs", depth)[0] == 0
    middle = object_id(pair.dest, "experiment", "middle")
    pair.dest.insert("experiment", middle, [{"id": "e4", "_object_delete": True}])
    code, result = verified(pair, tmp_path / "runs", depth)
    assert (code, {(entry[0], entry[2]) for entry in told(result)}) == (1, {("missing", "middle")})


# Time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", ["--counts", "--sample=50", "--full"])
@pytest.mark.variants(1)
def test_verify_waits_for_rows_that_the_destination_does_not_show_yet(
    depth: str, pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    beta = object_id(pair.dest, "project", "beta").encode()
    hidden = iter(range(3))

    def hide(method: str, path: str, raw: bytes) -> Any:
        """The first queries of this project's rows see none of them."""
        of_rows = path == "/btql" and beta in raw and b") traces" not in raw
        hit = of_rows and next(hidden, None) is not None
        return Answer(200, b'{"data":[],"cursor":null}') if hit else None

    pair.sandbox.refuse = hide
    code, result = verified(pair, tmp_path / "runs", depth, MIGRATION_VERIFY_WAIT="30")
    assert (code, told(result), next(hidden, None)) == (0, set(), None)


@pytest.mark.parametrize("root", ["runs", "fresh"])
@pytest.mark.variants(1)
def test_changes_since_the_copy_are_separated_from_losses_of_the_copy(
    root: str, pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs", MIGRATION_EVENTS_FETCH_LIMIT="20")
    ours, theirs = (
        object_id(pair.source, "project", "beta"),
        object_id(pair.dest, "project", "beta"),
    )
    pair.dest.insert("project_logs", theirs, [{"id": "0002", "_object_delete": True}])
    row = next(row for row in pair.source.rows("project_logs", ours) if row["id"] == "0001")
    pair.source.insert("project_logs", ours, [{"id": "0003", "_object_delete": True}], at=later())
    pair.source.insert(
        "project_logs",
        ours,
        [{"id": "0001", "created": row["created"], "input": "edited"}, {"id": "new"}],
        at=later(),
    )
    code, result = verified(pair, tmp_path / root, "--full")
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
    pair: Pair, tmp_path: Path
) -> None:
    moved(pair, tmp_path / "runs")
    pair.source.insert(
        "project_logs", object_id(pair.source, "project", "beta"), [{"id": "new"}], at=later()
    )
    for root in ("runs", "fresh"):
        assert told(verified(pair, tmp_path / root, "--counts")[1]) == {
            ("missing", "row counts of logs", "beta", None, True)
        }


def test_a_source_that_grows_while_it_is_moved_does_not_make_the_move_a_failure(
    pair: Pair, tmp_path: Path
) -> None:
    beta = object_id(pair.source, "project", "beta")
    grow = AtRequest(
        1,
        "after",
        lambda: pair.source.insert("project_logs", beta, [{"id": "new"}], at=later()),
        lambda method, path: path == "/v1/acl",
    )
    whole = run_with(pair, tmp_path / "runs", grow, "--verify", "--full", MIGRATION_VERIFY_WAIT="0")
    result = report(tmp_path / "runs")["verification"]
    assert (whole.code, result["equal"], result["arrived"], told(result)) == (
        0, False, True, {("missing", "rows of logs", "beta", "new", True)},
    )  # fmt: skip
    assert verified(pair, tmp_path / "runs", "--full")[0] == 1
