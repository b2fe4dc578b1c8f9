"""GET and POST /v1/.../fetch: whole traces, newest pagination key first."""

from __future__ import annotations

from typing import Any, List, Optional, Set, Tuple

import bt_migrate.sandbox.data.clock as keys
from bt_migrate.sandbox.btql.run import read_cursor, write_cursor
from bt_migrate.sandbox.data.errors import Refused
from bt_migrate.sandbox.data.rows import Json, Row, RowSet


def fetch_page(rows: RowSet, values: Json) -> Tuple[List[bytes], Optional[str]]:
    """Returns the page after the cursor, and its cursor.

    Without a version, a row that was edited is listed once for each of its states.
    """
    states = _states(rows, values.get("version"))
    limit = None if values.get("limit") in (None, "") else _whole_number(values["limit"])
    page: List[Row] = []
    roots: Set[str] = set()
    for row in states[_start(values.get("cursor"), states) :]:
        root = str(row.value()["root_span_id"])
        full = limit is not None and root not in roots and len(roots) >= limit
        if full and (not page or row.key != page[-1].key):
            return _texts(page), write_cursor((page[-1].key, 0)) if page else None
        roots.add(root)
        page.append(row)
    with_each = rows.behaviour.cursor_with_each_page
    return _texts(page), write_cursor((page[-1].key, 0)) if page and with_each else None


def _states(rows: RowSet, version: Any) -> List[Row]:
    """The rows as of a version, or now with their earlier states; newest key and state first."""
    moment = keys.moment_of_xact(version) if version else None
    current, _ = rows.at(moment)
    states = list(current)
    if moment is None:
        live = {row.id for row in current}
        states += [row for row, _ in rows.past if row.id in live]
    return sorted(states, key=lambda row: (row.key, row.moment), reverse=True)


def _whole_number(value: Any) -> int:
    if not str(value).isdigit():
        raise Refused(400, f"limit: expected a number that is not negative, got '{value}'")
    return int(value)


def _texts(page: List[Row]) -> List[bytes]:
    return [row.body + row.tail for row in page]


def _start(cursor: Any, states: List[Row]) -> int:
    if not cursor:
        return 0
    key, _ = read_cursor(cursor)
    return sum(1 for row in states if row.key >= key)
