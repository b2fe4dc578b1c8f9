"""The losses that a plan lists before anything is written, and what stops at one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import List

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import (
    BEN,
    INLINE,
    Pair,
    example_pair,
    function,
    report,
    run,
    runs,
    tiny_pair,
)
from tests.support.planning import planned


def test_the_loss_list_names_what_cannot_move(tmp_path: Path) -> None:
    with example_pair() as pair:
        pair.source.create("service_token", {"name": "nightly"})
        old = next(
            record["id"]
            for record in pair.source.objects("prompt")
            if record["name"] == "House style"
        )
        pair.source.patch("prompt", old, {"description": "written again"})
        plan = planned(pair, tmp_path)
        named = {(record["kind"], record["resource"], record["name"]) for record in plan["losses"]}
        secrets = {
            ("secret_to_enter", "ai_secrets", record["name"])
            for record in pair.source.objects("ai_secret")
        }
        variables = {
            ("secret_to_enter", "env_vars", record["name"])
            for record in pair.source.objects("env_var")
        }
        known = {record["email"] for record in pair.dest.objects("user")}
        users = {
            ("user_without_counterpart", "users", record["email"])
            for record in pair.source.objects("user")
            if record["email"] not in known
        }
        others = {
            ("not_movable", "service_tokens", "nightly"),
            ("earlier_versions", "prompts", "House style"),
            ("not_readable", "functions", "refund (bundled)"),
            ("not_readable", "functions", "Topics"),
            ("made_private", "experiments", "2025-10-04 with tools"),
        }
        wanted = secrets | variables | users | others
        assert (len(secrets), len(variables), len(users)) == (3, 3, 3)
        assert wanted - named == set()
        assert all(record["next"] and record["severity"] != "failure" for record in plan["losses"])
        assert [record for record in plan["unseen"] if "playgrounds" in record]


def test_users_that_cannot_be_listed_are_all_losses(pair: Pair, tmp_path: Path) -> None:
    pair.sandbox.refuse = lambda method, path, raw: (
        Answer(403, b'{"Code": "ForbiddenError"}') if path.startswith("/v1/user?") else None
    )
    plan = planned(pair, tmp_path, code=1)
    refused = [
        record
        for record in plan["losses"] + plan["other_findings"]
        if record["resource"] == "users" and "403" in record.get("detail", "")
    ]
    assert refused


def test_only_losses_of_the_selected_projects_are_listed(tmp_path: Path) -> None:
    with example_pair() as pair:
        plan = planned(
            pair, tmp_path, "--projects", "旅行プランナー", code=1
        )  # it refers to projects that were not chosen
        named = {
            (record["resource"], record["name"])
            for record in plan["losses"]
            if record["kind"] == "not_movable" or record["resource"] == "env_vars"
        }
        assert named == {("env_vars", "DESK_TOKEN")}  # the organization's own


def test_a_loss_stops_the_run_before_the_first_write(pair: Pair, tmp_path: Path) -> None:
    done = run(pair.sandbox, tmp_path / "runs", "--fail-on-loss", LOG_LEVEL="ERROR")
    (line,) = done.err.splitlines()
    assert (done.code, pair.sandbox.writes("globex")) == (1, [])
    assert (
        line.startswith("bt_migrate: nothing was written (--fail-on-loss): ")
        and "ai_secrets 'OPENAI' (secret_to_enter)" in line
    )
    again = run(pair.sandbox, tmp_path / "runs", "--fail-on-loss", "--dry-run", LOG_LEVEL="ERROR")
    assert (again.code, len(again.err.splitlines())) == (1, 1)
    whole = run(pair.sandbox, tmp_path / "runs")
    assert (whole.code, report(tmp_path / "runs")["status"]) == (0, "completed")


def test_without_a_loss_the_run_continues_and_keeps_its_plan(pair: Pair, tmp_path: Path) -> None:
    """A dataset of rows that were never edited can be moved whole: nothing is left behind."""
    plan = tmp_path / "plan.json"
    done = run(
        pair.sandbox,
        tmp_path / "runs",
        "--fail-on-loss",
        "--plan-out",
        str(plan),
        "--projects",
        "Alpha/α",
        program="migrate_datasets",
    )
    assert done.code == 0, done.last_words
    (real,) = [
        path
        for path in runs(tmp_path / "runs")
        if not json.loads((path / "run.json").read_text())["dry_run"]
    ]
    made = json.loads((real / "migration_report.json").read_text(encoding="utf-8"))["totals"][
        "objects"
    ]
    told = [record["action"] for record in json.loads(plan.read_text(encoding="utf-8"))["objects"]]
    assert (made, sorted(told)) == ({"created": 2}, ["create"] * 2)


def test_a_real_run_reports_the_losses_of_its_plan(pair: Pair, tmp_path: Path) -> None:
    function(pair.source, pair.source.objects("project")[0]["id"], "late", INLINE)
    run(pair.sandbox, tmp_path / "runs")
    users = [
        record for record in report(tmp_path / "runs")["findings"] if record["resource"] == "users"
    ]
    assert [(record["name"], record["severity"]) for record in users] == [(BEN, "action")]


@pytest.mark.parametrize("recorded", [True, False])
def test_earlier_versions_are_asked_for_and_never_concluded_from_dates(
    tmp_path: Path, recorded: bool
) -> None:
    with tiny_pair() as pair:
        pair.sandbox.behaviour.post_writes_versions = recorded
        alpha = next(
            record for record in pair.source.objects("project") if record["name"] == "Alpha/α"
        )
        once = function(pair.source, alpha["id"], "once", INLINE)
        pair.sandbox.clock.set(pair.sandbox.clock.seconds() + 3600)
        twice = function(pair.source, alpha["id"], "twice", INLINE)
        pair.source.patch("function", twice, {"description": "again"})
        prompt = {"project_id": alpha["id"], "name": "P", "slug": "p"}
        pair.source.patch(
            "prompt", pair.source.create("prompt", prompt)["id"], {"description": "again"}
        )
        asked: List[bytes] = []

        def note(method: str, path: str, body: bytes) -> None:
            if b"audit_log" in body:
                asked.append(body)

        pair.sandbox.refuse = note
        plan = planned(pair, tmp_path)
        named = {
            record["name"] for record in plan["losses"] if record["kind"] == "earlier_versions"
        }
    assert named >= {"Twice", "P"} and "Once" not in named, once
    assert len(asked) == 1
