"""Encode rows once and cut them into batches bounded by count and by bytes. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Iterator, List, Sequence, Tuple

ENVELOPE_BYTES = len(b'{"events":[]}')  # around the rows of an insert


@dataclass(frozen=True)
class EncodedRow:
    """One insertable row: its id, its source transaction, and the JSON that is sent."""

    id: str
    xact: int
    body: bytes
    outcome: str = "created"  # what it will be once the destination has it
    attachments: Tuple[Dict[str, Any], ...] = ()  # references as in the source; `body` already names the destination's keys
    deferred: Tuple[Tuple[str, str, str, str], ...] = ()  # (path, resources, source id, origin as JSON) that wait for an object


def encode(value: Any) -> bytes:
    """Compact UTF-8 JSON. A lone surrogate has no UTF-8 form, so such a value is written with \\u escapes throughout.

    Integers of any size, -0.0 and NaN keep their text, as the standard library writes what it read.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def batched(rows: Iterable[EncodedRow], max_rows: int, max_bytes: int) -> Iterator[Tuple[EncodedRow, ...]]:
    """Consecutive rows, at most `max_rows` and `max_bytes` of request body each; a larger row is a batch of its own.

    A row id that comes twice starts a new batch: two versions in one transaction have no order.
    """
    batch: List[EncodedRow] = []
    ids: set = set()
    size = ENVELOPE_BYTES
    for row in rows:
        cost = len(row.body) + 1
        if batch and (len(batch) >= max_rows or size + cost > max_bytes or row.id in ids):
            yield tuple(batch)
            batch, ids, size = [], set(), ENVELOPE_BYTES
        batch.append(row)
        ids.add(row.id)
        size += cost
    if batch:
        yield tuple(batch)


def halves(batch: Sequence[EncodedRow]) -> Tuple[Tuple[EncodedRow, ...], Tuple[EncodedRow, ...]]:
    """The batch cut in two, for a request that was refused as a whole; at least two rows."""
    middle = len(batch) // 2
    return tuple(batch[:middle]), tuple(batch[middle:])


def events_body(batch: Sequence[EncodedRow]) -> bytes:
    """The body of POST /v1/{object}/{id}/insert."""
    return b'{"events":[' + b",".join(row.body for row in batch) + b"]}"
