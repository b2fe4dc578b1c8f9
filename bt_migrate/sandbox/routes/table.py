"""The table of routes: path of the API origin -> function."""

from __future__ import annotations

import re
from email.message import Message
from typing import Any, Callable, Dict, List, Pattern, Tuple
from urllib.parse import parse_qs, urlsplit

import bt_migrate.sandbox.routes.attachments as attachments
import bt_migrate.sandbox.routes.code as code
import bt_migrate.sandbox.routes.environments as environments
import bt_migrate.sandbox.routes.members as members
import bt_migrate.sandbox.routes.objects as object_routes
import bt_migrate.sandbox.routes.rows as row_routes
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.errors import Refused
from bt_migrate.sandbox.routes.calls import Api, Call, bearer, narrow
from bt_migrate.sandbox.routes.refusals import refused

Route = Callable[..., Answer]

EXACT: Dict[Tuple[str, str], Route] = {
    ("GET", "/v1/acl/list_org"): object_routes.acl_list_org,
    ("POST", "/v1/acl/batch_update"): object_routes.acl_batch_update,
    ("GET", "/v1/organization"): object_routes.organizations,
    ("PATCH", "/v1/organization/members"): members.members,
    ("POST", "/v1/insert"): row_routes.cross_insert,
    ("POST", "/btql"): row_routes.btql,
    ("GET", "/version"): row_routes.version,
    ("POST", "/logs3"): row_routes.logs3,
    ("POST", "/logs3/overflow"): row_routes.logs3_overflow,
    ("POST", "/function/code"): code.upload,
    ("POST", "/attachment"): attachments.attachment_upload,
    ("POST", "/attachment/status"): attachments.attachment_status,
    ("GET", "/attachment"): attachments.attachment_download,
    ("POST", "/api/apikey/login"): attachments.login,
}
PATTERNS: List[Tuple[Pattern[str], Route]] = [
    (
        re.compile("/v1/(project_logs|experiment|dataset)/([^/]+)/([a-z]+)"),
        row_routes.rows_of_object,
    ),
    (re.compile("/v1/organization/([^/]+)"), object_routes.organization),
    (re.compile("/v1/project/([^/]+)/([a-z_]+)"), object_routes.in_project),
    (re.compile("/v1/project/([^/]+)/([a-z_]+)/([^/]+)"), object_routes.in_project),
    (re.compile("/v1/([a-z_]+)"), object_routes.collection),
    (re.compile("/v1/([a-z_]+)/([^/]+)"), object_routes.single),
    (re.compile("/environment-object/(prompt|function)/([^/]+)"), environments.assignments),
    (re.compile("/environment-object/(prompt|function)/([^/]+)/([^/]+)"), environments.assignment),
    (re.compile("/(environment)"), object_routes.collection),
    (re.compile("/(environment)/([^/]+)"), object_routes.single),
]
# What a key that may only read may POST.
READING_POSTS = re.compile(
    r"/btql|/v1/\w+/[^/]+/fetch|/api/(apikey/login|experiment/get|base_experiment/get_id)"
)


def answer(api: Api, method: str, target: str, headers: Message, raw: bytes) -> Answer:
    """Carry out one request of the API origin. Never raises for a mistake of the client."""
    parts = urlsplit(target)
    path = parts.path.rstrip("/") or "/"
    if (method, path) in (("GET", "/v1"), ("GET", "/")):
        return Answer(200, b"Hello, World!", "text/plain")
    key = api.store.keys.get(bearer(headers))
    if key is None:
        return _unknown_key(api, path)
    org_name = api.store.orgs[key.org_ids[0]].name
    call = Call(
        method, path, parse_qs(parts.query, keep_blank_values=True), headers, raw, key, org_name
    )
    try:
        reply = _dispatch(api, call)
    except Refused as error:
        reply = refused(api, call, error)
        if isinstance(error, row_routes.RateLimited) and api.limits.send_retry_after:
            reply.headers["Retry-After"] = str(int(error.wait_seconds + 1))
    reply.org_name = call.org_name
    return reply


def _unknown_key(api: Api, path: str) -> Answer:
    if path != "/api/apikey/login":
        return Answer(401, b"Unauthorized: invalid API key", "text/plain")
    text = (
        "Failed to validate Cognito JWT: Error: JWT string does not consist of exactly 3 parts "
        "(header, payload, signature) [timestamp=%.3f] [request_id=iad1::0]"
    )
    content = (text % api.store.clock.seconds()).encode()
    return Answer(401, content, "text/plain; charset=utf-8")


def _dispatch(api: Api, call: Call) -> Answer:
    if call.key.read_only and call.method != "GET" and not READING_POSTS.fullmatch(call.path):
        raise Refused(
            403, {"Code": "ForbiddenError", "Message": "This key may only read", "Path": call.path}
        )
    narrow(api, call)
    place = (call.method, call.path)
    exact = api.extra_routes.get(place) or EXACT.get(place)
    if exact is not None:
        return exact(api, call)
    for pattern, route in PATTERNS:
        match = pattern.fullmatch(call.path)
        if match:
            groups: Tuple[Any, ...] = match.groups()
            return route(api, call, *groups)
    raise Refused(404, f"Not found: {call.method} {call.path}")
