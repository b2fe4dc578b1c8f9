"""Copy all objects of one kind: of the organization, of projects, or of owners."""

from __future__ import annotations

import logging
from typing import List, Optional, Sequence

from bt_migrate.errors import ApiError
from bt_migrate.migration.context import Migration, ProjectPair
from bt_migrate.migration.retention import with_retention
from bt_migrate.model.findings import LIST_REFUSED, NOT_LISTED, finding
from bt_migrate.model.outcomes import LATER, NO_PROJECT, SKIPPED
from bt_migrate.model.resource import OWNER, Resource
from bt_migrate.model.resources import (
    moves_later,
    pins_rows,
)
from bt_migrate.objects.copy import OnCreated, copy_objects, record_undecided
from bt_migrate.objects.decide import display_name
from bt_migrate.objects.history import copy_histories
from bt_migrate.objects.lists import Refusal
from bt_migrate.objects.order import note_order
from bt_migrate.objects.owned import (
    list_dest_group,
    list_source_group,
    only_owners_of,
    owner_groups,
)
from bt_migrate.objects.pinned import pinned_versions
from bt_migrate.objects.prepare import PlannedObject, items_of, note_gone
from bt_migrate.rows.present_states import map_planned_states, map_present_states
from bt_migrate.state.object_file import ObjectOutcome
from bt_migrate.state.object_states import save_objects

log = logging.getLogger("bt_migrate.migration")


def copy_organization_kind(migration: Migration, resource: Resource) -> None:
    """Copy the objects of a kind that belong to the organization itself."""
    states = migration.run.objects(resource.name)
    objects = migration.catalog.lists.source_list(resource)
    note_gone(migration.catalog, resource, states, objects)
    items = with_retention(migration.catalog, resource, items_of(states, objects))
    copy_objects(migration.catalog, resource, items, copier=migration.copier)


def copy_project_kind(
    migration: Migration,
    resource: Resource,
    scopes: Sequence[ProjectPair],
    *,
    phase: str,
    on_created: Optional[OnCreated] = None,
) -> None:
    """Copy the objects of a kind in all projects.

    All projects are copied together, so that objects are created after those of other projects to
    which they refer. An object that a later phase moves is recorded as such and stays open.
    `on_created`: see `copy_objects`.
    """
    if not migration.settings.selects(resource.name):
        return
    if pins_rows(resource):
        map_pins(migration, resource, scopes)
    items: List[PlannedObject] = []
    for scope in scopes:
        states = migration.run.objects(resource.name, scope.name)
        objects = migration.catalog.lists.source_objects(resource, scope.source["id"])
        note_gone(migration.catalog, resource, states, objects)
        for item in items_of(states, objects, scope.dest_id or ""):
            reason = _reason_to_wait(resource, scope, phase, item)
            if not reason:
                items.append(item)
            # The phase that moves the object may have been run before this one.
            elif not states.completed(item.source["id"]):
                name = display_name(resource, item.source)
                states.record(item.source["id"], ObjectOutcome(name, SKIPPED, reason=reason))
    items = with_retention(migration.catalog, resource, items)
    copy_objects(migration.catalog, resource, items, copier=migration.copier, on_created=on_created)
    for scope in scopes:
        if scope.dest_id and "position" in resource.server:
            states = migration.run.objects(resource.name, scope.name)
            note_order(migration.catalog, resource, states, scope.source["id"], scope.dest_id)
    # The states of projects without objects are saved too.
    save_objects(migration.run.objects(resource.name, scope.name) for scope in scopes)


def map_pins(migration: Migration, resource: Resource, scopes: Sequence[ProjectPair]) -> None:
    """Find the counterparts of the dataset states that objects of the kind refer to.

    The rows of the datasets must have arrived.
    """
    pinned = pinned_versions(migration.catalog, [resource], [scope.source for scope in scopes])
    if not pinned:
        return
    if not migration.settings.dry_run:
        migration.background.wait()
    elif migration.settings.dataset_versions:
        map_planned_states(migration.catalog, pinned)
    map_present_states(migration.catalog, pinned)


def _reason_to_wait(resource: Resource, scope: ProjectPair, phase: str, item: PlannedObject) -> str:
    if scope.dest_id is None:
        return NO_PROJECT
    return LATER if moves_later(resource, phase, item.source) else ""


def report_refused(migration: Migration, resource: Resource) -> None:
    """Report the lists of a kind that the source refused: all, or those of some owners."""
    refusals = migration.catalog.lists.refusals.get(resource.name, [])
    states, record = migration.run.objects(resource.name), migration.run.record
    findings, places = [], []
    for refusal in refusals:
        kind = LIST_REFUSED
        if is_beyond_key(migration, resource, refusal):
            kind = NOT_LISTED
            places.append(refusal.place)
        name = refusal.name_of(resource)
        findings.append(finding(kind, resource=resource.name, name=name, detail=str(refusal.error)))
    # First, so that a start after a kill judges alike. All other lists were read.
    if record.not_listed.get(resource.name) != places:
        record.not_listed[resource.name] = places
        migration.run.save()
    if findings or "" in states.findings:
        states.note("", findings)
        states.save()


def is_beyond_key(migration: Migration, resource: Resource, refusal: Refusal) -> bool:
    """Whether the refused list is only outside of this key's rights, so that nothing is missing.

    That is so for kinds that need a right of their own, unless a person asked for them by name, or
    an earlier start may have listed them; and for kinds that a person left out.
    """
    left_out = migration.catalog.lists.is_left_out(resource.name)
    needs_right = resource.beyond or resource.scope == OWNER or left_out
    ours = refusal.error.side == migration.catalog.source.side
    by_name = resource.name in migration.settings.named_resources
    not_listed = migration.run.record.not_listed.get(resource.name)
    # Earlier versions did not record it.
    was_read = (
        refusal.place not in not_listed if not_listed is not None else migration.run.record.round
    )
    return ours and needs_right and refusal.lacks_right and not by_name and not was_read


def copy_versions(
    migration: Migration, kinds: Sequence[Resource], scopes: Sequence[ProjectPair]
) -> None:
    """Write the versions of all objects of these kinds, which may refer to each other."""
    lists = migration.catalog.lists
    for resource in kinds:
        lists.prefetch((), [resource], {scope.dest_id for scope in scopes if scope.dest_id})
    objects = [
        (resource, item)
        for resource in kinds
        for scope in scopes
        if scope.dest_id
        for item in items_of(
            migration.run.objects(resource.name, scope.name),
            lists.source_objects(resource, scope.source["id"]),
            scope.dest_id,
        )
    ]
    copy_histories(migration.catalog, objects, migration.copier)


def copy_owned_kind(
    migration: Migration, resource: Resource, scopes: Sequence[ProjectPair]
) -> None:
    """Copy objects that belong to the organization, to a project or to an object in it."""
    catalog = migration.catalog
    places = [
        (scope.source["id"], scope.dest_id or "", scope.name)
        for scope in scopes
        if scope.dest_id or resource.list_all
    ]
    for group in owner_groups(catalog, resource, places):
        objects = list_source_group(catalog, resource, group)
        states = migration.run.objects(resource.name, group.project)
        note_gone(catalog, resource, states, objects)
        items = items_of(states, objects, group.dest_project_id)
        try:
            if items:
                owning = only_owners_of(group, objects)
                there = list_dest_group(catalog, resource, owning)
                catalog.index.provide(resource, group.dest_project_id, there)
        except ApiError as error:
            record_undecided(catalog, resource, items, error)
            continue
        copy_objects(catalog, resource, items)
    report_refused(migration, resource)
