"""Routes of the assignments of environments to versions of prompts and functions."""

from __future__ import annotations

import bt_migrate.sandbox.data.objects as objects
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.errors import Refused
from bt_migrate.sandbox.data.rows import Json
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.data.store import Entry
from bt_migrate.sandbox.routes.calls import Api, Call, json_answer, note_org


def assignments(api: Api, call: Call, kind: str, object_id: str) -> Answer:
    """GET: all assignments of an object. POST: one more."""
    _refuse_before_october(api, call)
    with api.store.lock:
        entry = objects.get(api.store, call.key.org_ids, KINDS[kind], object_id)
        note_org(api, call, entry)
        if call.method == "GET":
            shown = [_assignment(api, kind, entry, slug) for slug in sorted(entry.environments)]
            return json_answer({"objects": shown})
        if call.method != "POST":
            raise Refused(405, f"{call.method} is not allowed on {call.path}")
        body = call.fields()
        return _assign(api, kind, entry, str(body.get("environment_slug")), body)


def assignment(api: Api, call: Call, kind: str, object_id: str, slug: str) -> Answer:
    """GET, PUT and DELETE of one assignment."""
    _refuse_before_october(api, call)
    with api.store.lock:
        entry = objects.get(api.store, call.key.org_ids, KINDS[kind], object_id)
        note_org(api, call, entry)
        if call.method == "PUT":
            return _assign(api, kind, entry, slug, call.fields())
        if slug not in entry.environments:
            raise Refused(400, f"no version is assigned to environment '{slug}'")
        shown = _assignment(api, kind, entry, slug)
        if call.method == "DELETE":
            del entry.environments[slug]
            entry.assigned.pop(slug, None)
        elif call.method != "GET":
            raise Refused(405, f"{call.method} is not allowed on {call.path}")
    return json_answer(shown, changed=call.method == "DELETE")


def _refuse_before_october(api: Api, call: Call) -> None:
    if not api.store.behaviour.knows_october_2026:
        raise Refused(404, f"Not found: {call.method} {call.path}")


def _assign(api: Api, kind: str, entry: Entry, slug: str, body: Json) -> Answer:
    if ("environment", "org_id", "slug", entry.org_id, slug) not in api.store.index:
        raise Refused(400, f"environment '{slug}' does not exist")
    version = str(body.get("object_version") or "")
    objects.at_version(entry, version)  # refuses an unknown one
    entry.environments[slug] = version
    entry.assigned.setdefault(slug, api.store.clock.timestamp())
    return json_answer(_assignment(api, kind, entry, slug), changed=True)


def _assignment(api: Api, kind: str, entry: Entry, slug: str) -> Json:
    return {
        "id": "{}:{}".format(entry.data["id"], slug),
        "object_type": kind,
        "object_id": entry.data["id"],
        "object_version": entry.environments[slug],
        "environment_slug": slug,
        "created": entry.assigned.get(slug, entry.data["created"]),
    }
