"""The rows of one object: of the logs of a project, of an experiment or of a dataset.

A row is stored as the JSON text that a reader gets, so a page of `select *` only joins texts. It is
decoded when a filter, a merge or a comment needs it. The store's lock guards a RowSet.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from typing import Any, Dict, Iterable, List, Mapping, Optional, Set, Tuple

import bt_migrate.sandbox.data.clock as keys
from bt_migrate.sandbox.data.behaviour import Behaviour

Json = Dict[str, Any]

# Fields that a reader always sees, null where the row has none.
DATASET_CONTENT = tuple("input expected metadata tags origin facets".split())
SPAN_CONTENT = DATASET_CONTENT + tuple(
    "output error scores metrics context span_attributes".split()
)
SERVER_CONTENT = tuple("comments audit_data classifications".split())
CONTENT = {
    "project_logs": SPAN_CONTENT,
    "experiment": SPAN_CONTENT,
    "dataset": DATASET_CONTENT,
}
SPAN_IDS = ("span_id", "root_span_id", "span_parents")

# Text is ASCII: everything else is escaped, lone surrogates too. NaN and Infinity are no JSON.
encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Row:
    """One row at one transaction. Its JSON text is `body` + `tail`; rows share tails."""

    __slots__ = ("id", "key", "moment", "created", "body", "tail")

    def __init__(
        self, row_id: str, key: int, moment: int, created: int, texts: Tuple[bytes, bytes]
    ) -> None:
        self.id = row_id
        self.key = key  # of _pagination_key
        self.moment = moment  # of _xact_id
        self.created = created  # microseconds since 1970
        self.body, self.tail = texts

    def value(self) -> Json:
        decoded: Json = json.loads(self.body + self.tail)
        return decoded


class RowSet:
    """Rows in order of their pagination key, which is that of their first insertion."""

    def __init__(
        self, kind: str, fixed: Mapping[str, str], clock: keys.Clock, behaviour: Behaviour
    ) -> None:
        self.kind = kind
        self.clock = clock
        self.behaviour = behaviour
        self.fixed = dict(fixed)  # fields that are the same in all rows
        self.nullable = CONTENT[kind] + SERVER_CONTENT
        if kind == "project_logs":
            self.nullable += ("_async_scoring_state",)
        self.filled: Set[str] = set()  # fields that some state of a row has had
        self.rows: List[Row] = []
        self.keys: List[int] = []  # of rows, for bisect
        self.by_id: Dict[str, Row] = {}
        self.past: List[Tuple[Row, int]] = []  # replaced and deleted rows, and when they ended
        self.comments: Dict[str, Dict[str, Json]] = {}  # row id -> comment id -> comment
        self.moments: Dict[int, float] = {}  # transaction -> unix seconds at which it was written
        self._tails: Dict[Tuple[str, ...], bytes] = {}

    # -- write

    def write(self, moment: int, row_number: int, event: Json) -> None:
        """Apply one event (with an id) as the API does: replace, _is_merge or _object_delete."""
        old = self.by_id.get(event["id"])
        if event.get("_object_delete"):
            self._delete(moment, old)
        elif event.get("_is_merge") and old is not None:
            row = merge_event(old.value(), event, self.nullable)
            self._put(moment, old.key, self._audited(moment, event, row, old), old)
        else:
            row = self._audited(moment, event, self._new_value(event), old)
            key = old.key if old is not None else keys.key_number(moment, row_number)
            self._put(moment, key, row, old)

    def _audited(self, moment: int, event: Json, row: Json, old: Optional[Row]) -> Json:
        """The row with an audit entry of this write after those of its earlier writes."""
        if event.get("audit_data") is not None or not self.behaviour.audit_data_on_rows:
            return row
        earlier = (old.value().get("audit_data") or []) if old is not None else []
        merges = bool(event.get("_is_merge")) and old is not None
        entry = audit_entry(moment, "merge" if merges else "upsert")
        entry["metadata"] = event.get("_audit_metadata") or {}
        entry["source"] = event.get("_audit_source") or "api"
        return dict(row, audit_data=[*earlier, entry])

    def _new_value(self, event: Json) -> Json:
        row = {name: event[name] for name in self.nullable if event.get(name) is not None}
        row["id"] = event["id"]
        row["created"] = event.get("created") or self.clock.timestamp()
        row.update(self._span_ids(event))
        if event["id"] in self.comments:
            row["comments"] = list(self.comments[event["id"]].values())
        return row

    def _span_ids(self, event: Json) -> Json:
        """Span ids as given, else as of a root span; the deprecated _parent_id names a row."""
        own = self.behaviour.random_span_ids
        span_id = event.get("span_id") or self._own_span_id(event["id"])
        if event.get("_parent_id") and not event.get("span_parents"):
            row = self.by_id.get(event["_parent_id"])
            parent = row.value() if row is not None else {}
            parent_span_id = str(parent.get("span_id", event["_parent_id"]))
            return {
                "span_id": span_id,
                "root_span_id": parent.get("root_span_id", parent_span_id),
                "span_parents": [parent_span_id],
            }
        parents = event.get("span_parents", None if own else [])
        return {
            "span_id": span_id,
            "root_span_id": event.get("root_span_id") or span_id,
            "span_parents": parents,
        }

    def _own_span_id(self, row_id: str) -> str:
        """The span id of a row that was sent without one; a row that is there keeps its own."""
        if not self.behaviour.random_span_ids:
            return row_id
        old = self.by_id.get(row_id)
        return str(old.value()["span_id"]) if old is not None else keys.new_id()

    def _put(self, moment: int, key: int, value: Json, old: Optional[Row]) -> None:
        row = self._row(moment, key, value)
        self.filled.update(value)
        self.by_id[row.id] = row
        if old is not None:
            self.past.append((old, moment))
            self.rows[bisect_left(self.keys, key)] = row
            return
        self.rows.append(row)
        self.keys.append(key)

    def _delete(self, moment: int, old: Optional[Row]) -> None:
        if old is None:
            return  # the API answers 200 for unknown ids too
        position = bisect_left(self.keys, old.key)
        del self.rows[position], self.keys[position], self.by_id[old.id]
        self.past.append((old, moment))

    def _row(self, moment: int, key: int, value: Json) -> Row:
        head = {
            "id": value["id"],
            "_xact_id": keys.xact_id(moment),
            "_pagination_key": keys.pagination_key(key),
        }
        value = dict(
            head, **{k: v for k, v in value.items() if k not in head and k not in self.fixed}
        )
        if "span_parents" in value:
            value["is_root"] = not value["span_parents"]
        if self.kind == "dataset":
            value.pop("span_parents", None)
        missing = tuple(name for name in self.nullable if value.get(name) is None)
        text = encode({name: item for name, item in value.items() if name not in missing})
        created = keys.micros(value["created"]) or 0
        return Row(
            value["id"], key, moment, created, (text[:-1].encode("ascii"), self._tail(missing))
        )

    def _tail(self, missing: Tuple[str, ...]) -> bytes:
        if missing not in self._tails:
            text = encode(dict(dict.fromkeys(missing), **self.fixed))
            self._tails[missing] = b"," + text[1:].encode("ascii")
        return self._tails[missing]

    def comment(self, moment: int, row_id: str, comment: Json, *, moves: bool = False) -> None:
        """Add a comment, or replace the one of that id. `moves`: the row gets a new transaction."""
        self.comments.setdefault(row_id, {})[comment["id"]] = dict(
            comment, _xact_id=keys.xact_id(moment)
        )
        row = self.by_id.get(row_id)
        if row is not None:
            value = dict(row.value(), comments=list(self.comments[row_id].values()))
            if moves:
                self._put(moment, row.key, value, row)
                return
            changed = self._row(row.moment, row.key, value)
            self.by_id[row_id] = self.rows[bisect_left(self.keys, row.key)] = changed

    # -- read

    def at(self, moment: Optional[int]) -> Tuple[List[Row], List[int]]:
        """Rows and keys as of a transaction (None: now), in order of the key. Not to be changed."""
        if moment is None or not self.moments or moment >= next(reversed(self.moments)):
            return self.rows, self.keys
        rows = [row for row in self.rows if row.moment <= moment]
        rows += [row for row, ended in self.past if row.moment <= moment < ended]
        rows.sort(key=lambda row: row.key)
        rows = [self._without_later_comments(row, moment) for row in rows]
        return rows, [row.key for row in rows]

    def _without_later_comments(self, row: Row, moment: int) -> Row:
        comments = list(self.comments.get(row.id, {}).values())
        then = [comment for comment in comments if comment["_xact_id"] <= keys.xact_id(moment)]
        if then == comments:
            return row
        return self._row(row.moment, row.key, dict(row.value(), comments=then or None))

    def visible_moment(self, before: float) -> Optional[int]:
        """The last transaction written before that time; None if that is all of them."""
        if not self.moments or next(reversed(self.moments.values())) <= before:
            return None
        return max(
            (moment for moment, written in self.moments.items() if written <= before), default=0
        )


def audit_entry(moment: int, action: str) -> Json:
    """One entry of audit_data."""
    return {
        "_xact_id": keys.xact_id(moment),
        "audit_data": {"action": action},
        "metadata": {},
        "source": "api",
    }


def between(
    rows: List[Row], numbers: List[int], low: Optional[int], high: Optional[int]
) -> Tuple[int, int]:
    """The positions of the rows with low < key < high."""
    start = 0 if low is None else bisect_right(numbers, low)
    stop = len(rows) if high is None else bisect_left(numbers, high)
    return start, max(start, stop)


def merge_event(old: Json, event: Json, content: Iterable[str]) -> Json:
    """The row after an _is_merge event, which cannot change span ids."""
    stops = {tuple(path) for path in event.get("_merge_paths") or []}
    row = dict(old)
    for name in content:
        if name in event:
            row[name] = _deep_merge(row.get(name), event[name], (name,), stops)
    if event.get("created"):
        row["created"] = event["created"]
    for removal in event.get("_array_delete") or []:
        _delete_values(row, removal["path"], removal["delete"])
    return row


def _deep_merge(old: Any, new: Any, path: Tuple[str, ...], stops: Iterable[Tuple[str, ...]]) -> Any:
    if path in stops or not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    result = dict(old)
    for name, value in new.items():
        result[name] = _deep_merge(old.get(name), value, path + (name,), stops)
    return result


def _delete_values(row: Json, path: List[str], values: List[Any]) -> None:
    holder: Any = row
    for name in path[:-1]:
        holder = holder.get(name) if isinstance(holder, dict) else None
    if isinstance(holder, dict) and path and isinstance(holder.get(path[-1]), list):
        holder[path[-1]] = [item for item in holder[path[-1]] if item not in values]
