"""Delete the rows that a run inserted into objects that existed before it."""

from __future__ import annotations

import contextlib
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set, Tuple

from bt_migrate.api.btql import Bounds
from bt_migrate.api.transactions import xact_of, xact_seconds
from bt_migrate.errors import ApiError
from bt_migrate.migration.undo_objects import CHANGED_SINCE_RUN, UndoContext
from bt_migrate.model.equality import DIGEST_BYTES, row_digest
from bt_migrate.model.outcomes import CREATED
from bt_migrate.model.resources import ROW_KINDS, holder_of_rows
from bt_migrate.objects.proof import created_seconds
from bt_migrate.report.display import plural, quoted
from bt_migrate.rows.decide import is_as_inserted
from bt_migrate.rows.facets import learn_facets
from bt_migrate.rows.insert import delete_rows
from bt_migrate.rows.read import RowSelection, pages
from bt_migrate.rows.rewrite import insertable_row
from bt_migrate.state.live_counts import Task
from bt_migrate.state.seen_rows import ANY_ROUND, SeenRows
from bt_migrate.state.stream_state import StreamState

MOST_REFUSED = 100_000
# between the clocks of source and destination
SAME_MOMENT_S = 2.0


def streams_to_undo(
    context: UndoContext, created_ids: Set[Tuple[str, str]]
) -> Iterator[StreamState]:
    """Yields the streams of objects that existed before the run.

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


def undo_rows(context: UndoContext, stream: StreamState, task: Task) -> int:
    """Delete the rows of one stream, or only count them without --yes; returns how many."""
    count = 0
    changed = 0
    place = place_of(stream)
    try:
        for ids, left_count in _own_rows(context, stream):
            if context.settings.yes and ids:
                _delete_rows(context, stream, ids)
            task.add({stream.header["source_id"]: len(ids)})
            count += len(ids)
            changed += left_count
        if context.settings.yes and count:
            # An answer of 200 does not prove that the rows were deleted.
            still = sum(len(ids) for ids, _ in _own_rows(context, stream))
            if still:
                context.remaining.append(
                    f"{plural(still, 'row')} {place}: still shown; run the same command again"
                )
    except ApiError as error:
        context.remaining.append(f"rows {place}: {error}")
    if count:
        context.say_done("delete", f"{plural(count, 'row')} {place}")
    _note_left_rows(context, stream, count, changed)
    return count


def _note_left_rows(context: UndoContext, stream: StreamState, count: int, changed: int) -> None:
    place = place_of(stream)
    hidden = 0 if context.again else stream.counts[CREATED] - count - changed
    if hidden > 0:
        context.remaining.append(
            f"{plural(hidden, 'row')} {place}: not shown, maybe not yet; run the same command again"
        )
    if stream.copy.overwritten:
        context.remaining.append(
            f"up to {plural(stream.copy.overwritten, 'row')} {place}: existed before and were"
            " overwritten; their earlier content is not known"
        )
    if changed:
        context.remaining.append(f"{plural(changed, 'row')} {place}: {CHANGED_SINCE_RUN}")


def place_of(stream: StreamState) -> str:
    """`of logs 'Support'`"""
    header = stream.header
    of = "" if header["kind"] == "logs" else f" of {quoted(header['project'])}"
    return f"of {header['kind']} {quoted(header['name'])}{of}"


def _own_rows(context: UndoContext, stream: StreamState) -> Iterator[Tuple[List[str], int]]:
    """Yields for each page (ids of rows that the run inserted, number of those that stay)."""
    kind, dest_id = stream.header["kind"], stream.header["dest_id"]
    path = stream.seen_path
    if not path.exists():
        return
    with contextlib.closing(SeenRows(path)) as seen:
        limit = context.settings.rows(kind).fetch_limit
        if not _transactions_decide(stream):
            # The content does, with its facets.
            learn_facets(context.dest, kind, [dest_id], Bounds())
        selection = RowSelection(kind, [dest_id], Bounds(after_key=stream.copy.before_key))
        for page in pages(context.dest, selection, limit=limit):
            context.dest.check()
            yield _split_page(context, stream, seen, page.rows)


def _split_page(
    context: UndoContext, stream: StreamState, seen: SeenRows, rows: Sequence[Dict[str, Any]]
) -> Tuple[List[str], int]:
    source_id = stream.header["source_id"]
    ids = [row["id"] for row in rows]
    brought = set(seen.inserted(source_id, ids))
    rows = [row for row in rows if row["id"] in brought]
    if context.settings.changed:
        return [row["id"] for row in rows], 0
    delivered = seen.dest_xacts(source_id, ids)
    sent = seen.sending(source_id, ids)
    refused = set(seen.failed(source_id, ANY_ROUND, MOST_REFUSED)) - delivered.keys()
    ours = []
    for row in rows:
        recorded = delivered.get(row["id"], 0), sent.get(row["id"], (b"", 0))[0]
        if row["id"] not in refused and _is_ours(stream, row, recorded):
            ours.append(row["id"])
    return ours, len(rows) - len(ours)


def _is_ours(stream: StreamState, row: Dict[str, Any], recorded: Tuple[int, bytes]) -> bool:
    """Whether the run wrote the row last.

    `recorded`: (transaction of the delivery, or 0; digest of what was sent, or empty). The
    transaction proves it. The content does where the server names none, or where the run was killed
    before it recorded the delivery. What is not proven stays.
    """
    xact = xact_of(row.get("_xact_id"))
    delivered, digest = recorded
    if xact in stream.copy.transactions or (delivered and xact == delivered):
        return True
    if delivered or _transactions_decide(stream):
        return False
    return row_digest(insertable_row(ROW_KINDS[stream.header["kind"]], row)) in _digests(digest)


def _transactions_decide(stream: StreamState) -> bool:
    """Whether the transactions of all deliveries are known."""
    return bool(stream.done and stream.copy.transactions)


def own_xacts(stream: StreamState) -> Set[int]:
    """Returns the known transactions in which the run wrote rows of the stream.

    None of a server that names none; not all if the run was killed before it recorded them.
    """
    xacts = set(stream.copy.transactions)
    path = stream.seen_path
    if path.exists():
        with contextlib.closing(SeenRows(path)) as seen:
            xacts |= seen.transactions(stream.header["source_id"])
    return xacts


def rows_of_others(
    context: UndoContext, kind: str, dest_id: str, stream: Optional[StreamState]
) -> int:
    """Returns how many rows of an object somebody else wrote last. Reads all rows of the object.

    Without --changed, which deletes them, it stops after the first page with such rows.
    """
    count = 0
    xacts = own_xacts(stream) if stream else set()
    learn_facets(context.dest, kind, [dest_id], Bounds())
    limit = context.settings.rows(kind).fetch_limit
    for page in pages(context.dest, RowSelection(kind, [dest_id], Bounds()), limit=limit):
        context.dest.check()
        unknown = [row for row in page.rows if xact_of(row.get("_xact_id")) not in xacts]
        count += sum(not ours for ours in _are_ours(context, kind, stream, unknown))
        if count and not context.settings.changed:
            break
    return count


def _are_ours(
    context: UndoContext, kind: str, stream: Optional[StreamState], rows: Sequence[Dict[str, Any]]
) -> Iterator[bool]:
    """Yields for each row of an unknown transaction whether the run wrote it last.

    The content that was sent proves it. Time, which may be a gateway's, decides only about a row
    that was delivered and of which nothing else is known, and about one of a copy that was killed,
    if nobody wrote to it since it was inserted and it was created before the last start.
    """
    ids = [row["id"] for row in rows]
    sent: Dict[str, Tuple[bytes, int]] = {}
    delivered: Dict[str, int] = {}
    path = stream.seen_path if stream else None
    if stream and path and path.exists():
        with contextlib.closing(SeenRows(path)) as seen:
            sent = seen.sending(stream.header["source_id"], ids)
            delivered = seen.dest_xacts(stream.header["source_id"], ids)
    for row in rows:
        if row["id"] in sent:
            yield row_digest(insertable_row(ROW_KINDS[kind], row)) in _digests(sent[row["id"]][0])
        elif stream and stream.copied and delivered.get(row["id"], -1):
            yield False
        else:
            in_time = xact_seconds(xact_of(row.get("_xact_id"))) <= context.written_until
            is_older = created_seconds(row) <= context.last_start + SAME_MOMENT_S
            is_recorded = row["id"] in delivered and not delivered[row["id"]]
            yield in_time and (is_recorded or (is_older and is_as_inserted(row)))


def _digests(sent: bytes) -> Tuple[bytes, bytes]:
    """Of what was sent last, and of what the row was before, if it was ours."""
    return sent[:DIGEST_BYTES], sent[DIGEST_BYTES:]


def _delete_rows(context: UndoContext, stream: StreamState, ids: Sequence[str]) -> None:
    kind = ROW_KINDS[stream.header["kind"]]
    size = context.settings.insert_batch_size
    for start in range(0, len(ids), size):
        delete_rows(context.dest, kind, stream.header["dest_id"], ids[start : start + size])
