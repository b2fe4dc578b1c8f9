"""Query text for BTQL (https://www.braintrust.dev/docs/reference/sql). Pure: text in, text out.

Native clauses are written instead of SQL, because older data planes have no SQL mode. The shape is
named, because its default changed between data plane versions. Pages are cut by `_pagination_key >
last`, not by cursor: official sources disagree on whether a cursor works together with a sort, and
a key can be kept in a checkpoint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import List, Optional, Sequence, Tuple

from bt_migrate.api.transactions import key_before

# rows of a query; more is refused
# assumption: limits_above_1000
MAX_LIMIT = 1000
# object ids in the FROM of one query
OBJECTS_PER_QUERY = 25
# transactions in the filter of one query
XACTS_PER_QUERY = 200
# below this limit a query fails for another reason than its size
MIN_LIMIT = 25

FROM_OF_KIND = {"logs": "project_logs", "experiments": "experiment", "datasets": "dataset"}

_ORIGIN = "origin.object_id as object, origin.id as row, origin._xact_id as xact"
_RATE = re.compile(r"\b([1-9]\d*)\s+requests?\s+per\s+(\d+)\s+seconds?", re.IGNORECASE)


# assumption: literals_are_escaped
def quoted(text: str) -> str:
    """A single-quoted BTQL literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass(frozen=True)
class Bounds:
    """Which rows, in which order; None for no bound.

    Keys above `after_key` and up to `end_key`, `created` inside [created_after, created_before),
    written after the transaction `after_xact`, or last written in one of `xacts`. `version`: as
    they were at that transaction, which is a field of the request, not of the query text.
    """

    created_after: Optional[str] = None
    created_before: Optional[str] = None
    after_key: Optional[str] = None
    end_key: Optional[str] = None
    after_xact: Optional[int] = None
    xacts: Sequence[int] = ()
    newest_first: bool = False
    version: Optional[int] = None

    @property
    def place(self) -> Optional[str]:
        """The bound at which reading starts."""
        return self.end_key if self.newest_first else self.after_key

    def after(self, key: str) -> Bounds:
        """Returns the bounds of the rows that follow this key, in the order of reading."""
        if self.newest_first:
            return replace(self, end_key=key_before(key))
        return replace(self, after_key=key)


def page_query(kind: str, object_ids: Sequence[str], bounds: Bounds, limit: int) -> str:
    """All fields of the next `limit` rows inside the bounds, in key order."""
    return "\n".join(
        [
            "select: *",
            from_line(kind, object_ids),
            *filter_lines(bounds),
            sort_line(bounds.newest_first),
            f"limit: {limit}",
        ]
    )


def count_query(kind: str, object_ids: Sequence[str], bounds: Bounds) -> str:
    """One row `{"rows": n}` for all the objects together."""
    return "\n".join(
        ["measures: count(1) as rows", from_line(kind, object_ids), *filter_lines(bounds)]
    )


def count_by_object_query(
    kind: str, id_field: str, object_ids: Sequence[str], bounds: Bounds
) -> str:
    """One row `{id_field: object id, "rows": n}` for each object that has rows."""
    return f"dimensions: {id_field}\n{count_query(kind, object_ids, bounds)}"


def transactions_query(kind: str, object_ids: Sequence[str], bounds: Bounds) -> str:
    """One row `{"xact": …, "rows": n}` for each transaction that last wrote rows of the objects."""
    return f"dimensions: _xact_id as xact\n{count_query(kind, object_ids, bounds)}"


def newest_query(kind: str, id_field: str, object_ids: Sequence[str]) -> str:
    """One row `{id_field: object id, "newest": last transaction}` for each object that has rows."""
    return "\n".join(
        [
            f"dimensions: {id_field}",
            "measures: max(_xact_id) as newest",
            from_line(kind, object_ids),
        ]
    )


def versions_query(kind: str, project_ids: Sequence[str], cursor: str = "") -> str:
    """With `audit_log`: one row {id, _xact_id} for each version of each prompt or function."""
    ids = ", ".join(quoted(project_id) for project_id in project_ids)
    lines = ["select: id, _xact_id", f"from: project_{kind}s({ids})"]
    cursor_lines = [f"cursor: {quoted(cursor)}"] if cursor else []
    return "\n".join([*lines, *cursor_lines, f"limit: {MAX_LIMIT}"])


def origins_query(kind: str, object_ids: Sequence[str], target: str, bounds: Bounds) -> str:
    """One row {object, row, xact, rows} for each version of a row that origins of these rows name.

    Only origins in objects of the type `target` count, of rows inside the bounds.
    """
    return f"dimensions: {_ORIGIN}\n{origins_count_query(kind, object_ids, target, bounds)}"


def origins_by_object_query(
    kind: str, id_field: str, object_ids: Sequence[str], target: str
) -> str:
    """One row {id_field, object, xact, rows, named} for each object and transaction that origins of
    its rows name, as in `origins_query`; `named` counts the rows of the target.
    """
    return "\n".join(
        [
            f"dimensions: {id_field}, origin.object_id as object, origin._xact_id as xact",
            "measures: count(1) as rows, count_distinct(origin.id) as named",
            from_line(kind, object_ids),
            _origin_filter_line(target, Bounds()),
        ]
    )


def origins_count_query(kind: str, object_ids: Sequence[str], target: str, bounds: Bounds) -> str:
    """One row `{"rows": n}` for all rows with such origins together."""
    lines = ["measures: count(1) as rows", from_line(kind, object_ids)]
    return "\n".join([*lines, _origin_filter_line(target, bounds)])


def origins_page_query(kind: str, object_id: str, target: str, bounds: Bounds) -> str:
    """The next rows with such origins, in key order: {id, _pagination_key, object, row, xact}."""
    return "\n".join(
        [
            f"select: id, _pagination_key, {_ORIGIN}",
            from_line(kind, [object_id]),
            _origin_filter_line(target, bounds),
            sort_line(False),
            f"limit: {MAX_LIMIT}",
        ]
    )


def _origin_filter_line(target: str, bounds: Bounds) -> str:
    wanted = [f"origin.object_type = {quoted(target)}", *_conditions(bounds)]
    return f"filter: {' and '.join(wanted)}"


def lag_query(kind: str, object_ids: Sequence[str], after_xact: int) -> str:
    """One row `{"rows": n, "oldest": xact}` for all rows that were written after a transaction.

    min over `_xact_id` is used like this in
    https://braintrust.dev/docs/kb/use-s3-export-instead-of-polling-btql-for-pipelines
    """
    return "\n".join(
        [
            "measures: count(1) as rows, min(_xact_id) as oldest",
            from_line(kind, object_ids),
            *filter_lines(Bounds(after_xact=after_xact)),
        ]
    )


def summary_query(kind: str, id_field: str, object_ids: Sequence[str], bounds: Bounds) -> str:
    """One row {id_field, rows, ids, first, last} for each object that has rows.

    `ids` counts distinct ids; `first` and `last` are dates. A single object has no `id_field`.
    """
    measures = (
        "count(1) as rows, count_distinct(id) as ids, min(created) as first, max(created) as last"
    )
    lines = [f"dimensions: {id_field}"] if len(object_ids) > 1 else []
    return "\n".join(
        [*lines, f"measures: {measures}", from_line(kind, object_ids), *filter_lines(bounds)]
    )


def days_query(kind: str, object_id: str, bounds: Bounds) -> str:
    """One row `{"day": …, "rows": n}` for each day on which rows of the object were created."""
    return f"dimensions: day(created) as day\n{count_query(kind, [object_id], bounds)}"


def ids_query(
    kind: str, object_id: str, bounds: Bounds, limit: int, *, newest_first: bool = False
) -> str:
    """Ids, keys and transactions of the next or last `limit` rows inside the bounds, by key."""
    return "\n".join(
        [
            "select: id, _pagination_key, _xact_id",
            from_line(kind, [object_id]),
            *filter_lines(bounds),
            sort_line(newest_first),
            f"limit: {limit}",
        ]
    )


def rows_query(
    kind: str, object_ids: Sequence[str], row_ids: Sequence[str], *, one_by_one: bool = False
) -> str:
    """All fields of the rows with these ids, at most MAX_LIMIT. Each row may be shown twice.

    `one_by_one`: for data planes before 1.1.22, which have no IN
    (https://braintrust.dev/docs/data-plane-changelog).
    """
    wanted = ids_condition(row_ids, one_by_one=one_by_one)
    limit = min(MAX_LIMIT, 2 * len(row_ids) * len(object_ids))
    lines = ["select: *", from_line(kind, object_ids), f"filter: {wanted}", f"limit: {limit}"]
    return "\n".join(lines)


# assumption: lists_of_ids_work
def ids_condition(row_ids: Sequence[str], *, one_by_one: bool) -> str:
    ids = [quoted(row_id) for row_id in row_ids]
    if one_by_one:
        return " or ".join(f"id = {row_id}" for row_id in ids)
    return f"id in [{', '.join(ids)}]"


def facet_objects_query(kind: str, id_field: str, object_ids: Sequence[str], bounds: Bounds) -> str:
    """One row {id_field: object id, …} for each object with rows that have facets."""
    wanted = "(facets is not null or classifications is not null)"
    conditions = " and ".join([wanted, *_conditions(bounds)])
    lines = [f"dimensions: {id_field}", "measures: count(1) as rows"]
    return "\n".join([*lines, _traces_line(kind, object_ids), f"filter: {conditions}"])


def facets_query(
    kind: str, id_field: str, object_ids: Sequence[str], condition: str, limit: int
) -> str:
    """Returns the query in shape `traces` for all rows of the traces with a matching row.

    Without a condition: of the newest traces.
    """
    lines = [f"select: id, {id_field}, facets, classifications", _traces_line(kind, object_ids)]
    if condition:
        lines.append(f"filter: {condition}")
    return "\n".join([*lines, f"limit: {limit}"])


# assumption: key_bounds_cut_pages
def filter_lines(bounds: Bounds) -> List[str]:
    """The filter clause, or no line at all."""
    conditions = _conditions(bounds)
    return ["filter: " + " and ".join(conditions)] if conditions else []


def _conditions(bounds: Bounds) -> List[str]:
    # compared as text: all transactions have 19 digits
    # assumption: transactions_compare
    after_xact = str(bounds.after_xact) if bounds.after_xact else None
    wanted = (
        ("created >=", bounds.created_after),
        ("created <", bounds.created_before),
        ("_xact_id >", after_xact),
        ("_pagination_key >", bounds.after_key),
        ("_pagination_key <=", bounds.end_key),
    )
    conditions = [f"{comparison} {quoted(value)}" for comparison, value in wanted if value]
    if bounds.xacts:
        conditions.append(f"_xact_id in [{', '.join(quoted(str(xact)) for xact in bounds.xacts)}]")
    return conditions


def from_line(kind: str, object_ids: Sequence[str]) -> str:
    return f"from: {source_expression(kind, object_ids)}"


def source_expression(kind: str, object_ids: Sequence[str], shape: str = "spans") -> str:
    ids = ", ".join(quoted(object_id) for object_id in object_ids)
    return f"{FROM_OF_KIND[kind]}({ids}) {shape}"


def _traces_line(kind: str, object_ids: Sequence[str]) -> str:
    return f"from: {source_expression(kind, object_ids, 'traces')}"


# assumption: keys_sort_by_insertion
def sort_line(newest_first: bool) -> str:
    return f"sort: _pagination_key {'desc' if newest_first else 'asc'}"


def smaller_limit(limit: int) -> int:
    """Half of the limit, at least MIN_LIMIT: for the retry of a query that timed out."""
    return max(MIN_LIMIT, limit // 2)


def rate_in(body: str) -> Optional[Tuple[int, int]]:
    """Returns (N, M) of the "N requests per M seconds" in the text of a 429, None without it."""
    match = _RATE.search(body)
    if match is None:
        return None
    number = int(match[1])
    seconds = int(match[2])
    return (number, seconds) if number and seconds else None
