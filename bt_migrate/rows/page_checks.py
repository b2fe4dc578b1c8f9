"""Checks that a page fits its request: size, objects, order and bounds. Pure.

If a server or gateway ignores a filter, the sort or the limit, the reader would lose rows or never
end. Such an answer is refused, which ends the stream; the next start tries again.
"""

from __future__ import annotations

from typing import Any, List, Optional, Sequence

from bt_migrate.api.btql import Bounds
from bt_migrate.api.transactions import xact_of
from bt_migrate.model.date_windows import in_window
from bt_migrate.model.json_object import JsonObject

KEY = "_pagination_key"


# assumption: queries_answer_rows
def reason_to_refuse(
    rows: Sequence[Any], bounds: Bounds, limit: int, *, id_field: str, object_ids: Sequence[str]
) -> Optional[str]:
    """Returns why the rows cannot be the answer to the query, None if they can.

    The rows are in ascending order.
    """
    if len(rows) > limit:
        return f"{len(rows):,} rows for a limit of {limit:,}; the server ignores the limit"
    if not (_are_all(dict, rows) and _are_all(str, [row.get("id") for row in rows])):
        return "rows that are no objects with an id"
    keys = [row.get(KEY) for row in rows]
    if not (_are_all(str, keys) and all(keys)):
        return "rows without _pagination_key; this data plane is too old to be read in order"
    if keys != sorted(keys):
        return "rows that are not in the order of _pagination_key; the server ignores the sort"
    return _outside(rows, keys, bounds) or _foreign(rows, id_field, object_ids)


def _are_all(kind: type, values: Sequence[Any]) -> bool:
    """Whether each value, as JSON is read, has this very type."""
    return {*map(type, values)} <= {kind}


def _outside(rows: Sequence[JsonObject], keys: List[str], bounds: Bounds) -> Optional[str]:
    if keys and bounds.after_key is not None and keys[0] <= bounds.after_key:
        return f"rows up to the key {bounds.after_key}; the server ignores the filter of keys"
    if keys and bounds.end_key is not None and keys[-1] > bounds.end_key:
        return f"rows after the key {bounds.end_key}; the server ignores the filter of keys"
    after_xact = bounds.after_xact
    if after_xact and any(xact_of(row.get("_xact_id")) <= after_xact for row in rows):
        return f"rows of transactions up to {after_xact}; the server ignores the filter of _xact_id"
    version = bounds.version
    if version is not None and any(xact_of(row.get("_xact_id")) > version for row in rows):
        return f"rows that are newer than the version {version}; the server ignores the version"
    window = bounds.created_after, bounds.created_before
    if any(window) and not all(in_window(row.get("created"), *window) for row in rows):
        return "rows outside of the date window; the server ignores the filter of created"
    return None


def _foreign(rows: Sequence[JsonObject], id_field: str, object_ids: Sequence[str]) -> Optional[str]:
    """Returns rows of other objects. Rows of a query for a single object need not name it."""
    holders = [row.get(id_field) for row in rows]
    if len(object_ids) == 1 and None in holders:
        holders = [holder for holder in holders if holder is not None]
    if not _are_all(str, holders) or not {*holders} <= {*object_ids}:
        return f"rows whose {id_field} was not asked for"
    return None


def has_one_key(rows: Sequence[JsonObject]) -> bool:
    return bool(rows) and rows[0][KEY] == rows[-1][KEY]


def without_cut_off_key(rows: List[JsonObject], *, newest_first: bool) -> List[JsonObject]:
    """Returns the rows without those of the last key read.

    The next page may have more rows with that key, and is requested from before it.
    """
    if has_one_key(rows):
        return rows
    cut_off = rows[0 if newest_first else -1][KEY]
    return [row for row in rows if row[KEY] != cut_off]
