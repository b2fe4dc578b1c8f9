"""Deliver encoded rows: attachments and spilled fields first, then the rows, then their comments.

A request that is refused for its content is halved down to the row at fault; one that is refused for an object fails that
object alone; the rest goes on. Everything here may be sent twice: rows, comments and attachments have ids of their own and
replace themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from bt_migrate.api.client import Api
from bt_migrate.api.json_codec import encode
from bt_migrate.attachments.copy import AttachmentCopier, NotCopied
from bt_migrate.errors import ApiError, NetworkError
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


def delete_rows(dest: Api, kind: RowKind, dest_id: str, row_ids: Sequence[str]) -> None:
    """Delete rows of one object: an insert that says so. An id that is not there is no error, nor is a second time."""
    dest.post(
        kind.insert_path.format(id=dest_id),
        encode({"events": [{"id": one, "_object_delete": True} for one in row_ids]}),
    )


MAX_REASON_CHARS = 300

Outcome = Tuple[str, str]  # (outcome, reason)


@dataclass
class Delivered:
    """What became of one batch. `outcomes` stand beside `rows`; `errors`: source object id -> what the API said of the object."""

    rows: List[EncodedRow] = field(default_factory=list)
    outcomes: List[Outcome] = field(default_factory=list)
    not_copied: List[Tuple[str, str, str, str, NotCopied]] = field(
        default_factory=list
    )  # (object, row id, path, key, why) of attachments
    refused_comments: List[Tuple[str, str, str]] = field(
        default_factory=list
    )  # (object, row id, reason)
    errors: Dict[str, ApiError] = field(default_factory=dict)
    at: int = 0  # second of the destination's clock before whose end all of it was written


@dataclass(frozen=True)
class Inserter:
    """Writes rows of one kind. `dest_ids`: source object id -> destination object id. Safe for many threads."""

    dest: Api
    copier: AttachmentCopier
    kind: RowKind
    dest_ids: Mapping[str, str]
    max_batch_bytes: int

    def deliver(self, batch: Sequence[EncodedRow]) -> Delivered:
        """The whole batch with all that belongs to it. Raises what ends the run; an object's own trouble is in `errors`."""
        done = Delivered()
        for row in batch:
            done.rows.append(self._with_bytes(row, done) if row.attachments or row.spills else row)
        done.outcomes = [
            (FOUND, "") if row.repairs and row.attachments else ("", "") for row in done.rows
        ]
        self._insert(
            [(at, row) for at, row in enumerate(done.rows) if not done.outcomes[at][0]], done
        )
        commented = [
            row
            for row, (outcome, _) in zip(done.rows, done.outcomes)
            if row.comments and outcome not in ("", FAILED, FOUND)
        ]
        self._insert_comments(commented, done)
        done.at = int(self.dest.latest_seconds())
        return done

    def _with_bytes(self, row: EncodedRow, done: Delivered) -> EncodedRow:
        """The row once the bytes that it refers to are in the destination; a reference to bytes that could not be copied stays."""
        for key, filename, content in row.spills:
            self.copier.upload(key, filename, "application/json", content)
        failures = self.copier.copy_into([dict(one) for one in row.attachments])
        places = attachment_paths(row.body, failures, self.dest.org_id) if failures else {}
        done.not_copied += [
            (row.object_id, row.id, places.get(key, ""), key, why) for key, why in failures.items()
        ]
        body = keep_source_keys(row.body, failures, self.dest.org_id) if failures else row.body
        if row.repairs and len(failures) == len({one["key"] for one in row.attachments}):
            return row  # nothing could be mended
        return row._replace(body=body, attachments=(), spills=())

    def _insert(self, rows: List[Tuple[int, EncodedRow]], done: Delivered) -> None:
        """Insert (position, row) pairs; outcomes and errors go into `done`."""
        if not rows:
            return
        objects = list(dict.fromkeys([row.object_id for _, row in rows]))
        try:
            self._send([row for _, row in rows], objects)
        except ApiError as error:
            if len(objects) > 1:  # one object must not take the others with it
                for one in objects:
                    self._insert([pair for pair in rows if pair[1].object_id == one], done)
            elif not error.refuses_content:
                done.errors[objects[0]] = error
            elif len(rows) > 1:
                for half in halves(rows):
                    self._insert(list(half), done)
            elif (
                error.status == 413
                and error.path.endswith("/insert")
                and self.dest.logs3_max_bytes()
            ):
                self._insert_large(
                    rows[0], done
                )  # the server takes less than we were told, but more by an upload
            else:
                position, row = rows[0]
                helps = ", a lower MIGRATION_MAX_ROW_BYTES helps" if error.status == 413 else ""
                reason = f"{error.status}: {error.body[:MAX_REASON_CHARS]} ({len(row.body):,} bytes{helps})"
                done.outcomes[position] = (FAILED, reason)
        else:
            for position, row in rows:
                done.outcomes[position] = (row.outcome, "")

    def _send(self, rows: Sequence[EncodedRow], objects: Sequence[str]) -> None:
        if (
            len(rows) == 1
            and len(rows[0].body) > self.max_batch_bytes
            and self.dest.logs3_max_bytes()
        ):
            self._send_logs3(rows)
        elif len(objects) == 1:
            path = self.kind.insert_path.format(id=self.dest_ids[objects[0]])
            answer = self.dest.post(path, events_body(rows)).json
            accepted = answer.get("row_ids") if isinstance(answer, dict) else None
            if not isinstance(accepted, list) or len(accepted) != len(
                rows
            ):  # promised by the API: one id a row
                raise NetworkError(
                    f"destination: {path} did not confirm {len(rows)} rows; is {self.dest.url} a Braintrust API?"
                )
        else:
            self.dest.post("/v1/insert", cross_body(self.kind.insert_key, self.dest_ids, rows))

    def _send_logs3(self, rows: Sequence[EncodedRow]) -> None:
        """The endpoint of the SDKs, which takes what is larger than a request by way of an upload (`logs3_overflow`)."""
        body = logs3_body(
            with_object(row.body, self.kind.object_fields(self.dest_ids[row.object_id]))
            for row in rows
        )
        if len(body) <= self.dest.logs3_max_bytes():
            self.dest.post("/logs3", body)
            return
        first = rows[0]
        described = {
            "object_ids": dict(self.kind.object_fields(self.dest_ids[first.object_id])),
            "has_comment": False,
            "is_delete": False,
            "input_row": {"byte_size": len(first.body)},
        }
        request = {"content_type": "application/json", "size_bytes": len(body), "rows": [described]}
        signed = self.dest.with_signed(lambda: self._upload(request, body))
        self.dest.post(
            "/logs3",
            {
                "rows": {"type": "logs3_overflow", "key": signed["key"], "size_bytes": len(body)},
                "api_version": 2,
            },
        )

    def _upload(self, request: Dict[str, Any], body: bytes) -> Dict[str, Any]:
        """The signed answer whose URL took the bytes."""
        signed: Dict[str, Any] = self.dest.post("/logs3/overflow", request).json
        self.dest.send_signed(signed, body)
        return signed

    def _insert_large(self, pair: Tuple[int, EncodedRow], done: Delivered) -> None:
        position, row = pair
        try:
            self._send_logs3([row])
            done.outcomes[position] = (row.outcome, "")
        except ApiError as error:
            if not error.refuses_content:
                raise
            done.outcomes[position] = (
                FAILED,
                f"{error.status}: {error.body} ({len(row.body):,} bytes)"[:MAX_REASON_CHARS],
            )

    def _insert_comments(self, rows: Sequence[EncodedRow], done: Delivered) -> None:
        """Comments are records of their own, written as the SDKs write them; each keeps its id, so a second one replaces the
        first.
        """
        comments = [
            EncodedRow(
                row.id,
                0,
                with_object(comment, self.kind.object_fields(self.dest_ids[row.object_id])),
                row.object_id,
            )
            for row in rows
            for comment in row.comments
        ]
        for batch in batched(comments, len(comments) or 1, self.max_batch_bytes, distinct=False):
            self._send_comments(batch, done)

    def _send_comments(self, batch: Sequence[EncodedRow], done: Delivered) -> None:
        """A comment that is refused by itself is told; the others go on."""
        try:
            self.dest.post("/logs3", logs3_body(one.body for one in batch))
        except ApiError as error:
            if not error.refuses_content:
                raise
            if len(batch) > 1:
                for half in halves(batch):
                    self._send_comments(half, done)
            else:
                done.refused_comments.append(
                    (
                        batch[0].object_id,
                        batch[0].id,
                        f"{error.status}: {error.body}"[:MAX_REASON_CHARS],
                    )
                )
