"""SQLite files of a run directory: how they are opened, how their errors are reported, how row ids
are stored.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Iterator

from bt_migrate.errors import StateError


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
        db.executescript("pragma journal_mode=wal; pragma synchronous=normal;")
    except BaseException:
        db.close()
        raise
    return db


def id_bytes(row_id: str) -> bytes:
    """Returns the id as it is stored: it may hold a lone surrogate, which SQLite's text may not."""
    return row_id.encode("utf-8", "surrogatepass")


def id_text(stored: bytes) -> str:
    """The inverse of `id_bytes`."""
    return stored.decode("utf-8", "surrogatepass")
