"""Kinds beyond the first ones: each moves, is found again, is equal, and can be undone."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.behaviour import recorded
from tests.support.kinds import NAME_OF
from tests.support.orgs import (
    DEST_KEY,
    INLINE,
    AtRequest,
    Pair,
    WatchedSandbox,
    findings,
    function,
    recorded_pair,
    report,
    run,
    run_with,
    runs,
)
from tests.support.undoing import undo_run


@pytest.fixture
def pair() -> Iterator[Pair]:
    with recorded_pair() as organizations:
        yield organizations


def project(org: Any, name: str = "alpha") -> str:
    return str(org.create("project", {"name": name})["id"])


def undo(pair: Pair, root: Path) -> None:
    """Undo all runs, the last one first."""
    for path in reversed(runs(root)):
        undo_run(pair, path, "--yes")


def outcomes(root: Path, resource: str) -> Dict[str, int]:
    found: Dict[str, int] = {}
    for entry in report(root)["objects"]:
        for outcome, count in entry["outcomes"].items() if entry["resource"] == resource else ():
            found[outcome] = found.get(outcome, 0) + count
    return found


def names(found: List[Dict[str, Any]]) -> List[str]:
    return sorted(entry["name"] for entry in found)


# -- environment variables


def fill_variables(org: Any) -> None:
    alpha = project(org)
    tool = function(org, alpha, "tool", INLINE, function_type="tool")
    fields = {"project_id": alpha, "name": "mcp", "url": "https://mcp.example"}
    server = org.create("mcp_server", fields)["id"]
    for object_type, object_id, name in (
        ("organization", org.id, "ORG"),
        ("project", alpha, "PROJECT"),
        ("function", tool, "TOOL"),
        ("mcp_server", server, "SERVER"),
    ):
        owner = {"object_type": object_type, "object_id": object_id}
        more = {"value": "never-to-be-read", "metadata": {"k": 1}}
        org.create("env_var", {**owner, "name": name, **more})


def test_environment_variables_are_made_without_values_and_listed_until_they_have_one(
    pair: Pair, tmp_path: Path
) -> None:
    fill_variables(pair.source)
    root = tmp_path / "state"
    done = run(pair.sandbox, root, "--verify")
    assert (done.code, outcomes(root, "env_vars")) == (0, {"created": 4}), done.out + done.err
    made = {obj["name"]: obj for obj in pair.dest.objects("env_var")}
    assert {name: obj["preview_secret"] for name, obj in made.items()} == dict.fromkeys(made)
    owners = {name: (obj["object_type"], obj["metadata"]) for name, obj in made.items()}
    assert owners == {
        "ORG": ("organization", {"k": 1}),
        "PROJECT": ("project", {"k": 1}),
        "TOOL": ("function", {"k": 1}),
        "SERVER": ("mcp_server", {"k": 1}),
    }
    assert names(findings(root, "secret_to_enter")) == ["ORG", "PROJECT", "SERVER", "TOOL"]
    lines = [line for line in report(root)["to_do"] if line["kind"] == "secret_to_enter"]
    assert [line["findings"] for line in lines] == [4]

    pair.dest.patch("env_var", made["ORG"]["id"], {"name": "ORG", "value": "entered-by-hand"})
    source = next(obj for obj in pair.source.objects("env_var") if obj["name"] == "ORG")
    pair.source.patch("env_var", source["id"], {"name": "ORG", "metadata": {"k": 2}})
    done = run(pair.sandbox, root, "--verify", "--since-last")
    assert (done.code, outcomes(root, "env_vars")) == (0, {"found": 3, "updated": 1}), done.err
    entered = next(obj for obj in pair.dest.objects("env_var") if obj["name"] == "ORG")
    assert (entered["preview_secret"], entered["metadata"]) == ("********and", {"k": 2})
    assert names(findings(root, "secret_to_enter")) == ["PROJECT", "SERVER", "TOOL"]
    undo(pair, root)
    assert names(pair.dest.objects("env_var")) == ["ORG"]


def test_a_variable_without_a_value_in_the_source_is_listed_by_every_start(
    pair: Pair, tmp_path: Path
) -> None:
    owner = {"object_type": "project", "object_id": project(pair.source)}
    pair.source.create("env_var", {**owner, "name": "EMPTY"})
    for arguments in ((), ("--since-last",), ("--new-run",)):
        done = run(pair.sandbox, tmp_path / "state", "--resources", "env_vars", *arguments)
        assert done.code == 0, done.out + done.err
        assert names(findings(tmp_path / "state", "secret_to_enter")) == ["EMPTY"]


# -- project groups


def members(org: Any) -> Dict[str, List[str]]:
    found = {obj["id"]: obj["name"] for obj in org.objects("project")}
    return {
        group["name"]: sorted(found[member] for member in group["member_projects"])
        for group in org.objects("project_group")
    }


def fill_groups(org: Any) -> None:
    ids = [project(org, name) for name in ("alpha", "beta", "gamma")]
    group = org.create("project_group", {"name": "customers", "description": "d"})["id"]
    org.patch("project_group", group, {"add_member_projects": ids[:2]})
    org.create("project_group", {"name": "nobody"})
    people = org.create("group", {"name": "people"})["id"]
    for object_type in ("project_group", "project_group_projects"):
        owner = {"object_type": object_type, "object_id": group}
        org.create("acl", {**owner, "group_id": people, "permission": "read"})


def test_project_groups_move_with_their_projects_and_acls(pair: Pair, tmp_path: Path) -> None:
    fill_groups(pair.source)
    root = tmp_path / "state"
    done = run(pair.sandbox, root, program="migrate_organization")
    assert (done.code, members(pair.dest)) == (0, {"customers": ["alpha", "beta"], "nobody": []})
    for _ in range(2):
        done = run(pair.sandbox, root, "--verify")
        assert done.code == 0, done.out + done.err
    assert sorted(acl["object_type"] for acl in pair.dest.objects("acl")) == [
        "project_group",
        "project_group_projects",
    ]
    assert report(root)["verification"]["kinds"]["project_groups"]["outcomes"] == {"match": 2}
    group = next(obj for obj in pair.source.objects("project_group") if obj["name"] == "customers")
    first, last = group["member_projects"][0], project(pair.source, "delta")
    changes = {"remove_member_projects": [first], "add_member_projects": [last]}
    pair.source.patch("project_group", group["id"], changes)
    done = run(pair.sandbox, root, "--verify", "--since-last")
    assert (done.code, members(pair.dest)["customers"]) == (0, ["beta", "delta"]), done.err
    undo(pair, root)
    assert members(pair.dest) == {}


def test_a_project_that_moves_later_joins_its_group(pair: Pair, tmp_path: Path) -> None:
    fill_groups(pair.source)
    root = tmp_path / "state"
    done = run(pair.sandbox, root, "--projects", "alpha")
    assert (done.code, members(pair.dest)["customers"]) == (0, ["alpha"]), done.out + done.err
    assert [entry["detail"] for entry in findings(root, "project_not_selected")] == ["beta"]
    done = run(pair.sandbox, root, "--verify")
    assert (done.code, members(pair.dest)["customers"]) == (0, ["alpha", "beta"]), done.out
    assert findings(root, "project_not_selected") == []


def test_kinds_that_an_older_destination_does_not_have_are_a_loss_and_come_after_an_upgrade(
    pair: Pair, tmp_path: Path
) -> None:
    fill_groups(pair.source)
    root = tmp_path / "state"
    with WatchedSandbox() as older:
        older.store.behaviour = recorded()
        older.store.behaviour.knows_october_2026 = False
        dest = older.add_org("globex", api_key=DEST_KEY, users=[])
        done = run(pair.sandbox, root, "--verify", BT_DEST_URL=older.url)
        assert done.code == 0, done.out + done.err
        assert names(findings(root, "kind_not_known")) == ["customers", "nobody"]
        assert (outcomes(root, "project_groups"), dest.objects("acl")) == ({"skipped": 2}, [])
        older.store.behaviour.knows_october_2026 = True
        done = run(pair.sandbox, root, "--verify", BT_DEST_URL=older.url)
        assert done.code == 0, done.out + done.err
        assert members(dest) == {"customers": ["alpha", "beta"], "nobody": []}
        assert len(dest.objects("acl")) == 2


# -- what acts outside


def automation(event_type: str, **config: Any) -> Dict[str, Any]:
    return {"event_type": event_type, **config}


def fill_automations(org: Any) -> None:
    alpha = project(org)
    old = {"id": "old", "created": "2020-01-01T00:00:00Z", "input": 1}
    org.insert("project_logs", alpha, [old, {"id": "new", "input": 1}])
    dataset = org.create("dataset", {"project_id": alpha, "name": "cases"})["id"]
    org.insert("dataset", dataset, [{"id": "case", "input": 1}])
    slack = {"type": "slack", "workspace_id": "w", "channel": "#c"}
    hook = {"type": "webhook", "url": "https://hook.example/T"}
    pager = {"type": "pagerduty", "routing_key_secret_name": "K", "severity": "error"}
    alert = {"btql_filter": "true", "interval_seconds": 60}
    configs = {
        "alert": automation("logs", **alert, action=hook),
        "promoted": automation("environment_update", action=slack),
        "windowed": automation("windowed", window={}, actions=[pager, slack]),
        "export": automation("btql_export", format="jsonl", export_path="s3://b"),
        "keep": automation("retention", object_type="project_logs", retention_days=30),
        "cases": automation("retention", object_type="dataset", retention_days=30),
        "for ever": automation("retention", object_type="project_logs", retention_days=10**12),
        "topics": automation("topic", sampling_rate=1),
    }
    for name, config in configs.items():
        org.create("project_automation", {"project_id": alpha, "name": name, "config": config})
    rule = automation("retention", object_type="project_logs", retention_days=90)
    org.create("org_automation", {"org_id": org.id, "name": "whole", "config": rule})


def active(org: Any) -> List[str]:
    return names(org.objects("project_automation") + org.objects("org_automation"))


def test_what_acts_outside_or_deletes_is_reported_and_not_created(
    pair: Pair, tmp_path: Path
) -> None:
    fill_automations(pair.source)
    # A rule of the organization also deletes what the destination had before.
    theirs = pair.dest.create("project", {"name": "theirs"})["id"]
    old = [{"id": f"old {n}", "input": n, "created": "2020-01-01T00:00:00Z"} for n in range(5)]
    pair.dest.insert("project_logs", theirs, old)
    root = tmp_path / "state"
    off = {"MIGRATION_ACTIVATE": ""}
    checked = run(pair.sandbox, root, program="validate", **off)
    assert "deletes at once: 1 row older than 30 days" in " ".join(checked.out.split())
    done = run(pair.sandbox, root, "--dry-run", **off)
    assert (done.code, active(pair.dest)) == (0, []), done.out + done.err
    for _ in range(2):
        done = run(pair.sandbox, root, "--verify", **off)
        assert (done.code, active(pair.dest)) == (0, ["topics"]), done.out + done.err
    ready = {entry["name"]: entry["detail"] for entry in findings(root, "ready_to_activate")}
    assert ready == {
        "alert": "webhook",
        "promoted": "slack",
        "windowed": "slack,pager",
        "export": "export",
        "keep": "retention",
        "cases": "retention",
        "for ever": "retention",
        "whole": "retention",
    }
    deleted = {entry["name"]: entry["count"] for entry in findings(root, "retention_deletes")}
    assert deleted == {"keep": 1, "whole": 6}
    (line,) = [
        line["text"] for line in report(root)["to_do"] if line["kind"] == "ready_to_activate"
    ]
    command = "migrate-settings --activate export,pager,retention,slack,webhook: "
    assert command in line


def test_rows_that_a_retention_rule_deletes_are_not_reported_as_none_if_they_cannot_be_counted(
    pair: Pair, tmp_path: Path
) -> None:
    fill_automations(pair.source)
    pair.sandbox.refuse = lambda method, path, body: (
        Answer(400, b"no such filter") if b"created <" in body else None
    )
    ended = run(pair.sandbox, tmp_path, "--dry-run", MIGRATION_ACTIVATE="")
    assert (ended.code, findings(tmp_path, "retention_deletes")) == (0, [])
    uncounted = findings(tmp_path, "retention_not_counted")
    assert {entry["name"] for entry in uncounted} == {"keep", "cases", "whole"}
    (line,) = [line for line in report(tmp_path)["to_do"] if "retention_not" in line["kind"]]
    assert "how many rows it deletes at once cannot be counted: " in line["text"]
    assert "0 rows at once" not in ended.out


def test_what_acts_outside_or_deletes_is_created_with_activate_only(
    pair: Pair, tmp_path: Path
) -> None:
    fill_automations(pair.source)
    root = tmp_path / "state"
    off = {"MIGRATION_ACTIVATE": ""}
    run(pair.sandbox, root, **off)
    slack = run(pair.sandbox, root, "--activate", "slack", program="migrate_settings", **off)
    assert (slack.code, active(pair.dest)) == (0, ["promoted", "topics"]), slack.out + slack.err
    place = ["--state-dir", str(runs(root)[-1])]
    again = run(
        pair.sandbox, root, *place, "--activate", "slack,pager", program="migrate_settings", **off
    )
    assert active(pair.dest) == ["promoted", "topics", "windowed"], again.out + again.err
    done = run(pair.sandbox, root, "--verify", "--activate", "all", **off)
    assert (done.code, len(active(pair.dest))) == (0, 9), done.out + done.err
    assert report(root)["verification"]["text"].startswith("equal")
    assert "retention 'keep': 1 row older than 30 days" in done.err
    made = sorted(
        pair.dest.objects("project_automation") + pair.dest.objects("org_automation"),
        key=lambda obj: str(obj["created"]),
    )
    assert sorted(obj["name"] for obj in made[-4:]) == ["cases", "for ever", "keep", "whole"]
    assert made[-1]["name"] == "whole"
    undo(pair, root)
    assert active(pair.dest) == []


def test_an_automation_that_begins_to_act_outside_waits_for_activate(
    pair: Pair, tmp_path: Path
) -> None:
    alpha = project(pair.source)
    quiet = {"event_type": "windowed", "window": {}}
    fields = {"project_id": alpha, "name": "watch", "config": quiet}
    source = pair.source.create("project_automation", fields)["id"]
    root = tmp_path / "state"
    assert run(pair.sandbox, root, MIGRATION_ACTIVATE="").code == 0
    hook = {"type": "webhook", "url": "https://hook.example/T"}
    loud = {"actions": [hook]}
    pair.source.patch("project_automation", source, {"config": loud})
    done = run(pair.sandbox, root, "--since-last", MIGRATION_ACTIVATE="")
    (made,) = pair.dest.objects("project_automation")
    assert (done.code, made["config"]) == (1, quiet), done.out + done.err
    done = run(pair.sandbox, root, "--since-last", "--activate", "webhook", MIGRATION_ACTIVATE="")
    (made,) = pair.dest.objects("project_automation")
    assert (done.code, made["config"]) == (0, {**quiet, **loud}), done.out + done.err


# -- simulated users


def test_simulated_users_are_left_out_if_the_destination_has_none(
    pair: Pair, tmp_path: Path
) -> None:
    """Its new project is asked too: only the answer says that the server lacks them."""
    alpha = project(pair.source)
    fields = {"instructions": "Be brief.", "voice_config": {"voice_id": "ada"}}
    pair.source.create("simulated_user", {"project_id": alpha, "name": "Ada", **fields})
    missing = Answer(404, b'{"error":"Not found"}')
    pair.sandbox.refuse = lambda method, path, raw: (
        missing if "/simulated_user" in path and alpha not in path else None
    )
    done = run(pair.sandbox, tmp_path / "state", "--verify")
    assert done.code == 0, done.out + done.err
    left = findings(tmp_path / "state", "kind_not_known")
    assert [found["resource"] for found in left] == ["simulated_users"]


def test_simulated_users_move_change_and_are_undone(pair: Pair, tmp_path: Path) -> None:
    fields = {"instructions": "Be brief.", "voice_config": {"voice_id": "ada"}}
    for name in ("alpha", "beta"):
        owner = {"project_id": project(pair.source, name)}
        pair.source.create("simulated_user", {**owner, "name": "Ada", "goal": name, **fields})
    root = tmp_path / "state"
    for _ in range(2):
        done = run(pair.sandbox, root, "--verify")
        assert done.code == 0, done.out + done.err
    kinds = report(root)["verification"]["kinds"]
    assert kinds["simulated_users"]["outcomes"] == {"match": 2}
    there = {obj["id"]: obj["name"] for obj in pair.dest.objects("project")}

    def made() -> Dict[str, str]:
        return {
            there[obj["project_id"]]: obj["goal"] for obj in pair.dest.objects("simulated_user")
        }

    assert made() == {"alpha": "alpha", "beta": "beta"}
    source = pair.source.objects("simulated_user")[0]["id"]
    pair.source.patch("simulated_user", source, {"goal": "changed"})
    done = run(pair.sandbox, root, "--verify", "--since-last")
    assert (done.code, made()) == (0, {"alpha": "changed", "beta": "beta"}), done.out + done.err
    undo(pair, root)
    assert pair.dest.objects("simulated_user") == pair.dest.objects("project") == []


# -- names that are taken


def problems(root: Path) -> Dict[str, str]:
    return {entry["name"]: entry["reason"] for entry in report(root)["problems"]}


@pytest.mark.parametrize("options", [(), ("--history", "all")])
def test_a_prompt_does_not_overwrite_a_function_of_its_slug(
    pair: Pair, tmp_path: Path, options: Tuple[str, ...]
) -> None:
    alpha, there = project(pair.source), project(pair.dest)
    prompt = {"project_id": alpha, "name": "Tone", "slug": "tone", "prompt_data": {"options": {}}}
    pair.source.create("prompt", prompt)
    function(pair.source, alpha, "judge", INLINE)
    function(pair.dest, there, "tone", INLINE)
    other = {"project_id": there, "name": "Judge", "slug": "judge", "prompt_data": {"options": {}}}
    pair.dest.create("prompt", other)
    before = pair.dest.objects("function")
    root = tmp_path / "state"
    done = run(pair.sandbox, root, *options)
    assert (done.code, pair.dest.objects("function")) == (1, before)
    reasons = problems(root)
    assert sorted(reasons) == ["Judge", "Tone"]
    # The list of functions shows prompts too: the function is compared with the prompt.
    assert reasons["Judge"] == "exists with other content; left alone"
    assert reasons["Tone"].endswith("would be overwritten; rename one of the two")


def test_a_slug_that_differs_in_case_only_is_not_overwritten(pair: Pair, tmp_path: Path) -> None:
    """Here the destination finds slugs whatever their case, and a POST writes to what it finds."""
    alpha, there = project(pair.source), project(pair.dest)
    function(pair.source, alpha, "tone", INLINE)
    held = function(pair.dest, there, "Tone", INLINE, description="theirs")

    def fold(method: str, path: str, raw: bytes) -> Optional[Answer]:
        if method == "GET" and path.startswith("/v1/function?") and "slug=tone" in path:
            return Answer(200, json.dumps({"objects": pair.dest.objects("function")}).encode())
        return None

    pair.sandbox.refuse = fold
    root = tmp_path / "state"
    done = run(pair.sandbox, root)
    assert (done.code, [obj["id"] for obj in pair.dest.objects("function")]) == (1, [held])
    assert report(root)["problems"][0]["outcome"] == "differs"


@pytest.mark.parametrize("is_refused", [True, False])
def test_a_name_that_a_deleted_object_holds_is_named_as_the_reason(
    pair: Pair, tmp_path: Path, is_refused: bool
) -> None:
    alpha = project(pair.source)
    for name in ("held", "free"):
        pair.source.create("dataset", {"project_id": alpha, "name": name})

    def hold(method: str, path: str, raw: bytes) -> Optional[Answer]:
        if method != "POST" or path != "/v1/dataset" or json.loads(raw)["name"] != "held":
            return None
        if is_refused:
            return Answer(400, b"dataset: another one of the name 'held' already exists")
        gone = {**json.loads(raw), "id": "5f0c6c2e-6c1f-4d0b-9c5e-0f4c3b1a2d10"}
        return Answer(200, json.dumps({**gone, "deleted_at": "2026-01-01T00:00:00Z"}).encode())

    pair.sandbox.refuse = hold
    root = tmp_path / "state"
    done = run(pair.sandbox, root)
    assert (done.code, names(pair.dest.objects("dataset"))) == (1, ["free"]), done.err
    assert "a deleted object may hold the name" in problems(root)["held"]


# -- positions


def test_another_order_of_scores_is_reported_once_per_project(pair: Pair, tmp_path: Path) -> None:
    alpha, beta = project(pair.source), project(pair.source, "beta")
    judge = function(pair.source, alpha, "judge", INLINE, function_type="scorer")
    online = {"online": {"sampling_rate": 1, "scorers": [{"type": "function", "id": judge}]}}
    for owner, name in ((alpha, "a"), (alpha, "b"), (alpha, "c"), (beta, "b"), (beta, "c")):
        fields = {"project_id": owner, "name": name, "score_type": "slider"}
        more = {"score_type": "online", "config": online} if name == "a" else {}
        pair.source.create("project_score", {**fields, **more})
    root = tmp_path / "state"
    for args in ([], ["--since-last"]):
        assert run(pair.sandbox, root, *args).code == 0
        told = [(entry["project"], entry["name"]) for entry in findings(root, "order_not_kept")]
        assert told == [("alpha", "a")]
    assert names(pair.dest.objects("project_score")) == ["a", "b", "b", "c", "c"]


# -- ids in queries


def test_ids_in_queries_become_those_of_the_destination_also_if_the_target_moves_later(
    pair: Pair, tmp_path: Path
) -> None:
    alpha = project(pair.source)
    graph = {"type": "graph", "edges": {}, "nodes": {}}
    flow = function(pair.source, alpha, "flow", graph)
    prompt = {"project_id": alpha, "name": "P", "slug": "p", "prompt_data": {"options": {}}}
    asked = pair.source.create("prompt", prompt)["id"]
    unknown = "5f0c6c2e-6c1f-4d0b-9c5e-0f4c3b1a2d10"

    def query(project_id: str, prompt_id: str) -> str:
        return f"from: project_logs('{project_id}') filter: a = '{prompt_id}' or b = '{unknown}'"

    node = {"type": "btql", "expr": query(alpha, asked)}
    pair.source.patch("function", flow, {"function_data": {**graph, "nodes": {"n": node}}})
    root = tmp_path / "state"
    for _ in range(2):
        done = run(pair.sandbox, root, "--verify")
        assert done.code == 0, done.out + done.err
    (copied,) = [obj for obj in pair.dest.objects("function") if obj["slug"] == "flow"]
    (made,) = [obj for obj in pair.dest.objects("prompt") if obj["slug"] == "p"]
    wanted = query(pair.dest.objects("project")[0]["id"], made["id"])
    assert copied["function_data"]["nodes"]["n"]["expr"] == wanted
    assert findings(root, "source_id_in_text") == []


# -- killed


def test_what_a_killed_process_made_is_ours_and_completed(pair: Pair, tmp_path: Path) -> None:
    fill_groups(pair.source)
    alpha = pair.source.objects("project")[0]["id"]
    variable = {"object_type": "project", "object_id": alpha, "name": "KEY"}
    pair.source.create("env_var", {**variable, "value": "never-to-be-read"})
    voice = {"instructions": "Be brief.", "voice_config": {"voice_id": "ada"}}
    pair.source.create("simulated_user", {"project_id": alpha, "name": "Ada", **voice})
    rule = automation("retention", object_type="project_logs", retention_days=90)
    pair.source.create("org_automation", {"org_id": pair.source.id, "name": "w", "config": rule})
    root = tmp_path / "state"
    kinds = ("project_group", "simulated_user", "env_var", "org_automation")
    for kind in kinds:

        def is_creation(method: str, path: str, kind: str = kind) -> bool:
            return method == "POST" and path.endswith(f"/{kind}")

        at = AtRequest(1, "after", signal.SIGKILL, is_creation)
        assert (run_with(pair, root, at).code, at.done.is_set()) == (-signal.SIGKILL, True)
    done = run(pair.sandbox, root, "--verify")
    assert done.code == 0, done.out + done.err
    assert members(pair.dest) == {"customers": ["alpha", "beta"], "nobody": []}
    assert [len(pair.dest.objects(kind)) for kind in kinds] == [2, 1, 1, 1]
    undo(pair, root)
    assert [len(pair.dest.objects(kind)) for kind in kinds] == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", ["project_group", "dataset"])
@pytest.mark.variants(1)
def test_an_answer_with_nothing_but_an_id_is_believed_only_if_the_object_can_be_read(
    kind: str, pair: Pair, tmp_path: Path
) -> None:
    made = {"name": "answered", "project_id": project(pair.source)}
    pair.source.create(kind, made if kind == "dataset" else {"name": "answered"})
    claim = json.dumps({"id": "6f1c1c9e-6a5e-4b8f-9a57-0a3c8f3e2f11"}).encode()
    pair.sandbox.refuse = lambda method, path, raw: (
        Answer(200, claim) if (method, path) == ("POST", f"/v1/{kind}") else None
    )
    assert run(pair.sandbox, tmp_path / "runs").code == 1
    assert outcomes(tmp_path / "runs", NAME_OF[kind]) == {"failed": 1}
    pair.sandbox.refuse = None
    healed = run(pair.sandbox, tmp_path / "runs", "--verify")
    assert (healed.code, len(pair.dest.objects(kind))) == (0, 1), healed.out
