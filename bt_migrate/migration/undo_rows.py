"""Delete the rows that a run brought to objects which were there before it."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Sequence, Set, Tuple

from bt_migrate.api.btql import Bounds
from bt_migrate.api.transactions import xact_of, xact_seconds
from bt_migrate.errors import ApiError
from bt_migrate.migration.undo_objects import CHANGED, UndoContext
from bt_migrate.model.outcomes import CREATED
from bt_migrate.model.resources import ROW_KINDS, holder_of_rows
from bt_migrate.rows.insert import delete_rows
from bt_migrate.rows.read import pages
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.state.stream_state import StreamState


def streams_to_undo(
    context: UndoContext, created_ids: Set[Tuple[str, str]]
) -> Iterator[StreamState]:
    """The streams of objects that were there before the run.

    `created_ids`: (resource, destination id) of what the run created.
    """
    everything = context.run.all_streams()
    for kind in ROW_KINDS:
        holder = holder_of_rows(kind)
        streams = [stream for stream in everything if stream.header["kind"] == kind]
        there = context.lists.objects(holder) if streams else {}
        for stream in streams:
            dest_id = stream.header["dest_id"]
            if dest_id in there and (holder.name, dest_id) not in created_ids:
                yield stream


def undo_rows(context: UndoContext, stream: StreamState) -> int:
    """Delete the rows of one stream, or only count them without --yes; returns how many."""
    count = 0
    changed = 0
    text = rows_text(stream)
    try:
        for ids, left in _own_rows(context, stream):
            if context.settings.yes and ids:
                _delete_rows(context, stream, ids)
            count += len(ids)
            changed += left
        if context.settings.yes and count:
            # An answer of 200 proves nothing.
            still = sum(len(ids) for ids, _ in _own_rows(context, stream))
            if still:
                context.left.append(f"{still:,} {text}: still shown; run the same command again")
    except ApiError as error:
        context.left.append(f"{text}: {error}")
    if count:
        print(f"delete: {count:,} {text}")
    _note_left_rows(context, stream, count, changed)
    return count


def _note_left_rows(context: UndoContext, stream: StreamState, count: int, changed: int) -> None:
    text = rows_text(stream)
    hidden = 0 if context.again else stream.counts[CREATED] - count - changed
    if hidden > 0:
        context.left.append(
            f"{hidden:,} {text}: not shown, maybe not yet; run the same command again"
        )
    if stream.copy.overwritten:
        context.left.append(
            f"up to {stream.copy.overwritten:,} {text}: were there and were written to;"
            " what they were is not known"
        )
    if changed:
        context.left.append(f"{changed:,} {text}: {CHANGED}")


def rows_text(stream: StreamState) -> str:
    header = stream.header
    return f"rows of {header['kind']} {header['name']!r} of {header['project']!r}"


def _own_rows(context: UndoContext, stream: StreamState) -> Iterator[Tuple[List[str], int]]:
    """(ids of rows that the run brought, number of those changed since), page by page."""
    kind, dest_id = stream.header["kind"], stream.header["dest_id"]
    path = stream.sibling("_seen.sqlite3")
    if not path.exists():
        return
    seen = SeenRows(path)
    try:
        limit = context.settings.rows(kind).fetch_limit
        bounds = Bounds(after_key=stream.copy.before_key)
        for page in pages(context.dest, kind, [dest_id], bounds, limit=limit):
            context.dest.check()
            ids = [row["id"] for row in page.rows]
            brought = set(seen.inserted(stream.header["source_id"], ids))
            rows = [row for row in page.rows if row["id"] in brought]
            delivered = seen.dest_xacts(stream.header["source_id"], [row["id"] for row in rows])
            kept = {
                row["id"]
                for row in rows
                if _stays(context, stream, row, delivered.get(row["id"], 0))
            }
            yield [row["id"] for row in rows if row["id"] not in kept], len(kept)
    finally:
        seen.close()


def _stays(context: UndoContext, stream: StreamState, row: Dict[str, Any], delivered: int) -> bool:
    """Whether the row was written since the run.

    Its transaction says so where that of the delivery is recorded (`delivered`); for a row of a run
    that was killed before it recorded it, only the time is left.
    """
    xact = xact_of(row.get("_xact_id"))
    if context.settings.changed:
        return False
    if delivered:
        return xact != delivered and xact not in stream.copy.transactions
    if xact in stream.copy.transactions:
        return False
    return xact_seconds(xact) > context.written_until


def _delete_rows(context: UndoContext, stream: StreamState, ids: Sequence[str]) -> None:
    kind = ROW_KINDS[stream.header["kind"]]
    size = context.settings.insert_batch_size
    for start in range(0, len(ids), size):
        delete_rows(context.dest, kind, stream.header["dest_id"], ids[start : start + size])
