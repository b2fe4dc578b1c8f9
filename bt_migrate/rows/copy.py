"""Copies logs, experiment rows and dataset rows: which streams, by which readers, in which order.

Small objects are read together; a large object can be read in slices. The order is always: the
destination accepts rows, they are recorded as delivered, the checkpoint is replaced. So a crash
repeats a little and loses nothing: rows keep their ids, and a row sent twice replaces itself. This
module decides what a reader reads; `pump` copies the reader's pages.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from bt_migrate.api.btql import Bounds
from bt_migrate.api.transactions import before_xact, xact_at
from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.errors import ApiError, Interrupted
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.notes import FAILED_BEFORE, FindingCounts
from bt_migrate.model.outcomes import FAILED
from bt_migrate.model.portions import portions
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.background import wait_for
from bt_migrate.rows.commit import counts_line
from bt_migrate.rows.decide import remembered
from bt_migrate.rows.facets import learn_facets_of_copies
from bt_migrate.rows.prefetch import SourceReaders, expected_rows
from bt_migrate.rows.pump import Pump, SharedCopy
from bt_migrate.rows.read import (
    Page,
    RowSelection,
    count_if_short,
    count_inside,
    found_rows,
    now_s,
    pages,
    short_read_text,
    unusable_answer,
)
from bt_migrate.rows.replay import replay_versions
from bt_migrate.rows.slices import Slices
from bt_migrate.rows.streams import (
    RowStream,
    StreamCopy,
    bounds_of,
    close_copies,
    open_copy,
    save_members,
)
from bt_migrate.rows.unrecorded import note_doubtful
from bt_migrate.state.seen_rows import NO_LIMIT
from bt_migrate.state.stream_state import TRIED_AGAIN
from bt_migrate.state.sync_marks import Round, mark_seconds

log = logging.getLogger("bt_migrate.rows")

# rows that failed in an earlier sync: how many are read again in one query
ROWS_AGAIN = 50

StartCopy = Callable[[Sequence[RowStream]], None]


# -- all streams of a kind


@contextlib.contextmanager
def streaming(
    catalog: Catalog,
    copier: AttachmentCopier,
    readers: SourceReaders,
    halt: threading.Event,
    round_: Optional[Round] = None,
) -> Iterator[StartCopy]:
    """Yields a function that starts the copy of a group of streams. Several groups run at once.

    Inside the `with` block, objects of the kind are still being created. Leaving it waits for all
    streams. In a sync round, only new rows of complete streams are copied. An API error about one
    object fails that object. Any other error ends the run after all streams have written their
    checkpoints.
    """
    workers = catalog.settings.max_concurrent
    pool = ThreadPoolExecutor(workers, thread_name_prefix="insert")
    streams = ThreadPoolExecutor(workers, thread_name_prefix="stream")
    futures: List[Future[None]] = []
    errors: List[Optional[BaseException]] = []
    with pool, streams:  # left from the back: the streams end before the pool that they use
        shared = SharedCopy(catalog, copier, pool, readers, halt, round_)

        def start(group: Sequence[RowStream]) -> None:
            shared.check()
            futures.append(streams.submit(_copy_group, shared, group))

        try:
            yield start
        except BaseException as error:  # noqa: BLE001  raised below, unless a stream has the cause
            shared.halt.set()
            errors.append(error)
        shared.created.set()
        wait_for(futures)
    _raise_first([*errors, *(future.exception() for future in futures)])


def _raise_first(errors: Sequence[Optional[BaseException]]) -> None:
    """Raise the error that ends the run: the cause, not an interruption that it led to."""
    raised = [error for error in errors if error is not None]
    raised.sort(key=lambda error: (isinstance(error, Interrupted), isinstance(error, ApiError)))
    if raised:
        raise raised[0]


# -- one group


# assumption: rows_upsert_by_id
def _copy_group(shared: SharedCopy, streams: Sequence[RowStream]) -> None:
    """Copy streams that are read together. Runs in a stream thread."""
    shared.check()
    started = time.monotonic()
    members = [open_copy(shared.catalog, stream, shared.round) for stream in streams]
    unfinished = [member for member in members if not member.state.done]
    for member in unfinished:
        if all(part.done for part in member.state.slices):
            member.read_again()  # an earlier run read fewer rows than were counted
    missing = shared.catalog.lists.missing_for_rows()
    ready: List[StreamCopy] = []
    try:
        for member in unfinished if missing else ():
            member.error = missing
        for member in unfinished if not missing else ():
            if replay_versions(shared, member):
                ready.append(member)
        for together in _by_end(ready):
            _copy_members(shared, together)
        for member in ready:
            if shared.round and member.above is None and not member.error:
                _catch_up(shared, shared.round, member)
    except BaseException:
        shared.halt.set()
        raise
    finally:
        close_copies(members, time.monotonic() - started)
    for member in unfinished:
        if member.touched:
            _log_end(member)


def _by_end(members: Sequence[StreamCopy]) -> List[List[StreamCopy]]:
    """Returns the members in groups that can be read together: whole objects with one end key."""
    groups: Dict[Tuple[Optional[str], str], List[StreamCopy]] = {}
    for member in members:
        end, *cut = [part.end for part in member.state.slices]
        groups.setdefault((end, member.stream.source_id if cut else ""), []).append(member)
    return list(groups.values())


def _copy_members(shared: SharedCopy, members: Sequence[StreamCopy]) -> None:
    """Copy members together. After an ApiError each is copied alone, to find the one at fault."""
    for member in members:
        shared.catalog.run.live.begin(member.state.header, member.state.counts["fetched"])
    try:
        _read_destinations(shared, members)
        note_doubtful(shared, members)
        _read_source(shared, members)
        for member in members:
            if member.above is not None and member.state.failed and not member.error:
                _try_again(shared, member)
    except ApiError as error:
        if len(members) == 1:
            members[0].error = error
            return
        for member in members:  # the member at fault must not fail the others
            if not member.error:
                _copy_members(shared, [member])


def _read_source(shared: SharedCopy, members: Sequence[StreamCopy]) -> None:
    """Copy all source rows of the members.

    Raises ApiError if a single member has rows that the server counts and does not show.
    """
    began_s = now_s(shared.catalog.source)
    alone = len(members) == 1
    in_slices = alone and members[0].above is None and _readers_of_slices(shared) > 1
    if in_slices:
        _copy_slices(shared, members[0])
    elif alone:
        _copy_ranges(shared, members[0])
    else:
        _copy_range(shared, members, 0, _expected(members))
    for member in members:
        counted = None if member.error else _count_if_short(shared, member, began_s)
        if counted is None:
            continue
        if in_slices or not alone:
            # Reading in a group or in slices may have missed rows: read it once more, alone and up
            # to an empty page.
            member.read_again()
            _copy_range(shared, [member], 0, None)
            counted = _count_if_short(shared, member, began_s)
        if counted is not None:
            text = short_read_text(counted, member.rows_read)
            member.error = unusable_answer(shared.catalog.source, text)
            if alone:
                raise member.error


def _expected(members: Sequence[StreamCopy]) -> Optional[int]:
    """Returns how many rows are to be read, None if that is not known.

    It is not known if some of the rows were read before, or if the server does not count them.
    """
    if not all(member.is_at_start for member in members):
        return None
    return expected_rows([member.stream for member in members])


def _count_if_short(shared: SharedCopy, member: StreamCopy, began_s: float) -> Optional[int]:
    """Returns the source's count of the stream if fewer rows were read, else None.

    None also if the stream cannot be counted.
    """
    stream = member.stream
    bounds = _bounds(shared, [member], member.start_key, member.end_key)
    selection = RowSelection(stream.kind.name, [stream.source_id], bounds, stream.rows)
    return count_if_short(shared.catalog.source, selection, member.rows_read, began_s)


def _bounds(
    shared: SharedCopy, members: Sequence[StreamCopy], after: Optional[str], end: Optional[str]
) -> Bounds:
    """Returns the bounds to read: keys above `after` and up to `end`.

    In a sync, only newer transactions.
    """
    marks = [member.above for member in members if member.above is not None]
    return replace(
        bounds_of(shared.catalog, members[0].stream.kind),
        after_key=after,
        end_key=end,
        after_xact=min(marks) if marks else None,
    )


def _copy_range(
    shared: SharedCopy, members: Sequence[StreamCopy], number: int, expected: Optional[int]
) -> None:
    """Copy one key range of all members in one pass.

    Rows that a member of the group has copied before are left out.
    """
    ranges = [member.state.slices[number] for member in members]
    starts = [key_range.after for key_range in ranges]
    start = None if None in starts else min(str(key) for key in starts)
    bounds = _bounds(shared, members, start, ranges[0].end)
    kind = members[0].stream.kind
    ids = [member.stream.source_id for member in members]
    pump = Pump(shared, members, slice_number=number)
    pump.copy_all(shared.readers.of(kind, ids, bounds, expected))
    for member, key_range in zip(members, ranges):
        if not member.error:
            with member.state.lock:
                key_range.done = True
                if len(member.state.slices) > 1:
                    save_members([member])
    if len(members) == 1 and members[0].error:
        raise members[0].error


def _copy_ranges(shared: SharedCopy, member: StreamCopy) -> None:
    """Copy one object with one reader. A resumed run keeps the slices of the run before it."""
    for number, key_range in enumerate(member.state.slices):
        if not key_range.done:
            _copy_range(shared, [member], number, _expected([member]))


def _readers_of_slices(shared: SharedCopy) -> int:
    settings = shared.catalog.settings
    return 1 if settings.preserve_order else settings.read_streams


def _copy_slices(shared: SharedCopy, member: StreamCopy) -> None:
    """Copy one object with several readers."""
    count = _readers_of_slices(shared)
    slices = Slices(member.state, shared.check)
    with ThreadPoolExecutor(count, thread_name_prefix="stream") as pool:
        futures = [pool.submit(_read_slices, shared, member, slices) for _ in range(count)]
    _raise_first([future.exception() for future in futures])


def _read_slices(shared: SharedCopy, member: StreamCopy, slices: Slices) -> None:
    """Work of one reader: read one end of a slice, then another, until nothing is left."""
    stream = member.stream
    while True:
        with slices.reader() as slice_reader:
            if slice_reader is None:
                return
            bounds = _bounds(shared, [member], None, None)
            reader = shared.readers.of_slice(stream.kind, stream.source_id, bounds, slice_reader)
            Pump(shared, [member], slice_reader=slice_reader).copy_all(reader)
            if member.error:
                raise member.error


# -- around the reading of the source


def _catch_up(shared: SharedCopy, round_: Round, member: StreamCopy) -> None:
    """Copy rows that were changed after the reader had passed them."""
    began = member.state.copy.began or xact_at(mark_seconds(shared.catalog.run.record))
    if began < round_.upper:
        with member.state.lock:
            member.state.catch_up(before_xact(began, shared.catalog.settings.lookback))
            member.state.save()
        stream = member.stream
        source = shared.catalog.source
        bounds = _bounds(shared, [member], None, None)
        counted = count_inside(source, stream.kind.name, [stream.source_id], bounds)
        member.stream = replace(stream, rows=counted)
        _copy_members(shared, [member])


def _try_again(shared: SharedCopy, member: StreamCopy) -> None:
    """In a sync: send rows that did not arrive in earlier syncs, as long as they arrive now.

    Once some of TRIED_AGAIN rows have failed again, the others are reported with them, and the next
    sync tries them first. Raises ApiError.
    """
    object_id, round_ = member.stream.source_id, member.state.sync.round
    failed = member.seen.failed(object_id, round_, NO_LIMIT)
    member.failed_as_one = len(failed) > TRIED_AGAIN
    for start in range(0, len(failed), TRIED_AGAIN):
        tried = failed[start : start + TRIED_AGAIN]
        send_again(shared, member, tried)
        still_earlier = member.seen.failed(object_id, round_, NO_LIMIT)
        left = failed[start + TRIED_AGAIN :]
        if left and not {*tried}.issubset(still_earlier):
            with member.state.lock:
                notes = FindingCounts(member.state.findings)
                place = notes.add_many("row_refused", left[0], len(left), detail=FAILED_BEFORE)
                notes.set_print(place, member.print_of_failed())
                member.state.findings = notes.records()
            return


def send_again(shared: SharedCopy, member: StreamCopy, row_ids: Sequence[str]) -> None:
    """In a sync: send rows that did not arrive, if the source still has them. Raises ApiError."""
    kind, object_id = member.stream.kind.name, member.stream.source_id
    member.touched = True

    def pages_again() -> Iterator[Page]:
        for ids in portions(row_ids, ROWS_AGAIN):
            rows, refused = found_rows(shared.catalog.source, kind, [object_id], ids)
            member.tried_again += [row_id for row_id in ids if row_id not in refused]
            _note_not_read(member, refused)
            yield Page(rows, "")

    Pump(shared, [member]).copy(pages_again())
    if member.error:
        raise member.error


def _note_not_read(member: StreamCopy, refused: Mapping[str, ApiError]) -> None:
    """Report rows that the source does not show because of their ids: they stay failures."""
    state = member.state
    with state.lock:
        notes = FindingCounts(state.findings)
        for row_id, error in refused.items():
            notes.add("row_refused", row_id, detail=f"cannot be read: {error}"[:300])
        state.findings = notes.records()
        state.counts[FAILED] += len(refused)


def _read_destinations(shared: SharedCopy, members: Sequence[StreamCopy]) -> None:
    """Record digests of the rows that the destination objects already hold.

    Such rows are found or differ, and are not written. Objects are read together if the destination
    counts their rows.
    """
    unread = [
        member
        for member in members
        if not member.stream.fresh and not member.state.copy.compared and member.above is None
    ]
    whole = [member for member in unread if member.stream.part is None]
    ids = [member.stream.dest_id for member in whole]
    kind_name = members[0].stream.kind.name
    counts = shared.readers.counts.of_dest(shared.catalog, kind_name, ids)
    counted = [member for member in whole if counts[member.stream.dest_id].rows is not None]
    filled = [member for member in counted if counts[member.stream.dest_id].rows]
    if filled:
        rows = sum(counts[member.stream.dest_id].rows or 0 for member in filled)
        ids = [member.stream.dest_id for member in filled]
        bounds = bounds_of(shared.catalog, members[0].stream.kind)
        learn_facets_of_copies(shared.catalog.source, shared.catalog.dest, kind_name, ids, bounds)
        _read_destination(shared, filled, rows)
    for member in unread:
        if member not in counted:
            _read_destination(shared, [member], None)
        member.state.copy.compared = True
    save_members(unread)


def _read_destination(
    shared: SharedCopy, members: Sequence[StreamCopy], expected: Optional[int]
) -> None:
    kind = members[0].stream.kind
    by_dest = {member.stream.dest_id: member for member in members}
    part = members[0].stream.part
    bounds = replace(
        bounds_of(shared.catalog, kind), end_key=part.before if part is not None else None
    )
    limit = shared.catalog.settings.rows(kind.name).fetch_limit
    dest = shared.catalog.dest
    selection = RowSelection(kind.name, list(by_dest), bounds, expected)
    for page in pages(dest, selection, limit=limit):
        shared.check()
        by_dest_id: Dict[str, List[JsonObject]] = {}
        for row in page.rows:
            by_dest_id.setdefault(row[kind.id_field] if len(members) > 1 else "", []).append(row)
        for dest_id, rows in by_dest_id.items():
            _record_before(by_dest[dest_id] if dest_id else members[0], rows)


def _record_before(member: StreamCopy, rows: Sequence[JsonObject]) -> None:
    stream = member.stream
    member.seen.record_before(
        (stream.source_id, row["id"], remembered(stream.kind, row)) for row in rows
    )
    # In a run merged from shards, rows of this run lie among the older ones.
    if not member.state.counts["fetched"]:
        member.state.copy.before_key = rows[-1]["_pagination_key"]


def _log_end(member: StreamCopy) -> None:
    stream, state = member.stream, member.state
    facts = {"resource": stream.kind.name, "project": stream.project, "source_id": stream.source_id}
    if member.error:
        log.error(
            "rows of %s %r: %s",
            stream.kind.name,
            stream.name,
            member.error,
            extra={"event": "stream_failed", **facts},
        )
    elif state.done:
        log.info(
            "rows of %s %r: %s",
            stream.kind.name,
            stream.name,
            counts_line(state.counts),
            extra={"event": "rows_copied", **facts},
        )
