"""At the end of a sync: find rows that the destination confirmed and does not show.

The destination counts the rows whose last transaction is one that it reported for a delivery of
this sync, so that rows and edits of other people do not count. Where the number is not as expected,
the rows are looked up by their ids. Rows that are not shown are sent once more.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Sequence, Set, Tuple

from bt_migrate.api.btql import OBJECTS_PER_QUERY, XACTS_PER_QUERY, Bounds
from bt_migrate.api.transactions import xact_of
from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.errors import ApiError
from bt_migrate.model.equality import DIGEST_BYTES, row_digest
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.outcomes import CREATED, FAILED, UPDATED
from bt_migrate.model.portions import portions
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.report.display import plural
from bt_migrate.rows.assignments import rows_shown, seconds_until_shown
from bt_migrate.rows.commit import loss_digest
from bt_migrate.rows.copy import send_again
from bt_migrate.rows.count import RowCounts, count_by_object
from bt_migrate.rows.prefetch import SourceReaders
from bt_migrate.rows.pump import SharedCopy
from bt_migrate.rows.read import looks
from bt_migrate.rows.rewrite import insertable_row
from bt_migrate.rows.streams import RowStream, close_copies, open_copy
from bt_migrate.state.row_records import DeliveredRow
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.state.stream_state import StreamState, save_streams
from bt_migrate.state.sync_marks import Round, mark_now

log = logging.getLogger("bt_migrate.rows")

NOT_SHOWN = "row_not_shown"
# while the program waits
SHOWN_LATER = "the destination does not show all rows yet:"


@dataclass(frozen=True)
class DeliveredStream:
    """A stream with rows that a sync delivered. `xacts`: the destination's transaction (0: not
    known) -> how many of the rows were delivered in it.
    """

    state: StreamState
    xacts: Dict[int, int]

    @property
    def dest_id(self) -> str:
        return str(self.state.header["dest_id"])

    @property
    def rows(self) -> int:
        return sum(self.xacts.values())

    @property
    def names_all(self) -> bool:
        """Whether the destination named the transactions of all of these rows."""
        return 0 not in self.xacts

    def is_shown_with(self, counted: Optional[int]) -> bool:
        """Whether this number of rows, see `_counted`, proves that the delivered rows are there."""
        if self.names_all or counted is None:
            return counted == self.rows
        counts = self.state.counts
        # Rows that were seen before are among the counted ones, and rows of others may be.
        return counted >= max(self.rows, counts[CREATED] + counts[UPDATED])

    @property
    def transactions(self) -> Set[int]:
        """All in which the rows can have been written last, also by their comments."""
        first = min(self.xacts)
        return {*self.xacts, *(xact for xact in self.state.copy.transactions if xact > first)}


# A stream and its rows that are not shown.
LostRows = Tuple[StreamState, List[DeliveredRow]]


def confirm_deliveries(
    catalog: Catalog, copier: AttachmentCopier, counts: RowCounts, halt: threading.Event
) -> None:
    """Send rows that are not shown once more; those that are not shown then are failures.

    The next sync tries them again. Sends no request if no row was delivered.
    """
    lost = _find_lost(catalog)
    if not lost:
        return
    with ThreadPoolExecutor(catalog.settings.max_concurrent, thread_name_prefix="insert") as pool:
        shared = SharedCopy(catalog, copier, pool, SourceReaders(catalog, counts), halt)
        shared.created.set()
        for state, rows in lost:
            _send_again(shared, state, rows)
    _find_lost(catalog)


@contextlib.contextmanager
def _opened(state: StreamState) -> Iterator[SeenRows]:
    seen = SeenRows(state.seen_path)
    try:
        yield seen
    finally:
        seen.close()


# -- finding


def _find_lost(catalog: Catalog) -> List[LostRows]:
    """Returns the rows that are not shown, after a wait for rows that may be shown later.

    They are recorded as failed, the other rows as shown.
    """
    streams = [_delivered(state) for state in catalog.run.all_streams() if state.sync.unconfirmed]
    lost: List[LostRows] = []
    unknown: List[DeliveredStream] = []
    for stream in _not_as_counted(catalog, streams):
        try:
            rows = _not_shown(catalog, stream.state)
        except ApiError as error:
            # The stream stays behind, and its rows unconfirmed.
            stream.state.error = f"the destination does not show its rows: {error}"
            stream.state.done = False
            unknown.append(stream)
            continue
        if rows:
            lost.append((stream.state, rows))
            _note_lost(stream.state, rows)
    for stream in streams:
        if stream not in unknown:
            with _opened(stream.state) as seen:
                seen.forget_unconfirmed()
            stream.state.sync.unconfirmed = 0
    save_streams([stream.state for stream in streams])
    return lost


def _delivered(state: StreamState) -> DeliveredStream:
    with _opened(state) as seen:
        return DeliveredStream(state, seen.unconfirmed(state.header["source_id"]))


def _not_as_counted(catalog: Catalog, streams: Sequence[DeliveredStream]) -> List[DeliveredStream]:
    """Returns the streams whose rows cannot be counted, or are not as many as were delivered.

    A row that failed may be there too, in one of these transactions, so a count proves nothing.
    """
    uncounted = [stream for stream in streams if stream.state.counts[FAILED]]
    pending = [stream for stream in streams if not stream.state.counts[FAILED]]
    most_s = seconds_until_shown(catalog) if pending else 0.0
    with catalog.run.live.waiting(SHOWN_LATER, most_s):
        for _ in looks(catalog.dest, most_s):
            counts = _counted(catalog, pending)
            uncounted += [stream for stream in pending if counts[stream.dest_id] is None]
            pending = [stream for stream in pending if counts[stream.dest_id] is not None]
            pending = [
                stream for stream in pending if not stream.is_shown_with(counts[stream.dest_id])
            ]
            if not pending:
                break
    return [*uncounted, *pending]


def _counted(catalog: Catalog, streams: Sequence[DeliveredStream]) -> Dict[str, Optional[int]]:
    """Returns object of the destination -> how many of the delivered rows it shows.

    None where it does not count them.
    """
    alike: Dict[Tuple[str, bool], List[DeliveredStream]] = {}
    for stream in streams:
        alike.setdefault((stream.state.header["kind"], stream.names_all), []).append(stream)
    rows_of: Dict[str, Optional[int]] = {}
    for (kind_name, names_all), of_kind in alike.items():
        for portion in portions(of_kind, OBJECTS_PER_QUERY):
            places = _by_transactions(portion) if names_all else [_since_start(catalog)]
            dest_ids = [stream.dest_id for stream in portion]
            counts = [
                count_by_object(catalog, catalog.dest, kind_name, dest_ids, bounds)
                for bounds in places
            ]
            for stream in portion:
                rows = [count[stream.dest_id].rows for count in counts]
                total = None if None in rows else sum(filter(None, rows))
                rows_of[stream.dest_id] = total
    return rows_of


def _by_transactions(streams: Sequence[DeliveredStream]) -> List[Bounds]:
    xacts = sorted({xact for stream in streams for xact in stream.transactions})
    return [Bounds(xacts=portion) for portion in portions(xacts, XACTS_PER_QUERY)]


def _since_start(catalog: Catalog) -> Bounds:
    """Returns the bounds of what was written since this process began, by the server's clock.

    For a destination that does not name its transactions.
    """
    began_s = catalog.dest.clock.earliest_s() - (time.monotonic() - catalog.run.live.began)
    return Bounds(after_xact=mark_now(began_s))


def _not_shown(catalog: Catalog, state: StreamState) -> List[DeliveredRow]:
    """Returns the rows that the destination does not show, found by their ids. Raises ApiError."""
    with _opened(state) as seen:
        portions = seen.unconfirmed_rows(state.header["source_id"])
        absent = [
            rows for rows in (_absent(catalog, state, seen, rows) for rows in portions) if rows
        ]
        for _ in looks(catalog.dest, seconds_until_shown(catalog)) if absent else ():
            absent = [_absent(catalog, state, seen, rows) for rows in absent]
            if not any(absent):
                break
        return [row for rows in absent for row in rows]


def _absent(
    catalog: Catalog, state: StreamState, seen: SeenRows, rows: Sequence[DeliveredRow]
) -> List[DeliveredRow]:
    """Returns those of the rows that the destination does not show as they were delivered."""
    kind_name, source_id = state.header["kind"], state.header["source_id"]
    ids = [row.row_id for row in rows]
    shown = rows_shown(catalog.dest, kind_name, state.header["dest_id"], ids)
    sent = seen.sending(source_id, list(shown.rows))
    older = {
        row.row_id
        for row in rows
        if row.row_id in shown.rows
        and _is_older(row, shown.rows[row.row_id], sent.get(row.row_id, (b"", 0))[0], kind_name)
    }
    lost = shown.missing(ids) | older
    return [row for row in rows if row.row_id in lost]


def _is_older(row: DeliveredRow, there: JsonObject, digests: bytes, kind_name: str) -> bool:
    """Whether the destination's row was written before the row was delivered.

    `digests`: of what was sent, then of the row that was there before, see `SeenRows.sending`.
    """
    xact = xact_of(there.get("_xact_id"))
    if row.dest_xact:
        return 0 < xact < row.dest_xact
    digest = row_digest(insertable_row(ROW_KINDS[kind_name], there))
    return digest == digests[DIGEST_BYTES:] != digests[:DIGEST_BYTES]


def _note_lost(state: StreamState, rows: Sequence[DeliveredRow]) -> None:
    """Record the rows as failed. The state is still to be saved."""
    notes = FindingCounts(state.findings)
    for row in rows:
        notes.add_acceptable(NOT_SHOWN, row.row_id, loss_digest(row.row_id, row.xact))
        if state.counts[row.outcome]:  # else an earlier sync, which was killed, delivered it
            state.counts[row.outcome] -= 1
            state.counts[FAILED] += 1
    state.findings = notes.records()
    with _opened(state) as seen:
        # Before this sync, so that sending the rows again in this sync is another try.
        seen.record_lost(rows, state.sync.round - 1)
        state.failed = seen.all_failed()
    log.error(
        "rows of %s %r: the destination confirmed %s that it does not show",
        state.header["kind"],
        state.header["name"],
        plural(len(rows), "row"),
        extra={"event": "rows_not_shown", "source_id": state.header["source_id"]},
    )


# -- sending again


def _send_again(shared: SharedCopy, state: StreamState, rows: Sequence[DeliveredRow]) -> None:
    """Send the rows of a stream once more. What an API error leaves stays as it was recorded."""
    started = time.monotonic()
    header = state.header
    stream = RowStream(
        ROW_KINDS[header["kind"]],
        header["project"],
        header["source_id"],
        header["dest_id"],
        header["name"],
        state.copy.made,
    )
    round_ = Round(state.sync.round, state.sync.above or 0, 0)
    member = open_copy(shared.catalog, stream, round_)
    try:
        send_again(shared, member, [row.row_id for row in rows])
        _forget_lost(member.state, len(rows))
    except ApiError as error:
        member.error = error
    finally:
        close_copies([member], time.monotonic() - started)


def _forget_lost(state: StreamState, rows: int) -> None:
    """Take back what `_note_lost` counted of rows that have another outcome now."""
    with state.lock:
        counted = min(rows, state.counts[FAILED])
        state.counts[FAILED] -= counted
        state.counts["fetched"] -= counted
        state.findings = [note for note in state.findings if note["kind"] != NOT_SHOWN]
