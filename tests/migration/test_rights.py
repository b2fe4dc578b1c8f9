"""Validation says what the two keys may do: write, and read each list that a run needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, List, Optional

import pytest

from bt_migrate.errors import ApiError, Route
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Incoming
from tests.support.kinds import NAME_OF
from tests.support.orgs import Pair, run, runs

MISSING = (
    "Missing create access to organization id 1, or the organization does not exist"
    " [user_email=x@y.z] [user_org=globex]"
)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, "", True),
        (403, '{"Code":"ForbiddenError"}', True),
        (400, MISSING, True),
        (400, "User does not have permission to create projects", True),
        (400, '[{"path":["name"],"message":"Required"}]', False),
        (404, "Not found: /v1/x", False),
        (500, "Missing read access", False),
    ],
)
def test_a_refusal_is_recognized_by_its_text(status: int, body: str, expected: bool) -> None:
    error = ApiError(Route("destination", "GET", "/v1/x"), status, body)
    assert error.refuses_key is expected


def refuse_project(answer: Answer) -> object:
    return lambda method, path, raw: (
        answer if (method, path) == ("POST", "/v1/project") and raw == b"{}" else None
    )


def test_a_key_that_may_not_write_is_refused_also_where_the_answer_is_text_with_400(
    pair: Pair, tmp_path: Path
) -> None:
    pair.sandbox.refuse = refuse_project(Answer(400, MISSING.encode(), "text/plain"))
    end = run(pair.sandbox, tmp_path / "runs", program="validate")
    assert (end.code, pair.sandbox.writes("globex")) == (2, []), end.out + end.err
    assert "may not write" in end.err and "x@y.z" not in end.err + end.out


@pytest.mark.parametrize(
    "answer", [Answer(418, b"teapot"), Answer(400, b"no idea"), Answer(409, b"{}")]
)
def test_an_answer_that_cannot_be_judged_is_said_to_be_unknown(
    answer: Answer, pair: Pair, tmp_path: Path
) -> None:
    pair.sandbox.refuse = refuse_project(answer)
    end = run(pair.sandbox, tmp_path / "runs", program="validate")
    assert end.code == 0, end.out + end.err
    assert validation(tmp_path)["write_right"].startswith("unknown (")


@pytest.mark.parametrize(
    ("fields", "headers", "deleted", "right"),
    [
        ({"name": None}, {}, True, "yes"),
        ({"name": ""}, {}, True, "yes"),
        ({"name": "theirs"}, {}, False, "unknown ("),
        ({"name": None}, {"x-bt-found-existing": "true"}, False, "unknown ("),
        ({"name": None, "created": "2020-01-01T00:00:00Z"}, {}, False, "unknown ("),
    ],
)
def test_a_project_that_a_server_creates_without_a_name_is_deleted_at_once(
    fields: Dict[str, Optional[str]],
    headers: Dict[str, str],
    deleted: bool,
    right: str,
    pair: Pair,
    tmp_path: Path,
) -> None:
    """Left there, it would end this and each later start: a project needs a name."""
    project = {"id": "0b0b0b0b-0000-4000-8000-000000000001", **fields}
    made: List[dict] = []
    deletions: List[str] = []

    def lenient(request: Incoming) -> Optional[Answer]:
        if (request.method, request.path, request.body) == ("POST", "/v1/project", b"{}"):
            made.append(project)
            return Answer(200, json.dumps(project).encode(), headers=headers)
        if request.method == "DELETE":
            deletions.append(request.path)
            return Answer(200, json.dumps(made.pop()).encode())
        is_dest = pair.dest.api_key.encode() in str(request.headers).encode()
        if made and deleted and is_dest and request.path.startswith("/v1/project?"):
            return Answer(200, json.dumps({"objects": made}).encode())
        return None

    pair.sandbox.intercept = lenient
    end = run(pair.sandbox, tmp_path / "runs", program="validate")
    assert end.code == 0, end.out + end.err
    assert deletions == [f"/v1/project/{project['id']}"] * deleted
    assert validation(tmp_path)["write_right"].startswith(right)


def validation(tmp_path: Path) -> dict:
    return json.loads((runs(tmp_path / "runs")[-1] / "run.json").read_text())["validation"]


@pytest.mark.parametrize("org", ["acme", "globex"])
@pytest.mark.parametrize("kind", ["project_tag", "view", "acl", "group"])
def test_each_list_that_a_key_may_not_read_is_named(
    kind: str, org: str, pair: Pair, tmp_path: Path
) -> None:
    pair.dest.create("project", {"name": "theirs"})
    key = {"acme": pair.source, "globex": pair.dest}[org].api_key.encode()

    def refuse(request: object) -> Optional[Answer]:
        path = request.path
        mine = key in str(request.headers).encode()
        return Answer(400, MISSING.encode()) if mine and path.startswith(f"/v1/{kind}") else None

    watch = pair.sandbox.intercept
    pair.sandbox.intercept = lambda request: refuse(request) or watch(request)
    run(pair.sandbox, tmp_path / "runs", program="validate")
    side = {"acme": "source", "globex": "destination"}[org]
    named = [(entry["side"], entry["resource"]) for entry in validation(tmp_path)["refused_lists"]]
    assert named == [(side, NAME_OF[kind])]


def test_a_refused_list_of_assignments_is_named_and_asked_for_at_a_prompt(
    pair: Pair, tmp_path: Path
) -> None:
    pair.source.create("environment", {"name": "Production", "slug": "production"})

    def refuse(request: Incoming) -> Optional[Answer]:
        is_asked = request.path.startswith("/environment-object")
        return Answer(400, MISSING.encode()) if is_asked else None

    pair.sandbox.intercept = refuse
    run(pair.sandbox, tmp_path / "runs", program="validate")
    named = [(entry["side"], entry["resource"]) for entry in validation(tmp_path)["refused_lists"]]
    assert named == [("source", "environment_assignments")]
    asked = {
        request.path.rpartition("/")[0]
        for request in pair.sandbox.requests
        if request.path.startswith("/environment-object")
    }
    assert asked <= {"/environment-object/prompt", "/environment-object/function"}


def test_with_all_rights_no_list_is_named(pair: Pair, tmp_path: Path) -> None:
    assert run(pair.sandbox, tmp_path / "runs", program="validate").code == 0
    assert (validation(tmp_path)["refused_lists"], validation(tmp_path)["write_right"]) == (
        [],
        "yes",
    )


def test_a_right_to_write_that_was_taken_away_after_a_run_is_missed_before_the_next(
    pair: Pair, tmp_path: Path
) -> None:
    assert run(pair.sandbox, tmp_path / "runs").code == 0
    pair.sandbox.grant(pair.dest.api_key, [pair.dest.name], read_only=True)
    written = len(pair.sandbox.writes("globex"))
    for program in ("validate", "migrate_all"):
        end = run(pair.sandbox, tmp_path / "runs", program=program)
        assert end.code == 2 and "may not write" in end.err, (program, end.out + end.err)
    assert len(pair.sandbox.writes("globex")) == written


def test_a_dry_run_says_that_it_did_not_try_to_write(pair: Pair, tmp_path: Path) -> None:
    pair.sandbox.grant(pair.dest.api_key, [pair.dest.name], read_only=True)
    plan = run(pair.sandbox, tmp_path, "--dry-run")
    words = "Destination key can write: not tried in a dry run; bin/validate tries it"
    assert (plan.code, words in plan.out) == (0, True), plan.out
    assert words in (runs(tmp_path)[-1] / "migration_summary.txt").read_text()
    sent = [
        request
        for request in pair.sandbox.requests
        if request.method != "GET" and not request.path.startswith("/btql")
    ]
    assert sent == []
