"""What a start does once all is delivered: finds objects and rows that are not there, attachments
that are wrong.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

from bt_migrate.attachments.copy import NotCopied
from bt_migrate.migration.context import Migration
from bt_migrate.migration.deleted import is_gone
from bt_migrate.model.findings import finding
from bt_migrate.model.notes import FindingCounts
from bt_migrate.model.outcomes import CREATED, FAILED
from bt_migrate.model.resource import OWNER
from bt_migrate.model.resources import BY_NAME, ROW_KINDS
from bt_migrate.objects.catalog import Catalog, catalog_by_natural_key
from bt_migrate.rows.assignments import seconds_until_shown
from bt_migrate.rows.confirm import confirm_deliveries
from bt_migrate.rows.encode import RowEncoder
from bt_migrate.rows.read import found_rows, looks
from bt_migrate.state.object_file import ObjectOutcome
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.records import json_of
from bt_migrate.state.wrong_attachments import WrongAttachment, read_wrong, write_wrong

log = logging.getLogger("bt_migrate.migration")

NOT_LISTED = "the destination confirmed that it was created, and does not list it"


class CreatedObject(NamedTuple):
    """An object that this sync created."""

    states: ObjectStates
    source_id: str
    entry: ObjectOutcome


def confirm_objects(migration: Migration) -> None:
    """Fail the objects that a sync created and that the destination does not show.

    Later syncs would take them for deleted there. Costs a list for each kind and project in which
    objects were created. The first copy is compared as a whole.
    """
    run, catalog = migration.run, migration.catalog
    absent = [
        CreatedObject(states, source_id, entry)
        for states in run.all_objects()
        if run.record.round and states.round == run.record.round
        for source_id, entry in states.outcomes.items()
        if entry.outcome == CREATED and entry.dest_id
    ]
    for _ in looks(catalog.dest, seconds_until_shown(catalog)) if absent else ():
        now = catalog_by_natural_key(catalog.source, catalog.dest, run, migration.settings)
        absent = [created for created in absent if _is_gone(catalog, now, created)]
        if not absent:
            break
    for created in absent:
        _note_not_listed(created)


def _is_gone(catalog: Catalog, now: Catalog, created: CreatedObject) -> bool:
    resource = BY_NAME[created.states.resource]
    source = catalog.lists.source_object(resource, created.source_id)
    if source is None or resource.scope == OWNER or resource.part_of:
        return False
    return is_gone(catalog, now.index, resource, source, created.entry.dest_id)


def _note_not_listed(created: CreatedObject) -> None:
    """Record the object as failed and without counterpart, so that the next sync creates it."""
    states, source_id, entry = created
    states.record(source_id, replace(entry, outcome=FAILED, dest_id="", reason=NOT_LISTED))
    facts = {"resource": states.resource, "id": source_id, "project": states.project}
    lost = finding("not_created", **facts, name=entry.name, detail=NOT_LISTED)
    states.note(source_id, [*states.findings.get(source_id, ()), lost])
    for records in (states.deferred, states.left_out, states.fingerprints):
        records.pop(source_id, None)
    states.save()


def confirm_rows(migration: Migration) -> None:
    """Find rows that a sync delivered and that the destination does not show."""
    halt = migration.background.halt
    confirm_deliveries(migration.catalog, migration.copier, migration.counts, halt)


def upload_again(migration: Migration) -> None:
    """Upload the attachments whose bytes the last comparison found to be wrong, each once.

    The next comparison says whether they are right.
    """
    wrong = read_wrong(migration.run)
    new = [item for item in wrong if not item.uploads]
    if not new:
        return
    for item in new:
        migration.catalog.dest.check()
        if item.kind:
            _upload_field(migration, item)
        else:
            migration.copier.copy_again(json_of(item))
    write_wrong(migration.run, [replace(item, uploads=item.uploads or 1) for item in wrong])


def _upload_field(migration: Migration, item: WrongAttachment) -> None:
    """Upload a field of a row of the source as it is now.

    Its key is that of its place, so that the row in the destination needs no write.
    """
    # every field becomes an attachment, whatever the limit was when the row was written
    catalog = replace(migration.catalog, settings=replace(migration.settings, max_row_bytes=1))
    rows, _ = found_rows(catalog.source, item.kind, [item.object_id], [item.row_id])
    encoder = RowEncoder(catalog, ROW_KINDS[item.kind])
    for row in rows:
        encoded, _ = encoder.encoded(row, item.object_id, FindingCounts())
        for key, filename, content in encoded.spills:
            if key == item.key:
                try:
                    migration.copier.upload(key, filename, item.content_type, content)
                except NotCopied as error:
                    log.warning("%s of row %s was not uploaded: %s", filename, row["id"], error)
