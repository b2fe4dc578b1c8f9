"""Checks of objects of the organization, automations, scores, and attachments.

Objects that cannot be in the scratch project are created by `Scratch.create_outside`, and deleted.
"""

from __future__ import annotations

import io
import uuid
from typing import Any, Dict, List, Tuple

from bt_migrate.api.btql import versions_query
from bt_migrate.attachments.copy import SizedFile
from bt_migrate.attachments.read import attachment_chunks
from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.objects.proof import FOUND_EXISTING
from bt_migrate.probe.assumption import Seen, broken, differs, holds, holds_if
from bt_migrate.probe.scratch import Scratch, compact, status_text

UPLOADED_BYTES = b"bt_migrate probe \x00\xff\n"
PERMISSIONS = [{"permission": "read", "restrict_object_type": "project"}]
# a rule that never finds a row of the scratch project
AUTOMATION: JsonObject = {
    "event_type": "logs",
    "btql_filter": "metadata.probe = 'never'",
    "interval_seconds": 86400,
    "action": {"type": "webhook", "url": "https://bt-migrate-probe.invalid/"},
}

# Kinds without an assumption of their own, and the body that is sent twice.
SENT_TWICE: Tuple[Tuple[str, JsonObject], ...] = (
    ("project_score", {"score_type": "slider"}),
    ("project_tag", {"color": "#ff0000"}),
    ("view", {"object_type": "project", "view_type": "logs"}),
    ("project_automation", {"config": AUTOMATION}),
    ("group", {}),
    ("role", {}),
)


def existing_objects_are_returned(scratch: Scratch) -> Seen:
    marked: List[str] = []
    doubled: List[str] = []
    refused: List[str] = []
    for kind, fields in SENT_TWICE:
        try:
            second, is_marked = _sent_twice(scratch, kind, fields)
        except ApiError as error:
            refused.append(f"{kind} ({status_text(error)})")
            continue
        if not second:
            doubled.append(kind)
        elif is_marked:
            marked.append(kind)
    text = f"with header: {compact(marked)}; doubled: {compact(doubled)}; {compact(refused)}"
    if doubled:
        return broken(text)
    return differs(text) if refused else holds(text)


def _sent_twice(scratch: Scratch, kind: str, fields: JsonObject) -> Tuple[bool, bool]:
    """Whether the second POST returned the first object, and whether the header says so."""
    if kind in ("group", "role"):
        body = scratch.body_outside(kind, "twice")
    else:
        owner = "object_id" if kind == "view" else "project_id"
        body = {"name": "twice", owner: scratch.project_id, **fields}
    first = scratch.post(f"/v1/{kind}", **body).json
    answer = scratch.post(f"/v1/{kind}", **body)
    second = answer.json if isinstance(answer.json, dict) else {}
    is_marked = FOUND_EXISTING in {name.lower() for name in answer.headers}
    return second.get("id") == first["id"], is_marked


def groups_show_their_members(scratch: Scratch) -> Seen:
    member = scratch.create_outside("group", "member")
    made = scratch.create_outside("group", "holder", member_groups=[member["id"]])
    shown = scratch.get("group", made["id"]).get("member_groups")
    if shown != [member["id"]]:
        return broken(f"{len(shown or [])} of 1 members are shown")
    if made.get("member_groups") == [member["id"]]:
        return differs("members are shown, in the answer of POST too")
    return holds("members are shown by GET; the answer of POST has none")


def roles_keep_their_permissions(scratch: Scratch) -> Seen:
    made = scratch.create_outside("role", "role", member_permissions=PERMISSIONS)
    shown = scratch.get("role", made["id"])
    is_kept = _without_nulls(shown.get("member_permissions")) == _without_nulls(PERMISSIONS)
    owned = shown.get("org_id") is not None
    return holds_if(is_kept and owned, f"permissions kept: {is_kept}, of the organization: {owned}")


def _without_nulls(entries: Any) -> Any:
    return [
        {name: value for name, value in entry.items() if value is not None}
        for entry in entries or ()
    ]


def built_in_roles_belong_to_nobody(scratch: Scratch) -> Seen:
    roles = list(scratch.api.list("/v1/role", page_size=100))
    built_in = sorted(str(role.get("name")) for role in roles if role.get("org_id") is None)
    if {"Owner", "Engineer", "Viewer"} <= set(built_in):
        return holds("Owner, Engineer and Viewer have no org_id")
    return differs(f"{len(built_in)} of {len(roles)} roles have no org_id")


def automations_are_kept(scratch: Scratch) -> Seen:
    made = scratch.create("project_automation", name="kept", config=AUTOMATION)
    path = f"/v1/project_automation/{made['id']}"
    scratch.api.patch(path, {"description": "changed"})
    shown = scratch.get("project_automation", made["id"])
    params = {"project_id": scratch.project_id}
    automations = scratch.api.list("/v1/project_automation", params, page_size=100)
    listed = [item.get("id") for item in automations]
    config = shown.get("config") or {}
    changed = [name for name, value in AUTOMATION.items() if config.get(name) != value]
    good = not changed and shown.get("description") == "changed" and made["id"] in listed
    return holds_if(good, f"changed: {compact(changed)}, listed: {made['id'] in listed}")


def settings_are_replaced(scratch: Scratch) -> Seen:
    for sent in ({"comparison_key": "input.a"}, {"disable_realtime_queries": True}):
        scratch.api.patch(f"/v1/project/{scratch.project_id}", {"settings": sent})
        settings = scratch.get("project", scratch.project_id).get("settings") or {}
        if any(settings.get(name) != value for name, value in sent.items()):
            return broken(f"not shown after a PATCH: {compact(sorted(sent))}")
    if settings.get("comparison_key") is None:
        return holds("PATCH replaces all settings")
    return differs("PATCH keeps the settings that are not sent")


def attachments_keep_their_bytes(scratch: Scratch) -> Seen:
    names = {"filename": "bt_migrate probe", "content_type": "application/octet-stream"}
    params = {"key": str(uuid.uuid4()), **names, "org_id": scratch.api.org_id}
    announced = scratch.post("/attachment", **params).json
    before = _upload_status(scratch, params)
    file = SizedFile(io.BytesIO(UPLOADED_BYTES), len(UPLOADED_BYTES))
    scratch.api.store.upload(announced["signedUrl"], announced.get("headers") or {}, file)
    status = {"upload_status": "done"}
    scratch.post("/attachment/status", key=params["key"], org_id=params["org_id"], status=status)
    reference = {"key": params["key"], **names}
    is_kept = b"".join(attachment_chunks(scratch.api, reference)) == UPLOADED_BYTES
    return holds_if(is_kept and before != "done", f"bytes kept: {is_kept}; status before: {before}")


def _upload_status(scratch: Scratch, params: Dict[str, str]) -> str:
    try:
        answer = scratch.api.get("/attachment", params)
    except ApiError as error:
        return status_text(error)
    return str(answer["status"]["upload_status"])[:20]


def earlier_versions_are_listed(scratch: Scratch) -> Seen:
    fields: JsonObject = {"name": "p", "slug": "listed"}
    made = scratch.create("prompt", **fields)
    scratch.api.patch(f"/v1/prompt/{made['id']}", {"description": "second"})
    text = versions_query("prompt", [scratch.project_id])
    rows = scratch.api.query_audit_log(text).json
    versions = {row.get("_xact_id") for row in rows if row.get("id") == made["id"]}
    return holds_if(len(versions) == 2, f"{len(versions)} of 2 versions of a prompt are listed")


def ping_is_not_there(scratch: Scratch) -> Seen:
    try:
        scratch.api.get("/ping")
    except ApiError as error:
        return holds(f"GET /ping is {status_text(error)}")
    return differs("GET /ping is answered")
