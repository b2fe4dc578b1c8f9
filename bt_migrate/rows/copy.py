"""The one streaming engine for logs, experiment rows and dataset rows.

page -> rewrite -> batch -> insert (pool) -> commit. Small objects are read together, a large one can be read in slices; batches
finish in any order and are committed as a finished prefix, always in this order: the destination accepted, the seen rows are
committed, the checkpoint is replaced. A crash repeats a little and loses nothing; rows carry their ids and replace themselves.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from bt_migrate.api.btql import newest_query, page_query
from bt_migrate.api.transactions import before_xact, xact_at
from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.errors import ApiError, Interrupted, StateError
from bt_migrate.model.findings import FAILURE, KINDS
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.outcomes import CREATED, DIFFERS, FAILED, FOUND, UPDATED
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.background import SIGNAL_S, wait_for
from bt_migrate.rows.batches import EncodedRow, batched, held_bytes
from bt_migrate.rows.decide import RowDecider, remembered
from bt_migrate.rows.insert import Delivered, Inserter
from bt_migrate.rows.prefetch import FirstPages
from bt_migrate.rows.read import Page, pages, rows_of_ids
from bt_migrate.rows.slices import Reader, Slices
from bt_migrate.rows.streams import PageEnd, RowStream, StreamCopy, bounds_of, save_members
from bt_migrate.state.files import append_line
from bt_migrate.state.stream_state import KeyRange
from bt_migrate.state.sync_marks import Round, mark_seconds

log = logging.getLogger("bt_migrate.rows")

CHECKPOINT_S = 1.0  # a checkpoint is written at least this often, whatever the interval in batches; those of a group five times less
TRIED_AGAIN, ROWS_AGAIN = (
    500,
    50,
)  # rows of an object that failed before, in one round, and in one query
PROGRESS_S = 10.0  # between two progress lines of one stream
ROW_RESOURCES = frozenset(ROW_KINDS)

Accepted = Dict[
    str, Tuple[list, list]
]  # by source object: (SeenRows.record's rows, and what they wait for)


@dataclass
class Copying:
    """What the streams of one call share. `halt` is set where an error was met which ends the run, `made` once all objects are."""

    catalog: Catalog
    copier: AttachmentCopier
    pool: ThreadPoolExecutor
    reading: FirstPages
    halt: threading.Event
    round: Optional[Round] = None  # of a sync; none while everything is copied
    made: threading.Event = field(default_factory=threading.Event)
    in_flight_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        self.catalog.dest.check()
        if self.halt.is_set():
            raise Interrupted("another stream ended the run; the checkpoint is kept")

    def resolve(self, targets: Tuple[str, ...], source_id: str) -> Optional[str]:
        """The destination id of what a row refers to. What may be on its way still is waited for."""
        found = self.catalog.targets.resolve(targets, source_id)
        if found is None and not self.made.is_set() and ROW_RESOURCES.intersection(targets):
            while not self.made.wait(SIGNAL_S):
                self.check()
            found = self.catalog.targets.resolve(targets, source_id)
        return found

    def add_bytes(self, count: int) -> None:
        with self._lock:
            self.in_flight_bytes += count


@dataclass(frozen=True)
class Batch:
    """A batch on its way. `page` is the page that ends with it, with what that page adds without being sent."""

    result: Future[Delivered]
    size: int
    last: bool  # of the last page
    page: Optional[PageEnd]


@contextlib.contextmanager
def streaming(
    catalog: Catalog,
    copier: AttachmentCopier,
    reading: FirstPages,
    halt: threading.Event,
    round_: Optional[Round] = None,
) -> Iterator[Callable[[Sequence[RowStream]], None]]:
    """Gives what starts the copy of streams that are read together; some are copied at once. While `with` lasts the objects of their
    kind are still being made; at its end all streams come to theirs. In a round what is new in those that were copied.

    What the API says of one object is that object's failure; anything else ends the run, after all streams have written their
    checkpoints.
    """
    workers = catalog.settings.max_concurrent
    pool = ThreadPoolExecutor(workers, thread_name_prefix="insert")
    streams = ThreadPoolExecutor(workers, thread_name_prefix="stream")
    futures: List[Future[None]] = []
    errors: List[Optional[BaseException]] = []
    with pool, streams:  # left from the back: the streams end before the pool that they use
        copying = Copying(catalog, copier, pool, reading, halt, round_)

        def start(group: Sequence[RowStream]) -> None:
            copying.check()
            futures.append(streams.submit(_copy_group, copying, group))

        try:
            yield start
        except BaseException as error:  # noqa: BLE001  not swallowed: raised below, unless a stream tells the cause
            copying.halt.set()
            errors.append(error)
        copying.made.set()
        wait_for(futures)
    raised = [
        error
        for error in (*errors, *(future.exception() for future in futures))
        if error is not None
    ]
    raised.sort(
        key=lambda error: isinstance(error, Interrupted)
    )  # the cause before those that stopped because of it
    if raised:
        raise raised[0]


def _copy_group(copying: Copying, streams: Sequence[RowStream]) -> None:
    """The streams of a group; an ApiError while reading them together is looked for one by one."""
    copying.check()
    started = time.monotonic()
    began_s = copying.reading.began([stream.source_id for stream in streams])
    members = [
        StreamCopy(copying.catalog, stream, copying.round, began_s=began_s) for stream in streams
    ]
    try:
        todo = [member for member in members if not member.state.done]
        for together in _by_end(todo):
            _copy_members(copying, together)
        for member in todo:
            if copying.round and member.above is None and not member.error:
                _catch_up(copying, copying.round, member)
    except BaseException:
        copying.halt.set()
        raise
    finally:
        StreamCopy.close_all(members, time.monotonic() - started)
    for member in todo:
        if member.touched:
            _tell(member)


def _by_end(members: Sequence[StreamCopy]) -> List[List[StreamCopy]]:
    """Those that can be read together: whole objects, whose last keys to read are the same."""
    found: Dict[Tuple[Optional[str], str], List[StreamCopy]] = {}
    for member in members:
        end, *cut = [one.end for one in member.state.slices]
        found.setdefault((end, member.stream.source_id if cut else ""), []).append(member)
    return list(found.values())


def _catch_up(copying: Copying, round_: Round, member: StreamCopy) -> None:
    """What was copied since before the round began may have been changed behind the reader's back."""
    began = member.state.copy.began or xact_at(mark_seconds(copying.catalog.run.record))
    if began < round_.upper:
        with member.state.lock:
            member.state.catch_up(before_xact(began, copying.catalog.settings.lookback))
            member.state.save()
        _copy_members(copying, [member])


def _copy_members(copying: Copying, members: Sequence[StreamCopy]) -> None:
    for member in members:
        member.run.live.begin(member.state.header, member.state.counts["fetched"])
    try:
        for member in members:
            if not member.stream.fresh and not member.state.copy.compared and member.above is None:
                _read_destination(copying, member)
        if len(members) == 1 and members[0].above is None:
            _copy_slices(copying, members[0])
        else:
            _Stream(copying, members).run()
            if len(members) > 1:
                _doubt_group(copying, members)
            for member in members:
                if member.above is not None and member.state.failed and not member.error:
                    _Stream(copying, [member]).run_again()
    except ApiError as error:
        if len(members) == 1:
            members[0].error = error
            return
        for member in members:  # the one that is at fault must not take the others with it
            if not member.error:
                _copy_members(copying, [member])


def _doubt_group(copying: Copying, members: Sequence[StreamCopy]) -> None:
    """A server that knew only the first id of a FROM would leave the others without rows and without a word: until one group has shown
    rows of two objects, each object that seems empty is asked for alone.
    """
    source = copying.catalog.source
    source.capabilities.reads_groups = (
        source.capabilities.reads_groups
        or sum(bool(member.state.counts["fetched"]) for member in members) > 1
    )
    if (
        not source.capabilities.reads_groups and members[0].above is not None
    ):  # nothing new shows nothing: one query more
        kind = members[0].stream.kind
        newest = newest_query(
            kind.name, kind.id_field, [member.stream.source_id for member in members]
        )
        source.capabilities.reads_groups = len(source.query(newest).json) > 1
    for member in members:
        if source.capabilities.reads_groups or member.error or member.state.counts["fetched"]:
            continue
        stream = member.stream
        bounds = replace(bounds_of(copying.catalog, stream.kind), after_xact=member.above)
        if source.query(page_query(stream.kind.name, [stream.source_id], bounds, 1)).json:
            member.state.slices = [KeyRange(None, member.state.slices[0].end)]
            _Stream(copying, [member], 0).run()


def _copy_slices(copying: Copying, member: StreamCopy) -> None:
    """One object, in slices of its key range where several readers were asked for; a resumed run keeps its slices."""
    settings, state = copying.catalog.settings, member.state
    readers = 1 if settings.preserve_order else settings.read_streams
    if readers == 1:
        for number, one in enumerate(state.slices):
            if not one.done:
                _Stream(copying, [member], number).run()
        return
    slices = Slices(state, copying.check)
    with ThreadPoolExecutor(readers, thread_name_prefix="slice") as pool:
        futures = [pool.submit(_run_slices, copying, member, slices) for _ in range(readers)]
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    errors.sort(
        key=lambda error: (isinstance(error, Interrupted), isinstance(error, ApiError))
    )  # what ends the run first
    if errors:
        raise errors[0]


def _run_slices(copying: Copying, member: StreamCopy, slices: Slices) -> None:
    """One reader: an end of a slice, and another, until nothing is left."""
    while True:
        with slices.one() as reader:
            if reader is None:
                return
            _Stream(copying, [member], reader=reader).run()


def _read_destination(copying: Copying, member: StreamCopy) -> None:
    """Remember what the destination object holds already (digests only): such rows are found or differ, and are not written."""
    catalog, stream = copying.catalog, member.stream
    limit = catalog.settings.rows(stream.kind.name).fetch_limit
    bounds = replace(
        bounds_of(catalog, stream.kind), end_key=stream.part.before if stream.part else None
    )
    for page in pages(catalog.dest, stream.kind.name, [stream.dest_id], bounds, limit=limit):
        copying.check()
        member.seen.record_before(
            (stream.source_id, row["id"], remembered(stream.kind, row)) for row in page.rows
        )
        if not member.state.counts[
            "fetched"
        ]:  # else rows of this run lie among them: the shards of it were joined
            member.state.copy.before_key = page.end_key
    member.state.copy.compared = True
    member.state.save()


def _tell(member: StreamCopy) -> None:
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
            summary(state.counts),
            extra={"event": "rows_copied", **facts},
        )


def summary(counts: Mapping[str, int]) -> str:
    """`120 rows: 118 created, 2 found`"""
    parts = [
        f"{counts[name]:,} {name}"
        for name in (CREATED, UPDATED, FOUND, DIFFERS, FAILED)
        if counts.get(name)
    ]
    return f"{counts['fetched']:,} rows: {', '.join(parts)}" if parts else "no rows"


class _Stream:
    """One slice of one object, read by one reader or from one of its ends, or a group of whole objects, while it is copied.

    Lives in one thread; only the inserter runs in the pool.
    """

    def __init__(
        self,
        copying: Copying,
        members: Sequence[StreamCopy],
        number: int = 0,
        reader: Optional[Reader] = None,
    ) -> None:
        self.copying, self.catalog, self.number, self.reader = (
            copying,
            copying.catalog,
            number,
            reader,
        )
        self.kind = members[0].stream.kind
        self.members = {member.stream.source_id: member for member in members}
        self.settings = self.catalog.settings.rows(self.kind.name)
        dest_ids = {member.stream.source_id: member.stream.dest_id for member in members}
        self.inserter = Inserter(
            self.catalog.dest, copying.copier, self.kind, dest_ids, self.settings.max_batch_bytes
        )
        self.choice = RowDecider(self.catalog, self.kind, self.members, copying.resolve)
        aboves = [member.above for member in members if member.above is not None]
        self.above = min(aboves) if aboves else None  # in a round; all members are in it or none
        self.in_flight: Deque[Batch] = deque()
        self.page = PageEnd("")  # what the batches that are being committed add to their page
        self.unrecorded: List[
            Tuple[Accepted, int]
        ] = []  # delivered rows of the last page: its checkpoint is about to say so
        self.batches_since_save, self.saved_at, self.told_at = 0, time.monotonic(), time.monotonic()

    def run(self) -> None:
        """Copy to the end. Whatever happens, what is in flight is finished and committed first."""
        slices = [member.state.slices[self.number] for member in self.members.values()]
        starts = [one.after for one in slices]
        start = (
            None if None in starts else min(str(one) for one in starts)
        )  # members of a group that are further on skip what they have
        bounds = replace(
            bounds_of(self.catalog, self.kind),
            after_key=start,
            end_key=slices[0].end,
            after_xact=self.above,
        )
        with self.copying.reading.of(self.kind, list(self.members), bounds, self.reader) as ahead:
            self._copy(ahead, ahead.poke)
        for member in self.members.values():
            if not member.error and self.reader is None:
                with member.state.lock:
                    member.state.slices[self.number].done = True
                    if len(member.state.slices) > 1:
                        save_members([member])
        errors = [member.error for member in self.members.values() if member.error]
        if len(errors) == len(self.members) == 1:
            raise errors[0]

    def run_again(self) -> None:
        """Of one member in a round: the rows that failed in earlier ones, as far as they are still in the source."""
        (member,) = self.members.values()
        object_id, source = member.stream.source_id, self.catalog.source
        member.touched = True
        member.tried_again = member.seen.failed(object_id, member.state.sync.round, TRIED_AGAIN)
        portions = (
            member.tried_again[start : start + ROWS_AGAIN]
            for start in range(0, TRIED_AGAIN, ROWS_AGAIN)
        )
        found = (
            rows_of_ids(source, self.kind.name, [object_id], some) for some in portions if some
        )
        self._copy((Page(rows, "") for rows in found), lambda _: None)

    def _copy(self, pages: Iterable[Optional[Page]], poke: Callable[[Any], None]) -> None:
        """Send the pages and commit what is finished. `poke` is called when something is."""
        try:
            for page in pages:
                self.copying.check()
                if all(member.error for member in self.members.values()):
                    break
                if page:
                    self._send(page, poke)
                else:
                    self._commit_finished()
            while self.in_flight:
                self._commit_first()
        except (
            StateError
        ):  # what could not be recorded must not be passed over by what comes behind it
            self._abandon()
            raise
        except BaseException:
            self._drain()
            raise

    # -- sending

    def _send(self, page: Page, poke: Callable[[Any], None]) -> None:
        """Cut a page into batches of bytes and hand them to the pool; commit what is finished meanwhile."""
        end = PageEnd(page.end_key)
        rows = self._rows_to_send(page, end)
        batches = list(
            batched(rows, self.settings.insert_batch_size, self.settings.max_batch_bytes)
        ) or [()]
        for number, batch in enumerate(batches, 1):
            size = sum(held_bytes(row) for row in batch)
            self.copying.add_bytes(size)
            self._note_new_rows(batch)
            result = self.copying.pool.submit(self._deliver, batch)
            result.add_done_callback(poke)
            self.in_flight.append(
                Batch(result, size, page.last, end if number == len(batches) else None)
            )
            self._commit_finished()

    def _commit_finished(self) -> None:
        while self.in_flight and (self.in_flight[0].result.done() or self._must_wait()):
            self._commit_first()

    def _note_new_rows(self, batch: Sequence[EncodedRow]) -> None:
        """Rows that are new to an object which was there before the run are written down, for `undo`; in a round all are, so that
        they are known for ours if nobody comes to record them.
        """
        for object_id, member in self.members.items():
            if self.above is not None:
                sent = [
                    (object_id, row.id, row.digest, member.state.sync.round)
                    for row in batch
                    if row.object_id == object_id
                ]
                if sent:
                    member.seen.record_sending(sent)
            if not member.stream.fresh:
                new = [
                    (object_id, row.id)
                    for row in batch
                    if row.object_id == object_id and row.outcome == CREATED
                ]
                if new:
                    member.seen.record_inserted(new)

    def _deliver(self, batch: Sequence[EncodedRow]) -> Delivered:
        """In the pool. What is delivered is told before it is committed."""
        done = self.inserter.deliver(batch)
        delivered = [
            row.object_id for row, (outcome, _) in zip(done.rows, done.outcomes) if outcome
        ]
        self.catalog.run.live.add(Counter(delivered))
        return done

    def _must_wait(self) -> bool:
        settings = self.catalog.settings
        return (
            settings.preserve_order or self.copying.in_flight_bytes > settings.max_in_flight_bytes
        )

    def _rows_to_send(self, page: Page, end: PageEnd) -> List[EncodedRow]:
        """The rows of the page that are to be written, encoded. The outcomes of all others are counted."""
        rows = self._by_member(page)
        choose = self.choice.of_copy if self.above is None else self.choice.of_round
        sending = choose(rows, end, plain=page.plain)
        settled = {
            object_id: sum(counts.values()) - counts["fetched"]
            for object_id, counts in end.counts.items()
        }
        self.catalog.run.live.add(settled)
        return sending

    def _by_member(self, page: Page) -> Dict[str, List[dict]]:
        """The rows of the page by their object, in order; without those that a member of a group has behind it."""
        if len(self.members) == 1:
            return {next(iter(self.members)): page.rows}
        found: Dict[str, List[dict]] = {}
        for row in page.rows:
            member = self.members.get(row[self.kind.id_field])
            position = member.state.slices[0].after if member else None
            if (
                member
                and not member.error
                and (position is None or row["_pagination_key"] > position)
            ):
                found.setdefault(row[self.kind.id_field], []).append(row)
        return found

    # -- committing

    def _commit_first(self) -> None:
        """Take the oldest batch into the seen rows and, where it ends a page, the page into the checkpoints."""
        batch = self.in_flight[0]
        done = batch.result.result()
        self.in_flight.popleft()
        self.copying.add_bytes(-batch.size)
        for object_id, error in done.errors.items():
            self.members[object_id].error = error
        accepted = self._count(done)
        self._remember_failed(done)
        for object_id, row_id, path, key, why in done.not_copied:
            self.page.of(object_id)[1].add(why.kind, row_id, path, str(why), key)
        for object_id, row_id, reason in done.refused_comments:
            self.page.of(object_id)[1].add("comment_refused", row_id, detail=reason[:80])
        last = batch.last and self.above is None
        self._remember(accepted, done.at, only_waiting=last)
        if last:
            self.unrecorded.append((accepted, done.at))
        self.batches_since_save += 1
        if batch.page is not None:
            self._close_page(batch.page)

    def _count(self, done: Delivered) -> Accepted:
        """Count the outcomes of a batch; gives back what the destination has accepted of it."""
        accepted: Accepted = {}
        left = {
            (object_id, row_id)
            for object_id, row_id, *_ in (*done.not_copied, *done.refused_comments)
        }
        object_id = None
        for row, (outcome, reason) in zip(done.rows, done.outcomes):
            if row.object_id != object_id:
                object_id = row.object_id
                counts, notes = self.page.of(object_id)
                rows, waiting = accepted.setdefault(object_id, ([], []))
            if not outcome:
                continue
            counts[outcome] += 1
            if outcome == FAILED:
                self._record_refused(row, reason, notes)
                continue
            counts["bytes"] += len(row.body)
            if (
                (object_id, row.id) not in left
            ):  # what is not as it should be is met again by a resumed run, which tells it again
                rows.append((object_id, row.id, row.xact, outcome))
                waiting.extend((object_id, row.id, *entry) for entry in row.deferred)
        return accepted

    def _remember_failed(self, done: Delivered) -> None:
        """What did not arrive as it should is not told once and forgotten."""
        failed = {
            (row.object_id, row.id)
            for row, (outcome, _) in zip(done.rows, done.outcomes)
            if outcome == FAILED
        }
        failed.update((object_id, row_id) for object_id, row_id, *_ in done.refused_comments)
        failed.update(
            (object_id, row_id)
            for object_id, row_id, *_, why in done.not_copied
            if KINDS[why.kind].severity == FAILURE
        )
        for object_id in {object_id for object_id, _ in failed}:
            member = self.members[object_id]
            member.seen.record_failed(
                (*one, member.state.sync.round) for one in failed if one[0] == object_id
            )

    def _remember(self, accepted: Accepted, at: int, *, only_waiting: bool) -> None:
        """Commit what was delivered, by object. After the last page of a copy the checkpoint itself says so, right behind; a round
        records all, for the next one.
        """
        recorded = self.settings.use_seen_db or self.above is not None
        for object_id, (rows, waiting) in accepted.items():
            member = self.members[object_id]
            if rows and ((recorded and not only_waiting) or waiting):
                member.seen.record(rows if recorded else [], waiting, at=at)
            if self.above is None:
                member.state.copy.delivered_until = max(member.state.copy.delivered_until, at)

    def _close_page(self, end: PageEnd) -> None:
        """All rows up to the end of the page have their outcome: move the checkpoints, write them from time to time."""
        for object_id, member in self.members.items():
            if member.error:
                continue
            with member.state.lock:
                for part in (self.page, end):
                    for name, count in part.counts.get(object_id, {}).items():
                        member.state.counts[name] += count
                notes = FindingCounts(member.state.findings)
                for part in (self.page, end):
                    if object_id in part.notes:
                        notes.merge(part.notes[object_id])
                member.state.findings = notes.records()
                if self.reader is not None:
                    self.reader.wrote(end.end_key)
                else:
                    read = member.state.slices[self.number]
                    read.after = max(read.after or "", end.end_key) or None
        self.page = PageEnd("")
        self.unrecorded.clear()
        now = time.monotonic()
        due_s = CHECKPOINT_S * min(5, len(self.members))
        if (
            self.batches_since_save >= self.catalog.settings.checkpoint_interval
            or now - self.saved_at > due_s
        ):
            save_members(self.members.values())
            self.batches_since_save, self.saved_at = 0, now
        if now - self.told_at > PROGRESS_S:
            self.told_at = now
            for member in (one for one in self.members.values() if one.touched):
                words = summary(member.state.counts)
                log.info(
                    "rows of %s %r so far: %s",
                    self.kind.name,
                    member.stream.name,
                    words,
                    extra={"event": "progress"},
                )

    def _drain(self) -> None:
        """Finish what is in flight and commit its finished prefix; the error that led here is the one that is told."""
        while self.in_flight and self.in_flight[0].result.exception() is None:
            self._commit_first()
        for accepted, at in self.unrecorded:  # of a last page that did not come to its end
            self._remember(accepted, at, only_waiting=False)
        self._abandon()

    def _abandon(self) -> None:
        """Wait for what is in flight, without committing it."""
        for batch in self.in_flight:
            self.copying.add_bytes(-batch.size)
            if not batch.result.cancel():
                batch.result.exception()  # waits
        self.in_flight.clear()

    def _record_refused(self, row: EncodedRow, reason: str, notes: FindingCounts) -> None:
        """One line in the file of refused rows: id, size and reason, not the content."""
        notes.add("row_refused", row.id, detail=reason[:80])
        member = self.members[row.object_id]
        if row.id in member.tried_again:  # it has its line
            return
        append_line(
            member.state.sibling("_failed.jsonl"),
            {"id": row.id, "bytes": len(row.body), "reason": reason},
        )
        log.error(
            "row %s of %r was refused: %s",
            row.id,
            member.stream.name,
            reason,
            extra={"event": "row_refused"},
        )
