"""Queries for rows by id, split into smaller queries if the server takes too long."""

from __future__ import annotations

from typing import Callable, List, Optional, Sequence

from bt_migrate.api.answers import Check, rows_of_query
from bt_migrate.api.client import Api
from bt_migrate.api.request import RETRY_STATUSES
from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.rows.page_ahead import SIZE_STATUSES

# (row ids, whether to compare them one by one, because the server has no IN) -> query
QueryOf = Callable[[Sequence[str], bool], str]


def query_by_ids(
    api: Api,
    query_of: QueryOf,
    row_ids: Sequence[str],
    version: Optional[int] = None,
    check: Check = rows_of_query,
) -> List[JsonObject]:
    """Returns the rows that the server shows for these ids (at a version).

    If a query takes too long, each half of its ids is queried on its own.
    """
    statuses = RETRY_STATUSES - SIZE_STATUSES if len(row_ids) > 1 else RETRY_STATUSES
    try:
        query = query_of(row_ids, api.capabilities.lacks_in)
        answer = api.query(query, retry_statuses=statuses, version=version, check=check)
        rows: List[JsonObject] = answer.json
        return rows
    except ApiError as error:
        if error.status == 400 and not api.capabilities.lacks_in:
            api.capabilities.lacks_in = True
            return query_by_ids(api, query_of, row_ids, version, check)
        if error.status not in SIZE_STATUSES or len(row_ids) == 1:
            raise
    half = len(row_ids) // 2
    return [
        row
        for half_of_ids in (row_ids[:half], row_ids[half:])
        for row in query_by_ids(api, query_of, half_of_ids, version, check)
    ]
