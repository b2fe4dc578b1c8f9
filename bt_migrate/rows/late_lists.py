"""Second pass over lists in rows: adds references that were left out of a list.

A merge replaces a whole list, and a list may hold what a user wrote, which no state file keeps. So
the list is rewritten again from the source's row. It is written if the destination's list is what
this tool wrote; a list that somebody changed there is kept and reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Set

from bt_migrate.api.transactions import xact_of
from bt_migrate.model.references import ATTACHMENT_TYPE, Path, strings, value_at
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.assignments import (
    Key,
    gone_rows,
    leave_changed,
    our_transactions,
    rows_in_dest,
    rows_shown,
    written_last,
)
from bt_migrate.rows.encode import RowEncoder
from bt_migrate.rows.rewrite import can_be_merged, list_around, merged_at
from bt_migrate.rows.unfinished import is_left_unfinished
from bt_migrate.state.row_records import DeferredReference
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.state.stream_state import StreamState

# The rows of the last page of a copy are not recorded one by one.
NEWEST = 1 << 64
# of the file that records which rows with a pending list are missing
LISTS_ENDING = "_absent_lists.json"


@dataclass
class PendingList:
    """A list in a row: the pending references of it, and the destination ids of those that resolve
    now.
    """

    place: Path
    keys: List[Key] = field(default_factory=list)
    resolved: List[Key] = field(default_factory=list)
    new_ids: Set[str] = field(default_factory=set)

    def is_left_as_written(self, wanted: Any, there: Any) -> bool:
        """Whether the destination's list is what this tool wrote or would write now."""
        late = {path: None for path, text in strings(wanted, ("list",)) if text in self.new_ids}
        return is_left_unfinished({"list": wanted}, {"list": there}, late, {})


class LateList(NamedTuple):
    """The fields to merge into a row. `is_ours`: this tool wrote the row last."""

    row_id: str
    fields: Dict[str, Any]
    keys: List[Key]
    is_ours: bool


def late_lists(
    catalog: Catalog, state: StreamState, seen: SeenRows, waiting: Iterable[DeferredReference]
) -> Iterator[LateList]:
    """Yields the lists of which a reference resolves now.

    A list is no longer pending if its row is gone (see `gone_rows`), or was written again in the
    source: a sync copies such a row as a whole.
    """
    pending = _pending(catalog, waiting)
    ids = list(pending)
    source_id = state.header["source_id"]
    encoder = RowEncoder(catalog, ROW_KINDS[state.header["kind"]])
    source = rows_shown(catalog.source, state.header["kind"], source_id, ids)
    copied = seen.outcomes_of(source_id, ids)
    ours = our_transactions(state, seen, ids)
    there = rows_in_dest(catalog, state, ours)
    our_ids = written_last(state, seen, there.rows, ours)
    absent = source.missing(ids) | there.missing(ids)
    gone = gone_rows(catalog, state, absent, LISTS_ENDING)
    seen.forget_deferred(key for row_id in gone for item in pending[row_id] for key in item.keys)
    for row_id in (row_id for row_id in ids if row_id in source.rows and row_id in there.rows):
        row, dest_row = source.rows[row_id], there.rows[row_id]
        out = encoder.rewritten(row)
        if xact_of(row.get("_xact_id")) > copied.get(row_id, (NEWEST, ""))[0]:
            out = {}
        for item in pending[row_id]:
            wanted, found = value_at(out, item.place), value_at(dest_row, item.place)
            late = LateList(row_id, merged_at(item.place, wanted), item.resolved, True)
            if wanted is None or wanted == found or _is_spilled(dest_row, item.place):
                seen.forget_deferred(item.keys if wanted is None else item.resolved)
            elif item.is_left_as_written(wanted, found):
                yield late._replace(is_ours=row_id in our_ids)
            else:
                leave_changed(state, seen, {row_id: item.keys})


def _pending(
    catalog: Catalog, waiting: Iterable[DeferredReference]
) -> Dict[str, List[PendingList]]:
    """Returns row id -> its lists of which a reference resolves now."""
    lists: Dict[str, Dict[Path, PendingList]] = {}
    for reference in waiting:
        if can_be_merged(reference.place):
            continue
        around = list_around(reference.place)
        of_row = lists.setdefault(reference.row_id, {})
        found = of_row.setdefault(around, PendingList(around))
        found.keys.append(reference.key)
        new_id = catalog.targets.resolve(reference.resources, reference.ref)
        if new_id:
            found.resolved.append(reference.key)
            found.new_ids.add(new_id)
    resolved = {
        row_id: [item for item in of_row.values() if item.resolved]
        for row_id, of_row in lists.items()
    }
    return {row_id: items for row_id, items in resolved.items() if items}


def _is_spilled(dest_row: Any, place: Path) -> bool:
    """Whether the field became an attachment, because the row is too large."""
    value = value_at(dest_row, place[:1])
    return isinstance(value, dict) and value.get("type") == ATTACHMENT_TYPE
