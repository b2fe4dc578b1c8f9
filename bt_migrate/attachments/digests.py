"""Digests of attachments, so that two organizations can be compared by bytes instead of keys."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from typing import Any, Callable, Mapping

from bt_migrate.api.client import Api
from bt_migrate.api.json_codec import decode
from bt_migrate.attachments.read import attachment_chunks
from bt_migrate.errors import ApiError, NetworkError
from bt_migrate.model.equality import bytes_mark

UNREADABLE = bytes_mark("unreadable")


class AttachmentBytes:
    """SHA-256 of the attachments of one organization, each read once. Safe for many threads.

    The digests are kept in a temporary file.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        # a temporary file, which SQLite removes
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._db.execute("create table known (key blob primary key, mark text) without rowid")

    @property
    def org_id(self) -> str:
        return self._api.org_id

    def mark(self, reference: Mapping[str, Any]) -> str:
        """Returns the text that replaces the key in comparisons.

        Equal for equal bytes; UNREADABLE if this organization does not return them.
        """
        key = reference["key"].encode("utf-8", "surrogatepass")
        with self._lock:
            row = self._db.execute("select mark from known where key = ?", (key,)).fetchone()
        if row:
            return str(row[0])
        mark = self._read_mark(reference)
        with self._lock:
            self._db.execute("insert or replace into known values (?, ?)", (key, mark))
        return mark

    def _read_mark(self, reference: Mapping[str, Any]) -> str:
        def read() -> str:
            digest = hashlib.sha256()
            for chunk in attachment_chunks(self._api, reference):
                digest.update(chunk)
            return bytes_mark(digest.hexdigest())

        return str(self._readable(read))

    def json_value(self, reference: Mapping[str, Any]) -> Any:
        """Returns the JSON value in the file, UNREADABLE if it cannot be read or is not JSON."""

        def read() -> bytes:
            return b"".join(attachment_chunks(self._api, reference))

        content = self._readable(read)
        try:
            return content if content == UNREADABLE else decode(content)[0]
        except (ValueError, RecursionError):
            return UNREADABLE

    def _readable(self, read: Callable[[], Any]) -> Any:
        try:
            return self._api.store.retrying(read)
        except NetworkError as error:
            # the host is unreachable: nothing can be compared
            if error.final:
                raise
            return UNREADABLE
        except ApiError:
            return UNREADABLE

    def close(self) -> None:
        self._db.close()
