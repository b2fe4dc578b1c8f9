"""Second pass over rows: adds references to objects that did not exist when the row was written."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set

from bt_migrate.api.json_codec import encode
from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.model.findings import FAILURE, KINDS
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.outcomes import FAILED, UPDATED
from bt_migrate.model.portions import portions
from bt_migrate.model.references import dotted
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.pins import may_be_mapped, resolve_version
from bt_migrate.objects.prepare import judge_unresolved
from bt_migrate.rows.assignments import (
    Key,
    gone_rows,
    late_assignments,
    our_transactions,
    rows_in_dest,
)
from bt_migrate.rows.batches import EncodedRow, batched
from bt_migrate.rows.commit import loss_digest
from bt_migrate.rows.insert import Inserter
from bt_migrate.rows.late_lists import late_lists
from bt_migrate.rows.rewrite import (
    ASSIGNMENTS,
    PIN_BESIDE,
    PROMPT_ID_PLACE,
    can_be_merged,
    deferred_merge,
    is_assignment,
    rewrite_origin_version,
    rewrite_prompt_version,
)
from bt_migrate.state.row_records import DeferredReference
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.state.stream_state import StreamState

ROW_NOT_SHOWN = (
    "an organization does not show the row; it counts as deleted if that is so ten minutes later"
)


# Rows whose content is in memory at the same time.
ROWS_AT_ONCE = 1000
# of the file that records which rows with a pending reference are missing
MERGES_ENDING = "_absent_merges.json"


class Merge(NamedTuple):
    """A row that adds references. `keys`: the pending references that it adds."""

    row: EncodedRow
    keys: List[Key]
    # the row still counts as written by this tool after the merge
    is_ours: bool = True
    # The place of a version that has no counterpart.
    unpinned: str = ""


def finish_deferred_rows(catalog: Catalog, copier: AttachmentCopier, state: StreamState) -> None:
    """Add the references whose objects exist now, by merging only these fields.

    Safe to repeat: merging the same value twice results in the same row.
    """
    kind = ROW_KINDS[state.header["kind"]]
    settings = catalog.settings.rows(kind.name)
    dest_ids = {state.header["source_id"]: state.header["dest_id"]}
    limits = (settings.max_batch_bytes, catalog.settings.max_row_bytes)
    inserter = Inserter(catalog.dest, copier, kind, dest_ids, *limits)
    seen = SeenRows(state.seen_path)
    try:
        merges = {id(merge.row): merge for merge in _merges(catalog, state, seen)}
        rows = [merge.row for merge in merges.values()]
        for batch in batched(rows, settings.insert_batch_size, settings.max_batch_bytes):
            done = inserter.deliver(batch)
            for error in done.errors.values():
                raise error
            merged = [
                (merges[id(row)], xact)
                for row, (outcome, _), xact in zip(batch, done.outcomes, done.xacts)
                if outcome != FAILED
            ]
            ours = [(merge.row, xact) for merge, xact in merged if merge.is_ours]
            records = [(row.object_id, row.id, xact) for row, xact in ours]
            # Only a sync of this run looks whether the destination shows them.
            of_this_run = catalog.run.path in state.path.parents
            seen.record_merged(records, confirm=of_this_run and catalog.run.record.round > 0)
            _note_unpinned(state, [merge for merge, _ in merged if merge.unpinned])
            seen.forget_deferred([key for merge, _ in merged for key in merge.keys])
        state.waiting = len(seen.deferred())
        state.sync.unconfirmed = seen.all_unconfirmed()
        state.save()
    finally:
        seen.close()


def _note_unpinned(state: StreamState, merges: Sequence[Merge]) -> None:
    """Report versions without a counterpart, before their references are no longer pending."""
    if not merges:
        return
    notes = FindingCounts(state.findings)
    for merge in merges:
        notes.add("version_pin_removed", merge.row.id, merge.unpinned)
    state.findings = notes.records()
    state.save()


# assumption: merges_keep_other_fields
def _merges(catalog: Catalog, state: StreamState, seen: SeenRows) -> Iterator[Merge]:
    waiting = seen.deferred()
    merges = [merge for merge in (_merge_of(catalog, ref) for ref in waiting) if merge]
    yield from _of_rows_that_are_there(catalog, state, seen, merges)
    for row, is_ours in late_assignments(catalog, state, seen, waiting):
        fields = {"metadata": {ASSIGNMENTS: row.wanted}}
        yield Merge(_merging(row.object_id, row.row_id, fields), row.resolved, is_ours)
    for late in late_lists(catalog, state, seen, waiting):
        merging = _merging(late.keys[0][0], late.row_id, late.fields)
        yield Merge(merging, late.keys, late.is_ours)


def _of_rows_that_are_there(
    catalog: Catalog, state: StreamState, seen: SeenRows, merges: Sequence[Merge]
) -> Iterator[Merge]:
    """Yields the merges into rows that the destination shows: each hundred rows cost a query."""
    row_ids = list(dict.fromkeys(merge.row.id for merge in merges))
    shown: Set[str] = set()
    absent: Set[str] = set()
    for ids in portions(row_ids, ROWS_AT_ONCE):
        ours = our_transactions(state, seen, ids)
        there = rows_in_dest(catalog, state, ours)
        shown.update(there.rows)
        absent.update(there.missing(ours))
    gone = set(gone_rows(catalog, state, absent, MERGES_ENDING))
    seen.forget_deferred(key for merge in merges if merge.row.id in gone for key in merge.keys)
    yield from (merge for merge in merges if merge.row.id in shown)


def _merge_of(catalog: Catalog, reference: DeferredReference) -> Optional[Merge]:
    """Returns the row to merge; None if the object does not exist, and for lists."""
    place = reference.place
    new_id = catalog.targets.resolve(reference.resources, reference.ref)
    if not new_id or is_assignment(place) or not can_be_merged(place):
        return None
    value: Optional[Dict[str, Any]] = json.loads(reference.kept) if reference.kept else None
    resolve = partial(resolve_version, catalog)
    is_removed = False
    if place == ("origin",) and value and rewrite_origin_version(value, resolve):
        is_removed = True
    if place == PROMPT_ID_PLACE and value and rewrite_prompt_version(value, resolve):
        is_removed = True
    merging = _merging(*reference[:2], deferred_merge(place, new_id, value))
    # Others were reported when the row was written.
    is_news = is_removed and may_be_mapped(catalog, reference.resources)
    unpinned = PIN_BESIDE[place] if is_news else ""
    return Merge(merging, [reference.key], unpinned=unpinned)


def _merging(object_id: str, row_id: str, fields: Mapping[str, Any]) -> EncodedRow:
    body = encode({"id": row_id, "_is_merge": True, **fields})
    return EncodedRow(row_id, 0, body, object_id, UPDATED)


def note_deferred_rows(catalog: Catalog, state: StreamState, *, final: bool) -> None:
    """Replace the findings about references that are still pending.

    `final`: the whole run has ended, so they are unresolved. At the end of a phase, references to
    objects that can still be moved are waiting.
    """
    notes = FindingCounts()
    seen = SeenRows(state.seen_path)
    try:
        for waiting in seen.deferred():
            place = dotted(waiting.place)
            wanted = waiting.resources, waiting.ref
            if catalog.targets.resolve(*wanted):
                kind, detail = "reference_not_added", ROW_NOT_SHOWN
            elif final or not catalog.targets.may_resolve_later(*wanted):
                kind, detail = judge_unresolved(catalog, *wanted)
            else:
                kind, detail = "waits", " or ".join(waiting.resources)
            note = notes.add(kind, waiting.row_id, place, detail, waiting.ref)
            if KINDS[kind].severity == FAILURE:
                notes.make_acceptable(note, loss_digest(waiting.row_id, waiting.ref))
    finally:
        seen.close()
    others: List[Dict[str, Any]] = [record for record in state.findings if not record.get("waited")]
    state.findings = others + [{**record, "waited": True} for record in notes.records()]
    state.save()
