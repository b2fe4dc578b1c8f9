"""The plan of a dry run equals what the real run does, and says what it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.kinds import NAME_OF
from tests.support.orgs import DATA_PLANE, Json, Pair, example_pair, report, run, runs
from tests.support.planning import planned

ACTION_OF = {
    "created": "create",
    "updated": "update",
    "skipped": "skip",
}  # outcome of a real run -> action of a plan
WRITING = {
    "ai_secret": {"metadata": {"other": 1}},
    "span_iframe": {"url": "https://other.example"},
    "mcp_server": {"url": "https://other.example"},
    "view": {"view_data": {"search": {"filter": ["other"]}}},
}  # kind -> how its content is made another; the rest have a description
KINDS = (
    "view",
    "project",
    "ai_secret",
    "role",
    "group",
    "environment",
    "dataset",
    "project_tag",
    "span_iframe",
    "mcp_server",
    "agent",
    "function",
    "prompt",
    "project_score",
    "experiment",
    "project_automation",
)
Done = Dict[Tuple[str, str, str], Tuple[str, str, str, List[str]]]


def actions(plan: Json) -> Done:
    """(resource, project, id) -> (name, action, reason, fields)."""
    return {
        (record["resource"], record["project"], record["id"]): (
            record["name"],
            record["action"],
            record["reason"],
            record["fields"],
        )
        for record in plan["objects"]
    }


def carried_out(root: Path) -> Done:
    """The same of what the newest run did, from its state files."""
    found: Done = {}
    for path in runs(root)[-1].glob("*/*_state.json"):
        states = json.loads(path.read_text(encoding="utf-8"))
        for source_id, entry in states.get("outcomes", {}).items():
            action = ACTION_OF.get(entry["outcome"], entry["outcome"])
            facts = (entry["name"], action, entry.get("reason", ""), entry.get("fields", []))
            found[(states["resource"], states["project"], source_id)] = facts
    return found


def of_objects(findings: List[Json]) -> List[str]:
    """Findings that are not of rows, which a plan knows from the first ones only."""
    return sorted(
        json.dumps(record, sort_keys=True) for record in findings if "count" not in record
    )


def rows_of(plan: Json) -> Dict[Tuple[str, str], int]:
    return {
        (stream["kind"], record["id"]): record["rows"]
        for stream in plan["streams"]
        for record in stream["objects"]
    }


def told_rows(told: Json) -> Dict[Tuple[str, str], int]:
    return {(record["kind"], record["source_id"]): record["fetched"] for record in told["rows"]}


def assert_equal_to_the_real_run(pair: Pair, plan: Json, root: Path, code: int, *args: str) -> None:
    done = run(pair.sandbox, root, *args)
    told = report(root)
    assert done.code == code, done.last_words
    assert actions(plan) == carried_out(root)
    assert of_objects(plan["losses"] + plan["other_findings"]) == of_objects(told["findings"])
    assert rows_of(plan) == told_rows(told)


# Equal to the real run ----------------------------------------------------------------------------


def test_the_plan_of_the_example_is_what_the_real_run_does(tmp_path: Path) -> None:
    with example_pair() as pair:
        plan = planned(pair, tmp_path)
        assert {record["action"] for record in plan["objects"]} == {"create", "skip"}
        assert_equal_to_the_real_run(pair, plan, tmp_path / "runs", 0)


def make_conflicts(dest: Any) -> None:
    """Change a third of the objects of each kind, and delete another third."""
    settings = next(
        record
        for record in dest.objects("project")
        if (record.get("settings") or {}).get("comparison_key")
    )
    dest.patch(
        "project",
        settings["id"],
        {"settings": {**settings["settings"], "comparison_key": "expected"}},
    )
    names = {record["id"]: record["name"] for record in dest.objects("project")}
    for kind in KINDS:
        own = [record for record in dest.objects(kind) if record.get("org_id", "") is not None]
        for number, record in enumerate(
            sorted(
                own, key=lambda record: (str(names.get(record.get("project_id"))), record["name"])
            )
        ):
            if number % 3 == 0:
                owner = {
                    name: record[name] for name in ("object_type", "object_id") if kind == "view"
                }
                dest.patch(
                    kind,
                    record["id"],
                    {**owner, **WRITING.get(kind, {"description": "described otherwise"})},
                )
            elif number % 3 == 1 and kind != "project":
                dest.delete(kind, record["id"])


def test_the_plan_for_a_destination_with_conflicts_of_every_kind_is_what_the_real_run_does(
    tmp_path: Path,
) -> None:
    """Equal and different objects, deleted targets, half of a cycle, users that are missing."""
    with example_pair() as pair:
        assert run(pair.sandbox, tmp_path / "before").code == 0
        make_conflicts(pair.dest)
        pair.source.delete(
            "experiment",
            next(
                record["id"]
                for record in pair.source.objects("experiment")
                if record["name"] == "baseline"
            ),
        )
        plan = planned(pair, tmp_path, code=1)
        met = {(record["resource"], record["action"]) for record in plan["objects"]}
        differing = {NAME_OF[kind] for kind in KINDS} | {"project_settings"}
        assert {resource for resource, action in met if action == "differs"} == differing
        assert {action for _, action in met} == {"create", "found", "differs", "skip"}
        assert any(record["kind"] == "lost_at_source" for record in plan["losses"])
        assert_equal_to_the_real_run(pair, plan, tmp_path / "runs", 1)


def test_the_plan_of_updates_of_every_kind_is_what_the_real_run_does(tmp_path: Path) -> None:
    """Also where PATCH cannot take away all that the destination has beyond."""
    with example_pair() as pair:
        assert run(pair.sandbox, tmp_path / "before").code == 0
        make_conflicts(pair.dest)
        for kind, name in (("dataset", "Tickets"), ("experiment", "baseline")):
            pair.dest.patch(
                kind,
                next(record["id"] for record in pair.dest.objects(kind) if record["name"] == name),
                {"metadata": {"theirs": 1}},
            )
        plan = planned(pair, tmp_path, "--on-conflict", "update", code=1)
        assert {record["action"] for record in plan["objects"]} == {
            "create",
            "found",
            "update",
            "differs",
            "skip",
        }
        left = {
            record["name"]: (record["reason"], record["fields"])
            for record in plan["objects"]
            if record["action"] == "differs"
        }
        assert left == dict.fromkeys(
            ["Tickets", "baseline"],
            ("updated, but the API cannot take away what these fields hold beyond", ["metadata"]),
        )
        assert_equal_to_the_real_run(pair, plan, tmp_path / "runs", 1, "--on-conflict", "update")


def test_objects_left_incomplete_by_an_earlier_run_are_planned_as_updates(
    pair: Pair, tmp_path: Path
) -> None:
    """A function and a prompt refer to an experiment and an MCP server that are created later."""
    assert run(pair.sandbox, tmp_path / "runs", "--resources", "functions,prompts").code == 1
    plan = planned(pair, tmp_path, "--state-dir", str(tmp_path / "runs"))
    assert {record["name"] for record in plan["objects"] if record["action"] == "update"} == {
        "Made-From",
        "Ask",
    }
    assert_equal_to_the_real_run(pair, plan, tmp_path / "runs", 0)


# Alone, these phases have references to objects that other phases move.
WAITING_PHASES = ("experiments", "definitions", "views", "settings", "acls")


@pytest.mark.parametrize(
    "phase",
    [
        "experiments",
        "definitions",
        *(
            pytest.param(record, marks=pytest.mark.long)
            for record in ("organization", "datasets", "views", "settings", "acls")
        ),
    ],
)
def test_a_phase_alone_plans_what_it_does_alone(phase: str, pair: Pair, tmp_path: Path) -> None:
    """What refers to objects of other phases waits, in the plan too; there it is no failure yet."""
    settings = {"program": f"migrate_{phase}"}
    # References to objects of later phases wait, which is no success yet.
    code = 1 if phase in WAITING_PHASES else 0
    plan = planned(pair, tmp_path, **settings)
    done = run(pair.sandbox, tmp_path / "runs", **settings)
    told = report(tmp_path / "runs")
    assert (done.code, actions(plan), rows_of(plan)) == (
        code,
        carried_out(tmp_path / "runs"),
        told_rows(told),
    )
    foreseen = [
        {**record, "severity": "failure"} if record["kind"] == "waits" else record
        for record in plan["losses"] + plan["other_findings"]
    ]
    assert of_objects(foreseen) == of_objects(told["findings"])


# What it takes ------------------------------------------------------------------------------------


def test_bytes_and_queries_are_near_what_the_copy_needs(pair: Pair, tmp_path: Path) -> None:
    small = {"MIGRATION_EVENTS_FETCH_LIMIT": "25", "program": "migrate_logs"}
    plan = planned(pair, tmp_path, **small)
    pair.sandbox.clear_requests()
    run(pair.sandbox, tmp_path / "runs", **small)
    queries = sum(
        record.org_name == "acme" and record.path == "/btql" for record in pair.sandbox.requests
    )
    size, counted = report(tmp_path / "runs")["totals"]["rows"]["bytes"], plan["estimate"]
    # The last row of a page is read again with the next one, so 300 rows are 13 pages of 25. Where
    # spans hide facets, these cost another query for each page.
    assert (counted["rows"], counted["queries"]) == (300, 26 if DATA_PLANE.older else 13)
    assert counted["queries"] <= queries <= 2 * counted["queries"]
    assert 0.5 * size <= counted["bytes"] == counted["processed_bytes"] <= 2 * size
    assert counted["attachments"] > 0


def test_the_estimated_time_follows_the_known_query_rate(pair: Pair, tmp_path: Path) -> None:
    plan = planned(
        pair,
        tmp_path,
        "--btql-per-minute",
        "30",
        "--resources",
        "datasets",
        "--projects",
        "beta",
        program="migrate_all",
    )
    assert (
        plan["estimate"]["queries_per_minute"],
        [record["queries"] for record in plan["streams"]],
    ) == (30, [1])
    # The first 30 start at once.
    assert plan["estimate"]["whole_seconds"] < 30


def test_existing_rows_are_not_counted_as_new_processed_data(pair: Pair, tmp_path: Path) -> None:
    run(pair.sandbox, tmp_path / "first", program="migrate_logs")
    alpha = pair.source.objects("project")[0]["id"]
    pair.source.insert(
        "project_logs",
        alpha,
        [{"id": f"late {number}", "input": "x" * 400} for number in range(50)],
    )
    plan = planned(pair, tmp_path, program="migrate_logs")
    there = {
        record["name"]: (record["rows"], record["rows_there"])
        for stream in plan["streams"]
        for record in stream["objects"]
    }
    assert there == {"Alpha/α": (300, 250), "beta": (50, 50)}
    assert 0 < plan["estimate"]["processed_bytes"] < plan["estimate"]["bytes"] / 2


@pytest.mark.parametrize(
    ("refused", "counts"),
    [(b"dimensions", 300), (b"measures", None)],
    ids=["not by object", "not at all"],
)
def test_a_server_that_does_not_count_is_planned_without_the_counts(
    refused: bytes, counts: Any, pair: Pair, tmp_path: Path
) -> None:
    pair.sandbox.refuse = lambda method, path, raw: (
        Answer(400, b'{"error": "no"}') if refused in raw and path == "/btql" else None
    )
    plan = planned(pair, tmp_path, program="migrate_logs")
    assert {record["rows"] for stream in plan["streams"] for record in stream["objects"]} == {None}
    assert sum(record["rows"] or 0 for record in plan["streams"]) == (counts or 0)
    assert (plan["estimate"]["bytes"] > 0, plan["estimate"]["uncounted_streams"]) == (
        (True, 0) if counts else (False, 2)
    )


def test_a_plan_samples_smaller_pages_if_large_ones_time_out(pair: Pair, tmp_path: Path) -> None:
    pair.sandbox.refuse = lambda method, path, raw: (
        Answer(504, b"{}") if path == "/btql" and b"limit: 1000" in raw else None
    )
    plan = planned(
        pair, tmp_path, "--projects", "beta", program="migrate_logs", MIGRATION_RETRY_ATTEMPTS="0"
    )
    assert plan["estimate"]["bytes"] > 0


# The file -----------------------------------------------------------------------------------------


def without_times(plan: Json) -> Json:
    estimate = {name: value for name, value in plan["estimate"].items() if "seconds" not in name}
    return {
        **plan,
        "estimate": estimate,
        "streams": [{**record, "seconds": 0} for record in plan["streams"]],
    }


def test_the_plan_is_the_same_each_time_and_for_its_owner_only(pair: Pair, tmp_path: Path) -> None:
    first, second = planned(pair, tmp_path), planned(pair, tmp_path)
    assert without_times(first) == without_times(second)
    assert (tmp_path / "plan.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("plan.json*")] == ["plan.json"]


def test_no_content_and_no_key_is_in_the_plan(pair: Pair, tmp_path: Path) -> None:
    planned(pair, tmp_path)
    text = (tmp_path / "plan.json").read_text(encoding="utf-8")
    found = [
        record
        for record in (
            "sk-source",
            "sk-dest",
            "never-to-be-read",
            "text 7",
            "export default",
            "hook.example",
        )
        if record in text
    ]
    assert found == []


def test_a_plan_file_that_cannot_be_written_is_refused_at_once(pair: Pair, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere" / "plan.json"):
        done = run(pair.sandbox, tmp_path / "runs", "--dry-run", "--plan-out", str(place))
        assert (done.code, len(done.err.splitlines()), (tmp_path / "runs").exists()) == (
            2,
            1,
            False,
        )
