"""Replay earlier states of a dataset in the destination, before its rows are copied.

For each version that something points to, oldest first: the rows that the source wrote since the
version before are inserted as they were at that version, the rows that it deleted since are
deleted, and the destination's last transaction is recorded as the counterpart of the version. Then
the copy goes on to the present: rows that arrived with a version and did not change are not sent
again.

Rows may refer to what is moved after the datasets: prompts and experiments. Written now, a version
would lack these references for good. So the stream waits until they have been moved, before the
rows of experiments: the next copy begins with the version that is not complete.

A version is recorded once all of it has arrived. A process that was killed before begins with the
unfinished version again: rows replace themselves, and transactions only grow, so what was recorded
stays true.
"""

from __future__ import annotations

import logging
from itertools import chain
from typing import Callable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from bt_migrate.api.btql import Bounds
from bt_migrate.api.client import Api
from bt_migrate.api.transactions import xact_of
from bt_migrate.attachments.copy import NOT_COPIED
from bt_migrate.errors import ApiError
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.outcomes import OPEN_OUTCOMES
from bt_migrate.model.portions import portions
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import DATASETS
from bt_migrate.model.resources import BY_NAME
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.decide import RowDecider
from bt_migrate.rows.deletes import id_pages, row_ids
from bt_migrate.rows.insert import delete_rows
from bt_migrate.rows.pump import Pump, SharedCopy
from bt_migrate.rows.read import (
    PageReader,
    RowSelection,
    count_inside,
    found_rows,
    looks,
    short_read_text,
    unusable_answer,
)
from bt_migrate.rows.streams import RowStream, StreamCopy, save_members
from bt_migrate.rows.unrecorded import note_doubtful
from bt_migrate.state.sqlite import id_set

log = logging.getLogger("bt_migrate.rows")

# Values of CopyState.replay. WAITS: begun, and waiting for objects that a later phase moves.
BEGUN = "begun"
WAITS = "waits"
REPLAY_DONE = "done"
# How often a version is tried if rows of it are refused.
TRIES = 2
REFUSED = "row_refused"
CHANGED = "rows of it were changed in the destination"
DROPPED = "the destination accepted rows of it that it does not show"
# Answers to a read of an earlier state by a server that does not keep it.
NO_VERSIONS = frozenset((400, 403, 404, 405, 501))


class _WaitsForOthers(Exception):
    """The rows that were written refer to objects that are moved later."""


def replay_versions(shared: SharedCopy, member: StreamCopy) -> bool:
    """Bring the destination to each version of the stream in turn, then to the rows that are left.

    Only into an object that this tool created and to which no rows were copied yet; in a sync, to
    versions that are named since. A dataset of which nothing is named yet is prepared for that too:
    its deliveries are all recorded. Returns whether the copy can go on to the present. What the API
    says of the object is its failure (`member.error`): the next start goes on.
    """
    stream, state = member.stream, member.state
    if member.above is not None:
        is_named = _unmapped(shared, stream) or _named_since(member, member.above)
        is_due = state.copy.replay in (REPLAY_DONE, WAITS) and is_named
        return not is_due or _replay(shared, member, _replay_newer)
    is_begun = state.copy.replay in (BEGUN, WAITS)
    is_wanted = stream.recorded and not state.copy.replay
    if is_begun or (is_wanted and stream.fresh and member.is_at_start):
        state.copy.replay = BEGUN
        return _replay(shared, member, _replay_all)
    return True


def _replay(
    shared: SharedCopy,
    member: StreamCopy,
    steps: Callable[[SharedCopy, StreamCopy, FindingCounts], None],
) -> bool:
    """Carry out steps that note what could not be made; then the stream is at its start again."""
    state = member.state
    shared.catalog.run.live.begin(state.header, 0)
    member.touched = True
    member.replays = True
    member.seen.send_waiting_again()
    note_doubtful(shared, [member])
    problems = FindingCounts()
    try:
        steps(shared, member, problems)
    except ApiError as error:
        member.error = error
        return False
    except _WaitsForOthers:
        state.copy.replay = WAITS
        return False
    finally:
        member.replays = False
    member.read_again()
    with state.lock:
        state.findings = problems.records()
        state.copy.replay = REPLAY_DONE
        save_members([member])
    return True


def _unmapped(shared: SharedCopy, stream: RowStream) -> List[int]:
    mapping = shared.catalog.versions
    return [xact for xact in stream.versions if not mapping.dest_version(stream.source_id, xact)]


def _named_since(member: StreamCopy, xact: int) -> Set[Tuple[str, int]]:
    """Returns the versions of rows after a transaction that origins name; in a sync without those
    that arrived.
    """
    stream, seen = member.stream, member.seen
    later = {version for version in stream.named if version[1] > xact}
    if member.above is None:
        return later
    return {
        version for version in later if not any(seen.dest_xacts_of(stream.source_id, *version)[:1])
    }


def _replay_newer(shared: SharedCopy, member: StreamCopy, problems: FindingCounts) -> None:
    """In a sync: go to each version that no copied row is newer than."""
    stream = member.stream
    before = member.above or 0
    for version in _unmapped(shared, stream):
        shared.check()
        bounds = Bounds(after_xact=member.above, version=version)
        member.lacks_rows = False
        problem = _out_of_reach(shared, member, version)
        if not problem:
            before = _write_named(shared, member, before, version)
            problem = _replay_version(shared, member, bounds)
        if problem:
            problems.add("dataset_version_left", str(version), detail=problem)
        else:
            _record(shared, member, version)
    _write_named(shared, member, before, None)


def _out_of_reach(shared: SharedCopy, member: StreamCopy, version: int) -> str:
    """Why a sync cannot make a version, "" if it can."""
    stream, settings = member.stream, shared.catalog.settings
    if version < member.seen.newest_xact(stream.source_id):
        return "newer rows were copied before it was named"
    gone_count = sum(map(len, _gone(shared, member, Bounds(version=version))))
    if gone_count and not settings.propagate_deletes:
        return "rows were deleted in the source, and --propagate-deletes was not given"
    allowed = settings.may_delete(member.seen.count_held(stream.source_id))
    return "" if gone_count <= allowed else "--max-deletes allows fewer deleted rows"


def _replay_all(shared: SharedCopy, member: StreamCopy, problems: FindingCounts) -> None:
    """Replay each version that is not recorded yet, and delete what is not there any more; those
    versions that cannot be made are noted.

    If the destination accepted rows of a version and does not show them, all is written once more.
    """
    stream = member.stream
    found = FindingCounts()
    _replay_each(shared, member, found)
    if _short_versions(shared, member):
        words = (stream.kind.name, stream.name)
        log.warning("%s %r: the destination dropped rows of earlier states; writing again", *words)
        # Somebody may have changed what was there for a while.
        member.doubtful = True
        # In this order: after a kill, versions that are forgotten are made from nothing.
        _delete_ids(shared, member, member.seen.held_ids(stream.source_id))
        _forget_versions(shared, member, stream.versions)
        found = FindingCounts()
        _replay_each(shared, member, found)
        for version in _forget_versions(shared, member, _short_versions(shared, member)):
            found.add("dataset_version_left", str(version), detail=DROPPED)
    problems.merge(found)
    if member.seen.holds_rows():
        _delete_gone(shared, member, Bounds())
    gone = _not_in_source(shared, member, sorted(member.kept_rows), Bounds())
    if gone:
        problems.add_many("gone_row_kept", gone[0], len(gone))
    # The copy tries them again.
    member.seen.forget_all_failed()


def _replay_each(shared: SharedCopy, member: StreamCopy, problems: FindingCounts) -> None:
    stream = member.stream
    mapping = shared.catalog.versions
    # the last version of which all rows were accepted: the next one is made from it
    before = 0
    for number, version in enumerate(stream.versions):
        shared.check()
        if mapping.dest_version(stream.source_id, version) is None:
            try:
                problem = _replay_up_to(shared, member, before, version)
            except ApiError as error:
                if not _shows_no_past(shared, error):
                    raise
                states_left = len(stream.versions) - number
                detail = f"the source does not show it: {error.status}"
                problems.add_many("dataset_version_left", str(version), states_left, detail=detail)
                return
            if problem:
                problems.add("dataset_version_left", str(version), detail=problem)
            else:
                _record(shared, member, version)
        if not member.lacks_rows:
            before = version
    try:
        _write_named(shared, member, before, None)
    except ApiError as error:
        if not _shows_no_past(shared, error):
            raise
        # The origins that name versions of rows are findings of the rows that hold them.


def _shows_no_past(shared: SharedCopy, error: ApiError) -> bool:
    return error.status in NO_VERSIONS and error.side == shared.catalog.source.side


def _replay_up_to(shared: SharedCopy, member: StreamCopy, before: int, version: int) -> str:
    """Replay one version, of which `before` is the one before. Returns why it is not equal."""
    for _ in range(TRIES):
        member.lacks_rows = False
        reached = _write_named(shared, member, before, version)
        bounds = Bounds(after_xact=reached or None, version=version)
        problem = _replay_version(shared, member, bounds)
        if not member.lacks_rows:
            break
    return problem


def _record(shared: SharedCopy, member: StreamCopy, version: int) -> None:
    """Record that the destination has the version now."""
    stream, mapping = member.stream, shared.catalog.versions
    states = shared.catalog.run.objects(stream.kind.name, stream.project)
    reached = member.seen.last_dest_xact(stream.source_id)
    mapping.record(states, stream.source_id, version, reached)
    states.save()
    words = (stream.kind.name, stream.name, version, reached)
    log.debug("version of %s %r: %s is %s", *words, extra={"event": "version"})


def _short_versions(shared: SharedCopy, member: StreamCopy) -> List[int]:
    """Returns the recorded versions of which the destination shows fewer rows than the source."""
    stream, catalog = member.stream, shared.catalog
    wanted = {
        version: _count(catalog.source, stream.source_id, version)
        for version in stream.versions
        if catalog.versions.dest_version(stream.source_id, version)
    }
    short = list(wanted)
    for _ in looks(catalog.dest, catalog.settings.verify_wait):
        short = [version for version in short if _is_short(shared, stream, version, wanted)]
        if not short:
            break
    return short


def _is_short(
    shared: SharedCopy, stream: RowStream, version: int, wanted: Mapping[int, Optional[int]]
) -> bool:
    reached = xact_of(shared.catalog.versions.dest_version(stream.source_id, version))
    there = _count(shared.catalog.dest, stream.dest_id, reached)
    rows = wanted[version]
    return rows is not None and there is not None and there < rows


def _count(api: Api, dataset_id: str, version: int) -> Optional[int]:
    return count_inside(api, DATASETS.name, [dataset_id], Bounds(version=version))


def _forget_versions(
    shared: SharedCopy, member: StreamCopy, versions: Sequence[int]
) -> Sequence[int]:
    """Forget what the destination's counterparts are. Returns `versions`."""
    stream = member.stream
    states = shared.catalog.run.objects(stream.kind.name, stream.project)
    for version in versions:
        shared.catalog.versions.forget(states, stream.source_id, version)
    if versions:
        states.save()
    return versions


def _write_named(
    shared: SharedCopy, member: StreamCopy, before: int, version: Optional[int]
) -> int:
    """Write the row versions after `before` that origins name and that `version` no longer has.

    `version` None: that the source no longer has now. Returns the transaction up to which rows were
    written.
    """
    for xact in _replaced(shared, member, before, version):
        shared.check()
        bounds = Bounds(after_xact=before or None, version=xact)
        if member.above is None or not _holds_deleted_rows(shared, member.stream, bounds):
            _write_rows(shared, member, bounds)
            before = xact
    return before


def _holds_deleted_rows(shared: SharedCopy, stream: RowStream, bounds: Bounds) -> bool:
    """Whether the source deleted rows inside the bounds since. A sync does not bring these."""
    source, kind = shared.catalog.source, stream.kind.name
    for rows in id_pages(source, kind, stream.source_id, bounds):
        ids = [row["id"] for row in rows]
        shown, refused = found_rows(source, kind, [stream.source_id], ids)
        if len(shown) + len(refused) < len(ids):
            return True
    return False


def _replaced(
    shared: SharedCopy, member: StreamCopy, before: int, version: Optional[int]
) -> List[int]:
    """Those transactions after `before` with named rows that are others or gone at `version`."""
    stream = member.stream
    replaced = {
        (row_id, xact)
        for row_id, xact in _named_since(member, before)
        if version is None or xact <= version
    }
    if replaced:
        bounds = Bounds(after_xact=before or None, version=version)
        source = shared.catalog.source
        for rows in id_pages(source, stream.kind.name, stream.source_id, bounds):
            shared.check()
            replaced.difference_update((row["id"], xact_of(row.get("_xact_id"))) for row in rows)
    return sorted({xact for _, xact in replaced})


def _write_rows(shared: SharedCopy, member: StreamCopy, bounds: Bounds) -> None:
    """Insert the rows inside the bounds, as they were at their version."""
    stream, catalog = member.stream, shared.catalog
    limit = catalog.settings.rows(stream.kind.name).fetch_limit
    member.read_again()
    selection = RowSelection(stream.kind.name, [stream.source_id], bounds)
    reader = PageReader(catalog.source, selection, limit=limit)
    Pump(shared, [member]).copy_all(reader)
    if member.error:
        raise member.error
    kinds = {record["kind"] for record in member.state.findings}
    member.lacks_attachments = member.lacks_attachments or NOT_COPIED in kinds
    member.lacks_rows = member.lacks_rows or REFUSED in kinds
    if any(_is_untried(catalog, *reference) for reference in _awaited(shared, member)):
        raise _WaitsForOthers


def _awaited(shared: SharedCopy, member: StreamCopy) -> List[Tuple[Tuple[str, ...], str]]:
    """Returns (resources, source id) of objects that rows wait for and that can be moved."""
    named = {(waiting.resources, waiting.ref) for waiting in member.seen.deferred()}
    return [
        reference for reference in named if shared.catalog.targets.may_resolve_later(*reference)
    ]


def _is_untried(catalog: Catalog, targets: Sequence[str], source_id: str) -> bool:
    """Whether the object is selected and this run, or this sync, has not moved it yet."""
    outcomes = {
        states.outcome_of(source_id)
        for states in catalog.run.all_objects()
        if states.resource in targets
    } - {""}
    return outcomes.issubset(OPEN_OUTCOMES) and any(
        _is_selected(catalog, BY_NAME[target], source_id) for target in targets
    )


def _is_selected(catalog: Catalog, resource: Resource, source_id: str) -> bool:
    source = catalog.lists.source_object(resource, source_id) or {}
    projects = {project["id"] for project in catalog.lists.projects()}
    return catalog.settings.selects(resource.name) and source.get("project_id") in projects


def _replay_version(shared: SharedCopy, member: StreamCopy, bounds: Bounds) -> str:
    """Make the destination equal to one version. Returns why it is not, "" if it is."""
    stream = member.stream
    source = shared.catalog.source
    _write_rows(shared, member, bounds)
    at_version = Bounds(version=bounds.version)
    wanted = count_inside(source, stream.kind.name, [stream.source_id], at_version)
    held = member.seen.count_held(stream.source_id)
    if wanted is None:
        return "the source does not count its rows"
    deleted = _delete_gone(shared, member, at_version) if held > wanted else 0
    if member.kept_rows:
        return CHANGED
    if deleted != max(0, held - wanted):
        text = f"{held:,} rows were delivered, {wanted:,} counted, and their ids do not agree"
        raise unusable_answer(source, text)
    if held < wanted and not member.seen.all_failed():
        raise unusable_answer(source, short_read_text(wanted, held))
    if held < wanted:
        return f"{wanted - held:,} of its rows did not arrive"
    if member.lacks_rows:
        return "rows of it were refused"
    if member.lacks_attachments:
        return "attachments of its rows could not be copied"
    if not member.seen.last_dest_xact(stream.source_id):
        return "the destination does not name the transactions of its writes"
    return "its rows refer to objects that were not moved" if _awaited(shared, member) else ""


def _delete_gone(shared: SharedCopy, member: StreamCopy, bounds: Bounds) -> int:
    """Delete what the destination holds and the source does not inside the bounds.

    Returns how many rows that were. The ids of the source lie in a private temporary file.
    """
    return _delete_ids(shared, member, _gone(shared, member, bounds))


def _delete_ids(shared: SharedCopy, member: StreamCopy, id_lists: Iterator[List[str]]) -> int:
    stream, settings = member.stream, shared.catalog.settings
    size = settings.rows(stream.kind.name).insert_batch_size
    deleted = 0
    for ids in chain.from_iterable(portions(listed, size) for listed in id_lists):
        if member.doubtful or member.above is not None:
            ids = _without_changed(shared, member, ids)
        if not ids:
            continue
        xact = delete_rows(shared.catalog.dest, stream.kind, stream.dest_id, ids)
        member.seen.record_deleted(stream.source_id, ids, xact)
        deleted += len(ids)
    return deleted


def _without_changed(shared: SharedCopy, member: StreamCopy, ids: List[str]) -> List[str]:
    """Returns the ids without those of rows that somebody changed in the destination."""
    stream, catalog = member.stream, shared.catalog
    rows, _ = found_rows(catalog.dest, stream.kind.name, [stream.dest_id], ids)
    there = {row["id"]: row for row in rows}
    decider = RowDecider(catalog, stream.kind, {stream.source_id: member})
    member.kept_rows |= there.keys() - decider.as_sent(stream.source_id, there)
    return [row_id for row_id in ids if row_id not in member.kept_rows]


def _gone(shared: SharedCopy, member: StreamCopy, bounds: Bounds) -> Iterator[List[str]]:
    """Yields ids of rows that the destination holds and the source does not inside the bounds."""
    stream, source = member.stream, shared.catalog.source
    with id_set() as listed:
        for ids in row_ids(source, stream.kind.name, stream.source_id, bounds):
            shared.check()
            listed.add(ids)
        for ids in member.seen.held_ids(stream.source_id):
            # A list may lack rows, or a row may have come back since.
            yield _not_in_source(shared, member, listed.lacking(ids), bounds)


def _not_in_source(
    shared: SharedCopy, member: StreamCopy, ids: List[str], bounds: Bounds
) -> List[str]:
    if not ids:
        return []
    stream = member.stream
    wanted_rows = (stream.kind.name, [stream.source_id], ids, bounds.version)
    rows, refused = found_rows(shared.catalog.source, *wanted_rows)
    shown = {*refused, *(row["id"] for row in rows)}
    return [row_id for row_id in ids if row_id not in shown]
