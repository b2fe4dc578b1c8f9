"""What keeps versions of prompts and functions from being written yet.

A version cannot be changed once it is written. So no version is written without a reference that a
later start can resolve: its object waits until the target is in the destination.
"""

from __future__ import annotations

from typing import Container, Dict, Iterator, List, Mapping, Sequence

from bt_migrate.api.transactions import xact_of_version
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.references import Unresolved, dotted, paths_matching, rewrite, value_at
from bt_migrate.model.resource import Pin, Resource
from bt_migrate.model.resources import AFTER_VERSIONED, BY_NAME
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import display_name, writable_fields
from bt_migrate.objects.pins import resolve_version
from bt_migrate.objects.prepare import Prepared


def needed_first(
    catalog: Catalog, resource: Resource, versions: Sequence[JsonObject], planned: Container[str]
) -> List[Unresolved]:
    """Returns the references of versions to objects that are not in the destination and can be, and
    to versions of the `planned` objects. Each object once.
    """
    resolve, known_ids = catalog.targets.resolve, catalog.targets.known_ids()
    needed: Dict[str, Unresolved] = {}
    for version in versions:
        fields = writable_fields(resource, version)
        rewritten = rewrite(fields, resource, resolve=resolve, known_ids=known_ids)
        for reference in (*rewritten.unresolved, *rewritten.in_queries):
            if _comes_first(catalog, reference):
                needed[reference.id] = reference
        for pin in _pins_on(catalog, resource, fields, planned):
            needed.setdefault(pin.id, pin)
    return list(needed.values())


def _comes_first(catalog: Catalog, reference: Unresolved) -> bool:
    """Whether the target can move, and moves before or with prompts and functions."""
    moves_after = any(target in AFTER_VERSIONED for target in reference.to)
    may_resolve = catalog.targets.may_resolve_later(reference.to, reference.id)
    return may_resolve and not moves_after and not _is_unlisted(catalog, reference)


def _is_unlisted(catalog: Catalog, reference: Unresolved) -> bool:
    return any(map(catalog.lists.is_awaited, reference.to))


def _pins_on(
    catalog: Catalog, resource: Resource, version: Mapping[str, object], ids: Container[str]
) -> Iterator[Unresolved]:
    """Yields the pins on versions of these objects that are not in the destination.

    Also on newer versions of objects that this start leaves out: these can still come.
    """
    for pin in resource.pins:
        for path in paths_matching(version, pin.path):
            holder, pinned = value_at(version, path[:-1]), value_at(version, path)
            source_id = catalog.targets.pinned(pin, holder)
            if not source_id or catalog.versions.dest_version(source_id, pinned) is not None:
                continue
            if source_id in ids or _is_left_out_and_newer(catalog, pin, holder, pinned):
                yield Unresolved(dotted(path), pin.to, source_id)


def _is_left_out_and_newer(
    catalog: Catalog, pin: Pin, holder: Mapping[str, object], version: object
) -> bool:
    """Whether a pin names a version that comes after those of the destination, of an object that is
    not selected.
    """
    source_id = catalog.targets.pinned(pin, holder) or ""
    for resource in (BY_NAME[name] for name in pin.to if BY_NAME[name].versioned):
        source = catalog.lists.source_object(resource, source_id)
        selects = catalog.settings.selects(resource.name)
        if source is None or (selects and catalog.lists.is_selected(source["project_id"])):
            continue
        if resolve_version(catalog, pin, holder, version) is None:
            mapped = catalog.versions.mapped(source_id)
            return bool(mapped) and xact_of_version(version) > max(mapped)
    return False


def reason_to_stop(
    catalog: Catalog, resource: Resource, version: JsonObject, prepared: Prepared
) -> str:
    """Returns why a version must not be written now, "" if it may: a server refused the list of a
    target, or the target failed in this start.
    """
    open_references = [*prepared.deferred, *prepared.left_out]
    unlisted = {
        target
        for reference in open_references
        if _is_unlisted(catalog, reference)
        for target in reference.to
        if catalog.lists.is_awaited(target)
    }
    if unlisted:
        kinds = " or ".join(sorted(unlisted))
        return f"a version refers to {kinds}, which cannot be listed; run again later"
    failures = catalog.histories.failures
    open_references += _pins_on(catalog, resource, version, failures)
    failed = [reference for reference in open_references if reference.id in failures]
    if failed:
        return f"a version refers to {_name_of(catalog, failed[0])}, which failed"
    return ""


def _name_of(catalog: Catalog, reference: Unresolved) -> str:
    for target in reference.to:
        source = catalog.lists.source_object(BY_NAME[target], reference.id)
        if source:
            return f"{BY_NAME[target].kind} {display_name(BY_NAME[target], source)!r}"
    return reference.id
