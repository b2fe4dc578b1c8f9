"""Which versions of prompts and functions are written, and in which order.

A version refers to other objects as they were at that time. So the versions of all objects are
written in the order in which the source got them, whatever objects they belong to; versions that do
not need each other are written at the same time. What is written is recorded by `copy_objects`,
which finds each object as its latest version left it.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from bt_migrate.api.transactions import xact_of
from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.config.values import FOLLOW_POLICY, UPDATE_POLICY
from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import DIFFERS
from bt_migrate.model.references import UUID, Unresolved, strings
from bt_migrate.model.resource import Resource
from bt_migrate.objects.apply import ObjectWriter
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import UPDATE, Action, display_name, fingerprint, natural_key
from bt_migrate.objects.history_waits import needed_first
from bt_migrate.objects.pins import pairs_of_versions, read_version_lists
from bt_migrate.objects.plan import counterpart, holder_of_slug, is_as_begun, may_rename
from bt_migrate.objects.prepare import PlannedObject, object_finding, skip_reason
from bt_migrate.objects.update import note_former, policy_of
from bt_migrate.objects.version_content import source_digest
from bt_migrate.objects.write_versions import History, Version, VersionWriter
from bt_migrate.report.display import plural
from bt_migrate.state.object_file import Intention
from bt_migrate.state.object_states import ObjectStates, save_objects

log = logging.getLogger("bt_migrate.objects")

VERSIONS_WRITTEN = "versions written"
Objects = Sequence[Tuple[Resource, PlannedObject]]


def copy_histories(
    catalog: Catalog, objects: Objects, copier: Optional[AttachmentCopier] = None
) -> None:
    """Write the versions that the destination lacks; a dry run only counts them."""
    candidates = [
        _Target(resource, item, _existing(catalog, resource, item))
        for resource, item in objects
        if _is_open(item) and not skip_reason(catalog, resource, item.source)
    ]
    projects = {(obj.item.source["project_id"], obj.item.dest_project_id) for obj in candidates}
    read_version_lists(catalog, projects)
    planned = catalog.lists.at_once(lambda obj: _planned(catalog, obj), candidates)
    missing = [history for history in planned if history is not None and history.versions]
    histories = _ready(catalog, missing)
    for history in histories:
        catalog.histories.written[history.source_id] = len(history.versions)
    if histories and not catalog.settings.dry_run:
        _write(catalog, histories, copier)


def _write(
    catalog: Catalog, histories: Sequence[History], copier: Optional[AttachmentCopier]
) -> None:
    states = _states_of(histories)
    for history in histories:
        _note_intention(catalog, history)
    save_objects(states)
    writer = VersionWriter(catalog, copier)
    total = sum(len(history.versions) for history in histories)
    try:
        with catalog.run.live.working(VERSIONS_WRITTEN, total) as task:
            for wave in waves(histories):
                catalog.dest.check()
                writer.write(wave)
                task.step(len(wave))
    finally:
        save_objects(states)
    written = plural(total, "version"), plural(len(histories), "object")
    log.info("wrote %s of %s", *written)


@dataclass(frozen=True)
class _Target:
    """A source object and its counterpart. `existing` is None if nothing is to be written."""

    resource: Resource
    item: PlannedObject
    existing: Optional[Mapping[str, Any]]  # {} where the object is to be created


def _is_open(item: PlannedObject) -> bool:
    source_id = item.source["id"]
    return not item.states.completed(source_id) or item.states.outcome_of(source_id) == DIFFERS


def _existing(
    catalog: Catalog, resource: Resource, item: PlannedObject
) -> Optional[Mapping[str, Any]]:
    """Returns the destination's object, {} if there is none yet.

    None if only the plan of the object decides: it was deleted there, its name is taken, or the
    destination does not list its objects.
    """
    key = natural_key(resource, item.source)
    try:
        existing, was_deleted = counterpart(catalog, resource, item, key)
        holder = catalog.index.by_key(resource, item.dest_project_id).get(key)
        if holder and not existing and not was_deleted and may_rename(catalog, resource, holder):
            # The source deleted its counterpart, and made this object under the same slug.
            ObjectWriter(catalog, resource, None).rename_namesake(item, holder)
            holder = None
        name_holder = holder or holder_of_slug(catalog, resource, item)
    except ApiError:
        return None
    if existing is not None:
        # A PUT finds the object by its natural key; the plan renames it first.
        return existing if holder is not None and holder["id"] == existing["id"] else None
    stays_deleted = was_deleted and policy_of(catalog, resource) != UPDATE_POLICY
    return None if stays_deleted or name_holder else {}


# -- what is to be written of one object


def _planned(catalog: Catalog, target: _Target) -> Optional[History]:
    """Returns the versions that the destination lacks; maps those that it has."""
    resource, item = target.resource, target.item
    if target.existing is None:
        return None
    try:
        if target.existing:
            history = _continued(catalog, resource, item, target.existing)
        else:
            history = History(resource, item, _source_versions(catalog, resource, item))
        return history and _without_unmovable(catalog, history)
    except ApiError as error:
        # A version that cannot be read: nothing of the object is written.
        catalog.histories.failures[item.source["id"]] = str(error)
        return None


def _without_unmovable(catalog: Catalog, history: History) -> History:
    """Leave out and report the versions that the API cannot carry."""
    resource, item = history.resource, history.item
    movable = []
    for version in history.versions:
        reason = resource.cannot_move(version)
        if not reason:
            movable.append(version)
            continue
        detail = f"a version of {version.get('created')}: {reason}"
        record = object_finding(resource, item, "earlier_versions", detail=detail)
        catalog.histories.findings.setdefault(history.source_id, []).append(record)
    history.versions[:] = movable
    return history


def _source_versions(
    catalog: Catalog, resource: Resource, item: PlannedObject, after: int = 0
) -> List[JsonObject]:
    """Returns the versions to move, oldest first; those after a transaction if it is given."""
    source = item.source
    lists = catalog.histories.source
    versions = lists.contents(resource, source, catalog.settings.history, after=after)
    unread = lists.unread.get(source["id"])
    unknown = lists.unknown.get(source["project_id"])
    if unread or unknown:
        words = f"not read: {unread}" if unread else f"not listed: {unknown}"
        record = object_finding(resource, item, "earlier_versions", detail=words)
        catalog.histories.findings[source["id"]] = [record]
    return versions


def _continued(
    catalog: Catalog, resource: Resource, item: PlannedObject, existing: Mapping[str, Any]
) -> Optional[History]:
    """Returns the versions after the destination's last one, if they may be written."""
    source_xact = catalog.versions.source_version(item.source["id"], existing.get("_xact_id"))
    if source_xact:
        missing = _source_versions(catalog, resource, item, after=source_xact)
    else:
        source = _source_versions(catalog, resource, item)
        pairs = map_versions(catalog, resource, item, source, existing)
        missing = source[max(pairs) + 1 :] if pairs else []
    catalog.versions.keep(item.states, item.source["id"])
    _note_left(catalog, resource, item)
    if not missing or not _may_write(catalog, resource, item, existing):
        return None
    return History(resource, item, missing, existing)


def _note_left(catalog: Catalog, resource: Resource, item: PlannedObject) -> None:
    """Report versions that would have to come before those of the destination."""
    source_id = item.source["id"]
    mapped = catalog.versions.mapped(source_id) or {xact_of(item.source.get("_xact_id"))}
    xacts = catalog.histories.source.transactions(source_id)
    wanted_xacts = xacts[max(0, len(xacts) - 1 - catalog.settings.history) :]
    left = [xact for xact in wanted_xacts if xact < max(mapped) and xact not in mapped]
    between = [xact for xact in left if xact > min(mapped)]
    left_count = len(left) - sum(
        not _can_move(catalog, resource, source_id, xact) for xact in between
    )
    if left_count:
        detail = f"{left_count:,} would have to come before those that the destination has already"
        record = object_finding(resource, item, "earlier_versions", detail=detail)
        catalog.histories.findings.setdefault(item.source["id"], []).append(record)


def _can_move(catalog: Catalog, resource: Resource, source_id: str, xact: int) -> bool:
    version = catalog.histories.source.content(resource, source_id, xact)
    return version is not None and not resource.cannot_move(version)


def map_versions(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    source: Sequence[JsonObject],
    existing: Mapping[str, Any],
) -> Dict[int, int]:
    """Map versions that both sides have. Returns position in `source` -> in the destination."""
    begun = is_as_begun(catalog, resource, item, existing)
    lists = catalog.histories.dest
    dest = lists.contents(resource, existing, catalog.settings.history)
    pairs = pairs_of_versions(catalog, resource, source, dest, newest_first=not begun)
    for place, counter in pairs.items():
        xacts = (source[place].get("_xact_id"), dest[counter].get("_xact_id"))
        catalog.versions.record(item.states, item.source["id"], *xacts)
    return pairs


def _may_write(
    catalog: Catalog, resource: Resource, item: PlannedObject, existing: Mapping[str, Any]
) -> bool:
    """Whether the object is as this tool left it, or --on-conflict lets it be overwritten."""
    source_id = item.source["id"]
    policy = policy_of(catalog, resource)
    if policy == UPDATE_POLICY or is_as_begun(catalog, resource, item, existing):
        return True
    before = catalog.earlier.fingerprints(resource, source_id)
    is_as_left = before is not None and before[1] == fingerprint(resource, existing)
    return policy == FOLLOW_POLICY and is_as_left


def _note_intention(catalog: Catalog, history: History) -> None:
    """Record what is about to be written: the next process and undo recognize it after a crash."""
    resource, item, source_id = history.resource, history.item, history.source_id
    states = item.states
    digests = [source_digest(catalog.targets, resource, version) for version in history.versions]
    begun = states.begun_versions.get(source_id, [])
    states.begun_versions[source_id] = [
        *begun,
        *(digest for digest in digests if digest not in begun),
    ]
    if not history.existing:
        states.intended.setdefault(
            source_id,
            Intention(
                key=list(natural_key(resource, item.source)),
                project=item.dest_project_id,
                fingerprint="",
                at=catalog.dest.clock.earliest_s(),
            ),
        )
    elif source_id not in states.intended:
        name = display_name(resource, item.source)
        action = Action(
            resource.name, source_id, name, UPDATE, dest_id=history.existing["id"],
            body={"project_id": item.dest_project_id}, existing=history.existing,
        )  # fmt: skip
        note_former(resource, states, action)
        catalog.histories.continued.add(source_id)


def _states_of(histories: Sequence[History]) -> List[ObjectStates]:
    return list({id(history.item.states): history.item.states for history in histories}.values())


# -- the order of versions


def _ready(catalog: Catalog, histories: Sequence[History]) -> List[History]:
    """Returns the histories whose references all resolve while they are written in order.

    What the others wait for is noted in `catalog.histories.waiting`. Objects that refer to each
    other are ready: no order would resolve all of their references.
    """
    ready = {history.source_id: history for history in histories}
    needed = {
        source_id: needed_first(catalog, history.resource, history.versions, ready)
        for source_id, history in ready.items()
    }
    while True:
        waiting: Dict[str, List[Unresolved]] = {}
        for source_id in ready:
            missing = [target for target in needed[source_id] if target.id not in ready]
            if missing:
                waiting[source_id] = missing
        if not waiting:
            return list(ready.values())
        catalog.histories.waiting.update(waiting)
        ready = {
            source_id: history for source_id, history in ready.items() if source_id not in waiting
        }


def waves(histories: Sequence[History]) -> Iterator[List[Version]]:
    """Yields all versions, in groups that need only versions of earlier groups.

    A version comes after the one before it of the same object, and after the versions that the
    objects to which it refers had at that time.
    """
    by_id = {history.source_id: history for history in histories}
    wave_of: Dict[str, int] = {}
    by_wave: Dict[int, List[Version]] = defaultdict(list)
    for version in _in_order(by_id):
        object_ids = (version.source_id, *version.refers)
        needed = [wave_of[object_id] for object_id in object_ids if object_id in wave_of]
        wave_of[version.source_id] = max(needed, default=-1) + 1
        by_wave[wave_of[version.source_id]].append(version)
    return (by_wave[number] for number in sorted(by_wave))


def _in_order(by_id: Mapping[str, History]) -> Iterator[Version]:
    """Yields all versions by their time in the source; before each one those to which it refers."""
    versions = [
        Version(history, number, _refers(history.versions[number], by_id) - {source_id})
        for source_id, history in by_id.items()
        for number in range(len(history.versions))
    ]
    # What exists in the destination can be referred to before its next version is written.
    first = {
        version.source_id: version
        for version in versions
        if version.number == 0 and not version.history.existing
    }
    entered: Set[Tuple[str, int]] = set()
    placed: Set[Tuple[str, int]] = set()
    for start in sorted(versions, key=lambda version: version.xact):
        waiting = [start]
        while waiting:
            version = waiting[-1]
            entered.add(version.place)
            before = [first[object_id] for object_id in sorted(version.refers & first.keys())]
            # A version that is entered and not placed needs this version itself: a cycle.
            before = [other for other in before if other.place not in entered | placed]
            if before:
                waiting.extend(before)
                continue
            waiting.pop()
            if version.place not in placed:
                placed.add(version.place)
                yield version


def _refers(version: Mapping[str, Any], by_id: Mapping[str, History]) -> Set[str]:
    """Returns the objects that a version names, in references and in the texts of queries."""
    named = (name for _, text in strings(version) for name in (text, *UUID.findall(text)))
    return {name for name in named if name in by_id}
