"""Rows that a killed copy sent and did not record, and that somebody edited in the destination.

The copy that continues sends rows without a record again, which would replace such an edit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Dict, Optional, Sequence, Set

from bt_migrate.api.btql import MAX_LIMIT, Bounds, transactions_query
from bt_migrate.api.transactions import before_xact, xact_of, xact_of_key
from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.rows.decide import remembered
from bt_migrate.rows.pump import SharedCopy
from bt_migrate.rows.read import RowSelection, pages
from bt_migrate.rows.streams import StreamCopy, bounds_of
from bt_migrate.state.sessions import KILLED_SLACK_S

Members = Dict[str, StreamCopy]  # by id of the destination's object


def note_rewritten(shared: SharedCopy, members: Sequence[StreamCopy]) -> None:
    """Note the rows in `rewritten` of their members.

    The other rows without a record were not written to since they were inserted. In a shard nothing
    is noted: the rows of other shards, in the same object, are in no record of this one.
    """
    continued = {member.stream.dest_id: member for member in members if _continues(member)}
    selection = _selection(shared, continued) if continued else None
    if selection is None:
        return
    kind = members[0].stream.kind
    limit = shared.catalog.settings.rows(kind.name).fetch_limit
    for page in pages(shared.catalog.dest, selection, limit=limit):
        shared.check()
        for row in page.rows:
            dest_id = row[kind.id_field] if len(continued) > 1 else next(iter(continued))
            if not _is_as_sent(continued[dest_id], row):
                continued[dest_id].rewritten[row["id"]] = remembered(kind, row)


def _continues(member: StreamCopy) -> bool:
    is_copy = member.above is None and not member.state.copy.replay and member.stream.part is None
    # A server that names no transactions would have to show all its rows.
    return member.continues and is_copy and bool(_last(member) or not member.resuming)


def _last(member: StreamCopy) -> int:
    """The destination's last recorded transaction, 0 if there is none."""
    last = member.seen.last_dest_xact(member.stream.source_id)
    return max([last, *member.state.copy.transactions])


def _selection(shared: SharedCopy, continued: Members) -> Optional[RowSelection]:
    """Returns where the rows can be, None if the destination has no unrecorded transaction."""
    kind = next(iter(continued.values())).stream.kind
    bounds = bounds_of(shared.catalog, kind)
    last = [_last(member) for member in continued.values()]
    if not all(last):
        # The rows from before the copy have lower keys.
        keys = [member.state.copy.before_key or "" for member in continued.values()]
        bounds = replace(bounds, after_key=min(keys) or None)
        return RowSelection(kind.name, list(continued), bounds)
    bounds = replace(bounds, after_xact=before_xact(min(last), KILLED_SLACK_S))
    written = _written(shared, kind.name, list(continued), bounds)
    if written is None:
        return RowSelection(kind.name, list(continued), bounds)
    recorded: Set[int] = set()
    for member in continued.values():
        recorded |= member.seen.transactions(member.stream.source_id)
        recorded.update(member.state.copy.transactions)
    first = min(written.keys() - recorded, default=0)
    if not first:
        return None
    rows = sum(count for xact, count in written.items() if xact >= first)
    return RowSelection(kind.name, list(continued), replace(bounds, after_xact=first - 1), rows)


def _written(
    shared: SharedCopy, kind_name: str, dest_ids: Sequence[str], bounds: Bounds
) -> Optional[Dict[int, int]]:
    """Returns transaction -> rows that it wrote last; None if the server does not name them all."""
    query = transactions_query(kind_name, dest_ids, bounds)
    try:
        groups = shared.catalog.dest.query(query).json
        written = {xact_of(group["xact"]): int(group["rows"]) for group in groups}
    except (ApiError, KeyError, TypeError, ValueError):
        return None
    return None if 0 in written or len(written) >= MAX_LIMIT else written


# assumption: rows_keep_key_and_created
def _is_as_sent(member: StreamCopy, row: JsonObject) -> bool:
    """Whether a row, if it is in no record of this copy, can only be one that the copy inserted."""
    stream = member.stream
    xact = xact_of(row.get("_xact_id"))
    ours = stream.fresh or member.seen.inserted(stream.source_id, [row["id"]])
    is_untouched = bool(ours) and xact == xact_of_key(row["_pagination_key"])
    return xact in member.state.copy.transactions or is_untouched
