"""Encode rows once and cut them into batches bounded by count and by bytes. Pure."""

from __future__ import annotations

from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Sequence,
    Set,
    Tuple,
    TypeVar,
)

from bt_migrate.api.json_codec import encode
from bt_migrate.state.row_records import DeferredReference

# largest number of bytes around the rows of an insert
ENVELOPE_BYTES = 64
# bytes added to each row: a comma and, in an insert for several objects, the object's id
ROW_EXTRA_BYTES = 64
# memory of the Python objects that hold an encoded row
ROW_HELD_BYTES = 500

Item = TypeVar("Item")


class EncodedRow(NamedTuple):
    """A row that can be inserted: the JSON to send, and what belongs to it."""

    id: str
    # its transaction in the source
    xact: int
    body: bytes
    # the source object that holds it
    object_id: str = ""
    # its outcome once the destination has accepted it
    outcome: str = "created"
    # The destination has the row with the source's attachment keys. It is sent again only if its
    # attachments can be copied now.
    repairs: bool = False
    # attachment references with the source's keys; `body` has the destination's
    attachments: Tuple[Dict[str, Any], ...] = ()
    # (key, file name, content) of fields that `body` refers to as attachments
    spills: Tuple[Tuple[str, str, bytes], ...] = ()
    # encoded comment records, without their object
    comments: Tuple[bytes, ...] = ()
    deferred: Tuple[DeferredReference, ...] = ()
    # why it cannot be sent; empty if it can
    trouble: str = ""
    # in a sync: digest of the row as it will be read from the destination, followed by that of the
    # row that it replaces, if that is ours
    digest: bytes = b""


def batched(
    rows: Iterable[EncodedRow], max_rows: int, max_bytes: int, *, distinct: bool = True
) -> Iterator[Tuple[EncodedRow, ...]]:
    """Yields batches of consecutive rows: at most `max_rows` and `max_bytes` of request body.

    A larger row is a batch of its own. With `distinct`, a row id that occurs again starts a new
    batch, because two versions of a row in one transaction have no order.
    """
    batch: List[EncodedRow] = []
    ids: Set[Tuple[str, str]] = set()
    size = ENVELOPE_BYTES
    for row in rows:
        cost = len(row.body) + ROW_EXTRA_BYTES
        row_key = (row.object_id, row.id)
        if batch and (
            len(batch) >= max_rows or size + cost > max_bytes or (distinct and row_key in ids)
        ):
            yield tuple(batch)
            batch, ids, size = [], set(), ENVELOPE_BYTES
        batch.append(row)
        ids.add(row_key)
        size += cost
    if batch:
        yield tuple(batch)


def held_bytes(row: EncodedRow) -> int:
    """Returns about how much memory the row takes until it is written."""
    spilled = sum(len(content) for _, _, content in row.spills) if row.spills else 0
    return ROW_HELD_BYTES + len(row.body) + spilled


def halves(batch: Sequence[Item]) -> Tuple[Sequence[Item], Sequence[Item]]:
    """Returns the two halves of a refused batch, which has at least two rows."""
    middle = len(batch) // 2
    return batch[:middle], batch[middle:]


def events_body(batch: Sequence[EncodedRow]) -> bytes:
    """The body of POST /v1/{object}/{id}/insert."""
    return b'{"events":[' + b",".join([row.body for row in batch]) + b"]}"


def cross_body(kind: str, dest_ids: Mapping[str, str], batch: Sequence[EncodedRow]) -> bytes:
    """The body of POST /v1/insert for rows of several objects of one kind."""
    by_object: Dict[str, List[EncodedRow]] = {}
    for row in batch:
        by_object.setdefault(row.object_id, []).append(row)
    parts = [
        encode(dest_ids[object_id]) + b":" + events_body(rows)
        for object_id, rows in by_object.items()
    ]
    return b"{" + encode(kind) + b":{" + b",".join(parts) + b"}}"


def logs3_body(rows: Iterable[bytes]) -> bytes:
    """The body of POST /logs3, the endpoint of the SDKs, whose rows name their object."""
    return b'{"rows":[' + b",".join(rows) + b'],"api_version":2}'
