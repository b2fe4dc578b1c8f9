"""Which versions of dataset rows the origins of other rows name.

Asked of the server by aggregate queries, one for 25 objects and one that shows whether the server
cut the answer. Only then the rows themselves are read.
Where a server does not answer, these versions are not known, and are removed with a finding later.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from functools import partial
from typing import Dict, Iterator, List, Optional, Sequence, Set, Tuple

from bt_migrate.api.answers import keys_after
from bt_migrate.api.btql import (
    OBJECTS_PER_QUERY,
    Bounds,
    origins_count_query,
    origins_page_query,
    origins_query,
)
from bt_migrate.api.client import Api
from bt_migrate.api.transactions import xact_of
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource_table import DATASETS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.count import NOT_COUNTED, row_object_ids
from bt_migrate.rows.read import whole_number

log = logging.getLogger("bt_migrate.rows")

KINDS_WITH_ORIGINS = ("experiments", "logs")  # whose rows are made from rows of datasets

RowVersion = Tuple[str, int]  # (row id, transaction)


def versions_named_by_rows(
    catalog: Catalog, projects: Sequence[JsonObject], after_xact: Optional[int] = None
) -> Dict[str, Set[RowVersion]]:
    """Returns source id of a dataset -> the versions of its rows that rows were made from.

    `after_xact`: only rows that were written after this transaction name them.
    """
    named: Dict[str, Set[RowVersion]] = defaultdict(set)
    for kind in (name for name in KINDS_WITH_ORIGINS if catalog.settings.selects(name)):
        ids = [
            object_id
            for project in projects
            for object_id in row_object_ids(catalog, kind, project["id"])
        ]
        starts = range(0, len(ids), OBJECTS_PER_QUERY)
        portions = [ids[start : start + OBJECTS_PER_QUERY] for start in starts]
        for entries in catalog.lists.at_once(partial(_named, catalog, kind, after_xact), portions):
            for dataset_id, row_version in entries:
                named[dataset_id].add(row_version)
    return named


def _named(
    catalog: Catalog, kind: str, after_xact: Optional[int], ids: Sequence[str]
) -> List[Tuple[str, RowVersion]]:
    api, bounds = catalog.source, Bounds(after_xact=after_xact)
    try:
        rows = api.query(origins_query(kind, ids, DATASETS.kind, bounds)).json
        if rows and _is_cut(api, kind, ids, bounds, rows):
            rows = [row for object_id in ids for row in _rows(api, kind, object_id, bounds)]
        return [
            (str(row["object"]), (str(row["row"]), xact_of(row["xact"])))
            for row in rows
            if xact_of(row["xact"])
        ]
    except NOT_COUNTED as error:
        log.warning("origins of rows of %s are not known: %s", kind, error)
        return []


def _is_cut(
    api: Api, kind: str, ids: Sequence[str], bounds: Bounds, groups: Sequence[JsonObject]
) -> bool:
    """Whether there are more rows with origins than the groups of the answer count."""
    (counted,) = api.query(origins_count_query(kind, ids, DATASETS.kind, bounds)).json
    grouped = sum(whole_number(group["rows"]) for group in groups)
    return whole_number(counted["rows"]) > grouped


def _rows(api: Api, kind: str, object_id: str, bounds: Bounds) -> Iterator[JsonObject]:
    """Yields {object, row, xact} of each row of the object that has an origin, page by page."""
    while True:
        api.check()
        query = origins_page_query(kind, object_id, DATASETS.kind, bounds)
        rows = api.query(query, check=keys_after(bounds.after_key)).json
        if not rows:
            return
        yield from rows
        bounds = bounds.after(rows[-1]["_pagination_key"])
