"""Refused lists are reported with kind, project and reason; a later run completes the move."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, Dict

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Fault
from tests.support.compare_orgs import differences
from tests.support.orgs import findings, report, run, tiny_pair

LONG = pytest.mark.long
READ, WRITE = "acme", "globex"
ANSWERS: Dict[str, Dict[str, Any]] = {
    "refused": {
        "status": 400,
        "body": "Missing read access [user_email=ana@acme.example] [user_org=acme]",
    },
    "forbidden": {"status": 403, "body": {"Code": "ForbiddenError", "Message": "no right"}},
    "absent": {"status": 404, "body": {"Code": "NotFoundError", "Message": "no such path"}},
    "page": {
        "status": 404,
        "body": "<html>Cannot GET</html>",
        "headers": {"Content-Type": "text/html"},
    },
    "nonsense": {"status": 200, "body": {"objects": {"id": "a"}}},
    "failing": {"status": 500, "body": "boom"},
}
OLD = (
    "dataset experiment function prompt project_score project_tag span_iframe role group "
    "ai_secret user view acl"
).split()
YOUNG = "mcp_server agent project_automation environment".split()
RIGHTS = ("refused", "forbidden")
QUICK = {
    ("dataset", READ, "refused"),
    ("dataset", WRITE, "forbidden"),
    ("user", READ, "page"),
    ("view", READ, "refused"),
    ("view", WRITE, "forbidden"),
    ("acl", READ, "forbidden"),
    ("experiment", READ, "absent"),
    ("function", WRITE, "nonsense"),
    ("prompt", READ, "failing"),
    ("group", READ, "refused"),
    ("mcp_server", READ, "page"),
    ("role", WRITE, "failing"),
}
CASES = [
    pytest.param(
        kind,
        side,
        name,
        id=f"{kind}-{side}-{name}",
        marks=[] if (kind, side, name) in QUICK else [LONG],
    )
    for kind in (*OLD, *YOUNG)
    for side in (READ, WRITE)
    for name in ANSWERS
    if not (name == "absent" and kind in YOUNG)
]


def list_path(kind: str) -> str:
    path = "/environment" if kind == "environment" else f"/v1/{kind}"
    return rf"^{path}(/list_org)?(\?|$)"


@pytest.mark.parametrize(("kind", "side", "name"), CASES)
@pytest.mark.variants(2)
def test_a_refused_list_is_reported_and_completed_later(
    kind: str, side: str, name: str, tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        fault = Fault("status", side, "GET", list_path(kind), None, **ANSWERS[name])
        pair.sandbox.faults.add(fault)
        if side == WRITE:  # nobody asks for the lists of projects that the run itself creates
            pair.dest.create("project", {"name": "Alpha/α", "description": "first"})
            pair.dest.create("project", {"name": "beta"})
        first = run(pair.sandbox, tmp_path / "runs", MIGRATION_RETRY_DELAY="0.01")
        told = report(tmp_path / "runs")
        text = json.dumps(told)
        assert pair.sandbox.faults.hits(fault) > 0
        assert ("Traceback" in first.err, "@acme.example]" in text) == (False, False)
        # A list that needs a right of its own, which the key does not have, is a loss.
        is_loss = side == READ and name in RIGHTS and kind in ("view", "acl", *YOUNG)
        # A prompt refers to an MCP server, and is not whole without it.
        assert first.code == (0 if is_loss and kind != "mcp_server" else 1), first.last_words
        assert f"answered {ANSWERS[name]['status']}" in text
        assert ("not_listed" in text) == is_loss
        pair.sandbox.faults.clear()
        second = run(pair.sandbox, tmp_path / "runs")
        assert differences(pair) == []
        assert second.code == 0, second.out


@pytest.mark.parametrize(
    "kind", [kind for kind in YOUNG if kind != "mcp_server"]
)  # a prompt refers to it
@pytest.mark.variants(1)
def test_a_newer_kind_that_a_server_does_not_have_is_no_failure(kind: str, tmp_path: Path) -> None:
    with tiny_pair() as pair:
        fault = Fault("status", None, "GET", list_path(kind), None, **ANSWERS["absent"])
        pair.sandbox.faults.add(fault)
        ended = run(pair.sandbox, tmp_path / "runs")
        assert ended.code == 0, ended.out


def test_a_prompt_is_not_moved_as_a_function_while_prompts_cannot_be_listed(
    tmp_path: Path,
) -> None:
    with tiny_pair() as pair:
        slugs = {prompt["slug"] for prompt in pair.source.objects("prompt")}
        fault = Fault("status", READ, "GET", list_path("prompt"), None, **ANSWERS["refused"])
        pair.sandbox.faults.add(fault)
        refused = run(pair.sandbox, tmp_path / "runs")
        there = {obj["slug"] for kind in ("function", "prompt") for obj in pair.dest.objects(kind)}
        assert (refused.code, slugs & there, bool(there)) == (1, set(), True), refused.out
        pair.sandbox.faults.clear()
        completed = run(pair.sandbox, tmp_path / "runs")
        assert (completed.code, differences(pair)) == (0, []), completed.out


def test_owners_without_views_may_be_refused_by_the_destination(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        rare = ("organization", "org_project", "project_log")
        for view in pair.source.objects("view"):
            if view["object_type"] in rare:
                pair.source.delete("view", view["id"])
        path = rf"^/v1/view\?.*object_type=({'|'.join(rare)})&"
        fault = Fault("status", WRITE, "GET", path, None, **ANSWERS["forbidden"])
        pair.sandbox.faults.add(fault)
        ended = run(pair.sandbox, tmp_path / "runs", "--verify")
        assert (ended.code, differences(pair)) == (0, []), ended.out
        compared = report(tmp_path / "runs")["verification"]
        assert (compared["equal"], compared["tolerated"]["not_listed"] > 0) == (True, True)


def test_views_that_a_key_may_not_see_are_named_and_not_a_failure(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        fault = Fault("status", READ, "GET", list_path("view"), None, **ANSWERS["forbidden"])
        pair.sandbox.faults.add(fault)
        ended = run(pair.sandbox, tmp_path / "runs", "--verify", MIGRATION_RETRY_DELAY="0.01")
        compared = report(tmp_path / "runs")["verification"]
        assert (ended.code, compared["equal"]) == (0, True), ended.out
        named = [item for item in compared["cannot_move"] if item["resource"] == "views"]
        assert "not listed: source answered 403" in named[0]["detail"]
        assert named[0]["name"].startswith("views of ")


@pytest.mark.parametrize("name", RIGHTS)
@pytest.mark.variants(1)
def test_the_list_of_one_owner_that_a_key_may_not_see_is_named_and_not_a_failure(
    name: str, tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        owner = pair.source.objects("view")[0]["object_id"]
        path = rf"^/v1/view\?.*object_id={owner}"
        fault = Fault("status", READ, "GET", path, None, **ANSWERS[name])
        pair.sandbox.faults.add(fault)
        for _ in range(2):
            ended = run(pair.sandbox, tmp_path / "runs", "--since-last")
            names = [told["name"] for told in findings(tmp_path / "runs", "not_listed")]
            assert (ended.code, len(names) > 0) == (0, True), ended.out
            assert all(name.startswith("views of ") and owner in name for name in names)
        pair.sandbox.faults.clear()
        listed = run(pair.sandbox, tmp_path / "runs", "--since-last", "--verify")
        assert (listed.code, differences(pair)) == (0, []), listed.out
        pair.sandbox.faults.add(fault)
        refused = run(pair.sandbox, tmp_path / "runs", "--since-last")
        # It was read before, so that something may be missing now.
        failed = findings(tmp_path / "runs", "list_refused")
        assert (refused.code, len(failed)) == (1, len(names)), refused.out


@pytest.mark.parametrize(
    ("name", "kind", "rows"), [("refused", "dataset", 390), ("forbidden", "prompt", 480)]
)
@pytest.mark.variants(1)
def test_rows_wait_for_a_list_or_move_without_it_by_the_next_command(
    name: str, kind: str, rows: int, tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        fault = Fault("status", READ, "GET", list_path(kind), None, **ANSWERS[name])
        pair.sandbox.faults.add(fault)
        settings = {"MIGRATION_RETRY_DELAY": "0.01"}
        first = run(pair.sandbox, tmp_path / "runs", "--verify", **settings)
        told = report(tmp_path / "runs")
        assert (first.code, told["verification"]["arrived"]) == (1, False), first.out
        assert any(f"--exclude-resources {kind}s" in row["error"] for row in told["rows"])
        program, *arguments = shlex.split(first.out.splitlines()[-1], comments=True)[1:]
        assert (program, "--exclude-resources" in arguments) == ("bin/migrate-all", True)
        second = run(pair.sandbox, tmp_path / "runs", "--verify", *arguments, **settings)
        moved = report(tmp_path / "runs")["totals"]["rows"]
        assert (second.code, moved["created"]) == (0, rows), second.out


@pytest.mark.parametrize("kind", ["group", "role", "mcp_server"])
@pytest.mark.variants(1)
def test_rows_move_without_the_list_of_a_kind_that_no_row_names(kind: str, tmp_path: Path) -> None:
    with tiny_pair() as pair:
        fault = Fault("status", READ, "GET", list_path(kind), None, **ANSWERS["refused"])
        pair.sandbox.faults.add(fault)
        ended = run(pair.sandbox, tmp_path / "runs")
        moved = report(tmp_path / "runs")["totals"]["rows"]
        assert (moved["created"], moved["fetched"]) == (480, 480), ended.out


@pytest.mark.parametrize(
    ("side", "answer", "command"),
    [(READ, "refused", True), (READ, "forbidden", True), (READ, "failing", False)],
)
@pytest.mark.variants(1)
def test_a_reference_into_a_refused_list_is_reported_with_the_list_and_what_to_do(
    side: str, answer: str, command: bool, tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        fault = Fault("status", side, "GET", list_path("mcp_server"), None, **ANSWERS[answer])
        pair.sandbox.faults.add(fault)
        first = run(pair.sandbox, tmp_path / "runs", MIGRATION_RETRY_DELAY="0.01")
        (told,) = findings(tmp_path / "runs", "target_list_refused")
        assert (first.code, told["resource"], told["name"]) == (1, "prompts", "Ask"), first.out
        status = ANSWERS[answer]["status"]
        reason = f"mcp_servers: source: GET /v1/mcp_server was answered {status}"
        assert told["detail"].startswith(reason), told
        assert "move the targets" not in first.out
        assert " ".join(first.out.split()).count(reason) == (1 if command else 2), first.out
        program, *arguments = shlex.split(first.out.splitlines()[-1], comments=True)[1:]
        assert ("mcp_servers" in arguments) == command, first.out
        if command:
            second = run(pair.sandbox, tmp_path / "runs", *arguments)
            assert (program, second.code) == ("bin/migrate-all", 0), second.out


def test_a_key_that_sees_no_project_says_so_before_anything(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        empty = Answer(200, b'{"objects":[]}')
        pair.sandbox.refuse = lambda method, path, raw: (
            empty if method == "GET" and path.startswith("/v1/project?") else None
        )
        ended = run(pair.sandbox, tmp_path / "runs")
        assert (ended.code, "sees no project" in ended.err) == (2, True)
        assert pair.sandbox.writes("globex") == []
