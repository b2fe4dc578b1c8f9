"""POST /sandbox/control: sets and reads a sandbox that runs in another process; needs its token."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, Dict, List, Optional, Protocol

import bt_migrate.sandbox.btql.run as query
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.behaviour import NAMES, Behaviour
from bt_migrate.sandbox.data.clock import Clock
from bt_migrate.sandbox.data.errors import Refused
from bt_migrate.sandbox.http.faults import Fault, Faults
from bt_migrate.sandbox.http.request_log import Request
from bt_migrate.sandbox.routes.calls import decode, json_answer, refusal

LIMITS = (
    "max_request_bytes logs3_payload_max_bytes btql_limit_cap btql_per_minute btql_window "
    "send_retry_after indexing_lag"
).split()


class Controlled(Protocol):
    """What this module needs of a sandbox."""

    control_token: str
    latency: Dict[str, float]
    faults: Faults

    @property
    def behaviour(self) -> Behaviour: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def requests(self) -> List[Request]: ...

    def clear_requests(self) -> None: ...

    def writes(self, org_name: str) -> List[Request]: ...

    def in_flight_max(self, org_name: str) -> int: ...


def answer(sandbox: Controlled, path: str, raw: bytes) -> Answer:
    """Carry out a request with "token" and any of these fields; answers what "get" names.

    "set": {limit or switch: value, "latency": {...}, "now": unix seconds}; "clear_faults";
    "clear_requests"; "faults": [{"kind", ...}]; "get": ["requests", "writes", "counters", "now"].
    """
    try:
        body = decode(raw)
        if (
            path != "/sandbox/control"
            or not isinstance(body, dict)
            or body.get("token") != sandbox.control_token
        ):
            raise Refused(403, "wrong path or token")
        return json_answer(_carry_out(sandbox, body))
    except Refused as error:
        return refusal(error)


def _carry_out(sandbox: Controlled, body: Dict[str, Any]) -> Dict[str, Any]:
    for name, value in (body.get("set") or {}).items():
        if name == "latency":
            sandbox.latency = dict(value)
        elif name == "now":
            sandbox.clock.set(float(value))
        elif name in LIMITS:
            setattr(sandbox, name, value)
        elif name in NAMES:
            setattr(sandbox.behaviour, name, bool(value))
        else:
            raise Refused(400, f"unknown setting '{name}'")
    if body.get("clear_faults"):
        sandbox.faults.clear()
    if body.get("clear_requests"):
        sandbox.clear_requests()
    for fault in body.get("faults") or []:
        try:
            sandbox.faults.add(Fault(**fault))
        except (TypeError, ValueError) as error:
            raise Refused(400, f"fault: {error}") from None
    return {name: _state(sandbox, name) for name in body.get("get") or []}


def _state(sandbox: Controlled, name: str) -> Any:
    if name == "now":
        return sandbox.clock.seconds()
    requests = sandbox.requests
    if name == "requests":
        return [asdict(request) for request in requests]
    if name == "writes":
        return [asdict(request) for request in requests if request.changed]
    if name == "counters":
        orgs = sorted({request.org_name for request in requests})
        return {
            "requests": len(requests),
            "writes": {org: len(sandbox.writes(org)) for org in orgs},
            "in_flight_max": {org: sandbox.in_flight_max(org) for org in orgs},
            "fault_hits": sandbox.faults.counts(),
        }
    raise Refused(400, f"cannot get '{name}'")


def limit_of(raw: bytes) -> Optional[int]:
    """The LIMIT of a query in a request body; None if there is none."""
    try:
        body = decode(raw)
        limit = query.normalized(body.get("query") if isinstance(body, dict) else None).get("limit")
    except Refused:
        return None
    return limit if isinstance(limit, int) else None


def fault_of_text(text: str) -> Fault:
    """A fault from text, such as 'status,status=429,path=/btql,times=3,Retry-After=2'.

    A name with a capital letter is a header of the answer; times=always is for ever.
    """
    kind, *settings = text.split(",")
    details: Dict[str, Any] = {}
    headers: Dict[str, str] = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign:
            raise ValueError(f"expected name=value in a fault, got '{setting}'")
        if name[:1].isupper():
            headers[name] = value
        else:
            details[name] = (
                _number(value) if name not in ("org", "method", "path", "body") else value
            )
    if details.get("times") == "always":
        details["times"] = None
    if headers:
        details["headers"] = headers
    return Fault(kind, **details)


def _number(text: str) -> Any:
    if re.fullmatch("[0-9]+", text):
        return int(text)
    return float(text) if re.fullmatch(r"[0-9]*\.[0-9]+", text) else text


def pairs_of_text(text: str) -> Dict[str, float]:
    """'btql=0.15,insert=0.1' as a mapping to seconds."""
    pairs: List[List[str]] = [part.split("=") for part in text.split(",") if part]
    if not all(len(pair) == 2 for pair in pairs):
        raise ValueError(f"expected name=seconds, got '{text}'")
    return {name: float(value) for name, value in pairs}
