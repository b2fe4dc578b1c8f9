"""Routes of attachments, and those that only the official SDKs use."""

from __future__ import annotations

from typing import Any, Optional, Tuple

import bt_migrate.sandbox.data.objects as objects
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.errors import Refused, forbidden
from bt_migrate.sandbox.data.files import Attachment
from bt_migrate.sandbox.data.rows import Json
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.data.store import Org
from bt_migrate.sandbox.routes.calls import Api, Call, json_answer


def org_of(api: Api, call: Call, org_id: Any) -> str:
    if org_id not in call.key.org_ids:
        raise forbidden("organization '%s'" % org_id)
    call.org_name = api.store.orgs[org_id].name
    return str(org_id)


def attachment_upload(api: Api, call: Call) -> Answer:
    body = call.fields()
    for name in ("key", "filename", "content_type", "org_id"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise Refused(400, "required field '%s' is missing" % name)
    place = (org_of(api, call, body["org_id"]), body["key"])
    api.files.attachments[place] = Attachment(body["key"], body["filename"], body["content_type"])
    url = api.files.sign("PUT", call.org_name, place, body["content_type"])
    return json_answer(
        {"signedUrl": url, "headers": {"Content-Type": body["content_type"]}}, changed=True
    )


def attachment_status(api: Api, call: Call) -> Answer:
    body = call.fields()
    status = body.get("status")
    if not isinstance(status, dict) or status.get("upload_status") not in (
        "done",
        "error",
        "uploading",
    ):
        raise Refused(400, "status: expected an upload_status")
    attachment = find_attachment(api, call, body.get("org_id"), body.get("key"))
    attachment.upload_status = status["upload_status"]
    attachment.error_message = status.get("error_message")
    return json_answer({"status": "success"}, changed=True)


def attachment_download(api: Api, call: Call) -> Answer:
    values = {name: value[0] for name, value in call.query.items()}
    for name in ("key", "filename", "content_type"):
        if not values.get(name):
            raise Refused(400, "required parameter '%s' is missing" % name)
    attachment = find_attachment(
        api, call, values.get("org_id") or call.key.org_ids[0], values["key"]
    )
    place = (org_of(api, call, values.get("org_id") or call.key.org_ids[0]), attachment.key)
    status: Json = {"upload_status": attachment.upload_status}
    if attachment.error_message:
        status["error_message"] = attachment.error_message
    url = api.files.sign("GET", call.org_name, place, values["content_type"])
    return json_answer({"downloadUrl": url, "status": status})


def find_attachment(api: Api, call: Call, org_id: Any, key: Any) -> Attachment:
    found = api.files.attachments.get((org_of(api, call, org_id), str(key)))
    if found is None:
        raise Refused(
            404, {"Code": "NotFoundError", "Message": "Attachment not found", "Path": call.path}
        )
    return found


# The app plane, and what else only the official SDKs ask for ------------------------------------------


def login(api: Api, call: Call) -> Answer:
    orgs = [api.store.orgs[org_id] for org_id in call.key.org_ids]
    found = [
        {"id": org.id, "name": org.name, "api_url": api.url, "proxy_url": api.url} for org in orgs
    ]
    return json_answer({"org_info": found})


def _org(api: Api, call: Call, body: Json) -> Org:
    """The organization that org_id or org_name of an SDK's body names; else the key's first."""
    wanted = body.get("org_id") or body.get("org_name") or call.key.org_ids[0]
    org = api.store.org_by_name(call.key.org_ids, wanted)
    call.org_name = org.name
    return org


def _project(api: Api, org: Org, body: Json) -> Tuple[Json, bool]:
    """The project of an SDK's body, made if there is none of that name; and whether it was there."""
    if body.get("project_id"):
        return objects.get(api.store, (org.id,), KINDS["project"], body["project_id"]).data, True
    values = {"name": body.get("project_name") or "Global"}
    entry, found = objects.create(api.store, org, KINDS["project"], values)
    return entry.data, found


def _named(data: Json) -> Json:
    return {"id": data["id"], "name": data["name"], "created": data["created"]}


def register_project(api: Api, call: Call) -> Answer:
    body = call.fields()
    with api.store.lock:
        project, found = _project(api, _org(api, call, body), body)
        return json_answer({"project": _named(project)}, changed=not found)


def project_by_id(api: Api, call: Call) -> Answer:
    with api.store.lock:
        entry = objects.get(api.store, call.key.org_ids, KINDS["project"], call.parameter("id"))
        return json_answer({"id": entry.data["id"], "name": entry.data["name"]})


REGISTERED = {
    "experiment": "description repo_info base_exp_id dataset_id dataset_version public metadata tags".split(),
    "dataset": "description metadata tags".split(),
}


def _register(api: Api, call: Call, kind: str) -> Answer:
    body = call.fields()
    with api.store.lock:
        org = _org(api, call, body)
        project, had_project = _project(api, org, body)
        values = {name: body[name] for name in REGISTERED[kind] if body.get(name) is not None}
        values.update(
            project_id=project["id"], name=body.get(kind + "_name") or _default_name(kind)
        )
        if kind == "experiment":
            values.update(_experiment_values(api, project, body))
        entry, found = objects.create(api.store, org, KINDS[kind], values)
        answer = {"project": _named(project), kind: _named(entry.data)}
        return json_answer(answer, changed=not (found and had_project))


def _default_name(kind: str) -> Optional[str]:
    return "logs" if kind == "dataset" else None


def _experiment_values(api: Api, project: Json, body: Json) -> Json:
    """A new experiment unless it is an update; its base may be named."""
    values: Json = {"ensure_new": not body.get("update")}
    if body.get("base_experiment") and not body.get("base_exp_id"):
        key = ("experiment", "project_id", "name", project["id"], body["base_experiment"])
        if key not in api.store.index:
            raise Refused(400, "base experiment '%s' was not found" % body["base_experiment"])
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
        return json_answer([objects.render(KINDS["experiment"], entry) for entry in found])


def base_experiment(api: Api, call: Call) -> Answer:
    with api.store.lock:
        entry = objects.get(
            api.store, call.key.org_ids, KINDS["experiment"], str(call.fields().get("id"))
        )
        base = api.store.entries["experiment"].get(entry.data["base_exp_id"])
    if base is None:
        raise Refused(400, "there is no base experiment")
    return json_answer({"base_exp_id": base.data["id"], "base_exp_name": base.data["name"]})
