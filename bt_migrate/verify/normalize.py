"""Rows of both sides in a form that can be compared.

References are translated. Keys of attachments are replaced by digests of their bytes, which are
streamed, each key once. This module does not know how the forms are compared.
"""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from dataclasses import replace
from typing import Any, Dict, FrozenSet, Mapping, NamedTuple, Optional, Sequence, Tuple

from bt_migrate.attachments.digests import UNREADABLE, AttachmentBytes
from bt_migrate.model.equality import canonical_text
from bt_migrate.model.findings import TARGET_LIST_REFUSED
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.references import (
    ATTACHMENT_TYPE,
    attachment_places,
    set_at,
    strings,
    value_at,
)
from bt_migrate.model.resources import RowKind
from bt_migrate.objects.catalog import Catalog, catalog_by_natural_key
from bt_migrate.rows.encode import UUID_HEAD_DIGITS, UUID_TAIL, RowEncoder, spill_key
from bt_migrate.rows.rewrite import (
    COMMENTS,
    REFERENCE_FIELDS,
    SPILLABLE,
    comment_record,
    comments_of,
    held_fields,
)
from bt_migrate.rows.versions_there import without_lost_versions
from bt_migrate.verify.traces import id_in

REWRITTEN_FIELDS = (*REFERENCE_FIELDS, "origin")  # fields of a row that may hold references
SOURCE_ID_MARK = "source id "
# The end of a UUID in text; a pattern that begins with a fixed character is fast.
UUID_TAIL_TEXT = re.compile(UUID_TAIL.pattern.decode("ascii"))
NO_ROW_LIMIT_BYTES = 1 << 62  # a comparison does not turn large fields into attachments

# Kind of finding of a rewritten object or row -> name of the tolerated change.
TOLERATED_OF_FINDING = {
    "version_pin_removed": "version",
    "user_without_counterpart": "left_out",
    "reference_to_unmovable": "left_out",
    "unresolved_reference": "left_out",
    TARGET_LIST_REFUSED: "left_out",
    "lost_at_source": "left_out",
    "waits": "left_out",
    "made_private": "made_private",
}


# assumption: rows_keep_what_is_sent
class Form(NamedTuple):
    """A row as it is compared. `text` is canonical; `exact` keeps timestamps unchanged."""

    text: str
    exact: str
    stamps: int  # number of timestamps in which the two differ
    xact: str


class SourceForms:
    """Source rows of one kind, as the destination should have them. Not for several threads.

    `tolerated` counts what was translated.
    """

    def __init__(self, catalog: Catalog, kind: RowKind, attachments: AttachmentBytes) -> None:
        self._kind = kind
        self._attachments = attachments
        self._encoder = RowEncoder(catalog, kind)
        self.tolerated: Counter[str] = Counter()

    def form(self, row: JsonObject, object_id: str) -> Form:
        as_read = held_fields(self._kind, row)
        form = _form(as_read, row, self._attachments, ())[0]
        if self._encoder.is_sent_as_read(as_read, form.exact.encode("ascii")):
            return form
        notes = FindingCounts()
        encoded, out = self._encoder.encoded(row, object_id, notes)
        self._encoder.note_left_out(encoded, notes)
        self._count_translated(row, out, notes)
        form, unreadable = _form(out, row, self._attachments, encoded.attachments)
        if encoded.attachments:
            self.tolerated.update(
                attachment=len(encoded.attachments) - unreadable, attachment_unreadable=unreadable
            )
        return form

    def is_left_unfinished(self, row: JsonObject, object_id: str, there: JsonObject) -> bool:
        """Whether the destination's row only lacks references that could not be resolved then."""
        late = self._encoder.late_references(row)
        if not late:
            return False
        encoded, out = self._encoder.encoded(row, object_id, FindingCounts())
        unpinned = without_lost_versions(row, out, there)
        copied = encoded._replace(attachments=())
        return self._encoder.is_left_unfinished(copied, out, unpinned, late)

    def _count_translated(
        self, row: Mapping[str, Any], out: Mapping[str, Any], notes: FindingCounts
    ) -> None:
        for record in notes.records():
            if record["kind"] in TOLERATED_OF_FINDING:
                self.tolerated[TOLERATED_OF_FINDING[record["kind"]]] += record["count"]
        for name in REWRITTEN_FIELDS:
            if out.get(name) is not row.get(name) and out.get(name) != row.get(name):
                self.tolerated["reference"] += 1


class DestForms:
    """Destination rows of one kind. Not safe for several threads."""

    def __init__(
        self,
        catalog: Catalog,
        kind: RowKind,
        attachments: AttachmentBytes,
        source_ids: FrozenSet[str],
    ) -> None:
        self._source_ids = source_ids
        self._source_tails = frozenset(source_id[UUID_HEAD_DIGITS:] for source_id in source_ids)
        self._catalog = catalog
        self._kind = kind
        self._attachments = attachments
        self.tolerated: Counter[str] = Counter()

    def form(self, row: JsonObject, object_id: str) -> Form:
        """Normalize a row. `object_id`, the source's, is part of the keys of oversize fields."""
        out = held_fields(self._kind, row)
        if row.get(COMMENTS):
            self._catalog.dest.capabilities.shows_comments = True
        form = _form(out, row, self._attachments, ())[0]
        if not self._source_tails.isdisjoint(UUID_TAIL_TEXT.findall(form.exact)):
            self._mark_source_ids(out)
            form = _form(out, row, self._attachments, ())[0]
        if "origin" not in out and ATTACHMENT_TYPE not in form.exact:
            return form
        self._bring_back_oversize(out, row["id"], object_id)
        references = None if self._catalog.settings.attachments else ()
        return _form(out, row, self._attachments, references)[0]

    def _mark_source_ids(self, out: Dict[str, Any]) -> None:
        """Change each source id in a destination row, so that it differs from the expected one."""
        for name in REWRITTEN_FIELDS:
            places = [
                path for path, text in strings(out.get(name)) if id_in(text) in self._source_ids
            ]
            if places:
                out[name] = copy.deepcopy(out[name])
            for path in places:
                set_at(out, (name, *path), f"{SOURCE_ID_MARK}{value_at(out[name], path)}")

    def _bring_back_oversize(self, out: Dict[str, Any], row_id: str, object_id: str) -> None:
        """Replace attachments that hold oversize fields by their content."""
        for name in SPILLABLE:
            value = out.get(name)
            if not isinstance(value, dict) or value.get("type") != ATTACHMENT_TYPE:
                continue
            if value.get("key") == spill_key(self._catalog.dest.org_id, object_id, row_id, name):
                out[name] = self._attachments.json_value(value)
                self.tolerated["oversize"] += 1


def _form(
    out: Dict[str, Any],
    row: Mapping[str, Any],
    attachments: AttachmentBytes,
    references: Optional[Sequence[Mapping[str, Any]]],
) -> Tuple[Form, int]:
    """Returns (form, number of attachments that cannot be read).

    `references`: the attachments as their organization refers to them; None if the row itself holds
    these references, () to keep the keys.
    """
    comments = _comments(row) if row.get(COMMENTS) else {}
    if comments:
        out = {**out, COMMENTS: comments}
    text, exact, stamps = canonical_text(out)
    xact = str(row.get("_xact_id") or "")
    if references == () or ATTACHMENT_TYPE not in exact:
        return Form(text, exact, stamps, xact), 0
    places = attachment_places(out)
    value = json.loads(exact)
    held = references or [value_at(value, path) for path in places]
    marks = [attachments.mark(reference) for reference in held]
    for path, mark in zip(places, marks):
        value_at(value, path)["key"] = mark
    return Form(*canonical_text(value), xact), marks.count(UNREADABLE)


def _comments(row: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns comment id -> [date, text], which is all that the API keeps of a comment."""
    records = [comment_record(row["id"], comment) for comment in comments_of(row)]
    return {
        str(record["id"]): [record.get("created"), record["comment"]["text"]]
        for record in records
        if record
    }


def for_judging(catalog: Catalog) -> Catalog:
    """Returns a catalog of both organizations as they are now, neither of which can be written.

    Lists are read again, counterparts are found by natural key, and no field of a row becomes an
    attachment.
    """
    # The copied client shares the throttle and the limit of concurrent requests.
    dest = copy.copy(catalog.dest)
    dest.writable = False
    settings = replace(catalog.settings, max_row_bytes=NO_ROW_LIMIT_BYTES)
    return catalog_by_natural_key(catalog.source, dest, catalog.run, settings)
