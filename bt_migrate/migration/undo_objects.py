"""The objects that a run created or updated, and what they are in the destination now.

Everything comes from the state of the run and from the destination; no request goes to the source.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Collection, Dict, Iterable, Iterator, List, Mapping, Sequence, Tuple

from bt_migrate.api.client import Api
from bt_migrate.config.settings import Settings
from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import CREATED, FAILED, OPEN_OUTCOMES, UPDATED
from bt_migrate.model.resource import IN_PROJECT, OWNER, PROJECT, Resource
from bt_migrate.model.resources import BY_NAME
from bt_migrate.objects.decide import differing, display_name, fingerprint, natural_key
from bt_migrate.objects.paths import list_of_owner
from bt_migrate.objects.version_content import holds_begun_version
from bt_migrate.report.display import ID_COLUMNS, quoted, wrapped
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory

OWNED_PAGE_SIZE = 1000
CHANGED_SINCE_RUN = "changed since the run"


@dataclass(frozen=True)
class CreatedObject:
    """An object that the run created.

    `left_as` is the fingerprint of what the run left. `reason` says why the object stays; "" if
    it is deleted. `rows_of_others`: rows in it that somebody else wrote last.
    """

    resource: Resource
    project: str
    name: str
    dest_id: str
    left_as: str
    owner: Tuple[str, ...] = ()
    reason: str = ""
    # its path in the destination, once it was read there
    path: str = ""
    rows_of_others: int = 0

    def __str__(self) -> str:
        return object_text(self.resource, self.project, self.name, self.dest_id)


@dataclass(frozen=True)
class UpdatedObject:
    """An object that the run updated.

    `content` is its former content, `existing` its content now, `fields` names what differs.
    """

    resource: Resource
    project: str
    name: str
    content: Dict[str, Any]
    existing: Dict[str, Any]
    fields: Sequence[str]

    def __str__(self) -> str:
        return object_text(self.resource, self.project, self.name, self.existing["id"])


class DestLists:
    """The destination's objects as they are now. Each list is read once, until it is forgotten.

    `projects`: the destination's projects of the run.
    """

    def __init__(self, dest: Api, page_size: int, projects: Collection[str]) -> None:
        self._dest = dest
        self._page_size = page_size
        self._projects = sorted(projects)
        # id of an object whose path names its project -> that project
        self._places: Dict[str, str] = {}
        self._by_path: Dict[str, List[JsonObject]] = {}

    def objects(
        self, resource: Resource, owners: Iterable[Tuple[str, ...]] = ()
    ) -> Dict[str, JsonObject]:
        """Returns id -> object of a kind. Of a kind listed by owner, only those of `owners`."""
        if resource.scope != OWNER:
            return {obj["id"]: obj for obj in self.of_kind(resource)}
        return {obj["id"]: obj for owner in owners for obj in self.of_owner(resource, owner)}

    def of_kind(self, resource: Resource) -> List[JsonObject]:
        if resource.path not in self._by_path:
            objects = self._list(resource)
            self._by_path[resource.path] = [obj for obj in objects if not obj.get("deleted_at")]
        return self._by_path[resource.path]

    def _list(self, resource: Resource) -> List[JsonObject]:
        page_size = self._page_size if resource.paged else 0
        if resource.listed != IN_PROJECT:
            return list(self._dest.list(resource.path, page_size=page_size))
        objects = []
        for project in self._projects:
            try:
                listed = list(self._dest.list(resource.path_in(project), page_size=page_size))
            except ApiError as error:
                if error.status >= 500:
                    raise
                continue  # the project is gone
            self._places.update((obj["id"], project) for obj in listed)
            objects += [{"project_id": project, **obj} for obj in listed]
        return objects

    def project_of(self, resource: Resource, dest_id: str) -> str:
        """Returns the project that the path of the object names, "" if it names none."""
        return self._places.get(dest_id, "") if resource.listed == IN_PROJECT else ""

    def of_owner(self, resource: Resource, owner: Tuple[str, ...]) -> List[JsonObject]:
        """Returns the objects of one owner; none if the owner was deleted."""
        path, params = list_of_owner(resource, owner)
        page_size = OWNED_PAGE_SIZE if resource.paged else 0
        try:
            objects = list(self._dest.list(path, params, page_size=page_size))
        except ApiError as error:
            if error.status >= 500:
                raise
            return []
        return [obj for obj in objects if not obj.get("deleted_at")]

    def forget(self) -> None:
        self._by_path.clear()


@dataclass
class UndoContext:
    """Everything an undo needs. `remaining` collects lines about what stays.

    `began` and `written_until`: unix seconds of the destination's clock; the run wrote nothing
    before the first and after the second. `last_start`: when its last start began. `again`: an
    earlier undo of the run deleted some of it
    already. `deleted`: a kind of object or of rows -> how many are or would be deleted.
    """

    dest: Api
    run: RunDirectory
    settings: Settings
    lists: DestLists
    began: float
    written_until: float
    last_start: float
    again: bool = False
    remaining: List[str] = field(default_factory=list)
    deleted: Counter[str] = field(default_factory=Counter)
    # Destination id of an object that the run created -> its rows, which are deleted with it.
    held_rows: Dict[str, int] = field(default_factory=dict)

    def say_done(self, verb: str, what: str) -> None:
        """Print what is done, or, without --yes, would be done."""
        self.say(f"{verb if self.settings.yes else f'would {verb}'}: {what}")

    def say(self, line: str) -> None:
        """Print a line for a person; with --json or --quiet only the result is printed."""
        if not (self.settings.json or self.settings.quiet):
            print("\n".join(wrapped(line, first="")))


def object_text(resource: Resource, project: str, name: str, dest_id: str) -> str:
    place = f" of {quoted(project)}" if project else ""
    return f"{resource.name} {quoted(name)}{place} [{dest_id[:ID_COLUMNS]}]"


def reason_to_leave(resource: Resource, left_as: str, existing: Mapping[str, Any]) -> str:
    """Returns why an object is not what the run left, "" if it is."""
    if existing.get(resource.hidden_field_shown_by):
        return "its value was typed in since the run"
    return "" if fingerprint(resource, existing) == left_as else CHANGED_SINCE_RUN


# -- created


def created_objects(context: UndoContext) -> List[CreatedObject]:
    """Returns every object that the run created, also those that were deleted since."""
    by_id: Dict[Tuple[str, str], CreatedObject] = {}
    for states in context.run.all_objects():
        for created in _created(context, states):
            # What a list lacked may have been about to be created again.
            by_id.setdefault((created.resource.name, created.dest_id), created)
    return list(by_id.values())


def _created(context: UndoContext, states: ObjectStates) -> Iterator[CreatedObject]:
    resource = BY_NAME[states.resource]
    outcomes = states.over_all_rounds()
    for source_id, entry in [*outcomes.items(), *states.unlisted.items()]:
        if entry.outcome == CREATED:
            left_as = states.fingerprints.get(source_id, ["", ""])[1]
            yield CreatedObject(
                resource, states.project, entry.name, entry.dest_id, left_as, tuple(entry.owner)
            )
    for source_id in states.intended:
        # the process was killed, or the server failed, before the outcome was known
        if source_id not in outcomes or outcomes[source_id].outcome in OPEN_OUTCOMES:
            yield from _created_by_intent(context, resource, states, source_id)


def _created_by_intent(
    context: UndoContext, resource: Resource, states: ObjectStates, source_id: str
) -> Iterator[CreatedObject]:
    """Returns the object that was about to be created, if it exists."""
    intent = states.intended[source_id]
    key = tuple(intent.key)
    owner = key[:2] if resource.scope == OWNER else ()
    for obj in context.lists.objects(resource, [owner] if owner else ()).values():
        named = resource.scope == PROJECT and not resource.inside
        inside = not named or obj.get("project_id") == intent.project
        if inside and natural_key(resource, obj) == key:
            name = display_name(resource, obj)
            left_as = intent.fingerprint
            if holds_begun_version(resource, states, source_id, obj):
                left_as = fingerprint(resource, obj)
            yield CreatedObject(resource, states.project, name, obj["id"], left_as, owner)


def existing_objects(
    context: UndoContext, resource: Resource, created: Iterable[CreatedObject]
) -> Dict[str, JsonObject]:
    """Returns id -> object, of the created objects of one kind that still exist."""
    owners = {obj.owner for obj in created if obj.owner}
    there = context.lists.objects(resource, owners)
    if resource.part_of:
        # A part without content was never created.
        return {dest_id: obj for dest_id, obj in there.items() if not resource.cannot_move(obj)}
    return there


# -- updated


def updated_objects(context: UndoContext) -> List[UpdatedObject]:
    """Yields every updated object that exists and differs from what it was before the run.

    An object that was also changed after the run is noted as left, unless --changed was given.
    """
    return [
        updated for states in context.run.all_objects() for updated in _updated(context, states)
    ]


def _updated(context: UndoContext, states: ObjectStates) -> Iterator[UpdatedObject]:
    if not states.former:
        return
    resource = BY_NAME[states.resource]
    contents = [former.content for former in states.former.values()]
    owners = {
        (content["object_type"], content["object_id"])
        for content in contents
        if "object_type" in content
    }
    there = context.lists.objects(resource, owners)
    for source_id, former in states.former.items():
        existing = there.get(former.id)
        fields = differing(resource, former.content, existing) if existing else ()
        if not existing or not fields:
            continue
        content = former.content
        updated = UpdatedObject(resource, states.project, former.name, content, existing, fields)
        left_as = {former.fingerprint, *states.fingerprints.get(source_id, [])[1:]}
        is_left = fingerprint(resource, existing) in left_as
        is_left = is_left or holds_begun_version(resource, states, source_id, existing)
        if is_left or context.settings.changed:
            yield updated
        else:
            context.remaining.append(f"{updated}: {CHANGED_SINCE_RUN}")


def note_unknown_updates(context: UndoContext) -> None:
    """Report the updated objects whose former content was not kept."""
    for states in context.run.all_objects():
        for source_id, entry in states.over_all_rounds().items():
            if entry.outcome == UPDATED and source_id not in states.former:
                text = object_text(BY_NAME[states.resource], "", entry.name, entry.dest_id)
                context.remaining.append(f"{text}: updated; what it was is not known")


def note_doubtful(context: UndoContext) -> None:
    """Report the objects that count as found, and that nothing proves to be older than the run."""
    for states in context.run.all_objects():
        entries = states.over_all_rounds().values()
        doubtful = [entry for entry in entries if entry.in_doubt and entry.outcome != FAILED]
        if not doubtful:
            continue
        resource = BY_NAME[states.resource]
        there = context.lists.objects(resource, {tuple(entry.owner) for entry in doubtful})
        for entry in doubtful:
            if entry.dest_id in there:
                text = object_text(resource, states.project, entry.name, entry.dest_id)
                context.remaining.append(
                    f"{text}: the run may have created it; delete it if nobody else did"
                )
