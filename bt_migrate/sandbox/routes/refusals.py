"""The wording of refusals: JSON of the data plane, text of the control plane with the caller."""

from __future__ import annotations

import re
import secrets
from typing import Tuple

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.errors import Missing, Refused
from bt_migrate.sandbox.routes.calls import Api, Call, json_answer, refusal

# What the data plane answers itself; it passes everything else to the control plane.
DATA_PLANE = re.compile(
    r"GET /v1/experiment/[^/]+"
    r"|\w+ /v1/(project_logs|experiment|dataset)/[^/]+/[a-z]+"
    r"|\w+ /(v1/insert|btql|logs3.*|attachment.*|version)"
)

# Routes whose refusals do not name the organization.
NAMES_NO_ORG = ("/api/base_experiment/get_id",)


def refused(api: Api, call: Call, error: Refused) -> Answer:
    """The answer of a request that was refused."""
    if not api.store.behaviour.refusals_as_text:
        return refusal(error)
    if DATA_PLANE.fullmatch(f"{call.method} {call.path}"):
        return _data_plane_refusal(api, call, error)
    text = error.text if isinstance(error, Missing) else error.body
    if not isinstance(text, str):
        return refusal(error)
    status = 400 if isinstance(error, Missing) else error.status
    email, org, *when = _caller(api, call)
    caller = [email, *when] if call.path in NAMES_NO_ORG else [email, org, *when]
    request_id = f"[request_id=iad1::{secrets.token_hex(5)}]"
    return refusal(Refused(status, " ".join((text, *caller, request_id))))


def _data_plane_refusal(api: Api, call: Call, error: Refused) -> Answer:
    if not isinstance(error, Missing):
        return refusal(error)
    body = {
        "Code": "ForbiddenError",
        "Message": " ".join((error.text, *_caller(api, call))),
        "InternalTraceId": secrets.token_hex(16),
        "Path": call.path,
        "Service": "api",
    }
    return json_answer(body, error.status)


def _caller(api: Api, call: Call) -> Tuple[str, str, str]:
    org = api.store.orgs[call.key.org_ids[0]]
    email = api.store.entries["user"][org.users[0]].data["email"]
    return (
        f"[user_email={email}]",
        f"[user_org={org.name}]",
        f"[timestamp={api.store.clock.seconds():.3f}]",
    )
