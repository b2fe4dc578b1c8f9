"""Shared by all routes: the call, the state of the API, and the organization of a call."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass
from email.message import Message
from typing import Any, Callable, Deque, Dict, List, Mapping, Optional, Tuple

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.errors import Refused
from bt_migrate.sandbox.data.files import Files
from bt_migrate.sandbox.data.rows import Json, encode
from bt_migrate.sandbox.data.schema import KIND_OF_OBJECT_TYPE, KINDS, Kind
from bt_migrate.sandbox.data.store import Entry, Key, Org, Store

MAX_REQUEST_BYTES = 6 * 1024 * 1024
# A number with such an exponent may be infinite, which is no JSON; only then a text is checked.
HUGE_EXPONENT = re.compile(rb"\d[eE]\+?\d{3}")

# Pages of rows come without a charset.
JSON_TYPE = "application/json; charset=utf-8"


@dataclass
class Call:
    """One request of a known key."""

    method: str
    path: str  # without the query
    query: Mapping[str, List[str]]
    headers: Message
    raw: bytes
    key: Key
    org_name: str  # whose request it is, for the log; narrowed when the organization is chosen

    def body(self) -> Any:
        return decode(self.raw)

    def fields(self) -> Json:
        """The body, which has to be a JSON object."""
        value = self.body()
        if not isinstance(value, dict):
            raise Refused(400, "expected a JSON object")
        return value

    def parameter(self, name: str) -> str:
        """The first value of a query parameter, '' if there is none."""
        return self.query.get(name, [""])[0]


class Limits:
    """Limits that can be changed while the sandbox runs; None means no limit."""

    def __init__(self) -> None:
        self.max_request_bytes: Optional[int] = (
            MAX_REQUEST_BYTES  # of inserts and /logs3; 413 above
        )
        self.logs3_payload_max_bytes: Optional[int] = None  # the answer of GET /version
        self.btql_limit_cap: Optional[int] = None  # a query's LIMIT above it is refused
        self.btql_per_minute: Optional[int] = (
            None  # of each organization, in any `btql_window` seconds
        )
        self.btql_window = 60  # seconds; a shorter "minute" makes rehearsals short
        self.send_retry_after = True  # with a 429 of that
        self.indexing_lag = 0.0  # seconds until /btql sees a fresh row


class Api:
    """The state that the routes share."""

    def __init__(self, store: Store, files: Files, limits: Limits) -> None:
        self.store = store
        self.files = files
        self.limits = limits
        self.url = ""
        self.query_times: Dict[str, Deque[float]] = {}  # of each organization, the last 60 seconds
        self.rate_lock = threading.Lock()
        # (method, path) -> a function of the api and the call; tests add what they need.
        self.extra_routes: Dict[Tuple[str, str], Callable[[Api, Call], Answer]] = {}


def decode(raw: bytes) -> Any:
    """The JSON value of a body; an empty body is an empty object."""
    if not raw:
        return {}
    try:
        value = json.loads(raw, parse_constant=_no_constant)
        if HUGE_EXPONENT.search(raw):
            encode(value)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"invalid JSON: {error}") from None
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def json_answer(
    value: Any, status: int = 200, *, changed: bool = False, headers: Mapping[str, str] = {}
) -> Answer:
    content = encode(value).encode("ascii")
    return Answer(status, content, JSON_TYPE, dict(headers), changed=changed)


def refusal(error: Refused) -> Answer:
    if isinstance(error.body, str):
        return Answer(error.status, error.body.encode(), "text/plain; charset=utf-8")
    return json_answer(error.body, error.status)


def bearer(headers: Message) -> str:
    scheme, _, key = (headers.get("Authorization") or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def narrow(api: Api, call: Call) -> None:
    """org_name in the query or x-bt-org-name choose one of the key's organizations."""
    name = call.parameter("org_name") or call.headers.get("x-bt-org-name")
    if name:
        org = api.store.org_by_name(call.key.org_ids, name)
        call.key = Key((org.id,), call.key.read_only)
        call.org_name = org.name


def target_org(api: Api, call: Call, kind: Kind, body: Any) -> Org:
    """The organization of a new object: the named one, that of its owner, or the default."""
    values = body if isinstance(body, dict) else {}
    if values.get("org_name"):
        org = api.store.org_by_name(call.key.org_ids, values["org_name"])
    else:
        org = api.store.orgs[owner_org(api, call, values) or call.key.org_ids[0]]
    call.org_name = org.name
    return org


def owner_org(api: Api, call: Call, body: Json) -> Optional[str]:
    owner_kind = KIND_OF_OBJECT_TYPE.get(str(body.get("object_type")), "")
    if owner_kind == "organization" and body.get("object_id") in call.key.org_ids:
        return str(body["object_id"])
    owners = [("project", "project_id"), ("dataset", "dataset_id"), (owner_kind, "object_id")]
    for kind_name, field in owners:
        entry = (
            api.store.find(KINDS[kind_name], call.key.org_ids, body.get(field))
            if kind_name in KINDS
            else None
        )
        if entry is not None and entry.org_id is not None:
            return entry.org_id
    return None


def note_org(api: Api, call: Call, entry: Entry) -> None:
    if entry.org_id is not None:
        call.org_name = api.store.orgs[entry.org_id].name
