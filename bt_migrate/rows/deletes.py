"""Rows that are gone from the source, deleted in the destination: those that this tool brought, as long as nobody changed them there.

Found by number, then by day, then by id; asked for in the source once more; and never more at a time than is allowed.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from typing import Iterator, List, Sequence, Tuple

from bt_migrate.api.btql import MAX_LIMIT, OBJECTS_PER_COUNT, Bounds, days_query, ids_query
from bt_migrate.api.client import Api, looks_capped
from bt_migrate.errors import ApiError
from bt_migrate.model.notes import FindingCounts
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.count import Summary, day_ranges, summaries
from bt_migrate.rows.decide import IDS_LOOKED_UP, RowDecider
from bt_migrate.rows.insert import delete_rows
from bt_migrate.rows.read import rows_of_ids
from bt_migrate.rows.streams import RowStream, StreamCopy
from bt_migrate.state.sync_marks import Round

log = logging.getLogger("bt_migrate.rows")


@dataclass
class Gone:
    """What is gone of one object: the ids lie in the file of all; `kept` were changed in the destination."""

    member: StreamCopy
    rows: int = 0
    kept: int = 0
    example: str = ""


def propagate_deletes(
    catalog: Catalog, kind_name: str, streams: Sequence[RowStream], round_: Round
) -> None:
    """Delete what is gone of the streams of one kind that are complete in this round. What is too much is told, and nothing is
    deleted.
    """
    db = sqlite3.connect("", isolation_level=None)  # a private file that SQLite removes
    db.execute("create table gone (object text, id blob, primary key (object, id)) without rowid")
    found: List[Gone] = []
    try:
        there = 0
        for start in range(0, len(streams), OBJECTS_PER_COUNT):
            for stream, wanted, held in _counted(
                catalog, kind_name, streams[start : start + OBJECTS_PER_COUNT]
            ):
                there += held.rows
                if wanted.rows != held.rows:
                    found.append(
                        _look_into(
                            catalog,
                            StreamCopy(catalog, stream, round_),
                            held.rows - wanted.rows,
                            db,
                        )
                    )
        rows, allowed = sum(one.rows for one in found), catalog.settings.may_delete(there)
        too_many = rows > allowed and not catalog.settings.yes
        if too_many:
            text = f"{rows:,} rows of {kind_name} are gone from the source, of {there:,}; --max-deletes allows {allowed:,}"
            log.error(
                "%s; none was deleted: look why, then --yes deletes them",
                text,
                extra={"event": "too_many_deletes"},
            )
        for one in found:
            if one.rows and not too_many:
                _delete(catalog, one.member, db)
            _close(one, too_many)
    finally:
        db.close()


def _counted(
    catalog: Catalog, kind_name: str, streams: Sequence[RowStream]
) -> Iterator[Tuple[RowStream, Summary, Summary]]:
    """The streams of which both sides tell the number of rows."""
    source = summaries(catalog, catalog.source, kind_name, [one.source_id for one in streams])
    dest = summaries(catalog, catalog.dest, kind_name, [one.dest_id for one in streams])
    complete = {
        one.header["source_id"]
        for one in catalog.run.all_streams()
        if one.done and one.header["kind"] == kind_name
    }
    for stream in streams:
        wanted, held = source[stream.source_id], dest[stream.dest_id]
        if wanted is not None and held is not None and stream.source_id in complete:
            yield stream, wanted, held


def _look_into(catalog: Catalog, member: StreamCopy, surplus: int, db: sqlite3.Connection) -> Gone:
    """Which rows of the destination the source does not have; not where the number is that of rows which were others' before."""
    gone, stream = Gone(member), member.stream
    if surplus == member.state.others:
        return gone
    choice = RowDecider(catalog, stream.kind, {stream.source_id: member})
    others = 0
    try:
        for bounds in _unequal(catalog, stream):
            for ids in _only_there(catalog, stream, bounds):
                rows = {
                    row["id"]: row
                    for row in rows_of_ids(catalog.dest, stream.kind.name, [stream.dest_id], ids)
                }
                back = {
                    row["id"]
                    for row in rows_of_ids(
                        catalog.source, stream.kind.name, [stream.source_id], ids
                    )
                }
                ours, brought = (
                    choice.ours(member, stream.source_id, rows),
                    choice.brought(member, stream.source_id, list(rows)),
                )
                going = [one for one in rows if one not in back and ours[one]]
                changed = [
                    one for one in rows if one not in back and not ours[one] and one in brought
                ]
                db.executemany(
                    "insert or ignore into gone values (?, ?)",
                    [(stream.source_id, _blob(one)) for one in going],
                )
                gone.rows, gone.kept = gone.rows + len(going), gone.kept + len(changed)
                gone.example = gone.example or next(iter([*changed, *going]), "")
                others += len([one for one in rows if one not in back]) - len(going)
    except ApiError as error:  # this object's trouble: the next sync looks again
        log.warning(
            "rows of %s %r that are gone were not looked for: %s",
            stream.kind.name,
            stream.name,
            error,
        )
        return Gone(member)
    member.state.others = others
    return gone


def _unequal(catalog: Catalog, stream: RowStream) -> Iterator[Bounds]:
    """The days of which both sides have another number of rows; everything where a server does not group by day."""
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
    """Ids of rows that only the destination lists; the source's lie in a private file meanwhile."""
    with sqlite3.connect("", isolation_level=None) as listed:
        listed.execute("create table ids (id blob primary key) without rowid")
        for ids in _ids(catalog.source, stream.kind.name, stream.source_id, bounds):
            listed.executemany(
                "insert or ignore into ids values (?)", [(_blob(one),) for one in ids]
            )
        waiting: List[str] = []
        for ids in _ids(catalog.dest, stream.kind.name, stream.dest_id, bounds):
            known = "select 1 from ids where id = ?"
            waiting += [
                one for one in ids if listed.execute(known, (_blob(one),)).fetchone() is None
            ]
            while len(waiting) >= IDS_LOOKED_UP:
                yield waiting[:IDS_LOOKED_UP]
                waiting = waiting[IDS_LOOKED_UP:]
        if waiting:
            yield waiting
    listed.close()


def _ids(api: Api, kind_name: str, object_id: str, bounds: Bounds) -> Iterator[List[str]]:
    """All row ids, page by page."""
    while True:
        api.check()
        rows = api.query(ids_query(kind_name, object_id, bounds, MAX_LIMIT)).json
        if rows:
            yield [row["id"] for row in rows]
            bounds = bounds.after(rows[-1]["_pagination_key"])
        if not rows or (len(rows) < MAX_LIMIT and not looks_capped(len(rows))):
            return


def _delete(catalog: Catalog, member: StreamCopy, db: sqlite3.Connection) -> None:
    stream = member.stream
    rows = db.execute("select id from gone where object = ?", (stream.source_id,))
    size = catalog.settings.rows(stream.kind.name).insert_batch_size
    while True:
        ids = [one.decode("utf-8", "surrogatepass") for (one,) in rows.fetchmany(size)]
        if not ids:
            break
        catalog.dest.check()
        delete_rows(catalog.dest, stream.kind, stream.dest_id, ids)
        member.state.deleted += len(ids)
    text = "rows of %s %r: %d deleted, gone from the source"
    log.info(
        text, stream.kind.name, stream.name, member.state.deleted, extra={"event": "rows_deleted"}
    )


def _close(gone: Gone, too_many: bool) -> None:
    """Written with the numbers of the round, also where nothing came of it: what was looked into once is known."""
    state = gone.member.state
    notes = FindingCounts(
        one for one in state.findings if one["kind"] not in ("too_many_deletes", "gone_row_kept")
    )
    if gone.rows and too_many:
        notes.add("too_many_deletes", gone.example, count=gone.rows)
    if gone.kept:
        notes.add("gone_row_kept", gone.example, count=gone.kept)
    state.findings = notes.records()
    for part in state.slices:
        part["done"] = True
    gone.member.touched = True
    StreamCopy.close_all([gone.member], 0.0)


def _blob(row_id: str) -> bytes:
    """An id may hold a lone surrogate, which SQLite's text may not."""
    return row_id.encode("utf-8", "surrogatepass")
