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

# around the rows of an insert, at most
ENVELOPE_BYTES = 64
# of a row: its comma, and in an insert of several objects the object's id
ROW_EXTRA_BYTES = 64
# memory of the Python objects that hold an encoded row
ROW_HELD_BYTES = 500

Item = TypeVar("Item")


class EncodedRow(NamedTuple):
    """One row that can be inserted: the JSON that is sent, and what belongs to it."""

    id: str
    # its transaction in the source
    xact: int
    body: bytes
    # the source object that holds it
    object_id: str = ""
    # its outcome once the destination has accepted it
    outcome: str = "created"
    # The destination has it, with the source's attachments: sent only if these can be copied now.
    repairs: bool = False
    # references as in the source; `body` names the destination's keys already
    attachments: Tuple[Dict[str, Any], ...] = ()
    # (key, file name, content) of fields that `body` refers to as attachments
    spills: Tuple[Tuple[str, str, bytes], ...] = ()
    # encoded comment records, without their object
    comments: Tuple[bytes, ...] = ()
    # references that wait for an object: (path, resources, source id, kept value as JSON)
    deferred: Tuple[Tuple[str, str, str, str], ...] = ()
    # why it cannot be sent
    trouble: str = ""
    # in a sync: of the row as it will be read in the destination
    digest: bytes = b""


def batched(
    rows: Iterable[EncodedRow], max_rows: int, max_bytes: int, *, distinct: bool = True
) -> Iterator[Tuple[EncodedRow, ...]]:
    """Yields batches of consecutive rows, of at most `max_rows` and `max_bytes` of request body.

    A larger row is a batch of its own. `distinct`: a row that comes twice starts a new batch,
    because two versions in one transaction have no order.
    """
    batch: List[EncodedRow] = []
    ids: Set[Tuple[str, str]] = set()
    size = ENVELOPE_BYTES
    for row in rows:
        cost = len(row.body) + ROW_EXTRA_BYTES
        here = (row.object_id, row.id)
        if batch and (
            len(batch) >= max_rows or size + cost > max_bytes or (distinct and here in ids)
        ):
            yield tuple(batch)
            batch, ids, size = [], set(), ENVELOPE_BYTES
        batch.append(row)
        ids.add(here)
        size += cost
    if batch:
        yield tuple(batch)


def held_bytes(row: EncodedRow) -> int:
    """Memory that the row takes until it is written, about."""
    return ROW_HELD_BYTES + len(row.body) + sum(len(content) for _, _, content in row.spills)


def halves(batch: Sequence[Item]) -> Tuple[Sequence[Item], Sequence[Item]]:
    """The batch cut in two, for a request that was refused as a whole; at least two rows."""
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
