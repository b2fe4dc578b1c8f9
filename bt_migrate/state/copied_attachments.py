"""The attachments whose bytes were copied to the destination: one SQLite file for each run."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Tuple

from bt_migrate.state.sqlite import open_database, sqlite_errors

SCHEMA = """
    create table if not exists copied
        (key text primary key, dest_key text, bytes integer, sha256 text) without rowid
"""


class CopiedAttachments:
    """Keys of copied attachments, with the key in the destination, size and SHA-256. Safe for many
    threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with sqlite_errors(path):
            self._db = _opened(path)

    def has(self, key: str) -> bool:
        query = "select 1 from copied where key = ?"
        with self._lock, sqlite_errors(self.path):
            return self._db.execute(query, (key,)).fetchone() is not None

    def record(self, key: str, dest_key: str, size: int, sha256: str) -> None:
        statement = "insert or replace into copied values (?, ?, ?, ?)"
        with self._lock, sqlite_errors(self.path):
            self._db.execute(statement, (key, dest_key, size, sha256))

    def totals(self) -> Tuple[int, int]:
        """(attachments, bytes) copied in this run."""
        query = "select count(*), coalesce(sum(bytes), 0) from copied"
        with self._lock, sqlite_errors(self.path):
            count, size = self._db.execute(query).fetchone()
        return int(count), int(size)

    def close(self) -> None:
        with self._lock, sqlite_errors(self.path):
            self._db.close()


def _opened(path: Path) -> sqlite3.Connection:
    db = open_database(path)
    try:
        db.execute(SCHEMA)
    except BaseException:
        db.close()
        raise
    return db
