"""Routes of attachments, and the login."""

from __future__ import annotations

from typing import Any, List

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.errors import Missing, Refused
from bt_migrate.sandbox.data.files import Attachment
from bt_migrate.sandbox.data.rows import Json
from bt_migrate.sandbox.routes.calls import Api, Call, json_answer


def org_of(api: Api, call: Call, org_id: Any) -> str:
    if org_id not in call.key.org_ids:
        raise Missing("organization", org_id)
    call.org_name = api.store.orgs[org_id].name
    return str(org_id)


def attachment_upload(api: Api, call: Call) -> Answer:
    body = call.fields()
    for name in ("key", "filename", "content_type", "org_id"):
        if not isinstance(body.get(name), str) or not body[name]:
            raise Refused(400, f"required field '{name}' is missing")
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
            raise Refused(400, f"required parameter '{name}' is missing")
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
    attachment = api.files.attachments.get((org_of(api, call, org_id), str(key)))
    if attachment is None:
        raise Refused(
            404, {"Code": "NotFoundError", "Message": "Attachment not found", "Path": call.path}
        )
    return attachment


# -- login

# Which facts of a repository the organization collects.
GIT_FIELDS: List[str] = (
    "commit branch tag author_name author_email commit_message commit_time dirty".split()
)


def login(api: Api, call: Call) -> Answer:
    orgs = [api.store.orgs[org_id] for org_id in call.key.org_ids]
    org_infos = [
        {
            "id": org.id,
            "name": org.name,
            "api_url": api.url,
            "git_metadata": {"fields": GIT_FIELDS, "collect": "some"},
            "is_universal_api": True,
            "proxy_url": api.url,
            "realtime_url": api.url.replace("http", "ws", 1),
        }
        for org in orgs
    ]
    return json_answer({"org_info": org_infos})
