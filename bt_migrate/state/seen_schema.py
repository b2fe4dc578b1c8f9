"""The tables of the SQLite file of one stream, see `SeenRows`."""

from __future__ import annotations

import sqlite3
from typing import Set

# 1: row ids are bytes, and the destination's transactions are recorded.
FILE_VERSION = 1

SCHEMA = """
    -- each delivery: the source's transaction of the row, its outcome, the destination's
    -- transaction
    create table if not exists delivered
        (object text, id blob, xact integer, outcome text, dest_xact integer);
    -- what a sync is about to send, or a copy has sent to a destination that names no
    -- transactions: digest of the row, number of the sync (0: the copy)
    create table if not exists sending
        (object text, id blob, digest blob, round integer, primary key (object, id))
        without rowid;
    -- digests of what the destination had before this run
    create table if not exists before
        (object text, id blob, digest blob, primary key (object, id)) without rowid;
    -- content that rows of others had when the source had the same
    create table if not exists found
        (object text, id blob, digest blob, primary key (object, id)) without rowid;
    -- rows that came to an object that existed before; an undo may delete them
    create table if not exists inserted
        (object text, id blob, primary key (object, id)) without rowid;
    -- references that wait for an object to exist
    create table if not exists deferred
        (object text, id blob, path text, targets text, ref blob, origin text,
        primary key (object, id, path)) without rowid;
    -- rows that did not arrive whole; the next sync tries them again
    create table if not exists failed
        (object text, id blob, round integer, primary key (object, id)) without rowid;
    -- rows that a sync delivered and that the destination has not shown since
    create table if not exists unconfirmed
        (object text, id blob, xact integer, outcome text, dest_xact integer,
        primary key (object, id)) without rowid;
"""


def upgrade(db: sqlite3.Connection) -> None:
    """Bring a file of an earlier version up to date: it held ids as text, and no transactions of
    the destination.
    """
    (version,) = db.execute("pragma user_version").fetchone()
    if version >= FILE_VERSION:
        return
    db.execute("begin")
    if "dest_xact" not in columns_of(db, "main", "delivered"):
        db.execute("alter table delivered add column dest_xact integer")
    for table in ("delivered", "sending", "before", "inserted", "deferred", "failed"):
        db.execute(f"update {table} set id = cast(id as blob) where typeof(id) = 'text'")
    db.execute("update deferred set ref = cast(ref as blob) where typeof(ref) = 'text'")
    db.execute("commit")
    db.execute(f"pragma user_version = {FILE_VERSION}")


def columns_of(db: sqlite3.Connection, schema: str, table: str) -> Set[str]:
    return {column[1] for column in db.execute(f"pragma {schema}.table_info({table})")}
