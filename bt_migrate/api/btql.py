"""Query text for BTQL (https://www.braintrust.dev/docs/reference/sql). Pure: text in, text out.

Native clauses are written rather than SQL, because older data planes know no SQL mode; the shape is named because its default
changed between data plane versions. Pages are cut by `_pagination_key > last`, not by cursor: official sources disagree on
whether a cursor works beside a sort, and a key can be kept in a checkpoint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import List, Optional, Sequence, Tuple

from bt_migrate.api.transactions import key_before

MAX_LIMIT = 1000  # rows of a query; more is refused
OBJECTS_PER_COUNT = 25  # ids in one FROM of a count query
MIN_LIMIT = 25  # below it a failing query fails for another reason than its size

FROM_OF_KIND = {"logs": "project_logs", "experiments": "experiment", "datasets": "dataset"}

_RATE = re.compile(r"\b([1-9]\d*)\s+requests?\s+per\s+(\d+)\s+seconds?", re.IGNORECASE)


def quoted(text: str) -> str:
    """A single-quoted BTQL literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass(frozen=True)
class Bounds:
    """Which rows: keys above `after_key` and up to `end_key`, `created` inside [created_after, created_before), written after
    the transaction `after_xact`; in which order.

    None for no bound.
    """

    created_after: Optional[str] = None
    created_before: Optional[str] = None
    after_key: Optional[str] = None
    end_key: Optional[str] = None
    after_xact: Optional[int] = None
    newest_first: bool = False

    @property
    def place(self) -> Optional[str]:
        """The bound at which reading begins."""
        return self.end_key if self.newest_first else self.after_key

    def after(self, key: str) -> Bounds:
        """The rest once all up to that key was read, in their order."""
        return (
            replace(self, end_key=key_before(key))
            if self.newest_first
            else replace(self, after_key=key)
        )


def page_query(kind: str, object_ids: Sequence[str], bounds: Bounds, limit: int) -> str:
    """All fields of the next `limit` rows inside the bounds, in key order."""
    lines = ["select: *", f"from: {source_expression(kind, object_ids)}", *filter_lines(bounds)]
    return "\n".join(
        [
            *lines,
            f"sort: _pagination_key {'desc' if bounds.newest_first else 'asc'}",
            f"limit: {limit}",
        ]
    )


def count_query(kind: str, object_ids: Sequence[str], bounds: Bounds) -> str:
    """One row `{"rows": n}` for all the objects together."""
    return "\n".join(
        [
            "measures: count(1) as rows",
            f"from: {source_expression(kind, object_ids)}",
            *filter_lines(bounds),
        ]
    )


def count_by_object_query(
    kind: str, id_field: str, object_ids: Sequence[str], bounds: Bounds
) -> str:
    """One row `{id_field: object id, "rows": n}` for each object that has rows."""
    return f"dimensions: {id_field}\n{count_query(kind, object_ids, bounds)}"


def newest_query(kind: str, id_field: str, object_ids: Sequence[str]) -> str:
    """One row `{id_field: object id, "newest": transaction of its last write}` for each object that has rows."""
    lines = [
        f"dimensions: {id_field}",
        "measures: max(_xact_id) as newest",
        f"from: {source_expression(kind, object_ids)}",
    ]
    return "\n".join(lines)


def lag_query(kind: str, object_ids: Sequence[str], after_xact: int) -> str:
    """One row `{"rows": n, "oldest": xact}` of the rows of all the objects that were written after a transaction.

    min over `_xact_id`: https://braintrust.dev/docs/kb/use-s3-export-instead-of-polling-btql-for-pipelines keeps such a mark.
    """
    measures = "measures: count(1) as rows, min(_xact_id) as oldest"
    return "\n".join(
        [
            measures,
            f"from: {source_expression(kind, object_ids)}",
            *filter_lines(Bounds(after_xact=after_xact)),
        ]
    )


def summary_query(kind: str, id_field: str, object_ids: Sequence[str], bounds: Bounds) -> str:
    """rows, distinct ids, first and last date: one row {id_field: …, rows, ids, first, last} for each object that has rows."""
    measures = (
        "count(1) as rows, count_distinct(id) as ids, min(created) as first, max(created) as last"
    )
    lines = [f"dimensions: {id_field}"] if len(object_ids) > 1 else []
    return "\n".join(
        [
            *lines,
            f"measures: {measures}",
            f"from: {source_expression(kind, object_ids)}",
            *filter_lines(bounds),
        ]
    )


def days_query(kind: str, object_id: str) -> str:
    """One row `{"day": …, "rows": n}` for each day on which rows of the object were created."""
    return f"dimensions: day(created) as day\n{count_query(kind, [object_id], Bounds())}"


def ids_query(
    kind: str, object_id: str, bounds: Bounds, limit: int, *, newest_first: bool = False
) -> str:
    """Ids and keys of the next `limit` rows inside the bounds, in key order; or of the last ones."""
    lines = [
        "select: id, _pagination_key",
        f"from: {source_expression(kind, [object_id])}",
        *filter_lines(bounds),
    ]
    return "\n".join(
        [*lines, f"sort: _pagination_key {'desc' if newest_first else 'asc'}", f"limit: {limit}"]
    )


def rows_query(
    kind: str, object_ids: Sequence[str], row_ids: Sequence[str], *, one_by_one: bool = False
) -> str:
    """All fields of the rows of these ids, with room for one that is there twice: no more than MAX_LIMIT rows are answered.

    `one_by_one`: for data planes before 1.1.22, which have no IN (https://braintrust.dev/docs/data-plane-changelog).
    """
    ids = [quoted(one) for one in row_ids]
    wanted = (
        " or ".join(f"id = {one}" for one in ids) if one_by_one else f"id in [{', '.join(ids)}]"
    )
    lines = ["select: *", f"from: {source_expression(kind, object_ids)}", f"filter: {wanted}"]
    return "\n".join([*lines, f"limit: {min(MAX_LIMIT, 2 * len(row_ids) * len(object_ids))}"])


def filter_lines(bounds: Bounds) -> List[str]:
    """The filter clause, or no line at all."""
    wanted = (
        ("created >=", bounds.created_after),
        ("created <", bounds.created_before),
        (
            "_xact_id >",
            str(bounds.after_xact) if bounds.after_xact else None,
        ),  # as text: all have 19 digits
        ("_pagination_key >", bounds.after_key),
        ("_pagination_key <=", bounds.end_key),
    )
    conditions = [f"{comparison} {quoted(value)}" for comparison, value in wanted if value]
    return ["filter: " + " and ".join(conditions)] if conditions else []


def source_expression(kind: str, object_ids: Sequence[str]) -> str:
    return f"{FROM_OF_KIND[kind]}({', '.join(quoted(one) for one in object_ids)}) spans"


def smaller_limit(limit: int) -> int:
    """1000, 500, 250, … MIN_LIMIT: for the retry of a query that timed out."""
    return max(MIN_LIMIT, limit // 2)


def rate_in(body: str) -> Optional[Tuple[int, int]]:
    """(requests, seconds) where a 429 says "N requests per M seconds" instead of sending Retry-After."""
    match = _RATE.search(body)
    return (int(match[1]), int(match[2])) if match and int(match[1]) and int(match[2]) else None
