"""Source row -> the row as the destination gets it, encoded, with notes of what a person should know.

The copy sends it, the comparison expects it: both take it from here.
"""

from __future__ import annotations

import copy
import json
import re
import uuid
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from bt_migrate.api.json_codec import encode, encode_plain
from bt_migrate.api.transactions import xact_of
from bt_migrate.attachments.copy import NAMESPACE, dest_key
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.references import attachment_places, dotted, remove, value_at
from bt_migrate.model.resources import RowKind
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.batches import EncodedRow
from bt_migrate.rows.rewrite import (
    COMMENTS,
    comment_record,
    comments_of,
    deferred_merge,
    insertable_row,
    lost_row_fields,
    may_hold_references,
    rewrite_row,
    spill_order,
)

HEAD = 8  # hex digits of a UUID before its first dash
# From the first dash on: a pattern that begins with a fixed character is searched for several times faster than one that does
# not.
UUID_TAIL = re.compile(rb"-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
MAX_GUESSES = 256  # of how an earlier run may have written one row
Resolve = Callable[[Tuple[str, ...], str], Optional[str]]  # see Catalog.resolve


class RowEncoder:
    """Encodes the rows of one kind for the destination. What is to be told goes into the notes given with each row."""

    def __init__(self, catalog: Catalog, kind: RowKind, resolve: Optional[Resolve] = None) -> None:
        self._catalog, self._kind, self._resolve = catalog, kind, resolve or catalog.resolve
        self._known = catalog.known()
        self._known_tails = catalog.known_tails(HEAD)
        self._copies_attachments = catalog.settings.attachments
        self._max_row_bytes = catalog.settings.max_row_bytes

    def encoded(
        self, row: dict, object_id: str, notes: FindingCounts, *, plain: bool = False
    ) -> Tuple[EncodedRow, Dict[str, Any]]:
        """The row encoded, and as a dict. Encoded once; only one that holds ids of the source, attachments or too much is
        looked through.

        `plain`: the row was read so that `encode_plain` writes it exactly.
        """
        write = encode_plain if plain else encode
        for name in lost_row_fields(self._kind, row):
            notes.add("row_field_not_carried", row["id"], name)
        out = insertable_row(self._kind, row)
        body = write(out)
        xact = xact_of(row.get("_xact_id"))
        if (
            len(body) <= self._max_row_bytes and not row.get(COMMENTS) and self.leaves(out, body)
        ):  # as nearly all do
            return EncodedRow(row["id"], xact, body, object_id), out
        deferred: List[Tuple[str, str, str, str]] = []
        attachments: List[Dict[str, Any]] = []
        spills: List[Tuple[str, str, bytes]] = []
        comments: List[bytes] = []
        if may_hold_references(out) or self._names_source(body):
            deferred = self._rewrite(out, notes)
            body = write(out)
            if self._names_source(body):  # still: in what a user wrote
                for name in _fields_that(out, write, self._names_source):
                    notes.add("source_id_in_text", row["id"], name)
        if b"_attachment" in body:
            attachments = self._attachments(out, body, write, notes)
            body = write(out)
        if len(body) > self._max_row_bytes:
            spills, body = self._spill(out, object_id, body, write, notes)
        for comment in comments_of(row):
            record = comment_record(row["id"], comment)
            if record:
                comments.append(encode(record))
            else:
                notes.add("row_field_not_carried", row["id"], COMMENTS)
        encoded = EncodedRow(
            row["id"], xact, body, object_id,
            attachments=tuple(attachments), spills=tuple(spills), comments=tuple(comments), deferred=tuple(deferred),
        )  # fmt: skip
        return encoded, out

    def _names_source(self, body: bytes) -> bool:
        """Whether an id of the source may be in it; a wrong yes costs a closer look."""
        return not self._known_tails.isdisjoint(UUID_TAIL.findall(body))

    def leaves(self, out: Dict[str, Any], body: bytes) -> bool:
        """Whether the row, `body` when encoded, is sent as it is read: no id of the source, no attachment."""
        return not (may_hold_references(out) or self._names_source(body) or b"_attachment" in body)

    def _rewrite(
        self, out: Dict[str, Any], notes: FindingCounts
    ) -> List[Tuple[str, str, str, str]]:
        """Rewrite the references in place; gives back those that a later merge will add, as (path, resources, source id,
        origin).
        """
        origin = dict(out["origin"]) if isinstance(out.get("origin"), dict) else None
        if origin:
            origin.pop("_xact_id", None)
        found = rewrite_row(out, self._resolve, self._known)
        for pin in found.pins:
            notes.add("version_pin_removed", out["id"], pin)
        deferred = []
        for path, targets, ref in found.unresolved:
            if deferred_merge(path, "", origin) is not None and self._catalog.may_come(
                targets, ref
            ):
                deferred.append(
                    (
                        json.dumps(path),
                        ",".join(targets),
                        ref,
                        json.dumps(origin) if path == ("origin",) else "",
                    )
                )
            else:
                note_unresolved(notes, self._catalog, out["id"], dotted(path), targets, ref)
        return deferred

    def without_late(self, row: dict, out: Dict[str, Any]) -> Iterator[Dict[str, Any]]:
        """The row as an earlier run may have written it, which could not resolve some of its references yet."""
        found = rewrite_row(
            insertable_row(self._kind, row), lambda *_: None, self._known
        ).unresolved
        paths = [
            path
            for path, targets, ref in found
            if targets != ("users",) and self._catalog.resolve(targets, ref)
        ]
        for number in range(1, min(2 ** len(paths), MAX_GUESSES)):
            guess = copy.deepcopy(out)
            for bit, path in enumerate(paths):
                if number >> bit & 1:
                    remove(guess, path)
            yield guess

    def _attachments(
        self, out: Dict[str, Any], body: bytes, write: Callable[[Any], bytes], notes: FindingCounts
    ) -> List[Dict[str, Any]]:
        """Put the destination's keys in; gives back the references as they were."""
        if b"external_attachment" in body:
            for name in _fields_that(out, write, lambda text: b"external_attachment" in text):
                notes.add("external_attachment", out["id"], name)
        originals = []
        for path in attachment_places(out):
            reference = value_at(out, path)
            if not self._copies_attachments:
                notes.add("attachment_left", out["id"], dotted(path))
                continue
            originals.append(dict(reference))
            reference["key"] = dest_key(self._catalog.dest.org_id, reference["key"])
        return originals

    def _spill(
        self,
        out: Dict[str, Any],
        object_id: str,
        body: bytes,
        write: Callable[[Any], bytes],
        notes: FindingCounts,
    ) -> Tuple[List[Tuple[str, str, bytes]], bytes]:
        """Make the largest fields JSON attachments until the row fits.

        The keys are made from the place, so a second run makes the same.
        """
        spills = []
        for name in spill_order(out, write):
            content = write(out[name])
            key = spill_key(self._catalog.dest.org_id, object_id, out["id"], name)
            out[name] = {
                "type": "braintrust_attachment",
                "key": key,
                "filename": f"{name}.json",
                "content_type": "application/json",
            }
            spills.append((key, f"{name}.json", content))
            notes.add("field_made_attachment", out["id"], name, f"row of {len(body):,} bytes")
            if len(write(out)) <= self._max_row_bytes:
                break
        return spills, write(out)


def _fields_that(
    out: Dict[str, Any], write: Callable[[Any], bytes], hold: Callable[[bytes], bool]
) -> List[str]:
    """The fields of a row whose text holds it."""
    return [name for name, value in out.items() if hold(write(value))]


def spill_key(dest_org_id: str, object_id: str, row_id: str, name: str) -> str:
    """The key of the JSON attachment that a field of a row becomes; `object_id` is the source's."""
    place = f"{dest_org_id}/{object_id}/{row_id}/{name}"
    return str(uuid.uuid5(NAMESPACE, place.encode("utf-8", "surrogatepass").decode("latin-1")))


def note_unresolved(
    notes: FindingCounts,
    catalog: Catalog,
    row_id: str,
    path: str,
    targets: Tuple[str, ...],
    ref: str,
) -> None:
    """A reference of a row that was left out for good: a failure unless the API cannot carry its target by nature."""
    reason = catalog.cannot_come(targets, ref)
    kind = (
        "user_without_counterpart"
        if targets == ("users",)
        else "reference_to_unmovable"
        if reason
        else "unresolved_reference"
    )
    notes.add(
        kind,
        row_id,
        path,
        reason or f"no {' or '.join(targets) or 'known kind'} of that id in the destination",
        ref,
    )


def attachment_paths(body: bytes, keys: Iterable[str], dest_org_id: str) -> Dict[str, str]:
    """Source key -> where the encoded row refers to it."""
    value, wanted = json.loads(body), {dest_key(dest_org_id, key): key for key in keys}
    found = [(value_at(value, path)["key"], dotted(path)) for path in attachment_places(value)]
    return {wanted[key]: path for key, path in found if key in wanted}


def keep_source_keys(body: bytes, failed_keys: Iterable[str], dest_org_id: str) -> bytes:
    """The encoded row with the source's reference where the bytes of an attachment could not be copied."""
    stays = {dest_key(dest_org_id, key): key for key in failed_keys}
    value = json.loads(body)
    for path in attachment_places(value):
        reference = value_at(value, path)
        reference["key"] = stays.get(reference["key"], reference["key"])
    return encode(value)
