"""SQLite files of a run directory: how they are opened, how their errors are reported, how row ids
are stored.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import Iterable, Iterator, List

from bt_migrate.errors import StateError

# Held while a file is opened and its tables are created: SQLite refuses at once to open a file that
# another thread is turning into a WAL file.
OPENING = threading.RLock()


@contextlib.contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Raises StateError, naming the file, for what goes wrong inside."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StateError(
            f"{path}: cannot be used ({error}); make room and run again,"
            " or start a new run with --new-run if the file is damaged"
        ) from None


def open_database(path: Path) -> sqlite3.Connection:
    """Open or create a private file.

    An existing file is opened by SQLite alone: closing another descriptor of it would release the
    locks that this process holds (https://www.sqlite.org/howtocorrupt.html, section 2.2). WAL with
    synchronous=NORMAL: a commit survives kill -9; a power cut can undo the last commits, and their
    rows are sent again.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    db = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
    try:
        with OPENING:
            db.executescript("pragma journal_mode=wal; pragma synchronous=normal;")
    except BaseException:
        db.close()
        raise
    return db


class IdSet:
    """Row ids that need not fit into memory: they lie in a private temporary file of SQLite."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def add(self, ids: Iterable[str]) -> None:
        self._db.executemany(
            "insert or ignore into ids values (?)", [(id_bytes(row_id),) for row_id in ids]
        )

    def lacking(self, ids: Iterable[str]) -> List[str]:
        """Returns those of the ids that are not in the set."""
        return [row_id for row_id in ids if row_id not in self]

    def __contains__(self, row_id: str) -> bool:
        found = self._db.execute("select 1 from ids where id = ?", (id_bytes(row_id),))
        return found.fetchone() is not None


@contextlib.contextmanager
def id_set() -> Iterator[IdSet]:
    """Yields an empty set, whose file is deleted at the end."""
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as db:
        db.execute("create table ids (id blob primary key) without rowid")
        yield IdSet(db)


def id_bytes(row_id: str) -> bytes:
    """Returns the id as it is stored: it may hold a lone surrogate, which SQLite's text may not."""
    return row_id.encode("utf-8", "surrogatepass")


def id_text(stored: bytes) -> str:
    """The inverse of `id_bytes`."""
    return stored.decode("utf-8", "surrogatepass")
