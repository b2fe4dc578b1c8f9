"""Objects that could not be created without something else, whichever phase recorded them.

An ACL cannot be created without the user, group or role to whom it grants something; a view or an
ACL cannot be created without the object to which it belongs; a snapshot cannot be created without
the state of the dataset. It is created once all of these are in the destination.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, Sequence, Set

from bt_migrate.errors import ApiError
from bt_migrate.model.resource import OWNER, Resource
from bt_migrate.model.resource_table import PROJECTS
from bt_migrate.model.resources import BY_NAME, pins_rows
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.copy import copy_objects, record_undecided
from bt_migrate.objects.owned import (
    OwnerGroup,
    ProjectPlace,
    list_dest_group,
    list_source_group,
    owner_groups,
    owner_of,
)
from bt_migrate.objects.pinned import states_named
from bt_migrate.objects.prepare import PlannedObject, prepare
from bt_migrate.objects.second_pass import missing_of
from bt_migrate.rows.present_states import map_present_states
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory


def list_owned_that_wait(catalog: Catalog, run: RunDirectory) -> None:
    """List the waiting objects in the source again, unless a phase of this process did.

    An object that was deleted in the source no longer waits.
    """
    for states in _owned(run):
        resource = BY_NAME[states.resource]
        waiting = [*states.deferred, *_late(catalog, states)]
        if not any(
            catalog.lists.source_object(resource, source_id) is None for source_id in waiting
        ):
            continue
        places = _places(catalog, run)
        for group in owner_groups(catalog, resource, places.values()):
            if group.project == states.project:
                list_source_group(catalog, resource, group)
        if resource.name not in catalog.lists.refusals:
            _forget_gone(catalog, resource, states, waiting)


def _forget_gone(
    catalog: Catalog, resource: Resource, states: ObjectStates, source_ids: Sequence[str]
) -> None:
    for source_id in source_ids:
        if catalog.lists.source_object(resource, source_id) is None:
            states.left_out.pop(source_id, None)
    states.save()


def create_that_wait(catalog: Catalog, run: RunDirectory) -> None:
    """Create the objects that could not be created before and can be now."""
    for states in run.all_objects():
        resource = BY_NAME[states.resource]
        waiting = [source_id for source_id in states.left_out if states.has_no_place(source_id)]
        if not waiting:
            continue
        listed = (catalog.lists.source_object(resource, source_id) for source_id in waiting)
        places = _places(catalog, run)
        dest_project_id = places[states.project][1] if states.project in places else ""
        objects = (PlannedObject(obj, states, dest_project_id) for obj in listed if obj)
        items = [item for item in objects if _can_be_created_now(catalog, resource, item)]
        if not items:
            continue
        if resource.scope == OWNER:
            owners = tuple(dict.fromkeys(owner_of(item.source) for item in items))
            group = OwnerGroup(states.project, dest_project_id, owners)
            try:
                there = list_dest_group(catalog, resource, group)
            except ApiError as error:
                record_undecided(catalog, resource, items, error)
                continue
            catalog.index.provide(resource, dest_project_id, there)
        copy_objects(catalog, resource, items)


def _can_be_created_now(catalog: Catalog, resource: Resource, item: PlannedObject) -> bool:
    """Whether something that the object could not be created without is there now."""
    missing = missing_of(catalog, resource, prepare(catalog, resource, item))
    return not missing.issuperset(item.states.left_out[item.source["id"]])


def map_dataset_states_that_wait(catalog: Catalog, run: RunDirectory) -> None:
    """Find the states of datasets that objects were written, or left, without.

    For the kinds that this start has planned, after the rows of all datasets, only the states of
    datasets whose rows were completed since.
    """
    planned = catalog.run.record.sessions[-1].phases
    unsettled = frozenset(catalog.versions.unsettled)
    catalog.versions.unsettled.clear()
    named: Dict[str, Set[int]] = {}
    for states in run.all_objects():
        resource = BY_NAME[states.resource]
        if not pins_rows(resource):
            continue
        listed = (catalog.lists.source_object(resource, source_id) for source_id in states.left_out)
        for dataset_id, xacts in states_named((resource, obj) for obj in listed if obj).items():
            if resource.phase not in planned or dataset_id in unsettled:
                named.setdefault(dataset_id, set()).update(xacts)
    if named:
        map_present_states(catalog, named)


def _owned(run: RunDirectory) -> Iterator[ObjectStates]:
    return (states for states in run.all_objects() if BY_NAME[states.resource].scope == OWNER)


def _late(catalog: Catalog, states: ObjectStates) -> List[str]:
    """Returns the objects with a left-out reference that may be resolved now."""
    known_ids = catalog.targets.known_ids() if states.left_out else {}
    return [
        source_id
        for source_id, refs in states.left_out.items()
        # A kind that only ACLs name is not known.
        if any(ref not in known_ids or catalog.targets.resolve(known_ids[ref], ref) for ref in refs)
    ]


def _places(catalog: Catalog, run: RunDirectory) -> Dict[str, ProjectPlace]:
    """Returns the projects of the run by the names of their files."""
    return {
        name: (source_id, catalog.targets.resolve((PROJECTS.name,), source_id) or "", name)
        for source_id, name in run.record.project_names.items()
    }
