"""Streams that a sync cannot read, because their object is in no list: they stay behind, each with
its own sync mark.

An object that is missing from one list may be missing for a night: a right was taken away, a
gateway answered instead of the API. It is taken for deleted only after two good lists, some time
apart; and whenever it comes back, its rows are read from the mark that it had.
"""

from __future__ import annotations

import logging

from bt_migrate.errors import ApiError
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import PROJECTS
from bt_migrate.model.resources import BY_NAME
from bt_migrate.objects.catalog import Catalog
from bt_migrate.state.stream_state import StreamState
from bt_migrate.state.sync_marks import ABSENCE_S, Round

log = logging.getLogger("bt_migrate.rows")


def keep_unseen_marks(catalog: Catalog, kind_name: str, round_: Round) -> None:
    """Note each stream of the kind that earlier syncs know and that this round has not read.

    Called before the mark of the kind moves, whatever the reason is that it was not read.
    """
    for state in catalog.run.all_streams():
        if state.header["kind"] == kind_name and not _is_settled(catalog, state, round_):
            _note_unseen(catalog, state, round_)


def _is_settled(catalog: Catalog, state: StreamState, round_: Round) -> bool:
    """Whether the stream was read in this round, knows why it was not, or counts as deleted."""
    in_round = state.sync.round == round_.number
    was_read = catalog.run.was_completed(state) or (in_round and state.done)
    return was_read or (in_round and bool(state.error)) or state.sync.gone


def _note_unseen(catalog: Catalog, state: StreamState, round_: Round) -> None:
    holder = BY_NAME.get(state.header["kind"], PROJECTS)
    state.begin_round(round_.number, round_.above)
    refused = catalog.lists.unavailable.get(holder.name)
    absent = "" if refused else _where_absent(catalog, holder, state)
    if refused:
        state.sync.unseen = f"{holder.name} could not be listed ({refused})"
    elif absent:
        now_s = int(catalog.source.clock.earliest_s())
        state.sync.unseen = absent
        state.sync.absent_since = state.sync.absent_since or now_s
        state.sync.gone = now_s - state.sync.absent_since >= ABSENCE_S
    else:
        state.sync.unseen = "its object could not be moved in this sync"
    state.error = ""
    state.save()
    log.warning(
        "rows of %s %r were not read: %s",
        state.header["kind"],
        state.header["name"],
        state.sync.unseen,
        extra={"event": "stream_behind", "source_id": state.header["source_id"]},
    )


def _where_absent(catalog: Catalog, holder: Resource, state: StreamState) -> str:
    """Which good list lacks the object; "" if none does."""
    source = catalog.lists.source_object(holder, state.header["source_id"])
    if source is None:
        return "the source does not list it"
    dest_project = ""
    if holder is not PROJECTS:
        if catalog.lists.source_object(PROJECTS, source["project_id"]) is None:
            return "the source does not list its project"
        dest_project = catalog.targets.resolve((PROJECTS.name,), source["project_id"]) or ""
        if not dest_project:
            return "the destination does not list its project"
    try:
        found = catalog.index.object(holder, dest_project, state.header["dest_id"])
    except ApiError:
        return ""
    return "" if found else "the destination does not list its counterpart"
