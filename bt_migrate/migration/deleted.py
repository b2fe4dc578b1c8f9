"""Stops an unfinished run if objects that it moved were deleted in the destination."""

from __future__ import annotations

from typing import Collection

from bt_migrate.errors import ApiError, DeletedError
from bt_migrate.migration.context import Migration
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import OWNER, PROJECT, Resource
from bt_migrate.model.resource_table import OBJECT_RESOURCES, PROJECTS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import display_name
from bt_migrate.objects.dest_index import DestIndex


def refuse_deleted(migration: Migration, phases: Collection[str]) -> None:
    """Raises DeletedError if the destination no longer has an object that this run moved.

    What the run recorded is taken for moved, and all that refers to it would fail at each start. A
    sync decides about each object itself. Of the kinds that are listed by project, only those that
    the `phases` of this start move are looked at: the others are not listed otherwise.
    """
    if migration.run.record.round or migration.settings.dry_run or migration.settings.shard:
        return
    states_of_all = migration.run.all_objects()
    projects = migration.run.objects(PROJECTS.name).id_mapping().values()
    for resource in OBJECT_RESOURCES:
        if resource.scope == OWNER or resource.part_of:
            continue
        if resource.has_project_lists and resource.phase not in phases:
            continue
        states_of_kind = [states for states in states_of_all if states.resource == resource.name]
        if states_of_kind:
            migration.catalog.lists.prefetch((), [resource], projects)
        for states in states_of_kind:
            for source_id, entry in states.outcomes.items():
                if entry.dest_id and states.completed(source_id):
                    _refuse_if_gone(migration.catalog, resource, source_id, entry.dest_id)


def _refuse_if_gone(catalog: Catalog, resource: Resource, source_id: str, dest_id: str) -> None:
    """Raises DeletedError. What the source has no more is not asked for."""
    source = catalog.lists.source_object(resource, source_id)
    if source is not None and is_gone(catalog, catalog.index, resource, source, dest_id):
        raise DeletedError(
            f"destination: {resource.kind} {display_name(resource, source)!r} was deleted, or the"
            f" key cannot read it [{dest_id}]; --new-run moves it again"
        )


def is_gone(
    catalog: Catalog, index: DestIndex, resource: Resource, source: JsonObject, dest_id: str
) -> bool:
    """Whether neither a list of `index` nor a look-up by id shows the object in the destination.

    False where the list is refused: that proves nothing. Not for kinds that are listed by owner.
    """
    project_id = ""
    if resource.scope == PROJECT:
        source_project = catalog.lists.project_id_of(resource, source)
        project_id = catalog.targets.resolve((PROJECTS.name,), source_project) or ""
        if not project_id:
            return False
    try:
        if index.object(resource, project_id, dest_id):
            return False
    except ApiError:
        return False  # the phase reports the list
    try:
        catalog.dest.get(resource.path_of(dest_id, project_id))  # a list may lack it
    except ApiError as error:
        if not (error.refuses_key or error.status == 404) or error.status == 401:
            raise
        return True
    return False
