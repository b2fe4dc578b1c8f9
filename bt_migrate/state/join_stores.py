"""Joins the SQLite stores of the runs that are merged into one."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Callable, Sequence

from bt_migrate.state.seen_schema import SCHEMA, columns_of, upgrade
from bt_migrate.state.sqlite import sqlite_errors


def join_stores(
    into: Path, stores: Sequence[Path], note_joined: Callable[[Path], None] = lambda store: None
) -> None:
    """Create one file with the records of all of these; `note_joined` after each.

    The stores are not changed: copies are read, with the write-ahead log that a killed process
    left. The result is not flushed to disk, since nothing refers to it yet.
    """
    part = into.with_name(into.name + ".part")
    for number, store in enumerate(stores):
        with sqlite_errors(store):
            copy_store(store, part if number else into)
            _upgrade_file(part if number else into)
            if number:
                _append_store(into, part)
                for path in into.parent.glob(part.name + "*"):
                    path.unlink()
        note_joined(store)


def copy_store(store: Path, target: Path) -> None:
    """Copy a file, if it exists, with the write-ahead log that a killed process left."""
    for ending in ("", "-wal"):
        if Path(f"{store}{ending}").exists():
            shutil.copyfile(f"{store}{ending}", f"{target}{ending}")
            os.chmod(f"{target}{ending}", 0o600)


def _upgrade_file(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(str(path), isolation_level=None)) as db:
        db.executescript(SCHEMA)
        upgrade(db)


def _append_store(into: Path, part: Path) -> None:
    with contextlib.closing(sqlite3.connect(str(into), isolation_level=None)) as db:
        db.execute("pragma synchronous=off")
        db.execute("attach ? as part", (str(part),))
        db.execute("begin")
        tables = db.execute("select name from part.sqlite_master where type = 'table'").fetchall()
        for (table,) in tables:
            columns = ", ".join(columns_of(db, "main", table) & columns_of(db, "part", table))
            db.execute(
                f"insert or replace into main.{table} ({columns})"
                f" select {columns} from part.{table}"
            )
        db.execute("commit")
