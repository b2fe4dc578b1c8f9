"""How far the destination is behind: the source's rows that were written since a run took its mark, and the age of the oldest."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import Any, Dict, Iterable, Iterator, Mapping, Optional, Sequence, Tuple

from bt_migrate.btql import OBJECTS_PER_COUNT, lag_query
from bt_migrate.catalog import Catalog
from bt_migrate.errors import ApiError, NetworkError
from bt_migrate.keys import xact_at, xact_of, xact_seconds
from bt_migrate.resources import BY_NAME, ROW_KINDS
from bt_migrate.rounds import mark_seconds
from bt_migrate.windows import iso

log = logging.getLogger("bt_migrate")

def measure_lag(catalog: Catalog, run: Mapping[str, Any], kinds: Iterable[str] = ROW_KINDS) -> Dict[str, Any]:
    """{since, rows, oldest_seconds}: rows of all selected objects that were written since the run's marks, new ones too; `rows`
    is None where the server does not count.

    One query per 25 objects. Edited rows count: each is a transaction.
    """
    marks = {kind: mark_seconds(run, kind) for kind in kinds}
    since = iso(datetime.fromtimestamp(min(marks.values(), default=mark_seconds(run)), timezone.utc))
    try:
        found = [_written_since(catalog, kind, ids, marks[kind]) for kind in marks for ids in _groups_of_ids(catalog, kind)]
    except (ApiError, NetworkError, KeyError, TypeError, ValueError) as error:  # all has arrived: this ends no run
        log.info("the lag cannot be counted (%s)", type(error).__name__)
        return {"since": since, "rows": None, "oldest_seconds": None}
    oldest = min((xact for _, xact in found if xact), default=0)
    age = max(0, int(catalog.source.server_seconds()) - xact_seconds(oldest)) if oldest else None
    return {"since": since, "rows": sum(rows for rows, _ in found), "oldest_seconds": age}


def _written_since(catalog: Catalog, kind: str, object_ids: Sequence[str], mark_s: int) -> Tuple[int, int]:
    """(rows, the least transaction of them or 0)"""
    found = catalog.source.query(lag_query(kind, object_ids, xact_at(mark_s))).json
    return (int(found[0]["rows"]), xact_of(found[0]["oldest"])) if found else (0, 0)


def _groups_of_ids(catalog: Catalog, kind: str) -> Iterator[Sequence[str]]:
    if not catalog.settings.selects(kind):
        return
    ids = [project["id"] for project in catalog.projects()]
    if kind in BY_NAME:
        ids = [one["id"] for project_id in ids for one in catalog.source_objects(BY_NAME[kind], project_id)]
    for start in range(0, len(ids), OBJECTS_PER_COUNT):
        yield ids[start : start + OBJECTS_PER_COUNT]


def lag_text(lag: Optional[Mapping[str, Any]]) -> str:
    """`12 rows written since 2026-01-15T00:00:00Z, the oldest 3 min ago`"""
    if not lag:
        return "not measured"
    if lag["rows"] is None:
        return "this server does not count"
    age = f", the oldest {duration_text(lag['oldest_seconds'])} ago" if lag["oldest_seconds"] is not None else ""
    return f"{lag['rows']:,} rows written since {lag['since']}{age}"


def duration_text(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `2.0 days`"""
    for size, word in ((86400, "days"), (3600, "h")):
        if seconds >= size:
            return f"{seconds / size:.1f} {word}"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
