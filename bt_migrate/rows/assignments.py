"""Second pass over review assignments: adds assigned users who became members later.

A merge replaces the whole list of users. So the destination's row is read first, and a list that
somebody changed there is kept and reported.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Sequence, Set, Tuple

from bt_migrate.api.client import Api
from bt_migrate.api.transactions import xact_of, xact_seconds
from bt_migrate.model.equality import DIGEST_BYTES, row_digest
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.portions import portions
from bt_migrate.model.resource_table import USERS
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.absent_rows import note_absent
from bt_migrate.rows.decide import CHANGED_THERE
from bt_migrate.rows.read import found_rows
from bt_migrate.rows.rewrite import ASSIGNMENTS, insertable_row, is_assignment
from bt_migrate.rows.unfinished import is_left_unfinished
from bt_migrate.state.row_records import DeferredReference
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.state.stream_state import StreamState

IDS_PER_QUERY = 100
# A row delivered less than this many seconds ago may not be visible to a query yet.
SHOWN_AFTER_S = 60
FIRST_PAUSE_S = 0.5
# of the file that records which rows with pending assignments are missing
USERS_ENDING = "_absent_users.json"

Key = Tuple[str, str, str]  # of a waiting reference: (object, row id, path)


@dataclass
class RowAssignments:
    """The users to whom a row is assigned.

    `users`: destination ids in the source's order, None for a user without a counterpart. `late`:
    position of each user who was left out -> the key of that pending reference.
    """

    object_id: str
    row_id: str
    users: Sequence[Any]
    late: Dict[int, Key] = field(default_factory=dict)

    @property
    def wanted(self) -> List[Any]:
        return [user for user in self.users if user is not None]

    @property
    def resolved(self) -> List[Key]:
        """Returns the pending references whose users have a counterpart now."""
        return [key for position, key in self.late.items() if self.users[position] is not None]

    def is_left_as_written(self, there: Any) -> bool:
        """Whether the destination's list is what this tool wrote or would write now."""
        positions = [position for position, user in enumerate(self.users) if user is not None]
        late = {
            ("users", place): None
            for place, position in enumerate(positions)
            if position in self.late
        }
        return is_left_unfinished({"users": self.wanted}, {"users": there}, late, {})


class LateAssignment(NamedTuple):
    """A row and its whole list of users. `is_ours`: this tool wrote the row last."""

    row: RowAssignments
    is_ours: bool


def late_assignments(
    catalog: Catalog, state: StreamState, seen: SeenRows, waiting: Iterable[DeferredReference]
) -> Iterator[LateAssignment]:
    """Yields the rows whose users have a counterpart now.

    A row that is gone (see `gone_rows`), or whose users somebody changed, is no longer pending.
    """
    rows = [row for row in _rows(catalog, waiting) if row.resolved]
    ids = [row.row_id for row in rows]
    ours = our_transactions(state, seen, ids)
    there = rows_in_dest(catalog, state, ours)
    gone = gone_rows(catalog, state, there.missing(ids), USERS_ENDING)
    changed: Dict[str, Iterable[Key]] = {}
    our_ids = written_last(state, seen, there.rows, ours)
    for row in rows:
        dest_row = there.rows.get(row.row_id)
        users = _assigned_users(dest_row) if dest_row else None
        if users == row.wanted:
            seen.forget_deferred(row.resolved)
        elif dest_row and row.is_left_as_written(users):
            yield LateAssignment(row, row.row_id in our_ids)
        elif dest_row:
            changed[row.row_id] = row.late.values()
        elif row.row_id in gone:
            seen.forget_deferred(row.late.values())
    leave_changed(state, seen, changed)


def leave_changed(state: StreamState, seen: SeenRows, changed: Mapping[str, Iterable[Key]]) -> None:
    """Report rows with a list that somebody changed; only then are they no longer pending.

    `changed`: row id -> the pending references of the list.
    """
    if not changed:
        return
    notes = FindingCounts(state.findings)
    for row_id in changed:
        notes.add("row_differs", row_id, detail=CHANGED_THERE)
    state.findings = notes.records()
    state.save()
    for keys in changed.values():
        seen.forget_deferred(keys)


def _assigned_users(row: Mapping[str, Any]) -> Any:
    """Returns the list of users in a row of the destination, or what somebody put in its place."""
    metadata = row.get("metadata")
    return metadata.get(ASSIGNMENTS) if isinstance(metadata, dict) else None


def _rows(catalog: Catalog, waiting: Iterable[DeferredReference]) -> List[RowAssignments]:
    rows: Dict[Tuple[str, str], RowAssignments] = {}
    for reference in waiting:
        if not is_assignment(reference.place):
            continue
        holder = reference.object_id, reference.row_id
        if holder not in rows:
            users = [_counterpart(catalog, user) for user in json.loads(reference.kept)]
            rows[holder] = RowAssignments(*holder, users)
        rows[holder].late[reference.place[-1]] = reference.key
    return list(rows.values())


def _counterpart(catalog: Catalog, user: Any) -> Any:
    return catalog.targets.resolve((USERS.name,), user) if isinstance(user, str) else user


@dataclass(frozen=True)
class ShownRows:
    """The rows that an organization shows, by id, and the ids that it refuses in a query."""

    rows: Dict[str, JsonObject] = field(default_factory=dict)
    refused: Set[str] = field(default_factory=set)

    def missing(self, ids: Iterable[str]) -> Set[str]:
        """Returns the ids of rows that are known not to be shown."""
        return set(ids).difference(self.rows, self.refused)


def rows_shown(api: Api, kind: str, object_id: str, ids: Sequence[str]) -> ShownRows:
    shown = ShownRows()
    for portion in portions(ids, IDS_PER_QUERY):
        rows, refused = found_rows(api, kind, [object_id], portion)
        shown.rows.update((row["id"], row) for row in rows)
        shown.refused.update(refused)
    return shown


def rows_in_dest(catalog: Catalog, state: StreamState, ours: Mapping[str, Set[int]]) -> ShownRows:
    """Returns those rows of a stream that the destination shows.

    `ours`: as of `our_transactions`. Waits for rows that were delivered a moment ago. A merge into
    a row that somebody deleted meanwhile would make a row of nothing but references.
    """
    kind, dest_id = state.header["kind"], state.header["dest_id"]
    there = ShownRows()
    missing = set(ours)
    pause_s = FIRST_PAUSE_S
    while True:
        left_s = seconds_until_shown(catalog)
        found = rows_shown(catalog.dest, kind, dest_id, list(missing))
        there.rows.update(found.rows)
        there.refused.update(found.refused)
        shown_s = catalog.dest.clock.latest_s() - SHOWN_AFTER_S
        missing = there.missing(ours)
        if left_s <= 0 or not any(
            xact_seconds(max(ours[row_id], default=0)) > shown_s for row_id in missing
        ):
            return there
        catalog.dest.transport.wait(min(pause_s, left_s))
        pause_s *= 2


# assumption: fresh_rows_are_shown
def seconds_until_shown(catalog: Catalog) -> float:
    """Returns how long rows that the run delivered may still take until they are shown."""
    dest = catalog.dest
    ends = [session.wrote_until or 0.0 for session in catalog.run.record.sessions]
    last_write_s = max(dest.transport.last_write_s, *ends, 0.0)
    since_s = max(0.0, dest.clock.earliest_s() - last_write_s)
    return max(0.0, catalog.settings.verify_wait - since_s)


def our_transactions(
    state: StreamState, seen: SeenRows, row_ids: Sequence[str]
) -> Dict[str, Set[int]]:
    """Returns row id -> the transactions of the destination in which this tool may have written
    it last.
    """
    delivered = seen.dest_xacts(state.header["source_id"], row_ids)
    all_rows = set(state.copy.transactions)
    return {row_id: {*all_rows, delivered.get(row_id, 0)} - {0} for row_id in row_ids}


def written_last(
    state: StreamState,
    seen: SeenRows,
    dest_rows: Mapping[str, JsonObject],
    ours: Mapping[str, Set[int]],
) -> Set[str]:
    """Returns the ids of those of the destination's rows that this tool wrote last.

    Its transaction shows that, `ours` as of `our_transactions`; where the server names none, the
    content that was sent does.
    """
    sent = seen.sending(state.header["source_id"], list(dest_rows))
    kind = ROW_KINDS[state.header["kind"]]
    return {
        row_id
        for row_id, row in dest_rows.items()
        if xact_of(row.get("_xact_id")) in ours[row_id]
        or (
            row_id in sent
            and row_digest(insertable_row(kind, row)) == sent[row_id][0][:DIGEST_BYTES]
        )
    }


def gone_rows(
    catalog: Catalog, state: StreamState, absent: Iterable[str], ending: str
) -> List[str]:
    """Returns those of the missing rows that have been missing for so long that they are gone."""
    return note_absent(state, absent, int(catalog.source.clock.earliest_s()), ending)
