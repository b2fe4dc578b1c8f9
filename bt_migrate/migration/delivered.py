"""What a start does once all is delivered: rows that are not shown, attachments that are wrong."""

from __future__ import annotations

from dataclasses import replace

from bt_migrate.migration.context import Migration
from bt_migrate.rows.confirm import confirm_deliveries
from bt_migrate.state.records import json_of
from bt_migrate.state.wrong_attachments import read_wrong, write_wrong


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
        migration.copier.copy_again(json_of(item))
    write_wrong(migration.run, [replace(item, uploads=item.uploads or 1) for item in wrong])
