"""Objects of the sandbox over HTTP: what is accepted, what is refused, and what a list shows."""

from __future__ import annotations

from typing import Any, Dict, Tuple

import pytest

from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.data.store import Refused
from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg
from tests.support.sandbox_http import Http

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def acme(sandbox: Sandbox) -> SandboxOrg:
    users = [{"email": "ann@acme.example"}, {"email": "bob@acme.example"}]
    return sandbox.add_org("acme", api_key="sk-acme", users=users)


@pytest.fixture
def globex(sandbox: Sandbox) -> SandboxOrg:
    return sandbox.add_org("globex", api_key="sk-globex")


def known(value: Dict[str, Any], *names: str) -> Dict[str, Any]:
    return {name: value[name] for name in names}


def test_hello_needs_no_key_and_everything_else_needs_a_known_one(
    sandbox: Sandbox, http: Http
) -> None:
    stranger = Http(sandbox.url, "sk-wrong")
    del stranger.session.headers["Authorization"]
    assert stranger.get("/v1").text == "Hello, World!"
    assert stranger.get("/v1/project").status_code == 401
    assert Http(sandbox.url, "sk-wrong").post("/btql", {}).status_code == 401
    assert http.get("/v1/project").json() == {"objects": []}


def test_a_new_object_is_read_back_with_nulls_for_what_it_has_not(
    http: Http, acme: SandboxOrg
) -> None:
    made = http.create("project", name="Größe/..", description="d")
    assert made == http.get("/v1/project/" + made["id"]).json() == acme.objects("project")[0]
    assert made == {
        "id": made["id"],
        "org_id": acme.id,
        "name": "Größe/..",
        "description": "d",
        "created": made["created"],
        "deleted_at": None,
        "user_id": acme.objects("user")[0]["id"],
        "settings": None,
    }


def test_an_existing_natural_key_is_returned_unmodified_and_changes_nothing(
    sandbox: Sandbox, http: Http
) -> None:
    first = http.create("project", name="P", description="old")
    again = http.post("/v1/project", {"name": "P", "description": "new"})
    assert (again.status_code, again.headers["x-bt-found-existing"], again.json()) == (
        200,
        "true",
        first,
    )
    assert [(request.changed, request.status) for request in sandbox.requests] == [
        (True, 200),
        (False, 200),
    ]
    assert len(sandbox.writes("acme")) == 1


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("project", {}, "project: required field 'name' is missing"),
        ("project", {"name": "P", "settings": {}}, "Extraneous key 'settings' at path []"),
        ("project", {"name": 5}, "project: field 'name' is not a valid name"),
        ("project", ["P"], "project: expected a JSON object"),
        (
            "role",
            {"name": "r", "member_permissions": [{"permission": "fly"}]},
            "member_permissions",
        ),
        ("group", {"name": "g", "member_users": [UNKNOWN]}, "does not exist"),
        ("dataset", {"name": "d", "project_id": UNKNOWN}, "does not exist"),
        (
            "acl",
            {"object_type": "project", "object_id": UNKNOWN},
            "exactly one of user_id and group_id",
        ),
    ],
)
def test_a_wrong_body_is_refused_with_400_and_a_reason(
    http: Http, kind: str, body: Any, text: str
) -> None:
    answer = http.post("/v1/" + kind, body)
    assert answer.status_code == 400
    assert text in answer.text


def references(project: str) -> Dict[str, Tuple[str, Dict[str, Any]]]:
    """For each reference: the kind and a body in which `?` stands for the id."""
    return {**references_of_definitions(project), **references_of_settings(project)}


def references_of_definitions(project: str) -> Dict[str, Tuple[str, Dict[str, Any]]]:
    named: Dict[str, Any] = {"project_id": project, "name": "n"}
    function = dict(named, slug="s", function_data={"type": "prompt"})
    tool = {"tool_functions": [{"type": "function", "id": "?"}]}
    return {
        "base experiment": ("experiment", dict(named, base_exp_id="?")),
        "dataset of an experiment": ("experiment", dict(named, dataset_id="?")),
        "parameters of an experiment": ("experiment", dict(named, parameters_id="?")),
        "tool of a prompt": ("prompt", dict(named, slug="s", prompt_data=tool)),
        "tool of a function": ("function", dict(function, prompt_data=tool)),
        "mcp server": (
            "prompt",
            dict(named, slug="s", prompt_data={"mcp": {"x": {"type": "id", "id": "?"}}}),
        ),
        "origin": (
            "function",
            dict(function, origin={"object_type": "experiment", "object_id": "?"}),
        ),
        "node of a graph": (
            "function",
            dict(
                named,
                slug="s",
                function_data={"type": "graph", "nodes": {"a": {"function": {"function_id": "?"}}}},
            ),
        ),
    }


def references_of_settings(project: str) -> Dict[str, Tuple[str, Dict[str, Any]]]:
    named: Dict[str, Any] = {"project_id": project, "name": "n"}
    functions = [{"type": "function", "id": "?"}]
    return {
        "online scorer": (
            "project_score",
            dict(named, score_type="online", config={"online": {"scorers": functions}}),
        ),
        "reviewer": (
            "project_score",
            dict(named, score_type="slider", config={"visibility": {"users": ["?"]}}),
        ),
        "topic automation": (
            "project_automation",
            dict(named, config={"event_type": "topic", "facet_functions": functions}),
        ),
        "project of a monitor": (
            "view",
            {
                "object_type": "project",
                "object_id": project,
                "view_type": "monitor",
                "name": "v",
                "options": {"viewType": "monitor", "options": {"projectId": "?"}},
            },
        ),
        "object of a view": (
            "view",
            {"object_type": "dataset", "object_id": "?", "view_type": "dataset", "name": "v"},
        ),
        "role of an acl": ("acl", {"object_type": "project", "object_id": project, "role_id": "?"}),
        "inherited role": ("role", {"name": "r", "member_roles": ["?"]}),
        "inherited group": ("group", {"name": "g", "member_groups": ["?"]}),
    }


@pytest.mark.parametrize("name", sorted(references("")))
def test_a_reference_must_exist_in_the_callers_organization(
    http: Http, acme: SandboxOrg, globex: SandboxOrg, name: str
) -> None:
    foreign = globex.create("project", {"name": "P"})["id"]
    project = http.create("project", name="P")["id"]
    kind, body = references(project)[name]
    if kind == "acl":
        body["user_id"] = acme.objects("user")[0]["id"]
    for wrong in (UNKNOWN, foreign):
        answer = http.session.post(http.url + "/v1/" + kind, json=replaced(body, wrong))
        assert (answer.status_code, "does not exist" in answer.text) == (
            400,
            True,
        ), answer.text


def replaced(value: Any, object_id: str) -> Any:
    if isinstance(value, dict):
        return {name: replaced(item, object_id) for name, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, object_id) for item in value]
    return object_id if value == "?" else value


def test_lists_are_newest_first_and_paged_from_both_sides(http: Http) -> None:
    ids = {name: http.create("project", name=name)["id"] for name in "abcde"}
    assert http.names("/v1/project") == ["e", "d", "c", "b", "a"]
    assert http.names("/v1/project", limit=2) == ["e", "d"]
    assert http.names("/v1/project", limit=2, starting_after=ids["d"]) == ["c", "b"]
    assert http.names("/v1/project", limit=2, ending_before=ids["b"]) == ["d", "c"]
    assert http.names("/v1/project", ids=[ids["a"], ids["c"]]) == ["c", "a"]
    assert http.names("/v1/project", project_name="b", made_up="x") == ["b"]
    assert (
        http.get("/v1/project", starting_after=ids["a"], ending_before=ids["b"]).status_code == 400
    )


def test_the_list_of_experiments_stops_at_1000_unless_told_otherwise(
    http: Http, acme: SandboxOrg
) -> None:
    project = acme.create("project", {"name": "P"})["id"]
    for number in range(1001):
        acme.create("experiment", {"project_id": project, "name": str(number)})
    assert len(http.names("/v1/experiment")) == 1000
    assert len(http.names("/v1/experiment", limit=5000)) == 1001


def test_only_some_lists_can_be_filtered_by_project(http: Http) -> None:
    projects = [http.create("project", name=name)["id"] for name in "ab"]
    for project in projects:
        for kind in ("dataset", "mcp_server", "span_iframe"):
            url = {} if kind == "dataset" else {"url": "http://x"}
            http.create(kind, project_id=project, name="in " + project, **url)
    assert http.names("/v1/dataset", project_id=projects[0]) == ["in " + projects[0]]
    assert http.names("/v1/dataset", project_name="b") == ["in " + projects[1]]
    for kind in ("mcp_server", "span_iframe"):
        assert len(http.names("/v1/" + kind, project_id=projects[0])) == 2


def test_patch_merges_objects_deeply_and_cannot_clear(http: Http) -> None:
    project = http.create("project", name="P")["id"]
    made = http.create(
        "dataset", project_id=project, name="d", description="x", metadata={"a": {"b": 1}, "l": [1]}
    )
    changed = http.patch(
        "/v1/dataset/" + made["id"],
        {"metadata": {"a": {"c": 2, "b": None}, "l": [2]}, "description": None},
    ).json()
    assert known(changed, "metadata", "description") == {
        "metadata": {"a": {"b": 1, "c": 2}, "l": [2]},
        "description": "x",
    }
    assert http.patch("/v1/dataset/" + made["id"], {"project_id": project}).status_code == 400


def test_patch_replaces_all_settings_of_a_project(http: Http) -> None:
    project = http.create("project", name="P")["id"]
    http.patch(
        "/v1/project/" + project,
        {"settings": {"comparison_key": "input", "disable_realtime_queries": True}},
    )
    changed = http.patch(
        "/v1/project/" + project, {"settings": {"comparison_key": "output"}}
    ).json()
    assert changed["settings"] == {"comparison_key": "output"}
    wrong = http.patch("/v1/project/" + project, {"settings": {"baseline_experiment_id": UNKNOWN}})
    assert wrong.status_code == 400


def test_a_name_that_another_object_has_cannot_be_patched_in(http: Http) -> None:
    http.create("project", name="a")
    other = http.create("project", name="b")
    assert http.patch("/v1/project/" + other["id"], {"name": "a"}).status_code == 400
    assert http.names("/v1/project") == ["b", "a"]


def test_put_replaces_everything_but_identity(http: Http) -> None:
    project = http.create("project", name="P")["id"]
    tag = http.create("project_tag", project_id=project, name="t", color="#fff", description="x")
    replaced_tag = http.put(
        "/v1/project_tag", {"project_id": project, "name": "t", "color": "#000"}
    ).json()
    assert replaced_tag == dict(tag, color="#000", description=None)
    assert http.put("/v1/project", {"name": "P"}).status_code == 405


def test_members_of_roles_and_groups_are_added_and_removed(http: Http, acme: SandboxOrg) -> None:
    ann, bob = (user["id"] for user in acme.objects("user"))
    group = http.create("group", name="g", member_users=[ann])
    changed = http.patch("/v1/group/" + group["id"], {"add_member_users": [bob, ann]}).json()
    assert changed["member_users"] == [ann, bob]
    changed = http.patch("/v1/group/" + group["id"], {"remove_member_users": [ann]}).json()
    assert changed["member_users"] == [bob]
    assert (
        http.patch("/v1/group/" + group["id"], {"add_member_users": [UNKNOWN]}).status_code == 400
    )
    assert http.patch("/v1/group/" + group["id"], {"member_users": []}).status_code == 400


def test_built_in_roles_are_the_same_everywhere_and_cannot_be_changed(
    sandbox: Sandbox, http: Http, globex: SandboxOrg
) -> None:
    roles = http.get("/v1/role").json()["objects"]
    assert [(role["name"], role["org_id"]) for role in roles] == [
        ("Viewer", None),
        ("Engineer", None),
        ("Owner", None),
    ]
    assert Http(sandbox.url, globex.api_key).get("/v1/role").json()["objects"] == roles
    assert http.patch("/v1/role/" + roles[0]["id"], {"name": "x"}).status_code == 403
    assert http.delete("/v1/role/" + roles[0]["id"]).status_code == 403


def test_a_deleted_object_is_gone_and_its_name_is_free(http: Http) -> None:
    project = http.create("project", name="P")
    dataset = http.create("dataset", project_id=project["id"], name="d")
    gone = http.delete("/v1/project/" + project["id"]).json()
    assert dict(gone, deleted_at=None) == project
    assert (http.names("/v1/project"), http.names("/v1/dataset")) == ([], [])
    missing = http.get("/v1/dataset/" + dataset["id"])
    assert (missing.status_code, dataset["id"] in missing.text) == (400, True)
    assert http.create("project", name="P")["id"] != project["id"]


def test_prompts_and_functions_are_one_store(http: Http) -> None:
    project = http.create("project", name="P")["id"]
    prompt = http.create("prompt", project_id=project, name="p", slug="p")
    code = {"type": "code", "data": {"type": "inline", "code": "x"}}
    http.create("function", project_id=project, name="f", slug="f", function_data=code)
    assert http.names("/v1/prompt") == ["p"]
    assert http.names("/v1/function") == ["f", "p"]
    assert http.get("/v1/prompt/" + prompt["id"]).json()["function_data"] == {"type": "prompt"}
    shown = http.get("/v1/function/" + prompt["id"]).json()
    assert known(shown, "function_data", "log_id") == {
        "function_data": {"type": "prompt"},
        "log_id": "p",
    }
    again = http.post(
        "/v1/function", {"project_id": project, "name": "z", "slug": "p", "function_data": code}
    )
    assert again.json()["id"] == prompt["id"]


def test_versions_of_a_prompt_can_be_read(http: Http) -> None:
    project = http.create("project", name="P")["id"]
    http.post("/environment", {"name": "Production", "slug": "prod"})
    created = http.create(
        "prompt", project_id=project, name="one", slug="p", environment_slugs=["prod"]
    )
    first = http.get("/v1/prompt/" + created["id"]).json()
    second = http.patch("/v1/prompt/" + first["id"], {"name": "two"}).json()
    assert int(second["_xact_id"]) > int(first["_xact_id"])
    assert http.get("/v1/prompt/" + first["id"], version=first["_xact_id"]).json() == first
    assert http.names("/v1/prompt", slug="p", version=second["_xact_id"]) == ["two"]
    assert http.names("/v1/prompt", slug="p", environment="prod") == ["one"]
    assert http.get("/v1/prompt/" + first["id"], version="1", environment="prod").status_code == 400


def test_secrets_are_never_read_back(http: Http, acme: SandboxOrg) -> None:
    secret = http.create(
        "ai_secret", name="OPENAI", type="openai", secret="sk-very-secret", metadata={"a": 1}
    )
    assert "secret" not in secret
    assert secret["preview_secret"] == "********ret"
    assert acme.has_secret("ai_secret", secret["id"])
    http.put("/v1/ai_secret", {"name": "OPENAI", "type": "openai"})
    assert acme.has_secret("ai_secret", secret["id"])
    empty = http.create("ai_secret", name="EMPTY")
    assert (empty["preview_secret"], acme.has_secret("ai_secret", empty["id"])) == (None, False)
    variable = http.create(
        "env_var", object_type="organization", object_id=acme.id, name="V", value="v"
    )
    assert "value" not in variable
    assert http.delete("/v1/ai_secret", {"name": "EMPTY"}).json()["id"] == empty["id"]


def test_acls_are_listed_by_object_or_as_a_bare_array_and_never_doubled(
    http: Http, acme: SandboxOrg
) -> None:
    project = http.create("project", name="P")["id"]
    user, role = acme.objects("user")[0]["id"], acme.objects("role")[0]["id"]
    body = {"object_type": "project", "object_id": project, "user_id": user, "role_id": role}
    acl = http.create("acl", **body)
    assert http.post("/v1/acl", body).json() == acl
    assert http.post("/v1/acl", dict(body, permission="read")).status_code == 400
    assert http.get("/v1/acl").status_code == 400
    assert http.get("/v1/acl", object_type="project", object_id=project).json() == {
        "objects": [acl]
    }
    assert http.get("/v1/acl/list_org").json() == [acl]
    added = dict(body, role_id=None, permission="read")
    update = http.post("/v1/acl/batch_update", {"add_acls": [added], "remove_acls": [body]}).json()
    assert update == {"added_acls": http.get("/v1/acl/list_org").json(), "removed_acls": [acl]}
    assert http.delete("/v1/acl", added).json()["permission"] == "read"
    assert http.get("/v1/acl/list_org").json() == []


def test_views_are_asked_for_with_their_object(http: Http) -> None:
    project = http.create("project", name="P")["id"]
    owner = {"object_type": "project", "object_id": project}
    view = http.create("view", view_type="logs", name="v", **owner)
    assert http.get("/v1/view").status_code == 400
    assert http.get("/v1/view/" + view["id"]).status_code == 400
    assert http.get("/v1/view", **owner).json() == {"objects": [view]}
    renamed = http.patch("/v1/view/" + view["id"], dict(owner, name="w")).json()
    assert renamed == dict(view, name="w", updated_at=renamed["updated_at"])
    assert http.delete("/v1/view/" + view["id"], owner).status_code == 200


def test_experiments_get_names_and_ensure_new_makes_another(http: Http) -> None:
    project = http.create("project", name="P")["id"]
    first = http.create("experiment", project_id=project, name="e", repo_info={"commit": "abc"})
    assert known(first, "public", "commit") == {"public": False, "commit": "abc"}
    assert http.create("experiment", project_id=project, name="e")["id"] == first["id"]
    other = http.create("experiment", project_id=project, name="e", ensure_new=True)
    assert (other["id"] != first["id"], other["name"].startswith("e-")) == (True, True)
    assert http.create("experiment", project_id=project)["name"].startswith("experiment-")


def test_positions_sort_in_order_of_creation(http: Http) -> None:
    project = http.create("project", name="P")["id"]
    positions = [
        http.create("project_tag", project_id=project, name=name)["position"] for name in "cab"
    ]
    assert positions == sorted(positions)


def test_snapshots_need_a_transaction_of_their_dataset(http: Http) -> None:
    project = http.create("project", name="P")["id"]
    dataset = http.create("dataset", project_id=project, name="d")["id"]
    http.insert("dataset", dataset, {"id": "a"})
    xact = http.btql(f"select: _xact_id | from: dataset('{dataset}')")["data"][0]["_xact_id"]
    wrong = {"dataset_id": dataset, "name": "s", "xact_id": "1000192656880881099"}
    assert http.post("/v1/dataset_snapshot", wrong).status_code == 400
    made = http.create("dataset_snapshot", dataset_id=dataset, name="s", xact_id=xact)
    assert http.create("dataset_snapshot", dataset_id=dataset, name="other", xact_id=xact) == made


def test_a_key_of_several_organizations_sees_all_and_writes_where_told(
    sandbox: Sandbox, acme: SandboxOrg, globex: SandboxOrg
) -> None:
    sandbox.grant("sk-both", ["acme", "globex"])
    both = Http(sandbox.url, "sk-both")
    assert both.create("project", name="A")["org_id"] == acme.id
    assert both.create("project", name="B", org_name="globex")["org_id"] == globex.id
    assert (both.names("/v1/project"), both.names("/v1/project", org_name="globex")) == (
        ["B", "A"],
        ["B"],
    )
    both.session.headers["x-bt-org-name"] = "acme"
    assert both.names("/v1/project") == ["A"]
    assert [org["name"] for org in both.get("/v1/organization").json()["objects"]] == ["acme"]
    assert len(sandbox.writes("globex")) == 1


def test_a_read_only_key_reads_and_cannot_write(sandbox: Sandbox, acme: SandboxOrg) -> None:
    project = acme.create("project", {"name": "P"})["id"]
    sandbox.grant("sk-read", ["acme"], read_only=True)
    reader = Http(sandbox.url, "sk-read")
    assert reader.names("/v1/project") == ["P"]
    assert reader.btql(f"from: project_logs('{project}')")["data"] == []
    for answer in (
        reader.post("/v1/project", {"name": "Q"}),
        reader.patch("/v1/project/" + project, {"name": "Q"}),
        reader.delete("/v1/project/" + project),
        reader.post(f"/v1/project_logs/{project}/insert", {"events": []}),
        reader.post("/logs3", {"rows": []}),
        reader.post("/attachment", {}),
    ):
        assert (answer.status_code, answer.json()["Code"]) == (403, "ForbiddenError")


def test_objects_of_another_organization_are_answered_like_missing_ones(
    http: Http, globex: SandboxOrg
) -> None:
    foreign = globex.create("project", {"name": "P"})["id"]
    for object_id in (foreign, UNKNOWN):
        answer = http.get("/v1/project/" + object_id)
        text = f"Missing read access to project id {object_id}, or the project does not exist"
        assert (answer.status_code, text in answer.text) == (400, True)
    answer = http.patch("/v1/project/" + foreign, {"name": "x"})
    assert (answer.status_code, "Missing update access" in answer.text) == (400, True)


def test_users_are_found_by_email_and_their_ids_belong_to_one_organization(
    sandbox: Sandbox, http: Http
) -> None:
    other = sandbox.add_org("other", users=[{"email": "ann@acme.example"}])
    found = http.get("/v1/user", email="ann@acme.example").json()["objects"]
    assert [user["email"] for user in found] == ["ann@acme.example"]
    assert found[0]["id"] != other.objects("user")[0]["id"]


def test_from_python_the_same_rules_hold(acme: SandboxOrg) -> None:
    with pytest.raises(Refused) as refused:
        acme.create("dataset", {"name": "d", "project_id": UNKNOWN})
    assert refused.value.status == 400
    made = acme.create("project", {"name": "P"})
    made["name"] = "changed"
    assert [project["name"] for project in acme.objects("project")] == ["P"]
    acme.delete("project", made["id"])
    assert acme.objects("project") == []


def test_every_kind_that_has_a_path_can_be_listed(http: Http) -> None:
    paths = {kind.path for kind in KINDS.values() if kind.path and kind.name not in ("view", "acl")}
    assert {path: http.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)
    assert http.get("/v1/prompt_session").status_code == 404


def test_organization_settings_can_be_patched(http: Http, acme: SandboxOrg) -> None:
    changed = http.patch("/v1/organization/" + acme.id, {"image_rendering_mode": "blocked"}).json()
    assert changed["image_rendering_mode"] == "blocked"
    assert http.get("/v1/organization").json() == {"objects": [changed]}
    assert http.patch("/v1/organization/" + acme.id, {"id": "x"}).status_code == 400
