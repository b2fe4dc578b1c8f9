"""The one streaming engine for logs, experiment rows and dataset rows.

page -> rewrite -> batch -> insert (pool) -> commit. Batches finish in any order and are committed as a finished prefix, always
in this order: the destination accepted, the seen rows are committed, the checkpoint is replaced. A crash repeats a little and
loses nothing; rows carry their ids and replace themselves.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Deque, Dict, List, Optional, Sequence, Tuple

from bt_migrate.attachments import AttachmentCopier
from bt_migrate.batches import EncodedRow, batched, encode, events_body, halves
from bt_migrate.canonical import digest
from bt_migrate.catalog import Catalog
from bt_migrate.errors import ApiError, Interrupted, NetworkError
from bt_migrate.outgoing import Notes, Outgoing, keep_source_keys, note_unresolved
from bt_migrate.read_rows import Page, ReadAhead, Window, pages
from bt_migrate.resources import ROW_KINDS, RowKind
from bt_migrate.rows import deferred_merge, insertable_row
from bt_migrate.state import CREATED, DIFFERS, FAILED, FOUND, UPDATED, SeenRows, StreamState, append_line

log = logging.getLogger("bt_migrate.rows")

CHECKPOINT_S = 5.0  # a checkpoint is written at least this often, whatever the interval in batches
PROGRESS_S = 10.0  # between two progress lines of one stream
STREAMS_AT_ONCE = 4
MAX_REASON_CHARS = 300


@dataclass(frozen=True)
class RowStream:
    """The rows of one object. `fresh`: this run made the destination object, so nothing was there before."""

    kind: RowKind
    project: str
    source_id: str
    dest_id: str
    name: str
    fresh: bool


@dataclass
class Copying:
    """What the streams of one call share. `halt` is set by a stream that met an error which ends the run."""

    catalog: Catalog
    copier: AttachmentCopier
    pool: ThreadPoolExecutor
    halt: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        self.catalog.dest.check()
        if self.halt.is_set():
            raise Interrupted("another stream ended the run; the checkpoint is kept")


@dataclass(frozen=True)
class Delivered:
    """What became of one batch: (outcome, reason) per row, and (row id, key, reason) of attachments that stay in the source."""

    rows: Sequence[EncodedRow]
    outcomes: Sequence[Tuple[str, str]] = ()
    not_copied: Sequence[Tuple[str, str, str]] = ()


@dataclass(frozen=True)
class Batch:
    """A batch on its way. `closes` is the page that ends with it; `counts` and `notes` are what that page adds."""

    result: Future[Delivered]
    closes: Optional[Page]
    counts: Counter[str]
    notes: Notes


def copy_streams(catalog: Catalog, streams: Sequence[RowStream], copier: AttachmentCopier) -> None:
    """Copy every stream to its end, some at once. What the API says of one object is that stream's failure; anything else ends
    the run, after all streams have written their checkpoints.
    """
    workers = catalog.settings.max_concurrent
    pool = ThreadPoolExecutor(workers, thread_name_prefix="insert")
    streaming = ThreadPoolExecutor(min(STREAMS_AT_ONCE, workers), thread_name_prefix="stream")
    with pool, streaming:  # left from the back: the streams end before the pool that they use
        copying = Copying(catalog, copier, pool)
        futures = [streaming.submit(_copy_recorded, copying, stream) for stream in streams]
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    errors.sort(key=lambda error: isinstance(error, Interrupted))  # the cause before those that stopped because of it
    if errors:
        raise errors[0]


def _copy_recorded(copying: Copying, stream: RowStream) -> None:
    """One stream; an ApiError is recorded as its failure, any other error tells the other streams to stop."""
    copying.check()
    facts = {"resource": stream.kind.name, "project": stream.project, "source_id": stream.source_id}
    state, seen = open_stream(copying.catalog, stream)
    started = time.monotonic()
    try:
        if not state.done:
            state.error = ""
            _Stream(copying, stream, state, seen).run()
            log.info(
                "rows of %s %r: %s", stream.kind.name, stream.name, summary(state.counts), extra={"event": "rows_copied", **facts}
            )
    except ApiError as error:
        state.error = str(error)
        log.error("rows of %s %r: %s", stream.kind.name, stream.name, error, extra={"event": "stream_failed", **facts})
    except BaseException:
        copying.halt.set()
        raise
    finally:
        state.seconds += time.monotonic() - started
        seen.close()
        state.save()


def open_stream(catalog: Catalog, stream: RowStream) -> Tuple[StreamState, SeenRows]:
    """The stream's checkpoint and seen rows in the run directory."""
    path = catalog.run.stream_path(stream.kind.folder, stream.project, stream.source_id)
    header = {"kind": stream.kind.name, "project": stream.project, "name": stream.name}
    header.update(source_id=stream.source_id, dest_id=stream.dest_id)
    state = StreamState(path.with_name(path.name + "_state.json"), header)
    return state, SeenRows(seen_path(state))


def seen_path(state: StreamState) -> Any:
    return state.path.with_name(state.path.name.replace("_state.json", "_seen.sqlite3"))


def summary(counts: Dict[str, int]) -> str:
    """`120 rows: 118 created, 2 found`"""
    parts = [f"{counts[name]:,} {name}" for name in (CREATED, UPDATED, FOUND, DIFFERS, FAILED) if counts.get(name)]
    return f"{counts['fetched']:,} rows: {', '.join(parts)}" if parts else "no rows"


class _Stream:
    """One stream while it is being copied. Lives in one thread; only `_deliver` runs in the pool."""

    def __init__(self, copying: Copying, stream: RowStream, state: StreamState, seen: SeenRows) -> None:
        self.copying, self.catalog, self.stream, self.state, self.seen = copying, copying.catalog, stream, state, seen
        settings = copying.catalog.settings
        self.settings = settings.rows(stream.kind.name)
        windowed = stream.kind is ROW_KINDS["logs"]  # experiments are chosen as a whole; datasets have no window
        self.window = Window(settings.created_after, settings.created_before) if windowed else Window()
        self.notes = Notes(state.findings)
        self.outgoing = Outgoing(self.catalog, stream.kind)
        self.resuming = not seen.is_empty()
        self.in_flight: Deque[Batch] = deque()
        self.page_counts: Counter[str] = Counter()  # of the page whose batches are being committed, and its notes:
        self.page_notes = Notes()
        self.batches_since_save, self.saved_at, self.told_at = 0, time.monotonic(), time.monotonic()

    def run(self) -> None:
        """Copy to the end of the source. Whatever happens, what is in flight is finished and committed first."""
        if not self.stream.fresh and not self.state.compared:
            self._read_destination()
        with ReadAhead(self._pages(self.catalog.source, self.stream.source_id, self.state.pagination_key)) as ahead:
            try:
                for page in ahead:
                    self.copying.check()
                    self._send(page, ahead)
                while self.in_flight:
                    self._commit_first(ahead)
            except BaseException:
                self._drain(ahead)
                raise
            finally:
                self.state.findings = self.notes.records()
        self.state.done, self.state.waiting = True, len(self.seen.deferred())
        self.seen.forget_before()

    def _pages(self, api: Any, object_id: str, after_key: Optional[str] = None) -> Any:
        limit = self.settings.fetch_limit
        return pages(api, self.stream.kind.name, [object_id], limit=limit, after_key=after_key, window=self.window)

    def _read_destination(self) -> None:
        """Remember what the destination object holds already (digests only): such rows are found or differ, and are not
        written.
        """
        for page in self._pages(self.catalog.dest, self.stream.dest_id):
            self.copying.check()
            self.seen.record_before(
                (self.stream.source_id, row["id"], digest(insertable_row(self.stream.kind, row))) for row in page.rows
            )
        self.state.compared = True
        self.state.save()

    # -- sending

    def _send(self, page: Page, ahead: ReadAhead) -> None:
        """Cut a page into batches and hand them to the pool; commit what is finished meanwhile."""
        counts: Counter[str] = Counter(fetched=len(page.rows))
        notes = Notes()
        rows = self._rows_to_send(page, counts, notes)
        batches = list(batched(rows, self.settings.insert_batch_size, self.settings.max_batch_bytes)) or [()]
        for number, batch in enumerate(batches, 1):
            last = number == len(batches)
            result = self.copying.pool.submit(self._deliver, batch)
            self.in_flight.append(
                Batch(result, page if last else None, counts if last else Counter(), notes if last else Notes())
            )
            while self.in_flight and (
                self.in_flight[0].result.done() or len(self.in_flight) > 2 * self.catalog.settings.max_concurrent
            ):
                self._commit_first(ahead)

    def _rows_to_send(self, page: Page, counts: Counter[str], notes: Notes) -> List[EncodedRow]:
        """The rows of the page that are to be written, encoded. The outcomes of all others are counted."""
        object_id, ids = self.stream.source_id, [row["id"] for row in page.rows]
        recorded = self.seen.outcomes_of(object_id, ids) if self.resuming and self.settings.use_seen_db else {}
        before = self.seen.before(object_id, ids) if self.state.compared else {}
        sending = []
        for row in page.rows:
            seen_xact, outcome = recorded.get(row["id"], (-1, ""))
            encoded, out = self.outgoing.encoded(row, notes)
            if outcome and seen_xact >= encoded.xact:
                counts[outcome] += 1
            elif row["id"] in before and not outcome:
                counts[_compare(encoded, out, before[row["id"]], notes)] += 1
            else:
                sending.append(replace(encoded, outcome=UPDATED) if outcome else encoded)
        return sending

    def _deliver(self, rows: Sequence[EncodedRow]) -> Delivered:
        """Attachments first, then the rows. Runs in the pool."""
        not_copied: List[Tuple[str, str, str]] = []
        ready = []
        for row in rows:
            failures = self.copying.copier.copy_into([dict(one) for one in row.attachments]) if row.attachments else {}
            if failures:
                not_copied += [(row.id, key, reason) for key, reason in failures.items()]
                row = replace(row, body=keep_source_keys(row.body, failures, self.catalog.dest.org_id))
            ready.append(row)
        path = self.stream.kind.insert_path.format(id=self.stream.dest_id)
        return Delivered(ready, insert_rows(self.catalog, path, ready), not_copied)

    # -- committing

    def _commit_first(self, ahead: ReadAhead) -> None:
        """Take the oldest batch into the seen rows and, where it ends a page, the page into the checkpoint."""
        batch = self.in_flight[0]
        done = batch.result.result()
        self.in_flight.popleft()
        for row, (outcome, reason) in zip(done.rows, done.outcomes):
            self.page_counts[outcome] += 1
            if outcome == FAILED:
                self._record_refused(row, reason)
            else:
                self.page_counts["bytes"] += len(row.body)
        for row_id, key, reason in done.not_copied:
            self.page_notes.add("attachment_not_copied", row_id, detail=reason, ref=key)
        self._remember(done)
        self.batches_since_save += 1
        self.page_counts.update(batch.counts)
        self.page_notes.merge(batch.notes)
        if batch.closes is not None:
            self._close_page(batch.closes, ahead)

    def _remember(self, done: Delivered) -> None:
        object_id = self.stream.source_id
        outcomes = [outcome for outcome, _ in done.outcomes]
        seen = (
            [(object_id, row.id, row.xact, outcome) for row, outcome in zip(done.rows, outcomes)]
            if self.settings.use_seen_db
            else []
        )
        waiting = [
            (object_id, row.id, *entry)
            for row, outcome in zip(done.rows, outcomes)
            if outcome != FAILED
            for entry in row.deferred
        ]
        if seen or waiting:
            self.seen.record(seen, waiting)

    def _close_page(self, page: Page, ahead: ReadAhead) -> None:
        """All rows up to the end of the page have their outcome: move the checkpoint, write it from time to time."""
        for name, count in self.page_counts.items():
            self.state.counts[name] += count
        self.notes.merge(self.page_notes)
        self.page_counts, self.page_notes = Counter(), Notes()
        self.state.pagination_key = page.end_key
        ahead.release(page)
        now = time.monotonic()
        if self.batches_since_save >= self.catalog.settings.checkpoint_interval or now - self.saved_at > CHECKPOINT_S:
            self.state.findings = self.notes.records()
            self.state.save()
            self.batches_since_save, self.saved_at = 0, now
        if now - self.told_at > PROGRESS_S:
            self.told_at = now
            log.info(
                "rows of %s %r so far: %s",
                self.stream.kind.name,
                self.stream.name,
                summary(self.state.counts),
                extra={"event": "progress"},
            )

    def _drain(self, ahead: ReadAhead) -> None:
        """Finish what is in flight and commit its finished prefix; the error that led here is the one that is told."""
        while self.in_flight and self.in_flight[0].result.exception() is None:
            self._commit_first(ahead)
        for batch in self.in_flight:
            if not batch.result.cancel():
                batch.result.exception()  # waits

    def _record_refused(self, row: EncodedRow, reason: str) -> None:
        """One line in the file of refused rows: id, size and reason, not the content."""
        self.page_notes.add("row_refused", row.id, detail=reason[:80])
        path = self.state.path.with_name(self.state.path.name.replace("_state.json", "_failed.jsonl"))
        append_line(path, {"id": row.id, "bytes": len(row.body), "reason": reason})
        log.error("row %s of %r was refused: %s", row.id, self.stream.name, reason, extra={"event": "row_refused"})


def _compare(row: EncodedRow, out: Dict[str, Any], before: bytes, notes: Notes) -> str:
    """found or differs, for a row whose id the destination had before this run."""
    outcome = FOUND if digest(out) == before else DIFFERS
    if outcome == DIFFERS:
        notes.add("row_differs", row.id)
    return outcome


def insert_rows(catalog: Catalog, path: str, rows: Sequence[EncodedRow]) -> List[Tuple[str, str]]:
    """(outcome, reason) per row. A refused batch is halved down to the row that is at fault; the others go on.

    Safe to send twice: every row has its id and replaces itself.
    """
    if not rows:
        return []
    try:
        answer = catalog.dest.post(path, events_body(rows)).json
    except ApiError as error:
        if not error.refuses_content:
            raise
        if len(rows) == 1:
            return [(FAILED, f"{error.status}: {error.body}"[:MAX_REASON_CHARS])]
        first, second = halves(rows)
        return insert_rows(catalog, path, first) + insert_rows(catalog, path, second)
    accepted = answer.get("row_ids") if isinstance(answer, dict) else None
    if isinstance(accepted, list) and len(accepted) != len(rows):
        raise NetworkError(f"destination: {path} took {len(accepted)} of {len(rows)} rows without saying why")
    return [(row.outcome, "") for row in rows]


def finish_deferred_rows(catalog: Catalog, state: StreamState) -> None:
    """Add references of rows whose objects exist by now, by merging just these fields; a merge of the same value twice is the
    same.
    """
    seen = SeenRows(seen_path(state))
    try:
        ready: List[Tuple[Tuple[str, str, str], EncodedRow]] = []
        for object_id, row_id, path, targets, ref, origin in seen.deferred():
            new = catalog.resolve(tuple(targets.split(",")), ref)
            fields = deferred_merge(path, new, json.loads(origin) if origin else None) if new else None
            if fields:
                body = encode({"id": row_id, "_is_merge": True, **fields})
                ready.append(((object_id, row_id, path), EncodedRow(row_id, 0, body, outcome=UPDATED)))
        rows = catalog.settings.rows(state.header["kind"])
        insert_path = ROW_KINDS[state.header["kind"]].insert_path.format(id=state.header["dest_id"])
        keys = {id(row): key for key, row in ready}
        for batch in batched([row for _, row in ready], rows.insert_batch_size, rows.max_batch_bytes):
            outcomes = insert_rows(catalog, insert_path, batch)
            seen.forget_deferred(keys[id(row)] for row, (outcome, _) in zip(batch, outcomes) if outcome != FAILED)
        state.waiting = len(seen.deferred())
        state.save()
    finally:
        seen.close()


def note_deferred_rows(catalog: Catalog, state: StreamState, *, final: bool) -> None:
    """Tell of rows whose references still wait: `final` at the end of a whole run (they are unresolved), else of a phase."""
    notes = Notes(one for one in state.findings if one["kind"] != "waits")
    seen = SeenRows(seen_path(state))
    try:
        for _, row_id, path, targets, ref, _ in seen.deferred():
            if final:
                note_unresolved(notes, catalog, row_id, path, tuple(targets.split(",")), ref)
            else:
                notes.add("waits", row_id, path, targets.replace(",", " or "), ref)
    finally:
        seen.close()
    state.findings = notes.records()
    state.save()
