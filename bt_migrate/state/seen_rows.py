"""SQLite files of a run: which rows were delivered, and which attachments. Beside `state`, which keeps what is written as JSON."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.errors import StateError
from bt_migrate.model.outcomes import UPDATED
from bt_migrate.state.files import make_private


@contextlib.contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StateError(
            f"{path}: cannot be used ({error}); if it is damaged, start anew with --new-run, else make room and go on"
        ) from None


def _connect(path: Path) -> sqlite3.Connection:
    """A private file. One that is there is left to SQLite alone: who closes it elsewhere takes the locks off it that this process has
    (https://www.sqlite.org/howtocorrupt.html, section 2.2).

    WAL with NORMAL: a commit survives kill -9; a power cut takes the last ones back, and what they tell of is sent again.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    db = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
    db.executescript("pragma journal_mode=wal; pragma synchronous=normal;")
    return db


class SeenRows:
    """Which rows were delivered, by object, row id and transaction, in SQLite. Safe for many threads.

    Also holds what the destination had before (`before`: id -> digest of the canonical row), which rows came to an object that was
    there before (`inserted`: what an undo may delete), what a sync is about to send (`sending`: id -> digest), rows that wait for an
    object to exist, and those that did not arrive whole (`failed`: the next sync tries them again). The file is made when there is
    something to remember: an object of a few rows needs none.
    """

    # at: unix seconds of the destination's clock when it had the row; null in files of earlier versions, 0 for rows that were found
    _SCHEMA = """
        create table if not exists delivered (object text, id text, xact integer, outcome text, at integer);
        create table if not exists sending (object text, id text, digest blob, round integer, primary key (object, id)) without rowid;
        create table if not exists before (object text, id text, digest blob, primary key (object, id)) without rowid;
        create table if not exists inserted (object text, id text, primary key (object, id)) without rowid;
        create table if not exists deferred (object text, id text, path text, targets text, ref text, origin text,
            primary key (object, id, path)) without rowid;
        create table if not exists failed (object text, id text, round integer, primary key (object, id)) without rowid;
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._db: Optional[sqlite3.Connection] = None
        if path.exists():
            self._open()

    def _open(self) -> sqlite3.Connection:
        with self._lock, _sqlite_errors(self.path):
            if self._db is None:
                make_private(self.path.parent)
                db = _connect(self.path)
                db.executescript(self._SCHEMA)
                if "at" not in [column[1] for column in db.execute("pragma table_info(delivered)")]:
                    db.execute("alter table delivered add column at integer")
                self._db = db  # only now: it has its tables
        return self._db

    def holds_rows(self) -> bool:
        """Whether rows are recorded. Recording only appends; the index by which rows are found is made here, for a resumed run."""
        if not self._rows("select 1 from delivered limit 1"):
            return False
        self._write(
            [("create index if not exists delivered_by_id on delivered (object, id)", [()])]
        )
        return True

    def forget_before(self) -> None:
        if self._db is not None:
            self._write([("delete from before", [()])])

    def outcomes_of(self, object_id: str, ids: Sequence[str]) -> Dict[str, Tuple[int, str]]:
        """row id -> (transaction, outcome) of those that are recorded; what was recorded last counts."""
        return {
            row[0]: (row[1], row[2])
            for row in self._of(
                "id, xact, outcome from delivered", object_id, ids, "order by rowid"
            )
        }

    def delivered_at(self, object_id: str, ids: Sequence[str]) -> Dict[str, int]:
        """row id -> unix seconds of the destination's clock when it had what was recorded last; 0 where that is not known."""
        return {
            row[0]: row[1] or 0
            for row in self._of("id, at from delivered", object_id, ids, "order by rowid")
        }

    def sending(self, object_id: str, ids: Sequence[str]) -> Dict[str, Tuple[bytes, int]]:
        """row id -> (digest, round) of what a sync last sent, or was about to send when it was killed."""
        return {
            row[0]: (row[1], row[2])
            for row in self._of("id, digest, round from sending", object_id, ids)
        }

    def before(self, object_id: str, ids: Sequence[str]) -> Dict[str, bytes]:
        """row id -> digest of the row that the destination had before this run."""
        return {row[0]: row[1] for row in self._of("id, digest from before", object_id, ids)}

    def inserted(self, object_id: str, ids: Sequence[str]) -> List[str]:
        """Those of the ids that this run brought."""
        return [row[0] for row in self._of("id from inserted", object_id, ids)]

    def _of(
        self, what: str, object_id: str, ids: Sequence[str], order: str = ""
    ) -> Iterator[tuple]:
        for start in range(0, len(ids), 500):  # SQLite takes 999 parameters by default
            some = ids[start : start + 500]
            yield from self._rows(
                f"select {what} where object = ? and id in ({','.join('?' * len(some))}) {order}",
                (object_id, *some),
            )

    def _rows(self, query: str, values: Sequence[Any] = ()) -> List[tuple]:
        if self._db is None:
            return []
        with self._lock, _sqlite_errors(self.path):
            return self._db.execute(query, values).fetchall()

    def _write(self, statements: Sequence[Tuple[str, Iterable[tuple]]]) -> None:
        """All or nothing, committed when it returns."""
        db = self._open()
        with self._lock, _sqlite_errors(self.path):
            db.execute("begin")
            try:
                for statement, rows in statements:
                    db.executemany(statement, rows)
                db.execute("commit")
            except (sqlite3.Error, UnicodeEncodeError):
                db.execute("rollback")
                raise

    def record(
        self,
        rows: Iterable[Tuple[str, str, int, str]],
        deferred: Iterable[tuple] = (),
        *,
        at: int = 0,
    ) -> None:
        """Commit (object, id, transaction, outcome) of rows that the destination had `at` that second of its clock, and what they
        still wait for, in one transaction.
        """
        waiting = ("insert or replace into deferred values (?, ?, ?, ?, ?, ?)", deferred)
        self._write(
            [
                (
                    f"insert into delivered (object, id, xact, outcome, at) values (?, ?, ?, ?, {int(at)})",
                    rows,
                ),
                waiting,
            ]
        )

    def record_sending(self, rows: Iterable[Tuple[str, str, bytes, int]]) -> None:
        """Commit (object, id, digest, round) of rows of a sync before they are sent: what a kill leaves there is known as ours."""
        self._write([("insert or replace into sending values (?, ?, ?, ?)", rows)])

    def record_merged(self, rows: Sequence[Tuple[str, str]], at: int) -> None:
        """Commit (object, id) of rows to which something was added: they were last written `at` that second."""
        self.holds_rows()  # makes the index
        last = "(select {} from delivered where object = :object and id = :id order by rowid desc limit 1)"
        values = (
            f"coalesce({last.format('xact')}, 0), coalesce({last.format('outcome')}, '{UPDATED}')"
        )
        named = ({"object": object_id, "id": row_id} for object_id, row_id in rows)
        statement = f"insert into delivered (object, id, xact, outcome, at) select :object, :id, {values}, {int(at)}"
        self._write([(statement, named)])  # type: ignore[list-item]

    def record_before(self, rows: Iterable[Tuple[str, str, bytes]]) -> None:
        self._write([("insert or replace into before values (?, ?, ?)", rows)])

    def record_inserted(self, rows: Iterable[Tuple[str, str]]) -> None:
        """Commit (object, id) of rows that are new to the destination, before they are sent: a crash leaves none untold."""
        self._write([("insert or ignore into inserted values (?, ?)", rows)])

    def record_failed(self, rows: Iterable[Tuple[str, str, int]]) -> None:
        """Commit (object, id, round) of rows that did not arrive, or not with all that belongs to them."""
        self._write([("insert or replace into failed values (?, ?, ?)", rows)])

    def failed(self, object_id: str, before_round: int, limit: int) -> List[str]:
        """Rows that failed in earlier rounds, those first that were tried longest ago."""
        query = "select id from failed where object = ? and round < ? order by round, id limit ?"
        return [row[0] for row in self._rows(query, (object_id, before_round, limit))]

    def all_failed(self) -> int:
        return int(next(iter(self._rows("select count(*) from failed")), (0,))[0])

    def forget_failed(self, object_id: str, ids: Iterable[str], before_round: int) -> None:
        """These were tried again: only what failed anew is still to come."""
        self._write(
            [
                (
                    "delete from failed where object = ? and id = ? and round < ?",
                    [(object_id, one, before_round) for one in ids],
                )
            ]
        )

    def deferred(self) -> List[Tuple[str, str, str, str, str, str]]:
        """(object, row id, path, resources, source id, origin as JSON) of all references that wait."""
        return self._rows(
            "select object, id, path, targets, ref, origin from deferred order by object, id"
        )

    def forget_deferred(self, keys: Iterable[Tuple[str, str, str]]) -> None:
        self._write([("delete from deferred where object = ? and id = ? and path = ?", keys)])

    def close(self) -> None:
        if self._db is not None:
            with self._lock, _sqlite_errors(self.path):
                self._db.close()
                self._db = None


def join_stores(into: Path, stores: Sequence[Path]) -> None:
    """Make one SQLite store of the rows of all of these. They stay as they are: copies are read, with what a process that was killed
    left beside the file. Not flushed to disk, as nobody counts on it yet.
    """
    part = into.with_name(into.name + ".part")
    for number, store in enumerate(stores):
        with _sqlite_errors(store):
            target = part if number else into
            for ending in ("", "-wal"):
                if Path(f"{store}{ending}").exists():
                    shutil.copyfile(f"{store}{ending}", f"{target}{ending}")
                    os.chmod(f"{target}{ending}", 0o600)
            if number:
                _append_store(into, part)
                for path in into.parent.glob(part.name + "*"):
                    path.unlink()


def _append_store(into: Path, part: Path) -> None:
    with contextlib.closing(sqlite3.connect(str(into), isolation_level=None)) as db:
        db.execute("pragma synchronous=off")
        db.execute("attach ? as part", (str(part),))
        db.execute("begin")
        for (table,) in db.execute(
            "select name from part.sqlite_master where type = 'table'"
        ).fetchall():
            columns = ", ".join(row[1] for row in db.execute(f"pragma part.table_info({table})"))
            db.execute(
                f"insert or replace into main.{table} ({columns}) select {columns} from part.{table}"
            )
        db.execute("commit")
