"""Sends rows to the destination and checks that each answer accounts for every row.

`POST /logs3`, the endpoint of the SDKs, is preferred: its answer names the transaction of the
delivery, by which a later sync knows rows that this tool wrote last. A server without it, or whose
answers there do not account for the rows, gets rows by the documented insert endpoints, whose
answers name no transaction.

Everything here is safe to send twice: rows and comments have ids and replace themselves.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Sequence

from bt_migrate.api.answers import (
    Check,
    inserted_groups,
    inserted_rows,
    logs3_records,
    logs3_rows,
    signed_upload,
)
from bt_migrate.api.client import Api
from bt_migrate.api.json_codec import encode
from bt_migrate.api.transactions import xact_of
from bt_migrate.errors import AnswerError, ApiError
from bt_migrate.model.resources import RowKind
from bt_migrate.rows.batches import EncodedRow, cross_body, events_body, logs3_body

LOGS3 = "/logs3"
# Statuses of a server that lacks the endpoint.
NO_SUCH_ENDPOINT = frozenset((404, 405, 501))
# bytes that a request adds to a large row
LARGE_ENVELOPE_BYTES = 200


class Receipt(NamedTuple):
    """What an answer says about the rows of a request.

    `ids`: the row ids that it names. `xact`: the destination's transaction, 0 if none is named.
    """

    ids: List[str]
    xact: int = 0


class Delivery(NamedTuple):
    """`confirmed`: for each row sent, whether the answer named it."""

    confirmed: List[bool]
    xact: int = 0


# assumption: rows_upsert_by_id
@dataclass(frozen=True)
class RowSender:
    """Sends rows of one kind. Safe for many threads.

    `dest_ids`: source object id -> destination object id.
    """

    dest: Api
    kind: RowKind
    dest_ids: Mapping[str, str]
    max_batch_bytes: int

    def send(self, rows: Sequence[EncodedRow]) -> Delivery:
        """Send rows of one or several objects.

        Raises ApiError for a refusal and for an answer that names none of the rows.
        """
        capabilities = self.dest.capabilities
        if not capabilities.logs3_delivers:
            return self._send_v1(rows)
        try:
            return self._send_logs3(rows)
        except ApiError as error:
            if not (isinstance(error, AnswerError) or error.status in NO_SUCH_ENDPOINT):
                raise
            try:
                delivery = self._send_v1(rows)
            except ApiError:
                raise error from None
        if all(delivery.confirmed):
            capabilities.logs3_delivers = False
        return delivery

    def is_large(self, row: EncodedRow) -> bool:
        """Whether the row is larger than a batch may be and the server accepts uploads."""
        return len(row.body) > self.max_batch_bytes and self.dest.logs3_max_bytes() > 0

    def send_large(self, row: EncodedRow) -> Delivery:
        """Send a large row: by an upload, unless the server announces larger requests."""
        if len(row.body) + LARGE_ENVELOPE_BYTES <= self.dest.logs3_max_bytes():
            return self._send_logs3([row])
        return self.send_upload(row)

    def send_upload(self, row: EncodedRow) -> Delivery:
        """Send one row by an upload, which can be larger than a request (`logs3_overflow`)."""
        body = self._logs3_body([row])
        described = {
            "object_ids": dict(self._object_fields(row.object_id)),
            "has_comment": False,
            "is_delete": False,
            "input_row": {"byte_size": len(row.body)},
        }
        request = {"content_type": "application/json", "size_bytes": len(body), "rows": [described]}
        signed = self.dest.store.retrying(lambda: self._upload(request, body))
        uploaded = {"type": "logs3_overflow", "key": signed["key"], "size_bytes": len(body)}
        return self._post_logs3(encode({"rows": uploaded, "api_version": 2}), [row.id])

    def send_comments(self, comments: Sequence[EncodedRow]) -> Delivery:
        """Send comment records. Raises ApiError if the answer does not account for all of them."""
        body = self._logs3_body(comments)
        answer = self.dest.post(LOGS3, body, check=logs3_records(len(comments))).json
        return Delivery([True] * len(comments), logs3_receipt(answer).xact)

    # -- rows

    def _send_logs3(self, rows: Sequence[EncodedRow]) -> Delivery:
        return self._post_logs3(self._logs3_body(rows), [row.id for row in rows])

    def _post_logs3(self, body: bytes, ids: Sequence[str]) -> Delivery:
        return self._post(LOGS3, body, ids, logs3_rows(ids), logs3_receipt)

    def _send_v1(self, rows: Sequence[EncodedRow]) -> Delivery:
        ids = [row.id for row in rows]
        objects = list(dict.fromkeys([row.object_id for row in rows]))
        if len(objects) == 1:
            path = self.kind.insert_path.format(id=self.dest_ids[objects[0]])
            return self._post(path, events_body(rows), ids, inserted_rows(ids), insert_receipt)
        by_object: Dict[str, List[str]] = {}
        for row in rows:
            by_object.setdefault(self.dest_ids[row.object_id], []).append(row.id)
        body = cross_body(self.kind.insert_key, self.dest_ids, rows)
        check = inserted_groups(self.kind.insert_key, by_object)
        return self._post("/v1/insert", body, ids, check, self._cross_receipt)

    def _cross_receipt(self, answer: Any) -> Receipt:
        objects = answer.get(self.kind.insert_key) if isinstance(answer, dict) else None
        receipts = objects.values() if isinstance(objects, dict) else ()
        return Receipt([row_id for inner in receipts for row_id in insert_receipt(inner).ids])

    def _post(
        self,
        path: str,
        body: bytes,
        ids: Sequence[str],
        check: Check,
        receipt_of: Callable[[Any], Receipt],
    ) -> Delivery:
        """Send until the answer names exactly these ids; at most as often as requests are retried.

        Raises AnswerError if the last answer names none of them, or other ids.
        """
        answers: List[Any] = []

        def checked(answer: Any) -> str:
            answers.append(answer)
            return check(answer)

        try:
            receipt = receipt_of(self.dest.post(path, body, check=checked).json)
        except AnswerError:
            receipt = receipt_of(answers[-1] if answers else None)
            confirmed = confirmed_of(ids, receipt.ids)
            if not any(confirmed):
                raise
            return Delivery(confirmed, receipt.xact)
        return Delivery([True] * len(ids), receipt.xact)

    # -- encoding

    def _object_fields(self, object_id: str) -> Mapping[str, str]:
        return self.kind.object_fields(self.dest_ids[object_id])

    def _logs3_body(self, rows: Sequence[EncodedRow]) -> bytes:
        """Returns the body of the request: the rows with the fields that name their objects."""
        endings = {
            object_id: b"," + encode(dict(self._object_fields(object_id)))[1:]
            for object_id in {row.object_id for row in rows}
        }
        return logs3_body([row.body[:-1] + endings[row.object_id] for row in rows])

    def _upload(self, request: Dict[str, Any], body: bytes) -> Dict[str, Any]:
        """Returns the answer with the signed URL to which the bytes were uploaded."""
        check = signed_upload("key")
        signed: Dict[str, Any] = self.dest.post("/logs3/overflow", request, check=check).json
        self.dest.store.send(signed, body)
        return signed


# -- answers


# assumption: logs3_names_its_transaction
def logs3_receipt(answer: Any) -> Receipt:
    """Reads {"ids": [...], "xact_id": "1000…"}; older servers answer without the transaction."""
    if not isinstance(answer, dict):
        return Receipt([])
    return Receipt(_texts(answer.get("ids")), xact_of(answer.get("xact_id")))


def insert_receipt(answer: Any) -> Receipt:
    """Reads {"row_ids": [...]}."""
    return Receipt(_texts(answer.get("row_ids")) if isinstance(answer, dict) else [])


def _texts(value: Any) -> List[str]:
    """Returns a list of strings; [] for a value of another type."""
    is_list = isinstance(value, list) and {*map(type, value)} <= {str}
    return list(value) if is_list else []


# assumption: row_ids_in_order
def confirmed_of(ids: Sequence[str], named: Iterable[str]) -> List[bool]:
    """Returns for each sent id whether it was named.

    All are False if an id was named that was not sent.
    """
    unused = Counter(named)
    confirmed = []
    for row_id in ids:
        confirmed.append(unused[row_id] > 0)
        unused[row_id] -= 1
    return confirmed if max(unused.values(), default=0) <= 0 else [False] * len(ids)
