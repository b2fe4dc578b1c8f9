"""Whole migrations by the real programs; source and destination are compared object by object."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Tuple

import pytest

from bt_migrate.phases import ORDER
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.faults import Fault
from tests.support.claims import untrue_claims
from tests.support.compare_orgs import (
    Translation,
    differences,
    position_differences,
    streams,
    unsaid_mentions,
)
from tests.support.orgs import Pair, example_pair, findings, report, run, runs, tiny_pair
from tests.support.report_counts import row_counts, sums, told_rows

PHASES = [name for name in ORDER if name.startswith("migrate_")]


# The whole example --------------------------------------------------------------------------------


def test_the_example_organization_arrives_whole_and_a_second_run_writes_nothing(
    tmp_path: Path,
) -> None:
    with example_pair() as pair:
        first = run(pair.sandbox, tmp_path / "runs", "--verify")
        told = report(tmp_path / "runs")
        assert (first.code, differences(pair), pair.sandbox.leaks()) == (0, [], []), (
            first.last_words
        )
        assert pair.sandbox.writes("acme") == []
        assert (sums(told), told["problems"], told_rows(told)) == ([], [], row_counts(pair.source))
        assert [entry for entry in told["findings"] if entry["severity"] == "failure"] == []
        assert unsaid_mentions(pair, told["findings"]) == []
        assert untrue_claims(pair, runs(tmp_path / "runs")[0]) == []
        for root in (tmp_path / "runs", tmp_path / "fresh"):
            pair.sandbox.clear_requests()
            again = run(pair.sandbox, root, "--verify")
            told = report(root)
            outcomes = {
                name for entry in told["objects"] + told["rows"] for name in entry["outcomes"]
            }
            assert (again.code, pair.sandbox.writes("globex"), sums(told)) == (0, [], []), (
                again.last_words
            )
            assert outcomes == {"found", "skipped"}
        assert differences(pair) == []


@pytest.mark.parametrize("pair_of", [tiny_pair, pytest.param(example_pair, marks=pytest.mark.long)])
def test_phases_run_one_by_one_move_the_same_as_migrate_all(pair_of: Any, tmp_path: Path) -> None:
    with pair_of() as pair:
        codes = {name: run(pair.sandbox, tmp_path / "runs", program=name).code for name in PHASES}
        # A definition that was made from an experiment waits for the phase of experiments.
        expected = {**dict.fromkeys(PHASES, 0), "migrate_definitions": 1}
        assert (codes, differences(pair)) == (expected, [])
        assert (len(runs(tmp_path / "runs")), sums(report(tmp_path / "runs"))) == (1, [])
        pair.sandbox.clear_requests()
        assert (run(pair.sandbox, tmp_path / "fresh").code, pair.sandbox.writes("globex")) == (
            0,
            [],
        )


@pytest.mark.long
def test_phases_in_reverse_order_followed_by_migrate_all_move_everything(
    pair: Pair, tmp_path: Path
) -> None:
    codes = {
        name: run(pair.sandbox, tmp_path / "runs", program=name).code for name in reversed(PHASES)
    }
    end = run(pair.sandbox, tmp_path / "runs")
    # ACLs wait for their groups, views for their experiments; the last phase completes them.
    expected = {**dict.fromkeys(PHASES, 1), "migrate_organization": 0}
    assert (codes, end.code, differences(pair)) == (expected, 0, []), end.last_words


@pytest.mark.long
def test_phases_with_different_state_folders_report_references_to_later_phases(
    tmp_path: Path,
) -> None:
    """References to later phases wait in the state folder. Without a common one they are left out.

    A later run then completes rows, and reports objects.
    """
    with example_pair() as pair:
        codes = {
            name: run(pair.sandbox, tmp_path / name / "runs", program=name).code for name in PHASES
        }
        again = run(pair.sandbox, tmp_path / "last")
        problems = {
            (entry["resource"], entry["outcome"], *entry["fields"])
            for entry in report(tmp_path / "last")["problems"]
        }
        failures = {
            entry["kind"]
            for entry in report(tmp_path / "last")["findings"]
            if entry["severity"] == "failure"
        }
        assert (set(codes.values()), again.code) == ({0}, 1), again.last_words
        assert (problems, failures) == ({("functions", "differs", "origin")}, set())


@pytest.mark.parametrize("status", [400, 403, 404])
@pytest.mark.variants(1)
def test_a_server_without_views_of_the_organization_or_of_logs_has_none(
    status: int, pair: Pair, tmp_path: Path
) -> None:
    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        hit = "/v1/view?" in path and any(
            f"object_type={entry}&" in path
            for entry in ("organization", "org_project", "project_log")
        )
        return Answer(status, b"unknown object_type") if hit else None

    pair.sandbox.refuse = refuse
    end = run(
        pair.sandbox, tmp_path / "runs", "--resources", "datasets,experiments,views", "--verify"
    )
    views = {entry["object_type"] for entry in pair.dest.objects("view")}
    assert (end.code, views) == (0, {"project", "experiment"}), end.last_words


def test_environments_are_asked_for_without_parameters_that_their_list_does_not_have(
    pair: Pair, tmp_path: Path
) -> None:
    def strict(method: str, path: str, raw: bytes) -> Optional[Answer]:
        hit = (
            method == "GET"
            and path.startswith("/environment?")
            and ("limit" in path or "starting_after" in path)
        )
        return Answer(400, b"unknown parameter") if hit else None

    pair.sandbox.refuse = strict
    codes = [
        run(pair.sandbox, tmp_path / "runs", "--resources", "environments").code for _ in range(2)
    ]
    assert (codes, len(pair.dest.objects("environment"))) == (
        [0, 0],
        len(pair.source.objects("environment")),
    )


def test_a_kind_that_the_source_does_not_list_is_reported(pair: Pair, tmp_path: Path) -> None:
    """A plan without the kind answers so, and a key that may not see it."""
    pair.sandbox.faults.add(
        Fault(
            "status",
            "acme",
            "GET",
            path="^/v1/project_automation",
            times=None,
            status=403,
            body={"Code": "Forbidden"},
        )
    )
    ends = [
        run(pair.sandbox, tmp_path / "runs", "--resources", "project_automations", program=name)
        for name in ("migrate_all", "migrate_settings")
    ]
    told = [
        (entry["resource"], entry["severity"], "403" in entry["detail"])
        for entry in findings(tmp_path / "runs", "list_refused")
    ]
    assert ([entry.code for entry in ends], told) == (
        [1, 1],
        [("project_automations", "failure", True)],
    ), ends[0].last_words


@pytest.mark.long
def test_resources_moved_one_by_one_move_the_same_as_migrate_all(
    pair: Pair, tmp_path: Path
) -> None:
    """What refers to something comes after it."""
    parts = (
        "ai_secrets,roles,groups,environments",
        "datasets,project_tags,span_iframes,mcp_servers,agents",
        "functions,prompts",
        "experiments",
        "functions,project_scores",
        "logs,views",
        "project_settings,project_automations,acls",
    )
    ends = [run(pair.sandbox, tmp_path / "runs", "--resources", part) for part in parts]
    told = [(part, end.code) for part, end in zip(parts, ends) if end.code]
    # The function's origin is an experiment of a later run: reported as waiting, then added.
    assert (told, differences(pair)) == ([("functions,prompts", 1)], [])


@pytest.mark.parametrize(
    "order", [("migrate_logs", "migrate_experiments", "migrate_definitions", "migrate_datasets")]
)
def test_phases_in_the_wrong_order_are_completed_by_the_later_ones(
    order: Tuple[str, ...], pair: Pair, tmp_path: Path
) -> None:
    """References to what is not there yet wait in the run directory."""
    rest = [name for name in PHASES if name not in order]
    for name in (*order, *rest):
        run(pair.sandbox, tmp_path / "runs", program=name)
    assert differences(pair) == []


def test_tags_and_scores_keep_their_order(pair: Pair, tmp_path: Path) -> None:
    """Positions follow the order of creation, so the first object of each kind is slow here."""
    alpha = pair.source.objects("project")[0]["id"]
    for name in ("second", "third"):
        pair.source.create(
            "project_score", {"project_id": alpha, "name": name, "score_type": "slider"}
        )
    for path in ("/v1/project_tag$", "/v1/project_score$"):
        pair.sandbox.faults.add(Fault("delay", "globex", "POST", path=path, seconds=0.4))
    run(pair.sandbox, tmp_path / "runs")
    assert list(position_differences(Translation(pair))) == []


def test_rows_keep_their_order_on_request(pair: Pair, tmp_path: Path) -> None:
    """The API lists rows in the order of insertion, so the first insert of each stream is slow."""
    pair.sandbox.faults.add(Fault("delay", "globex", "POST", path="/logs3", seconds=0.4, times=3))
    run(
        pair.sandbox, tmp_path / "runs", "--preserve-order", MIGRATION_EVENTS_INSERT_BATCH_SIZE="10"
    )
    orders = {
        (kind, source["name"]): [
            [row["id"] for row in org.rows(kind, entry["id"])]
            for org, entry in ((pair.source, source), (pair.dest, dest))
        ]
        for kind, source, dest in streams(Translation(pair))
    }
    assert [where for where, (before, after) in orders.items() if before != after] == []


# What is there already ----------------------------------------------------------------------------


def fill_destination(pair: Pair) -> Tuple[str, Any]:
    """Objects and rows of the source, equal and other ones. Returns the dataset, the equal row."""
    dest = pair.dest
    alpha = dest.create("project", {"name": "Alpha/α", "description": "second"})["id"]
    beta = dest.create("project", {"name": "beta"})["id"]
    dest.create("project_tag", {"project_id": alpha, "name": "red", "color": "#FF0000"})
    dest.create(
        "project_tag",
        {"project_id": alpha, "name": "blue", "color": "#00FF00", "description": "ours"},
    )
    answers = dest.create("dataset", {"project_id": beta, "name": "answers", "tags": ["x"]})["id"]
    dest.create(
        "prompt",
        {
            "project_id": beta,
            "name": "Ask",
            "slug": "ask",
            "prompt_data": {"prompt": {"type": "completion", "content": "?"}},
        },
    )
    dest.create("ai_secret", {"name": "OPENAI", "type": "openai", "secret": "typed in before"})
    source_rows = pair.source.rows("dataset", pair.source.objects("dataset")[1]["id"])
    same, other = source_rows[0], source_rows[1]
    kept = ("id", "input", "expected", "created", "span_id", "root_span_id")
    dest.insert("dataset", answers, [{name: same[name] for name in kept}])
    dest.insert(
        "dataset",
        answers,
        [{"id": other["id"], "input": "written by somebody"}, {"id": "theirs", "input": 1}],
    )
    return answers, same


def test_existing_objects_are_found_if_equal_and_left_alone_if_different(
    pair: Pair, tmp_path: Path
) -> None:
    fill_destination(pair)
    dest = pair.dest
    before = {kind: dest.objects(kind) for kind in ("project_tag", "prompt", "ai_secret")}
    whole = run(pair.sandbox, tmp_path / "runs")
    told = report(tmp_path / "runs")
    assert whole.code == 1
    assert {
        (entry["resource"], entry["name"], entry["outcome"], tuple(entry["fields"]))
        for entry in told["problems"]
    } == {
        ("projects", "Alpha/α", "differs", ("description",)),
        ("project_tags", "blue", "differs", ("description", "color")),
        ("prompts", "Ask", "differs", ("prompt_data",)),
    }
    found = {
        entry["resource"]: entry["outcomes"].get("found")
        for entry in told["objects"]
        if entry["outcomes"].get("found")
    }
    assert found == {"projects": 1, "datasets": 1, "project_tags": 1, "ai_secrets": 1}
    assert {kind: dest.objects(kind)[: len(objects)] for kind, objects in before.items()} == before
    assert dest.has_secret("ai_secret", dest.objects("ai_secret")[0]["id"])
    pair_differences = [
        entry
        for entry in differences(pair)
        if not any(word in entry for word in ("'Alpha/α'", "'blue'", "'ask'", "case", "theirs"))
    ]
    assert pair_differences == []
    pair.sandbox.clear_requests()
    again = run(pair.sandbox, tmp_path / "runs")
    assert (again.code, pair.sandbox.writes("globex")) == (1, [])


def test_existing_rows_are_found_if_equal_and_left_alone_if_different(
    pair: Pair, tmp_path: Path
) -> None:
    answers, same = fill_destination(pair)
    run(pair.sandbox, tmp_path / "runs")
    told = report(tmp_path / "runs")
    rows = next(entry for entry in told["rows"] if entry["name"] == "answers")
    assert (rows["outcomes"], sums(told)) == ({"created": 43, "found": 1, "differs": 1}, [])
    assert [row["input"] for row in pair.dest.rows("dataset", answers)[:3]] == [
        same["input"],
        "written by somebody",
        1,
    ]
