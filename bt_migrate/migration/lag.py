"""How far the destination is behind the source.

That is the number of rows that the source wrote since the run's marks, and the age of the oldest.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import Any, Dict, Iterable, Iterator, Sequence, Tuple

from bt_migrate.api.btql import OBJECTS_PER_QUERY, lag_query
from bt_migrate.api.transactions import xact_at, xact_of, xact_seconds
from bt_migrate.errors import ApiError, NetworkError
from bt_migrate.model.date_windows import iso
from bt_migrate.model.resources import BY_NAME, ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.state.run_record import RunRecord
from bt_migrate.state.sync_marks import mark_seconds

log = logging.getLogger("bt_migrate")

# Errors of counting. The lag is counted after all rows have arrived, so none of these ends the run.
COUNT_ERRORS = (ApiError, NetworkError, KeyError, TypeError, ValueError)


def measure_lag(
    catalog: Catalog, record: RunRecord, kinds: Iterable[str] = ROW_KINDS
) -> Dict[str, Any]:
    """Returns {since, rows, oldest_seconds} over all selected objects, including new ones.

    `rows` is None if the server does not count. Edited rows count, since each edit is a
    transaction. Sends one query for OBJECTS_PER_QUERY objects.
    """
    marks = {kind: mark_seconds(record, kind) for kind in kinds}
    first_mark_s = min(marks.values(), default=mark_seconds(record))
    since = iso(datetime.fromtimestamp(first_mark_s, timezone.utc))
    try:
        counts = [
            _written_since(catalog, kind, ids, mark_s)
            for kind, mark_s in marks.items()
            for ids in _groups_of_ids(catalog, kind)
        ]
    except COUNT_ERRORS as error:
        log.info("the lag cannot be counted (%s)", type(error).__name__)
        return {"since": since, "rows": None, "oldest_seconds": None}
    oldest = min((xact for _, xact in counts if xact), default=0)
    return {
        "since": since,
        "rows": sum(rows for rows, _ in counts),
        "oldest_seconds": _age_s(catalog, oldest) if oldest else None,
    }


def _age_s(catalog: Catalog, xact: int) -> int:
    return max(0, int(catalog.source.clock.earliest_s()) - xact_seconds(xact))


def _written_since(
    catalog: Catalog, kind: str, object_ids: Sequence[str], mark_s: int
) -> Tuple[int, int]:
    """Returns (rows, the smallest transaction among them or 0)."""
    answer = catalog.source.query(lag_query(kind, object_ids, xact_at(mark_s))).json
    return (int(answer[0]["rows"]), xact_of(answer[0]["oldest"])) if answer else (0, 0)


def _groups_of_ids(catalog: Catalog, kind: str) -> Iterator[Sequence[str]]:
    if not catalog.settings.selects(kind):
        return
    ids = [project["id"] for project in catalog.lists.projects()]
    if kind in BY_NAME:
        ids = [
            holder["id"]
            for project_id in ids
            for holder in catalog.lists.source_objects(BY_NAME[kind], project_id)
        ]
    for start in range(0, len(ids), OBJECTS_PER_QUERY):
        yield ids[start : start + OBJECTS_PER_QUERY]
