"""Routes that a data plane, or a proxy in front of it, does not have: said once, the rest moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.migration.test_bundles import add_bundled
from tests.support.orgs import INLINE, Pair, findings, function, report, run
from tests.support.people import MISSING, invite, people_pair

ROUTES = (
    "/function/code", "/v1/organization/members", "/v1/env_var", "/v1/project_group",
    "/v1/org_automation", "/simulated_user", "/v1/dataset_snapshot", "/environment-object",
    "/v1/service_token",
)  # fmt: skip
KINDS = (
    "project_groups", "dataset_snapshots", "simulated_users", "env_vars",
    "environment_assignments", "org_automations",
)  # fmt: skip
EXPRESS = "<!DOCTYPE html>\n<html><body><pre>Cannot {} {}</pre></body></html>"


def express(method: str, path: str) -> Answer:
    return Answer(404, EXPRESS.format(method, path.split("?")[0]).encode(), "text/html")


def as_json(method: str, path: str) -> Answer:
    return Answer(405, b'{"Code": "NotFoundError", "Message": "no such route"}')


def gateway_text(method: str, path: str) -> Answer:
    return Answer(501, b"no route matched with those values", "text/plain")


def gateway_page(method: str, path: str) -> Answer:
    return Answer(404, b"<html><h1>404 Not Found</h1>nginx</html>", "text/html")


STYLES = (express, as_json, gateway_text)


def lack(pair: Pair, style: Callable[[str, str], Answer]) -> None:
    """Let the destination lack the routes."""
    watched, key = pair.sandbox.intercept, pair.dest.api_key

    def intercept(request: Any) -> Optional[Answer]:
        is_lacked = any(route in request.path for route in ROUTES)
        if is_lacked and key in request.headers.get("Authorization", ""):
            return style(request.method, request.path)
        return watched(request)

    pair.sandbox.intercept = intercept


@pytest.fixture
def pair() -> Any:
    with people_pair() as people:
        yield people


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.variants(1)
def test_uploads_and_invitations_that_are_not_offered_are_left_to_a_person(
    style: Callable[[str, str], Answer], pair: Pair, tmp_path: Path
) -> None:
    add_bundled(pair.source)
    folder = tmp_path / "bundles"
    (folder / "alpha").mkdir(parents=True)
    (folder / "alpha" / "bundled.js").write_bytes(b"1")
    lack(pair, style)
    root = tmp_path / "runs"
    plain = run(pair.sandbox, root, "--verify")
    assert (plain.code, "not offered" in plain.out) == (0, False), plain.out
    options = ("--bundles", str(folder), "--invite-users", "--yes", "--verify")
    ended = run(pair.sandbox, root, *options)
    text = " ".join(ended.out.split())
    assert ended.code == 1, ended.out
    assert "invite 3 users, then run again" in text
    assert "create by hand (not readable): 1 function (Bundled)" in text, ended.out
    failed = text.partition("Failed:")[2]
    assert "not offered by this server: uploads of code bundles (--bundles); push" in failed
    assert "not offered by this server: invitations (--invite-users); invite 3 users" in failed
    assert len(report(root)["failed"]) == 2
    invite(pair, MISSING)
    (project,) = pair.dest.objects("project")
    function(pair.dest, project["id"], "bundled", INLINE, function_type="scorer")
    done = run(pair.sandbox, root, *options)
    assert (done.code, report(root)["failed"]) == (0, []), done.out


def add_kinds(org: Any) -> None:
    """One object of each of KINDS."""
    (project,) = org.objects("project")
    alpha = project["id"]
    org.create("project_group", {"name": "all"})
    config = {"event_type": "retention", "object_type": "project_logs", "retention_days": 3000}
    org.create("org_automation", {"org_id": org.id, "name": "old", "config": config})
    org.create(
        "simulated_user",
        {"project_id": alpha, "name": "Ada", "instructions": "i", "voice_config": {}},
    )
    owner = {"object_type": "project", "object_id": alpha}
    org.create("env_var", {**owner, "name": "TOKEN", "value": "x"})
    (dataset,) = org.objects("dataset")
    xact = max(row["_xact_id"] for row in org.rows("dataset", dataset["id"]))
    snapshot = {"dataset_id": dataset["id"], "name": "now", "xact_id": xact}
    org.create("dataset_snapshot", snapshot)
    org.create("environment", {"name": "Production", "slug": "prod"})
    data = {"prompt": {"type": "completion", "content": "?"}}
    prompt = {"project_id": alpha, "name": "p", "slug": "p", "prompt_data": data}
    made = org.create("prompt", prompt)
    org.assign(made["id"], "prod", made["_xact_id"])


def kinds_of(root: Path, kind: str) -> List[str]:
    return sorted({found["resource"] for found in findings(root, kind)})


@pytest.mark.recorded  # an older source does not show these kinds
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.variants(1)
def test_kinds_that_are_not_offered_fail_only_where_a_person_asked_for_them(
    style: Callable[[str, str], Answer], pair: Pair, tmp_path: Path
) -> None:
    add_kinds(pair.source)
    lack(pair, style)
    root = tmp_path / "runs"
    plain = run(pair.sandbox, root, "--verify", MIGRATION_ACTIVATE="")
    assert plain.code == 0, plain.out + plain.err
    assert "not offered" not in plain.out
    assert not any(word in plain.err for word in ("WARNING", "ERROR", "has no ")), plain.err
    assert kinds_of(root, "kind_not_known") == sorted(KINDS)
    asked = ("--dataset-versions", "--history", "all", "--activate", "retention")
    ended = run(pair.sandbox, root, *asked, "--verify", MIGRATION_ACTIVATE="")
    wanted = ["dataset_snapshots", "environment_assignments", "org_automations"]
    assert (ended.code, kinds_of(root, "kind_not_offered")) == (1, wanted), ended.out
    text = " ".join(ended.out.split())
    assert "not offered by this server: 1 dataset snapshot (now)," in text, text
    named = run(pair.sandbox, root, "--resources", "env_vars,project_groups,simulated_users")
    named_kinds = ["env_vars", "project_groups", "simulated_users"]
    assert (named.code, kinds_of(root, "kind_not_offered")) == (1, named_kinds), named.out
    left_out = ("--exclude-resources", ",".join(wanted))
    done = run(pair.sandbox, root, *asked, *left_out, "--verify", MIGRATION_ACTIVATE="")
    assert done.code == 0, done.out


def test_a_proxy_that_knows_no_newer_kind_is_no_failure_where_the_source_has_none(
    pair: Pair, tmp_path: Path
) -> None:
    lack(pair, gateway_page)
    ended = run(pair.sandbox, tmp_path / "runs", "--verify")
    assert (ended.code, "WARNING" in ended.err) == (0, False), ended.out + ended.err
    assert "Verification: equal" in ended.out
