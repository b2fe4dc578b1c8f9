"""Streams that a sync cannot read because no list shows their object; they keep their sync mark.

An object may be missing from a list only for a night: a right was taken away, or a gateway answered
instead of the API. It counts as deleted only after two valid lists, some time apart. If it comes
back, its rows are read from the mark that it had.
"""

from __future__ import annotations

import logging
from typing import List, Mapping, Sequence

from bt_migrate.api.btql import OBJECTS_PER_QUERY
from bt_migrate.errors import ApiError
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import PROJECTS
from bt_migrate.model.resources import BY_NAME, ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.count import count_by_object
from bt_migrate.rows.streams import RowStream, bounds_of
from bt_migrate.state.stream_state import StreamState
from bt_migrate.state.sync_marks import ABSENCE_S, Round

log = logging.getLogger("bt_migrate.rows")

SHOWS_NO_ROWS = "the source shows none of its rows, of which it had some"


def keep_unseen_marks(catalog: Catalog, kind_name: str, round_: Round) -> None:
    """Record each stream of the kind that earlier syncs know and this one has not read.

    Called before the mark of the kind advances, whatever the reason why the stream was not read.
    """
    for state in catalog.run.all_streams():
        if state.header["kind"] == kind_name and not _is_settled(catalog, state, round_):
            _note_unseen(catalog, state, round_)


def _is_settled(catalog: Catalog, state: StreamState, round_: Round) -> bool:
    """Whether the stream was read in this sync, has a recorded reason, or counts as deleted."""
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
    elif state.sync.silent_since:
        state.sync.unseen = SHOWS_NO_ROWS
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
    """Returns which valid list lacks the object; "" if none does."""
    source = catalog.lists.source_object(holder, state.header["source_id"])
    if source is None:
        return "the source does not list the object"
    dest_project = ""
    if holder is not PROJECTS:
        if catalog.lists.source_object(PROJECTS, source["project_id"]) is None:
            return "the source does not list its project"
        dest_project = catalog.targets.resolve((PROJECTS.name,), source["project_id"]) or ""
        if not dest_project:
            return "the destination does not list its project"
    try:
        counterpart = catalog.index.object(holder, dest_project, state.header["dest_id"])
    except ApiError:
        return ""
    return "" if counterpart else "the destination does not list its counterpart"


def without_silent(
    catalog: Catalog, kind_name: str, streams: Sequence[RowStream], round_: Round
) -> List[RowStream]:
    """The streams without those that had rows and of which the source counts none now.

    A server that answers every query with a good but empty page would move the sync mark over rows
    that nobody saw. So each sync counts the rows of some streams that had rows: see `_looked_at`.
    A stream without a row is left out until it has shown none for ABSENCE_S seconds; then its rows
    count as deleted.
    """
    ids = {stream.source_id for stream in streams}
    states = {
        state.header["source_id"]: state
        for state in catalog.run.all_streams()
        if state.header["kind"] == kind_name
        and state.header["source_id"] in ids
        and state.copied
        and state.copy.read
    }
    now_s = int(catalog.source.clock.earliest_s())
    left_out = set()
    for object_id in _silent_of(catalog, kind_name, _looked_at(states, round_), states):
        _note_silent(states[object_id], now_s)
        if now_s - states[object_id].sync.silent_since < ABSENCE_S:
            left_out.add(object_id)
    return [stream for stream in streams if stream.source_id not in left_out]


def _looked_at(states: Mapping[str, StreamState], round_: Round) -> List[str]:
    """Returns the objects whose rows this sync counts.

    These are all that showed no row last time, and as many others as one query takes; the next sync
    takes the next others.
    """
    silent = [object_id for object_id, state in states.items() if state.sync.silent_since]
    others = [object_id for object_id, state in states.items() if not state.sync.silent_since]
    start = round_.number * OBJECTS_PER_QUERY % len(others) if others else 0
    return [*silent, *[*others[start:], *others[:start]][:OBJECTS_PER_QUERY]]


def _silent_of(
    catalog: Catalog, kind_name: str, object_ids: Sequence[str], states: Mapping[str, StreamState]
) -> List[str]:
    """Returns those of the objects of which the source counts no row.

    If it counts none of any of them, the other known objects are counted too: perhaps the server
    answers every query with nothing. Records that an object which shows rows is silent no longer.
    """
    bounds = bounds_of(catalog, ROW_KINDS[kind_name])
    counted = count_by_object(catalog, catalog.source, kind_name, object_ids, bounds)
    silent = [object_id for object_id in object_ids if counted[object_id].rows == 0]
    others = [object_id for object_id in states if object_id not in counted]
    for object_id in counted:
        state = states[object_id]
        if counted[object_id].rows and state.sync.silent_since:
            state.sync.silent_since = 0
            state.save()
    if silent and len(silent) == len(object_ids) and others:
        return [*silent, *_silent_of(catalog, kind_name, others, states)]
    return silent


def _note_silent(state: StreamState, now_s: int) -> None:
    """Record since when the source counts no row, unless an earlier sync did."""
    if not state.sync.silent_since:
        state.sync.silent_since = now_s
        state.save()
