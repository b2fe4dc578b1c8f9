"""Pins of datasets at their present state: which transaction of the destination has the same rows.

A version that something of the source points to is the present state of a dataset if no row was
written after it and as many rows were there then as now. The destination's last transaction is its
counterpart once all rows have arrived and none of them differs. That costs two queries for 25
datasets, and one count on each side for each of them that may be named at its present state.
"""

from __future__ import annotations

import logging
from typing import Collection, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set

from bt_migrate.api.btql import OBJECTS_PER_QUERY, Bounds, newest_query
from bt_migrate.api.client import Api
from bt_migrate.api.transactions import xact_of
from bt_migrate.errors import ApiError
from bt_migrate.model.outcomes import DIFFERS, FAILED
from bt_migrate.model.portions import portions
from bt_migrate.model.resource_table import DATASETS
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.lists import PLANNED
from bt_migrate.rows.count import count_by_object
from bt_migrate.rows.read import count_inside, looks
from bt_migrate.state.run_directory import RunDirectory, readable_runs_in
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.state.stream_state import StreamState

log = logging.getLogger("bt_migrate.rows")

KIND = ROW_KINDS["datasets"]

Pinned = Mapping[str, Collection[int]]  # source id of a dataset -> transactions of the source


def map_present_states(catalog: Catalog, pinned: Pinned) -> None:
    """Map the pins that are a dataset's present state, in the states of the datasets.

    In a dry run they are mapped in memory, as if all rows had arrived.
    """
    _take_over(catalog, pinned)
    unmapped = {
        source_id: [xact for xact in xacts if not catalog.versions.dest_version(source_id, xact)]
        for source_id, xacts in pinned.items()
    }
    dest_ids = {
        source_id: catalog.targets.resolve((DATASETS.name,), source_id)
        for source_id, xacts in unmapped.items()
        if xacts
    }
    pairs = [(source_id, dest_id) for source_id, dest_id in dest_ids.items() if dest_id]
    present = _present_states(catalog, [source_id for source_id, _ in pairs])
    wanted = []
    for source_id, dest_id in pairs:
        newest, rows = present.get(source_id, NOT_KNOWN)
        later = [xact for xact in unmapped[source_id] if xact >= newest]
        if later and rows is not None:
            wanted.append(Candidate(source_id, dest_id, later, rows))
    ids = {candidate.source_id for candidate in wanted}
    copies = _copies(catalog, ids) if wanted and not catalog.settings.dry_run else {}
    mapped_xacts = catalog.lists.at_once(
        lambda candidate: _mapped(catalog, candidate, copies.get(candidate.source_id)), wanted
    )
    mapped = {candidate.source_id: xacts for candidate, xacts in zip(wanted, mapped_xacts) if xacts}
    if mapped:
        _record(catalog, mapped)


class Present(NamedTuple):
    """The rows of a dataset now: the last transaction of one (0 for none), and how many."""

    newest: int
    rows: Optional[int]


NOT_KNOWN = Present(0, None)


class Candidate(NamedTuple):
    """A dataset, and the pins that no row of it is newer than."""

    source_id: str
    dest_id: str
    xacts: List[int]
    rows: int


def _present_states(catalog: Catalog, ids: Sequence[str]) -> Dict[str, Present]:
    """Returns dataset -> its present state, if the server shows it; two queries for 25 datasets."""
    source = catalog.source
    present: Dict[str, Present] = {}
    for portion in portions(ids, OBJECTS_PER_QUERY):
        try:
            newest = newest_xacts(source, portion)
            counted = count_by_object(catalog, source, KIND.name, portion, Bounds())
        except ApiError as error:
            log.warning("states of datasets are not known: %s", error)
            continue
        for source_id in portion:
            present[source_id] = Present(newest[source_id], counted[source_id].rows)
    return present


def _take_over(catalog: Catalog, pinned: Pinned) -> None:
    """Map what earlier runs of the same two organizations recorded of the same datasets."""
    for run in readable_runs_in(catalog.run.path.parent):
        if run.path == catalog.run.path or not _is_of_pair(catalog, run):
            continue
        for states in run.all_objects():
            if states.resource != DATASETS.name:
                continue
            for source_id in states.versions.keys() & pinned.keys():
                dest_id = states.dest_id_of(source_id)
                if dest_id != catalog.targets.resolve((DATASETS.name,), source_id):
                    continue
                for version, dest_version in states.versions[source_id].items():
                    if not catalog.versions.dest_version(source_id, version):
                        catalog.versions.put(source_id, version, dest_version)


def _is_of_pair(catalog: Catalog, run: RunDirectory) -> bool:
    """Whether a run wrote to the same destination and was not undone."""
    return not run.record.undone and run.same_pair(catalog.run.record, dry_run=False)


def map_planned_states(catalog: Catalog, pinned: Pinned) -> None:
    """In a dry run: map the pins of datasets that the real run creates with all their states."""
    for source_id, xacts in pinned.items():
        dest_id = catalog.targets.resolve((DATASETS.name,), source_id) or ""
        for xact in xacts if dest_id.startswith(PLANNED) else ():
            # Any value says that the pin can be mapped.
            catalog.versions.put(source_id, xact, xact)


def newest_xacts(api: Api, ids: Sequence[str]) -> Dict[str, int]:
    """Dataset id -> last transaction of its rows, 0 for none.

    A server may silently use only the first id of a FROM: objects without an answer are asked for
    alone.
    """
    rows = api.query(newest_query(KIND.name, KIND.id_field, ids)).json
    newest = {str(row.get(KIND.id_field)): xact_of(row.get("newest")) for row in rows}
    for object_id in ids if len(ids) > 1 else ():
        if object_id not in newest:
            newest.update(newest_xacts(api, [object_id]))
    return {object_id: newest.get(object_id, 0) for object_id in ids}


def _mapped(catalog: Catalog, wanted: Candidate, copied: Optional[StreamState]) -> Dict[int, int]:
    """Returns pin -> the destination's transaction, of the pins that are the present state."""
    source_id, dest_id, xacts, rows = wanted
    same = [xact for xact in xacts if _count(catalog.source, source_id, xact) == rows]
    if not same:
        return {}
    if catalog.settings.dry_run:
        # The rows that are missing will have arrived: any value says that the pin can be mapped.
        there = 0 if dest_id.startswith(PLANNED) else _dest_version(catalog, dest_id, 0, rows)
        return {xact: there or xact for xact in same}
    if copied is None or copied.header["dest_id"] != dest_id or not _is_whole(copied):
        return {}
    if _is_completed_later(catalog, copied):
        catalog.versions.unsettled.add(source_id)
        return {}
    reached = _dest_version(catalog, dest_id, _last_written(copied), rows)
    return dict.fromkeys(same, reached) if reached else {}


def _record(catalog: Catalog, mapped: Mapping[str, Mapping[int, int]]) -> None:
    """Record the counterparts of pins, by dataset; in a dry run in memory only."""
    if catalog.settings.dry_run:
        for source_id, xacts in mapped.items():
            for xact, reached in xacts.items():
                catalog.versions.put(source_id, xact, reached)
        return
    for states in catalog.run.all_objects():
        if states.resource != DATASETS.name:
            continue
        here = mapped.keys() & states.over_all_rounds().keys()
        for source_id in here:
            for xact, reached in mapped[source_id].items():
                catalog.versions.record(states, source_id, xact, reached)
        if here:
            states.save()


def _count(api: Api, object_id: str, version: Optional[int] = None) -> Optional[int]:
    return count_inside(api, KIND.name, [object_id], Bounds(version=version))


def _dest_version(catalog: Catalog, dest_id: str, written: int, rows: int) -> int:
    """The destination's transaction at which it has `rows` rows, all that this tool wrote up to
    the transaction `written`; 0 if none is known.
    """
    if written and _count(catalog.dest, dest_id, written) == rows:
        return written
    for _ in looks(catalog.dest, 0.0 if catalog.settings.dry_run else catalog.settings.verify_wait):
        reached = max(written, newest_xacts(catalog.dest, [dest_id])[dest_id])
        if reached and _count(catalog.dest, dest_id, reached) == rows:
            return reached
        # All rows are shown: a deletion was the last write, and no row names its transaction.
        if _count(catalog.dest, dest_id) == rows:
            break
    return 0


def _copies(catalog: Catalog, wanted: Set[str]) -> Dict[str, StreamState]:
    """Source id of a dataset -> its copy as the newest run of the same two organizations has it."""
    copies: Dict[str, StreamState] = {}
    for run in readable_runs_in(catalog.run.path.parent):
        if wanted <= copies.keys():
            break
        if not _is_of_pair(catalog, run):
            continue
        for state in run.all_streams():
            if state.header["kind"] == KIND.name and "dest_id" in state.header:
                copies.setdefault(state.header["source_id"], state)
    return copies


def _is_whole(state: StreamState) -> bool:
    """Whether the last copy or sync brought all rows, and found none with other content."""
    return state.done and not (state.failed or state.counts[FAILED] or state.counts[DIFFERS])


def _is_completed_later(catalog: Catalog, state: StreamState) -> bool:
    """Whether references of its rows wait for objects that can move: adding them is a later
    transaction.
    """
    if not state.waiting:
        return False
    seen = SeenRows(state.seen_path)
    try:
        return any(
            catalog.targets.may_resolve_later(waiting.resources, waiting.ref)
            for waiting in seen.deferred()
        )
    finally:
        seen.close()


def _last_written(state: StreamState) -> int:
    """The destination's last transaction in which this tool wrote rows of the stream."""
    seen = SeenRows(state.seen_path)
    try:
        return max([*state.copy.transactions, seen.last_dest_xact(state.header["source_id"])])
    finally:
        seen.close()
