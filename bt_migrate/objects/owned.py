"""Views and ACLs: objects that hang on another object and are listed per object, not per project."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Dict, Iterable, List, Sequence, Tuple

from bt_migrate.api.client import Api
from bt_migrate.errors import ApiError
from bt_migrate.model.resources import (
    ACLS,
    DATASETS,
    EXPERIMENTS,
    FUNCTIONS,
    GROUPS,
    PROMPTS,
    ROLES,
    TARGETS_OF_TYPE,
    VIEWS,
    Resource,
)
from bt_migrate.objects.catalog import PLANNED, Catalog

log = logging.getLogger("bt_migrate.owned_objects")

Owner = Tuple[str, str]  # (object_type, id)

ORGANIZATION_TYPES = ("organization", "org_project", "org_member", "org_audit_logs")
# Which object_type an ACL or view names for the objects of a resource. Prompts and functions are one store, called prompt.
OWNER_TYPES: Sequence[Tuple[str, Resource]] = (
    ("dataset", DATASETS),
    ("experiment", EXPERIMENTS),
    ("prompt", FUNCTIONS),
    ("prompt", PROMPTS),
)
# Where views hang by the letter of the API's document, and maybe on no server: one that refuses to list them there has none.
DOUBTFUL_VIEW_OWNERS = ("organization", "org_project", "project_log")


def view_owners(catalog: Catalog, project_id: str) -> List[Owner]:
    """The objects of a source project that can have views; those of the organization itself (its list of projects) for ""."""
    if not project_id:
        return [
            (object_type, catalog.source.org_id) for object_type in ("organization", "org_project")
        ]
    owners = [("project", project_id), ("project_log", project_id)]
    for object_type, resource in OWNER_TYPES[:2]:
        owners += [(object_type, one["id"]) for one in catalog.source_objects(resource, project_id)]
    return owners


def list_owned(
    api: Api, resource: Resource, owners: Iterable[Owner], page_size: int, workers: int
) -> List[dict]:
    """Views or ACLs of the owners, one list each (the API requires object_type and object_id), oldest first, some at once."""

    def of(owner: Owner) -> List[dict]:
        params = {"object_type": owner[0], "object_id": owner[1]}
        try:
            found = [
                one
                for one in api.list(resource.path, params, page_size=page_size)
                if not one.get("deleted_at")
            ]
        except ApiError as error:
            if error.status >= 500 or resource is not VIEWS or owner[0] not in DOUBTFUL_VIEW_OWNERS:
                raise
            log.info("%s: views on %s cannot be listed (%s)", api.side, owner[0], error.status)
            return []
        return found[::-1]

    with ThreadPoolExecutor(workers, thread_name_prefix="list") as pool:
        return [one for found in pool.map(of, list(owners)) for one in found]


def list_views(catalog: Catalog, project_id: str) -> List[dict]:
    """The source's views of one project and of its datasets and experiments; of the organization for ""."""
    return _owned(catalog, catalog.source, VIEWS, view_owners(catalog, project_id))


def list_dest_views(catalog: Catalog, project_id: str) -> List[dict]:
    """The destination's views on the counterparts of these objects."""
    return _owned(
        catalog, catalog.dest, VIEWS, dest_owners(catalog, view_owners(catalog, project_id))
    )


def dest_owners(catalog: Catalog, owners: Iterable[Owner]) -> List[Owner]:
    """The counterparts of the owners that there are."""
    pairs = [
        (object_type, catalog.resolve(TARGETS_OF_TYPE[object_type], source_id))
        for object_type, source_id in owners
    ]
    return [
        (object_type, dest_id)
        for object_type, dest_id in pairs
        if dest_id and not dest_id.startswith(PLANNED)
    ]


def acl_owners(catalog: Catalog, projects: Iterable[dict]) -> Dict[Owner, str]:
    """Owner -> project name ("" for the organization's) of all selected source objects that can have ACLs."""
    owners = {(object_type, catalog.source.org_id): "" for object_type in ORGANIZATION_TYPES}
    owners.update((("group", one["id"]), "") for one in catalog.source_list(GROUPS))
    owners.update(
        (("role", one["id"]), "") for one in catalog.source_list(ROLES) if one.get("org_id")
    )
    for project in projects:
        owners.update(
            (((kind, project["id"]), project["name"])) for kind in ("project", "project_log")
        )
        for object_type, resource in OWNER_TYPES:
            owners.update(
                ((object_type, one["id"]), project["name"])
                for one in catalog.source_objects(resource, project["id"])
            )
    return owners


def list_acls(catalog: Catalog, owners: Dict[Owner, str]) -> List[dict]:
    """The source's ACLs on the owners, and those on things that have no API (playgrounds), which are told as skipped."""
    acls = _acls(catalog, catalog.source, list(owners))
    return [
        one
        for one in acls
        if (one["object_type"], one["object_id"]) in owners or not _movable(one["object_type"])
    ]


def list_dest_acls(catalog: Catalog, owners: Dict[Owner, str]) -> List[dict]:
    return _acls(catalog, catalog.dest, dest_owners(catalog, owners))


def _movable(object_type: str) -> bool:
    return "playgrounds" not in TARGETS_OF_TYPE.get(object_type, ("playgrounds",))


def _acls(catalog: Catalog, api: Api, owners: Sequence[Owner]) -> List[dict]:
    """All ACLs at once where the key may (list_org needs read_acls on the organization; it answers a bare array), else owner by
    owner.
    """
    try:
        acls = list(api.list("/v1/acl/list_org", page_size=1000))[::-1]
    except ApiError as error:
        if error.status >= 500:
            raise
        return _owned(catalog, api, ACLS, owners)
    return [one for one in acls if one.get("_object_org_id") in (None, api.org_id)]


def _owned(catalog: Catalog, api: Api, resource: Resource, owners: Sequence[Owner]) -> List[dict]:
    settings = catalog.settings
    return list_owned(api, resource, owners, settings.batch_size, settings.max_concurrent)
