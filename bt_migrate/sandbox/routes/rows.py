"""Routes of rows: inserts, fetch, feedback, /logs3 and /btql."""

from __future__ import annotations

import time
from collections import deque
from typing import Optional, Tuple

import bt_migrate.sandbox.btql.run as query
import bt_migrate.sandbox.data.clock as keys
import bt_migrate.sandbox.data.inserts as inserts
import bt_migrate.sandbox.routes.summaries as summaries
from bt_migrate.sandbox.btql.fetch import fetch_page
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.errors import Refused
from bt_migrate.sandbox.data.rows import Json, encode
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.routes.calls import Api, Call, decode, json_answer, note_org

# The warning of a query that reads everything.
NO_RANGE = {
    "code": "missingSegmentEliminationSpecs",
    "message": "No filter on created, _xact_id, _pagination_key, root_span_id or id.",
    "stage": "optimizer",
    "severity": "warning",
}


def check_size(api: Api, call: Call) -> None:
    if api.limits.max_request_bytes is not None and len(call.raw) > api.limits.max_request_bytes:
        raise Refused(413, "Request Entity Too Large")


def rows_of_object(api: Api, call: Call, kind: str, object_id: str, action: str) -> Answer:
    entry = api.store.find(KINDS[inserts.ROW_KINDS[kind]], call.key.org_ids, object_id)
    if entry is not None:
        note_org(api, call, entry)
    route = OBJECT_ACTIONS.get((call.method, action))
    if route is None:
        raise Refused(405, f"{call.method} is not allowed on {call.path}")
    return route(api, call, kind, object_id)


def insert(api: Api, call: Call, kind: str, object_id: str) -> Answer:
    check_size(api, call)
    body = call.body()
    with api.store.lock:
        rows_of_object = inserts.row_set(api.store, call.key.org_ids, kind, object_id)
        ids = inserts.insert(api.store, rows_of_object, body, len(call.raw))
    return json_answer({"row_ids": ids}, changed=True)


def feedback(api: Api, call: Call, kind: str, object_id: str) -> Answer:
    body = call.body()
    with api.store.lock:
        inserts.feedback(api.store, call.key.org_ids, kind, object_id, body)
    return json_answer({"status": "success"}, changed=True)


def fetch(api: Api, call: Call, kind: str, object_id: str) -> Answer:
    """Whole traces, newest transaction first; see btql/fetch.py."""
    values = (
        call.fields()
        if call.method == "POST"
        else {name: call.parameter(name) for name in call.query}
    )
    with api.store.lock:
        rows = inserts.row_set(api.store, call.key.org_ids, kind, object_id)
        events, cursor = fetch_page(rows, values)
    ending = b"" if cursor is None else b',"cursor":' + encode(cursor).encode()
    return page_answer(b'{"events":[' + b",".join(events) + b"]" + ending + b"}", cursor)


def page_answer(body: bytes, cursor: Optional[str]) -> Answer:
    """A page of rows; its cursor is also a header."""
    headers = {} if cursor is None else {"x-bt-cursor": cursor}
    return Answer(200, body, headers=headers)


def cross_insert(api: Api, call: Call) -> Answer:
    check_size(api, call)
    body = call.body()
    with api.store.lock:
        return json_answer(inserts.cross_insert(api.store, call.key.org_ids, body), changed=True)


def version(api: Api, call: Call) -> Answer:
    limit = api.limits.logs3_payload_max_bytes
    return json_answer({} if limit is None else {"logs3_payload_max_bytes": limit})


def logs3(api: Api, call: Call) -> Answer:
    check_size(api, call)
    body, size = call.body(), len(call.raw)
    rows = body.get("rows") if isinstance(body, dict) else None
    if isinstance(rows, dict) and rows.get("type") == "logs3_overflow":
        content = api.files.content(("overflow", str(rows.get("key"))))
        if content is None or rows.get("size_bytes") != len(content):
            raise Refused(400, "rows: nothing of that size was uploaded under this key")
        rows, size = decode(content).get("rows"), len(content)
    with api.store.lock:
        ids, xact_id = inserts.logs3(api.store, call.key.org_ids, rows, size)
    if api.store.behaviour.logs3_answers_transaction:
        return json_answer({"ids": ids, "xact_id": xact_id}, changed=True)
    return json_answer({"ids": ids, "ok": True}, changed=True)


def logs3_overflow(api: Api, call: Call) -> Answer:
    body = call.body()
    if not isinstance(body, dict) or not isinstance(body.get("size_bytes"), int):
        raise Refused(400, "required field 'size_bytes' is missing")
    key = "logs3/" + keys.new_id()
    content_type = str(body.get("content_type") or "application/json")
    url = api.files.sign("PUT", call.org_name, ("overflow", key), content_type)
    return json_answer(
        {"method": "PUT", "signedUrl": url, "headers": {"Content-Type": content_type}, "key": key}
    )


def btql(api: Api, call: Call) -> Answer:
    body = call.fields()
    check_rate(api, call)
    parsed = query.normalized(body.get("query"))
    limit = parsed.get("limit", 0)
    if limit < 0 or (api.limits.btql_limit_cap is not None and limit > api.limits.btql_limit_cap):
        raise Refused(
            400,
            {
                "Code": "BadRequestError",
                "Message": f"limit {limit} is not allowed",
                "Path": "/btql",
            },
        )
    note_source(api, call, parsed)
    result = query.run(
        api.store, call.key.org_ids, dict(body, query=parsed), api.limits.indexing_lag
    )
    if body.get("fmt") == "jsonl":
        return page_answer(b"".join(line + b"\n" for line in result.data), result.cursor)
    last = result.last_xact_id
    rest: Json = {
        "schema": {"type": "array", "items": {"type": "object", "properties": {}}},
        "realtime_state": {
            "type": "on",
            "minimum_xact_id": last,
            "read_bytes": 0,
            "actual_xact_id": last,
        },
        "warnings": [] if query.has_range(parsed) else [NO_RANGE],
        "freshness_state": {"last_processed_xact_id": last, "last_considered_xact_id": last},
    }
    if result.cursor is not None:
        rest["cursor"] = result.cursor
    text = b'{"data":[' + b",".join(result.data) + b"]," + encode(rest)[1:].encode("ascii")
    return page_answer(text, result.cursor)


def note_source(api: Api, call: Call, parsed: Json) -> None:
    for argument in (parsed.get("from") or {}).get("args") or []:
        for kind in ("project", "experiment", "dataset"):
            entry = api.store.find(KINDS[kind], call.key.org_ids, argument.get("value"))
            if entry is not None:
                note_org(api, call, entry)


def check_rate(api: Api, call: Call) -> None:
    """Queries of an organization in any window; refused ones do not count."""
    if api.limits.btql_per_minute is None:
        return
    now, window = time.monotonic(), api.limits.btql_window
    with api.rate_lock:
        times = api.query_times.setdefault(call.org_name, deque())
        while times and times[0] <= now - window:
            times.popleft()
        if len(times) < api.limits.btql_per_minute:
            times.append(now)
            return
        wait = times[0] + window - now if times else window
    raise RateLimited((api.limits.btql_per_minute, window), len(times) + 1, wait)


class RateLimited(Refused):
    """`limit`: (queries, seconds)."""

    def __init__(self, limit: Tuple[int, int], consumed: int, wait_seconds: float) -> None:
        text = "Source: checkBtqlOrgRateLimit. Rate limit: %d requests per %d seconds. Consumed: %d"
        body = {
            "Code": "TooManyRequestsError",
            "Message": text % (*limit, consumed),
            "Path": "/btql",
            "Service": "api",
        }
        super().__init__(429, body)
        self.wait_seconds = wait_seconds


OBJECT_ACTIONS = {
    ("POST", "insert"): insert,
    ("POST", "feedback"): feedback,
    ("GET", "fetch"): fetch,
    ("POST", "fetch"): fetch,
    ("GET", "summarize"): summaries.summarize,
}
