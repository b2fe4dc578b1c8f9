"""Queries for rows, made smaller if the server takes too long: by fewer ids or a lower limit."""

from __future__ import annotations

from typing import Callable, List, Optional, Sequence

from bt_migrate.api.answers import Check, rows_of_query
from bt_migrate.api.btql import MAX_LIMIT, MIN_LIMIT, smaller_limit
from bt_migrate.api.client import Api
from bt_migrate.api.request import RETRY_STATUSES, Answer
from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.rows.page_ahead import SIZE_STATUSES

# limit -> query
LimitedQuery = Callable[[int], str]
# (row ids, whether to compare them one by one, because the server has no IN) -> query
QueryOf = Callable[[Sequence[str], bool], str]
# The same -> rows.
RowsOf = Callable[[Sequence[str], bool], List[JsonObject]]


def query_with_limit(
    api: Api, query_of: LimitedQuery, limit: int, version: Optional[int] = None
) -> Answer:
    """Returns the answer for this limit, or for a lower one if the server takes too long."""
    limit = min(limit, MAX_LIMIT)
    while True:
        statuses = RETRY_STATUSES - SIZE_STATUSES if limit > MIN_LIMIT else RETRY_STATUSES
        try:
            return api.query(query_of(limit), retry_statuses=statuses, version=version)
        except ApiError as error:
            if error.status not in SIZE_STATUSES or limit <= MIN_LIMIT:
                raise
            limit = smaller_limit(limit)


def query_by_ids(
    api: Api,
    query_of: QueryOf,
    row_ids: Sequence[str],
    version: Optional[int] = None,
    check: Check = rows_of_query,
) -> List[JsonObject]:
    """Returns the rows that the server shows for these ids (at a version)."""

    def rows_of(ids: Sequence[str], one_by_one: bool) -> List[JsonObject]:
        statuses = RETRY_STATUSES - SIZE_STATUSES if len(ids) > 1 else RETRY_STATUSES
        query = query_of(ids, one_by_one)
        answer = api.query(query, retry_statuses=statuses, version=version, check=check)
        rows: List[JsonObject] = answer.json
        return rows

    return by_ids(api, rows_of, row_ids)


def by_ids(api: Api, rows_of: RowsOf, row_ids: Sequence[str]) -> List[JsonObject]:
    """Returns the rows of these ids.

    If a query takes too long, each half of its ids is queried on its own.
    """
    try:
        return rows_of(row_ids, api.capabilities.lacks_in)
    except ApiError as error:
        if error.status == 400 and not api.capabilities.lacks_in:
            api.capabilities.lacks_in = True
            return by_ids(api, rows_of, row_ids)
        if error.status not in SIZE_STATUSES or len(row_ids) == 1:
            raise
    half = len(row_ids) // 2
    halves = (row_ids[:half], row_ids[half:])
    return [row for ids in halves for row in by_ids(api, rows_of, ids)]
