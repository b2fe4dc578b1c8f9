"""The targets of references in objects and rows: the destination id for a source id.

An id that this run has not mapped is looked up in the destination by natural key inside the
matching project, so that a phase that runs alone resolves the same references as the whole run.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Mapping, Optional, Tuple

from bt_migrate.errors import ApiError
from bt_migrate.model.findings import NOT_A_MEMBER
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import NOT_KNOWN_THERE
from bt_migrate.model.resource import OWNER, PROJECT, Pin, Resource
from bt_migrate.model.resource_table import CALLABLE, PROJECTS, USERS
from bt_migrate.model.resources import BY_NAME, REFERABLE, UNMOVABLE_TARGETS
from bt_migrate.objects.decide import NaturalKey, natural_key
from bt_migrate.objects.dest_index import DestIndex
from bt_migrate.objects.id_mapping import EarlierRuns, IdMapping
from bt_migrate.objects.lists import PLANNED, Lists
from bt_migrate.objects.user_map import shown_address

ORGANIZATIONS = "organizations"
UNKNOWN_KIND = "it names a kind of object that this version does not know"


@dataclass
class Targets:
    """Safe for many threads."""

    lists: Lists
    index: DestIndex
    ids: IdMapping
    earlier: EarlierRuns
    lock: threading.RLock
    _known_ids: Optional[Dict[str, Tuple[str, ...]]] = None
    _known_tails: Optional[FrozenSet[bytes]] = None

    def resolve(self, targets: Tuple[str, ...], source_id: str) -> Optional[str]:
        """Returns the destination id of an id that is one of `targets`, None without one."""
        for target in targets:
            dest_id = self.ids.dest_id(target, source_id) or self._look_up(target, source_id)
            if dest_id:
                return dest_id
        return None

    def pinned(self, pin: Pin, holder: Mapping[str, Any]) -> Optional[str]:
        """Returns the source id of the object whose version the pin names."""
        ids = [holder[name] for name in pin.of if isinstance(holder.get(name), str)]
        if ids:
            return str(ids[0])
        slug, project_id = holder.get("slug"), holder.get("project_id")
        if not slug:
            return None
        if not project_id:
            projects = self.lists.source_list_or_empty(PROJECTS)
            names = {project["name"]: project["id"] for project in projects}
            project_id = names.get(holder.get("project_name"))
        for target in pin.to:
            for obj in self.lists.source_list_or_empty(BY_NAME[target]):
                if (obj.get("slug"), obj.get("project_id")) == (slug, project_id):
                    return str(obj["id"])
        return None

    def _look_up(self, target: str, source_id: str) -> Optional[str]:
        if target == ORGANIZATIONS:
            is_ours = source_id == self.lists.source.org_id
            return self.lists.dest.org_id if is_ours else None
        resource = BY_NAME.get(target)
        if resource is None:
            return None
        # Without the lock: both may ask a server.
        source = self.lists.source_object(resource, source_id)
        if source is None and resource.scope == OWNER:
            # The phase of this kind, such as views, may have run before, in another run.
            return self.earlier.dest_id(target, source_id)
        try:
            dest = self._counterpart(resource, source) if source else None
        except ApiError as error:
            # A key that may not list the destination's users moves the rest.
            if resource is not USERS or error.status >= 500:
                raise
            dest = None
        if dest is None:
            return None
        with self.lock:
            if self.ids.source_id(target, dest["id"]) not in (None, source_id):
                return None  # another thread has mapped it to another object
            self.ids.put(target, source_id, dest["id"])
            return str(dest["id"])

    def _counterpart(self, resource: Resource, source: JsonObject) -> Optional[JsonObject]:
        """Returns the destination's object with this natural key, unless another object has it."""
        if resource.folds_case and not all(map(source.get, resource.key)):
            return None
        project_id = ""
        if resource.scope == PROJECT:
            source_project = self.lists.project_id_of(resource, source)
            project_id = self.resolve((PROJECTS.name,), source_project) or PLANNED
            if project_id.startswith(PLANNED):
                return None
        try:
            return self.namesake(resource, project_id, natural_key(resource, source), source["id"])
        except ApiError as error:
            self.lists.refuse(resource, error)
            return None

    def namesake(
        self, resource: Resource, dest_project_id: str, key: NaturalKey, source_id: str
    ) -> Optional[JsonObject]:
        """Returns the destination's object with the natural key, or the one that an earlier run
        created for the source object and somebody renamed.

        None if another object of the source is mapped to it.
        """
        dest = self.index.by_key(resource, dest_project_id).get(key)
        dest_id = "" if dest else self.earlier.dest_id(resource.name, source_id)
        if dest_id and dest_id in self.earlier.created(resource.name):
            dest = self.index.object(resource, dest_project_id, dest_id)
        mapped = self.ids.source_id(resource.name, dest["id"]) if dest else None
        return dest if mapped in (None, source_id) else None

    def may_resolve_later(self, targets: Tuple[str, ...], source_id: str) -> bool:
        """Whether an unresolved reference can resolve later: its target exists and can move."""
        for target in targets:
            if self.lists.is_awaited(target):
                return True
            resource = BY_NAME.get(target)
            if resource is None or resource is USERS or target in self.lists.unknown_there:
                continue
            source = self.lists.source_object(resource, source_id)
            if source is None and resource.scope == OWNER and not self._phase_is_done(resource):
                return True
            if source and not resource.cannot_move(source):
                return True
        return False

    def _phase_is_done(self, resource: Resource) -> bool:
        """Whether the phase of a kind ended in this run: only that phase lists some kinds."""
        return resource.phase in self.earlier.run.record.phases_done

    def may_be_added(self, targets: Tuple[str, ...], source_id: str) -> bool:
        """Whether an unresolved reference can resolve later, even if only because a person acts.

        For example, somebody invites the user, or pushes the code of a function.
        """
        return self.may_resolve_later(targets, source_id) or any(
            self.lists.source_object(BY_NAME[target], source_id) is not None
            for target in targets
            if target in BY_NAME
        )

    def reason_not_movable(self, targets: Tuple[str, ...], source_id: str) -> str:
        """Returns why the API cannot carry the target, "" if it could.

        Without a reason, the unresolved reference is a failure.
        """
        if not targets:
            return UNKNOWN_KIND
        if any(map(self.lists.is_awaited, targets)):
            return ""
        refused = [target for target in targets if target in self.lists.refusals]
        if targets == (USERS.name,):
            user = self.lists.source_object(USERS, source_id) or {}
            return f"{shown_address(user) or source_id}{NOT_A_MEMBER}"
        for target in targets:
            if target in UNMOVABLE_TARGETS:
                return UNMOVABLE_TARGETS[target]
            if target in self.lists.unknown_there:
                return f"its target was not moved: {NOT_KNOWN_THERE}"
            resource = BY_NAME.get(target)
            source = self.lists.source_object(resource, source_id) if resource else None
            reason = resource.cannot_move(source) if resource and source else None
            if reason:
                return f"its target was not moved: {reason}"
        return (
            f"{' and '.join(refused)} were left out; the key may not list them" if refused else ""
        )

    def is_lost(self, targets: Tuple[str, ...], source_id: str) -> bool:
        """Whether the target is missing in the source: its lists are complete and lack it.

        It was deleted, or the key of the source may not see it.
        """
        resources = [BY_NAME.get(target) for target in targets]
        return bool(resources) and all(
            resource is not None
            and resource is not USERS
            and self.lists.source_object(resource, source_id) is None
            and resource.name not in self.lists.unavailable
            and (resource.scope != OWNER or self._is_listed_whole(resource))
            for resource in resources
        )

    def _is_listed_whole(self, resource: Resource) -> bool:
        """Whether this run has listed all objects of a kind that its own phase lists."""
        settings, record = self.lists.settings, self.earlier.run.record
        is_whole = settings.selects(resource.name) and not settings.selects_projects
        return (
            is_whole and self._phase_is_done(resource) and not record.not_listed.get(resource.name)
        )

    def known_ids(self) -> Mapping[str, Tuple[str, ...]]:
        """Returns each source id that other objects may contain -> the resources it can be of."""
        if self._known_ids is None:
            self.lists.prefetch(REFERABLE)
            # Without the lock: a list that was not read yet is asked for.
            resources_of_id: Dict[str, Tuple[str, ...]] = {
                self.lists.source.org_id: (ORGANIZATIONS,)
            }
            for resource in REFERABLE:
                targets = CALLABLE if resource.name in CALLABLE else (resource.name,)
                for obj in self.lists.source_list_or_empty(resource):
                    resources_of_id[obj["id"]] = targets
            with self.lock:
                if self._known_ids is None:
                    self._known_ids = resources_of_id
        return self._known_ids

    def known_tails(self, head: int) -> FrozenSet[bytes]:
        """The known ids without their first `head` characters, encoded; built once."""
        resources_of_id = self.known_ids()
        with self.lock:
            if self._known_tails is None:
                self._known_tails = frozenset(
                    source_id[head:].encode() for source_id in resources_of_id
                )
            return self._known_tails
