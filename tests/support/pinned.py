"""An organization with a prompt of five versions, which tools, environments, and rows pin."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, List

from tests.support.orgs import ANA, DATA_PLANE, DEST_KEY, SOURCE_KEY, Pair, WatchedSandbox

Json = Dict[str, Any]
# Environment -> the version (from 0) that it is assigned to.
ASSIGNED = {"production": 2, "staging": 3, "dev": 4}


@contextlib.contextmanager
def pinned_pair() -> Iterator[Pair]:
    with WatchedSandbox() as sandbox:
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[{"email": ANA}])
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=[{"email": ANA}])
        fill_pinned(source)
        yield Pair(sandbox, source, dest)


def text(number: int) -> Json:
    message = {"role": "user", "content": f"Version {number} for {{{{name}}}}"}
    return {"prompt": {"type": "chat", "messages": [message]}, "options": {"model": "gpt-4o"}}


def fill_pinned(org: Any) -> None:
    for slug in ASSIGNED:
        org.create("environment", {"name": slug.title(), "slug": slug})
    project = org.create("project", {"name": "Alpha"})["id"]
    greet = prompt_of_five(org, project)
    versions = [version["_xact_id"] for version in org.versions("prompt", greet)]
    for slug, number in ASSIGNED.items():
        org.assign(greet, slug, versions[number])
    _tools(org, project, greet, versions)
    settings = _parameters(org, project)
    experiment = {
        "project_id": project,
        "name": "tuned",
        "parameters_id": settings[0]["id"],
        "parameters_version": settings[1]["_xact_id"],
    }
    org.create("experiment", experiment)
    origin = {"object_type": "prompt", "object_id": greet, "id": greet, "_xact_id": versions[1]}
    prompt = {"id": greet, "project_id": project, "version": versions[0], "variables": {"n": 1}}
    org.insert(
        "project_logs",
        project,
        [
            {"id": "built", "input": 1, "metadata": {"prompt": prompt}},
            {"id": "picked", "input": 2, "origin": origin},
        ],
    )
    dataset = org.create("dataset", {"project_id": project, "name": "questions"})["id"]
    org.insert("dataset", dataset, [{"id": "early", "input": 3, "origin": origin}])


def prompt_of_five(org: Any, project: str) -> str:
    """Its third version has the content of the first, and its fourth another name."""
    body = {"project_id": project, "name": "Greet", "slug": "greet", "prompt_data": text(1)}
    greet = str(org.create("prompt", body)["id"])
    for change in ({"prompt_data": text(2)}, {"prompt_data": text(1)}, {"name": "Greeting"}):
        org.patch("prompt", greet, change)
    org.patch("prompt", greet, {"prompt_data": text(5), "description": "the last one"})
    return greet


def _tools(org: Any, project: str, greet: str, versions: List[str]) -> None:
    """Two tools that use each other, by turns: only in the order of time nothing is left out."""

    def tool(name: str, **more: Any) -> str:
        data = {**text(0), "tool_functions": [{"type": "function", "id": greet, **more}]}
        body = {"project_id": project, "name": name, "slug": name, "function_type": "tool"}
        body = {**body, "function_data": {"type": "prompt"}, "prompt_data": data}
        return str(org.create("function", body)["id"])

    first = tool("first", version=versions[1])
    second = tool("second")
    for object_id, other_id in ((first, second), (second, first)):
        pin = org.versions("function", other_id)[0]["_xact_id"]
        uses = [{"type": "function", "id": other_id, "version": pin}]
        org.patch("function", object_id, {"prompt_data": {"tool_functions": uses}})


def _parameters(org: Any, project: str) -> List[Json]:
    body = {"project_id": project, "name": "Tuning", "slug": "tuning"}
    body["function_type"] = "parameters"

    def data(words: int) -> Json:
        schema = {"type": "object", "properties": {"words": {"type": "number"}}}
        return {"type": "parameters", "data": {"words": words}, "__schema": schema}

    made = org.create("function", {**body, "function_data": data(10)})
    for words in (20, 30):
        org.patch("function", made["id"], {"function_data": data(words)})
    return list(org.versions("function", made["id"]))


# -- what is pinned, by content


def pinned_content(org: Any) -> Dict[str, Any]:
    """Each pin -> the content of the version that it names; ids by name."""
    found: Dict[str, Any] = {}
    by_id = _versions_by_id(org)
    greet = _named(org, "prompt", "greet")
    # An older data plane shows no assignments: they neither move nor are missed.
    assignments = {} if DATA_PLANE.older else org.assignments(greet["id"])
    for slug, version in assignments.items():
        found[f"environment {slug}"] = by_id[greet["id"]][version]
    for function in org.objects("function"):
        for tool in (function["prompt_data"] or {}).get("tool_functions") or []:
            pinned = by_id[tool["id"]]
            found[f"tool of {function['slug']}"] = pinned.get(tool.get("version"), "latest")
    for experiment in org.objects("experiment"):
        pinned = by_id[experiment["parameters_id"]]
        found["experiment"] = pinned.get(experiment["parameters_version"], "latest")
    rows = [
        row for project in org.objects("project") for row in org.rows("project_logs", project["id"])
    ]
    rows += [
        row for dataset in org.objects("dataset") for row in org.rows("dataset", dataset["id"])
    ]
    for row in rows:
        prompt, origin = (row["metadata"] or {}).get("prompt"), row["origin"]
        if prompt:
            found[f"row {row['id']}"] = by_id[prompt["id"]].get(prompt.get("version"), "latest")
        if origin:
            found[f"row {row['id']}"] = by_id[origin["object_id"]].get(
                origin.get("_xact_id"), "latest"
            )
    return found


def histories(org: Any) -> Dict[str, List[Any]]:
    """Slug -> the content of all versions, oldest first."""
    return {
        obj["slug"]: list(_versions_by_id(org)[obj["id"]].values())
        for kind in ("prompt", "function")
        for obj in org.objects(kind)
    }


def _versions_by_id(org: Any) -> Dict[str, Dict[str, Json]]:
    """Object id -> transaction -> content, oldest first; ids and versions inside are left out."""
    kinds = {obj["id"]: kind for kind in ("prompt", "function") for obj in org.objects(kind)}
    slugs = {obj["id"]: obj["slug"] for kind in ("prompt", "function") for obj in org.objects(kind)}
    order = {
        version["_xact_id"]: f"{slugs[object_id]} {number}"
        for object_id, kind in kinds.items()
        for number, version in enumerate(org.versions(kind, object_id))
    }
    return {
        object_id: {
            version["_xact_id"]: _content(version, slugs, order)
            for version in org.versions(kind, object_id)
        }
        for object_id, kind in kinds.items()
    }


def _content(version: Json, slugs: Dict[str, str], order: Dict[str, str]) -> Json:
    """The content with names for ids and versions."""

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: named(item) for key, item in value.items()}
        if isinstance(value, list):
            return [named(item) for item in value]
        return order.get(value, slugs.get(value, value)) if isinstance(value, str) else value

    fields = ("name", "slug", "description", "prompt_data", "function_data", "tags")
    return {name: named(version.get(name)) for name in fields}


def _named(org: Any, kind: str, slug: str) -> Json:
    return next(dict(obj) for obj in org.objects(kind) if obj["slug"] == slug)
