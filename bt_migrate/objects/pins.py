"""Versions that objects and rows pin: which version of the destination each becomes.

What this run wrote is mapped already. Versions that are there from elsewhere (an earlier run, the
phase before in another run) are read on both sides and compared, once for each object, if earlier
versions are asked for.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

from bt_migrate.api.answers import object_with_id
from bt_migrate.api.transactions import version_like, xact_of, xact_of_version
from bt_migrate.errors import ApiError
from bt_migrate.model.resource import Pin, Resource
from bt_migrate.model.resource_table import PROJECTS
from bt_migrate.model.resources import BY_NAME
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.lists import PLANNED
from bt_migrate.objects.version_content import aligned, dest_digest, source_digest


def resolve_version(
    catalog: Catalog, pin: Pin, holder: Mapping[str, Any], version: Any
) -> Optional[str]:
    """The destination's version of the object that a pin names; None if there is none."""
    source_id = catalog.targets.pinned(pin, holder)
    if not source_id:
        return None
    versioned = [BY_NAME[name] for name in pin.to if name in BY_NAME and BY_NAME[name].versioned]
    if not versioned:
        return catalog.versions.dest_version(source_id, version)
    for resource in versioned if catalog.settings.history else ():
        _map_once(catalog, resource, source_id)
    found = catalog.versions.dest_version_at(source_id, version)
    for resource in versioned if pin.keeps_latest else ():
        found = found or _latest(catalog, resource, source_id, version)
    return found


def _latest(catalog: Catalog, resource: Resource, source_id: str, version: Any) -> Optional[str]:
    """The destination's latest version, if `version` is the source's and the content is equal."""
    source, existing = _both(catalog, resource, source_id)
    if not source or not existing:
        return None
    if xact_of_version(version) < xact_of(source.get("_xact_id")):
        return None
    path = f"{resource.path}/{existing['id']}"
    now = catalog.dest.get(path, check=object_with_id(existing["id"]))
    if source_digest(catalog.targets, resource, source) != dest_digest(resource, now):
        return None
    xact = xact_of(now.get("_xact_id"))
    return version_like(version, xact) if xact else None


def _both(
    catalog: Catalog, resource: Resource, source_id: str
) -> Tuple[Optional[dict], Optional[dict]]:
    """The object and its counterpart, where there are such."""
    source = catalog.lists.source_object(resource, source_id)
    if source is None:
        return None, None
    dest_id = catalog.targets.resolve((resource.name,), source_id)
    project = catalog.targets.resolve((PROJECTS.name,), source["project_id"])
    if not dest_id or not project or dest_id.startswith(PLANNED):
        return source, None
    return source, catalog.index.object(resource, project, dest_id)


def _map_once(catalog: Catalog, resource: Resource, source_id: str) -> None:
    if catalog.versions.knows(source_id):
        return
    source, existing = _both(catalog, resource, source_id)
    if not source or not existing:
        return
    histories, last = catalog.histories, catalog.settings.history
    histories.source.read({source["project_id"]: [source_id]})
    histories.dest.read({existing["project_id"]: [existing["id"]]})
    try:
        versions = histories.source.contents(resource, source, last)
        there = histories.dest.contents(resource, existing, last)
    except ApiError:
        return
    pairs = pairs_of_versions(catalog, resource, versions, there)
    for place, counter in pairs.items():
        catalog.versions.put(
            source_id, versions[place].get("_xact_id"), there[counter].get("_xact_id")
        )


def pairs_of_versions(
    catalog: Catalog,
    resource: Resource,
    source: Sequence[dict],
    dest: Sequence[dict],
    *,
    newest_first: bool = True,
) -> Dict[int, int]:
    """Position in `source` -> position in `dest` of versions with the same content."""
    return aligned(
        [source_digest(catalog.targets, resource, version) for version in source],
        [dest_digest(resource, version) for version in dest],
        newest_first=newest_first,
    )
