"""Which versions of dataset rows the origins of other rows name.

Asked of the server by aggregate queries, one for 25 objects and one that shows whether the server
cut the answer. Only then the rows themselves are read.
Where a server does not answer, these versions are not known, and are removed with a finding later.

An estimate needs only how many rows have such origins.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import defaultdict
from functools import partial
from itertools import chain
from typing import (
    AbstractSet,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from bt_migrate.api.answers import keys_after
from bt_migrate.api.btql import (
    OBJECTS_PER_QUERY,
    Bounds,
    origins_by_object_query,
    origins_count_query,
    origins_page_query,
    origins_query,
    transactions_query,
)
from bt_migrate.api.client import Api
from bt_migrate.api.transactions import xact_of
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.portions import portions
from bt_migrate.model.resource_table import DATASETS
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.count import NOT_COUNTED, row_object_ids
from bt_migrate.rows.query_counts import Origins
from bt_migrate.rows.read import whole_number

log = logging.getLogger("bt_migrate.rows")

KINDS_WITH_ORIGINS = ("experiments", "logs")  # whose rows are made from rows of datasets

RowVersion = Tuple[str, int]  # (row id, transaction)


class NamedVersions:
    """Versions of dataset rows that the source's rows were made from, queried once in a process.

    Safe for many threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._named: Dict[Tuple[Tuple[str, ...], Optional[int]], Dict[str, Set[RowVersion]]] = {}

    def of(
        self, catalog: Catalog, projects: Sequence[JsonObject], after_xact: Optional[int] = None
    ) -> Dict[str, Set[RowVersion]]:
        """Returns `versions_named_by_rows`."""
        place = (tuple(sorted(project["id"] for project in projects)), after_xact)
        with self._lock:
            if place not in self._named:
                self._named[place] = versions_named_by_rows(catalog, projects, after_xact)
            return self._named[place]


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
        answers = catalog.lists.at_once(
            partial(_named, catalog, kind, after_xact), portions(ids, OBJECTS_PER_QUERY)
        )
        for dataset_id, row_version in chain.from_iterable(answers):
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


# -- how many, for an estimate


def count_origins(
    catalog: Catalog,
    kind_name: str,
    object_ids: Sequence[str],
    in_datasets: Optional[AbstractSet[str]] = None,
) -> Dict[str, Origins]:
    """Returns object -> its rows with such origins, if there are any.

    Costs a query for 25 objects, and one for 25 of the datasets that they name.
    """
    answers = catalog.lists.at_once(
        partial(_counted, catalog.source, kind_name), portions(object_ids, OBJECTS_PER_QUERY)
    )
    named = [
        row
        for rows in answers
        for row in rows
        if in_datasets is None or row.dataset_id in in_datasets
    ]
    datasets = sorted({row.dataset_id for row in named})
    last = catalog.lists.at_once(
        lambda ids: last_written(catalog.source, ids, Bounds()),
        portions(datasets, OBJECTS_PER_QUERY),
    )
    present = {xact: rows for answer in last for xact, rows in answer.items()}
    by_object: Dict[str, List[NamedRows]] = defaultdict(list)
    for row in named:
        by_object[row.object_id].append(row)
    return {object_id: _origins(rows, present) for object_id, rows in by_object.items()}


class NamedRows(NamedTuple):
    """So many `rows` of an object name this transaction of so many rows of a dataset."""

    object_id: str
    dataset_id: str
    xact: int
    rows: int
    named: int


def _origins(named: Sequence[NamedRows], present: Mapping[int, int]) -> Origins:
    """`present`: transaction -> dataset rows that it wrote last."""
    past = [rows for rows in named if rows.named > present.get(rows.xact, 0)]
    past_rows = (rows.rows * (1 - present.get(rows.xact, 0) / rows.named) for rows in past)
    return Origins(
        sum(rows.rows for rows in named),
        len({rows.dataset_id for rows in named}),
        len(past),
        math.ceil(sum(past_rows)),
    )


def _counted(api: Api, kind_name: str, ids: Sequence[str]) -> List[NamedRows]:
    id_field = ROW_KINDS[kind_name].id_field
    try:
        rows = api.query(origins_by_object_query(kind_name, id_field, ids, DATASETS.kind)).json
        counted = [
            NamedRows(
                str(row[id_field]),
                str(row["object"]),
                xact_of(row["xact"]),
                whole_number(row["rows"]),
                whole_number(row["named"]),
            )
            for row in rows
        ]
    except NOT_COUNTED as error:
        log.info("origins of rows of %s were not counted: %s", kind_name, error)
        return []
    return [row for row in counted if row.xact]


def last_written(api: Api, dataset_ids: Sequence[str], bounds: Bounds) -> Dict[int, int]:
    """Returns transaction -> rows inside the bounds that it wrote last; {} if that is unknown."""
    query = transactions_query(DATASETS.name, dataset_ids, bounds)
    try:
        rows = api.query(query, version=bounds.version).json
        return {xact_of(row["xact"]): whole_number(row["rows"]) for row in rows}
    except NOT_COUNTED as error:
        log.info("transactions of datasets are not known: %s", error)
        return {}
