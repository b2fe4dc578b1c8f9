"""Routes that only the official SDKs use: `serve_sdk(sandbox)` adds them to a sandbox."""

from __future__ import annotations

from typing import Callable, Mapping, Optional, Tuple

import bt_migrate.sandbox.data.inserts as inserts
import bt_migrate.sandbox.data.objects as objects
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.errors import Refused
from bt_migrate.sandbox.data.rows import Json
from bt_migrate.sandbox.data.schema import KINDS, is_id
from bt_migrate.sandbox.data.store import Entry, Org
from bt_migrate.sandbox.http.server import Sandbox
from bt_migrate.sandbox.routes.calls import Api, Call, json_answer
from bt_migrate.sandbox.routes.objects import BAD_ID
from bt_migrate.sandbox.routes.summaries import base_of, comparison

# In the problem of an id in a body there is no number of the parameter.
BAD_ID_INDEX = ",\n      0"


def _org(api: Api, call: Call, body: Json) -> Org:
    """The organization that org_id or org_name of an SDK's body names; else the key's first."""
    wanted = body.get("org_id") or body.get("org_name") or call.key.org_ids[0]
    org = api.store.org_by_name(call.key.org_ids, wanted)
    call.org_name = org.name
    return org


def _project(api: Api, org: Org, body: Json) -> Tuple[Entry, bool]:
    """The project that an SDK's body names, created if needed, and whether it existed."""
    if body.get("project_id"):
        return objects.get(api.store, (org.id,), KINDS["project"], body["project_id"]), True
    values = {"name": body.get("project_name") or "Global"}
    return objects.create(api.store, org, KINDS["project"], values)


def _shown(api: Api, kind: str, entry: Entry) -> Json:
    return objects.render(KINDS[kind], entry, api.store.behaviour)


def register_project(api: Api, call: Call) -> Answer:
    body = call.fields()
    with api.store.lock:
        project, found = _project(api, _org(api, call, body), body)
        return json_answer({"project": _shown(api, "project", project)}, changed=not found)


def project_by_id(api: Api, call: Call) -> Answer:
    with api.store.lock:
        entry = objects.get(api.store, call.key.org_ids, KINDS["project"], call.parameter("id"))
        return json_answer({"id": entry.data["id"], "name": entry.data["name"]})


REGISTERED = {
    "experiment": (
        "description repo_info base_exp_id dataset_id dataset_version public metadata tags"
    ).split(),
    "dataset": "description metadata tags".split(),
}


def _register(api: Api, call: Call, kind: str) -> Answer:
    body = call.fields()
    with api.store.lock:
        org = _org(api, call, body)
        project, had_project = _project(api, org, body)
        values = {name: body[name] for name in REGISTERED[kind] if body.get(name) is not None}
        values.update(
            project_id=project.data["id"],
            name=body.get(kind + "_name") or _default_name(api, kind, body),
        )
        if kind == "experiment":
            values.update(_experiment_values(api, project.data, body))
        entry, found = objects.create(api.store, org, KINDS[kind], values)
        answer: Json = {
            "project": _shown(api, "project", project),
            kind: _shown(api, kind, entry),
        }
        if kind == "dataset":
            answer["found_existing"] = found
        return json_answer(answer, changed=not (found and had_project))


def _default_name(api: Api, kind: str, body: Json) -> Optional[str]:
    """An experiment is called after the branch and the time."""
    branch = (body.get("repo_info") or {}).get("branch")
    if kind == "dataset":
        return "logs"
    return "%s-%d" % (branch, api.store.clock.seconds()) if branch else None


def _experiment_values(api: Api, project: Json, body: Json) -> Json:
    """A new experiment unless it is an update; its base may be named."""
    values: Json = {"ensure_new": not body.get("update")}
    if body.get("base_experiment") and not body.get("base_exp_id"):
        key = ("experiment", "project_id", "name", project["id"], body["base_experiment"])
        if key not in api.store.index:
            raise Refused(400, "base experiment '{}' was not found".format(body["base_experiment"]))
        values["base_exp_id"] = api.store.index[key].data["id"]
    return values


def register_experiment(api: Api, call: Call) -> Answer:
    return _register(api, call, "experiment")


def register_dataset(api: Api, call: Call) -> Answer:
    return _register(api, call, "dataset")


def find_experiment(api: Api, call: Call) -> Answer:
    body = call.fields()
    names = {
        "experiment_name": "experiment_name",
        "project_name": "project_name",
        "project_id": "project_id",
    }
    query = {name: [body[name]] for name in names if body.get(name)}
    with api.store.lock:
        found = objects.list_all(api.store, call.key.org_ids, KINDS["experiment"], query)
        return json_answer(
            [objects.render(KINDS["experiment"], entry, api.store.behaviour) for entry in found]
        )


def base_experiment(api: Api, call: Call) -> Answer:
    experiment_id = str(call.fields().get("id"))
    if not is_id(experiment_id):
        raise Refused(400, BAD_ID.replace(BAD_ID_INDEX, ""))
    with api.store.lock:
        entry = objects.get(api.store, call.key.org_ids, KINDS["experiment"], experiment_id)
        base = base_of(api.store, call, entry)
    if base is None:
        raise Refused(400, "there is no base experiment")
    shown = {name: entry.data[name] for name in ("id", "project_id", "name")}
    shown.update(base_exp_id=base.data["id"], base_exp_name=base.data["name"])
    return json_answer(shown)


def compare_experiments(api: Api, call: Call) -> Answer:
    base_id = call.parameter("base_experiment_id") or None
    with api.store.lock:
        experiment_id = call.parameter("experiment_id")
        return json_answer(comparison(api.store, call.key.org_ids, experiment_id, base_id))


def summarize_dataset(api: Api, call: Call) -> Answer:
    with api.store.lock:
        rows = inserts.row_set(api.store, call.key.org_ids, "dataset", call.parameter("dataset_id"))
        return json_answer({"total_records": len(rows.rows)})


def dataset_by_name(api: Api, call: Call) -> Answer:
    """GET or POST /api/dataset/get: one dataset, by its id or by names."""
    names = ("id", "dataset_name", "project_name", "project_id")
    query = {name: call.query[name] for name in names if name in call.query}
    with api.store.lock:
        found = objects.list_all(api.store, call.key.org_ids, KINDS["dataset"], query)
        values = [objects.render(KINDS["dataset"], entry, api.store.behaviour) for entry in found]
    return json_answer(values[0] if len(values) == 1 else values)


ROUTES: Mapping[Tuple[str, str], Callable[[Api, Call], Answer]] = {
    ("POST", "/api/project/register"): register_project,
    ("GET", "/api/project"): project_by_id,
    ("POST", "/api/experiment/register"): register_experiment,
    ("POST", "/api/experiment/get"): find_experiment,
    ("POST", "/api/dataset/register"): register_dataset,
    ("GET", "/api/dataset/get"): dataset_by_name,
    ("POST", "/api/base_experiment/get_id"): base_experiment,
    ("GET", "/experiment-comparison2"): compare_experiments,
    ("GET", "/dataset-summary"): summarize_dataset,
}


def serve_sdk(sandbox: Sandbox) -> None:
    sandbox.api.extra_routes.update(ROUTES)
