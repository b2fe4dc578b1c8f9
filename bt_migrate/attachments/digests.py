"""digests."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from typing import Any, Iterator, Mapping

import requests

from bt_migrate.api.client import Api
from bt_migrate.attachments.copy import CHUNK_BYTES
from bt_migrate.errors import ApiError, NetworkError
from bt_migrate.model.equality import bytes_mark

UNREADABLE = bytes_mark("unreadable")


class AttachmentBytes:
    """SHA-256 of the attachments of one organization, each read once. Safe for many threads; what is known lies in a file."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._db = sqlite3.connect(
            "", check_same_thread=False, isolation_level=None
        )  # a private file that SQLite removes
        self._db.execute("create table known (key blob primary key, mark text) without rowid")

    def mark(self, reference: Mapping[str, Any]) -> str:
        """What stands for the key: equal for equal bytes, UNREADABLE for what this organization cannot give."""
        key = reference["key"].encode("utf-8", "surrogatepass")
        with self._lock:
            found = self._db.execute("select mark from known where key = ?", (key,)).fetchone()
        if found:
            return str(found[0])
        mark = self._read_mark(reference)
        with self._lock:
            self._db.execute("insert or replace into known values (?, ?)", (key, mark))
        return mark

    def _read_mark(self, reference: Mapping[str, Any]) -> str:
        def read() -> str:
            digest = hashlib.sha256()
            for chunk in self._chunks(reference):
                digest.update(chunk)
            return bytes_mark(digest.hexdigest())

        try:
            return self._api.with_signed(read)
        except ApiError as error:
            if error.status >= 500:
                raise
            return UNREADABLE

    def content(self, reference: Mapping[str, Any]) -> bytes:
        """The bytes themselves, of a row's own field. Raises ApiError or NetworkError."""
        return self._api.with_signed(lambda: b"".join(self._chunks(reference)))

    def _chunks(self, reference: Mapping[str, Any]) -> Iterator[bytes]:
        named = {
            "key": reference["key"],
            "filename": reference.get("filename") or "attachment",
            "content_type": reference.get("content_type") or "application/octet-stream",
        }
        answer = self._api.get("/attachment", {**named, "org_id": self._api.org_id}) or {}
        status = (answer.get("status") or {}).get("upload_status")
        if status != "done":
            raise ApiError(self._api.side, "GET", "/attachment", 404, f"upload status {status!r}")
        size = 0
        with self._api.open_download(answer["downloadUrl"], named["content_type"]) as response:
            try:
                for chunk in response.iter_content(CHUNK_BYTES):
                    size += len(chunk)
                    yield chunk
            except requests.RequestException as problem:
                raise NetworkError(
                    f"{self._api.side}: download of an attachment broke off ({type(problem).__name__})"
                ) from None
            expected = response.headers.get("Content-Length", "")
            if (
                expected.isdigit()
                and "Content-Encoding" not in response.headers
                and int(expected) != size
            ):
                raise NetworkError(f"{self._api.side}: download of an attachment was cut off")

    def close(self) -> None:
        self._db.close()
