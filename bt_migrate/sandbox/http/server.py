"""The sandbox itself: two origins, organizations, a request log, and switches for faults."""

from __future__ import annotations

import gzip
import json
import secrets
import threading
import time
from dataclasses import dataclass
from email.message import Message
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Union
from urllib.parse import parse_qs, urlsplit

import bt_migrate.sandbox.data.clock as keys
import bt_migrate.sandbox.data.objects as objects
import bt_migrate.sandbox.http.control as control
import bt_migrate.sandbox.routes.table as routes
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.behaviour import Behaviour, behaviour_of
from bt_migrate.sandbox.data.errors import Refused
from bt_migrate.sandbox.data.files import Files
from bt_migrate.sandbox.data.rows import encode
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.data.store import Key, Store
from bt_migrate.sandbox.http.faults import Fault, Faults
from bt_migrate.sandbox.http.organization import SandboxOrg
from bt_migrate.sandbox.http.origins import Handler, Origin
from bt_migrate.sandbox.http.request_log import NO_ANSWER, Request, RequestLog
from bt_migrate.sandbox.routes.calls import Api, Limits, bearer, refusal

__all__ = ["Fault", "Incoming", "Request", "Sandbox", "SandboxOrg"]


@dataclass
class Incoming:
    """A request to the API origin as `Sandbox.intercept` sees it; the hook may replace `body`."""

    method: str
    path: str  # with the query
    headers: Message
    body: bytes


@dataclass(frozen=True)
class Visit:
    """The part of a request that is the same for both origins."""

    origin: str  # "api" or "files"
    org_name: str
    body_bytes: int
    carry_out: Callable[[], Answer]
    limit: Callable[[], Optional[int]]  # of a query


class Sandbox(Limits):
    """A local Braintrust, as a context manager. Its switches may be changed while it runs."""

    def __init__(
        self, port: int = 0, files_port: int = 0, *, older: Union[bool, Sequence[str]] = False
    ) -> None:
        """`older`: True, or the names of switches in which to behave as an older data plane."""
        super().__init__()
        self.store = Store(behaviour_of(older))
        self.files = Files(self.store.clock)
        self.api = Api(self.store, self.files, self)
        self.faults = Faults()
        self.latency: Dict[str, float] = {}
        # True: the time that the sandbox itself needs is part of the latency, not added to it.
        self.latency_includes_work = False
        # Called with (number, "before" or "after", method, path) of each request.
        self.on_request: Optional[Callable[[int, str, str, str], None]] = None
        # Called first with each API request; an Answer is sent instead of carrying it out.
        self.intercept: Optional[Callable[[Incoming], Optional[Answer]]] = None
        self.control_token = secrets.token_hex(16)
        self._ports = (port, files_port)
        self._origins: List[Origin] = []
        self._stopping = threading.Event()
        self._log = RequestLog()

    # -- life

    def __enter__(self) -> Sandbox:
        api = Origin(self._ports[0], self._serve_api, self.clock)
        files = Origin(self._ports[1], self._serve_files, self.clock)
        self._origins = [api, files]
        self.url = self.api.url = api.url
        self.files_url = self.files.url = files.url
        for origin in self._origins:
            origin.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for origin in self._origins:
            origin.stop()
        self.files.close()

    @property
    def behaviour(self) -> Behaviour:
        return self.store.behaviour

    @property
    def clock(self) -> keys.Clock:
        """The clock of everything except the rate limit of queries; `clock.set` moves it."""
        return self.store.clock

    # -- organizations

    def add_org(
        self, name: str, api_key: Optional[str] = None, users: Iterable[Mapping[str, Any]] = ()
    ) -> SandboxOrg:
        with self.store.lock:
            org = self.store.add_org(name, users)
        key = api_key or "sk-" + secrets.token_hex(16)
        self.grant(key, [name])
        return SandboxOrg(self.store, self.files, org, key)

    def grant(self, api_key: str, org_names: Sequence[str], *, read_only: bool = False) -> None:
        """Let a key see these organizations; the first is its default."""
        with self.store.lock:
            orgs = [self.store.org_by_name(self.store.orgs, name) for name in org_names]
            self.store.keys[api_key] = Key(tuple(org.id for org in orgs), read_only)
            for org in orgs:
                user = self.store.entries["user"][org.users[0]].data
                values = {
                    "name": "key of " + org.name,
                    "user_id": user["id"],
                    "user_email": user["email"],
                }
                objects.create(self.store, org, KINDS["api_key"], values)

    # -- what happened

    @property
    def requests(self) -> List[Request]:
        return self._log.requests()

    def clear_requests(self) -> None:
        self._log.clear()

    def writes(self, org_name: str) -> List[Request]:
        return [
            request for request in self.requests if request.org_name == org_name and request.changed
        ]

    def leaks(self) -> List[Request]:
        """Requests that carried an API key (or any Authorization) to the files origin."""
        return [
            request
            for request in self.requests
            if request.origin == "files" and "Authorization" in request.headers
        ]

    def in_flight_max(self, org_name: str) -> int:
        return self._log.in_flight_max(org_name)

    # -- serving

    def _org_of_key(self, headers: Message) -> str:
        key = self.store.keys.get(bearer(headers))
        return self.store.orgs[key.org_ids[0]].name if key is not None else "-"

    def _serve_api(self, handler: Handler) -> None:
        raw = handler.read_body()
        if handler.path.startswith("/sandbox/"):
            handler.send_answer(control.answer(self, handler.path, raw))
            return
        incoming = Incoming(handler.command, handler.path, handler.headers, raw)
        instead = self.intercept(incoming) if self.intercept is not None else None
        body = incoming.body

        def carry_out() -> Answer:
            if instead is not None:
                return instead
            return routes.answer(self.api, handler.command, handler.path, handler.headers, body)

        org_name = self._org_of_key(handler.headers)
        self._serve(
            handler, Visit("api", org_name, len(body), carry_out, lambda: control.limit_of(body))
        )

    def _serve_files(self, handler: Handler) -> None:
        length = handler.body_length()
        signed = self.files.find(_signature(handler.path))
        org_name = signed.org_name if signed is not None else "-"
        self._serve(
            handler,
            Visit(
                "files", org_name, length, lambda: self._file_answer(handler, length), lambda: None
            ),
        )

    def _serve(self, handler: Handler, visit: Visit) -> None:
        """Count a request, wait, carry it out or apply its fault, log it, and answer."""
        number = self._log.begin(visit.org_name)
        started = time.time()
        due = time.monotonic() + self._latency_of(handler)
        try:
            self._notify(number, "before", handler)
            if not self.latency_includes_work:
                self._wait(due - time.monotonic())
            fault = self.faults.hit(visit.org_name, handler.command, handler.path, visit.limit)
            answer = self._answer(visit, fault)
            if self.latency_includes_work:
                self._wait(due - time.monotonic())
        finally:
            self._log.end(visit.org_name)
        self._log.add(_logged(handler, visit, number, started, answer))
        self._notify(number, "after", handler)
        _send(handler, fault, answer)

    def _notify(self, number: int, moment: str, handler: Handler) -> None:
        if self.on_request is not None:
            self.on_request(number, moment, handler.command, handler.path)

    def _wait(self, seconds: float) -> None:
        """Sleep until the time is over or the sandbox stops."""
        if seconds > 0:
            self._stopping.wait(seconds)

    def _latency_of(self, handler: Handler) -> float:
        latency = self.latency
        return latency.get(category(handler.command, handler.path), latency.get("default", 0.0))

    def _answer(self, visit: Visit, fault: Optional[Fault]) -> Answer:
        """The answer of a request after its fault, which is applied before authentication."""
        kind = fault.kind if fault is not None else ""
        details = fault.details if fault is not None else {}
        if kind == "status":
            return _status_answer(details)
        if kind == "garbage":
            return Answer(200, b"<!DOCTYPE html><html><body>Please wait</body></html>", "text/html")
        if kind in ("delay", "drop"):
            self._wait(float(details.get("seconds", 1)))
        if kind in ("reset_before", "drop"):
            return Answer(NO_ANSWER)
        answer = visit.carry_out()
        return self._redirected(answer) if kind == "redirect" and answer.status == 200 else answer

    def _redirected(self, answer: Answer) -> Answer:
        """303 to the answer as a gzip object; its cursor is in a header of this answer only."""
        value = json.loads(answer.body) if isinstance(answer.body, bytes) else {}
        cursor = value.pop("cursor", None)
        place = ("result", keys.new_id() + ".json.gz")
        self.files.blobs[place] = gzip.compress(encode(value).encode("ascii"), 1)
        headers = {
            "Location": self.files.sign("GET", answer.org_name, place, "application/octet-stream")
        }
        if cursor:
            headers["x-bt-cursor"] = cursor
        return Answer(303, b"", headers=headers, org_name=answer.org_name)

    def _file_answer(self, handler: Handler, length: int) -> Answer:
        """Answer a request to a signed URL, which must match the signature and carry no key."""
        try:
            if "Authorization" in handler.headers:
                raise Refused(
                    400,
                    "<Error><Code>InvalidArgument</Code></Error>",
                )
            signed = self.files.signed(handler.command, _signature(handler.path))
            if signed.method == "PUT":
                if (handler.headers.get("Content-Type") or "") != signed.content_type:
                    raise Refused(403, "<Error><Code>SignatureDoesNotMatch</Code></Error>")
                self.files.receive(signed.place, handler.body_stream, length)
                handler.unread = 0
                return Answer(200, b"", "application/xml", changed=True, org_name=signed.org_name)
            if signed.place not in self.files.blobs:
                raise Refused(404, "<Error><Code>NoSuchKey</Code></Error>")
            return Answer(
                200, self.files.blobs[signed.place], signed.content_type, org_name=signed.org_name
            )
        except Refused as error:
            return refusal(error)


def _logged(handler: Handler, visit: Visit, number: int, started: float, answer: Answer) -> Request:
    org_name = answer.org_name or visit.org_name
    headers = {
        name.title(): org_name if name.title() == "Authorization" else value
        for name, value in handler.headers.items()
    }
    return Request(
        number=number,
        org_name=org_name,
        method=handler.command,
        path=handler.path,
        status=answer.status,
        changed=answer.changed,
        body_bytes=visit.body_bytes,
        headers=headers,
        started=started,
        finished=time.time(),
        origin=visit.origin,
    )


def _signature(target: str) -> str:
    return parse_qs(urlsplit(target).query).get("X-Amz-Signature", [""])[0]


def _send(handler: Handler, fault: Optional[Fault], answer: Answer) -> None:
    kind = fault.kind if fault is not None else ""
    if kind in ("reset_before", "reset_after"):
        handler.reset()
    elif kind == "drop":
        handler.close_connection = True
    else:
        handler.send_answer(answer, cut=kind == "truncate")


def _status_answer(details: Mapping[str, Any]) -> Answer:
    body = details.get("body", "")
    text = body if isinstance(body, str) else encode(body)
    content_type = "text/plain" if isinstance(body, str) else "application/json"
    headers = dict(details.get("headers") or {})
    return Answer(int(details.get("status", 500)), text.encode(), content_type, headers)


def category(method: str, target: str) -> str:
    """The name of a request's latency."""
    path = urlsplit(target).path
    if path == "/btql":
        return "btql"
    if path == "/logs3" or path.endswith("/insert"):
        return "insert"
    if path.startswith("/bucket/"):
        return "download" if method == "GET" else "upload"
    if path.startswith("/attachment"):
        return "attachment"
    names = {"POST": "create", "PUT": "create", "PATCH": "patch", "DELETE": "delete"}
    is_list = (
        path.count("/") <= 2 and not path.startswith("/environment/") or path.endswith("/list_org")
    )
    return names.get(method, "list" if is_list else "get")
