"""Deletes destination rows that were deleted in the source.

Only rows that this tool inserted and that nobody changed in the destination are deleted. They are
found by comparing the number of rows, then the number per day, then the ids. They are looked up in
the source once more, and --max-deletes limits their number.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from dataclasses import dataclass, field
from typing import Container, Dict, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.api.answers import keys_after
from bt_migrate.api.btql import MAX_LIMIT, OBJECTS_PER_QUERY, Bounds, days_query, ids_query
from bt_migrate.api.client import Api
from bt_migrate.api.transactions import xact_of
from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.portions import portions
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.report.display import plural
from bt_migrate.rows.absent_rows import forget_absent, note_absent
from bt_migrate.rows.assignments import rows_shown, seconds_until_shown
from bt_migrate.rows.commit import loss_digest
from bt_migrate.rows.count import Summary, count_by_object, day_ranges, summaries
from bt_migrate.rows.decide import RowDecider
from bt_migrate.rows.dest_rows import IDS_LOOKED_UP
from bt_migrate.rows.insert import delete_rows
from bt_migrate.rows.read import found_rows, looks
from bt_migrate.rows.streams import RowStream, StreamCopy, bounds_of, close_copies, open_copy
from bt_migrate.state.sqlite import id_bytes, id_set, id_text
from bt_migrate.state.sync_marks import Round

log = logging.getLogger("bt_migrate.rows")

NOT_DELETED = "row_not_deleted"


@dataclass
class GoneRows:
    """Rows of one object that were deleted in the source. Their ids are in the caller's database.

    `rows`: how many are to be deleted. `waiting`: how many were missing for the first time, or only
    since recently. `changed`: how many were changed in the destination and stay. `held`: how many
    rows the destination had before. `deleted`: row id -> the destination's transaction in which it
    was deleted. `still`: ids of those that it still shows.
    """

    member: StreamCopy
    held: int
    rows: int = 0
    waiting: int = 0
    changed: int = 0
    example: str = ""
    deleted: Dict[str, int] = field(default_factory=dict)
    still: List[str] = field(default_factory=list)
    # False if the API refused the search
    was_searched: bool = True
    # In a plan: the destination lacks rows that were written after this transaction.
    unsent_after: Optional[int] = None
    # how many queries of the source the search took
    queries: int = 0


def propagate_deletes(
    catalog: Catalog, kind_name: str, streams: Sequence[RowStream], round_: Round
) -> None:
    """Delete the rows that are gone, in streams of a kind that this sync completed.

    If that is more than --max-deletes allows, nothing is deleted and a finding is added.
    """
    complete = {
        state.header["source_id"]
        for state in catalog.run.all_streams()
        if state.done and state.header["kind"] == kind_name
    }
    with gone_store() as db:
        search = GoneSearch(catalog, kind_name, round_, db)
        search.look([stream for stream in streams if stream.source_id in complete])
        too_many = search.exceeds_limit
        if too_many:
            _log_too_many(search)
        for gone_rows in search.gone:
            if gone_rows.rows and not too_many:
                _try_to_delete(catalog, gone_rows, db)
        _find_still_shown(catalog, kind_name, search.gone)
        for gone_rows in search.gone:
            _close(gone_rows, too_many)


@contextlib.contextmanager
def gone_store() -> Iterator[sqlite3.Connection]:
    """Yields a database for the ids of rows that are gone."""
    # Without a name, SQLite makes a private temporary file and removes it.
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as db:
        db.execute(
            "create table gone (object text, id blob, primary key (object, id)) without rowid"
        )
        yield db


def _log_too_many(search: GoneSearch) -> None:
    log.error(
        "%s rows of %s are gone from the source, of %s; --max-deletes allows %s;"
        " none was deleted: check the source; to delete them, run again with --max-deletes %s",
        f"{search.rows:,}",
        search.kind_name,
        f"{search.there:,}",
        f"{search.allowed:,}",
        search.rows,
        extra={"event": "too_many_deletes"},
    )


# -- finding


@dataclass
class GoneSearch:
    """Looks for the rows of a kind that are gone from the source, and deletes nothing.

    `db`: see `gone_store`. `there`: how many rows the destination has.
    """

    catalog: Catalog
    kind_name: str
    round_: Round
    db: sqlite3.Connection
    there: int = 0
    gone: List[GoneRows] = field(default_factory=list)

    def look(self, streams: Sequence[RowStream], unsent: Container[str] = ()) -> None:
        """Search the streams. `unsent`: objects with rows that the destination does not have yet,
        so that equal numbers of rows prove nothing.
        """
        for stream, wanted, held in _counted(self.catalog, self.kind_name, streams):
            is_unsent = stream.source_id in unsent
            self.there += max(wanted.rows, held.rows) if is_unsent else held.rows
            if is_unsent or wanted.rows != held.rows:
                self._search(stream, wanted.rows, held.rows, is_unsent=is_unsent)

    def _search(self, stream: RowStream, wanted: int, held: int, *, is_unsent: bool) -> None:
        queries = self.catalog.source.throttle.queries
        member = open_copy(self.catalog, stream, self.round_)
        gone = GoneRows(member, held, unsent_after=member.above if is_unsent else None)
        gone = _find_gone(self.catalog, gone, wanted, self.db)
        _hold_unconfirmed(self.catalog, gone, self.db)
        gone.queries = self.catalog.source.throttle.queries - queries
        self.gone.append(gone)

    @property
    def rows(self) -> int:
        """How many rows are gone, confirmed or not."""
        return sum(gone_rows.rows + gone_rows.waiting for gone_rows in self.gone)

    @property
    def allowed(self) -> int:
        return self.catalog.settings.may_delete(self.there)

    @property
    def exceeds_limit(self) -> bool:
        """Whether more rows are gone than --max-deletes allows."""
        return self.rows > self.allowed


def _counted(
    catalog: Catalog, kind_name: str, streams: Sequence[RowStream]
) -> Iterator[Tuple[RowStream, Summary, Summary]]:
    """Yields (stream, source count, destination count) of the streams that are counted."""
    for portion in portions(streams, OBJECTS_PER_QUERY):
        source_ids = [stream.source_id for stream in portion]
        dest_ids = [stream.dest_id for stream in portion]
        source = summaries(catalog, catalog.source, kind_name, source_ids)
        dest = summaries(catalog, catalog.dest, kind_name, dest_ids)
        for stream in portion:
            wanted = source[stream.source_id]
            held = dest[stream.dest_id]
            if wanted is not None and held is not None:
                yield stream, wanted, held


def _find_gone(catalog: Catalog, gone: GoneRows, wanted: int, db: sqlite3.Connection) -> GoneRows:
    """Find the rows that only the destination has; the source has `wanted` rows.

    Nothing is queried if the surplus equals the number of rows that an earlier search found and
    that this tool did not insert.
    """
    member = gone.member
    stream = member.stream
    if gone.unsent_after is None and gone.held - wanted == member.state.sync.others:
        return gone
    decider = RowDecider(catalog, stream.kind, {stream.source_id: member})
    others = 0
    try:
        days = _unequal(catalog, stream, gone.unsent_after)
        absent = (ids for bounds in days for ids in _only_there(catalog, stream, bounds))
        for number, ids in enumerate(absent):
            if number == 0:
                catalog.run.lend_seen(member.state)
            others += _sort_out(catalog, decider, gone, ids, db)
    except ApiError as error:
        # An error of one object must not stop the others; the next sync searches again.
        log.warning(
            "%s %r: cannot look for rows that are gone from the source: %s",
            stream.kind.name,
            stream.name,
            error,
        )
        return GoneRows(member, gone.held, was_searched=False)
    member.state.sync.others = others
    return gone


def _hold_unconfirmed(catalog: Catalog, gone: GoneRows, db: sqlite3.Connection) -> None:
    """Remove the ids of rows that have not been missing from the source for long enough."""
    if not gone.was_searched:
        return
    member = gone.member
    object_id = member.stream.source_id
    stored_ids = db.execute("select id from gone where object = ?", (object_id,)).fetchall()
    absent = [id_text(stored) for (stored,) in stored_ids]
    confirmed = set(note_absent(member.state, absent, int(catalog.source.clock.earliest_s())))
    held = [(object_id, id_bytes(row_id)) for row_id in absent if row_id not in confirmed]
    db.executemany("delete from gone where object = ? and id = ?", held)
    gone.rows = len(confirmed)
    gone.waiting = len(held)


def _sort_out(
    catalog: Catalog, decider: RowDecider, gone: GoneRows, ids: List[str], db: sqlite3.Connection
) -> int:
    """Look the ids up on both sides and store those that are gone. Returns how many rows stay."""
    member = gone.member
    stream = member.stream
    kind_name = stream.kind.name
    held, _ = found_rows(catalog.dest, kind_name, [stream.dest_id], ids)
    rows = {row["id"]: row for row in held}
    # A row may have been inserted again since the ids were listed.
    still, refused = found_rows(catalog.source, kind_name, [stream.source_id], ids)
    present = {*refused, *(row["id"] for row in still)}
    missing = [row_id for row_id in rows if row_id not in present]
    # By transactions only: a row that somebody wrote again, with the same content, belongs to them.
    ours = decider.written_by_us(member, stream.source_id, rows)
    brought = decider.brought(member, stream.source_id, list(rows))
    going = [row_id for row_id in missing if ours[row_id]]
    changed = [row_id for row_id in missing if not ours[row_id] and row_id in brought]
    db.executemany(
        "insert or ignore into gone values (?, ?)",
        [(stream.source_id, id_bytes(row_id)) for row_id in going],
    )
    gone.rows += len(going)
    gone.changed += len(changed)
    gone.example = gone.example or next(iter([*changed, *going]), "")
    return len(missing) - len(going)


def _unequal(catalog: Catalog, stream: RowStream, unsent_after: Optional[int]) -> Iterator[Bounds]:
    """Yields the days whose row counts differ; all days if a server does not group by day.

    Also the days of rows that were written after `unsent_after`: they hide others that are gone.
    """
    kind_name = stream.kind.name
    unsent = Bounds(after_xact=unsent_after)
    try:
        wanted = _day_counts(catalog.source, kind_name, stream.source_id, Bounds())
        held = _day_counts(catalog.dest, kind_name, stream.dest_id, Bounds())
        hidden = unsent_after and _day_counts(catalog.source, kind_name, stream.source_id, unsent)
    except (ApiError, KeyError, TypeError, ValueError):
        return iter([Bounds()])
    days = sorted({*wanted, *held})
    if not all(len(day) == 10 for day in days):
        return iter([Bounds()])
    unequal = {day: day in (hidden or ()) or wanted.get(day) != held.get(day) for day in days}
    return day_ranges(unequal, Bounds())


def _day_counts(api: Api, kind_name: str, object_id: str, bounds: Bounds) -> Dict[str, int]:
    """Returns day -> rows of the object that were created on it."""
    rows = api.query(days_query(kind_name, object_id, bounds)).json
    return {str(row["day"])[:10]: int(row["rows"]) for row in rows}


def _only_there(catalog: Catalog, stream: RowStream, bounds: Bounds) -> Iterator[List[str]]:
    """Yields lists of row ids that only the destination has, at most IDS_LOOKED_UP in each."""
    with id_set() as in_source:
        for ids in row_ids(catalog.source, stream.kind.name, stream.source_id, bounds):
            in_source.add(ids)
        waiting: List[str] = []
        for ids in row_ids(catalog.dest, stream.kind.name, stream.dest_id, bounds):
            waiting += in_source.lacking(ids)
            while len(waiting) >= IDS_LOOKED_UP:
                yield waiting[:IDS_LOOKED_UP]
                waiting = waiting[IDS_LOOKED_UP:]
        if waiting:
            yield waiting


def row_ids(api: Api, kind_name: str, object_id: str, bounds: Bounds) -> Iterator[List[str]]:
    """Yields the ids of all rows inside the bounds, page by page."""
    for rows in id_pages(api, kind_name, object_id, bounds):
        yield [row["id"] for row in rows]


def id_pages(
    api: Api, kind_name: str, object_id: str, bounds: Bounds
) -> Iterator[List[JsonObject]]:
    """Yields {id, _pagination_key, _xact_id} of all rows inside the bounds, page by page."""
    while True:
        api.check()
        query = ids_query(kind_name, object_id, bounds, MAX_LIMIT)
        check = keys_after(bounds.after_key)
        rows = api.query(query, version=bounds.version, check=check).json
        if rows:
            yield rows
            bounds = bounds.after(rows[-1]["_pagination_key"])
        if not rows or len(rows) < api.capabilities.full_page_rows:
            return


# -- deleting


def _try_to_delete(catalog: Catalog, gone: GoneRows, db: sqlite3.Connection) -> None:
    """Delete the rows of one object. A refusal of the destination fails only this object."""
    member = gone.member
    try:
        _delete(catalog, gone, db)
    except ApiError as error:
        member.error = error
        log.error(
            "%s %r: rows that are gone from the source could not be deleted: %s",
            member.stream.kind.name,
            member.stream.name,
            error,
            extra={"event": "stream_failed"},
        )


def _delete(catalog: Catalog, gone: GoneRows, db: sqlite3.Connection) -> None:
    stream = gone.member.stream
    rows = db.execute("select id from gone where object = ?", (stream.source_id,))
    size = catalog.settings.rows(stream.kind.name).insert_batch_size
    while True:
        ids = [id_text(stored) for (stored,) in rows.fetchmany(size)]
        if not ids:
            break
        catalog.dest.check()
        xact = delete_rows(catalog.dest, stream.kind, stream.dest_id, ids)
        gone.deleted.update(dict.fromkeys(ids, xact))


def _find_still_shown(catalog: Catalog, kind_name: str, gone: Sequence[GoneRows]) -> None:
    """Find deleted rows that the destination shows, after a wait for what may be shown late.

    Where its number of rows is not as expected, the rows are looked up.
    """
    doubtful = [gone_rows for gone_rows in gone if gone_rows.deleted]
    bounds = bounds_of(catalog, ROW_KINDS[kind_name])
    for _ in looks(catalog.dest, seconds_until_shown(catalog)) if doubtful else ():
        ids = [gone_rows.member.stream.dest_id for gone_rows in doubtful]
        counts = count_by_object(catalog, catalog.dest, kind_name, ids, bounds)
        doubtful = [
            gone_rows
            for gone_rows, dest_id in zip(doubtful, ids)
            if counts[dest_id].rows != gone_rows.held - len(gone_rows.deleted)
        ]
        if not doubtful:
            break
    for gone_rows in doubtful:
        try:
            gone_rows.still = _still_shown(catalog, gone_rows)
        except ApiError as error:
            gone_rows.member.error = error


def _still_shown(catalog: Catalog, gone: GoneRows) -> List[str]:
    """Returns the ids of deleted rows that the destination shows; not of rows written since."""
    stream = gone.member.stream
    shown = rows_shown(catalog.dest, stream.kind.name, stream.dest_id, list(gone.deleted))
    return [
        row_id
        for row_id, row in shown.rows.items()
        if not gone.deleted[row_id] or xact_of(row.get("_xact_id")) <= gone.deleted[row_id]
    ]


def _note_deleted(gone: GoneRows) -> None:
    deleted = gone.deleted.keys() - set(gone.still)
    if not gone.deleted:
        return
    forget_absent(gone.member.state, deleted)
    gone.member.state.sync.deleted += len(deleted)
    log.info(
        "%s %r: %s deleted that are gone from the source",
        gone.member.stream.kind.name,
        gone.member.stream.name,
        plural(gone.member.state.sync.deleted, "row"),
        extra={"event": "rows_deleted"},
    )


def _close(gone: GoneRows, too_many: bool) -> None:
    """Write the stream's state, so that the next sync need not search again."""
    state = gone.member.state
    replaced = ("too_many_deletes", "gone_row_kept", "gone_row_waits", NOT_DELETED)
    notes = FindingCounts(record for record in state.findings if record["kind"] not in replaced)
    if gone.rows + gone.waiting and too_many:
        notes.add_many("too_many_deletes", gone.example, gone.rows + gone.waiting)
    elif gone.waiting:
        notes.add_many("gone_row_waits", gone.example, gone.waiting)
    if gone.changed:
        notes.add_many("gone_row_kept", gone.example, gone.changed)
    for row_id in gone.still:
        notes.add_acceptable(NOT_DELETED, row_id, loss_digest(row_id))
    _note_deleted(gone)
    state.findings = notes.records()
    for part in state.slices:
        part.done = True
    gone.member.touched = True
    close_copies([gone.member], 0.0)
