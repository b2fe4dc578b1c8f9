"""Counts the rows that a sync with --propagate-deletes would delete, for a dry run.

The plan searches as the sync does. What is noted of missing rows is noted in the plan's own folder.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, Sequence

from bt_migrate.api.btql import OBJECTS_PER_QUERY
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.deletes import GoneSearch, gone_store
from bt_migrate.rows.streams import planned_stream
from bt_migrate.rows.unseen import without_silent
from bt_migrate.state.sync_marks import round_of


@dataclass
class PlannedDeletes:
    """What a sync deletes of one kind of rows.

    `waiting`: rows that are missing for the first time, or only since recently. `too_many`: rows
    that are gone and stay, because --max-deletes allows fewer. `queries`: to the source. `inserts`:
    requests that delete.
    """

    rows: int = 0
    waiting: int = 0
    too_many: int = 0
    queries: int = 0
    inserts: int = 0


def plan_deletes(
    catalog: Catalog, kind_name: str, objects: Sequence[Dict[str, Any]]
) -> PlannedDeletes:
    """Returns the plan for a kind. `objects`: as in `plan_rows`, with the rows that are sent.

    Of a dataset that gets an earlier state first, the rows that are gone belong to that state.
    """
    round_ = round_of(catalog.run.record, kind_name, catalog.settings.lookback)
    if round_ is None or not catalog.settings.propagate_deletes:
        return PlannedDeletes()
    copied = {
        (state.header["source_id"], state.header.get("dest_id"))
        for state in catalog.run.all_streams()
        if state.header["kind"] == kind_name and state.copied
    }
    known = [
        planned
        for planned in objects
        if (planned["id"], planned["dest_id"]) in copied and planned["late"] is None
    ]
    streams = [planned_stream(kind_name, planned) for planned in known]
    shown = without_silent(catalog, kind_name, streams, round_)
    with gone_store() as db:
        search = GoneSearch(catalog, kind_name, round_, db)
        search.look(shown, {planned["id"] for planned in known if planned["rows_read"] != 0})
        for gone in search.gone:
            gone.member.close()
            catalog.run.return_seen(gone.member.state)
    return _result(search, len(shown))


def _result(search: GoneSearch, streams: int) -> PlannedDeletes:
    batch_size = search.catalog.settings.rows(search.kind_name).insert_batch_size
    found = [gone for gone in search.gone if gone.rows or gone.waiting or gone.changed]
    plan = PlannedDeletes(
        queries=math.ceil(streams / OBJECTS_PER_QUERY) + sum(gone.queries for gone in found)
    )
    if search.exceeds_limit:
        plan.too_many = search.rows
        return plan
    plan.rows = sum(gone.rows for gone in found)
    plan.waiting = sum(gone.waiting for gone in found)
    plan.inserts = sum(math.ceil(gone.rows / batch_size) for gone in found)
    return plan
