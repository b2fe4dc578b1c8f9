"""Checks of rows: how they are written, replaced, merged and read back."""

from __future__ import annotations

import time
from typing import Any, Dict, List

from bt_migrate.api.btql import facets_query
from bt_migrate.api.transactions import xact_of, xact_seconds
from bt_migrate.errors import ApiError
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.probe.assumption import Seen, broken, differs, holds, holds_if
from bt_migrate.probe.scratch import PROBE_POLL_S, Scratch, compact, status_text
from bt_migrate.rows.insert import delete_rows

# Values that a codec may change.
VALUES: Dict[str, Any] = {
    "float": 0.1,
    "whole": 1.0,
    "large": 2**60 + 1,
    "text": "ü \U0001f600 \\ ' \" \n",
    "nulls": [None, {"a": None}],
    "empty": [{}, [], ""],
}
EARLIER_DATE = "2024-02-03T04:05:06.789Z"
MAX_CLOCK_S = 120


def row_ids_in_order(scratch: Scratch) -> Seen:
    ids = [f"{scratch.token} {number}" for number in range(5)]
    answer = scratch.insert(scratch.dataset(), *({"id": row_id, "input": 1} for row_id in ids))
    return holds_if(answer.get("row_ids") == ids, f"row_ids of {len(answer.get('row_ids') or [])}")


def rows_upsert_by_id(scratch: Scratch) -> Seen:
    dataset = scratch.filled({"id": "a", "input": "first", "expected": 1})
    scratch.insert(dataset, {"id": "a", "input": "second"})
    row = scratch.changed(dataset, "a", "input", "second") or {}
    rows = scratch.rows(dataset)
    shown = [row.get("input"), row.get("expected")]
    return holds_if(
        len(rows) == 1 and shown == ["second", None],
        f"{len(rows)} row(s) after two inserts of one id: {compact(shown)}",
    )


def rows_keep_key_and_created(scratch: Scratch) -> Seen:
    dataset = scratch.filled({"id": "a", "input": "first", "created": EARLIER_DATE})
    before = scratch.rows(dataset)[0]
    scratch.insert(dataset, {"id": "a", "input": "second", "created": EARLIER_DATE})
    after = scratch.changed(dataset, "a", "input", "second") or {}
    same = [after.get(name) == before.get(name) for name in ("_pagination_key", "created")]
    moved = xact_of(after.get("_xact_id")) > xact_of(before.get("_xact_id"))
    text = f"key kept: {same[0]}, created kept: {same[1]}, transaction moved on: {moved}"
    return holds_if(all(same) and moved, text)


def rows_keep_what_is_sent(scratch: Scratch) -> Seen:
    sent: Dict[str, Any] = {"id": f"{scratch.token} ü/'\"", "created": EARLIER_DATE}
    sent.update(span_id="s", root_span_id="r", input=VALUES, tags=["x"], metadata={"m": VALUES})
    dataset = scratch.filled(sent)
    rows = scratch.rows(dataset)
    row = rows[0] if rows else {}
    changed = [name for name, value in sent.items() if row.get(name) != value]
    # 1.0 == 1 in Python; whole_numbers_keep_their_fraction checks for lost fractions.
    return holds_if(not changed, f"changed: {', '.join(changed) or 'nothing'}")


def whole_numbers_keep_their_fraction(scratch: Scratch) -> Seen:
    dataset = scratch.filled({"id": "a", "input": 1.0})
    value = scratch.rows(dataset)[0].get("input")
    if isinstance(value, float):
        return holds("1.0 is read as 1.0")
    return differs(f"1.0 is read as {compact(value)}")


def merges_keep_other_fields(scratch: Scratch) -> Seen:
    first = {"id": "a", "input": "kept", "metadata": {"kept": 1, "changed": 1}}
    dataset = scratch.filled(first)
    scratch.insert(dataset, {"id": "a", "metadata": {"changed": 2}, "_is_merge": True})
    wanted = {"kept": 1, "changed": 2}
    row = scratch.changed(dataset, "a", "metadata", wanted) or {}
    shown = [row.get("input"), row.get("metadata")]
    return holds_if(shown == ["kept", wanted], f"after a merge: {compact(shown)}")


def rows_are_deleted(scratch: Scratch) -> Seen:
    dataset = scratch.filled({"id": "a", "input": 1}, {"id": "b", "input": 2})
    delete_rows(scratch.api, ROW_KINDS["datasets"], dataset, ["a", "never there"])
    deadline = time.monotonic() + scratch.patience_s
    while True:
        ids = [row.get("id") for row in scratch.rows(dataset)]
        if ids == ["b"] or time.monotonic() > deadline:
            return holds_if(ids == ["b"], f"of a and b, a was deleted: {compact(ids)}")
        time.sleep(PROBE_POLL_S)


def fresh_rows_are_shown(scratch: Scratch) -> Seen:
    dataset = scratch.dataset()
    scratch.insert(dataset, {"id": "a", "input": 1})
    started = time.monotonic()
    rows = scratch.shown(dataset, 1)
    took = time.monotonic() - started
    if not rows:
        return broken(f"a row was not shown within {scratch.patience_s:.0f} s")
    return holds(f"a row was shown after {took:.1f} s")


def transactions_tell_time(scratch: Scratch) -> Seen:
    dataset = scratch.filled({"id": "a", "input": 1})
    written = xact_seconds(xact_of(scratch.rows(dataset)[0].get("_xact_id")))
    apart = written - scratch.api.clock.earliest_s()
    text = f"a transaction is {apart:+.0f} s from the Date of the answers"
    return holds(text) if abs(apart) <= MAX_CLOCK_S else differs(text)


def plain_rows_have_upserts_only(scratch: Scratch) -> Seen:
    dataset = scratch.filled({"id": "a", "input": 1})
    entries = scratch.rows(dataset)[0].get("audit_data")
    if not entries:
        return differs("a new row has no audit_data")
    actions = [_action(entry) for entry in entries] if isinstance(entries, list) else ["?"]
    return holds_if(actions == ["upsert"], f"audit_data of a new row: {compact(actions)}")


def _action(entry: Any) -> Any:
    inner = entry.get("audit_data") if isinstance(entry, dict) else None
    return inner.get("action") if isinstance(inner, dict) else None


def comments_are_kept(scratch: Scratch) -> Seen:
    dataset = scratch.filled({"id": "a", "input": 1})
    record = {
        "id": f"{scratch.token} comment",
        "dataset_id": dataset,
        "created": EARLIER_DATE,
        "origin": {"id": "a"},
        "comment": {"text": "a remark"},
        "_audit_source": "external",
    }
    scratch.post("/logs3", rows=[record], api_version=2)
    deadline = time.monotonic() + scratch.patience_s
    comments: List[Any] = []
    while not comments and time.monotonic() < deadline:
        rows = scratch.rows(dataset)
        shown = rows[0].get("comments") if rows else None
        comments = shown if isinstance(shown, list) else []
        if not comments:
            time.sleep(0.2)
    texts = [(comment.get("comment") or {}).get("text") for comment in comments]
    return holds_if(texts == ["a remark"], f"comments read back: {compact(texts)}")


def logs3_names_its_transaction(scratch: Scratch) -> Seen:
    row = {"id": "b", "dataset_id": scratch.dataset(), "input": 1}
    answer = scratch.post("/logs3", rows=[row], api_version=2).json
    if not isinstance(answer, dict) or answer.get("ids") != ["b"]:
        return broken("the answer does not name the row")
    if xact_of(answer.get("xact_id")):
        return holds("the answer names the transaction")
    return differs("the answer names no transaction")


def facets_are_shown(scratch: Scratch) -> Seen:
    dataset = scratch.dataset()
    try:
        scratch.insert(dataset, {"id": "a", "input": 1, "facets": {"Task": "t"}})
    except ApiError as error:
        return differs(f"facets are {status_text(error)}")
    rows = scratch.shown(dataset, 1)
    shown = rows[0].get("facets") if rows else None
    if shown == {"Task": "t"}:
        return holds("facets are shown in shape spans")
    whole = scratch.query(facets_query("datasets", "dataset_id", [dataset], "", 1))
    in_traces = whole[0].get("facets") if whole else None
    return differs(f"facets in shape spans: {compact(shown)}, in traces: {compact(in_traces)}")
