"""Which rows of a page are written: what the destination has already is found, what it has otherwise differs or is brought over.

Of a copy the destination's rows were read before; in a round of a sync only those are looked up that the source wrote anew.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from bt_migrate.api.btql import MAX_LIMIT
from bt_migrate.api.transactions import xact_of, xact_seconds
from bt_migrate.config.values import UPDATE_POLICY
from bt_migrate.model.equality import DIGEST_BYTES, row_digest
from bt_migrate.model.outcomes import DIFFERS, FOUND, UPDATED
from bt_migrate.model.resources import RowKind
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.batches import EncodedRow
from bt_migrate.rows.encode import MAX_GUESSES, Resolve, RowEncoder, keep_source_keys
from bt_migrate.rows.read import rows_of_ids
from bt_migrate.rows.rewrite import comments_of, insertable_row
from bt_migrate.rows.streams import PageEnd, StreamCopy

IDS_LOOKED_UP = (
    500  # in one query: with room for rows that are there twice it answers no more than a page
)
BYTES_LOOKED_UP = 8 << 20
CLOCK_SLACK_S = 1  # between the clock that dates answers and the one that dates transactions
CHANGED_THERE = "changed in the destination"

Rows = Mapping[str, List[dict]]  # by source object, in order
News = Tuple[
    dict, EncodedRow, Dict[str, Any]
]  # a row of the source, and what it is for the destination


class RowDecider:
    """Chooses for the members of one stream. Counts and notes go into the page's end."""

    def __init__(
        self,
        catalog: Catalog,
        kind: RowKind,
        members: Mapping[str, StreamCopy],
        resolve: Optional[Resolve] = None,
    ) -> None:
        self._catalog, self._kind, self._members = catalog, kind, members
        self._outgoing = RowEncoder(catalog, kind, resolve)
        self._use_seen = catalog.settings.rows(kind.name).use_seen_db
        self._overwrites = catalog.settings.on_conflict.get(kind.name) == UPDATE_POLICY

    def of_copy(self, rows: Rows, end: PageEnd, *, plain: bool) -> List[EncodedRow]:
        """The rows that are to be written, encoded, while everything is copied."""
        sending: List[EncodedRow] = []
        for object_id, some in rows.items():
            member = self._members[object_id]
            counts, notes = end.of(object_id)
            counts["fetched"] += len(some)
            ids = [row["id"] for row in some]
            recorded = (
                member.seen.outcomes_of(object_id, ids)
                if self._use_seen and member.resuming
                else {}
            )
            before = member.seen.before(object_id, ids) if member.state.compared else {}
            waiting: List[
                tuple
            ] = []  # of rows that are found: an earlier run may not have come to what they refer to
            for row in some:
                seen_xact, outcome = recorded.get(row["id"], (-1, ""))
                encoded, out = self._outgoing.encoded(row, object_id, notes, plain=plain)
                if outcome and seen_xact >= encoded.xact:
                    counts[outcome] += 1
                elif row["id"] in before and not outcome:
                    judged = self._judged(row, encoded, out, before[row["id"]])
                    if judged == UPDATED:
                        member.state.overwritten += 1
                        sending.append(
                            encoded._replace(outcome=UPDATED, repairs=bool(encoded.attachments))
                        )
                        continue
                    counts[judged] += 1
                    if judged == DIFFERS:
                        notes.add("row_differs", row["id"])
                    else:
                        waiting.extend((object_id, row["id"], *entry) for entry in encoded.deferred)
                else:
                    sending.append(encoded._replace(outcome=UPDATED) if outcome else encoded)
            if waiting:
                member.seen.record([], waiting)
        return sending

    def of_round(self, rows: Rows, end: PageEnd, *, plain: bool) -> List[EncodedRow]:
        """The rows that are to be written, encoded: those that the source wrote since they were last delivered, unless the
        destination has them already or somebody changed them there.
        """
        news: Dict[str, List[News]] = {}
        for object_id, some in rows.items():
            notes = end.of(object_id)[1]
            found = self._not_delivered(object_id, some, end)
            if found:
                news[object_id] = [
                    (row, *self._outgoing.encoded(row, object_id, notes, plain=plain))
                    for row in found
                ]
        there = self._look_up(
            {
                object_id: {row["id"]: len(one.body) for row, one, _ in some}
                for object_id, some in news.items()
            }
        )
        return [
            row
            for object_id, some in news.items()
            for row in self._of_object(object_id, some, there[object_id], end)
        ]

    def _not_delivered(self, object_id: str, rows: Sequence[dict], end: PageEnd) -> List[dict]:
        """Those whose recorded delivery is older; the others are found, or were sent by a process of this round that died."""
        member = self._members[object_id]
        member.touched = True
        counts = end.of(object_id)[0]
        counts["fetched"] += len(rows)
        ids = [row["id"] for row in rows]
        recorded = member.seen.outcomes_of(object_id, ids) if member.resuming else {}
        sent = member.seen.sending(object_id, list(recorded))
        news = []
        for row in rows:
            xact, outcome = recorded.get(row["id"], (-1, ""))
            if xact < xact_of(row.get("_xact_id")):
                news.append(row)
            else:
                counts[
                    outcome if sent.get(row["id"], (b"", 0))[1] == member.state.round else FOUND
                ] += 1
        return news

    def _of_object(
        self, object_id: str, news: Sequence[News], there: Mapping[str, dict], end: PageEnd
    ) -> Iterator[EncodedRow]:
        member = self._members[object_id]
        counts, notes = end.of(object_id)
        ours = self.ours(member, object_id, there)
        found: Dict[
            int, List[Tuple[str, str, int, str]]
        ] = {}  # by the second at which this tool wrote them, 0 if it did not
        waiting: List[tuple] = []
        for row, encoded, out in news:
            encoded = encoded._replace(digest=row_digest(out))
            existing = there.get(row["id"])
            judged = (
                self._judged(row, encoded, out, remembered(self._kind, existing))
                if existing
                else ""
            )
            if judged == FOUND:
                counts[FOUND] += 1
                found.setdefault(ours[row["id"]], []).append(
                    (object_id, row["id"], encoded.xact, FOUND)
                )
                waiting.extend((object_id, row["id"], *entry) for entry in encoded.deferred)
            elif judged == DIFFERS and not ours[row["id"]] and not self._overwrites:
                counts[DIFFERS] += 1
                notes.add("row_differs", row["id"], detail=CHANGED_THERE)
            elif existing:
                if not ours[row["id"]]:
                    member.state.overwritten += 1
                yield encoded._replace(
                    outcome=UPDATED, repairs=judged == UPDATED and bool(encoded.attachments)
                )
            else:
                yield encoded
        for at, some in found.items():
            member.seen.record(some, at=at)
        if waiting:
            member.seen.record([], waiting)

    def ours(self, member: StreamCopy, object_id: str, there: Mapping[str, dict]) -> Dict[str, int]:
        """row id -> the second at which this tool wrote the row as it is there now; 0 where it did not, or where that is in doubt.

        Ours is what is there as it was last sent, and what nobody has written since the second of its delivery.
        """
        ids = list(there)
        at = member.seen.delivered_at(object_id, ids) if member.resuming else {}
        sent = member.seen.sending(object_id, ids)
        brought = self.brought(member, object_id, ids)
        found = {}
        for row_id, row in there.items():
            written = xact_seconds(xact_of(row.get("_xact_id")))
            until = at.get(row_id) or (member.state.delivered_until if row_id in brought else 0)
            same = row_id in sent and sent[row_id][0] == row_digest(insertable_row(self._kind, row))
            found[row_id] = written if same or written <= until + CLOCK_SLACK_S else 0
        return found

    def brought(self, member: StreamCopy, object_id: str, ids: Sequence[str]) -> Set[str]:
        """Those of the rows there that came with this tool."""
        return set(ids) if member.stream.fresh else set(member.seen.inserted(object_id, ids))

    def _judged(self, row: dict, encoded: EncodedRow, out: Dict[str, Any], before: bytes) -> str:
        judged = _judge(encoded, out, before, self._catalog.dest.org_id)
        late = self._outgoing.without_late(row, out) if judged == DIFFERS else ()
        return UPDATED if any(row_digest(one) == before[:DIGEST_BYTES] for one in late) else judged

    # -- the destination's rows

    def _look_up(self, wanted: Mapping[str, Mapping[str, int]]) -> Dict[str, Dict[str, dict]]:
        """source object -> row id -> the destination's row, of those that are there. `wanted` holds the bytes of the new rows: those
        there are about as large.
        """
        found: Dict[str, Dict[str, dict]] = {one: {} for one in wanted}
        alone = list(wanted)
        ids = list(dict.fromkeys(row_id for some in wanted.values() for row_id in some))
        size = sum(sum(some.values()) for some in wanted.values())
        if len(wanted) > 1 and len(ids) <= IDS_LOOKED_UP and size <= BYTES_LOOKED_UP:
            alone = self._look_up_together(wanted, ids, found)
        for object_id in alone:
            dest_id = self._members[object_id].stream.dest_id
            for some in portions(wanted[object_id]):
                found[object_id].update(
                    (row["id"], row)
                    for row in rows_of_ids(self._catalog.dest, self._kind.name, [dest_id], some)
                )
        return found

    def _look_up_together(
        self,
        wanted: Mapping[str, Mapping[str, int]],
        ids: List[str],
        found: Dict[str, Dict[str, dict]],
    ) -> List[str]:
        """Several objects with one query; gives back those that are to be asked alone. Ids are unique in an object only, so it may
        answer rows that nobody asked for, and be full of them.
        """
        dest, by_dest = (
            self._catalog.dest,
            {self._members[one].stream.dest_id: one for one in wanted},
        )
        rows = rows_of_ids(dest, self._kind.name, list(by_dest), ids)
        if len(rows) >= MAX_LIMIT:
            return list(wanted)
        for row in rows:
            object_id = by_dest[row[self._kind.id_field]]
            if row["id"] in wanted[object_id]:
                found[object_id][row["id"]] = row
        shown = {row[self._kind.id_field] for row in rows}
        dest.reads_groups = dest.reads_groups or len(shown) > 1
        return (
            []
            if dest.reads_groups
            else [one for dest_id, one in by_dest.items() if dest_id not in shown]
        )


def portions(sizes: Mapping[str, int]) -> Iterator[List[str]]:
    """Row ids that are looked up with one query: so many that their rows make no larger an answer than a page may be."""
    ids: List[str] = []
    size = 0
    for row_id, row_bytes in sizes.items():
        if ids and (len(ids) == IDS_LOOKED_UP or size + row_bytes > BYTES_LOOKED_UP):
            yield ids
            ids, size = [], 0
        ids.append(row_id)
        size += row_bytes
    if ids:
        yield ids


def remembered(kind: RowKind, row: dict) -> bytes:
    """The digest of a row of the destination, and the ids of its comments behind it."""
    ids = [str(comment.get("id")) for comment in comments_of(row) if isinstance(comment, dict)]
    return row_digest(insertable_row(kind, row)) + "\n".join(ids).encode("utf-8", "surrogatepass")


def _judge(row: EncodedRow, out: dict, before_row: bytes, dest_org_id: str) -> str:
    """found or differs, for a row whose id the destination has; updated where only comments are missing or attachments are still
    the source's.
    """
    before, comments = (
        before_row[:DIGEST_BYTES],
        before_row[DIGEST_BYTES:].decode("utf-8", "surrogatepass").split("\n"),
    )
    if row_digest(out) == before:
        return (
            FOUND
            if all(str(json.loads(one)["id"]) in comments for one in row.comments)
            else UPDATED
        )
    keys = sorted({one["key"] for one in row.attachments})
    for number in range(
        1, min(2 ** len(keys), MAX_GUESSES)
    ):  # any of them may have been left by an earlier run
        left = [key for bit, key in enumerate(keys) if number >> bit & 1]
        if row_digest(json.loads(keep_source_keys(row.body, left, dest_org_id))) == before:
            return UPDATED
    return DIFFERS
