"""The client of one organization's API: read, list, query and write.

The source's client can send GET and read queries only, by construction: `Request.is_read` is
checked in `Api._call`, through which every request goes.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Mapping, Optional, Set, Union
from urllib.parse import unquote

from bt_migrate.api.answers import (
    Check,
    any_answer,
    created_object,
    error_free,
    list_of_objects,
    object_with_id,
    objects_of,
    rows_of_query,
)
from bt_migrate.api.capabilities import Capabilities
from bt_migrate.api.json_codec import encode
from bt_migrate.api.page_limits import limit_of, with_limit, within_limit
from bt_migrate.api.request import (
    QUERY_PATH,
    RETRY_STATUSES,
    Answer,
    Endpoint,
    Json,
    Limits,
    Params,
    Request,
)
from bt_migrate.api.signed_urls import SignedUrls
from bt_migrate.api.throttle import Throttle
from bt_migrate.api.transport import CURSOR_HEADER, Transport
from bt_migrate.errors import ApiError


class Api:
    """One organization's API as this run uses it. Safe for many threads.

    Methods return decoded JSON; they raise ApiError for an answer that retrying did not change,
    NetworkError for none, Interrupted once `stop` is set and the request is a query or has to wait.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        limits: Limits,
        *,
        writable: bool,
        stop: Optional[threading.Event] = None,
    ) -> None:
        self.side = endpoint.side
        self.url = endpoint.url.rstrip("/")
        self.writable = writable
        # known once `organization.connect` has run
        self.org_id = ""
        self.display_name = ""
        # sent as org_name and x-bt-org-name once set
        self.org_name = ""
        self.capabilities = Capabilities()
        self.transport = Transport(endpoint, limits, stop or threading.Event())
        self.store = SignedUrls(self.transport, writable=writable)
        self.clock = self.transport.clock
        # called before each write is sent
        self.before_write: Callable[[], None] = lambda: None

    @property
    def throttle(self) -> Throttle:
        return self.transport.throttle

    def check(self) -> None:
        """Raises Interrupted once somebody asked for the end."""
        self.transport.check()

    # -- reading

    def get(self, path: str, params: Params = None, *, check: Check = any_answer) -> Json:
        return self._call(Request("GET", path, params=params, check=check)).json

    def query(
        self,
        text: str,
        *,
        retry_statuses: FrozenSet[int] = RETRY_STATUSES,
        on_body: Optional[Callable[[bytes], None]] = None,
        version: Optional[int] = None,
        check: Check = rows_of_query,
    ) -> Answer:
        """Runs BTQL. `json` of the answer is the list of rows.

        `headers` holds the cursor under CURSOR_HEADER. `on_body` is called with the bytes of an
        answer that is about to be decoded. `check` is a stricter one than `rows_of_query`.
        """
        request = Request(
            "POST", QUERY_PATH, retry_statuses=retry_statuses, on_body=on_body, check=check
        )
        # version: rows of a dataset or an experiment as they were at that transaction
        return self._rows(request, text, {} if version is None else {"version": str(version)})

    def query_audit_log(self, text: str) -> Answer:
        """Runs BTQL for which every version of an object is a row.

        The official SDK reads versions with `audit_log`.
        """
        request = Request("POST", QUERY_PATH, check=rows_of_query)
        return self._rows(request, text, {"audit_log": True})

    def _rows(self, request: Request, text: str, fields: Mapping[str, Any]) -> Answer:
        def answer_to(limit: int) -> Answer:
            body = {**_query_body(with_limit(text, limit)), **fields}
            return self._call(replace(request, body=encode(body)))

        answer = within_limit(limit_of(text), self.capabilities.query_limit, answer_to)
        cursor = answer.json.get("cursor") or answer.headers.get(CURSOR_HEADER) or ""
        return replace(answer, json=answer.json["data"], headers={CURSOR_HEADER: cursor})

    # assumption: lists_page_by_last_id, projects_are_listed
    def list(
        self, path: str, params: Optional[Dict[str, Any]] = None, *, page_size: int
    ) -> Iterator[Dict[str, Any]]:
        """Yields all objects of a list endpoint, newest first, page by page.

        `page_size` 0 asks once, without paging. Otherwise pages are read until one adds nothing:
        servers cap pages at any size, and hide objects after they applied the limit, so a short
        page proves nothing.
        """
        seen: Set[str] = set()
        query = dict(params or {})
        if self.org_name:
            query["org_name"] = self.org_name

        def page_of(limit: int) -> List[Dict[str, Any]]:
            limited = {**query, "limit": limit} if limit else query
            return objects_of(self.get(path, limited, check=list_of_objects))

        known = self.capabilities.list_limit
        larger = 0
        while True:
            page = page_of(larger) if larger else within_limit(page_size, known, page_of)
            limit = larger or min(page_size, known.most)
            by_id = {item["id"]: item for item in page}
            fresh = [item for object_id, item in by_id.items() if object_id not in seen]
            yield from fresh
            seen.update(by_id)
            if not page_size or not page:
                return
            if fresh:
                query["starting_after"] = page[-1]["id"]
            elif len(page) == limit:
                # the server ignores `starting_after`: only a larger page can show more
                larger = 10 * limit
            else:
                return

    # -- writing

    def post(
        self, path: str, body: Union[Mapping[str, Any], bytes], *, check: Check = any_answer
    ) -> Answer:
        sent = body if isinstance(body, bytes) else encode(body)
        return self._call(Request("POST", path, body=sent, check=check))

    def create(
        self, path: str, body: Mapping[str, Any], *, method: str = "POST", once: bool = False
    ) -> Answer:
        """Creates one object; the answer is an object with an id.

        `once`: it is not sent again if a try may have been carried out.
        """
        check = created_object(body)
        return self._call(Request(method, path, body=encode(body), check=check, once=once))

    def write_version(
        self, path: str, body: Mapping[str, Any], object_id: Optional[str] = None
    ) -> Json:
        """POSTs the first version of an object, or PUTs a later one of the object with that id.

        Not sent again if a try may have been carried out: that would make another version.
        """
        method = "PUT" if object_id else "POST"
        check = object_with_id(object_id) if object_id else created_object(body)
        request = Request(method, path, body=encode(body), check=check, once=True)
        return self._call(request).json

    def put(self, path: str, body: Mapping[str, Any], object_id: Optional[str] = None) -> Json:
        """PUTs one object, found by its natural key, and returns it. `object_id`: the known id."""
        check = object_with_id(object_id)
        return self._call(Request("PUT", path, body=encode(body), check=check)).json

    def patch(self, path: str, body: Mapping[str, Any], *, check: Optional[Check] = None) -> Json:
        """PATCHes what is at `path` and returns the answer.

        That is the object whose id ends the path, unless `check` says what it is.
        """
        check = check or object_with_id(unquote(path.rpartition("/")[2]))
        return self._call(Request("PATCH", path, body=encode(body), check=check)).json

    def delete(self, path: str, body: Optional[Mapping[str, Any]] = None) -> Json:
        sent = encode(body) if body else None
        return self._call(Request("DELETE", path, body=sent, check=error_free)).json

    def logs3_max_bytes(self) -> int:
        """The largest body of POST /logs3, above which it takes an upload; 0 if not announced."""
        if self.capabilities.logs3_max_bytes is None:
            try:
                answer = self.get("/version")
            except ApiError:
                answer = None
            announced = answer.get("logs3_payload_max_bytes") if isinstance(answer, dict) else None
            is_announced = isinstance(announced, int) and announced > 0
            self.capabilities.logs3_max_bytes = announced if is_announced else 0
        return self.capabilities.logs3_max_bytes or 0

    def _call(self, request: Request) -> Answer:
        if not self.writable and not request.is_read:
            raise PermissionError(f"the source cannot be written: {request} was not sent")
        if not request.is_read:
            self.before_write()
        return self.transport.exchange(request, self.org_name)


def _query_body(text: str) -> Dict[str, Any]:
    # brainstore_realtime: rows that are not indexed yet are wanted too (the official SDK sends it
    # with each fetch)
    return {"query": text, "fmt": "json", "brainstore_realtime": True}
