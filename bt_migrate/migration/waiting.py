"""Completes references that wait for objects which did not exist, or reports them."""

from __future__ import annotations

import logging
from typing import Iterator, Set

from bt_migrate.errors import LockedError, StateError
from bt_migrate.migration.context import Migration
from bt_migrate.migration.late_owned import (
    create_that_wait,
    list_owned_that_wait,
    map_dataset_states_that_wait,
)
from bt_migrate.migration.people import invite_missing_users
from bt_migrate.model.resource_table import USERS
from bt_migrate.model.resources import BY_NAME
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.second_pass import (
    find_made_by_hand,
    finish_deferred,
    finish_left_out,
    note_deferred,
)
from bt_migrate.rows.replay import WAITS
from bt_migrate.rows.second_pass import finish_deferred_rows, note_deferred_rows
from bt_migrate.state.run_directory import RunDirectory, readable_runs_in

log = logging.getLogger("bt_migrate.migration")


def finish_waiting(migration: Migration, *, last: bool = False) -> None:
    """Complete the references whose targets exist now.

    In this run, and in earlier runs for the same two organizations; a dry run only compares its own
    objects. `last`: all phases have ended, so objects that could not be created before are created
    too.
    """
    if migration.settings.dry_run:
        finish_objects(migration.catalog, migration.run)
        return
    if last:
        invite_missing_users(migration)
    _finish_run(migration, migration.run, last=last)
    for run in _earlier_waiting(migration):
        try:
            with run:
                if _is_readable(run):
                    _finish_run(migration, run, last=last)
                    run.record.waiting = _waits(run)
                    run.save()
        except LockedError:
            log.info(
                "run %s is in use; the process that uses it completes its references", run.path
            )


def finish_objects(catalog: Catalog, run: RunDirectory) -> None:
    """Add references to the objects of a run; a dry run only compares the objects."""
    for states in run.all_objects():
        resource = BY_NAME[states.resource]
        if resource.next_action:
            find_made_by_hand(catalog, resource, states)
        if states.deferred:
            finish_deferred(catalog, resource, states)
        if states.left_out:
            finish_left_out(catalog, resource, states)


def _finish_run(migration: Migration, run: RunDirectory, *, last: bool) -> None:
    creates = last and not migration.settings.shard
    _finish_rows(migration, run)
    if creates:
        list_owned_that_wait(migration.catalog, run)
        map_dataset_states_that_wait(migration.catalog, run)
    finish_objects(migration.catalog, run)
    if creates:
        create_that_wait(migration.catalog, run)
        _finish_rows(migration, run)


def _finish_rows(migration: Migration, run: RunDirectory) -> None:
    """Add references to rows, before their datasets' states are named, and after all is created."""
    for stream in run.all_streams():
        if stream.waiting:
            finish_deferred_rows(migration.catalog, migration.copier, stream)


def _earlier_waiting(migration: Migration) -> Iterator[RunDirectory]:
    """Returns earlier runs for the same two organizations with references that wait."""
    for run in readable_runs_in(migration.run.path.parent):
        if (
            run.record.waiting
            and run.same_pair(migration.run.record)
            and run.path != migration.run.path
        ):
            yield run


def _is_readable(run: RunDirectory) -> bool:
    try:
        run.all_objects()
        list(run.all_streams())
    except StateError as error:
        log.warning("skipped: %s", error)
        return False
    return True


def _waits(run: RunDirectory) -> bool:
    return any(states.deferred or states.left_out for states in run.all_objects()) or any(
        stream.waiting for stream in run.all_streams()
    )


def record_waiting(migration: Migration, *, final: bool) -> None:
    """Record a finding for each reference that still waits.

    `final`: at the end of a whole run it is unresolved; at the end of a phase it is waiting.
    """
    for states in migration.run.all_objects():
        if states.deferred:
            note_deferred(migration.catalog, BY_NAME[states.resource], states, final=final)
    for stream in migration.run.all_streams():
        if stream.waiting or any(record.get("waited") for record in stream.findings):
            note_deferred_rows(migration.catalog, stream, final=final)
    _forget_members(migration)
    migration.run.record.waiting = _waits(migration.run)


def _forget_members(migration: Migration) -> None:
    """Remove findings of the validation about users who are members now."""
    validation = migration.run.record.validation
    if validation:
        validation["findings"] = [
            record
            for record in validation["findings"]
            if record["resource"] != USERS.name
            or not migration.catalog.targets.resolve((USERS.name,), str(record.get("id")))
        ]


def incomplete_row_kinds(run: RunDirectory) -> Set[str]:
    """The kinds of rows with a stream that was not copied to its end."""
    return {stream.header["kind"] for stream in run.all_streams() if stream.is_behind}


def kinds_that_wait(run: RunDirectory) -> Set[str]:
    """The kinds of rows with a stream that waits for objects of a later phase; see `replay`."""
    return {
        stream.header["kind"]
        for stream in run.all_streams()
        if stream.is_behind and stream.copy.replay == WAITS
    }
