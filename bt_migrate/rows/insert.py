"""Delivers encoded rows: attachments and spilled fields first, then the rows, then their comments.

A request that is refused for its content is halved until the refused row is found. One that is
refused for an object fails that object only. Everything here is safe to send twice: rows, comments
and attachments have ids and replace themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from bt_migrate.api.answers import inserted_groups, inserted_rows, logs3_rows, signed_upload
from bt_migrate.api.client import Api
from bt_migrate.api.json_codec import encode
from bt_migrate.attachments.copy import AttachmentCopier, NotCopied
from bt_migrate.errors import ApiError
from bt_migrate.model.outcomes import FAILED, FOUND
from bt_migrate.model.resources import RowKind
from bt_migrate.rows.batches import (
    EncodedRow,
    batched,
    cross_body,
    events_body,
    halves,
    logs3_body,
    with_object,
)
from bt_migrate.rows.encode import attachment_paths, keep_source_keys

# Characters of a reason that are kept with a row.
MAX_REASON_CHARS = 300

Outcome = Tuple[str, str]  # (outcome, reason)
Placed = Tuple[int, EncodedRow]  # (position in the batch, row)


@dataclass
class Delivered:
    """The result of one batch."""

    rows: List[EncodedRow] = field(default_factory=list)
    # One for each row, in the same order; ("", "") for rows of an object in `errors`.
    outcomes: List[Outcome] = field(default_factory=list)
    # Attachments that stay in the source: (object, row id, path, key, why).
    not_copied: List[Tuple[str, str, str, str, NotCopied]] = field(default_factory=list)
    # (object, row id, reason)
    refused_comments: List[Tuple[str, str, str]] = field(default_factory=list)
    # Source object id -> why the API refused the object.
    errors: Dict[str, ApiError] = field(default_factory=dict)
    # Second of the destination's clock by which all of it was written.
    at: int = 0


@dataclass(frozen=True)
class Inserter:
    """Writes rows of one kind. `dest_ids`: source object id -> destination object id. Safe for many
    threads.
    """

    dest: Api
    copier: AttachmentCopier
    kind: RowKind
    dest_ids: Mapping[str, str]
    max_batch_bytes: int

    def deliver(self, batch: Sequence[EncodedRow]) -> Delivered:
        """Deliver the batch with all that belongs to it. Raises what ends the run; what fails one
        object is in `errors`.
        """
        done = Delivered()
        failed: Dict[int, str] = {}
        for position, row in enumerate(batch):
            try:
                has_bytes = row.attachments or row.spills
                done.rows.append(self._with_bytes(row, done) if has_bytes else row)
            except NotCopied as error:
                done.rows.append(row)
                failed[position] = f"its oversize field cannot be uploaded: {error}"
        # A row that is sent only to repair its attachments stays as found where none could be
        # copied.
        done.outcomes = [
            (FOUND, "") if row.repairs and row.attachments else ("", "") for row in done.rows
        ]
        for position, reason in failed.items():
            done.outcomes[position] = (FAILED, reason[:MAX_REASON_CHARS])
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
        done.at = int(self.dest.clock.latest_s())
        return done

    # -- attachments

    def _with_bytes(self, row: EncodedRow, done: Delivered) -> EncodedRow:
        """Copy the bytes that the row refers to. The source's reference stays where that fails."""
        for key, filename, content in row.spills:
            self.copier.upload(key, filename, "application/json", content)
        failures = self.copier.copy_into([dict(reference) for reference in row.attachments])
        if not failures:
            return row._replace(attachments=(), spills=())
        places = attachment_paths(row.body, failures, self.dest.org_id)
        done.not_copied += [
            (row.object_id, row.id, places.get(key, ""), key, why) for key, why in failures.items()
        ]
        if row.repairs and len(failures) == len({one["key"] for one in row.attachments}):
            return row
        body = keep_source_keys(row.body, failures, self.dest.org_id)
        return row._replace(body=body, attachments=(), spills=())

    # -- rows

    def _insert(self, rows: List[Placed], done: Delivered) -> None:
        """Insert the rows; outcomes and errors are added to `done`."""
        if not rows:
            return
        objects = list(dict.fromkeys([row.object_id for _, row in rows]))
        try:
            self._send([row for _, row in rows], objects)
        except ApiError as error:
            self._insert_refused(rows, objects, error, done)
        else:
            for position, row in rows:
                done.outcomes[position] = (row.outcome, "")

    def _insert_refused(
        self, rows: List[Placed], objects: Sequence[str], error: ApiError, done: Delivered
    ) -> None:
        """Send in smaller requests what was refused, until the object or row at fault is alone."""
        if len(objects) > 1:
            for object_id in objects:
                self._insert([pair for pair in rows if pair[1].object_id == object_id], done)
        elif not error.refuses_content:
            done.errors[objects[0]] = error
        elif len(rows) > 1:
            for half in halves(rows):
                self._insert(list(half), done)
        elif _takes_less(error) and self.dest.logs3_max_bytes():
            # The server takes less than was announced; an upload can be larger.
            self._insert_large(rows[0], done)
        else:
            position, row = rows[0]
            hint = ", a lower MIGRATION_MAX_ROW_BYTES helps" if error.status == 413 else ""
            text = error.body[:MAX_REASON_CHARS]
            reason = f"{error.status}: {text} ({len(row.body):,} bytes{hint})"
            done.outcomes[position] = (FAILED, reason)

    def _send(self, rows: Sequence[EncodedRow], objects: Sequence[str]) -> None:
        large = len(rows) == 1 and len(rows[0].body) > self.max_batch_bytes
        if large and self.dest.logs3_max_bytes():
            self._send_logs3(rows)
        elif len(objects) > 1:
            self._send_cross(rows)
        else:
            path = self.kind.insert_path.format(id=self.dest_ids[objects[0]])
            check = inserted_rows([row.id for row in rows])
            self.dest.post(path, events_body(rows), check=check)

    def _send_cross(self, rows: Sequence[EncodedRow]) -> None:
        """Insert rows of several objects in one request."""
        row_ids: Dict[str, List[str]] = {}
        for row in rows:
            row_ids.setdefault(self.dest_ids[row.object_id], []).append(row.id)
        body = cross_body(self.kind.insert_key, self.dest_ids, rows)
        check = inserted_groups(self.kind.insert_key, row_ids)
        self.dest.post("/v1/insert", body, check=check)

    def _insert_large(self, placed: Placed, done: Delivered) -> None:
        position, row = placed
        try:
            self._send_logs3([row])
        except ApiError as error:
            if not error.refuses_content:
                raise
            reason = f"{error.status}: {error.body} ({len(row.body):,} bytes)"
            done.outcomes[position] = (FAILED, reason[:MAX_REASON_CHARS])
        else:
            done.outcomes[position] = (row.outcome, "")

    def _send_logs3(self, rows: Sequence[EncodedRow]) -> None:
        """Send rows to the SDKs' endpoint, which takes an upload for what is larger than a request
        (`logs3_overflow`).
        """
        body = logs3_body(
            with_object(row.body, self.kind.object_fields(self.dest_ids[row.object_id]))
            for row in rows
        )
        if len(body) <= self.dest.logs3_max_bytes():
            self.dest.post("/logs3", body, check=logs3_rows(len(rows)))
        else:
            self._send_overflow(rows[0], body)

    def _send_overflow(self, row: EncodedRow, body: bytes) -> None:
        described = {
            "object_ids": dict(self.kind.object_fields(self.dest_ids[row.object_id])),
            "has_comment": False,
            "is_delete": False,
            "input_row": {"byte_size": len(row.body)},
        }
        request = {"content_type": "application/json", "size_bytes": len(body), "rows": [described]}
        signed = self.dest.store.retrying(lambda: self._upload(request, body))
        uploaded = {"type": "logs3_overflow", "key": signed["key"], "size_bytes": len(body)}
        sent = {"rows": uploaded, "api_version": 2}
        self.dest.post("/logs3", sent, check=logs3_rows(1))

    def _upload(self, request: Dict[str, Any], body: bytes) -> Dict[str, Any]:
        """Returns the signed answer whose URL took the bytes."""
        check = signed_upload("key")
        signed: Dict[str, Any] = self.dest.post("/logs3/overflow", request, check=check).json
        self.dest.store.send(signed, body)
        return signed

    # -- comments

    def _insert_comments(self, rows: Sequence[EncodedRow], done: Delivered) -> None:
        """Write the comments of the rows as records of their own, as the SDKs do."""
        comments = []
        for row in rows:
            fields = self.kind.object_fields(self.dest_ids[row.object_id])
            for comment in row.comments:
                comments.append(EncodedRow(row.id, 0, with_object(comment, fields), row.object_id))
        for batch in batched(comments, len(comments) or 1, self.max_batch_bytes, distinct=False):
            self._send_comments(batch, done)

    def _send_comments(self, batch: Sequence[EncodedRow], done: Delivered) -> None:
        """Send the comments, halving a refused request until the refused comment is alone and
        noted.
        """
        try:
            body = logs3_body(comment.body for comment in batch)
            self.dest.post("/logs3", body, check=logs3_rows(len(batch)))
        except ApiError as error:
            if not error.refuses_content:
                raise
            if len(batch) > 1:
                for half in halves(batch):
                    self._send_comments(half, done)
                return
            reason = f"{error.status}: {error.body}"[:MAX_REASON_CHARS]
            done.refused_comments.append((batch[0].object_id, batch[0].id, reason))


def _takes_less(error: ApiError) -> bool:
    return error.status == 413 and error.path.endswith("/insert")


def delete_rows(dest: Api, kind: RowKind, dest_id: str, row_ids: Sequence[str]) -> None:
    """Delete rows of one object. Safe to send twice: deleting an absent id is no error."""
    events = [{"id": row_id, "_object_delete": True} for row_id in row_ids]
    path = kind.insert_path.format(id=dest_id)
    dest.post(path, encode({"events": events}), check=inserted_rows(row_ids))
