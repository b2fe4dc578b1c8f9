"""Versions to which objects and rows are pinned: the destination's version for each.

Versions that this run wrote are mapped already. Other versions in the destination (of an earlier
run, or of the phase before in another run) are read on both sides and compared, once for each
object, if earlier versions are asked for.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

from bt_migrate.api.answers import object_with_id
from bt_migrate.api.transactions import version_like, xact_of, xact_of_version
from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import OPEN_OUTCOMES, UPDATED, WOULD_UPDATE
from bt_migrate.model.references import Unresolved, paths_matching, rewrite, value_at
from bt_migrate.model.resource import Pin, Resource
from bt_migrate.model.resource_table import OBJECT_RESOURCES, PROJECTS
from bt_migrate.model.resources import BY_NAME
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import writable_fields
from bt_migrate.objects.lists import PLANNED
from bt_migrate.objects.version_content import aligned, dest_digest, source_digest


def resolve_version(
    catalog: Catalog, pin: Pin, holder: Mapping[str, Any], version: Any
) -> Optional[str]:
    """Returns the destination's version for a pin, None if there is none."""
    source_id = catalog.targets.pinned(pin, holder)
    if not source_id:
        return None
    versioned = [BY_NAME[name] for name in pin.to if name in BY_NAME and BY_NAME[name].versioned]
    if not versioned:
        dest_version = catalog.versions.dest_version(source_id, version)
        if dest_version is None and isinstance(holder.get(pin.row), str):
            return catalog.versions.dest_version_of_row(source_id, holder[pin.row], version)
        return dest_version
    for resource in versioned if catalog.settings.history else ():
        _map_once(catalog, resource, source_id)
    named = _named_version(catalog, versioned, source_id, version)
    dest_version = catalog.versions.dest_version(source_id, named)
    for resource in versioned if pin.keeps_latest else ():
        dest_version = dest_version or _latest(catalog, resource, source_id, version)
    return dest_version


def _named_version(
    catalog: Catalog, versioned: Sequence[Resource], source_id: str, version: Any
) -> str:
    """Returns the version that a pin names: who reads an object at a transaction between two
    versions gets the earlier one. As far as the versions of the source are listed.
    """
    found = (catalog.lists.source_object(resource, source_id) for resource in versioned)
    latest = [xact_of(source.get("_xact_id")) for source in found if source]
    xacts = [*catalog.histories.source.transactions(source_id), *latest]
    wanted = xact_of_version(version)
    return version_like(version, max((xact for xact in xacts if xact <= wanted), default=wanted))


def map_versions_there(
    catalog: Catalog, resource: Resource, source: JsonObject, existing: Mapping[str, Any]
) -> bool:
    """Map the versions that the destination's object names, if they are those of the source's.

    For starts without --history, which read no lists of versions: an earlier run may have written
    them. Returns whether any was mapped. See `is_version_there`.
    """
    mapped = False
    for pin in resource.pins:
        there = {str(value_at(existing, path)) for path in paths_matching(existing, pin.path)}
        for path in paths_matching(source, pin.path) if there else ():
            holder, version = value_at(source, path[:-1]), value_at(source, path)
            source_id = catalog.targets.pinned(pin, holder) or ""
            if catalog.versions.dest_version(source_id, version) is None:
                places = (is_version_there(catalog, pin, holder, found) for found in sorted(there))
                mapped = any(places) or mapped
    return mapped


def is_version_there(
    catalog: Catalog, pin: Pin, holder: Mapping[str, Any], dest_version: Any
) -> bool:
    """Whether a version of the destination is the copy of the one that a pin of the source names.

    It is mapped then, in memory.
    """
    source_id = catalog.targets.pinned(pin, holder) or ""
    version = holder[pin.path.rpartition(".")[2]]
    place = (source_id, str(version), str(dest_version))
    if place in catalog.histories.unlike:
        return False
    for resource in (BY_NAME[name] for name in pin.to if BY_NAME[name].versioned):
        source = catalog.lists.source_object(resource, source_id)
        existing = _counterpart(catalog, resource, source) if source else None
        if existing and _is_copy(catalog, resource, place, existing["id"]):
            catalog.versions.put(source_id, version, dest_version)
            return True
        if existing:
            catalog.histories.unlike.add(place)
    return False


def _is_copy(
    catalog: Catalog, resource: Resource, place: Tuple[str, str, str], dest_id: str
) -> bool:
    source_id, *versions = place
    histories, (xact, dest_xact) = catalog.histories, map(xact_of_version, versions)
    source = histories.source.content(resource, source_id, xact)
    there = histories.dest.content(resource, dest_id, dest_xact) if source else None
    if source is None or there is None:
        return False
    return source_digest(catalog.targets, resource, source) == dest_digest(resource, there)


def may_be_mapped(catalog: Catalog, targets: Sequence[str]) -> bool:
    """Whether versions of these kinds can still be mapped after rows that name them were written,
    as `--history` does.
    """
    versioned = [name for name in targets if name in BY_NAME and BY_NAME[name].versioned]
    return bool(versioned and catalog.settings.history)


def _latest(catalog: Catalog, resource: Resource, source_id: str, version: Any) -> Optional[str]:
    """Returns the destination's latest version if `version` is the source's and they are equal."""
    source = catalog.lists.source_object(resource, source_id)
    if source is None or not _is_latest(source, version):
        return None
    dest_id = catalog.targets.resolve((resource.name,), source_id) or ""
    if dest_id.startswith(PLANNED):
        return str(version)
    existing = _counterpart(catalog, resource, source)
    if existing is None:
        return None
    path = f"{resource.path}/{existing['id']}"
    now = catalog.dest.get(path, check=object_with_id(existing["id"]))
    if source_digest(catalog.targets, resource, source) != dest_digest(resource, now):
        return str(version) if _would_be_updated(catalog, source_id) else None
    xact = xact_of(now.get("_xact_id"))
    return version_like(version, xact) if xact else None


def _is_latest(source: JsonObject, version: Any) -> bool:
    return xact_of_version(version) >= xact_of(source.get("_xact_id"))


def awaited_by_pins(
    catalog: Catalog, resource: Resource, holder: Mapping[str, Any], removed: Sequence[str]
) -> List[Unresolved]:
    """Returns what can still move and must, before the `removed` versions are in the destination.

    See `_awaited_by_latest`; each is at the path of the version.
    """
    return [
        Unresolved(pin.path, targets, ref)
        for pin in resource.pins
        if pin.keeps_latest and pin.path in removed
        for targets, ref in dict.fromkeys(_awaited_by_latest(catalog, pin, holder))
    ]


def _awaited_by_latest(
    catalog: Catalog, pin: Pin, holder: Mapping[str, Any]
) -> Iterator[Tuple[Tuple[str, ...], str]]:
    """Yields (kinds, source id) of what the latest version of an object needs in the destination:
    the object itself if its update failed or waits, and the targets of its references.
    """
    targets = catalog.targets
    source_id = targets.pinned(pin, holder) or ""
    if not targets.resolve(pin.to, source_id):
        return  # the reference to the object waits
    for resource in (BY_NAME[name] for name in pin.to):
        source = catalog.lists.source_object(resource, source_id)
        if source is None or not _is_latest(source, holder[pin.path]):
            continue
        outcomes = {states.outcome_of(source_id) for states in catalog.run.all_objects()}
        if not outcomes.isdisjoint(OPEN_OUTCOMES):
            yield pin.to, source_id
        fields = writable_fields(resource, source)
        known_ids = targets.known_ids()
        rewritten = rewrite(fields, resource, resolve=targets.resolve, known_ids=known_ids)
        for reference in rewritten.unresolved:
            if targets.may_resolve_later(reference.to, reference.id):
                yield reference.to, reference.id


def _would_be_updated(catalog: Catalog, source_id: str) -> bool:
    """Whether this is a plan, by which the object gets the source's content."""
    return catalog.settings.dry_run and any(
        states.outcome_of(source_id) in (UPDATED, WOULD_UPDATE)
        for states in catalog.run.all_objects()
    )


def _counterpart(catalog: Catalog, resource: Resource, source: JsonObject) -> Optional[JsonObject]:
    dest_id = catalog.targets.resolve((resource.name,), source["id"])
    project = catalog.targets.resolve((PROJECTS.name,), source["project_id"])
    if not dest_id or not project or PLANNED in (dest_id[: len(PLANNED)], project[: len(PLANNED)]):
        return None
    return catalog.index.object(resource, project, dest_id)


def _map_once(catalog: Catalog, resource: Resource, source_id: str) -> None:
    histories = catalog.histories
    if source_id in histories.listed:
        return
    source = catalog.lists.source_object(resource, source_id)
    if source is None:
        return
    is_mapped = catalog.versions.knows(source_id)
    existing = None if is_mapped else _counterpart(catalog, resource, source)
    if not (is_mapped or existing or catalog.settings.dry_run):
        return
    dest_project = existing["project_id"] if existing else ""
    read_version_lists(catalog, [(source["project_id"], dest_project)])
    if not is_mapped:
        _map_versions(catalog, resource, source, existing)
    histories.listed.add(source_id)


def _map_versions(
    catalog: Catalog, resource: Resource, source: JsonObject, existing: Optional[JsonObject]
) -> None:
    histories, last, source_id = catalog.histories, catalog.settings.history, source["id"]
    if existing is None:
        # In a plan, these versions would be written.
        for xact in histories.source.transactions(source_id)[-1 - last :]:
            catalog.versions.put(source_id, xact, xact)
        return
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


def read_version_lists(catalog: Catalog, projects: Iterable[Tuple[str, str]]) -> None:
    """List the versions of all definitions in projects (source id, destination id or "").

    Versions of kinds that are not selected may be named too, if the key may list these.
    """
    settings, lists = catalog.settings, catalog.lists
    source: Dict[str, List[str]] = {}
    dest: Dict[str, List[str]] = {}
    for source_project, dest_project in projects:
        for kind in (kind for kind in OBJECT_RESOURCES if kind.versioned):
            try:
                objects = lists.source_objects(kind, source_project)
                source.setdefault(source_project, []).extend(obj["id"] for obj in objects)
                if dest_project and not dest_project.startswith(PLANNED):
                    there = lists.dest_objects(kind, dest_project)
                    dest.setdefault(dest_project, []).extend(obj["id"] for obj in there)
            except ApiError:
                if settings.selects(kind.name):
                    raise
    catalog.histories.source.read(source)
    catalog.histories.dest.read(dest)


def pairs_of_versions(
    catalog: Catalog,
    resource: Resource,
    source: Sequence[JsonObject],
    dest: Sequence[JsonObject],
    *,
    newest_first: bool = True,
) -> Dict[int, int]:
    """Returns position in `source` -> position in `dest` of versions with the same content."""
    return aligned(
        [source_digest(catalog.targets, resource, version) for version in source],
        [dest_digest(resource, version) for version in dest],
        newest_first=newest_first,
    )
