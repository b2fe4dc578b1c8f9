"""The tiny organization: a few objects of each kind, 300 log rows."""

from __future__ import annotations

import random
from typing import Any, Dict, List, Sequence, Tuple

from bt_migrate.sandbox.data.schema import KINDS, Kind

Json = Dict[str, Any]

ANA, BEN = "ana@acme.example", "ben@acme.example"  # Ben is not in the destination
INLINE = {
    "type": "code",
    "data": {
        "type": "inline",
        "runtime_context": {"runtime": "node", "version": "20"},
        "code": "export default () => 1;\n",
    },
}
BUNDLE = {
    "type": "code",
    "data": {
        "type": "bundle",
        "runtime_context": {"runtime": "node", "version": "20"},
        "bundle_id": "3f0e5d0c-9a53-4d1d-8f1f-7c116f4b8a52",
        "location": {"type": "function", "index": 0},
    },
}
# kind -> why the tiny organization has no object of it
NOT_IN_TINY = {
    "dataset_snapshot": "has tests of its own: tests/migration/test_dataset_versions.py",
    "env_var": "has tests of its own: tests/objects/test_more_kinds.py",
}
# A value of each type of the schema. A kind that needs another type is created by hand.
VALUES = {"name": "tiny", "text": "tiny", "object": {"k": 1}, "number": 1, "texts": ["tiny"]}


def fill_tiny(org: Any) -> None:
    users = {user["email"]: user["id"] for user in org.objects("user")}
    engineer = next(role["id"] for role in org.objects("role") if role["name"] == "Engineer")
    alpha = org.create("project", {"name": "Alpha/α", "description": "first"})["id"]
    beta = org.create("project", {"name": "beta"})["id"]
    _fill_organization(org, users, engineer)
    questions = org.create(
        "dataset", {"project_id": alpha, "name": "questions", "metadata": {"n": 2**60 + 1}}
    )["id"]
    answers = org.create("dataset", {"project_id": beta, "name": "answers", "tags": ["x"]})["id"]
    scorer, prompt = _fill_definitions(org, alpha, beta)
    chain = _fill_experiments(org, alpha, beta, questions)
    _fill_rows(org, (alpha, beta), (questions, answers), chain, prompt, users)
    _fill_settings(org, (alpha, beta), scorer, chain, users)
    _fill_views(org, (alpha, beta), chain[0], users[BEN])
    _fill_acls(org, alpha, questions, users)
    for kind in KINDS.values():
        is_made = kind.post and kind.path and not kind.is_later and kind.name not in NOT_IN_TINY
        if is_made and not org.objects(kind.name):
            org.create(kind.name, _by_schema(org, kind, alpha))


def _by_schema(org: Any, kind: Kind, project: str) -> Json:
    """What the schema requires of an object, in or on the project, and a target for each id."""
    needed = {name: kind.create[name] for name in kind.required}
    body = {name: VALUES[needed[name]] for name in needed if needed[name] in VALUES}
    for path, target in kind.links:
        if target.startswith("@"):
            body.update({target[1:]: "project", path: project})
        elif kind.create.get(path) == "id":
            body[path] = project if target == "project" else org.objects(target)[0]["id"]
    return body


def _fill_organization(org: Any, users: Dict[str, str], engineer: str) -> None:
    org.create("ai_secret", {"name": "OPENAI", "type": "openai", "secret": "never-to-be-read"})
    org.create("environment", {"name": "Production", "slug": "production"})
    inner = org.create("role", {"name": "inner", "member_permissions": [{"permission": "read"}]})[
        "id"
    ]
    org.create("role", {"name": "outer", "member_roles": [inner, engineer]})
    people = org.create("group", {"name": "people", "member_users": [users[ANA], users[BEN]]})["id"]
    org.create("group", {"name": "everybody", "member_groups": [people]})


def _fill_definitions(org: Any, alpha: str, beta: str) -> Tuple[str, str]:
    """(a scorer, a prompt); two functions use each other, so one of them needs a second pass."""
    org.create("project_tag", {"project_id": alpha, "name": "red", "color": "#FF0000"})
    org.create("project_tag", {"project_id": alpha, "name": "blue", "color": "#0000FF"})
    org.create(
        "span_iframe", {"project_id": alpha, "name": "frame", "url": "https://frame.example/{{id}}"}
    )
    server = org.create(
        "mcp_server", {"project_id": beta, "name": "mcp", "url": "https://mcp.example"}
    )["id"]
    org.create("agent", {"project_id": beta, "name": "agent", "metadata": {"k": 1.0}})
    scorer = function(org, alpha, "scorer", INLINE, function_type="scorer")
    function(org, alpha, "bundled", BUNDLE, function_type="tool")
    graph = {"type": "graph", "nodes": {}, "edges": {}}
    first = function(org, alpha, "first", graph)
    second = function(
        org,
        alpha,
        "second",
        {**graph, "nodes": {"n": {"type": "function", "function": {"function_id": first}}}},
    )
    nodes = {"n": {"type": "function", "function": {"function_id": second}}}
    org.patch("function", first, {"function_data": {**graph, "nodes": nodes}})
    data = {
        "prompt": {"type": "completion", "content": "{{q}}"},
        "tool_functions": [{"type": "function", "id": scorer}],
    }
    data["mcp"] = {"m": {"type": "id", "id": server}}
    prompt = org.create(
        "prompt", {"project_id": beta, "name": "Ask", "slug": "ask", "prompt_data": data}
    )["id"]
    return scorer, prompt


def function(org: Any, project_id: str, slug: str, data: Json, **fields: Any) -> str:
    body = {
        "project_id": project_id,
        "name": slug.title(),
        "slug": slug,
        "function_data": data,
        **fields,
    }
    return str(org.create("function", body)["id"])


def _fill_experiments(org: Any, alpha: str, beta: str, dataset: str) -> List[str]:
    """Three experiments, each the base of the next, listed in another order."""
    last = org.create("experiment", {"project_id": beta, "name": "last"})["id"]
    first = org.create(
        "experiment", {"project_id": alpha, "name": "first", "dataset_id": dataset, "public": True}
    )["id"]
    middle = org.create(
        "experiment", {"project_id": alpha, "name": "middle", "base_exp_id": first}
    )["id"]
    org.patch("experiment", last, {"base_exp_id": middle})
    return [first, middle, last]


def _fill_rows(
    org: Any,
    projects: Sequence[str],
    datasets: Sequence[str],
    chain: Sequence[str],
    prompt: str,
    users: Dict[str, str],
) -> None:
    rng = random.Random(11)
    picture = org.attach(
        b"\x89PNG" + bytes(range(256)) * 40, filename="a.png", content_type="image/png"
    )
    notes = org.attach("Notizen: ü".encode(), filename="notes.txt", content_type="text/plain")
    for dataset in datasets:
        rows = [
            {"id": f"case {i}", "input": {"q": i, "w": -0.0}, "expected": rng.random()}
            for i in range(45)
        ]
        rows[3]["metadata"] = {"file": picture}
        org.insert("dataset", dataset, rows[:30])
        org.insert("dataset", dataset, rows[30:])
    for experiment in chain:
        _fill_experiment(org, rng, experiment, datasets[0], [notes, {"again": picture}])
    version = org.objects("prompt")[-1]["_xact_id"]
    reference = {"id": prompt, "project_id": projects[1], "version": version, "variables": {}}
    names = {"an id that is text": f"in {projects[0]}", "lone": "\ud83d"}
    odd = {
        7: {"input": {"see": picture}, "error": "boom", "facets": {"Task": "t"}},
        8: {"metadata": {"prompt": reference}},
        9: {"metadata": {"~__bt_assignments": [users[ANA], users[BEN]], "which": datasets[1]}},
        10: {"input": {**names, "nulls": [None, {"a": None}]}},
    }
    for project, count in zip(projects, (250, 50)):
        rows = [
            _span(rng, f"{i:04}", input=f"text {i} \U0001f600", tags=["x"]) for i in range(count)
        ]
        _insert_logs(org, project, rows, odd)


def _insert_logs(org: Any, project: str, rows: Sequence[Json], odd: Dict[int, Json]) -> None:
    """`odd`: position -> fields of rows that are not like the others."""
    for place, fields in odd.items():
        rows[place].update(fields)
    for start in range(0, len(rows), 40):
        org.insert("project_logs", project, rows[start : start + 40])


def _fill_experiment(
    org: Any, rng: random.Random, experiment: str, dataset: str, output: Sequence[Any]
) -> None:
    """Rows that name the rows of a dataset as their origins; one of them has this output."""
    cases = org.rows("dataset", dataset)
    rows = [
        _span(rng, f"e{i}", output={"a": 2**64 + i}, scores={"s": rng.random()}) for i in range(30)
    ]
    for row, case in zip(rows, cases):
        version = {"id": case["id"], "_xact_id": case["_xact_id"], "created": case["created"]}
        row["origin"] = {"object_type": "dataset", "object_id": dataset, **version}
    rows[5]["output"] = output
    org.insert("experiment", experiment, rows)


def _span(rng: random.Random, row_id: str, **fields: Any) -> Json:
    created = f"2025-10-{rng.randrange(1, 29):02}T08:30:00.{rng.randrange(1000):03}Z"
    begins = 1.7e9 + rng.random()
    row = {
        "id": row_id,
        "span_id": "s" + row_id,
        "root_span_id": "s" + row_id,
        "span_parents": [],
        "created": created,
    }
    return {
        **row,
        "metrics": {"start": begins, "end": begins + 1},
        "span_attributes": {"name": "n", "type": "llm"},
        **fields,
    }


def _fill_settings(
    org: Any, projects: Sequence[str], scorer: str, chain: Sequence[str], users: Dict[str, str]
) -> None:
    """References to experiments, and what reacts to data."""
    alpha, beta = projects
    group = org.objects("group")[0]["id"]
    origin = {"object_type": "experiment", "object_id": chain[0], "internal": True}
    function(org, beta, "made-from", INLINE, function_type="scorer", origin=origin)
    shown = {"visibility": {"users": [users[BEN], users[ANA]], "groups": [group]}}
    org.create(
        "project_score",
        {"project_id": alpha, "name": "Rating", "score_type": "slider", "config": shown},
    )
    online = {"online": {"sampling_rate": 0.5, "scorers": [{"type": "function", "id": scorer}]}}
    org.create(
        "project_score",
        {"project_id": alpha, "name": "Online", "score_type": "online", "config": online},
    )
    alert = {
        "event_type": "logs",
        "btql_filter": "true",
        "interval_seconds": 60,
        "action": {"type": "webhook", "url": "https://hook.example"},
    }
    org.create("project_automation", {"project_id": beta, "name": "Alert", "config": alert})
    org.patch(
        "project",
        alpha,
        {"settings": {"comparison_key": "input", "baseline_experiment_id": chain[1]}},
    )


def _fill_views(org: Any, projects: Sequence[str], experiment: str, user: str) -> None:
    alpha, beta = projects
    owner = {"object_type": "project", "object_id": alpha}
    org.create("view", {**owner, "view_type": "logs", "name": "mine", "user_id": user})
    options = {"viewType": "monitor", "options": {"projectId": beta}}
    org.create("view", {**owner, "view_type": "monitor", "name": "costs", "options": options})
    org.create(
        "view",
        {
            "object_type": "experiment",
            "object_id": experiment,
            "view_type": "experiment",
            "name": "costs",
        },
    )
    for object_type, object_id, view_type in (
        ("project_log", beta, "logs"),
        ("org_project", org.id, "projects"),
        ("organization", org.id, "projects"),
    ):
        org.create(
            "view",
            {
                "object_type": object_type,
                "object_id": object_id,
                "view_type": view_type,
                "name": f"on {object_type}",
            },
        )


def _fill_acls(org: Any, project: str, dataset: str, users: Dict[str, str]) -> None:
    group = org.objects("group")[0]["id"]
    role = next(obj["id"] for obj in org.objects("role") if obj["name"] == "outer")
    owner = {"object_type": "project", "object_id": project}
    org.create("acl", {**owner, "group_id": group, "permission": "read"})
    org.create("acl", {**owner, "user_id": users[BEN], "permission": "update"})
    org.create(
        "acl",
        {"object_type": "dataset", "object_id": dataset, "user_id": users[ANA], "role_id": role},
    )
    org.create(
        "acl",
        {
            "object_type": "organization",
            "object_id": org.id,
            "group_id": group,
            "permission": "read",
        },
    )
