"""Deletes destination rows that were deleted in the source.

Only rows that this tool inserted and that nobody changed in the destination are deleted. They are
found by comparing the number of rows, then the number per day, then the ids. They are looked up in
the source once more, and --max-deletes limits their number.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Sequence, Tuple

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


def propagate_deletes(
    catalog: Catalog, kind_name: str, streams: Sequence[RowStream], round_: Round
) -> None:
    """Delete the rows that are gone, in streams of a kind that this sync completed.

    If that is more than --max-deletes allows, nothing is deleted and a finding is added.
    """
    # Without a name, SQLite makes a private temporary file and removes it.
    db = sqlite3.connect("", isolation_level=None)
    db.execute("create table gone (object text, id blob, primary key (object, id)) without rowid")
    gone: List[GoneRows] = []
    there = 0
    try:
        for stream, wanted, held in _counted(catalog, kind_name, streams):
            there += held.rows
            if wanted.rows != held.rows:
                member = open_copy(catalog, stream, round_)
                gone_rows = _find_gone(catalog, GoneRows(member, held.rows), wanted.rows, db)
                _hold_unconfirmed(catalog, gone_rows, db)
                gone.append(gone_rows)
        rows = sum(gone_rows.rows + gone_rows.waiting for gone_rows in gone)
        too_many = _exceeds_limit(catalog, kind_name, rows, there)
        for gone_rows in gone:
            if gone_rows.rows and not too_many:
                _try_to_delete(catalog, gone_rows, db)
        _find_still_shown(catalog, kind_name, gone)
        for gone_rows in gone:
            _close(gone_rows, too_many)
    finally:
        db.close()


def _exceeds_limit(catalog: Catalog, kind_name: str, rows: int, there: int) -> bool:
    allowed = catalog.settings.may_delete(there)
    if rows <= allowed:
        return False
    log.error(
        "%s rows of %s are gone from the source, of %s; --max-deletes allows %s;"
        " none was deleted: check the source; to delete them, run again with --max-deletes %s",
        f"{rows:,}",
        kind_name,
        f"{there:,}",
        f"{allowed:,}",
        rows,
        extra={"event": "too_many_deletes"},
    )
    return True


def _counted(
    catalog: Catalog, kind_name: str, streams: Sequence[RowStream]
) -> Iterator[Tuple[RowStream, Summary, Summary]]:
    """Yields (stream, source count, destination count) of complete, counted streams."""
    complete = {
        state.header["source_id"]
        for state in catalog.run.all_streams()
        if state.done and state.header["kind"] == kind_name
    }
    for portion in portions(streams, OBJECTS_PER_QUERY):
        source_ids = [stream.source_id for stream in portion]
        dest_ids = [stream.dest_id for stream in portion]
        source = summaries(catalog, catalog.source, kind_name, source_ids)
        dest = summaries(catalog, catalog.dest, kind_name, dest_ids)
        for stream in portion:
            wanted = source[stream.source_id]
            held = dest[stream.dest_id]
            if wanted is not None and held is not None and stream.source_id in complete:
                yield stream, wanted, held


# -- finding


def _find_gone(catalog: Catalog, gone: GoneRows, wanted: int, db: sqlite3.Connection) -> GoneRows:
    """Find the rows that only the destination has; the source has `wanted` rows.

    Nothing is queried if the surplus equals the number of rows that an earlier search found and
    that this tool did not insert.
    """
    member = gone.member
    stream = member.stream
    if gone.held - wanted == member.state.sync.others:
        return gone
    decider = RowDecider(catalog, stream.kind, {stream.source_id: member})
    others = 0
    try:
        for bounds in _unequal(catalog, stream):
            for ids in _only_there(catalog, stream, bounds):
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


def _unequal(catalog: Catalog, stream: RowStream) -> Iterator[Bounds]:
    """Yields the days whose row counts differ; all days if a server does not group by day."""
    sides = ((catalog.source, stream.source_id), (catalog.dest, stream.dest_id))
    try:
        counts = [
            {
                str(row["day"])[:10]: int(row["rows"])
                for row in api.query(days_query(stream.kind.name, object_id)).json
            }
            for api, object_id in sides
        ]
    except (ApiError, KeyError, TypeError, ValueError):
        return iter([Bounds()])
    days = sorted({*counts[0], *counts[1]})
    if not all(len(day) == 10 for day in days):
        return iter([Bounds()])
    return day_ranges({day: counts[0].get(day) != counts[1].get(day) for day in days}, Bounds())


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
