"""Inviting users to an organization. Nobody is sent an e-mail."""

from __future__ import annotations

from typing import Any, List

import bt_migrate.sandbox.data.objects as objects
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.errors import Refused
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.data.store import Org
from bt_migrate.sandbox.routes.calls import Api, Call, json_answer

INVITATION = frozenset(("emails", "send_invite_emails", "group_ids"))


def members(api: Api, call: Call) -> Answer:
    """PATCH /v1/organization/members with invite_users: a member is not added again."""
    if call.method != "PATCH":
        raise Refused(405, f"{call.method} is not allowed on {call.path}")
    body = call.fields()
    invitation = body.get("invite_users")
    if not isinstance(invitation, dict) or set(invitation) - INVITATION:
        raise Refused(400, "invite_users: expected emails, send_invite_emails and group_ids only")
    emails = invitation.get("emails")
    if not isinstance(emails, list) or not all(map(_is_address, emails)):
        raise Refused(400, "invite_users.emails: expected a list of e-mail addresses")
    if not isinstance(invitation.get("send_invite_emails", False), bool):
        raise Refused(400, "invite_users.send_invite_emails: expected true or false")
    with api.store.lock:
        name = body.get("org_id") or body.get("org_name") or call.key.org_ids[0]
        org = api.store.org_by_name(call.key.org_ids, name)
        call.org_name = org.name
        users = [api.store.add_user(org, {"email": email}) for email in _new(api, org, emails)]
        for group_id in invitation.get("group_ids") or []:
            added = {"add_member_users": users}
            objects.patch(api.store, (org.id,), KINDS["group"], group_id, added)
    return json_answer({"status": "success", "org_id": org.id}, changed=True)


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and "@" in value


def _new(api: Api, org: Org, emails: List[str]) -> List[str]:
    """The addresses that no member has, each once."""
    there = {
        str(entry.data.get("email")).lower()
        for entry in api.store.entries["user"].values()
        if entry.org_id == org.id
    }
    return list({email.lower(): email for email in emails if email.lower() not in there}.values())
