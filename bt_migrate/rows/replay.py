"""Replay earlier states of a dataset in the destination, before its rows are copied.

For each version that something points to, oldest first: the rows that the source wrote since the
version before are inserted as they were at that version, the rows that it deleted since are
deleted, and the destination's last transaction is recorded as the counterpart of the version. Then
the copy goes on to the present: rows that arrived with a version and did not change are not sent
again.

A version is recorded once all of it has arrived. A process that was killed before begins with the
unfinished version again: rows replace themselves, and transactions only grow, so what was recorded
stays true.
"""

from __future__ import annotations

import logging
import sqlite3
from typing import Iterator, List

from bt_migrate.api.btql import Bounds
from bt_migrate.errors import ApiError
from bt_migrate.model.notes import FindingCounts
from bt_migrate.rows.deletes import row_ids
from bt_migrate.rows.insert import delete_rows
from bt_migrate.rows.pump import Pump, SharedCopy
from bt_migrate.rows.read import (
    PageReader,
    RowSelection,
    count_inside,
    rows_of_ids,
    short_read_text,
    unusable_answer,
)
from bt_migrate.rows.streams import StreamCopy, save_members
from bt_migrate.state.sqlite import id_bytes

log = logging.getLogger("bt_migrate.rows")

# What CopyState.replay says.
BEGUN = "begun"
DONE = "done"
# Answers to a read of an earlier state by a server that does not keep it.
NO_VERSIONS = frozenset((400, 403, 404, 405, 501))


def replay_versions(shared: SharedCopy, member: StreamCopy) -> None:
    """Bring the destination to each version of the stream in turn, then to the rows that are left.

    Only into an object that this tool created and to which no rows were copied yet. What the API
    says of the object is its failure (`member.error`): the next start goes on.
    """
    stream, state = member.stream, member.state
    if not stream.versions or state.copy.replay == DONE:
        return
    if not state.copy.replay and not (stream.fresh and member.is_at_start):
        return
    shared.catalog.run.live.begin(state.header, 0)
    state.copy.replay = BEGUN
    member.touched = True
    member.replays = True
    problems = FindingCounts()
    try:
        _replay_all(shared, member, problems)
        _delete_gone(shared, member, Bounds())
    except ApiError as error:
        member.error = error
        return
    finally:
        member.replays = False
    # The copy tries them again.
    member.seen.forget_all_failed()
    member.read_again()
    with state.lock:
        state.findings = problems.records()
        state.copy.replay = DONE
        save_members([member])


def _replay_all(shared: SharedCopy, member: StreamCopy, problems: FindingCounts) -> None:
    """Replay each version that is not recorded yet; those that cannot be made are noted."""
    stream = member.stream
    mapping = shared.catalog.versions
    states = shared.catalog.run.objects(stream.kind.name, stream.project)
    before = 0
    for number, version in enumerate(stream.versions):
        shared.check()
        if mapping.dest_version(stream.source_id, version) is None:
            member.read_again()
            try:
                problem = _replay_version(
                    shared, member, Bounds(after_xact=before, version=version)
                )
            except ApiError as error:
                if error.status not in NO_VERSIONS or error.side != shared.catalog.source.side:
                    raise
                left = len(stream.versions) - number
                detail = f"the source does not show it: {error.status}"
                problems.add_many("dataset_version_left", str(version), left, detail=detail)
                return
            if problem:
                problems.add("dataset_version_left", str(version), detail=problem)
            else:
                reached = member.seen.last_dest_xact(stream.source_id)
                mapping.record(states, stream.source_id, version, reached)
                states.save()
                words = (stream.kind.name, stream.name, version, reached)
                log.info("version of %s %r: %s is %s", *words, extra={"event": "version"})
        before = version


def _replay_version(shared: SharedCopy, member: StreamCopy, bounds: Bounds) -> str:
    """Make the destination equal to one version. Returns why it is not, "" if it is."""
    stream = member.stream
    source = shared.catalog.source
    limit = shared.catalog.settings.rows(stream.kind.name).fetch_limit
    selection = RowSelection(stream.kind.name, [stream.source_id], bounds)
    reader = PageReader(source, selection, limit=limit)
    Pump(shared, [member]).copy_all(reader)
    if member.error:
        raise member.error
    at_version = Bounds(version=bounds.version)
    wanted = count_inside(source, stream.kind.name, [stream.source_id], at_version)
    held = member.seen.count_held(stream.source_id)
    if wanted is None:
        return "the source does not count its rows"
    if held > wanted and _delete_gone(shared, member, at_version) != held - wanted:
        text = f"{held:,} rows were delivered, {wanted:,} counted, and their ids do not agree"
        raise unusable_answer(source, text)
    if held < wanted and not member.seen.all_failed():
        raise unusable_answer(source, short_read_text(wanted, held))
    if held < wanted:
        return f"{wanted - held:,} of its rows did not arrive"
    if not member.seen.last_dest_xact(stream.source_id):
        return "the destination does not name the transactions of its writes"
    return ""


def _delete_gone(shared: SharedCopy, member: StreamCopy, bounds: Bounds) -> int:
    """Delete what the destination holds and the source does not inside the bounds.

    Returns how many rows that were. The ids of the source lie in a private temporary file.
    """
    stream, settings = member.stream, shared.catalog.settings
    size = settings.rows(stream.kind.name).insert_batch_size
    deleted = 0
    for ids in _portions(_gone(shared, member, bounds), size):
        xact = delete_rows(shared.catalog.dest, stream.kind, stream.dest_id, ids)
        member.seen.record_deleted(stream.source_id, ids, xact)
        deleted += len(ids)
    return deleted


def _gone(shared: SharedCopy, member: StreamCopy, bounds: Bounds) -> Iterator[List[str]]:
    """Yields ids of rows that the destination holds and the source does not inside the bounds."""
    stream, source = member.stream, shared.catalog.source
    listed = sqlite3.connect("", isolation_level=None)
    try:
        listed.execute("create table ids (id blob primary key) without rowid")
        for ids in row_ids(source, stream.kind.name, stream.source_id, bounds):
            shared.check()
            keys = [(id_bytes(row_id),) for row_id in ids]
            listed.executemany("insert or ignore into ids values (?)", keys)
        for ids in member.seen.held_ids(stream.source_id):
            missing = [row_id for row_id in ids if not _is_listed(listed, row_id)]
            if not missing:
                continue
            # A list may lack rows, or a row may have come back since.
            asked = (stream.kind.name, [stream.source_id], missing, bounds.version)
            shown = {row["id"] for row in rows_of_ids(source, *asked)}
            yield [row_id for row_id in missing if row_id not in shown]
    finally:
        listed.close()


def _is_listed(listed: sqlite3.Connection, row_id: str) -> bool:
    found = listed.execute("select 1 from ids where id = ?", (id_bytes(row_id),))
    return found.fetchone() is not None


def _portions(some: Iterator[List[str]], size: int) -> Iterator[List[str]]:
    for ids in some:
        yield from (ids[start : start + size] for start in range(0, len(ids), size))
