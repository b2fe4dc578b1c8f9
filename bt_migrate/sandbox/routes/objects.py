"""Routes of objects: lists, create, replace, change, delete, and the irregular ones."""

from __future__ import annotations

import json
from typing import Any, List

import bt_migrate.sandbox.data.objects as objects
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.errors import Missing, Refused
from bt_migrate.sandbox.data.rows import Json
from bt_migrate.sandbox.data.schema import KINDS, Kind, is_id
from bt_migrate.sandbox.data.store import ORG_SETTINGS, Entry
from bt_migrate.sandbox.routes.calls import Api, Call, json_answer, note_org, target_org

# The validation problem of an id that is no UUID.
BAD_ID = json.dumps(
    [
        {
            "validation": "uuid",
            "code": "invalid_string",
            "message": "Invalid uuid",
            "path": ["id", 0],
        }
    ],
    indent=2,
)


def _kind(api: Api, name: str) -> Kind:
    kind = KINDS.get(name)
    unknown = kind is not None and kind.is_later and not api.store.behaviour.knows_october_2026
    if kind is None or kind.path is None or unknown:
        raise Refused(404, f"Not found: /v1/{name}")
    return kind


def collection(api: Api, call: Call, kind_name: str) -> Answer:
    kind = _kind(api, kind_name)
    if call.method == "GET":
        with api.store.lock:
            entries = objects.list_page(api.store, call.key.org_ids, kind, call.query)
            versions = [
                version_of(api, call, kind, entry) for entry in single_of_environment(call, entries)
            ]
        return json_answer({"objects": versions})
    allowed = {"POST": kind.post, "PUT": kind.put}.get(call.method, False)
    if call.method == "DELETE" and kind.name in ("acl", "ai_secret"):
        return json_answer(delete_by_body(api, call, kind, call.body()), changed=True)
    if not allowed:
        raise Refused(405, f"{call.method} is not allowed on {call.path}")
    body = call.body()
    with api.store.lock:
        org = target_org(api, call, kind, body)
        entry, existed = objects.create(api.store, org, kind, body, replace=call.method == "PUT")
        behaviour = api.store.behaviour
        value = objects.render(kind, entry, behaviour)
        if call.method == "POST":
            value = objects.created_answer(kind, entry, body, behaviour)
    silent = kind.name == "experiment" and behaviour.experiments_without_found_header
    headers = {"x-bt-found-existing": "true"} if existed and not silent else {}
    return json_answer(value, changed=not existed or call.method == "PUT", headers=headers)


def single(api: Api, call: Call, kind_name: str, object_id: str) -> Answer:
    kind = _kind(api, kind_name)
    if api.store.behaviour.ids_are_checked and not is_id(object_id):
        raise Refused(400, BAD_ID)
    owner = {name: values[0] for name, values in call.query.items()}
    with api.store.lock:
        if call.method == "GET":
            entry = objects.get(api.store, call.key.org_ids, kind, object_id, owner)
            note_org(api, call, entry)
            return json_answer(version_of(api, call, kind, entry))
        if call.method == "PATCH" and kind.patch:
            entry = objects.patch(api.store, call.key.org_ids, kind, object_id, call.body())
            note_org(api, call, entry)
            return json_answer(objects.render(kind, entry, api.store.behaviour), changed=True)
        if call.method == "DELETE" and (kind.post or kind.name in ("api_key", "service_token")):
            entry = objects.find_to_delete(
                api.store, call.key.org_ids, kind, object_id, call.body()
            )
            note_org(api, call, entry)
            gone = objects.delete(api.store, call.key.org_ids, kind, object_id, call.body())
            return json_answer(gone, changed=True)
    raise Refused(405, f"{call.method} is not allowed on {call.path}")


def in_project(
    api: Api, call: Call, project_id: str, kind_name: str, object_id: str = ""
) -> Answer:
    """The routes of a kind whose path names its project: the body does not."""
    kind = KINDS.get(kind_name)
    if kind is None or not kind.in_project or not api.store.behaviour.knows_october_2026:
        raise Refused(404, f"Not found: {call.method} {call.path}")
    with api.store.lock:
        project = objects.get(api.store, call.key.org_ids, KINDS["project"], project_id)
        note_org(api, call, project)
        if object_id:
            entry = objects.get(api.store, call.key.org_ids, kind, object_id)
            if entry.data["project_id"] != project_id:
                raise Missing(kind_name, object_id)
            return _single_in_project(api, call, kind, entry)
        if call.method == "GET":
            entries = objects.list_all(api.store, call.key.org_ids, kind, call.query)
            inside = [entry for entry in entries if entry.data["project_id"] == project_id]
            page = objects.select_page(inside, call.query)
            shown = [objects.render(kind, entry, api.store.behaviour) for entry in page]
            return json_answer({"objects": shown})
        body = call.body()
        if call.method != "POST" or not isinstance(body, dict) or "project_id" in body:
            raise Refused(400, "Extraneous key 'project_id' at path []")
        org = api.store.orgs[str(project.org_id)]
        made, found_it = objects.create(api.store, org, kind, {**body, "project_id": project_id})
        headers = {"x-bt-found-existing": "true"} if found_it else {}
        value = objects.render(kind, made, api.store.behaviour)
        return json_answer(value, changed=not found_it, headers=headers)


def _single_in_project(api: Api, call: Call, kind: Kind, entry: Entry) -> Answer:
    object_id = entry.data["id"]
    if call.method == "PATCH":
        entry = objects.patch(api.store, call.key.org_ids, kind, object_id, call.body())
    elif call.method == "DELETE":
        gone = objects.delete(api.store, call.key.org_ids, kind, object_id)
        return json_answer(gone, changed=True)
    elif call.method != "GET":
        raise Refused(405, f"{call.method} is not allowed on {call.path}")
    value = objects.render(kind, entry, api.store.behaviour)
    return json_answer(value, changed=call.method == "PATCH")


def version_of(api: Api, call: Call, kind: Kind, entry: Entry) -> Json:
    """The object, or for prompts and functions its state at ?version or in ?environment."""
    version, environment = call.parameter("version"), call.parameter("environment")
    if kind.store != "function" or not (version or environment):
        return objects.render(kind, entry, api.store.behaviour)
    if version and environment:
        raise Refused(400, "environment cannot be used together with version")
    if environment and environment not in entry.environments:
        raise Refused(400, f"no version is assigned to environment '{environment}'")
    data = objects.at_version(entry, version or entry.environments[environment])
    state = Entry(entry.store, entry.org_id, entry.number, data)
    return objects.render(kind, state, api.store.behaviour)


def single_of_environment(call: Call, entries: List[Entry]) -> List[Entry]:
    if call.query.get("environment") and len(entries) != 1:
        raise Refused(400, f"environment: expected exactly one match, found {len(entries)}")
    return entries


def delete_by_body(api: Api, call: Call, kind: Kind, body: Any) -> Json:
    """Delete the object that a body describes; what it was."""
    fields = list(kind.create) if kind.name == "acl" else ["name", "org_name"]
    if not isinstance(body, dict) or set(body) - set(fields):
        raise Refused(400, "unrecognized fields in the body")
    wanted = {name: body.get(name) for name in fields if name != "org_name"}
    with api.store.lock:
        for entry in objects.list_all(api.store, call.key.org_ids, kind, {}):
            if all(entry.data.get(name) == value for name, value in wanted.items()):
                note_org(api, call, entry)
                return objects.delete(api.store, call.key.org_ids, kind, entry.data["id"])
    raise Refused(400, f"{kind.name}: no object with these values")


def acl_list_org(api: Api, call: Call) -> Answer:
    with api.store.lock:
        entries = objects.list_all(api.store, call.key.org_ids, KINDS["acl"], call.query)
        page = objects.select_page(entries, call.query)
        return json_answer(
            [objects.render(KINDS["acl"], entry, api.store.behaviour) for entry in page]
        )


def acl_batch_update(api: Api, call: Call) -> Answer:
    body = call.body()
    if not isinstance(body, dict) or set(body) - {"add_acls", "remove_acls"}:
        raise Refused(400, "expected add_acls and remove_acls")
    added, changed = [], False
    with api.store.lock:
        for item in body.get("add_acls") or []:
            org = target_org(api, call, KINDS["acl"], item)
            entry, existed = objects.create(api.store, org, KINDS["acl"], item)
            added.append(objects.render(KINDS["acl"], entry, api.store.behaviour))
            changed = changed or not existed
        removed = [
            delete_by_body(api, call, KINDS["acl"], item) for item in body.get("remove_acls") or []
        ]
    return json_answer(
        {"added_acls": added, "removed_acls": removed}, changed=changed or bool(removed)
    )


def organizations(api: Api, call: Call) -> Answer:
    ids = call.query.get("ids", list(call.key.org_ids))
    orgs = [api.store.orgs[org_id].data for org_id in call.key.org_ids if org_id in ids]
    return json_answer({"objects": list(reversed(orgs))})


def organization(api: Api, call: Call, org_id: str) -> Answer:
    if org_id not in call.key.org_ids:
        raise Missing("organization", org_id)
    org = api.store.orgs[org_id]
    call.org_name = org.name
    if call.method == "GET":
        return json_answer(org.data)
    body = call.body()
    if call.method != "PATCH":
        raise Refused(405, f"{call.method} is not allowed on {call.path}")
    if not isinstance(body, dict) or set(body) - {"name", *ORG_SETTINGS}:
        raise Refused(400, "organization: unrecognized field")
    with api.store.lock:
        org.data.update((name, value) for name, value in body.items() if value is not None)
    return json_answer(org.data, changed=True)
