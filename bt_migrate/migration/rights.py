"""The rights of both keys, found out before anything is written: writing, and reading each list."""

from __future__ import annotations

import contextlib
import re
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence

from bt_migrate.api.client import Api
from bt_migrate.errors import NOT_THERE, ApiError, UsageError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import IN_PROJECT, ORGANIZATION, OWNER, Resource
from bt_migrate.model.resource_table import OBJECT_RESOURCES, PROJECTS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.create import GATEWAY_SLACK_S
from bt_migrate.objects.owned import Owner, owner_groups
from bt_migrate.objects.paths import list_of_owner
from bt_migrate.objects.proof import FOUND_EXISTING, created_seconds

PROJECT_OWNER_TYPE = "project"
# A project without a name is refused with this text if the key may write.
NAME_REFUSED = re.compile(
    r"\bnames?\b|required|missing field|invalid_type|validation", re.IGNORECASE
)


@dataclass(frozen=True)
class RefusedList:
    """A list that a key may not read."""

    side: str
    resource: str
    reason: str


def write_right(dest: Api) -> str:
    """Returns whether the key may write: `yes` or `unknown (…)`.

    Tried with a request that cannot succeed: a project without a name is refused for its content if
    the key may write, and for the key if not. Raises UsageError if the key may not write. What a
    server creates nevertheless is deleted.
    """
    try:
        made = dest.post("/v1/project", {})
    except ApiError as error:
        if error.refuses_key:
            raise UsageError(
                f"destination: the key may not write to {dest.display_name}"
                f" ({_reason(error)}); use one with write rights"
            ) from None
        if error.status in (400, 422) and NAME_REFUSED.search(error.body):
            return "yes"
        return f"unknown ({_reason(error)})"
    project = made.json if isinstance(made.json, dict) else {}
    created_s = created_seconds(project)
    is_old = 0 < created_s < dest.clock.earliest_s() - GATEWAY_SLACK_S
    is_new = not is_old and FOUND_EXISTING not in {name.lower() for name in made.headers}
    if project.get("id") and not project.get("name") and is_new:
        dest.delete(f"/v1/project/{project['id']}")
        return "yes"
    return f"unknown ({dest.url} accepted a project without a name)"


def refused_lists(catalog: Catalog, projects: Sequence[JsonObject]) -> List[Dict[str, Any]]:
    """Returns the lists that the next phases need and a key may not read, on both sides.

    A kind that a server does not have is not among them. 5xx is left to the phase that lists it.
    """
    refused = catalog.lists.at_once(_refused, _lists_to_read(catalog, projects))
    refused_entries = [entry for entry in refused if entry is not None]
    # In the source, a list that was refused before is kept as an empty one.
    recorded = {(entry.side, entry.resource) for entry in refused_entries}
    for name, refusals in catalog.lists.refusals.items():
        for refusal in refusals:
            side = refusal.error.side
            if not refusal.place and (side, name) not in recorded:
                refused_entries.append(RefusedList(side, name, _reason(refusal.error)))
                recorded.add((side, name))
    return [asdict(entry) for entry in refused_entries]


@dataclass(frozen=True)
class ListToRead:
    """A list, and a function that tries whether the key may read it."""

    api: Api
    resource: Resource
    read: Callable[[], Any]


def _lists_to_read(catalog: Catalog, projects: Sequence[JsonObject]) -> List[ListToRead]:
    source, dest, lists = catalog.source, catalog.dest, catalog.lists
    dest_projects: Sequence[JsonObject] = []
    with contextlib.suppress(ApiError):
        dest_projects = lists.dest_objects(PROJECTS)
    lists_to_read = []
    for resource in OBJECT_RESOURCES:
        if resource.part_of or not _is_moved(catalog, resource):
            continue
        if resource.scope == OWNER:
            for api, owner in (
                (source, _an_owner(catalog, resource, projects)),
                # Owners below a project may not be in the destination yet.
                (dest, None if resource.below_owner else _project_owner(dest_projects)),
            ):
                if owner is not None:
                    lists_to_read.append(
                        ListToRead(api, resource, _owned_list(api, resource, owner))
                    )
            continue
        lists_to_read.append(ListToRead(source, resource, partial(lists.source_list, resource)))
        if resource.scope == ORGANIZATION:
            lists_to_read.append(ListToRead(dest, resource, partial(lists.dest_objects, resource)))
        elif resource.listed != IN_PROJECT or dest_projects:
            place = dest_projects[0]["id"] if dest_projects else ""
            lists_to_read.append(ListToRead(dest, resource, _first_page(dest, resource, place)))
    return lists_to_read


def _is_moved(catalog: Catalog, resource: Resource) -> bool:
    return resource is PROJECTS or catalog.settings.selects(resource.name)


def _first_page(api: Api, resource: Resource, project_id: str) -> Callable[[], Any]:
    page_size = 1 if resource.paged else 0
    return lambda: next(api.list(resource.path_in(project_id), page_size=page_size), None)


def _an_owner(
    catalog: Catalog, resource: Resource, projects: Sequence[JsonObject]
) -> Optional[Owner]:
    """Returns a source object that can own objects of the kind; None if there is none."""
    if not resource.below_owner:
        return _project_owner(projects)
    places = [(project["id"], "", project["name"]) for project in projects]
    with contextlib.suppress(ApiError):  # the refused list of the owners is reported itself
        for group in owner_groups(catalog, resource, places):
            if group.owners:
                return group.owners[0]
    return None


def _project_owner(projects: Sequence[JsonObject]) -> Optional[Owner]:
    return (PROJECT_OWNER_TYPE, projects[0]["id"]) if projects else None


def _owned_list(api: Api, resource: Resource, owner: Owner) -> Callable[[], Any]:
    path, params = list_of_owner(resource, owner)
    return lambda: next(api.list(path, params, page_size=1 if resource.paged else 0), None)


def _refused(wanted: ListToRead) -> Optional[RefusedList]:
    """Returns the list if it is refused; None if it can be read or that is not known."""
    try:
        wanted.read()
    except ApiError as error:
        is_missing = error.status in NOT_THERE and wanted.resource.beyond
        if error.status >= 500 or (is_missing and not error.refuses_key):
            return None
        return RefusedList(wanted.api.side, wanted.resource.name, _reason(error))
    return None


def _reason(error: ApiError) -> str:
    return f"{error.status}: {error.body or 'no text'}"
