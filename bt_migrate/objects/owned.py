"""Kinds that belong to another object (views, ACLs): listed per owner, not per project.

Owns which objects of the source can be owners, and the lists of both sides. A column of the table
of resources has the types of owners of a kind.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Collection, FrozenSet, Iterable, Iterator, List, Sequence, Tuple

from bt_migrate.api.client import Api
from bt_migrate.errors import NOT_THERE, ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import PROJECT, Resource
from bt_migrate.model.resources import BY_NAME, TARGETS_OF_TYPE, UNMOVABLE_TARGETS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.listed_fields import usable_objects
from bt_migrate.objects.lists import PLANNED
from bt_migrate.objects.paths import list_of_owner

log = logging.getLogger("bt_migrate.owned_objects")

Owner = Tuple[str, str]  # (object_type, id)
ProjectPlace = Tuple[str, str, str]  # (source id, destination id, name) of a project
ORGANIZATION_PLACE: ProjectPlace = ("", "", "")
LIST_ALL_PAGE = 1000


@dataclass(frozen=True)
class OwnerGroup:
    """Owners whose objects are listed and recorded together: those of one project, or all.

    `project` names the files in the run directory ("" for the organization).
    """

    project: str
    dest_project_id: str
    owners: Tuple[Owner, ...]


def owner_groups(
    catalog: Catalog, resource: Resource, places: Iterable[ProjectPlace]
) -> List[OwnerGroup]:
    """Returns the owners in the organization and in each project; one group if one list has all."""
    groups = [
        OwnerGroup(name, dest_id, tuple(_owners_in(catalog, resource, source_id)))
        for source_id, dest_id, name in (ORGANIZATION_PLACE, *places)
    ]
    if not resource.list_all:
        return groups
    return [OwnerGroup("", "", tuple(owner for group in groups for owner in group.owners))]


def _owners_in(catalog: Catalog, resource: Resource, project_id: str) -> Iterator[Owner]:
    """Returns the objects of one project that can be owners; of the organization itself for ""."""
    needed = BY_NAME.get(resource.needs_kind)
    if needed is not None and not catalog.lists.source_list_or_empty(needed):
        return
    for object_type in resource.owner_types:
        for target in TARGETS_OF_TYPE[object_type]:
            if resource.below_owner and BY_NAME[target].kind != object_type:
                continue
            for owner_id in _owner_ids(catalog, target, project_id):
                yield object_type, owner_id


def _owner_ids(catalog: Catalog, target: str, project_id: str) -> List[str]:
    if target == "organizations":
        return [] if project_id else [catalog.source.org_id]
    if target == "projects":
        return [project_id] if project_id else []
    resource = BY_NAME[target]
    if resource.scope == PROJECT:
        objects = catalog.lists.source_objects(resource, project_id) if project_id else []
    else:
        objects = [] if project_id else catalog.lists.source_list(resource)
    return [obj["id"] for obj in objects if not resource.servers_own(obj)]


def list_source_group(catalog: Catalog, resource: Resource, group: OwnerGroup) -> List[JsonObject]:
    """Returns the source's objects of these owners, oldest first.

    If one list has all of them, it includes those of owners that have no API (playgrounds): they
    are recorded as skipped.
    """
    objects = _list_owned(catalog, catalog.source, resource, group.owners, frozenset(group.owners))
    catalog.lists.note_owned(resource, objects)
    owners = set(group.owners)
    return [obj for obj in objects if owner_of(obj) in owners or not _can_move(obj["object_type"])]


def only_owners_of(group: OwnerGroup, objects: Iterable[JsonObject]) -> OwnerGroup:
    """Returns the group without owners that own none of these objects.

    The copy needs nothing from the others, and the destination may refuse their lists.
    """
    needed = {owner_of(obj) for obj in objects}
    return replace(group, owners=tuple(owner for owner in group.owners if owner in needed))


def list_dest_group(
    catalog: Catalog,
    resource: Resource,
    group: OwnerGroup,
    optional: Collection[Owner] = (),
) -> List[JsonObject]:
    """Returns the destination's objects of the owners' counterparts, oldest first.

    `optional`: owners whose lists the destination may refuse; that is recorded.
    """
    owners = _dest_owners(catalog, group.owners)
    there = set(owners)
    spared = frozenset(_dest_owners(catalog, optional))
    objects = _list_owned(catalog, catalog.dest, resource, owners, spared)
    return [obj for obj in objects if owner_of(obj) in there]


def owner_of(obj: JsonObject) -> Owner:
    return obj["object_type"], obj["object_id"]


def _dest_owners(catalog: Catalog, owners: Iterable[Owner]) -> List[Owner]:
    """Returns the counterparts of the owners that have one."""
    pairs = [
        (object_type, catalog.targets.resolve(TARGETS_OF_TYPE[object_type], source_id))
        for object_type, source_id in owners
    ]
    return [
        (object_type, dest_id)
        for object_type, dest_id in pairs
        if dest_id and not dest_id.startswith(PLANNED)
    ]


def _can_move(object_type: str) -> bool:
    targets = TARGETS_OF_TYPE.get(object_type)
    return targets is not None and not set(targets) & set(UNMOVABLE_TARGETS)


def _list_owned(
    catalog: Catalog,
    api: Api,
    resource: Resource,
    owners: Sequence[Owner],
    optional: FrozenSet[Owner],
) -> List[JsonObject]:
    """Returns all objects of a kind: from one list if the key may read it, else owner by owner.

    The list of all ACLs needs the right read_acls on the organization.
    """
    # assumption: acls_are_listed
    if resource.list_all:
        try:
            page_size = LIST_ALL_PAGE if resource.paged else 0
            objects = list(api.list(resource.list_all, page_size=page_size))[::-1]
            objects = usable_objects(api, resource, objects)
            return [obj for obj in objects if obj.get("_object_org_id") in (None, api.org_id)]
        except ApiError as error:
            if catalog.lists.is_not_there(resource, error):
                return []
            log.info("%s: listing %s by owner, not at once: %s", api.side, resource.name, error)
    return _list_by_owner(catalog, api, resource, owners, optional)


def _is_unknown_type(error: ApiError) -> bool:
    """Whether the server does not know such owners, rather than refusing the key.

    403 means the latter unless its text names the type as the reason.
    """
    text = error.body.lower()
    if error.is_page or "access" in text or "permission" in text:
        return False
    names_type = "object_type" in text or "unknown" in text
    return error.status in (400, *NOT_THERE) or (error.status == 403 and names_type)


# assumption: views_and_their_user
def _list_by_owner(
    catalog: Catalog,
    api: Api,
    resource: Resource,
    owners: Sequence[Owner],
    optional: FrozenSet[Owner],
) -> List[JsonObject]:
    """Returns the objects of one list for each owner, oldest first.

    The API requires object_type and object_id. Refused lists of `optional` owners are recorded;
    those of others are raised.
    """

    answered: List[Owner] = []

    def of_owner(owner: Owner) -> List[JsonObject]:
        path, params = list_of_owner(resource, owner)
        if resource.below_owner and resource.name in catalog.lists.unavailable:
            return []
        try:
            page_size = catalog.settings.batch_size if resource.paged else 0
            objects = list(api.list(path, params, page_size=page_size))
            answered.append(owner)
            listed = usable_objects(api, resource, objects)
        except ApiError as error:
            if not answered and catalog.lists.is_not_there(resource, error):
                return []
            if owner[0] in resource.doubtful_owner_types and _is_unknown_type(error):
                words = (api.side, resource.name, owner[0], error.status)
                log.info("%s: %s on %s cannot be listed (%s)", *words)
                return []
            if owner not in optional or (catalog.lists.strict and error.status >= 500):
                raise
            catalog.lists.refuse(resource, error, f"{owner[0]} {owner[1]}")
            return []
        return [obj for obj in listed if not obj.get("deleted_at")][::-1]

    workers = catalog.settings.max_concurrent
    with ThreadPoolExecutor(workers, thread_name_prefix="list") as pool:
        return [obj for objects in pool.map(of_owner, list(owners)) for obj in objects]
