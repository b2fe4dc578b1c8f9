"""Query text for BTQL (https://www.braintrust.dev/docs/reference/sql). Pure: text in, text out.

Native clauses are written rather than SQL, because older data planes know no SQL mode; the shape is named because its default
changed between data plane versions. Pages are cut by `_pagination_key > last`, not by cursor: official sources disagree on
whether a cursor works beside a sort, and a key can be kept in a checkpoint.
"""

from __future__ import annotations

import re
from typing import List, Optional, Sequence, Tuple

MAX_LIMIT = 1000  # rows of a query; more is refused
MIN_LIMIT = 25  # below it a failing query fails for another reason than its size

FROM_OF_KIND = {"logs": "project_logs", "experiments": "experiment", "datasets": "dataset"}

_RATE = re.compile(r"(\d+)\s+requests?\s+per\s+(\d+)\s+seconds?", re.IGNORECASE)


def quoted(text: str) -> str:
    """A single-quoted BTQL literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def page_query(
    kind: str,
    object_ids: Sequence[str],
    *,
    limit: int,
    after_key: Optional[str] = None,
    created_after: Optional[str] = None,
    created_before: Optional[str] = None,
) -> str:
    """All fields of the next `limit` rows with a key above `after_key`, in key order, inside the date window."""
    conditions: List[str] = []
    if created_after:
        conditions.append(f"created >= {quoted(created_after)}")
    if created_before:
        conditions.append(f"created < {quoted(created_before)}")
    if after_key:
        conditions.append(f"_pagination_key > {quoted(after_key)}")
    lines = ["select: *", f"from: {source_expression(kind, object_ids)}"]
    if conditions:
        lines.append("filter: " + " and ".join(conditions))
    return "\n".join([*lines, "sort: _pagination_key asc", f"limit: {limit}"])


def count_query(
    kind: str, object_ids: Sequence[str], created_after: Optional[str] = None, created_before: Optional[str] = None
) -> str:
    """One row `{"rows": n}` for all the objects together."""
    conditions = [f"created >= {quoted(created_after)}"] if created_after else []
    conditions += [f"created < {quoted(created_before)}"] if created_before else []
    lines = ["measures: count(1) as rows", f"from: {source_expression(kind, object_ids)}"]
    return "\n".join(lines + (["filter: " + " and ".join(conditions)] if conditions else []))


def source_expression(kind: str, object_ids: Sequence[str]) -> str:
    return f"{FROM_OF_KIND[kind]}({', '.join(quoted(one) for one in object_ids)}) spans"


def smaller_limit(limit: int) -> int:
    """1000, 500, 250, … MIN_LIMIT: for the retry of a query that timed out."""
    return max(MIN_LIMIT, limit // 2)


def rate_in(body: str) -> Optional[Tuple[int, int]]:
    """(requests, seconds) where a 429 says "N requests per M seconds" instead of sending Retry-After."""
    match = _RATE.search(body)
    return (int(match[1]), int(match[2])) if match else None
