"""Encodes a source row for the destination, and notes what a person should know about it.

The copy sends the result and the comparison expects it: both use this module.
"""

from __future__ import annotations

import json
import re
import uuid
from functools import partial
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Set,
    Tuple,
)

from bt_migrate.api.json_codec import encode, encode_plain
from bt_migrate.api.transactions import xact_of
from bt_migrate.attachments.copy import NAMESPACE, dest_attachment_key
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.references import Path, Resolve, attachment_places, dotted, strings, value_at
from bt_migrate.model.resource import Pin
from bt_migrate.model.resources import BY_NAME, SELECTABLE, RowKind
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.pins import may_be_mapped, resolve_version
from bt_migrate.objects.prepare import judge_unresolved
from bt_migrate.rows.batches import EncodedRow
from bt_migrate.rows.rewrite import (
    COMMENTS,
    PARENT,
    PIN_BESIDE,
    REFERENCE_FIELDS,
    FieldSplit,
    comment_record,
    comments_of,
    insertable_row,
    kept_for_merges,
    lost_history,
    may_hold_references,
    rewrite_row,
    spill_order,
)
from bt_migrate.rows.unfinished import is_left_unfinished
from bt_migrate.state.row_records import DeferredReference

# Hex digits of a UUID before its first dash.
UUID_HEAD_DIGITS = 8
# A UUID from its first dash on: a pattern that starts with a fixed character is searched several
# times faster than one that does not.
UUID_TAIL = re.compile(rb"-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")

# Replaces each resolved reference during the search for unresolved ids. It is recognized by
# identity, not by its text.
RESOLVED_MARK = "\x00resolved"

Write = Callable[[Any], bytes]
Spill = Tuple[str, str, bytes]  # (key, file name, content)


class Draft(NamedTuple):
    """A row of `object_id` while it is being encoded."""

    object_id: str
    fields: Dict[str, Any]
    write: Write
    notes: FindingCounts


class RowEncoder:
    """Encodes the rows of one kind for the destination.

    Findings are added to the notes that are passed with each row. Not for several threads.
    """

    def __init__(self, catalog: Catalog, kind: RowKind, resolve: Optional[Resolve] = None) -> None:
        self._catalog = catalog
        self._kind = kind
        self._split = FieldSplit(kind)
        self._resolve = resolve or catalog.targets.resolve
        self._resolve_version = partial(resolve_version, catalog)
        self._rewrite_row = partial(
            rewrite_row,
            known_ids=catalog.targets.known_ids(),
            new_names=catalog.settings.rename_projects,
        )
        self._known_tails = catalog.targets.known_tails(UUID_HEAD_DIGITS)
        self._copies_attachments = catalog.settings.attachments
        self._max_row_bytes = catalog.settings.max_row_bytes

    def encoded(
        self, row: JsonObject, object_id: str, notes: FindingCounts, *, plain: bool = False
    ) -> Tuple[EncodedRow, Dict[str, Any]]:
        """Returns the encoded row and its insertable fields.

        Most rows are encoded once and sent as they were read. Only a row that may hold source ids,
        attachments or comments, or that is too large, is examined. `plain`: the row was read so
        that `encode_plain` writes it exactly.
        """
        write = encode_plain if plain else encode
        out, lost = self._split.of(row)
        history = lost_history(row)
        if lost or history:
            _note_lost(row["id"], lost, history, notes)
        body = write(out)
        xact = xact_of(row.get("_xact_id"))
        fits = len(body) <= self._max_row_bytes
        if fits and not row.get(COMMENTS) and self.is_sent_as_read(out, body):
            return EncodedRow(row["id"], xact, body, object_id), out
        draft = Draft(object_id, out, write, notes)
        body, deferred = self._with_references(draft, body)
        body, attachments = self._with_attachments(draft, body)
        body, spills = self._with_spills(draft, body, object_id)
        encoded = EncodedRow(
            row["id"],
            xact,
            body,
            object_id,
            attachments=tuple(attachments),
            spills=tuple(spills),
            comments=tuple(_encoded_comments(row, notes)),
            deferred=tuple(deferred),
        )
        return encoded, out

    def is_sent_as_read(self, out: Dict[str, Any], body: bytes) -> bool:
        """Whether the row, whose encoding is `body`, holds no source id and no attachment."""
        return not (may_hold_references(out) or self._names_source(body) or b"_attachment" in body)

    def _names_source(self, body: bytes) -> bool:
        """Whether the text may hold a source id. A false positive only costs time."""
        return not self._known_tails.isdisjoint(UUID_TAIL.findall(body))

    # -- references

    def _with_references(self, draft: Draft, body: bytes) -> Tuple[bytes, List[DeferredReference]]:
        """Rewrite the references. Returns the new text and the pending references."""
        if not (may_hold_references(draft.fields) or self._names_source(body)):
            return body, []
        deferred = self._rewrite(draft)
        body = draft.write(draft.fields)
        if self._names_source(body):
            # Source ids that are left are in texts that a user wrote.
            for name in _fields_that(draft, self._names_source):
                draft.notes.add("source_id_in_text", draft.fields["id"], name)
        return body, deferred

    def _rewrite(self, draft: Draft) -> List[DeferredReference]:
        out = draft.fields
        merge_values = kept_for_merges(out)
        rewritten = self._rewrite_row(out, self._resolve, self._resolve_version)
        removed = list(rewritten.pins)
        deferred = []
        for path, targets, ref in rewritten.unresolved:
            if self._catalog.targets.may_be_added(targets, ref):
                value = json.dumps(merge_values[path[:2]]) if path[:2] in merge_values else ""
                place = draft.object_id, out["id"], json.dumps(path)
                deferred.append(DeferredReference(*place, ",".join(targets), ref, value))
                if may_be_mapped(self._catalog, targets) and PIN_BESIDE.get(path) in removed:
                    # The version waits with the id.
                    removed.remove(PIN_BESIDE[path])
            else:
                kind, detail = judge_unresolved(self._catalog, targets, ref)
                draft.notes.add(kind, out["id"], dotted(path), detail, ref)
        for pin in removed:
            draft.notes.add("version_pin_removed", out["id"], pin)
        return deferred

    def note_left_out(self, encoded: EncodedRow, notes: FindingCounts) -> None:
        """Note the references that wait for a person: a user to invite, code to push."""
        for reference in encoded.deferred:
            wanted = reference.resources, reference.ref
            if not self._catalog.targets.may_resolve_later(*wanted):
                kind, detail = judge_unresolved(self._catalog, *wanted)
                notes.add(kind, encoded.id, dotted(reference.place), detail, reference.ref)

    def late_phases(self, encoded: EncodedRow) -> Set[str]:
        """Returns the phases after that of the rows whose objects complete this row."""
        later = SELECTABLE[SELECTABLE.index(self._kind.name) + 1 :]
        return {
            BY_NAME[name].phase
            for reference in encoded.deferred
            if self._catalog.targets.may_resolve_later(reference.resources, reference.ref)
            for name in reference.resources
            if name in later and self._catalog.settings.selects(name)
        }

    def rewritten(self, row: JsonObject) -> Dict[str, Any]:
        """Returns the insertable fields of a row with the references that resolve now."""
        out = insertable_row(self._kind, row)
        self._rewrite_row(out, self._resolve, self._resolve_version)
        return out

    def late_references(self, row: JsonObject) -> Dict[Path, Optional[str]]:
        """Returns the places of references that an earlier run may not have resolved.

        The value is the text that the earlier run kept at that place, None if it left the reference
        out.
        """
        out = insertable_row(self._kind, row)
        if not (may_hold_references(out) or self._names_source(encode(out))):
            return {}
        self._rewrite_row(out, self._resolve_marked, self._version_marked)
        late: Dict[Path, Optional[str]] = {}
        origin = out.get("origin")
        if isinstance(origin, dict):
            if origin.get("_xact_id") is RESOLVED_MARK:
                late[("origin", "_xact_id")] = None
            if origin.get("object_id") is RESOLVED_MARK:
                late[("origin",)] = None
        for name in REFERENCE_FIELDS:
            late.update(
                (path, None)
                for path, text in strings(out.get(name), (name,))
                if text is RESOLVED_MARK
            )
        metadata = out.get("metadata")
        if isinstance(metadata, dict) and str(metadata.get(PARENT)).endswith(":" + RESOLVED_MARK):
            late[("metadata", PARENT)] = row["metadata"][PARENT]
        return late

    def _resolve_marked(self, targets: Tuple[str, ...], ref: str) -> Optional[str]:
        return None if self._resolve(targets, ref) is None else RESOLVED_MARK

    def _version_marked(self, pin: Pin, holder: Mapping[str, Any], version: Any) -> Optional[str]:
        dest_version = self._resolve_version(pin, holder, version)
        return RESOLVED_MARK if dest_version is not None else None

    def is_left_unfinished(
        self,
        row: EncodedRow,
        out: Dict[str, Any],
        there: JsonObject,
        late: Mapping[Path, Optional[str]],
    ) -> bool:
        """Whether the destination's row is this row as an earlier run left it unfinished."""
        keys = [reference["key"] for reference in row.attachments]
        source_keys = _source_keys(keys, self._catalog.dest.org_id)
        return is_left_unfinished(out, insertable_row(self._kind, there), late, source_keys)

    # -- attachments

    def _with_attachments(self, draft: Draft, body: bytes) -> Tuple[bytes, List[Dict[str, Any]]]:
        """Replace attachment keys. Returns the new text and the references with source keys."""
        if b"_attachment" not in body:
            return body, []
        out = draft.fields
        if b"external_attachment" in body:
            for name in _fields_that(draft, lambda text: b"external_attachment" in text):
                draft.notes.add("external_attachment", out["id"], name)
        originals = []
        for path in attachment_places(out):
            reference = value_at(out, path)
            if not self._copies_attachments:
                draft.notes.add("attachment_left", out["id"], dotted(path))
                continue
            originals.append(dict(reference))
            reference["key"] = dest_attachment_key(self._catalog.dest.org_id, reference["key"])
        return draft.write(out), originals

    def _with_spills(self, draft: Draft, body: bytes, object_id: str) -> Tuple[bytes, List[Spill]]:
        """Turn the largest fields into JSON attachments until the row fits.

        Returns the new text and the attachments. Keys depend only on the place of the field, so
        that a second run makes the same keys.
        """
        spills: List[Spill] = []
        size = len(body)
        if size <= self._max_row_bytes:
            return body, spills
        out = draft.fields
        for name in spill_order(out, draft.write):
            content = draft.write(out[name])
            key = spill_key(self._catalog.dest.org_id, object_id, out["id"], name)
            filename, content_type = spill_names(name)
            out[name] = {
                "type": "braintrust_attachment",
                "key": key,
                "filename": filename,
                "content_type": content_type,
            }
            spills.append((key, filename, content))
            draft.notes.add("field_made_attachment", out["id"], name, f"row of {size:,} bytes")
            body = draft.write(out)
            if len(body) <= self._max_row_bytes:
                break
        return body, spills


def _note_lost(
    row_id: str, fields: Iterable[str], history: Mapping[str, int], notes: FindingCounts
) -> None:
    for name in fields:
        notes.add("row_field_not_carried", row_id, name)
    for action, count in history.items():
        notes.add_many("row_field_not_carried", row_id, count, "audit_data", action)


def _encoded_comments(row: JsonObject, notes: FindingCounts) -> Iterator[bytes]:
    for comment in comments_of(row):
        record = comment_record(row["id"], comment)
        if record:
            yield encode(record)
        else:
            notes.add("row_field_not_carried", row["id"], COMMENTS)


def _fields_that(draft: Draft, holds: Callable[[bytes], bool]) -> List[str]:
    """Returns the names of the fields whose text satisfies `holds`."""
    return [name for name, value in draft.fields.items() if holds(draft.write(value))]


def spill_key(dest_org_id: str, object_id: str, row_id: str, name: str) -> str:
    """Returns the key of the JSON attachment that replaces a field; `object_id` is the source's."""
    place = f"{dest_org_id}/{object_id}/{row_id}/{name}"
    return str(uuid.uuid5(NAMESPACE, place.encode("utf-8", "surrogatepass").decode("latin-1")))


def spill_names(name: str) -> Tuple[str, str]:
    """Returns (file name, content type) of the JSON attachment that replaces a field."""
    return f"{name}.json", "application/json"


def _source_keys(keys: Iterable[str], dest_org_id: str) -> Dict[str, str]:
    """Returns the destination's key of an attachment -> the source's."""
    return {dest_attachment_key(dest_org_id, key): key for key in keys}


def attachment_paths(body: bytes, keys: Iterable[str], dest_org_id: str) -> Dict[str, str]:
    """Returns source key -> path at which the encoded row refers to that attachment."""
    row = json.loads(body)
    source_keys = _source_keys(keys, dest_org_id)
    paths = {}
    for path in attachment_places(row):
        key = value_at(row, path)["key"]
        if key in source_keys:
            paths[source_keys[key]] = dotted(path)
    return paths


def keep_source_keys(body: bytes, failed_keys: Iterable[str], dest_org_id: str) -> bytes:
    """Returns the encoded row with the source's keys of attachments that could not be copied."""
    source_keys = _source_keys(failed_keys, dest_org_id)
    row = json.loads(body)
    for path in attachment_places(row):
        reference = value_at(row, path)
        reference["key"] = source_keys.get(reference["key"], reference["key"])
    return encode(row)
