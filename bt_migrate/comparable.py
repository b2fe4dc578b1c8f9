"""Rows and attachments in the form in which both sides can be compared: references translated, keys replaced by the bytes behind.

Reads attachments of both sides, streamed, each key once; knows nothing of what becomes of the comparison.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sqlite3
import threading
from collections import Counter
from dataclasses import replace
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional, Sequence, Tuple

import requests

from bt_migrate.api import Api
from bt_migrate.attachments import CHUNK_BYTES
from bt_migrate.canonical import bytes_mark, canonical_text
from bt_migrate.catalog import Catalog
from bt_migrate.errors import ApiError, NetworkError
from bt_migrate.json_text import decode
from bt_migrate.outgoing import Notes, Outgoing, spill_key
from bt_migrate.references import value_at
from bt_migrate.resources import RowKind
from bt_migrate.rows import (
    ATTACHMENT_TYPE,
    COMMENTS,
    REFERENCE_FIELDS,
    SPILLABLE,
    attachment_places,
    comment_record,
    comments_of,
    held_fields,
)

UNREADABLE = bytes_mark("unreadable")
REWRITTEN = (*REFERENCE_FIELDS, "origin")  # fields of a row in which references are translated
NO_LIMIT = 1 << 62  # of a row's size: a comparison makes no attachments

# What the rewriting of an object or row finds -> the tolerated change that it is.
TOLERATED_OF_FINDING = {
    "version_pin_removed": "version",
    "user_without_counterpart": "left_out",
    "reference_to_unmovable": "left_out",
    "unresolved_reference": "left_out",
    "made_private": "made_private",
}


class AttachmentBytes:
    """SHA-256 of the attachments of one organization, each read once. Safe for many threads; what is known lies in a file."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)  # a private file that SQLite removes
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
                raise NetworkError(f"{self._api.side}: download of an attachment broke off ({type(problem).__name__})") from None
            expected = response.headers.get("Content-Length", "")
            if expected.isdigit() and "Content-Encoding" not in response.headers and int(expected) != size:
                raise NetworkError(f"{self._api.side}: download of an attachment was cut off")

    def close(self) -> None:
        self._db.close()


class Form(NamedTuple):
    """A row as it is compared. `text` is canonical; `exact` is the same with timestamps as they stand."""

    text: str
    exact: str
    stamps: int  # timestamps in which the two differ
    xact: str


class SourceForms:
    """Source rows of one kind as the destination should hold them. For one thread; `tolerated` counts what was translated."""

    def __init__(self, catalog: Catalog, kind: RowKind, attachments: AttachmentBytes) -> None:
        self._kind, self._attachments, self._outgoing = kind, attachments, Outgoing(catalog, kind)
        self.tolerated: Counter[str] = Counter()

    def form(self, row: dict, object_id: str) -> Form:
        as_read = held_fields(self._kind, row)
        form = _form(as_read, row, self._attachments, ())[0]
        if self._outgoing.leaves(as_read, form.exact.encode("ascii")):
            return form
        notes = Notes()
        encoded, out = self._outgoing.encoded(row, object_id, notes)
        for one in notes.records():
            if one["kind"] in TOLERATED_OF_FINDING:
                self.tolerated[TOLERATED_OF_FINDING[one["kind"]]] += one["count"]
        for name in REWRITTEN:
            if out.get(name) is not row.get(name) and out.get(name) != row.get(name):
                self.tolerated["reference"] += 1
        form, unreadable = _form(out, row, self._attachments, encoded.attachments)
        if encoded.attachments:
            self.tolerated.update(attachment=len(encoded.attachments) - unreadable, attachment_unreadable=unreadable)
        return form


class DestForms:
    """Destination rows of one kind. For one thread."""

    def __init__(self, catalog: Catalog, kind: RowKind, attachments: AttachmentBytes) -> None:
        self._catalog, self._kind, self._attachments = catalog, kind, attachments
        self.tolerated: Counter[str] = Counter()

    def form(self, row: dict, object_id: str) -> Form:
        """`object_id`: of the source's object, from which the keys of oversize fields are made."""
        out = held_fields(self._kind, row)
        if row.get(COMMENTS):
            self._catalog.dest.shows_comments = True
        form = _form(out, row, self._attachments, ())[0]
        if "origin" not in out and ATTACHMENT_TYPE not in form.exact:
            return form
        for name in SPILLABLE:
            value = out.get(name)
            if isinstance(value, dict) and value.get("type") == ATTACHMENT_TYPE and value.get("key") == spill_key(
                self._catalog.dest.org_id, object_id, row["id"], name
            ):
                out[name] = decode(self._attachments.content(value))[0]
                self.tolerated["oversize"] += 1
        origin = out.get("origin")
        if isinstance(origin, dict) and "_xact_id" in origin:
            out["origin"] = {name: value for name, value in origin.items() if name != "_xact_id"}
            self.tolerated["version"] += 1
        return _form(out, row, self._attachments, None if self._catalog.settings.attachments else ())[0]


def _form(
    out: Dict[str, Any], row: Mapping[str, Any], attachments: AttachmentBytes, references: Optional[Sequence[Mapping[str, Any]]]
) -> Tuple[Form, int]:
    """(form, attachments that cannot be read). `references`: the attachments as their organization knows them, None where they
    stand so in the row, () to leave keys as they are.
    """
    comments = _comments(row) if row.get(COMMENTS) else {}
    if comments:
        out = {**out, COMMENTS: comments}
    text, exact, stamps = canonical_text(out)
    xact = str(row.get("_xact_id") or "")
    if references == () or ATTACHMENT_TYPE not in exact:
        return Form(text, exact, stamps, xact), 0
    places, value = attachment_places(out), json.loads(exact)
    marks = [attachments.mark(one) for one in references or [value_at(value, path) for path in places]]
    for path, mark in zip(places, marks):
        value_at(value, path)["key"] = mark
    return Form(*canonical_text(value), xact), marks.count(UNREADABLE)


def _comments(row: Mapping[str, Any]) -> Dict[str, Any]:
    """id -> what the API lets a comment keep: its date and text. Its author cannot be set."""
    records = [comment_record(row["id"], one) for one in comments_of(row)]
    return {str(one["id"]): [one.get("created"), one["comment"]["text"]] for one in records if one}


def for_judging(catalog: Catalog) -> Catalog:
    """Both organizations as they are now, neither of which can be written: lists are read anew, counterparts are what carries
    the natural key, and no field of a row becomes an attachment.
    """
    dest = copy.copy(catalog.dest)  # with the same throttle and bound on requests
    dest.writable = False
    settings = replace(catalog.settings, max_row_bytes=NO_LIMIT)
    return Catalog(catalog.source, dest, catalog.run, settings).by_natural_key()
