"""Commit what the destination accepted: record rows as delivered, then advance the checkpoint.

Batches are committed in the order in which their rows were read, so a checkpoint never covers a row
that did not arrive. This module does not know how rows are sent.
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from bt_migrate.config.settings import Settings
from bt_migrate.model.equality import row_digest, text_digest
from bt_migrate.model.findings import FAILURE, KINDS
from bt_migrate.model.notes import FAILED_BEFORE, FindingCounts
from bt_migrate.model.outcomes import CREATED, DIFFERS, FAILED, FOUND, UPDATED
from bt_migrate.model.resources import RowKind
from bt_migrate.report.display import plural
from bt_migrate.rows.batches import EncodedRow
from bt_migrate.rows.insert import Delivered
from bt_migrate.rows.slices import SliceReader
from bt_migrate.rows.streams import PageEnd, StreamCopy, save_members
from bt_migrate.state.files import append_line
from bt_migrate.state.row_records import DeferredReference
from bt_migrate.state.seen_rows import NOT_WHOLE

log = logging.getLogger("bt_migrate.rows")

# A checkpoint is written at least this often, however large MIGRATION_CHECKPOINT_INTERVAL is; for a
# group of objects five times less often.
CHECKPOINT_S = 1.0
GROUP_CHECKPOINT_S = 5.0
# between two progress lines of one stream
PROGRESS_S = 10.0
REASON_CHARS = 80  # characters of the refusal in a finding
# outcomes of rows that were sent
WRITTEN = (CREATED, UPDATED)
# the round of the copy of everything, for `SeenRows.record_sending`
IN_COPY = 0


@dataclass
class AcceptedRows:
    """What is to be recorded of one object's rows in a batch."""

    rows: List[Tuple[str, str, int, str, int]] = field(default_factory=list)  # see SeenRows.record
    # pending references of these rows
    waiting: List[DeferredReference] = field(default_factory=list)
    # what was sent, where the destination names no transaction; see SeenRows.record_sending
    sent: List[Tuple[str, str, bytes, int]] = field(default_factory=list)
    # destination transactions of rows that are not recorded because they are incomplete
    other_xacts: Set[int] = field(default_factory=set)


def counts_line(counts: Mapping[str, int]) -> str:
    """`120 rows: 118 created, 2 found`"""
    parts = [
        f"{counts[name]:,} {name}"
        for name in (CREATED, UPDATED, FOUND, DIFFERS, FAILED)
        if counts.get(name)
    ]
    return f"{plural(counts['fetched'], 'row')}: {', '.join(parts)}" if parts else "no rows"


def loss_digest(*parts: Any) -> bytes:
    """Returns a digest that identifies what did not arrive."""
    return text_digest(json.dumps(parts))


class BatchCommitter:
    """Commits the batches of one reader in order. Used by one thread.

    `slice_number`: the key range whose position advances with the pages. `slice_reader`: the end of
    a slice that advances instead.
    """

    def __init__(
        self,
        settings: Settings,
        kind: RowKind,
        members: Mapping[str, StreamCopy],
        *,
        slice_number: int = 0,
        slice_reader: Optional[SliceReader] = None,
    ) -> None:
        self._settings = settings
        self._members = members
        self._kind = kind
        self._slice_number = slice_number
        self._slice_reader = slice_reader
        self._is_round = any(member.above is not None for member in members.values())
        # A sync records all rows for the next sync; a replay records all for the next version.
        self._replays = any(member.replays for member in members.values())
        recorded = any(member.stream.recorded or member.confirms for member in members.values())
        self._records_all = self._is_round or self._replays or recorded
        self._records_rows = settings.rows(kind.name).use_seen_db or self._records_all
        # counts and findings of the batches of the current page
        self._page = PageEnd("")
        # delivered rows of a copy's last page, recorded only if that page is not finished
        self._unrecorded: List[Dict[str, AcceptedRows]] = []
        self._batches_since_save = 0
        self._saved_at = time.monotonic()
        self._logged_at = time.monotonic()

    def commit(self, done: Delivered, end: Optional[PageEnd], *, last_page: bool) -> None:
        """Record a delivered batch; if it ends a page (`end`), move the checkpoints past that page.

        They are written to disk only if that is due, see `_save_if_due`: a crash before that reads
        the page again and finds its rows recorded.
        """
        for object_id, error in done.errors.items():
            self._members[object_id].error = error
        accepted = self._count(done)
        self._record_failed(done)
        self._add_findings(done)
        # The last page of a copy is not recorded row by row: the checkpoint that follows says
        # "done".
        unrecorded = last_page and not self._records_all
        self._record(accepted, only_waiting=unrecorded)
        self._note_transactions(done, accepted, stored=self._records_rows and not unrecorded)
        if unrecorded:
            self._unrecorded.append(accepted)
        self._batches_since_save += 1
        if end is not None:
            self._close_page(end)

    def record_unfinished(self) -> None:
        """Record what was delivered of the last page, which was not finished."""
        for accepted in self._unrecorded:
            self._record(accepted, only_waiting=False)

    # -- one batch

    def _count(self, done: Delivered) -> Dict[str, AcceptedRows]:
        """Count the outcomes of a batch. Returns what is to be recorded of it, by source object.

        A row that lacks an attachment or a comment is not recorded, so a resumed run handles it and
        reports it again.
        """
        accepted: Dict[str, AcceptedRows] = defaultdict(AcceptedRows)
        incomplete = {(object_id, row_id) for object_id, row_id, *_ in done.not_copied}
        incomplete |= {(object_id, row_id) for object_id, row_id, *_ in done.refused_comments}
        for row, (outcome, reason), dest_xact in zip(done.rows, done.outcomes, done.xacts):
            object_id = row.object_id
            of_object = accepted[object_id]
            if not outcome:
                of_object.other_xacts.add(dest_xact)
                continue
            counts, notes = self._page.of(object_id)
            counts[outcome] += 1
            if outcome == FAILED:
                of_object.other_xacts.add(dest_xact)
                self._note_refused(row, reason, notes)
                continue
            counts["bytes"] += len(row.body)
            if incomplete and (object_id, row.id) in incomplete:
                of_object.other_xacts.add(dest_xact)
                if self._replays:
                    of_object.rows.append((object_id, row.id, NOT_WHOLE, outcome, dest_xact))
                continue
            of_object.rows.append((object_id, row.id, row.xact, outcome, dest_xact))
            if not dest_xact and outcome in WRITTEN and not self._is_round:
                digest = row_digest(json.loads(row.body))
                of_object.sent.append((row.object_id, row.id, digest, IN_COPY))
            of_object.waiting.extend(row.deferred)
        return accepted

    def _add_findings(self, done: Delivered) -> None:
        for object_id, row_id, path, key, why in done.not_copied:
            notes = self._page.of(object_id)[1]
            if KINDS[why.kind].severity == FAILURE and self._failed_before(object_id, row_id):
                notes.add("row_refused", row_id, detail=FAILED_BEFORE)
                continue
            place = notes.add(why.kind, row_id, path, str(why), key)
            if KINDS[why.kind].severity == FAILURE:
                notes.make_acceptable(place, loss_digest(row_id, key))
        for object_id, row_id, reason in done.refused_comments:
            notes = self._page.of(object_id)[1]
            if self._failed_before(object_id, row_id):
                notes.add("row_refused", row_id, detail=FAILED_BEFORE)
                continue
            digest = loss_digest(row_id)
            notes.add_acceptable("comment_refused", row_id, digest, reason[:REASON_CHARS])

    def _failed_before(self, object_id: str, row_id: str) -> bool:
        """Whether the row is reported together with all that failed in earlier syncs."""
        member = self._members[object_id]
        return member.failed_as_one and row_id in member.tried_again

    def _record_failed(self, done: Delivered) -> None:
        """Record rows that did not arrive completely; each sync tries them again."""
        failed: Set[Tuple[str, str]] = {
            (row.object_id, row.id)
            for row, (outcome, _) in zip(done.rows, done.outcomes)
            if outcome == FAILED
        }
        failed |= {(object_id, row_id) for object_id, row_id, *_ in done.refused_comments}
        failed |= {
            (object_id, row_id)
            for object_id, row_id, *_, why in done.not_copied
            if KINDS[why.kind].severity == FAILURE
        }
        for object_id in {object_id for object_id, _ in failed}:
            member = self._members[object_id]
            round_ = member.state.sync.round
            member.seen.record_failed((*place, round_) for place in failed if place[0] == object_id)

    def _record(self, accepted: Dict[str, AcceptedRows], *, only_waiting: bool) -> None:
        """Record what was delivered, object by object."""
        for object_id, part in accepted.items():
            if part.sent:
                self._members[object_id].seen.record_sending(part.sent)
            if part.rows and ((self._records_rows and not only_waiting) or part.waiting):
                rows = part.rows if self._records_rows else []
                member = self._members[object_id]
                member.seen.record(rows, part.waiting, confirm=member.confirms)

    def _note_transactions(
        self, done: Delivered, accepted: Dict[str, AcceptedRows], *, stored: bool
    ) -> None:
        """Note the destination's transactions in the checkpoint, unless the row store has them."""
        for object_id, part in accepted.items():
            xacts = set(part.other_xacts)
            if not stored:
                xacts.update(dest_xact for *_, dest_xact in part.rows)
            xacts |= done.comment_xacts.get(object_id, set())
            state = self._members[object_id].state
            with state.lock:
                state.copy.note_transactions(xacts)

    def _note_refused(self, row: EncodedRow, reason: str, notes: FindingCounts) -> None:
        """Write a line to the file of refused rows: id, size and reason, without content."""
        before = self._failed_before(row.object_id, row.id)
        digest = loss_digest(row.id, row.xact)
        detail = FAILED_BEFORE if before else reason[:REASON_CHARS]
        notes.add_acceptable("row_refused", row.id, digest, detail)
        member = self._members[row.object_id]
        if row.id in member.tried_again:  # it was written before
            return
        append_line(
            member.state.refused_path,
            {"id": row.id, "bytes": len(row.body), "reason": reason},
        )
        log.error(
            "row %s of %r was refused: %s",
            row.id,
            member.stream.name,
            reason,
            extra={"event": "row_refused"},
        )

    # -- one page

    def _close_page(self, end: PageEnd) -> None:
        """Advance the positions of the members: all rows up to the page's end have an outcome."""
        for object_id, member in self._members.items():
            if not member.error:
                with member.state.lock:
                    self._add_page(member, object_id, end)
        self._page = PageEnd("")
        self._unrecorded.clear()
        self._save_if_due()
        self._log_if_due()

    def _add_page(self, member: StreamCopy, object_id: str, end: PageEnd) -> None:
        state = member.state
        notes = FindingCounts(state.findings)
        read = end.counts[object_id]["fetched"] if object_id in end.counts else 0
        if self._is_round:
            state.sync.read_new += read
        else:
            state.copy.read += read
        state.sync.newest = max(state.sync.newest, end.newest)
        for part in (self._page, end):
            for name, count in part.counts.get(object_id, {}).items():
                state.counts[name] += count
            if object_id in part.notes:
                notes.merge(part.notes[object_id])
        state.findings = notes.records()
        if self._slice_reader is not None:
            self._slice_reader.note_written(end.end_key)
        else:
            key_range = state.slices[self._slice_number]
            key_range.after = max(key_range.after or "", end.end_key) or None

    def _save_if_due(self) -> None:
        due_s = CHECKPOINT_S if len(self._members) == 1 else GROUP_CHECKPOINT_S
        due = time.monotonic() - self._saved_at > due_s
        if due or self._batches_since_save >= self._settings.checkpoint_interval:
            save_members(self._members.values())
            self._batches_since_save = 0
            self._saved_at = time.monotonic()

    def _log_if_due(self) -> None:
        if time.monotonic() - self._logged_at <= PROGRESS_S:
            return
        self._logged_at = time.monotonic()
        for member in self._members.values():
            if member.touched:
                log.info(
                    "rows of %s %r so far: %s",
                    self._kind.name,
                    member.stream.name,
                    counts_line(member.state.counts),
                    extra={"event": "progress"},
                )
