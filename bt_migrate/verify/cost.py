"""The estimated cost of comparing every row, printed before it starts."""

from __future__ import annotations

import math
from typing import Sequence

from bt_migrate.api.throttle import STARTER_QUERIES_PER_MINUTE
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.report.display import duration_text, plural
from bt_migrate.rows.facets import asks_for_facets
from bt_migrate.verify.pairs import CompareContext, ObjectPair

# What a state of a dataset costs on each side besides the pages of its rows: these are counted, the
# last key is read again, and an empty page ends it.
QUERIES_OF_STATE = 3


def cost_text(
    context: CompareContext,
    groups: Sequence[Sequence[ObjectPair]],
    states: Sequence[ObjectPair],
) -> str:
    """`comparing 65,662 rows: 134 queries a side, 8 s (at 20 a minute: 7 min)`

    `states` of datasets count as having the rows of the present one.
    """
    pairs = [pair for group in groups for pair in group]
    rows = plural(context.counted_rows([pair.source_id for pair in pairs]), "row")
    queries = sum(_queries(context, group) for group in groups)
    queries += sum(_queries(context, [state]) + QUERIES_OF_STATE for state in states)
    return f"comparing {rows}: {plural(queries, 'query')} a side, {_time_text(context, queries)}"


def _queries(context: CompareContext, group: Sequence[ObjectPair]) -> int:
    """Pages of one side, with those of facets; at least one where the server does not count."""
    kind = group[0].kind
    ids = [pair.source_id for pair in group]
    limit = context.catalog.settings.rows(ROW_KINDS[kind].name).fetch_limit
    pages = max(1, math.ceil((context.counted_rows(ids) or 0) / limit))
    return 2 * pages if asks_for_facets(context.catalog.source, kind, ids) else pages


def _time_text(context: CompareContext, queries: int) -> str:
    """At the known limit of the slower side, or at that of the small plans."""
    catalog = context.catalog
    limits = [side.throttle.queries_per_minute for side in (catalog.source, catalog.dest)]
    known_limits = [limit for limit in limits if limit]
    rate = min(known_limits, default=float(STARTER_QUERIES_PER_MINUTE))
    limited = duration_text(queries * 60 / rate)
    copy = (catalog.run.record.validation or {}).get("estimate") or {}
    if known_limits or not copy.get("queries"):
        return f"{limited} at {rate:g} a minute"
    # A query of the comparison takes as long as one of the copy.
    unlimited = duration_text(copy["seconds"] * queries / copy["queries"])
    return f"{unlimited} (at {rate:g} a minute: {limited})"
