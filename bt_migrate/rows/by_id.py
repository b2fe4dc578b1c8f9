"""Queries for rows, made smaller if the server takes too long: by fewer ids or a lower limit.

A server may refuse a query because of one id in it, such as one with a line break.
"""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Sequence, Tuple

from bt_migrate.api.answers import Check, rows_of_query
from bt_migrate.api.btql import MIN_LIMIT, smaller_limit
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
# Rows, and the ids that the server refuses in a query.
Found = Tuple[List[JsonObject], Dict[str, ApiError]]

REFUSED_STATUSES = frozenset((400, 422))
# Shows whether a query was refused because of its ids.
PLAIN_ID = "00000000-0000-4000-8000-000000000000"


def query_with_limit(
    api: Api,
    query_of: LimitedQuery,
    limit: int,
    version: Optional[int] = None,
    check: Check = rows_of_query,
) -> Answer:
    """Returns the answer for this limit, or for a lower one if the server takes too long."""
    while True:
        statuses = RETRY_STATUSES - SIZE_STATUSES if limit > MIN_LIMIT else RETRY_STATUSES
        try:
            query = query_of(limit)
            return api.query(query, retry_statuses=statuses, version=version, check=check)
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
) -> Found:
    """Returns the rows that the server shows for these ids (at a version)."""

    def rows_of(ids: Sequence[str], one_by_one: bool) -> List[JsonObject]:
        statuses = RETRY_STATUSES - SIZE_STATUSES if len(ids) > 1 else RETRY_STATUSES
        query = query_of(ids, one_by_one)
        answer = api.query(query, retry_statuses=statuses, version=version, check=check)
        rows: List[JsonObject] = answer.json
        shown = {row.get("id") for row in rows}
        missing = [row_id for row_id in ids if row_id not in shown]
        # The server may limit answers to any size: one with rows does not prove that others are
        # missing.
        if 0 < len(missing) < len(ids):
            rows += rows_of(missing, one_by_one)
        return rows

    return by_ids(api, rows_of, row_ids)


def by_ids(api: Api, rows_of: RowsOf, row_ids: Sequence[str]) -> Found:
    """Returns the rows of these ids, and the ids that the server refuses in a query.

    If a query takes too long, or is refused because of its ids, each half of them is queried on its
    own.
    """
    try:
        return rows_of(row_ids, api.capabilities.lacks_in), {}
    except ApiError as error:
        refused = error.status in REFUSED_STATUSES
        if refused and not api.capabilities.lacks_in and not _takes_plain_id(rows_of, False):
            api.capabilities.lacks_in = True
            return by_ids(api, rows_of, row_ids)
        if refused and not _takes_plain_id(rows_of, api.capabilities.lacks_in):
            raise
        if refused and len(row_ids) == 1:
            return [], {row_ids[0]: error}
        if not (refused or error.status in SIZE_STATUSES) or len(row_ids) == 1:
            raise
    half = len(row_ids) // 2
    rows, refusals = by_ids(api, rows_of, row_ids[:half])
    more_rows, more_refusals = by_ids(api, rows_of, row_ids[half:])
    return [*rows, *more_rows], {**refusals, **more_refusals}


def _takes_plain_id(rows_of: RowsOf, one_by_one: bool) -> bool:
    try:
        rows_of([PLAIN_ID], one_by_one)
    except ApiError as error:
        return error.status not in REFUSED_STATUSES
    return True


def rows_or_refusal(found: Found) -> List[JsonObject]:
    """Returns the rows. Raises ApiError if the server refused an id."""
    rows, refusals = found
    for error in refusals.values():
        raise error
    return rows
