"""Delivers encoded rows: first attachments and spilled fields, then the rows, then comments.

A request that is refused for its content is halved until the refused row is found. One that is
refused for an object fails only that object. Everything here is safe to send twice: rows, comments
and attachments have ids and replace themselves.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Dict, List, Mapping, Sequence, Set, Tuple

from bt_migrate.api.client import Api
from bt_migrate.api.json_codec import encode
from bt_migrate.attachments.copy import AttachmentCopier, NotCopied
from bt_migrate.errors import AnswerError, ApiError, Route
from bt_migrate.model.outcomes import FAILED, FOUND
from bt_migrate.model.resources import RowKind
from bt_migrate.report.display import size_text
from bt_migrate.rows.batches import EncodedRow, batched, halves
from bt_migrate.rows.encode import attachment_paths, keep_source_keys
from bt_migrate.rows.send import LOGS3, NO_SUCH_ENDPOINT, RowSender

log = logging.getLogger("bt_migrate.rows")

# characters of an error message that are kept with a row
MAX_REASON_CHARS = 300
NOT_CONFIRMED = "the destination answered 200 but did not confirm it"

Outcome = Tuple[str, str]  # (outcome, reason)
Placed = Tuple[int, EncodedRow]  # (position in the batch, row)


@dataclass
class Delivered:
    """The result of one batch."""

    rows: List[EncodedRow] = field(default_factory=list)
    # One for each row, in the same order; ("", "") for rows of an object in `errors`.
    outcomes: List[Outcome] = field(default_factory=list)
    # The destination's transaction in which each row was written; 0 where it is not known.
    xacts: List[int] = field(default_factory=list)
    # Source object id -> the destination transactions of its comments.
    comment_xacts: Dict[str, Set[int]] = field(default_factory=dict)
    # Attachments that could not be copied: (object, row id, path, key, reason).
    not_copied: List[Tuple[str, str, str, str, NotCopied]] = field(default_factory=list)
    # (object, row id, reason)
    refused_comments: List[Tuple[str, str, str]] = field(default_factory=list)
    # Source object id -> why the API refused the object.
    errors: Dict[str, ApiError] = field(default_factory=dict)


@dataclass(frozen=True)
class Inserter:
    """Writes rows of one kind. Safe for many threads.

    `dest_ids`: source object id -> destination object id.
    """

    dest: Api
    copier: AttachmentCopier
    kind: RowKind
    dest_ids: Mapping[str, str]
    max_batch_bytes: int
    max_row_bytes: int

    @property
    def _sender(self) -> RowSender:
        return RowSender(self.dest, self.kind, self.dest_ids, self.max_batch_bytes)

    def deliver(self, batch: Sequence[EncodedRow]) -> Delivered:
        """Deliver the batch with its attachments and comments.

        Raises an error that ends the run; an error that fails one object is returned in `errors`.
        """
        done = Delivered()
        for row in batch:
            try:
                has_bytes = row.attachments or row.spills
                done.rows.append(self._with_bytes(row, done) if has_bytes else row)
            except NotCopied as error:
                reason = f"its oversize field cannot be uploaded: {error}"
                done.rows.append(row._replace(trouble=reason[:MAX_REASON_CHARS]))
        done.xacts = [0] * len(done.rows)
        done.outcomes = [_outcome_unsent(row) for row in done.rows]
        self._insert(
            [
                (position, row)
                for position, row in enumerate(done.rows)
                if not done.outcomes[position][0]
            ],
            done,
        )
        self._insert_comments(
            [
                row
                for row, (outcome, _) in zip(done.rows, done.outcomes)
                if row.comments and outcome not in ("", FAILED, FOUND)
            ],
            done,
        )
        return done

    # -- attachments

    def _with_bytes(self, row: EncodedRow, done: Delivered) -> EncodedRow:
        """Copy the attachments of the row. If one fails, the row keeps the source's reference."""
        for key, filename, content in row.spills:
            self.copier.upload(key, filename, "application/json", content)
        failures = self.copier.copy_into([dict(reference) for reference in row.attachments])
        if not failures:
            return row._replace(attachments=(), spills=())
        places = attachment_paths(row.body, failures, self.dest.org_id)
        done.not_copied += [
            (row.object_id, row.id, places.get(key, ""), key, why) for key, why in failures.items()
        ]
        if row.repairs and len(failures) == len({item["key"] for item in row.attachments}):
            return row
        body = keep_source_keys(row.body, failures, self.dest.org_id)
        return row._replace(body=body, attachments=(), spills=())

    # -- rows

    def _insert(self, rows: List[Placed], done: Delivered) -> None:
        """Insert the rows; outcomes and errors are added to `done`."""
        if not rows:
            return
        if len(rows) == 1 and self._sender.is_large(rows[0][1]):
            self._insert_large(rows[0], done)
            return
        sizes = self.dest.capabilities.insert_sizes
        size = _size(rows)
        if len(rows) > 1 and not sizes.fits(size):
            for half in halves(rows):
                self._insert(list(half), done)
            return
        try:
            delivery = self._sender.send([row for _, row in rows])
        except ApiError as error:
            self._insert_refused(rows, error, done)
            return
        sizes.accepted = max(sizes.accepted, size)
        for (position, row), confirmed in zip(rows, delivery.confirmed):
            done.outcomes[position] = (row.outcome, "") if confirmed else (FAILED, NOT_CONFIRMED)
            done.xacts[position] = delivery.xact

    def _insert_refused(self, rows: List[Placed], error: ApiError, done: Delivered) -> None:
        """Send a refused request in smaller parts until the object or row at fault is alone."""
        if error.status == 413 and len(rows) > 1:
            self._note_too_large(_size(rows))
        objects = list(dict.fromkeys([row.object_id for _, row in rows]))
        if len(objects) > 1:
            for object_id in objects:
                self._insert([pair for pair in rows if pair[1].object_id == object_id], done)
        elif not error.refuses_content:
            done.errors[objects[0]] = error
        elif len(rows) > 1:
            for half in halves(rows):
                self._insert(list(half), done)
        elif error.status == 413 and self.dest.logs3_max_bytes():
            # The server accepts less than it announced; an upload can be larger.
            self._insert_large(rows[0], done, upload=True)
        else:
            position, row = rows[0]
            # Of a row above the limit, all fields that can be attachments are.
            is_whole = error.status == 413 and len(row.body) <= self.max_row_bytes
            hint = ", a lower MIGRATION_MAX_ROW_BYTES helps" if is_whole else ""
            done.outcomes[position] = (FAILED, _reason(error, f"{len(row.body):,} bytes{hint}"))

    def _note_too_large(self, size: int) -> None:
        """Remember the size of a refused request, so that later ones are smaller."""
        sizes = self.dest.capabilities.insert_sizes
        if not sizes.refused:
            log.warning(
                "destination: an insert of %s is too large for it (413); sending smaller ones",
                size_text(size),
                extra={"event": "too_large", "bytes": size},
            )
        sizes.refused = min(size, sizes.refused or size)

    def _insert_large(self, placed: Placed, done: Delivered, *, upload: bool = False) -> None:
        """Insert a row that is larger than a batch. An error fails only this row."""
        position, row = placed
        send = self._sender.send_upload if upload else self._sender.send_large
        try:
            delivery = send(row)
        except ApiError as error:
            if error.status == 413 and not upload:
                self._insert_large(placed, done, upload=True)
            elif error.refuses_content or isinstance(error, AnswerError):
                done.outcomes[position] = (FAILED, _reason(error, f"{len(row.body):,} bytes"))
            else:
                done.errors[row.object_id] = error
            return
        done.outcomes[position] = (row.outcome, "")
        done.xacts[position] = delivery.xact

    # -- comments

    def _insert_comments(self, rows: Sequence[EncodedRow], done: Delivered) -> None:
        """Write the comments of the rows as separate records, as the SDKs do."""
        comments = [
            EncodedRow(row.id, 0, comment, row.object_id)
            for row in rows
            for comment in row.comments
        ]
        for batch in batched(comments, len(comments) or 1, self.max_batch_bytes, distinct=False):
            self._send_comments(batch, done)

    def _send_comments(self, batch: Sequence[EncodedRow], done: Delivered) -> None:
        """Send the comments, halving a refused request until the refused comment is found."""
        try:
            delivery = self._sender.send_comments(batch)
        except ApiError as error:
            lacks_route = error.status in NO_SUCH_ENDPOINT
            if not (error.refuses_content or lacks_route or isinstance(error, AnswerError)):
                raise
            if len(batch) > 1 and error.refuses_content:
                for half in halves(batch):
                    self._send_comments(half, done)
                return
            done.refused_comments += [
                (comment.object_id, comment.id, _reason(error)) for comment in batch
            ]
            return
        for comment, confirmed in zip(batch, delivery.confirmed):
            done.comment_xacts.setdefault(comment.object_id, set()).add(delivery.xact)
            if not confirmed:
                done.refused_comments.append((comment.object_id, comment.id, NOT_CONFIRMED))


def _size(rows: Sequence[Placed]) -> int:
    return sum(len(row.body) for _, row in rows)


def _outcome_unsent(row: EncodedRow) -> Outcome:
    """Returns the outcome of a row that is not sent; ("", "") for a row to send."""
    if row.trouble:
        return FAILED, row.trouble
    if row.repairs and row.attachments:
        # None of its missing attachments could be copied.
        return FOUND, ""
    return "", ""


def _reason(error: ApiError, facts: str = "") -> str:
    facts = f" ({facts})" if facts else ""
    return f"{error.status}: {error.body}"[: MAX_REASON_CHARS - len(facts)] + facts


# assumption: rows_are_deleted
def delete_rows(dest: Api, kind: RowKind, dest_id: str, row_ids: Sequence[str]) -> int:
    """Delete rows of one object. Safe to send twice: an absent id is not an error.

    Returns the destination's transaction, 0 if the answer names none. Raises ApiError if the
    destination refuses, or if its answer does not name all of the rows.
    """
    rows = [
        EncodedRow(row_id, 0, encode({"id": row_id, "_object_delete": True}), dest_id)
        for row_id in row_ids
    ]
    sender = RowSender(dest, kind, {dest_id: dest_id}, sum(len(row.body) for row in rows))
    delivery = sender.send(rows)
    unconfirmed = delivery.confirmed.count(False)
    if unconfirmed:
        route = Route(dest.side, "POST", LOGS3)
        raise AnswerError(route, 200, f"does not name {unconfirmed} of the rows")
    return delivery.xact
