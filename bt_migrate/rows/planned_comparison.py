"""Plans the queries of a comparison, for the estimate before a copy and before a comparison."""

from __future__ import annotations

import math
from typing import AbstractSet, Dict, Mapping, Optional, Sequence

from bt_migrate.api.btql import OBJECTS_PER_QUERY
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.facets import asks_for_facets, queries_to_ask_again
from bt_migrate.rows.origins import KINDS_WITH_ORIGINS, count_origins
from bt_migrate.rows.planned_states import PlannedStates, batch_limits
from bt_migrate.rows.query_counts import (
    IDS_PER_LOOKUP,
    ROWS_READ_TOGETHER,
    Origins,
    facet_queries,
    lookup_queries,
    pages,
    pages_to_the_end,
    pin_queries,
    read_together,
    sample_queries,
)

NO_ORIGINS = Origins()


def has_history(catalog: Catalog) -> bool:
    """Whether the destination gets, or has, earlier versions of the rows of datasets."""
    settings, run = catalog.settings, catalog.run
    return settings.dataset_versions or any(state.copy.replay for state in run.all_streams())


def compared_origins(
    catalog: Catalog, kind_name: str, object_ids: Sequence[str], datasets: AbstractSet[str]
) -> Dict[str, Origins]:
    """Returns object -> its rows whose origins name versions that the destination has too.

    Without the history of datasets these are present rows, in those `datasets` of which the present
    state is known.
    """
    if has_history(catalog):
        return count_origins(catalog, kind_name, object_ids)
    if not datasets:
        return {}
    origins = count_origins(catalog, kind_name, object_ids, datasets)
    return {object_id: of_object.present() for object_id, of_object in origins.items()}


class ComparedRows:
    """Counts the queries that compare the rows of one kind, on one side.

    `origins`: object -> its rows that were made from versions of rows of datasets.
    """

    def __init__(self, catalog: Catalog, kind_name: str, origins: Mapping[str, Origins]) -> None:
        self._catalog = catalog
        self._kind = kind_name
        self._origins = origins
        self._limit = batch_limits(catalog, kind_name).page_rows

    def in_full(self, rows_of: Mapping[str, Optional[int]]) -> int:
        """Returns the queries that read every row of the objects, which are read together."""
        again = (self._again(object_id, rows or 0) for object_id, rows in rows_of.items())
        return self._pages(rows_of) + sum(again)

    def _pages(self, rows_of: Mapping[str, Optional[int]]) -> int:
        rows = sum(rows or 0 for rows in rows_of.values())
        return pages(rows, self._limit) + self._facets(rows_of)

    def _facets(self, rows_of: Mapping[str, Optional[int]]) -> int:
        source = self._catalog.source
        rows = sum(
            rows or 0
            for object_id, rows in rows_of.items()
            if asks_for_facets(source, self._kind, [object_id])
        )
        return facet_queries(rows, self._limit) if rows else 0

    def _again(self, object_id: str, rows: int) -> int:
        """Returns the queries that compare an object row by row, where origins make days differ."""
        origins = self._origins.get(object_id, NO_ORIGINS)
        if not origins.rows:
            return 0
        read = pages_to_the_end(rows, self._limit) + self._facets({object_id: rows})
        return read + lookup_queries(origins)

    def sampled(self, rows_of: Mapping[str, Optional[int]]) -> int:
        """Returns the queries that compare a sample of the objects, which are read together."""
        sample = self._catalog.settings.verify_sample
        counts = list(rows_of.values())
        queries = sample_queries(counts, sample, self._limit)
        for object_id, rows in rows_of.items():
            of_object = self._origins.get(object_id, NO_ORIGINS)
            if rows is not None and rows <= ROWS_READ_TOGETHER:
                queries += lookup_queries(of_object.share(sample, rows))
            else:
                # each side names other ids
                origins = of_object.share(2 * sample, rows or 0)
                queries += pin_queries(origins, math.ceil(2 * sample / IDS_PER_LOOKUP))
        return queries


def is_compared(catalog: Catalog) -> bool:
    """Whether both sides are compared."""
    return not why_not_compared(catalog)


def why_not_compared(catalog: Catalog) -> str:
    """Returns "" after any copy, but after a sync only on request or if the last comparison found
    that rows were lost.
    """
    settings, record = catalog.settings, catalog.run.record
    if not settings.verify:
        return "left out by --no-verify"
    is_sync = settings.since_last and record.round > 0
    if is_sync and not (settings.depth_given or record.refuted):
        return "not in a sync; --counts, --sample N or --full compares"
    return ""


def verification_queries(
    catalog: Catalog,
    kind_name: str,
    rows_of: Mapping[str, Optional[int]],
    states: PlannedStates,
    pinned: AbstractSet[str],
) -> int:
    """Returns how many queries the comparison of a kind sends to each side.

    `rows_of`: object -> its rows. `pinned`: datasets with states that are named.
    """
    if not is_compared(catalog):
        return 0
    depth = catalog.settings.depth
    queries = math.ceil(len(rows_of) / OBJECTS_PER_QUERY) + len(states.compared)
    if depth == "counts":
        return queries
    filled = {object_id: rows for object_id, rows in rows_of.items() if rows != 0}
    origins: Dict[str, Origins] = {}
    if kind_name in KINDS_WITH_ORIGINS:
        origins = compared_origins(catalog, kind_name, list(filled), pinned)
        if depth == "full" and (pinned or has_history(catalog)):
            # Before it starts, the comparison counts the same to say what it costs.
            queries += math.ceil(len(filled) / OBJECTS_PER_QUERY) + bool(origins)
    compared = ComparedRows(catalog, kind_name, origins)
    compare = compared.sampled
    if depth == "full":
        compare = compared.in_full
        queries += queries_to_ask_again(catalog.source, kind_name, len(filled))
    for group in read_together(filled, filled.__getitem__):
        queries += compare({object_id: filled[object_id] for object_id in group})
    return queries + sum(compare({"": rows}) for rows in states.compared)
