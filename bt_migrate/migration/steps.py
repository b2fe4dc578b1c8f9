"""What a phase does: find the projects, then move its kinds in the order of the table."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Callable, List, Mapping, Sequence

from bt_migrate.config.values import FAIL_POLICY
from bt_migrate.errors import ApiError, ConflictError
from bt_migrate.migration.context import Migration, ProjectPair
from bt_migrate.migration.kind_steps import (
    copy_organization_kind,
    copy_owned_kind,
    copy_project_kind,
    copy_versions,
    report_refused,
)
from bt_migrate.migration.row_steps import copy_with_rows
from bt_migrate.migration.waiting import finish_objects
from bt_migrate.model.outcomes import DIFFERS
from bt_migrate.model.resource import OWNER, Resource
from bt_migrate.model.resource_table import PROJECTS, USERS
from bt_migrate.model.resources import (
    REFERABLE,
    ROW_KINDS,
    is_of_organization,
    kinds_of_phase,
    refers_to_projects,
)
from bt_migrate.objects.catalog import open_catalog
from bt_migrate.objects.copy import copy_objects
from bt_migrate.objects.prepare import items_of, note_gone
from bt_migrate.report.display import and_more
from bt_migrate.state.accepted import accepted_of
from bt_migrate.state.records import json_of
from bt_migrate.state.run_directory import RunDirectory

log = logging.getLogger("bt_migrate.migration")

CONFLICTS_SHOWN = 20


def refuse_conflicts(migration: Migration, phases: Sequence[Callable[[Migration], None]]) -> None:
    """Plan all phases in memory before the first of them writes.

    Raises ConflictError that names the objects with other content, where --on-conflict is fail.
    """
    policies = migration.settings.on_conflict
    if migration.settings.dry_run or FAIL_POLICY not in policies.values():
        return
    log.info("planning everything first: --on-conflict is fail")
    conflicts = _conflicts(_planned_in_memory(migration, phases), policies)
    if conflicts:
        names = ", ".join(conflicts[:CONFLICTS_SHOWN])
        count = "1 object exists" if len(conflicts) == 1 else f"{len(conflicts):,} objects exist"
        raise ConflictError(
            f"--on-conflict fail: {count} with other content:"
            f" {and_more(names, len(conflicts) - CONFLICTS_SHOWN)}; nothing was written"
        )


def _planned_in_memory(
    migration: Migration, phases: Sequence[Callable[[Migration], None]]
) -> RunDirectory:
    """Returns a run directory, never written to disk, after a dry run of the objects."""
    run = RunDirectory(migration.run.path, kept=False)
    run.moves = True
    settings = replace(migration.settings, dry_run=True)
    catalog = open_catalog(migration.catalog.source, migration.catalog.dest, run, settings)
    plan = Migration(settings, catalog, run, migration.copier, migration.stop, objects_only=True)
    for phase in phases:
        phase(plan)
    finish_objects(plan.catalog, run)
    return run


def _conflicts(run: RunDirectory, policies: Mapping[str, str]) -> List[str]:
    """Returns a text for each object with other content where the policy is fail.

    Differences that a person accepted are no conflicts.
    """
    accepted = accepted_of(run)
    return [
        f"{states.resource} {entry.name!r}"
        f"{f' of {states.project!r}' if states.project else ''}"
        f" ({', '.join(entry.fields)})"
        for states in run.all_objects()
        for source_id, entry in states.outcomes.items()
        if entry.outcome == DIFFERS
        and policies.get(states.resource) == FAIL_POLICY
        and not accepted.holds({"resource": states.resource, "id": source_id, **json_of(entry)})
    ]


def project_scopes(migration: Migration) -> List[ProjectPair]:
    """Returns the selected projects, found or created in the destination.

    [] for a shard: its projects and objects exist.
    """
    migration.catalog.lists.prefetch(REFERABLE, [PROJECTS])
    if migration.settings.shard:
        return []
    projects, states = migration.catalog.lists.projects(), migration.run.objects(PROJECTS.name)
    names = migration.run.project_names(
        {project["id"]: project["name"] for project in projects}, states.over_all_rounds()
    )
    migration.run.name_folders(names[project["id"]] for project in projects)
    note_gone(migration.catalog, PROJECTS, states, migration.catalog.lists.source_list(PROJECTS))
    failed = migration.failed_projects
    tried = [item for item in items_of(states, projects) if item.source["id"] not in failed]
    copy_objects(migration.catalog, PROJECTS, tried)
    scopes = [
        ProjectPair(
            item, migration.catalog.targets.resolve(("projects",), item["id"]), names[item["id"]]
        )
        for item in projects
    ]
    failed.update(scope.source["id"] for scope in scopes if scope.dest_id is None)
    return scopes


def move_kinds(migration: Migration, phase: str) -> None:
    """Move every kind that the table gives to a phase, in the order of the table."""
    kinds = kinds_of_phase(phase)
    in_projects = any(_needs_projects(migration, resource) for resource in kinds)
    scopes = project_scopes(migration) if in_projects else []
    versioned = _versioned(migration, kinds)
    for resource in kinds:
        try:
            if resource in versioned[:1]:
                copy_versions(migration, versioned, scopes)
            if resource.name in ROW_KINDS:
                copy_with_rows(migration, resource, scopes)
            elif migration.settings.selects(resource.name):
                _copy_kind(migration, resource, scopes, phase)
        except ApiError as error:
            # A list was refused. Refusals of single objects are recorded with the object.
            if error.status == 401:
                raise
            migration.catalog.lists.refuse(resource, error)
        report_refused(migration, resource)
    # Users are not moved, but objects of every kind may refer to them.
    report_refused(migration, USERS)


def _needs_projects(migration: Migration, resource: Resource) -> bool:
    """Whether the projects must exist first: objects belong to them or refer to them."""
    if not is_of_organization(resource):
        return True
    selected = migration.settings.selects(resource.name) and refers_to_projects(resource)
    return selected and bool(migration.catalog.lists.source_list_or_empty(resource))


def _versioned(migration: Migration, kinds: Sequence[Resource]) -> List[Resource]:
    """Returns the kinds whose earlier versions are to be copied."""
    settings = migration.settings
    versioned = [kind for kind in kinds if kind.versioned and settings.selects(kind.name)]
    return versioned if settings.history else []


def _copy_kind(
    migration: Migration, resource: Resource, scopes: Sequence[ProjectPair], phase: str
) -> None:
    if resource.scope == OWNER:
        copy_owned_kind(migration, resource, scopes)
    elif is_of_organization(resource):
        copy_organization_kind(migration, resource)
    else:
        copy_project_kind(migration, resource, scopes, phase=phase)
