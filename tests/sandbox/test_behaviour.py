"""Each switch between the recorded behaviour and that of older data planes, seen over HTTP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest

from bt_migrate.sandbox.data.behaviour import NAMES, older, recorded
from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg
from bt_migrate.sandbox.main import parser
from tests.support.sandbox_http import Http

UNKNOWN = "00000000-0000-4000-8000-000000000000"


class Scene:
    """One organization with a project, a dataset and an experiment."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.org: SandboxOrg = sandbox.add_org(
            "acme", api_key="sk", users=[{"email": "a@b.example"}]
        )
        self.http = Http(sandbox.url, "sk")
        self.project = self.org.create("project", {"name": "P"})["id"]
        self.named = {"project_id": self.project, "name": "n"}
        self.dataset = self.org.create("dataset", self.named)["id"]
        self.experiment = self.org.create("experiment", self.named)["id"]

    def row(self) -> Dict[str, Any]:
        self.http.insert("dataset", self.dataset, {"id": "a"})
        return dict(self.http.btql(f"from: dataset('{self.dataset}')")["data"][0])

    def prompt(self, **more: Any) -> Any:
        return self.http.post("/v1/prompt", dict(self.named, slug="s", **more))


def cursor_of_a_short_page(scene: Scene) -> Any:
    scene.row()
    return "cursor" in scene.http.btql(f"from: dataset('{scene.dataset}') | limit: 10")


def facets_by_shape(scene: Scene) -> Any:
    scene.http.insert("dataset", scene.dataset, {"id": "a", "facets": {"Task": "t"}})
    source = f"from: dataset('{scene.dataset}')"
    shown = [scene.http.btql(f"{source} {shape}")["data"] for shape in ("spans", "traces")]
    filtered = scene.http.btql(f"{source} spans | filter: facets is not null")["data"]
    assert bool(filtered) == bool(shown[0][0]["facets"])
    return [rows[0]["facets"] for rows in shown]


def audit_of_a_new_row(scene: Scene) -> Any:
    entries = scene.row()["audit_data"] or []
    return [(entry["audit_data"], entry["metadata"], entry["source"]) for entry in entries]


def span_id_is_the_row_id(scene: Scene) -> Any:
    return scene.row()["span_id"] == "a"


def post_of_an_existing_slug(scene: Scene) -> Any:
    first = scene.prompt(description="old").json()
    again = scene.prompt(description="new")
    shown = scene.http.get("/v1/prompt/" + first["id"]).json()
    earlier = scene.http.get("/v1/prompt/" + first["id"], version=first["_xact_id"]).json()
    return (
        again.json()["id"] == first["id"],
        "x-bt-found-existing" in again.headers,
        "tags" in again.json(),
        shown["description"],
        earlier["description"],
    )


def whole_number(scene: Scene) -> Any:
    made = scene.prompt(prompt_data={"options": {"params": {"temperature": 1.0}}}).json()
    return scene.http.get("/v1/prompt/" + made["id"]).text.count('"temperature":1.0')


def function_data_of_a_prompt(scene: Scene) -> Any:
    return scene.http.get("/v1/prompt/" + scene.prompt().json()["id"]).json().get("function_data")


def answer_of_delete(scene: Scene) -> Any:
    gone = scene.http.delete("/v1/prompt/" + scene.prompt().json()["id"]).json()
    return gone.get("_object_delete"), "name" in gone


def header_of_an_existing_experiment(scene: Scene) -> Any:
    answer = scene.http.post("/v1/experiment", scene.named)
    return answer.json()["id"] == scene.experiment, "x-bt-found-existing" in answer.headers


def members_of_a_new_group(scene: Scene) -> Any:
    return "member_users" in scene.http.post("/v1/group", {"name": "g"}).json()


def refusal_of_the_control_plane(scene: Scene) -> Any:
    answer = scene.http.get("/v1/project/" + UNKNOWN)
    return answer.status_code, "[user_email=a@b.example] [user_org=acme]" in answer.text


def refusal_of_a_word(scene: Scene) -> Any:
    answer = scene.http.get("/v1/project/word")
    return answer.status_code, "Invalid uuid" in answer.text


def answer_of_logs3(scene: Scene) -> Any:
    row = {"id": "a", "project_id": scene.project, "log_id": "g"}
    return sorted(scene.http.post("/logs3", {"rows": [row]}).json())


def user_of_a_new_view(scene: Scene) -> Any:
    body = {"object_type": "project", "object_id": scene.project, "view_type": "logs", "name": "v"}
    user = scene.http.post("/v1/view", body).json()["user_id"]
    return user == scene.org.objects("user")[0]["id"]


def tags_of_a_dataset(scene: Scene) -> Any:
    answer = scene.http.post("/v1/dataset", dict(scene.named, name="t", tags=["x"]))
    return answer.status_code, answer.text.startswith("Extraneous key 'tags' at path []")


def what_october_added(scene: Scene) -> Any:
    http = scene.http
    group = http.post("/v1/project_group", {"name": "g"})
    listed = http.get("/v1/project_group")
    automation = {"event_type": "retention", "object_type": "project_logs", "retention_days": 1}
    body = {"org_id": scene.org.id, "name": "a", "config": automation}
    http.post("/environment", {"name": "Production", "slug": "prod"})
    prompt = scene.prompt().json()
    place = "/environment-object/prompt/{}".format(prompt["id"])
    assigned = http.put(place + "/prod", {"object_version": prompt["_xact_id"]})
    view = {"object_type": "project", "object_id": scene.project, "view_type": "logs", "name": "v"}
    return (
        group.status_code,
        listed.status_code,
        http.post("/v1/project", {"name": "Q", "project_group_name": "g"}).status_code,
        http.post("/v1/org_automation", body).status_code,
        assigned.status_code,
        [item["environment_slug"] for item in http.get(place).json()["objects"]]
        if assigned.status_code == 200
        else [],
        http.post("/v1/view", dict(view, description="d")).status_code,
    )


# switch -> (how it is seen, as recorded, as older)
SEEN: Dict[str, Tuple[Callable[[Scene], Any], Any, Any]] = {
    "cursor_with_each_page": (cursor_of_a_short_page, True, False),
    "audit_data_on_rows": (audit_of_a_new_row, [({"action": "upsert"}, {}, "api")], []),
    "random_span_ids": (span_id_is_the_row_id, False, True),
    "post_writes_versions": (
        post_of_an_existing_slug,
        (True, False, False, "new", "old"),
        (True, True, True, "old", "old"),
    ),
    "whole_numbers_in_functions": (whole_number, 0, 1),
    "prompts_show_function_data": (function_data_of_a_prompt, {"type": "prompt"}, None),
    "tombstone_of_functions": (answer_of_delete, (True, False), (None, True)),
    "experiments_without_found_header": (
        header_of_an_existing_experiment,
        (True, False),
        (True, True),
    ),
    "groups_without_members": (members_of_a_new_group, False, True),
    "refusals_as_text": (refusal_of_the_control_plane, (400, True), (403, False)),
    "ids_are_checked": (refusal_of_a_word, (400, True), (403, False)),
    "logs3_answers_transaction": (answer_of_logs3, ["ids", "xact_id"], ["ids", "ok"]),
    "views_belong_to_caller": (user_of_a_new_view, True, False),
    "knows_october_2026": (
        what_october_added,
        (200, 200, 200, 200, 200, ["prod"], 200),
        (404, 404, 400, 404, 404, [], 400),
    ),
    "spans_show_facets": (facets_by_shape, [{"Task": "t"}] * 2, [None, {"Task": "t"}]),
    "datasets_have_tags": (tags_of_a_dataset, (200, False), (400, True)),
}


def test_each_switch_of_an_older_server_changes_the_sandbox() -> None:
    assert sorted(SEEN) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_switch_changes_what_a_client_sees(name: str) -> None:
    see, as_recorded, as_older = SEEN[name]
    found = []
    for behaviour in (recorded(), older()):
        with Sandbox() as sandbox:
            sandbox.store.behaviour = behaviour
            found.append(see(Scene(sandbox)))
    assert found == [as_recorded, as_older]


def test_an_unknown_switch_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ValueError, match="unknown switch 'x'; there are: cursor_with_each_page"):
        Sandbox(older=["x"])


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], False),
        (["--older"], True),
        (
            ["--older", "datasets_have_tags,ids_are_checked"],
            ["datasets_have_tags", "ids_are_checked"],
        ),
    ],
)
def test_the_program_takes_switches(words: List[str], found: Any) -> None:
    assert parser().parse_args(words).older == found


def test_a_switch_can_be_older_alone() -> None:
    sandbox = Sandbox(older=["datasets_have_tags"])
    assert not sandbox.behaviour.datasets_have_tags
    assert sandbox.behaviour.tombstone_of_functions


def test_an_older_sandbox_has_the_example_too(tmp_path: Path) -> None:
    """Its datasets have tags, which it takes from nobody else."""
    settings = tmp_path / "env"
    words = ["--example", "--older", "--write-env", str(settings)]
    args = [sys.executable, "-m", "bt_migrate.sandbox", *words]
    with subprocess.Popen(
        args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        said = server.stderr.readline()
        server.terminate()
    assert (said, server.returncode) == ("Serving until Ctrl-C.\n", 0)
    assert "BT_SOURCE_API_KEY" in settings.read_text(encoding="utf-8")
