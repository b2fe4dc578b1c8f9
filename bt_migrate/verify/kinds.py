"""Compare the objects of all selected kinds: the lists of each kind, project and owner."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from bt_migrate.errors import NOT_THERE, ApiError
from bt_migrate.migration.context import Migration, ProjectPair
from bt_migrate.migration.kind_steps import is_beyond_key
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import ORGANIZATION, OWNER, Resource
from bt_migrate.model.resource_table import OBJECT_RESOURCES, PROJECTS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.lists import Refusal, planned_id, refusal_of
from bt_migrate.objects.owned import (
    OwnerGroup,
    ProjectPlace,
    list_dest_group,
    list_source_group,
    only_owners_of,
    owner_groups,
)
from bt_migrate.objects.pins import read_version_lists
from bt_migrate.objects.prepare import PlannedObject
from bt_migrate.state.accepted import Accepted
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.verify.objects import KindComparer
from bt_migrate.verify.pairs import (
    BothAttachments,
)
from bt_migrate.verify.result import (
    CANNOT_MOVE,
    UNREADABLE,
    Comparison,
    ReportDifference,
)
from bt_migrate.verify.traces import SourceTraces


class ReportTo(NamedTuple):
    """Where differences are reported, and which of them were accepted."""

    report: ReportDifference
    accepted: Accepted


@dataclass(frozen=True)
class ObjectComparison:
    """Compares the objects of all selected kinds."""

    migration: Migration
    attachments: BothAttachments
    report_to: ReportTo
    traces: SourceTraces

    def compare_all(self, scopes: Sequence[ProjectPair]) -> Iterator[Comparison]:
        """Yields a comparison for each kind and project."""
        lists = self.migration.catalog.lists
        if self.migration.catalog.settings.history:
            places = [(scope.source["id"], scope.dest_id or "") for scope in scopes]
            read_version_lists(self.migration.catalog, places)
        yield self._compare(PROJECTS, None, lambda: [scope.source for scope in scopes])
        for resource in OBJECT_RESOURCES:
            if resource is PROJECTS or not self.migration.settings.selects(resource.name):
                continue
            if resource.scope == OWNER:
                for scope, objects in _by_owners(self.migration.catalog, resource, scopes):
                    yield self._compare(resource, scope, objects)
            elif resource.scope == ORGANIZATION and not resource.part_of:
                yield self._compare(resource, None, partial(lists.source_list, resource))
            else:
                for scope in scopes:
                    objects = partial(lists.source_objects, resource, scope.source["id"])
                    yield self._compare(resource, scope, objects)

    def _compare(
        self,
        resource: Resource,
        scope: Optional[ProjectPair],
        objects: Callable[[], List[JsonObject]],
    ) -> Comparison:
        """Compare a kind, which is unreadable if a list is refused. Server errors are raised."""
        catalog, scope_name = self.migration.catalog, scope.name if scope else ""
        result = Comparison(resource.name, scope_name, *self.report_to)
        try:
            # Only names the project; never saved.
            states = ObjectStates(self.migration.run.path / "none", resource.name, scope_name)
            dest_project = _place_in_dest(scope) if scope else ""
            refusal_count = len(catalog.lists.refusals.get(resource.name, ()))
            items = [PlannedObject(source, states, dest_project) for source in objects()]
            for refusal in catalog.lists.refusals.get(resource.name, [])[refusal_count:]:
                _add_refusal(self.migration, resource, result, refusal)
            comparer = KindComparer(catalog, resource, self.attachments, result, self.traces)
            comparer.compare(items, extras_in=self._extras_in(resource, scope))
        except ApiError as error:
            if error.status >= 500:
                raise
            _add_refusal(self.migration, resource, result, refusal_of(error))
        return result

    def _extras_in(self, resource: Resource, scope: Optional[ProjectPair]) -> Optional[str]:
        """Returns where extra objects are searched: the `extras_in` of `KindComparer.compare`."""
        if resource.list_all:
            return ""
        if scope:
            return scope.dest_id
        # With --projects only some of the organization's own objects are expected.
        return None if self.migration.settings.selects_projects else ""


def _add_refusal(
    migration: Migration, resource: Resource, result: Comparison, refusal: Refusal
) -> None:
    """Count a refused list: what this key cannot see, and lists that hold nothing of the source,
    leave nothing unproven.
    """
    error = refusal.error
    holds_nothing = refusal.place or _is_not_needed(migration, resource, error)
    if holds_nothing and error.side == migration.catalog.dest.side:
        result.tolerated["not_listed"] += 1
        return
    outcome = CANNOT_MOVE if is_beyond_key(migration, resource, refusal) else UNREADABLE
    name = refusal.name_of(resource)
    detail = f"not listed: {error.side} answered {error.status} to {error.path}"
    result.add(outcome, id="", name=name, detail=detail)


def _is_not_needed(migration: Migration, resource: Resource, error: ApiError) -> bool:
    """Whether a server, or what is in front of it, lacks a kind of which the source has none."""
    is_lacking = resource.beyond and error.status in NOT_THERE
    return is_lacking and not migration.catalog.lists.source_list_or_empty(resource)


def _place_in_dest(scope: ProjectPair) -> str:
    """The project's id in the destination; an id that no project has if it is missing there."""
    return scope.dest_id or planned_id(scope.source["id"])


def _by_owners(
    catalog: Catalog, resource: Resource, scopes: Sequence[ProjectPair]
) -> Iterator[Tuple[Optional[ProjectPair], Callable[[], List[JsonObject]]]]:
    """Yields (project, function that lists the objects there) of a kind that is listed by owner.

    A refused list of owners is raised by the function, as a refused list of objects is.
    """
    places = [(scope.source["id"], _place_in_dest(scope), scope.name) for scope in scopes]
    by_name = {scope.name: scope for scope in scopes}
    try:
        groups = owner_groups(catalog, resource, places)
    except ApiError:
        yield None, partial(_objects_of_all_owners, catalog, resource, places)
        return
    for group in groups:
        yield by_name.get(group.project), partial(_objects_of_owners, catalog, resource, group)


def _objects_of_all_owners(
    catalog: Catalog, resource: Resource, places: Sequence[ProjectPlace]
) -> List[JsonObject]:
    groups = owner_groups(catalog, resource, places)
    return [obj for group in groups for obj in _objects_of_owners(catalog, resource, group)]


def _objects_of_owners(catalog: Catalog, resource: Resource, group: OwnerGroup) -> List[JsonObject]:
    """The source's objects of some owners; the destination's are those of their counterparts."""
    objects = list_source_group(catalog, resource, group)
    owning = set(only_owners_of(group, objects).owners)
    others = [owner for owner in group.owners if owner not in owning]
    there = list_dest_group(catalog, resource, group, others)
    catalog.index.provide(resource, group.dest_project_id, there)
    return objects
