"""The SQLite file of one stream: which rows were delivered, and what a later start must know about
them.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from itertools import chain
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Set, Tuple

from bt_migrate.model.outcomes import CREATED, UPDATED
from bt_migrate.model.portions import portions
from bt_migrate.state.files import make_private
from bt_migrate.state.open_files import OPEN_STORES
from bt_migrate.state.row_records import DeferredReference, DeliveredRow
from bt_migrate.state.seen_schema import SCHEMA, upgrade
from bt_migrate.state.sqlite import OPENING, id_bytes, id_text, open_database, sqlite_errors

# SQLite allows 999 parameters in a statement by default.
IDS_PER_SELECT = 500
RECORDS_PER_INSERT = 50

# above the number of every sync
ANY_ROUND = 1 << 62
# Stored instead of the source's transaction if this tool deleted the row in the destination.
DELETED = 0
# Below all transactions of a source: the row was delivered, but without an attachment, a comment or
# a reference, and is to be sent again.
NOT_WHOLE = 1

# The last record of each row of an object.
_LAST_RECORDS = (
    "select id, xact, max(rowid) from delivered where object = ? and id > ? group by id order by id"
)


NO_LIMIT = -1  # for SQLite


class SeenRows:
    """What is known of the rows of a stream, by source object and row id. Safe for many threads.

    The file is created with its first record: an object of a few rows needs none. Row ids are
    stored as bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        # None until it is needed, and again after OPEN_STORES has closed it.
        self._db: Optional[sqlite3.Connection] = None
        self._users = 0
        self._exists = path.exists()
        if self._exists:  # a damaged file is reported now, not in the middle of the work
            with self._opened():
                pass

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The open file, which is not closed meanwhile. Creates it. Raises StateError."""
        with self._lock, sqlite_errors(self.path):
            if self._db is None:
                self._db = self._connect()
                self._exists = True
            self._users += 1
            try:
                OPEN_STORES.used(self, self._close_if_unused)
                yield self._db
            finally:
                self._users -= 1

    def _connect(self) -> sqlite3.Connection:
        make_private(self.path.parent)
        db = open_database(self.path)
        try:
            with OPENING:
                db.executescript(SCHEMA)
                upgrade(db)
        except BaseException:
            db.close()
            raise
        return db

    def _close_if_unused(self) -> bool:
        """Close the file unless a thread uses it. Returns whether it was closed."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if self._users:
                return False
            self._close()
            return True
        finally:
            self._lock.release()

    def _close(self) -> None:
        if self._db is not None:
            with sqlite_errors(self.path):
                self._db.close()
                self._db = None

    def close(self) -> None:
        with self._lock:
            self._close()
        OPEN_STORES.closed(self)

    # -- reading

    def holds_rows(self) -> bool:
        """Whether deliveries are recorded.

        Recording only appends; the index for looking rows up is created here, since only a resumed
        run needs it.
        """
        if not self._rows("select 1 from delivered limit 1"):
            return False
        index = "create index if not exists delivered_by_id on delivered (object, id)"
        self._write([(index, [()])])
        return True

    def outcomes_of(self, object_id: str, ids: Sequence[str]) -> Dict[str, Tuple[int, str]]:
        """Returns row id -> (transaction, outcome) of the recorded rows; the last record counts."""
        columns = "id, xact, outcome from delivered"
        records = self._of(columns, object_id, ids, "order by rowid")
        return {id_text(row_id): (xact, outcome) for row_id, xact, outcome in records}

    def dest_xacts(self, object_id: str, ids: Sequence[str]) -> Dict[str, int]:
        """Returns row id -> the destination's transaction of its last record; 0 if unknown."""
        records = self._of("id, dest_xact from delivered", object_id, ids, "order by rowid")
        return {id_text(row_id): dest_xact or 0 for row_id, dest_xact in records}

    def count_held(self, object_id: str) -> int:
        """Returns how many rows the destination has according to the records."""
        query = f"select count(*) from ({_LAST_RECORDS}) where xact > {DELETED}"
        rows = self._rows(query, (object_id, b"")) if self.holds_rows() else []
        return int(rows[0][0]) if rows else 0

    def held_ids(self, object_id: str) -> Iterator[List[str]]:
        """Yields the ids of the rows that `count_held` counts, in portions."""
        after = b""
        while True:
            rows = self._rows(f"{_LAST_RECORDS} limit {IDS_PER_SELECT}", (object_id, after))
            if not rows:
                return
            yield [id_text(row_id) for row_id, xact, _ in rows if xact > DELETED]
            after = rows[-1][0]

    def last_dest_xact(self, object_id: str) -> int:
        """Returns the destination's last transaction in which a row of the object was delivered.

        0 if there is no delivery, or one of which no transaction is known: it may be the last.
        """
        query = "select max(dest_xact), min(coalesce(dest_xact, 0)) from delivered where object = ?"
        rows = self._rows(query, (object_id,))
        last, first = rows[0] if rows else (0, 0)
        return int(last) if last and first else 0

    def last_held_xact(self, object_id: str) -> int:
        """Returns the destination's last transaction in which a row was delivered that is there."""
        last = "select dest_xact, xact, max(rowid) from delivered where object = ? group by id"
        rows = self._rows(
            f"select max(dest_xact) from ({last}) where xact > {DELETED}", (object_id,)
        )
        return int(rows[0][0] or 0) if rows else 0

    def newest_xact(self, object_id: str) -> int:
        """Returns the last transaction of the source of which a row was delivered."""
        rows = self._rows("select max(xact) from delivered where object = ?", (object_id,))
        return int(rows[0][0] or 0) if rows else 0

    def dest_xacts_of(self, object_id: str, row_id: str, xact: int) -> List[int]:
        """Returns the destination's transactions in which one version of a row was delivered.

        The version is the one that the source wrote in its transaction `xact`. The last one is
        first: the others lack what was added to it later. 0 stands for an unknown one.
        """
        columns = "dest_xact from delivered where object = ? and id = ? and xact = ?"
        query = f"select {columns} order by rowid desc"
        rows = self._rows(query, (object_id, id_bytes(row_id), xact))
        return [int(dest_xact or 0) for (dest_xact,) in rows]

    def transactions(self, object_id: str) -> Set[int]:
        """Returns all transactions of the destination in which this tool wrote rows."""
        query = "select distinct dest_xact from delivered where object = ? and dest_xact > 0"
        return {xact for (xact,) in self._rows(query, (object_id,))}

    def sending(self, object_id: str, ids: Sequence[str]) -> Dict[str, Tuple[bytes, int]]:
        """Returns row id -> (digest, sync) of the content that was sent last, or that a killed sync
        was about to send.
        """
        records = self._of("id, digest, round from sending", object_id, ids)
        return {id_text(row_id): (digest, number) for row_id, digest, number in records}

    def before(self, object_id: str, ids: Sequence[str]) -> Dict[str, bytes]:
        """Returns row id -> digest of the row that the destination had before this run."""
        records = self._of("id, digest from before", object_id, ids)
        return {id_text(row_id): digest for row_id, digest in records}

    def found(self, object_id: str, ids: Sequence[str]) -> Dict[str, bytes]:
        """Returns row id -> digest that a row of others had when the source had the same."""
        records = self._of("id, digest from found", object_id, ids)
        return {id_text(row_id): digest for row_id, digest in records}

    def inserted(self, object_id: str, ids: Sequence[str]) -> List[str]:
        """Returns those of the ids that this run inserted."""
        return [id_text(row_id) for (row_id,) in self._of("id from inserted", object_id, ids)]

    def failed(self, object_id: str, before_round: int, limit: int) -> List[str]:
        """Returns ids of rows that failed in earlier syncs; those first that were tried longest
        ago.
        """
        query = "select id from failed where object = ? and round < ? order by round, id limit ?"
        return [
            id_text(row_id) for (row_id,) in self._rows(query, (object_id, before_round, limit))
        ]

    def all_failed(self) -> int:
        rows = self._rows("select count(*) from failed")
        return int(rows[0][0]) if rows else 0

    def unconfirmed(self, object_id: str) -> Dict[int, int]:
        """Returns transaction of the destination -> its rows that were not seen there yet.

        0 stands for an unknown transaction.
        """
        query = "select dest_xact, count(*) from unconfirmed where object = ? group by dest_xact"
        return {int(xact or 0): rows for xact, rows in self._rows(query, (object_id,))}

    def unconfirmed_rows(self, object_id: str) -> Iterator[List[DeliveredRow]]:
        """Yields the rows that `unconfirmed` counts, in portions."""
        query = "select * from unconfirmed where object = ? and id > ? order by id"
        after = b""
        while True:
            rows = self._rows(f"{query} limit {IDS_PER_SELECT}", (object_id, after))
            if not rows:
                return
            yield [
                DeliveredRow(object_id, id_text(row_id), xact, outcome, dest_xact or 0)
                for _, row_id, xact, outcome, dest_xact in rows
            ]
            after = rows[-1][1]

    def all_unconfirmed(self) -> int:
        rows = self._rows("select count(*) from unconfirmed")
        return int(rows[0][0]) if rows else 0

    def deferred(self) -> List[DeferredReference]:
        """Returns all references that wait."""
        rows = self._rows(
            "select object, id, path, targets, ref, origin from deferred order by object, id"
        )
        return [
            DeferredReference(object_id, id_text(row_id), path, targets, id_text(ref), kept)
            for object_id, row_id, path, targets, ref, kept in rows
        ]

    def _of(
        self, columns_from: str, object_id: str, ids: Sequence[str], order: str = ""
    ) -> Iterator[Tuple[Any, ...]]:
        """Yields the records of the ids, in portions that a statement takes."""
        for portion in portions(ids, IDS_PER_SELECT):
            places = ",".join("?" * len(portion))
            query = f"select {columns_from} where object = ? and id in ({places}) {order}"
            yield from self._rows(query, (object_id, *map(id_bytes, portion)))

    def _rows(self, query: str, values: Sequence[Any] = ()) -> List[Tuple[Any, ...]]:
        if not self._exists:
            return []
        with self._opened() as db:
            return db.execute(query, values).fetchall()

    # -- writing

    def record(
        self,
        rows: Iterable[Sequence[Any]],
        deferred: Iterable[DeferredReference] = (),
        *,
        confirm: bool = False,
    ) -> None:
        """Commit rows, with the five values of DeliveredRow, and references that wait, at once.

        What an earlier version of a row waited for is forgotten. `confirm`: the rows that were sent
        are to be seen in the destination.
        """
        delivered = [
            (object_id, id_bytes(row_id), xact, outcome, dest_xact)
            for object_id, row_id, xact, outcome, dest_xact in rows
        ]
        rewritten = delivered if self._rows("select 1 from deferred limit 1") else []
        sent = (row for row in delivered if confirm and row[3] in (CREATED, UPDATED))
        self._write(
            [
                *_inserts(delivered),
                ("insert or replace into unconfirmed values (?, ?, ?, ?, ?)", sent),
                (
                    "delete from deferred where object = ? and id = ?",
                    (row[:2] for row in rewritten),
                ),
                (
                    "insert or replace into deferred values (?, ?, ?, ?, ?, ?)",
                    (
                        (object_id, id_bytes(row_id), path, targets, id_bytes(ref), kept)
                        for object_id, row_id, path, targets, ref, kept in deferred
                    ),
                ),
            ]
        )

    def record_sending(self, rows: Iterable[Tuple[str, str, bytes, int]]) -> None:
        """Commit (object, id, digest of the content, number of the sync) of rows.

        The digest shows later that a row in the destination is ours, where no transaction shows it.
        Before rows are sent: all rows of a sync, and new rows of a copy into an object that existed
        before. After the destination accepted them: rows of a copy whose answer names no
        transaction.
        """
        self._write([("insert or replace into sending values (?, ?, ?, ?)", map(_stored, rows))])

    def record_merged(self, rows: Iterable[Tuple[str, str, int]], *, confirm: bool = False) -> None:
        """Commit (object, id, the destination's transaction) of rows to which a reference was
        added: their content is no longer what was sent. `confirm`: see `record`.
        """
        # Creates the index that the statement needs.
        self.holds_rows()
        last = (
            "(select {} from delivered where object = :object and id = :id"
            " order by rowid desc limit 1)"
        )
        xact = f"coalesce({last.format('xact')}, 0)"
        outcome = f"coalesce({last.format('outcome')}, '{UPDATED}')"
        statement = (
            "insert into delivered (object, id, xact, outcome, dest_xact)"
            f" select :object, :id, {xact}, {outcome}, :dest_xact"
        )
        named: List[Any] = [
            {"object": object_id, "id": id_bytes(row_id), "dest_xact": dest_xact}
            for object_id, row_id, dest_xact in rows
        ]
        stale = "delete from sending where object = :object and id = :id"
        merged = (
            "insert or replace into unconfirmed select object, id, xact, outcome, dest_xact"
            " from delivered where object = :object and id = :id order by rowid desc limit 1"
        )
        awaited = named if confirm else []
        self._write([(statement, named), (stale, named), (merged, awaited)])

    def send_waiting_again(self) -> None:
        """Record that the rows with pending references were delivered without them."""
        if not self._rows("select 1 from deferred limit 1"):
            return
        statement = (
            "insert into delivered (object, id, xact, outcome, dest_xact)"
            f" select object, id, {NOT_WHOLE}, outcome, dest_xact from delivered where rowid in"
            " (select max(delivered.rowid) from delivered join deferred using (object, id)"
            " group by object, id)"
        )
        self._write([(statement, [()])])

    def record_deleted(self, object_id: str, ids: Sequence[str], dest_xact: int) -> None:
        """Commit that the rows were deleted in the destination: nothing waits for them any more."""
        keys = [(object_id, id_bytes(row_id)) for row_id in ids]
        self._write(
            [
                ("delete from deferred where object = ? and id = ?", keys),
                ("delete from unconfirmed where object = ? and id = ?", keys),
                (
                    "insert into delivered (object, id, xact, outcome, dest_xact)"
                    f" values (?, ?, {DELETED}, '{UPDATED}', ?)",
                    [(*key, dest_xact) for key in keys],
                ),
            ]
        )

    def record_before(self, rows: Iterable[Tuple[str, str, bytes]]) -> None:
        """Commit (object, id, digest) of rows that the destination had before this run."""
        self._write([("insert or replace into before values (?, ?, ?)", map(_stored, rows))])

    def record_found(self, rows: Iterable[Tuple[str, str, bytes]]) -> None:
        """Commit (object, id, digest) of rows of others that are equal on both sides."""
        self._write([("insert or replace into found values (?, ?, ?)", map(_stored, rows))])

    def forget_before(self) -> None:
        if self._exists:
            self._write([("delete from before", [()])])

    def record_inserted(self, rows: Iterable[Tuple[str, str]]) -> None:
        """Commit (object, id) of rows that are new to the destination, before they are sent: a kill
        loses none.
        """
        self._write([("insert or ignore into inserted values (?, ?)", map(_stored, rows))])

    def record_failed(self, rows: Iterable[Tuple[str, str, int]]) -> None:
        """Record (object, id, sync) of rows that did not arrive completely."""
        self._write([("insert or replace into failed values (?, ?, ?)", map(_stored, rows))])

    def forget_failed(self, object_id: str, ids: Iterable[str], before_round: int) -> None:
        """Remove rows that were tried again. Those that failed again have a later sync and stay."""
        statement = "delete from failed where object = ? and id = ? and round < ?"
        self._write([(statement, [(object_id, id_bytes(row_id), before_round) for row_id in ids])])

    def record_lost(self, rows: Sequence[DeliveredRow], round_: int) -> None:
        """Record rows of `unconfirmed` as not delivered, and as failed in this sync."""
        # Creates the index that the statements need.
        self.holds_rows()
        keys = [(row.object_id, id_bytes(row.row_id), row.xact, row.dest_xact) for row in rows]
        where = "object = ? and id = ? and xact {} ?"
        lost = f"delete from delivered where {where.format('=')} and coalesce(dest_xact, 0) = ?"
        # An earlier delivery of the same version lacked what the lost one added.
        earlier = (
            "insert into delivered (object, id, xact, outcome, dest_xact)"
            f" select object, id, {NOT_WHOLE}, outcome, dest_xact from delivered"
            f" where {where.format('>=')} order by rowid desc limit 1"
        )
        failed = [(*key[:2], round_) for key in keys]
        self._write(
            [
                (lost, keys),
                (earlier, [key[:3] for key in keys]),
                ("insert or replace into failed values (?, ?, ?)", failed),
            ]
        )

    def forget_unconfirmed(self) -> None:
        """Remove all rows of `unconfirmed`: each was seen, or is recorded as failed."""
        self._write([("delete from unconfirmed", [()])])

    def forget_all_failed(self) -> None:
        if self._exists:
            self._write([("delete from failed", [()])])

    def forget_deferred(self, keys: Iterable[Tuple[str, str, str]]) -> None:
        """Remove references, by (object, id, path), that were added."""
        statement = "delete from deferred where object = ? and id = ? and path = ?"
        self._write([(statement, map(_stored, keys))])

    def _write(self, statements: Sequence[Tuple[str, Iterable[Tuple[Any, ...]]]]) -> None:
        """Execute all statements or none; they are committed when it returns."""
        with self._opened() as db:
            db.execute("begin")
            try:
                for statement, rows in statements:
                    db.executemany(statement, rows)
                db.execute("commit")
            except BaseException:
                db.execute("rollback")
                raise


def _stored(record: Sequence[Any]) -> Tuple[Any, ...]:
    """Returns a record that begins with an object and a row id, with the row id as bytes."""
    object_id, row_id, *values = record
    return (object_id, id_bytes(row_id), *values)


def _inserts(delivered: Sequence[Tuple[Any, ...]]) -> List[Tuple[str, Iterable[Tuple[Any, ...]]]]:
    """Returns the statements that insert these records, many with one execution as far as it goes:
    that takes two thirds of the time.
    """
    insert = "insert into delivered (object, id, xact, outcome, dest_xact) values "
    places = "(?, ?, ?, ?, ?)"
    rest = len(delivered) // RECORDS_PER_INSERT * RECORDS_PER_INSERT
    many = (
        tuple(chain.from_iterable(delivered[start : start + RECORDS_PER_INSERT]))
        for start in range(0, rest, RECORDS_PER_INSERT)
    )
    return [
        (insert + ", ".join([places] * RECORDS_PER_INSERT), many),
        (insert + places, delivered[rest:]),
    ]
