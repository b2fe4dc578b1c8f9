"""The estimated cost of comparing every row, printed before it starts."""

from __future__ import annotations

import math
from typing import Sequence

from bt_migrate.api.throttle import STARTER_QUERIES_PER_MINUTE
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.report.display import duration_text, number, plural
from bt_migrate.verify.kept import KeptRows
from bt_migrate.verify.pairs import CompareContext, ObjectPair


def cost_text(
    context: CompareContext, groups: Sequence[Sequence[ObjectPair]], kept: KeptRows
) -> str:
    """`comparing all 65,662 rows of 84 objects: about 134 queries to each side, 8 s unlimited …`"""
    pairs = [pair for group in groups for pair in group]
    rows = context.counted_rows([pair.source_id for pair in pairs])
    queries = sum(_queries(context, group) for group in groups)
    begun = "; what an earlier start has read is not read again" if kept.is_begun else ""
    return (
        f"comparing all {number(rows)} rows of {plural(len(pairs), 'object')}: about"
        f" {plural(queries, 'query')} to each side, {_time_text(context, queries)}{begun}"
    )


def _queries(context: CompareContext, group: Sequence[ObjectPair]) -> int:
    """Returns the queries to one side: its pages, at least one if the server does not count."""
    limit = context.catalog.settings.rows(ROW_KINDS[group[0].kind].name).fetch_limit
    rows = context.counted_rows([pair.source_id for pair in group]) or 0
    return max(1, math.ceil(rows / limit))


def _time_text(context: CompareContext, queries: int) -> str:
    """Returns the time at the query limit of the slower side, or at that of a small plan."""
    catalog = context.catalog
    limits = [side.throttle.queries_per_minute for side in (catalog.source, catalog.dest)]
    known = [limit for limit in limits if limit]
    rate = min(known, default=float(STARTER_QUERIES_PER_MINUTE))
    time = f"{duration_text(queries * 60 / rate)} at {rate:g} queries a minute"
    if known:
        return time
    estimate = catalog.run.record.validation or {}
    copy = estimate.get("estimate") or {}
    if not copy.get("queries"):
        return f"{time} (Starter and Pro plans)"
    # Assumes that a query of the comparison takes as long as one of the copy.
    unlimited = duration_text(copy["seconds"] * queries / copy["queries"])
    return f"{unlimited} unlimited, {time} (Starter and Pro plans)"
