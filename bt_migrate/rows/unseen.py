"""Streams that a sync cannot read, because their object is in no list: they stay behind, each with
its own sync mark.

An object that is missing from one list may be missing for a night: a right was taken away, a
gateway answered instead of the API. It is taken for deleted only after two good lists, some time
apart; and whenever it comes back, its rows are read from the mark that it had.
"""

from __future__ import annotations

import logging
from typing import Sequence

from bt_migrate.model.resource_table import PROJECTS
from bt_migrate.model.resources import BY_NAME
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.streams import RowStream
from bt_migrate.state.stream_state import StreamState
from bt_migrate.state.sync_marks import Round

log = logging.getLogger("bt_migrate.rows")

# between the first and the last good list without an object that is taken for deleted
ABSENCE_S = 600


def keep_unseen_marks(
    catalog: Catalog, kind_name: str, streams: Sequence[RowStream], round_: Round
) -> None:
    """Note each stream of the kind that earlier syncs know and that is not among `streams`, which
    this sync reads.
    """
    visited = {stream.source_id for stream in streams}
    for state in catalog.run.all_streams():
        if state.header["kind"] != kind_name or state.header["source_id"] in visited:
            continue
        finished = state.done and state.sync.round == round_.number
        if not finished and not state.sync.gone:
            _note_unseen(catalog, state, round_)


def _note_unseen(catalog: Catalog, state: StreamState, round_: Round) -> None:
    holder = BY_NAME.get(state.header["kind"], PROJECTS)
    state.begin_round(round_.number, round_.above)
    refused = catalog.lists.unavailable.get(holder.name)
    if refused:
        state.sync.unseen = f"{holder.name} could not be listed ({refused})"
    else:
        now_s = int(catalog.source.clock.earliest_s())
        state.sync.unseen = _where_absent(catalog, state)
        state.sync.absent_since = state.sync.absent_since or now_s
        state.sync.gone = now_s - state.sync.absent_since >= ABSENCE_S
    state.error = ""
    state.save()
    log.warning(
        "rows of %s %r were not read: %s",
        state.header["kind"],
        state.header["name"],
        state.sync.unseen,
        extra={"event": "stream_behind", "source_id": state.header["source_id"]},
    )


def _where_absent(catalog: Catalog, state: StreamState) -> str:
    """Which good list does not hold the object."""
    kind_name, source_id = state.header["kind"], state.header["source_id"]
    source = catalog.lists.source_object(BY_NAME.get(kind_name, PROJECTS), source_id)
    if source is None:
        return "the source does not list it"
    if (
        "project_id" in source
        and catalog.lists.source_object(PROJECTS, source["project_id"]) is None
    ):
        return "the source does not list its project"
    return "the destination does not list its counterpart"
