"""Decides which rows of a page are written.

In a first copy, digests of the destination's rows were read before. In a sync, only rows that
changed in the source are looked up in the destination.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from bt_migrate.api.transactions import xact_of, xact_of_key
from bt_migrate.config.values import UPDATE_POLICY
from bt_migrate.model.equality import DIGEST_BYTES, row_digest, text_digest
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.outcomes import DIFFERS, FOUND, UPDATED
from bt_migrate.model.references import Path, Resolve, value_at
from bt_migrate.model.resources import RowKind
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.batches import EncodedRow
from bt_migrate.rows.dest_rows import DestRows, Refusals, RowsById
from bt_migrate.rows.encode import RowEncoder
from bt_migrate.rows.facets import FACET_FIELDS
from bt_migrate.rows.rewrite import (
    VERSION_PLACES,
    comments_of,
    insertable_row,
)
from bt_migrate.rows.streams import PageEnd, StreamCopy
from bt_migrate.rows.versions_there import (
    with_same_version,
    without_late_facets,
    without_late_versions,
    without_lost_versions,
)
from bt_migrate.state.row_records import DeferredReference, DeliveredRow
from bt_migrate.state.sqlite import id_bytes, id_text

CHANGED_THERE = "changed in the destination"

Rows = Mapping[str, List[JsonObject]]  # source object -> rows, in order
Digests = Dict[str, bytes]  # row id -> digest and comments of the destination's row
# A row of the source, encoded, and its insertable fields.
NewRow = Tuple[JsonObject, EncodedRow, Dict[str, Any]]


class RowDecider:
    """Decides for the objects of one stream.

    Counts and findings are added to the end of the page.
    """

    def __init__(
        self,
        catalog: Catalog,
        kind: RowKind,
        members: Mapping[str, StreamCopy],
        resolve: Optional[Resolve] = None,
    ) -> None:
        self._catalog = catalog
        self._kind = kind
        self._members = members
        self._dest_rows = DestRows(catalog, kind, members)
        self._encoder = RowEncoder(catalog, kind, resolve)
        self._use_seen = catalog.settings.rows(kind.name).use_seen_db
        # object -> its rows in succession that an earlier process can have sent and that are not
        # there
        self._absent_rows: Dict[str, int] = dict.fromkeys(members, 0)
        self._overwrites = catalog.settings.on_conflict.get(kind.name) == UPDATE_POLICY

    # -- a first copy

    def of_copy(self, rows: Rows, end: PageEnd, *, plain: bool) -> List[EncodedRow]:
        """Returns the encoded rows that a first copy writes. Empties the lists of rows."""
        sending: List[EncodedRow] = []
        known: Dict[str, List[NewRow]] = {}
        for object_id, object_rows in rows.items():
            counts, notes = end.of(object_id)
            counts["fetched"] += len(object_rows)
            encoded_rows = self._encoded(object_id, object_rows, notes, plain=plain)
            if self._may_hold_rows(self._members[object_id]):
                known[object_id] = list(encoded_rows)
            else:
                sending += (encoded for _, encoded, _ in encoded_rows)
        rewritten = self._rewritten(known)
        for object_id, new_rows in known.items():
            sending += self._of_known_object(object_id, new_rows, rewritten[object_id], end)
        return sending

    def _may_hold_rows(self, member: StreamCopy) -> bool:
        """Whether some rows of the copy may be in the destination already."""
        return self._resumes(member) or member.state.copy.compared or member.doubtful

    def _resumes(self, member: StreamCopy) -> bool:
        return (self._use_seen or member.replays) and member.resuming

    def _recorded(self, object_id: str, ids: Sequence[str]) -> Dict[str, Tuple[int, str]]:
        member = self._members[object_id]
        return member.seen.outcomes_of(object_id, ids) if self._resumes(member) else {}

    def _of_known_object(
        self, object_id: str, new_rows: Sequence[NewRow], rewritten: Digests, end: PageEnd
    ) -> Iterator[EncodedRow]:
        """Yields what is written to an object some of whose rows are in the destination already.

        `rewritten`: digests of rows that may have been changed there since this tool wrote them.
        """
        member = self._members[object_id]
        counts, notes = end.of(object_id)
        ids = [row["id"] for row, _, _ in new_rows]
        recorded = self._recorded(object_id, ids)
        before = member.held_before(ids)
        held = {row_id: digest for row_id, digest in before.items() if row_id not in recorded}
        held = {**rewritten, **held}
        judged = self._judged_all(object_id, new_rows, held)
        # Pending references of found rows: an earlier run may have left them unresolved.
        waiting: List[DeferredReference] = []
        equal: List[Tuple[str, str, bytes]] = []
        for row, encoded, out in new_rows:
            verdict = judged.get(row["id"])
            if verdict != DIFFERS and row["id"] in rewritten and row["id"] not in before:
                # It holds what this tool sent, without a record. It is sent again to be recorded.
                verdict = None
            outcome = recorded.get(row["id"], (-1, ""))[1]
            if _is_delivered(member, encoded, recorded):
                counts[outcome] += 1
            elif verdict is None:
                yield encoded._replace(outcome=_outcome_again(member, outcome, encoded))
            elif verdict == UPDATED:
                member.state.copy.overwritten += 1
                yield encoded._replace(outcome=UPDATED, repairs=bool(encoded.attachments))
            else:
                counts[verdict] += 1
                if verdict == DIFFERS:
                    _note_difference(notes, row["id"], out, held[row["id"]])
                    member.note_kept(row["id"])
                else:
                    waiting.extend(encoded.deferred)
                    equal.append((object_id, row["id"], held[row["id"]][:DIGEST_BYTES]))
        _record_found(member, [], waiting, equal)

    def _rewritten(self, new_rows: Mapping[str, Sequence[NewRow]]) -> Dict[str, Digests]:
        """Returns source object -> row id -> digest of the destination's row, of rows that this
        tool may have written and did not write last.

        Only rows that would be sent are looked up, and only as far as an earlier process can have
        sent rows without recording them.
        """
        wanted: Dict[str, Dict[str, int]] = {}
        for object_id, rows in new_rows.items():
            if self.doubts(object_id):
                recorded = self._recorded(object_id, [row["id"] for row, _, _ in rows])
                wanted[object_id] = {
                    encoded.id: len(encoded.body)
                    for _, encoded, _ in rows
                    if not _is_delivered(self._members[object_id], encoded, recorded)
                }
        there, _ = self._dest_rows.look_up({key: sizes for key, sizes in wanted.items() if sizes})
        rewritten: Dict[str, Digests] = {object_id: {} for object_id in new_rows}
        for object_id, dest_rows in there.items():
            as_sent = self.as_sent(object_id, dest_rows)
            for row_id in wanted[object_id]:
                absent = 0 if row_id in dest_rows else self._absent_rows[object_id] + 1
                self._absent_rows[object_id] = absent
                if row_id in dest_rows and row_id not in as_sent:
                    rewritten[object_id][row_id] = remembered(self._kind, dest_rows[row_id])
        return rewritten

    def doubts(self, object_id: str) -> bool:
        """Whether the next rows of the object may have been sent by an earlier process.

        No row after so many absent ones can have arrived: see `note_in_flight`.
        """
        most_absent = self._catalog.run.record.in_flight[self._kind.name]
        return self._members[object_id].doubtful and self._absent_rows[object_id] <= most_absent

    def as_sent(self, object_id: str, there: RowsById) -> Set[str]:
        """Returns the ids of those rows that can only be as this tool wrote them.

        It wrote them last, or it inserted them and nobody wrote them since.
        """
        member = self._members[object_id]
        ours = self.ours(member, object_id, there)
        brought = self.brought(member, object_id, list(there))
        return {
            row_id
            for row_id, row in there.items()
            if ours[row_id] or (row_id in brought and is_as_inserted(row))
        }

    def _encoded(
        self, object_id: str, rows: List[JsonObject], notes: FindingCounts, *, plain: bool
    ) -> Iterator[NewRow]:
        """Encode the rows. A row that cannot be encoded fails alone.

        Each row is taken out of the list, so that its memory is used for the next ones.
        """
        rows.reverse()
        while rows:
            row = rows.pop()
            try:
                encoded, out = self._encoder.encoded(row, object_id, notes, plain=plain)
            except (RecursionError, ValueError, TypeError) as error:
                xact = xact_of(row.get("_xact_id"))
                trouble = f"cannot be encoded: {type(error).__name__}: {error}"
                encoded = EncodedRow(row["id"], xact, b"{}", object_id, trouble=trouble[:300])
                out = {}
            yield row, encoded, out

    def _judged_all(
        self, object_id: str, rows: Sequence[NewRow], held: Mapping[str, bytes]
    ) -> Dict[str, str]:
        """Returns row id -> found, updated or differs, of rows that existed before the copy.

        `held`: digests and comments of the destination's rows. A row that differs is looked up if
        an earlier run may have left it unfinished.
        """
        judged: Dict[str, str] = {}
        doubtful: Dict[str, Tuple[NewRow, Dict[Path, Optional[str]]]] = {}
        for new_row in rows:
            row, encoded, out = new_row
            if row["id"] not in held or encoded.trouble:
                continue
            judged[row["id"]] = _judge(encoded, out, held[row["id"]])
            if judged[row["id"]] == DIFFERS:
                late = self._encoder.late_references(row)
                pinned = any(value_at(row, place) is not None for place in VERSION_PLACES)
                if late or encoded.attachments or pinned or any(map(out.get, FACET_FIELDS)):
                    doubtful[row["id"]] = (new_row, late)
        if doubtful:
            sizes = {row_id: len(new_row[1].body) for row_id, (new_row, _) in doubtful.items()}
            there = self._dest_rows.look_up({object_id: sizes})[0][object_id]
            for row_id, existing in there.items():
                new_row, late = doubtful[row_id]
                judged[row_id] = self._judged_there(new_row, existing, late)
        return judged

    # -- a sync

    def of_round(self, rows: Rows, end: PageEnd, *, plain: bool) -> List[EncodedRow]:
        """Returns the encoded rows that a sync writes.

        These are the rows that changed in the source since their last delivery, without those that
        the destination has already and those that somebody changed there.
        """
        new_rows: Dict[str, List[NewRow]] = {}
        for object_id, object_rows in rows.items():
            notes = end.of(object_id)[1]
            undelivered = self._not_delivered(object_id, object_rows, end)
            if undelivered:
                encoded_rows = self._encoded(object_id, undelivered, notes, plain=plain)
                new_rows[object_id] = list(encoded_rows)
        there, refusals = self._dest_rows.look_up(
            {
                object_id: {row["id"]: len(encoded.body) for row, encoded, _ in object_rows}
                for object_id, object_rows in new_rows.items()
            }
        )
        judged: List[EncodedRow] = []
        for object_id, of_object in new_rows.items():
            known = _with_refusals(of_object, refusals)
            judged += self._of_synced_object(object_id, known, there[object_id], end)
        return judged

    def _not_delivered(
        self, object_id: str, rows: Sequence[JsonObject], end: PageEnd
    ) -> List[JsonObject]:
        """Returns the rows that changed after their recorded delivery; counts all others.

        The others count as found, or were sent earlier in this sync by a process that was killed.
        """
        member = self._members[object_id]
        member.touched = True
        counts = end.of(object_id)[0]
        counts["fetched"] += len(rows)
        ids = [row["id"] for row in rows]
        recorded = member.seen.outcomes_of(object_id, ids) if member.resuming else {}
        sent = member.seen.sending(object_id, list(recorded))
        undelivered = []
        for row in rows:
            xact, outcome = recorded.get(row["id"], (-1, ""))
            if xact < xact_of(row.get("_xact_id")):
                undelivered.append(row)
                continue
            _, round_number = sent.get(row["id"], (b"", 0))
            counts[outcome if round_number == member.state.sync.round else FOUND] += 1
        return undelivered

    def _of_synced_object(
        self, object_id: str, new_rows: Sequence[NewRow], there: RowsById, end: PageEnd
    ) -> Iterator[EncodedRow]:
        member = self._members[object_id]
        counts, notes = end.of(object_id)
        ours = self.ours(member, object_id, there)
        unedited = self._unedited(member, object_id, there)
        delivered: List[DeliveredRow] = []
        waiting: List[DeferredReference] = []
        equal: List[Tuple[str, str, bytes]] = []
        for row, encoded, out in new_rows:
            existing = there.get(row["id"])
            if encoded.trouble:
                yield encoded
                continue
            encoded = encoded._replace(digest=row_digest(out))
            if not existing:
                yield encoded
                continue
            written = ours[row["id"]]
            judged = self._judged_new(row, encoded, out, existing)
            if judged == FOUND:
                counts[FOUND] += 1
                delivered.append(DeliveredRow(object_id, row["id"], encoded.xact, FOUND, written))
                waiting.extend(encoded.deferred)
                if not written:
                    equal.append((object_id, row["id"], self._digest(existing)))
            elif judged == DIFFERS and not (written or row["id"] in unedited or self._overwrites):
                counts[DIFFERS] += 1
                there_now = remembered(self._kind, existing)
                _note_difference(notes, row["id"], out, there_now, CHANGED_THERE)
                member.note_kept(row["id"])
            else:
                member.state.copy.overwritten += not written
                repairs = judged == UPDATED and bool(encoded.attachments)
                # The row stays as it is there, and ours, if the destination refuses the new one.
                digest = encoded.digest + (self._digest(existing) if written else b"")
                yield encoded._replace(outcome=UPDATED, repairs=repairs, digest=digest)
        _record_found(member, delivered, waiting, equal)

    def _digest(self, dest_row: JsonObject) -> bytes:
        return row_digest(insertable_row(self._kind, dest_row))

    def _unedited(self, member: StreamCopy, object_id: str, there: RowsById) -> Set[str]:
        """Returns the ids of rows of others that nobody changed since the source had the same."""
        found = member.seen.found(object_id, list(there))
        # What was delivered since is ours, or somebody changed it.
        delivered = member.seen.dest_xacts(object_id, list(found))
        return {
            row_id
            for row_id, digest in found.items()
            if not delivered.get(row_id) and self._digest(there[row_id]) == digest
        }

    def ours(self, member: StreamCopy, object_id: str, there: RowsById) -> Dict[str, int]:
        """Returns row id -> transaction of the destination's row if this tool wrote it, else 0.

        A row is ours if its last transaction is one that the destination reported for our delivery,
        or if its content is what a sync last sent. Dates are not compared.
        """
        ids = list(there)
        sent = member.seen.sending(object_id, ids)
        written = self.written_by_us(member, object_id, there)
        for row_id, row in there.items():
            if not written[row_id] and row_id in sent:
                digest = self._digest(row)
                last, before = sent[row_id][0][:DIGEST_BYTES], sent[row_id][0][DIGEST_BYTES:]
                if digest in (last, before):
                    written[row_id] = xact_of(row.get("_xact_id"))
        return written

    def written_by_us(self, member: StreamCopy, object_id: str, there: RowsById) -> Dict[str, int]:
        """Like `ours`, but by transactions only."""
        delivered = member.seen.dest_xacts(object_id, list(there)) if member.resuming else {}
        transactions = set(member.state.copy.transactions)
        written = {}
        for row_id, row in there.items():
            xact = xact_of(row.get("_xact_id"))
            is_ours = xact in transactions or xact == delivered.get(row_id)
            written[row_id] = xact if is_ours else 0
        return written

    def brought(self, member: StreamCopy, object_id: str, ids: Sequence[str]) -> Set[str]:
        """Returns those of the ids that this tool inserted into the destination."""
        return set(ids) if member.stream.fresh else set(member.seen.inserted(object_id, ids))

    def _judged_new(
        self, row: JsonObject, encoded: EncodedRow, out: Dict[str, Any], existing: JsonObject
    ) -> str:
        judged = _judge(encoded, out, remembered(self._kind, existing))
        if judged != DIFFERS:
            return judged
        late = self._encoder.late_references(row)
        return self._judged_there((row, encoded, out), existing, late)

    def _judged_there(
        self, new_row: NewRow, existing: JsonObject, late: Dict[Path, Optional[str]]
    ) -> str:
        """Judges a row that differs from the one that is there by more than its comments."""
        row, encoded, out = new_row
        earlier = self._catalog.earlier
        existing = with_same_version(earlier.dest_versions, row, out, existing)
        unpinned = without_lost_versions(row, out, existing)
        judged = _judge(encoded, out, remembered(self._kind, unpinned))
        if judged != DIFFERS:
            return judged
        newer = with_same_version(earlier.unfinished_versions, row, out, unpinned)
        if newer is not unpinned and _judge(encoded, out, remembered(self._kind, newer)) != DIFFERS:
            return UPDATED
        bare = without_late_facets(out, unpinned)
        if bare and _judge(encoded, bare, remembered(self._kind, unpinned)) != DIFFERS:
            return UPDATED
        bare = without_late_versions(out, unpinned)
        if bare and _judge(encoded, bare, remembered(self._kind, unpinned)) != DIFFERS:
            return UPDATED
        unfinished = (late or encoded.attachments) and self._encoder.is_left_unfinished(
            encoded, out, unpinned, late
        )
        return UPDATED if unfinished else DIFFERS


def _is_delivered(
    member: StreamCopy, encoded: EncodedRow, recorded: Mapping[str, Tuple[int, str]]
) -> bool:
    """Whether the row is recorded as delivered, as it is in the source now."""
    seen_xact, outcome = recorded.get(encoded.id, (-1, ""))
    replayed = member.state.copy.replay and not member.replays
    # A comment that is newer than the earlier state need not change the row's transaction.
    may_lack_comments = replayed and encoded.comments
    return bool(outcome) and seen_xact >= encoded.xact and not may_lack_comments


def _outcome_again(member: StreamCopy, outcome: str, encoded: EncodedRow) -> str:
    """Returns the outcome of a row that is sent; `outcome` is that of its recorded delivery."""
    if not outcome:
        return encoded.outcome
    # A row of an earlier version was new to the destination.
    return outcome if member.state.copy.replay else UPDATED


def _with_refusals(rows: Sequence[NewRow], refusals: Refusals) -> List[NewRow]:
    """Returns the rows. One that cannot be looked up fails: somebody may have changed it there."""
    judged = []
    for row, encoded, out in rows:
        if row["id"] in refusals and not encoded.trouble:
            trouble = f"cannot be looked up in the destination: {refusals[row['id']]}"
            encoded = encoded._replace(trouble=trouble[:300])
        judged.append((row, encoded, out))
    return judged


# assumption: rows_keep_key_and_created
def is_as_inserted(row: JsonObject) -> bool:
    """Whether nobody has written to the row since it was inserted."""
    return xact_of(row.get("_xact_id")) == xact_of_key(row["_pagination_key"])


def remembered(kind: RowKind, row: JsonObject) -> bytes:
    """Returns the digest of a destination row, followed by the ids of its comments."""
    ids = [str(comment.get("id")) for comment in comments_of(row) if isinstance(comment, dict)]
    return row_digest(insertable_row(kind, row)) + id_bytes("\n".join(ids))


def _note_difference(
    notes: FindingCounts, row_id: str, out: JsonObject, remembered_row: bytes, detail: str = ""
) -> None:
    """Add a row that is left as it is to the findings, with a digest that identifies the
    difference between it and the destination's row.
    """
    texts = [row_id, row_digest(out).hex(), remembered_row.hex()]
    notes.add_acceptable("row_differs", row_id, text_digest(json.dumps(texts)), detail)


def _record_found(
    member: StreamCopy,
    delivered: Sequence[DeliveredRow],
    waiting: Sequence[DeferredReference],
    equal: Sequence[Tuple[str, str, bytes]],
) -> None:
    """Record rows that are not written. `equal`: see `SeenRows.record_found`."""
    if delivered or waiting:
        member.seen.record(delivered, waiting)
    if equal:
        member.seen.record_found(equal)


def _judge(row: EncodedRow, out: JsonObject, remembered_row: bytes) -> str:
    """Returns found, differs, or updated if only comments are missing."""
    if row_digest(out) != remembered_row[:DIGEST_BYTES]:
        return DIFFERS
    comments = id_text(remembered_row[DIGEST_BYTES:]).split("\n")
    whole = all(str(json.loads(comment)["id"]) in comments for comment in row.comments)
    return FOUND if whole else UPDATED
