"""Rows and attachments in the form in which both sides can be compared: references translated, keys replaced by the bytes behind.

Reads attachments of both sides, streamed, each key once; knows nothing of what becomes of the comparison.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import replace
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

from bt_migrate.api.json_codec import decode
from bt_migrate.attachments.digests import UNREADABLE, AttachmentBytes
from bt_migrate.model.equality import canonical_text
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.references import ATTACHMENT_TYPE, attachment_places, value_at
from bt_migrate.model.resources import RowKind
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.encode import RowEncoder, spill_key
from bt_migrate.rows.rewrite import (
    COMMENTS,
    REFERENCE_FIELDS,
    SPILLABLE,
    comment_record,
    comments_of,
    held_fields,
)

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


class Form(NamedTuple):
    """A row as it is compared. `text` is canonical; `exact` is the same with timestamps as they stand."""

    text: str
    exact: str
    stamps: int  # timestamps in which the two differ
    xact: str


class SourceForms:
    """Source rows of one kind as the destination should hold them. For one thread; `tolerated` counts what was translated."""

    def __init__(self, catalog: Catalog, kind: RowKind, attachments: AttachmentBytes) -> None:
        self._kind, self._attachments, self._outgoing = kind, attachments, RowEncoder(catalog, kind)
        self.tolerated: Counter[str] = Counter()

    def form(self, row: dict, object_id: str) -> Form:
        as_read = held_fields(self._kind, row)
        form = _form(as_read, row, self._attachments, ())[0]
        if self._outgoing.leaves(as_read, form.exact.encode("ascii")):
            return form
        notes = FindingCounts()
        encoded, out = self._outgoing.encoded(row, object_id, notes)
        for one in notes.records():
            if one["kind"] in TOLERATED_OF_FINDING:
                self.tolerated[TOLERATED_OF_FINDING[one["kind"]]] += one["count"]
        for name in REWRITTEN:
            if out.get(name) is not row.get(name) and out.get(name) != row.get(name):
                self.tolerated["reference"] += 1
        form, unreadable = _form(out, row, self._attachments, encoded.attachments)
        if encoded.attachments:
            self.tolerated.update(
                attachment=len(encoded.attachments) - unreadable, attachment_unreadable=unreadable
            )
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
            if (
                isinstance(value, dict)
                and value.get("type") == ATTACHMENT_TYPE
                and value.get("key")
                == spill_key(self._catalog.dest.org_id, object_id, row["id"], name)
            ):
                out[name] = decode(self._attachments.content(value))[0]
                self.tolerated["oversize"] += 1
        origin = out.get("origin")
        if isinstance(origin, dict) and "_xact_id" in origin:
            out["origin"] = {name: value for name, value in origin.items() if name != "_xact_id"}
            self.tolerated["version"] += 1
        return _form(
            out, row, self._attachments, None if self._catalog.settings.attachments else ()
        )[0]


def _form(
    out: Dict[str, Any],
    row: Mapping[str, Any],
    attachments: AttachmentBytes,
    references: Optional[Sequence[Mapping[str, Any]]],
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
    marks = [
        attachments.mark(one) for one in references or [value_at(value, path) for path in places]
    ]
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
