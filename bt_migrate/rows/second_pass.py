"""The second pass over rows: references to objects that did not exist yet when the row was written."""

from __future__ import annotations

import json
from typing import List, Tuple

from bt_migrate.api.json_codec import encode
from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.outcomes import FAILED, UPDATED
from bt_migrate.model.references import dotted
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.batches import EncodedRow, batched
from bt_migrate.rows.encode import note_unresolved
from bt_migrate.rows.insert import Inserter
from bt_migrate.rows.rewrite import deferred_merge
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.state.stream_state import StreamState


def finish_deferred_rows(catalog: Catalog, copier: AttachmentCopier, state: StreamState) -> None:
    """Add references of rows whose objects exist by now, by merging just these fields; a merge of the same value twice is the
    same.
    """
    seen = SeenRows(state.sibling("_seen.sqlite3"))
    try:
        ready: List[Tuple[Tuple[str, str, str], EncodedRow]] = []
        for object_id, row_id, path, targets, ref, origin in seen.deferred():
            new = catalog.resolve(tuple(targets.split(",")), ref)
            fields = (
                deferred_merge(tuple(json.loads(path)), new, json.loads(origin) if origin else None)
                if new
                else None
            )
            if fields:
                body = encode({"id": row_id, "_is_merge": True, **fields})
                ready.append(
                    ((object_id, row_id, path), EncodedRow(row_id, 0, body, object_id, UPDATED))
                )
        kind = ROW_KINDS[state.header["kind"]]
        rows = catalog.settings.rows(kind.name)
        inserter = Inserter(
            catalog.dest,
            copier,
            kind,
            {state.header["source_id"]: state.header["dest_id"]},
            rows.max_batch_bytes,
        )
        keys = {id(row): key for key, row in ready}
        for batch in batched(
            [row for _, row in ready], rows.insert_batch_size, rows.max_batch_bytes
        ):
            done = inserter.deliver(batch)
            for error in done.errors.values():
                raise error
            merged = [row for row, (outcome, _) in zip(batch, done.outcomes) if outcome != FAILED]
            seen.record_merged([(row.object_id, row.id) for row in merged], done.at)
            seen.forget_deferred([keys[id(row)] for row in merged])
        state.waiting = len(seen.deferred())
        state.save()
    finally:
        seen.close()


def note_deferred_rows(catalog: Catalog, state: StreamState, *, final: bool) -> None:
    """Tell of rows whose references still wait: `final` at the end of a whole run (they are unresolved), else of a phase.

    Takes the place of what was told of them before, so that it is never counted twice.
    """
    notes = FindingCounts()
    seen = SeenRows(state.sibling("_seen.sqlite3"))
    try:
        for _, row_id, path, targets, ref, _ in seen.deferred():
            if final:
                note_unresolved(
                    notes,
                    catalog,
                    row_id,
                    dotted(tuple(json.loads(path))),
                    tuple(targets.split(",")),
                    ref,
                )
            else:
                notes.add(
                    "waits",
                    row_id,
                    dotted(tuple(json.loads(path))),
                    targets.replace(",", " or "),
                    ref,
                )
    finally:
        seen.close()
    others = [one for one in state.findings if not one.get("waited")]
    state.findings = others + [{**one, "waited": True} for one in notes.records()]
    state.save()
