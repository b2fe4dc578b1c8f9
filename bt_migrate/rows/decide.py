"""Decides which rows of a page are written.

In a first copy, digests of the destination's rows were read before. In a sync, only rows that
changed in the source are looked up in the destination.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from bt_migrate.api.transactions import xact_of
from bt_migrate.config.values import UPDATE_POLICY
from bt_migrate.errors import ApiError
from bt_migrate.model.equality import DIGEST_BYTES, row_digest, text_digest
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.outcomes import DIFFERS, FOUND, UPDATED
from bt_migrate.model.references import Path, Resolve, value_at
from bt_migrate.model.resources import RowKind
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.batches import EncodedRow
from bt_migrate.rows.encode import RowEncoder
from bt_migrate.rows.facets import FACET_FIELDS
from bt_migrate.rows.read import found_rows
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

# Row ids in one query. An id can occur in two objects, and both rows must fit into the answer.
IDS_LOOKED_UP = 500
# Bytes of the rows in one answer, estimated from the rows that are to be sent.
BYTES_LOOKED_UP = 8 << 20
CHANGED_THERE = "changed in the destination"

Rows = Mapping[str, List[JsonObject]]  # source object -> rows, in order
RowsById = Mapping[str, JsonObject]  # row id -> row
# source object -> row id -> the destination's row
DestRows = Dict[str, Dict[str, JsonObject]]
Refusals = Dict[str, ApiError]  # row id -> how the destination refuses it in a query
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
        self._encoder = RowEncoder(catalog, kind, resolve)
        self._use_seen = catalog.settings.rows(kind.name).use_seen_db
        self._overwrites = catalog.settings.on_conflict.get(kind.name) == UPDATE_POLICY

    # -- a first copy

    def of_copy(self, rows: Rows, end: PageEnd, *, plain: bool) -> List[EncodedRow]:
        """Returns the encoded rows that a first copy writes. Empties the lists of rows."""
        return [
            encoded
            for object_id, object_rows in rows.items()
            for encoded in self._of_copied_object(object_id, object_rows, end, plain=plain)
        ]

    def _of_copied_object(
        self, object_id: str, rows: List[JsonObject], end: PageEnd, *, plain: bool
    ) -> Iterator[EncodedRow]:
        member = self._members[object_id]
        counts, notes = end.of(object_id)
        counts["fetched"] += len(rows)
        if self._resumes(member) or member.state.copy.compared or member.rewritten:
            return self._of_known_object(object_id, rows, end, plain=plain)
        encoded_rows = self._encoded(object_id, rows, notes, plain=plain)
        return (encoded for _, encoded, _ in encoded_rows)

    def _resumes(self, member: StreamCopy) -> bool:
        return (self._use_seen or member.replays) and member.resuming

    def _of_known_object(
        self, object_id: str, rows: List[JsonObject], end: PageEnd, *, plain: bool
    ) -> Iterator[EncodedRow]:
        """Yields what is written to an object some of whose rows are in the destination already."""
        member = self._members[object_id]
        counts, notes = end.of(object_id)
        ids = [row["id"] for row in rows]
        recorded = member.seen.outcomes_of(object_id, ids) if self._resumes(member) else {}
        before = member.held_before(ids)
        encoded_rows = list(self._encoded(object_id, rows, notes, plain=plain))
        held = {row_id: digest for row_id, digest in before.items() if row_id not in recorded}
        judged = self._judged_all(object_id, encoded_rows, held)
        # Pending references of found rows: an earlier run may have left them unresolved.
        waiting: List[DeferredReference] = []
        for row, encoded, out in encoded_rows:
            seen_xact, outcome = recorded.get(row["id"], (-1, ""))
            verdict = judged.get(row["id"])
            replayed = member.state.copy.replay and not member.replays
            # A comment that is newer than the earlier state need not change the row's transaction.
            may_lack_comments = replayed and encoded.comments
            if outcome and seen_xact >= encoded.xact and not may_lack_comments:
                counts[outcome] += 1
            elif outcome:
                # A row of an earlier version was new to the destination.
                yield encoded._replace(outcome=outcome if member.state.copy.replay else UPDATED)
            elif verdict is None or (verdict == FOUND and _is_unrecorded(member, row["id"])):
                yield encoded
            elif verdict == UPDATED:
                member.state.copy.overwritten += 1
                yield encoded._replace(outcome=UPDATED, repairs=bool(encoded.attachments))
            else:
                counts[verdict] += 1
                if verdict == DIFFERS:
                    digest = _digest_of_difference(row["id"], out, held[row["id"]])
                    notes.add_acceptable("row_differs", row["id"], digest)
                else:
                    waiting.extend(encoded.deferred)
        if waiting:
            member.seen.record([], waiting)

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
            there = self._look_up({object_id: sizes})[0][object_id]
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
        there, refusals = self._look_up(
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
        delivered: List[DeliveredRow] = []
        waiting: List[DeferredReference] = []
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
            elif judged == DIFFERS and not written and not self._overwrites:
                counts[DIFFERS] += 1
                there_now = remembered(self._kind, existing)
                digest = _digest_of_difference(row["id"], out, there_now)
                notes.add_acceptable("row_differs", row["id"], digest, CHANGED_THERE)
            else:
                if not written:
                    member.state.copy.overwritten += 1
                repairs = judged == UPDATED and bool(encoded.attachments)
                # The row stays as it is there, and ours, if the destination refuses the new one.
                before = row_digest(insertable_row(self._kind, existing)) if written else b""
                digest = encoded.digest + before
                yield encoded._replace(outcome=UPDATED, repairs=repairs, digest=digest)
        if delivered or waiting:
            member.seen.record(delivered, waiting)

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
                digest = row_digest(insertable_row(self._kind, row))
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

    # -- the destination's rows

    def _look_up(self, wanted: Mapping[str, Mapping[str, int]]) -> Tuple[DestRows, Refusals]:
        """Returns the rows that exist in the destination, and the ids that it refuses in a query.

        `wanted`: source object -> row id -> bytes of the new row, as an estimate for the existing
        row.
        """
        dest_rows: DestRows = {object_id: {} for object_id in wanted}
        refusals: Refusals = {}
        alone = list(wanted)
        ids = list(dict.fromkeys(row_id for sizes in wanted.values() for row_id in sizes))
        size = sum(sum(sizes.values()) for sizes in wanted.values())
        if len(wanted) > 1 and len(ids) <= IDS_LOOKED_UP and size <= BYTES_LOOKED_UP:
            alone = self._look_up_together(wanted, ids, dest_rows, refusals)
        for object_id in alone:
            dest_id = self._members[object_id].stream.dest_id
            for portion in portions(wanted[object_id]):
                dest = self._catalog.dest
                rows, refused = found_rows(dest, self._kind.name, [dest_id], portion)
                dest_rows[object_id].update((row["id"], row) for row in rows)
                refusals.update(refused)
        return dest_rows, refusals

    def _look_up_together(
        self,
        wanted: Mapping[str, Mapping[str, int]],
        ids: List[str],
        dest_rows: DestRows,
        refusals: Refusals,
    ) -> List[str]:
        """Look up rows of several objects with one query; returns the objects to query alone.

        Ids are unique only inside an object, so the answer may hold rows of other objects, and
        reach its limit, or that of the server, because of them.
        """
        dest = self._catalog.dest
        by_dest = {self._members[object_id].stream.dest_id: object_id for object_id in wanted}
        rows, refused = found_rows(dest, self._kind.name, list(by_dest), ids)
        refusals.update(refused)
        if len(rows) >= dest.capabilities.query_limit.most:
            return list(wanted)
        for row in rows:
            object_id = by_dest[row[self._kind.id_field]]
            if row["id"] in wanted[object_id]:
                dest_rows[object_id][row["id"]] = row
        shown = {row[self._kind.id_field] for row in rows}
        dest.capabilities.reads_groups = dest.capabilities.reads_groups or len(shown) > 1
        if not dest.capabilities.reads_groups:
            return [object_id for dest_id, object_id in by_dest.items() if dest_id not in shown]
        shown_ids = {row["id"] for row in rows}
        return [
            object_id
            for object_id, sizes in wanted.items()
            if not shown_ids.isdisjoint(sizes.keys() - dest_rows[object_id].keys())
        ]


def _is_unrecorded(member: StreamCopy, row_id: str) -> bool:
    """Whether killed processes sent the row twice. It is sent again to be recorded."""
    return member.stream.fresh and row_id in member.rewritten


def _with_refusals(rows: Sequence[NewRow], refusals: Refusals) -> List[NewRow]:
    """Returns the rows. One that cannot be looked up fails: somebody may have changed it there."""
    judged = []
    for row, encoded, out in rows:
        if row["id"] in refusals and not encoded.trouble:
            trouble = f"cannot be looked up in the destination: {refusals[row['id']]}"
            encoded = encoded._replace(trouble=trouble[:300])
        judged.append((row, encoded, out))
    return judged


def portions(sizes: Mapping[str, int]) -> Iterator[List[str]]:
    """Yields row ids for one query each.

    At most IDS_LOOKED_UP ids, of rows with at most BYTES_LOOKED_UP bytes.
    """
    ids: List[str] = []
    size = 0
    for row_id, row_bytes in sizes.items():
        if ids and (len(ids) == IDS_LOOKED_UP or size + row_bytes > BYTES_LOOKED_UP):
            yield ids
            ids = []
            size = 0
        ids.append(row_id)
        size += row_bytes
    if ids:
        yield ids


def remembered(kind: RowKind, row: JsonObject) -> bytes:
    """Returns the digest of a destination row, followed by the ids of its comments."""
    ids = [str(comment.get("id")) for comment in comments_of(row) if isinstance(comment, dict)]
    return row_digest(insertable_row(kind, row)) + id_bytes("\n".join(ids))


def _digest_of_difference(row_id: str, out: JsonObject, remembered_row: bytes) -> bytes:
    """Returns a digest that identifies the difference between a row and the destination's row."""
    return text_digest(json.dumps([row_id, row_digest(out).hex(), remembered_row.hex()]))


def _judge(row: EncodedRow, out: JsonObject, remembered_row: bytes) -> str:
    """Returns found, differs, or updated if only comments are missing."""
    if row_digest(out) != remembered_row[:DIGEST_BYTES]:
        return DIFFERS
    comments = id_text(remembered_row[DIGEST_BYTES:]).split("\n")
    whole = all(str(json.loads(comment)["id"]) in comments for comment in row.comments)
    return FOUND if whole else UPDATED
