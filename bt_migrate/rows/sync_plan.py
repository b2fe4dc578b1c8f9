"""Counts the rows that a sync would send, for a dry run.

A sync reads rows from before its mark again (`--lookback`). As in the sync, what it reads is
compared with the destination; what arrived unchanged is not counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from typing import Any, Dict, List, Sequence

from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import FOUND
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.count import RowCounts, sync_marks
from bt_migrate.rows.decide import RowDecider
from bt_migrate.rows.groups import round_groups
from bt_migrate.rows.read import RowSelection, pages
from bt_migrate.rows.streams import (
    PageEnd,
    RowStream,
    StreamCopy,
    bounds_of,
    open_copy,
    planned_stream,
)
from bt_migrate.state.sync_marks import Round, round_of

log = logging.getLogger("bt_migrate.validate")

# How many rows of up to 25 objects are compared; all others count as not delivered.
MOST_COMPARED = 5_000


def leave_out_delivered(
    catalog: Catalog, counts: RowCounts, kind_name: str, objects: Sequence[Dict[str, Any]]
) -> None:
    """Subtract from `rows` of each object what the destination has already. Only in a sync.

    Sets `rows_read`: how many rows the sync reads.
    """
    round_ = round_of(catalog.run.record, kind_name, catalog.settings.lookback)
    if round_ is None:
        return
    marks = sync_marks(catalog, kind_name)
    for planned in objects:
        planned["rows_read"] = planned["rows"]
    changed = {
        planned["id"]: planned
        for planned in objects
        if planned["id"] in marks and planned["rows"] and planned["dest_id"]
    }
    streams = [planned_stream(kind_name, planned) for planned in changed.values()]
    for group in round_groups(catalog, counts, streams, round_):
        for object_id, count in _delivered(catalog, group, round_).items():
            changed[object_id]["rows"] = max(0, changed[object_id]["rows"] - count)


def _delivered(catalog: Catalog, group: Sequence[RowStream], round_: Round) -> Counter[str]:
    """Returns source object -> rows that the sync would read, and that need not be sent."""
    members = {stream.source_id: open_copy(catalog, stream, round_) for stream in group}
    try:
        return _found(catalog, members)
    except ApiError as error:
        log.info("rows of %s were not compared: %s", group[0].kind.name, error)
        return Counter()
    finally:
        for member in members.values():
            member.touched = False  # nothing of it is saved
            member.close()


def _found(catalog: Catalog, members: Dict[str, StreamCopy]) -> Counter[str]:
    counts: Counter[str] = Counter()
    marks = [member.above for member in members.values() if member.above is not None]
    if len(marks) < len(members):  # copied again, to another object than before
        return counts
    kind = next(iter(members.values())).stream.kind
    bounds = replace(bounds_of(catalog, kind), after_xact=min(marks))
    selection = RowSelection(kind.name, list(members), bounds)
    decider = RowDecider(catalog, kind, members)
    compared = 0
    for page in pages(
        catalog.source, selection, limit=catalog.settings.rows(kind.name).fetch_limit
    ):
        catalog.source.check()
        by_object: Dict[str, List[JsonObject]] = {}
        for row in page.rows:
            alone = next(iter(members)) if len(members) == 1 else row[kind.id_field]
            by_object.setdefault(alone, []).append(row)
        end = PageEnd(page.end_key)
        decider.of_round(by_object, end, plain=page.plain)
        counts.update({object_id: end.counts[object_id][FOUND] for object_id in by_object})
        compared += len(page.rows)
        if compared >= MOST_COMPARED:
            break
    return counts
