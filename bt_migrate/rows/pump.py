"""Copy the pages of one reader: page -> decide and encode -> batches -> insert -> commit.

Three kinds of threads work here. A stream thread, in which a `Pump` lives, takes pages, encodes
rows and commits what has arrived. Page threads (see `page_ahead`) send queries and decode answers.
Insert threads, a pool that all streams share, deliver batches. Batches finish in any order and are
committed in the order in which they were read.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from threading import Event, Lock
from typing import Deque, Dict, Iterable, List, Optional, Sequence, Tuple

from bt_migrate.api.transactions import xact_of
from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.errors import Interrupted, StateError
from bt_migrate.model.equality import DIGEST_BYTES, row_digest
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import CREATED, FOUND
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.background import SIGNAL_S
from bt_migrate.rows.batches import EncodedRow, batched, held_bytes
from bt_migrate.rows.commit import IN_COPY, BatchCommitter
from bt_migrate.rows.decide import RowDecider
from bt_migrate.rows.insert import Delivered, Inserter
from bt_migrate.rows.prefetch import SourceReaders
from bt_migrate.rows.read import Page, PageReader
from bt_migrate.rows.repeated import NewestVersions
from bt_migrate.rows.slices import SliceReader
from bt_migrate.rows.streams import PageEnd, StreamCopy
from bt_migrate.state.sync_marks import Round

ROW_RESOURCES = frozenset(ROW_KINDS)


@dataclass
class SharedCopy:
    """What all streams share that are copied at the same time."""

    catalog: Catalog
    copier: AttachmentCopier
    pool: ThreadPoolExecutor  # the insert threads
    readers: SourceReaders
    # set by the stream whose error ends the run
    halt: Event
    # the sync round; None during the first, full copy
    round: Optional[Round] = None
    # set once all objects of the kind have been created
    created: Event = field(default_factory=Event)
    in_flight_bytes: int = 0
    # a continued copy waited for the destination to show its rows
    waited_for_rows: bool = False
    _lock: Lock = field(default_factory=Lock)

    def check(self) -> None:
        """Raises Interrupted if the run is to end."""
        self.catalog.dest.check()
        if self.halt.is_set():
            raise Interrupted("another stream ended the run; the checkpoint is kept")

    def resolve(self, targets: Tuple[str, ...], source_id: str) -> Optional[str]:
        """Returns the destination id of a referenced object.

        Waits if the object may still be created.
        """
        dest_id = self.catalog.targets.resolve(targets, source_id)
        if dest_id is None and not self.created.is_set() and ROW_RESOURCES.intersection(targets):
            while not self.created.wait(SIGNAL_S):
                self.check()
            dest_id = self.catalog.targets.resolve(targets, source_id)
        return dest_id

    def add_bytes(self, count: int) -> None:
        with self._lock:
            self.in_flight_bytes += count


@dataclass(frozen=True)
class SentBatch:
    """A batch that was passed to an insert thread.

    `end` is set for the last batch of a page: its end key, and the counts and findings of its rows
    that were not sent.
    """

    result: Future[Delivered]
    size: int
    last_page: bool
    end: Optional[PageEnd]


class Pump:
    """Copies pages of one object, a slice, or a group of objects. Used by one stream thread."""

    def __init__(
        self,
        shared: SharedCopy,
        members: Sequence[StreamCopy],
        *,
        slice_number: int = 0,
        slice_reader: Optional[SliceReader] = None,
    ) -> None:
        self._shared = shared
        self._catalog = shared.catalog
        self._kind = members[0].stream.kind
        self._members = {member.stream.source_id: member for member in members}
        self._settings = shared.catalog.settings.rows(self._kind.name)
        self._is_round = members[0].above is not None
        self._inserter = Inserter(
            shared.catalog.dest,
            shared.copier,
            self._kind,
            {member.stream.source_id: member.stream.dest_id for member in members},
            self._settings.max_batch_bytes,
            shared.catalog.settings.max_row_bytes,
        )
        self._decider = RowDecider(shared.catalog, self._kind, self._members, shared.resolve)
        self._committer = BatchCommitter(
            shared.catalog.settings,
            self._kind,
            self._members,
            slice_number=slice_number,
            slice_reader=slice_reader,
        )
        self._newest = NewestVersions()
        self._in_flight: Deque[SentBatch] = deque()

    def copy_all(self, reader: PageReader) -> None:
        """Copy all pages of the reader, and close it."""
        try:
            self.copy(self._pages(reader))
        finally:
            reader.close()

    def copy(self, pages: Iterable[Page]) -> None:
        """Send the pages and commit them.

        On an error, the sent batches are finished, and the batches before the first failed one are
        committed. On a StateError nothing is committed.
        """
        try:
            for page in pages:
                self._shared.check()
                if all(member.error for member in self._members.values()):
                    break
                self._send(page)
            while self._in_flight:
                self._commit_first()
        except StateError:
            # The state could not be written: the checkpoint must not advance.
            self._abandon()
            raise
        except BaseException:
            self._drain()
            raise

    def _pages(self, reader: PageReader) -> Iterable[Page]:
        """Yields the pages of the reader; commits finished batches while it waits for one."""
        while True:
            while not reader.is_ready(self._first_result(), SIGNAL_S):
                self._shared.check()
                self._commit_finished()
            page = reader.next_page()
            if page is None:
                return
            yield page

    # -- sending

    def _send(self, page: Page) -> None:
        """Cut a page into batches and pass them to the insert threads.

        Finished batches are committed meanwhile.
        """
        # rows of one transaction mostly follow each other
        xacts = groupby([row.get("_xact_id") for row in page.rows])
        newest = max((xact_of(xact) for xact, _ in xacts), default=0)
        end = PageEnd(page.end_key, newest)
        rows = self._rows_to_send(page, end)
        sizes = self._settings.insert_batch_size, self._settings.max_batch_bytes
        batches: List[Tuple[EncodedRow, ...]] = list(batched(rows, *sizes)) or [()]
        for number, batch in enumerate(batches, 1):
            size = sum(held_bytes(row) for row in batch)
            self._shared.add_bytes(size)
            self._record_sending(batch)
            result = self._shared.pool.submit(self._deliver, batch)
            ends_page = number == len(batches)
            self._in_flight.append(SentBatch(result, size, page.last, end if ends_page else None))
            self._commit_finished()

    def _rows_to_send(self, page: Page, end: PageEnd) -> List[EncodedRow]:
        """Returns the encoded rows of the page that are to be written; counts all others."""
        rows = self._without_older_versions(self._by_member(page), end)
        decide = self._decider.of_round if self._is_round else self._decider.of_copy
        sending = decide(rows, end, plain=page.plain)
        settled = {
            object_id: sum(counts.values()) - counts["fetched"]
            for object_id, counts in end.counts.items()
        }
        self._catalog.run.live.add(settled)
        return sending

    def _by_member(self, page: Page) -> Dict[str, List[JsonObject]]:
        """Returns the rows of the page by object, without rows that were copied before."""
        if len(self._members) == 1:
            return {next(iter(self._members)): page.rows}
        by_object: Dict[str, List[JsonObject]] = {}
        for row in page.rows:
            object_id = row[self._kind.id_field]
            member = self._members[object_id]
            position = member.state.slices[0].after
            if not member.error and (position is None or row["_pagination_key"] > position):
                by_object.setdefault(object_id, []).append(row)
        return by_object

    def _without_older_versions(
        self, rows: Dict[str, List[JsonObject]], end: PageEnd
    ) -> Dict[str, List[JsonObject]]:
        """Returns the rows without versions that do not count; reports each repeated row."""
        counting = {}
        for object_id, object_rows in rows.items():
            newest = self._newest.of(object_id, object_rows)
            counting[object_id] = newest.rows
            if newest.older or newest.again:
                counts, notes = end.of(object_id)
                counts.update({"fetched": len(newest.older), FOUND: len(newest.older)})
                for row_id in (*newest.older, *newest.again):
                    notes.add("row_repeated", row_id)
            if newest.again:
                # The older version was sent, and batches finish in any order.
                while self._in_flight:
                    self._commit_first()
        return counting

    def _record_sending(self, batch: Sequence[EncodedRow]) -> None:
        """Record rows before they are sent, so that after a crash it is known which are ours.

        In a sync that is every row. In a copy it is each row whose delivery may be recorded by
        nobody although another content of it is, or can be: in an object that existed before the
        run each new row, in earlier states of a dataset all, and what a killed process may have
        sent already. A row that will not be sent keeps the record of what was sent before: by that,
        the destination's row stays ours.
        """
        for object_id, member in self._members.items():
            rows = [row for row in batch if row.object_id == object_id and not row.trouble]
            is_new = not member.stream.fresh
            new = [row for row in rows if is_new and row.outcome == CREATED]
            if new:
                member.seen.record_inserted((object_id, row.id) for row in new)
            if self._is_round:
                round_ = member.state.sync.round
                sending = [(object_id, row.id, row.digest, round_) for row in rows]
            elif member.replays or self._decider.doubts(object_id):
                sending = _sent_over(member, rows)
            else:
                sending = _sent_over(member, new)
            if sending:
                member.seen.record_sending(sending)

    def _deliver(self, batch: Sequence[EncodedRow]) -> Delivered:
        """Runs in an insert thread. Live progress counts rows when delivered, before the commit."""
        done = self._inserter.deliver(batch)
        delivered = [
            row.object_id for row, (outcome, _) in zip(done.rows, done.outcomes) if outcome
        ]
        self._catalog.run.live.add(Counter(delivered))
        return done

    # -- committing

    def _first_result(self) -> Optional[Future[Delivered]]:
        return self._in_flight[0].result if self._in_flight else None

    def _commit_finished(self) -> None:
        while self._in_flight and (self._in_flight[0].result.done() or self._must_wait()):
            self._commit_first()

    def _must_wait(self) -> bool:
        settings = self._catalog.settings
        too_much = self._shared.in_flight_bytes > settings.max_in_flight_bytes
        return settings.preserve_order or too_much

    def _commit_first(self) -> None:
        """Wait for the oldest batch and commit it."""
        batch = self._in_flight[0]
        done = batch.result.result()
        self._in_flight.popleft()
        self._shared.add_bytes(-batch.size)
        self._committer.commit(done, batch.end, last_page=batch.last_page)

    def _drain(self) -> None:
        """Finish the sent batches and commit those before the first failed one.

        The error that led here is the one that is raised.
        """
        while self._in_flight and self._in_flight[0].result.exception() is None:
            self._commit_first()
        self._committer.record_unfinished()
        self._abandon()

    def _abandon(self) -> None:
        """Wait for the sent batches without committing them."""
        for batch in self._in_flight:
            self._shared.add_bytes(-batch.size)
            if not batch.result.cancel():
                batch.result.exception()  # waits
        self._in_flight.clear()


def _sent_over(member: StreamCopy, rows: Sequence[EncodedRow]) -> List[Tuple[str, str, bytes, int]]:
    """Returns what to record of rows that replace what this copy sent before, if it did.

    The row stays ours if the process is killed before the new content arrives.
    """
    object_id = member.stream.source_id
    sent = member.seen.sending(object_id, [row.id for row in rows])
    records = []
    for row in rows:
        digest = row_digest(json.loads(row.body))
        last = sent.get(row.id, (b"", 0))[0]
        before = last[:DIGEST_BYTES] if last[:DIGEST_BYTES] != digest else last[DIGEST_BYTES:]
        records.append((object_id, row.id, digest + before, IN_COPY))
    return records
