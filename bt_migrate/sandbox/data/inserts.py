"""The ways in which rows are written: /v1/.../insert, /v1/insert, /v1/.../feedback and /logs3.

Every function expects the store's lock to be held.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import bt_migrate.sandbox.data.clock as keys
from bt_migrate.sandbox.data.errors import Missing, Refused
from bt_migrate.sandbox.data.rows import CONTENT, Json, RowSet, encode
from bt_migrate.sandbox.data.schema import CHECKS, KINDS, is_number, is_text
from bt_migrate.sandbox.data.store import Entry, Store

MAX_ROW_BYTES = 20_000_000
ROW_KINDS = {"project_logs": "project", "experiment": "experiment", "dataset": "dataset"}


def _is_score(value: Any) -> bool:
    return value is None or (is_number(value) and 0 <= value <= 1)


def _is_object_of(check: Any) -> Any:
    return lambda value: isinstance(value, dict) and all(check(item) for item in value.values())


def _is_metrics(value: Any) -> bool:
    return isinstance(value, dict) and all(
        item is None or is_number(item) or name.startswith("caller_")
        for name, item in value.items()
    )


def _is_origin(value: Any) -> bool:
    return isinstance(value, dict) and all(
        is_text(value.get(name)) for name in ("object_type", "object_id", "id")
    )


def _is_array_delete(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict)
        and isinstance(item.get("path"), list)
        and isinstance(item.get("delete"), list)
        for item in value
    )


EVENT_CHECKS = {
    "id": CHECKS["name"],
    "created": lambda value: is_text(value) and len(value) > 10 and keys.micros(value) is not None,
    "input": CHECKS["any"],
    "output": CHECKS["any"],
    "expected": CHECKS["any"],
    "error": CHECKS["any"],
    "scores": _is_object_of(_is_score),
    "metadata": CHECKS["object"],
    "tags": CHECKS["texts"],
    "metrics": _is_metrics,
    "context": CHECKS["object"],
    "span_attributes": CHECKS["object"],
    "origin": _is_origin,
    "facets": _is_object_of(lambda value: value is None or is_text(value)),
    "span_id": CHECKS["name"],
    "root_span_id": CHECKS["name"],
    "span_parents": CHECKS["texts"],
    "_object_delete": CHECKS["bool"],
    "_is_merge": CHECKS["bool"],
    "_merge_paths": CHECKS["lists"],
    "_array_delete": _is_array_delete,
    "_parent_id": CHECKS["text"],
}
ALWAYS = frozenset(EVENT_CHECKS) - frozenset(CONTENT["project_logs"])
EVENT_FIELDS = {kind: ALWAYS | frozenset(content) for kind, content in CONTENT.items()}
FIELD_COMMENT = "field 'comment' is not valid"
FIELD_ID = "required field 'id' is missing"
FEEDBACK_FIELDS = {
    "project_logs": frozenset("id scores expected comment metadata source tags".split()),
    "experiment": frozenset("id scores expected comment metadata source tags".split()),
    "dataset": frozenset("id comment metadata source tags".split()),
}


def row_set(store: Store, org_ids: Iterable[str], kind: str, object_id: Any) -> RowSet:
    """The rows of an object that these organizations can see; 403 if there is no such object."""
    entry = store.find(KINDS[ROW_KINDS[kind]], org_ids, object_id)
    if entry is None:
        raise Missing(ROW_KINDS[kind], object_id)
    place = (kind, entry.data["id"])
    if place not in store.rows:
        store.rows[place] = RowSet(kind, _fixed_fields(kind, entry), store.clock, store.behaviour)
    return store.rows[place]


def _fixed_fields(kind: str, entry: Entry) -> Dict[str, str]:
    if kind == "project_logs":
        return {"org_id": str(entry.org_id), "project_id": entry.data["id"], "log_id": "g"}
    return {"project_id": entry.data["project_id"], kind + "_id": entry.data["id"]}


# -- events


def checked_events(kind: str, events: Any) -> List[Json]:
    """The events of an insert request, each with an id. One wrong event refuses all."""
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise Refused(400, "events: expected a list of objects")
    for number, event in enumerate(events):
        problem = _problem(event, EVENT_FIELDS[kind])
        if problem:
            raise Refused(400, f"events[{number}]: {problem}")
    named: List[Json] = [
        event if event.get("id") else dict(event, id=keys.new_id()) for event in events
    ]
    if len({event["id"] for event in named}) != len(named):
        # The real API has no defined winner here.
        raise Refused(400, "events: the same id twice in one request")
    if len(events) > keys.MAX_ROWS_IN_TRANSACTION:
        raise Refused(400, f"events: more than {keys.MAX_ROWS_IN_TRANSACTION} in one transaction")
    return named


def _problem(event: Json, allowed: Iterable[str]) -> Optional[str]:
    for name, value in event.items():
        if name not in allowed:
            return f"unrecognized field '{name}'"
        if value is not None and not EVENT_CHECKS[name](value):
            return f"field '{name}' is not valid"
    return None


def _check_sizes(events: Iterable[Json], request_bytes: int) -> None:
    for event in events if request_bytes > MAX_ROW_BYTES else ():
        if len(encode(event)) > MAX_ROW_BYTES:
            raise Refused(
                413, "row {!r} is larger than {} bytes".format(event["id"], MAX_ROW_BYTES)
            )


class Transaction:
    """One ingest: one moment for all of its rows. Row numbers start at 0 in each object."""

    def __init__(self, store: Store, at: Optional[int] = None) -> None:
        self.moment = store.clock.next_moment(at)
        self._comments_move_rows = store.comments_move_rows
        self._numbers: Dict[int, int] = {}

    def write(self, rows: RowSet, event: Json) -> None:
        number = self._numbers.get(id(rows), 0)
        self._numbers[id(rows)] = number + 1
        self.note(rows)
        rows.write(self.moment, number, event)

    def comment(self, rows: RowSet, row_id: str, comment: Json) -> None:
        self.note(rows)
        rows.comment(self.moment, row_id, comment, moves=self._comments_move_rows)

    def note(self, rows: RowSet) -> None:
        rows.moments.setdefault(self.moment, rows.clock.seconds())


def insert(
    store: Store, rows: RowSet, body: Any, request_bytes: int = 0, at: Optional[int] = None
) -> List[str]:
    """POST /v1/{kind}/{id}/insert. Returns the ids of the rows, in order.

    `at`: past unix seconds at which the rows are to have been inserted.
    """
    events = checked_events(rows.kind, _only(body, "events"))
    _check_sizes(events, request_bytes)
    transaction = Transaction(store, at)
    if rows.moments and transaction.moment < next(reversed(rows.moments)):
        raise ValueError("rows are kept in order of their insertion: insert the older ones first")
    return _write_all(transaction, rows, events)


def _only(body: Any, *names: str) -> Any:
    """The value of the first name; refuses a body with other fields."""
    if not isinstance(body, dict):
        raise Refused(400, "expected a JSON object")
    for name in body:
        if name not in names:
            raise Refused(400, f"unrecognized field '{name}'")
    if body.get(names[0]) is None:
        raise Refused(400, f"required field '{names[0]}' is missing")
    return body[names[0]]


def _write_all(transaction: Transaction, rows: RowSet, events: List[Json]) -> List[str]:
    for event in events:
        transaction.write(rows, event)
    return [event["id"] for event in events]


def cross_insert(store: Store, org_ids: Sequence[str], body: Any) -> Json:
    """POST /v1/insert: rows and feedback of several objects in one transaction."""
    plan = [
        (kind, object_id, row_set(store, org_ids, kind, object_id), part)
        for kind, objects in _cross_parts(body)
        for object_id, part in objects.items()
    ]
    checked = [
        (
            kind,
            object_id,
            rows,
            checked_events(kind, part.get("events") or []),
            _feedback_items(kind, part),
        )
        for kind, object_id, rows, part in plan
    ]
    transaction = Transaction(store)
    answer: Json = {}
    for kind, object_id, rows, events, items in checked:
        answer.setdefault(kind, {})[object_id] = {"row_ids": _write_all(transaction, rows, events)}
        for item in items:
            _give_feedback(transaction, rows, item)
    return answer


def _cross_parts(body: Any) -> List[Tuple[str, Mapping[str, Any]]]:
    if not isinstance(body, dict) or set(body) - set(ROW_KINDS):
        raise Refused(400, "expected an object with: " + ", ".join(ROW_KINDS))
    parts = [(kind, objects) for kind, objects in body.items() if objects is not None]
    for _, objects in parts:
        if not isinstance(objects, dict) or not all(
            isinstance(part, dict) for part in objects.values()
        ):
            raise Refused(400, "expected a mapping from object ids to events and feedback")
        for part in objects.values():
            if set(part) - {"events", "feedback"}:
                raise Refused(400, "unrecognized field beside events and feedback")
    return parts


# -- feedback


def feedback(store: Store, org_ids: Sequence[str], kind: str, object_id: str, body: Any) -> None:
    rows = row_set(store, org_ids, kind, object_id)
    _only(body, "feedback")
    items = _feedback_items(kind, body)
    transaction = Transaction(store)
    for item in items:
        _give_feedback(transaction, rows, item)


def _feedback_items(kind: str, body: Mapping[str, Any]) -> List[Json]:
    items = body.get("feedback") or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Refused(400, "feedback: expected a list of objects")
    for item in items:
        unknown = set(item) - FEEDBACK_FIELDS[kind]
        if unknown or not is_text(item.get("id")):
            raise Refused(400, f"feedback: {sorted(unknown) or FIELD_ID}")
        if item.get("source") not in (None, "app", "api", "external"):
            raise Refused(400, "feedback: source must be app, api or external")
        problem = _problem(
            {name: item[name] for name in ("scores", "tags", "metadata") if name in item},
            EVENT_CHECKS,
        )
        if problem or not (item.get("comment") is None or is_text(item["comment"])):
            raise Refused(400, f"feedback: {problem or FIELD_COMMENT}")
    return items


def _give_feedback(transaction: Transaction, rows: RowSet, item: Json) -> None:
    source, metadata = item.get("source") or "external", item.get("metadata")
    values = {
        name: item[name] for name in ("scores", "expected", "tags") if item.get(name) is not None
    }
    if values:
        event = dict(
            values, id=item["id"], _is_merge=True, _audit_source=source, _audit_metadata=metadata
        )
        transaction.write(rows, with_audit(rows, event))
    if item.get("comment") is not None:
        comment: Json = {
            "id": keys.new_id(),
            "created": rows.clock.timestamp(),
            "origin": {"id": item["id"]},
        }
        comment.update(comment={"text": item["comment"]}, source=source, metadata=metadata)
        transaction.comment(rows, item["id"], comment)


def with_audit(rows: RowSet, event: Json) -> Json:
    """The event with its audit entry, for data planes that record only entries with a source."""
    if not event.get("_audit_source") or rows.behaviour.audit_data_on_rows:
        return event
    old = rows.by_id.get(event["id"])
    entries = (old.value().get("audit_data") or []) if old is not None else []
    action = "merge" if event.get("_is_merge") else "upsert"
    entry = {
        "action": action,
        "source": event["_audit_source"],
        "metadata": event.get("_audit_metadata"),
    }
    return dict(event, audit_data=entries + [dict(entry, created=rows.clock.timestamp())])


# -- /logs3


def logs3(
    store: Store, org_ids: Sequence[str], rows: Any, request_bytes: int = 0
) -> Tuple[List[str], str]:
    """Write rows as the SDKs send them: each names its object, and may carry undocumented fields.

    Returns the ids of the rows, and the transaction.
    """
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Refused(400, "rows: expected a list of objects")
    if len(rows) > keys.MAX_ROWS_IN_TRANSACTION:
        raise Refused(400, f"rows: more than {keys.MAX_ROWS_IN_TRANSACTION} in one transaction")
    plan = [_logs3_row(store, org_ids, row) for row in rows]
    _check_sizes((event for _, event in plan), request_bytes)
    transaction = Transaction(store)
    for target, event in plan:
        if "comment" in event:
            transaction.comment(target, event["origin"]["id"], _comment(event, store.clock))
        else:
            transaction.write(target, with_audit(target, event))
    return [event["id"] for _, event in plan], keys.xact_id(transaction.moment)


def _logs3_row(store: Store, org_ids: Sequence[str], row: Json) -> Tuple[RowSet, Json]:
    kind, object_id = _logs3_object(row)
    target = row_set(store, org_ids, kind, object_id)
    event = {name: value for name, value in row.items() if name in EVENT_FIELDS[kind]}
    event["id"] = row.get("id") or keys.new_id()
    if _is_comment(row):
        event.update(comment=row["comment"], origin=row["origin"])
    else:
        problem = _problem(event, EVENT_FIELDS[kind])
        if problem:
            raise Refused(400, "row '{}': {}".format(event["id"], problem))
    event.update({name: row[name] for name in ("_audit_source", "_audit_metadata") if name in row})
    return target, event


def _logs3_object(row: Json) -> Tuple[str, Any]:
    if row.get("experiment_id"):
        return "experiment", row["experiment_id"]
    if row.get("dataset_id"):
        return "dataset", row["dataset_id"]
    if row.get("project_id") and row.get("log_id") == "g":
        return "project_logs", row["project_id"]
    raise Refused(
        400, "a row names no experiment_id, no dataset_id, and no project_id with log_id 'g'"
    )


def _is_comment(row: Json) -> bool:
    comment, origin = row.get("comment"), row.get("origin")
    return isinstance(comment, dict) and isinstance(origin, dict) and is_text(origin.get("id"))


def _comment(event: Json, clock: keys.Clock) -> Json:
    return {
        "id": event["id"],
        "created": event.get("created") or clock.timestamp(),
        "origin": event["origin"],
        "comment": event["comment"],
        "source": event.get("_audit_source"),
        "metadata": event.get("_audit_metadata"),
    }
