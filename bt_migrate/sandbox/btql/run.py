"""POST /btql: selects and orders the rows of a query, and returns a page of them.

The cost of a page of `select: *` in key order does not depend on the number of rows.
"""

from __future__ import annotations

import base64
from typing import (
    Any,
    Callable,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import bt_migrate.sandbox.data.clock as keys
import bt_migrate.sandbox.data.inserts as inserts
import bt_migrate.sandbox.data.objects as objects
from bt_migrate.sandbox.btql.expressions import (
    View,
    compile_expression,
    function_name,
    is_field,
    is_literal,
    timestamp_text,
    with_now,
)
from bt_migrate.sandbox.btql.grouping import (
    aliased,
    counted_by,
    counts_of_sources,
    groups_of,
    is_grouped,
)
from bt_migrate.sandbox.btql.parse import (
    SHAPES,
    parse,
    parse_expression,
    parse_source,
    syntax_error,
)
from bt_migrate.sandbox.btql.reading import Reader, kept, split_filter
from bt_migrate.sandbox.data.errors import Missing, Refused
from bt_migrate.sandbox.data.rows import Json, RowSet, encode
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.data.store import Store

# A query without a limit answers a page of this many rows, and a cursor.
DEFAULT_LIMIT = 1000
SUMMARY_PREVIEW = 125
LONG_FIELDS = ("input", "output", "expected", "metadata", "error")
CLAUSES = frozenset(
    "select from filter sort limit cursor dimensions measures final_filter preview_length "
    "sql".split()
)


class Answer(NamedTuple):
    data: List[bytes]  # the JSON text of each row
    cursor: Optional[str]
    last_xact_id: Optional[str]


def normalized(text_or_json: Any) -> Json:
    """The query in JSON form, whether it came as text, as JSON, or as JSON with texts inside."""
    if isinstance(text_or_json, str):
        return parse(text_or_json)
    if not isinstance(text_or_json, dict):
        raise syntax_error("expected a text or an object")
    query: Json = {str(name): value for name, value in text_or_json.items() if value is not None}
    unknown = set(query) - CLAUSES
    if unknown:
        raise syntax_error(f"unknown clause {sorted(unknown)[0]!r}")
    for name, read in (
        ("from", parse_source),
        ("filter", parse_expression),
        ("final_filter", parse_expression),
    ):
        if isinstance(query.get(name), str):
            query[name] = read(query[name])
    _check_types(query)
    return query


def _check_types(query: Json) -> None:
    for name in ("select", "sort", "dimensions", "measures"):
        items = query.get(name, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise syntax_error(f"{name} must be a list of objects")
        for item in items:
            named = name == "sort" or item.get("op") == "star" or isinstance(item.get("alias"), str)
            if not named or not (item.get("op") == "star" or isinstance(item.get("expr"), dict)):
                raise syntax_error(f"{name}: expected alias and expr")
    for name in ("limit", "preview_length"):
        if not isinstance(query.get(name, 0), int):
            raise syntax_error(f"{name} must be a whole number")


def run(store: Store, org_ids: Sequence[str], body: Json, lag_seconds: float = 0.0) -> Answer:
    """Answer a request body. Rows that are newer than `lag_seconds` are hidden."""
    now = {"op": "literal", "value": timestamp_text(int(store.clock.seconds() * 1_000_000))}
    query = with_now(normalized(body.get("query")), now)
    sources = sources_of(store, org_ids, query.get("from"))
    moment = _pinned_moment(body, sources)
    reader = Reader(
        store, sources, moment, store.clock.seconds() - lag_seconds if lag_seconds else None
    )
    if isinstance(query.get("from"), dict) and is_object_query(query["from"]):
        views: Iterable[View] = [
            View(None, row) for row in object_rows(store, org_ids, query["from"], body)
        ]
        return _answer_views(query, kept(views, query.get("filter")), None)
    last = max((next(reversed(rows.moments)) for rows in sources if rows.moments), default=None)
    last_xact = None if last is None else keys.xact_id(last)
    if is_grouped(query):
        return _answer_groups(query, reader, last_xact)
    if not _is_key_order(query):
        return _answer_views(query, reader.matching(query), last_xact)
    return _answer_page(query, reader, last_xact, store.behaviour.cursor_with_each_page)


RANGE_FIELDS = ("created", "_xact_id", "_pagination_key", "root_span_id", "id")


def has_range(query: Json) -> bool:
    """Whether the filter uses a field by which the service can skip segments."""
    return any(
        is_field(value, name) for value in _values(query.get("filter")) for name in RANGE_FIELDS
    )


def _values(expression: Any) -> Iterator[Any]:
    """Every value inside of an expression, and the expression itself."""
    yield expression
    children = expression.values() if isinstance(expression, dict) else expression
    for child in children if isinstance(children, (list, type({}.values()))) else ():
        yield from _values(child)


# -- what is read


def is_object_query(source: Json) -> bool:
    return function_name(source) in ("project_prompts", "project_functions")


def _arguments(source: Any) -> List[str]:
    values = [
        argument.get("value") for argument in (source.get("args") or []) if is_literal(argument)
    ]
    if not values or not all(isinstance(value, str) for value in values):
        raise syntax_error("FROM needs ids")
    return values


def sources_of(store: Store, org_ids: Sequence[str], source: Any) -> List[RowSet]:
    if not isinstance(source, dict) or not function_name(source):
        raise syntax_error("FROM needs a function")
    if source.get("shape") not in (None,) + SHAPES:
        raise syntax_error(f"unknown shape {source.get('shape')!r}")
    if is_object_query(source):
        return []
    kind = function_name(source)
    if kind not in inserts.ROW_KINDS:
        raise syntax_error(f"unknown FROM function {kind}()")
    with store.lock:
        return [
            inserts.row_set(
                store, org_ids, kind, _id_of(store, org_ids, inserts.ROW_KINDS[kind], value)
            )
            for value in dict.fromkeys(_arguments(source))
        ]


def _id_of(store: Store, org_ids: Sequence[str], kind: str, value: str) -> str:
    """Returns the id for an id or a name; 403 for an unknown name, 400 for an ambiguous one."""
    if store.find(KINDS[kind], org_ids, value) is not None:
        return value
    named = objects.list_all(store, org_ids, KINDS[kind], {kind + "_name": [value]})
    if not named:
        raise Missing(kind, value)
    if len(named) > 1:
        raise syntax_error(f"several objects are called {value!r}")
    return str(named[0].data["id"])


def object_rows(store: Store, org_ids: Sequence[str], source: Json, body: Json) -> List[Json]:
    """The objects of project_prompts() and project_functions(), with audit_log all versions."""
    kind = KINDS[function_name(source)[len("project_") : -1]]
    listed: List[Json] = []
    with store.lock:
        ids = [_id_of(store, org_ids, "project", value) for value in _arguments(source)]
        for entry in objects.list_all(store, org_ids, kind, {"project_id": ids}):
            states = [objects.render(kind, entry, store.behaviour)]
            if body.get("audit_log"):
                states += [dict(data) for _, data in reversed(entry.history)]
            for state in states:
                moment = keys.moment_of_xact(state["_xact_id"]) or 0
                audit = {"audit_data": [{"action": "upsert"}]} if body.get("audit_log") else {}
                listed.append(
                    dict(state, _pagination_key=keys.pagination_key(moment << 16), **audit)
                )
    return listed


def _pinned_moment(body: Json, sources: List[RowSet]) -> Optional[int]:
    if body.get("version") is None:
        return None
    moment = keys.moment_of_xact(body["version"])
    if moment is None or any(rows.kind == "project_logs" for rows in sources):
        raise Refused(400, "version: expected a transaction of an experiment or a dataset")
    return moment


# -- pages


def _is_key_order(query: Json) -> bool:
    """Whether the rows are sorted by key (the default), and are not whole traces."""
    sort = query.get("sort") or []
    if query["from"].get("shape") == "traces":
        return False
    return not sort or (len(sort) == 1 and is_field(sort[0].get("expr"), "_pagination_key"))


def _answer_page(
    query: Json, reader: Reader, last_xact: Optional[str], cursor_with_each_page: bool
) -> Answer:
    sort = query.get("sort") or []
    limit = query.get("limit", DEFAULT_LIMIT)
    descending = not sort or sort[0].get("dir") == "desc"
    after = read_cursor(query["cursor"]) if query.get("cursor") else None
    bounds, rest = split_filter(query.get("filter"))
    tests = [compile_expression(condition) for condition in rest]
    is_summary = query["from"].get("shape") == "summary"
    project = _projection(query)
    data: List[bytes] = []
    last: Optional[Tuple[int, int]] = None
    for _, number, row in reader.ordered(bounds, descending, after):
        view = reader.view(row, query)
        if not all(test(view) for test in tests) or (is_summary and not view.field("is_root")):
            continue
        if len(data) >= limit:
            return Answer(data, write_cursor(last) if last else None, last_xact)
        data.append(project(view))
        last = (row.key, number)
    cursor = write_cursor(last) if last and cursor_with_each_page else None
    return Answer(data, cursor, last_xact)


def write_cursor(place: Tuple[int, int]) -> str:
    """Unpadded base64 of the 8 bytes of the last key.

    In a query over several objects two bytes with the number of the object follow, for all but the
    first: it is not known how the service continues between rows that share a key.
    """
    key, number = place
    raw = key.to_bytes(8, "big") + (number.to_bytes(2, "big") if number else b"")
    return base64.b64encode(raw).decode().rstrip("=")


def read_cursor(text: Any) -> Tuple[int, int]:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, TypeError):
        raise syntax_error("Invalid cursor") from None
    if len(raw) not in (8, 10):
        raise syntax_error("Invalid cursor")
    return int.from_bytes(raw[:8], "big"), int.from_bytes(raw[8:], "big")


def _projection(query: Json) -> Callable[[View], bytes]:
    """Returns a function that turns a view into the JSON text of a row of the answer."""
    items = query.get("select") or [{"op": "star"}]
    length = query.get("preview_length", -1)
    if query["from"].get("shape") == "summary" and length < 0:
        length = SUMMARY_PREVIEW
    if all(item.get("op") == "star" for item in items) and length < 0:
        return lambda view: (
            view.row.body + view.row.tail if view.row is not None else _text(view.value())
        )
    columns = [
        (item.get("alias"), compile_expression(item if item.get("op") else item.get("expr")))
        for item in items
    ]

    def project(view: View) -> bytes:
        value: Json = {}
        for alias, column in columns:
            value.update(column(view) if alias is None else {alias: column(view)})
        return _text(_shortened(value, length) if length >= 0 else value)

    return project


def _text(value: Json) -> bytes:
    return encode(value).encode("ascii")


def _shortened(value: Json, length: int) -> Json:
    texts = {
        name: value[name] if isinstance(value[name], str) else encode(value[name])
        for name in LONG_FIELDS
        if value.get(name) is not None
    }
    return dict(
        value, **{name: text[:length] + "..." for name, text in texts.items() if len(text) > length}
    )


# -- groups and other orders


def _answer_groups(query: Json, reader: Reader, last_xact: Optional[str]) -> Answer:
    bounds, rest = split_filter(query.get("filter"))
    fields = None if rest or query.get("sort") else counted_by(query)
    counts = None if fields is None else reader.counts(bounds)
    if fields is not None and counts is not None:
        sources = zip((rows.fixed for rows in reader.sources), counts)
        rows = counts_of_sources(query, fields, sources)
        if rows is not None:
            limit = query.get("limit", len(rows))
            return Answer([_text(row) for row in rows[:limit]], None, last_xact)
    return _answer_views(query, reader.matching(query), last_xact)


def _answer_views(query: Json, views: Iterator[View], last_xact: Optional[str]) -> Answer:
    """Answers a grouped query, or a query whose sort order has no cursor."""
    if query.get("cursor"):
        raise syntax_error("a cursor works only with rows sorted by _pagination_key")
    if is_grouped(query):
        rows = [View(None, row) for row in groups_of(query, views)]
        project: Callable[[View], bytes] = lambda view: _text(view.value())  # noqa: E731
        limit = query.get("limit", len(rows))
    else:
        rows = list(views)
        project = _projection(query)
        limit = query.get("limit", DEFAULT_LIMIT)
    for item in reversed(query.get("sort") or []):
        value = compile_expression(aliased(query, item.get("expr")))
        rows.sort(key=lambda view: _sort_key(value(view)), reverse=item.get("dir") == "desc")
    return Answer([project(view) for view in rows[:limit]], None, last_xact)


def _sort_key(value: Any) -> Tuple[int, Any]:
    if value is None:
        return (0, 0)
    if isinstance(value, (int, float)):
        return (1, value)
    moment = keys.micros(value) if isinstance(value, str) else None
    return (
        (2, moment)
        if moment is not None
        else (3, value if isinstance(value, str) else encode(value))
    )
