"""Rows that a killed copy may have sent without recording them.

The copy that continues sends rows without a record again. Somebody may have edited such a row in
the destination meanwhile, so `RowDecider` looks them up first, in the streams that are noted here.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import Dict, List, Optional, Sequence, Set

from bt_migrate.api.btql import MAX_LIMIT, transactions_query
from bt_migrate.api.transactions import before_xact, xact_of
from bt_migrate.config.settings import Settings
from bt_migrate.errors import ApiError
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.rows.pump import SharedCopy
from bt_migrate.rows.read import looks
from bt_migrate.rows.streams import StreamCopy, bounds_of
from bt_migrate.state.run_record import RunRecord
from bt_migrate.state.sessions import KILLED_SLACK_S

log = logging.getLogger("bt_migrate.rows")

Written = Dict[int, int]  # transaction -> rows that it wrote last


def note_in_flight(settings: Settings, record: RunRecord) -> None:
    """Record how many rows a start can have in flight, the most of all starts of the run.

    Batches are sent in the order of the rows, unless several readers begin at different places.
    """
    for name in ROW_KINDS:
        most = settings.max_concurrent * settings.rows(name).insert_batch_size
        if settings.read_streams > 1:
            most = sys.maxsize
        record.in_flight[name] = max(most, record.in_flight.get(name, 0))


def note_doubtful(shared: SharedCopy, members: Sequence[StreamCopy]) -> None:
    """Set `doubtful` of the members, which are read together.

    One query shows whether the destination has a transaction that is in no record. A server that
    does not name the transactions of its writes has none in the records.
    """
    continued = [member for member in members if member.continues and member.above is None]
    if not continued:
        return
    written = _shown(shared, continued)
    recorded: Set[int] = set()
    for member in continued:
        recorded |= member.seen.transactions(member.stream.source_id)
        recorded.update(member.state.copy.transactions)
    doubtful = written is None or bool(written.keys() - recorded)
    for member in continued:
        member.doubtful = member.doubtful or doubtful


def _shown(shared: SharedCopy, members: Sequence[StreamCopy]) -> Optional[Written]:
    """Returns what the destination shows, once it shows the last recorded delivery.

    A destination may show rows late. It is waited for once, for --verify-wait seconds.
    """
    wait_s = 0.0 if shared.waited_for_rows else shared.catalog.settings.verify_wait
    written = None
    for _ in looks(shared.catalog.dest, wait_s):
        written = _written(shared, members)
        if written is None or _is_shown(members, max(written, default=0)):
            return written
        shared.waited_for_rows = True
    log.warning(
        "rows of %s %r: the destination does not show the last rows that were delivered;"
        " edits of rows that it does not show yet may be overwritten",
        members[0].stream.kind.name,
        members[0].stream.name,
        extra={"event": "rows_not_shown"},
    )
    return None


def _is_shown(members: Sequence[StreamCopy], newest: int) -> bool:
    """Whether rows are shown up to the last recorded delivery, if `newest` wrote the last of them.

    No row shows a deletion, which may be the last delivery.
    """
    stores = [(member.seen, member.stream.source_id) for member in members]
    return all(
        seen.last_dest_xact(source_id) <= newest or seen.last_held_xact(source_id) <= newest
        for seen, source_id in stores
    )


def _last(member: StreamCopy) -> int:
    """The destination's last recorded transaction, 0 if there is none."""
    last = member.seen.last_dest_xact(member.stream.source_id)
    return max([last, *member.state.copy.transactions])


def _written(shared: SharedCopy, members: Sequence[StreamCopy]) -> Optional[Written]:
    """Returns what the destination wrote since the copies began, or since the oldest of their last
    recorded deliveries; None if the server does not name all transactions.
    """
    kind = members[0].stream.kind
    bounds = bounds_of(shared.catalog, kind)
    last: List[int] = [_last(member) for member in members]
    if all(last):
        bounds = replace(bounds, after_xact=before_xact(min(last), KILLED_SLACK_S))
    else:
        # The rows from before the copy have lower keys.
        keys = [member.state.copy.before_key or "" for member in members]
        bounds = replace(bounds, after_key=min(keys) or None)
    query = transactions_query(kind.name, [member.stream.dest_id for member in members], bounds)
    try:
        groups = shared.catalog.dest.query(query).json
        written = {xact_of(group["xact"]): int(group["rows"]) for group in groups}
    except (ApiError, KeyError, TypeError, ValueError):
        return None
    return None if 0 in written or len(written) >= MAX_LIMIT else written
