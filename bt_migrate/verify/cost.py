"""The estimated cost of comparing every row, printed before it starts."""

from __future__ import annotations

from typing import AbstractSet, Dict, Sequence

from bt_migrate.api.throttle import STARTER_QUERIES_PER_MINUTE
from bt_migrate.model.resource_table import DATASETS
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.report.display import duration_text, plural
from bt_migrate.rows.origins import KINDS_WITH_ORIGINS
from bt_migrate.rows.planned_comparison import ComparedRows, compared_origins
from bt_migrate.rows.query_counts import Origins
from bt_migrate.verify.dataset_states import CountedState
from bt_migrate.verify.pairs import CompareContext, ObjectPair


def cost_text(
    context: CompareContext,
    groups: Sequence[Sequence[ObjectPair]],
    states: Sequence[CountedState],
) -> str:
    """`comparing 65,662 rows: 134 queries a side, 8 s (at 20 a minute: 7 min)`

    Rows that were made from rows of datasets with such states are counted, one query for 25
    objects: these are looked up. Each state of a dataset is counted once on each side.
    """
    pairs = [pair for group in groups for pair in group]
    rows = plural(context.counted_rows([pair.source_id for pair in pairs]), "row")
    pinned = {state.pair.source_id for state in states}
    queries = sum(_queries(context, kind, groups, pinned) for kind in ROW_KINDS)
    of_states = ComparedRows(context.catalog, DATASETS.name, {})
    queries += sum(1 + of_states.in_full({state.pair.source_id: state.rows}) for state in states)
    return f"comparing {rows}: {plural(queries, 'query')} a side, {_time_text(context, queries)}"


def _queries(
    context: CompareContext,
    kind_name: str,
    groups: Sequence[Sequence[ObjectPair]],
    datasets: AbstractSet[str],
) -> int:
    of_kind = [group for group in groups if group[0].kind == kind_name]
    ids = [pair.source_id for group in of_kind for pair in group]
    origins: Dict[str, Origins] = {}
    if kind_name in KINDS_WITH_ORIGINS:
        origins = compared_origins(context.catalog, kind_name, ids, datasets)
    compared = ComparedRows(context.catalog, kind_name, origins)
    counts = context.row_counts
    return sum(
        compared.in_full({pair.source_id: counts.get(pair.source_id) for pair in group})
        for group in of_kind
    )


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
