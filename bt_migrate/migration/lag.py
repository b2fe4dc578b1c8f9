"""How far the destination is behind: the source's rows that were written since a run took its mark, and the age of the oldest."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import Any, Dict, Iterable, Iterator, Mapping, Sequence, Tuple

from bt_migrate.api.btql import OBJECTS_PER_COUNT, lag_query
from bt_migrate.api.transactions import xact_at, xact_of, xact_seconds
from bt_migrate.errors import ApiError, NetworkError
from bt_migrate.model.date_windows import iso
from bt_migrate.model.resources import BY_NAME, ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.state.sync_marks import mark_seconds

log = logging.getLogger("bt_migrate")


def measure_lag(
    catalog: Catalog, run: Mapping[str, Any], kinds: Iterable[str] = ROW_KINDS
) -> Dict[str, Any]:
    """{since, rows, oldest_seconds}: rows of all selected objects that were written since the run's marks, new ones too; `rows`
    is None where the server does not count.

    One query per 25 objects. Edited rows count: each is a transaction.
    """
    marks = {kind: mark_seconds(run, kind) for kind in kinds}
    since = iso(
        datetime.fromtimestamp(min(marks.values(), default=mark_seconds(run)), timezone.utc)
    )
    try:
        found = [
            _written_since(catalog, kind, ids, marks[kind])
            for kind in marks
            for ids in _groups_of_ids(catalog, kind)
        ]
    except (
        ApiError,
        NetworkError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # all has arrived: this ends no run
        log.info("the lag cannot be counted (%s)", type(error).__name__)
        return {"since": since, "rows": None, "oldest_seconds": None}
    oldest = min((xact for _, xact in found if xact), default=0)
    age = max(0, int(catalog.source.server_seconds()) - xact_seconds(oldest)) if oldest else None
    return {"since": since, "rows": sum(rows for rows, _ in found), "oldest_seconds": age}


def _written_since(
    catalog: Catalog, kind: str, object_ids: Sequence[str], mark_s: int
) -> Tuple[int, int]:
    """(rows, the least transaction of them or 0)"""
    found = catalog.source.query(lag_query(kind, object_ids, xact_at(mark_s))).json
    return (int(found[0]["rows"]), xact_of(found[0]["oldest"])) if found else (0, 0)


def _groups_of_ids(catalog: Catalog, kind: str) -> Iterator[Sequence[str]]:
    if not catalog.settings.selects(kind):
        return
    ids = [project["id"] for project in catalog.projects()]
    if kind in BY_NAME:
        ids = [
            one["id"]
            for project_id in ids
            for one in catalog.source_objects(BY_NAME[kind], project_id)
        ]
    for start in range(0, len(ids), OBJECTS_PER_COUNT):
        yield ids[start : start + OBJECTS_PER_COUNT]
