"""copied_attachments."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Tuple

from bt_migrate.state.sqlite import connect, sqlite_errors


class CopiedAttachments:
    """Which attachment keys have their bytes in the destination, with size and SHA-256, in SQLite. Safe for many threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with sqlite_errors(path):
            self._db = connect(path)
            self._db.execute(
                "create table if not exists copied (key text primary key, dest_key text, bytes integer, sha256 text) without rowid"
            )

    def has(self, key: str) -> bool:
        with self._lock, sqlite_errors(self.path):
            return (
                self._db.execute("select 1 from copied where key = ?", (key,)).fetchone()
                is not None
            )

    def record(self, key: str, dest_key: str, size: int, sha256: str) -> None:
        with self._lock, sqlite_errors(self.path):
            self._db.execute(
                "insert or replace into copied values (?, ?, ?, ?)", (key, dest_key, size, sha256)
            )

    def totals(self) -> Tuple[int, int]:
        """(attachments, bytes) copied in this run."""
        with self._lock, sqlite_errors(self.path):
            count, size = self._db.execute(
                "select count(*), coalesce(sum(bytes), 0) from copied"
            ).fetchone()
            return int(count), int(size)

    def close(self) -> None:
        with self._lock, sqlite_errors(self.path):
            self._db.close()
