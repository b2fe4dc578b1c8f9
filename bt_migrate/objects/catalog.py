"""Both organizations as this run knows them: lists, natural keys, and which source id is which destination id.

Lists the source once per kind, the destination once per kind and project. An id that this run has not mapped is looked up in
the destination by natural key inside the matching project, so a phase that runs alone gives what the whole run would.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    FrozenSet,
    Iterable,
    List,
    Mapping,
    Optional,
    Tuple,
    TypeVar,
    Union,
)

from bt_migrate.api.client import Api
from bt_migrate.api.organization import NOT_THERE
from bt_migrate.config.settings import Settings
from bt_migrate.errors import ApiError, UsageError
from bt_migrate.model.resource import BY_PROJECT, Resource
from bt_migrate.model.resource_table import (
    CALLABLE,
    FUNCTIONS,
    PROJECTS,
    PROMPTS,
    USERS,
)
from bt_migrate.model.resources import BY_NAME, REFERABLE, UNMOVABLE_TARGETS
from bt_migrate.objects.decide import creation_order, natural_key
from bt_migrate.state.run_directory import RunDirectory, fingerprints_in, readable_runs_in

log = logging.getLogger("bt_migrate.catalog")

T = TypeVar("T")
PLANNED = "planned:"  # begins what stands for a destination id in a dry run: see `planned_id`


class Catalog:
    """Safe for many threads. `source` and `dest` are connected (their org_id is known)."""

    def __init__(self, source: Api, dest: Api, run: RunDirectory, settings: Settings) -> None:
        self.source, self.dest, self.run, self.settings = source, dest, run, settings
        self.unavailable: Dict[str, str] = {}  # resource -> why its list cannot be read
        self.refused: Dict[
            str, str
        ] = {}  # the same for kinds that the source has, or may have, and does not list
        self._lock = threading.RLock()
        self._lists: Dict[Tuple[str, str, str], Union[List[dict], ApiError]] = {}
        self._by_key: Dict[Tuple[str, str], Dict[tuple, dict]] = {}
        self._by_id: Dict[Tuple[str, str], Dict[str, dict]] = {}  # the same objects
        self._doubles: Dict[Tuple[str, str], List[dict]] = {}
        self._source_by_id: Dict[str, Dict[str, Optional[dict]]] = defaultdict(dict)
        self._twin_ids: Optional[Dict[str, str]] = None
        self._known: Optional[Dict[str, Tuple[str, ...]]] = None
        self._known_tails: Optional[FrozenSet[bytes]] = None
        self._mapping: Dict[str, Dict[str, str]] = defaultdict(dict)
        self._claims: Dict[str, str] = {}  # destination id -> source id
        self._fingerprints: Dict[str, Dict[str, List[str]]] = {}
        for states in run.all_objects():
            self._mapping[states.resource].update(states.id_mapping())
        # resource -> destination id -> the source object that it stands for
        self._held = defaultdict(
            dict,
            {
                name: {dest: source for source, dest in ids.items()}
                for name, ids in self._mapping.items()
            },
        )
        # (resource, source id) -> destination id of what earlier runs made and could not complete
        self.incomplete = {
            (states.resource, source_id): dest_id
            for earlier in readable_runs_in(run.path.parent)
            if earlier.record.waiting
            and earlier.path != run.path
            and earlier.same_pair(run.record, dry_run=False)
            for states in earlier.all_objects()
            for source_id, dest_id in states.deferred.items()
        }

    def last_fingerprints(self, resource: Resource, source_id: str) -> Optional[List[str]]:
        """[source's, destination's] content of an object as the newest run that knows it left it; None if none does."""
        with self._lock:
            if resource.name not in self._fingerprints:
                self._fingerprints[resource.name] = fingerprints_in(self.run, resource.name)
            return self._fingerprints[resource.name].get(source_id)

    def by_natural_key(self) -> Catalog:
        """Forget what runs have mapped: every counterpart is what carries the natural key now. For those who judge a run."""
        self._mapping.clear()
        self._held.clear()
        return self

    # -- lists

    def projects(self) -> List[dict]:
        """The selected source projects, oldest first, by their names in the destination.

        Raises UsageError for a name that the source does not have.
        """
        everything = self.source_list(PROJECTS)
        if not self.settings.projects:
            return everything
        old_names = {new: old for old, new in self.settings.rename_projects.items()}
        by_name = {
            old_names.get(project["name"], project["name"]): project for project in everything
        }
        refuse_unknown("--projects", self.settings.projects, by_name)
        return [project for name, project in by_name.items() if name in self.settings.projects]

    def source_list(self, resource: Resource) -> List[dict]:
        """All source objects of a kind in the whole organization, in creation order."""
        return self._list(self.source, resource)

    def source_objects(self, resource: Resource, project_id: str) -> List[dict]:
        """Those of one project. What appears as a prompt and as a function (they share one store) is moved once."""
        if resource.part_of:
            holders = self.source_list(BY_NAME[resource.part_of])
            return [holder for holder in holders if holder["id"] == project_id]
        objects = [one for one in self.source_list(resource) if one.get("project_id") == project_id]
        if resource.name in CALLABLE:
            twins = self._twins()
            objects = [
                one for one in objects if twins.get(one["id"], resource.name) == resource.name
            ]
        return objects

    def _twins(self) -> Dict[str, str]:
        """id -> the resource as which it is moved, for what is in both lists: a function if only a function's fields hold all
        of it.
        """
        if self._twin_ids is None:
            prompts = {one["id"] for one in self.source_list(PROMPTS)}
            both = [one for one in self.source_list(FUNCTIONS) if one["id"] in prompts]
            wide = {
                one["id"]: any(
                    one.get(name) for name in ("function_type", "origin", "function_schema")
                )
                for one in both
            }
            self._twin_ids = {
                one: FUNCTIONS.name if function else PROMPTS.name for one, function in wide.items()
            }
        return self._twin_ids

    def dest_objects(self, resource: Resource, project_id: str = "") -> List[dict]:
        """The destination's objects of a kind, of one project where the kind has projects."""
        if project_id.startswith(PLANNED):
            return []
        if resource.scope != "project":
            return self._list(self.dest, resource)
        objects = self._list(
            self.dest, resource, project_id if resource.listed == BY_PROJECT else ""
        )
        return [one for one in objects if one.get("project_id") == project_id]

    def prefetch(
        self,
        source: Iterable[Resource],
        dest: Iterable[Resource] = (),
        dest_projects: Iterable[str] = (),
    ) -> None:
        """Read these lists at once, as far as they were not read: those of the destination in these projects where the kind has
        projects. One that is refused says so to whoever asks for it.
        """
        wanted = [(self.source, one, "") for one in source]
        for one in dest:
            projects = (
                [project for project in dest_projects if not project.startswith(PLANNED)]
                if one.listed == BY_PROJECT
                else [""]
            )
            wanted += [(self.dest, one, project) for project in projects]
        missing = {
            (api.side, one.name, project): (api, one, project) for api, one, project in wanted
        }
        self.at_once(
            lambda where: self._read_list(*missing[where]),
            [where for where in missing if where not in self._lists],
        )

    def at_once(self, ask: Callable[[Any], T], things: Iterable[Any]) -> List[T]:
        """What is answered for each, in their order; as many at once as requests may be in flight to both organizations."""
        with ThreadPoolExecutor(2 * self.settings.max_concurrent, thread_name_prefix="ask") as pool:
            return list(pool.map(ask, things))

    def _list(self, api: Api, resource: Resource, project_id: str = "") -> List[dict]:
        """One list, read once. A kind that the server does not have is an empty list; `unavailable` says so."""
        where = (api.side, resource.name, project_id)
        if where not in self._lists:
            self._read_list(api, resource, project_id)
        found = self._lists[where]
        if isinstance(found, ApiError):
            raise found
        return found

    def _read_list(self, api: Api, resource: Resource, project_id: str) -> None:
        found: Union[List[dict], ApiError]
        params = {"project_id": project_id} if project_id else {}
        try:
            objects = api.list(
                resource.path, params, page_size=self.settings.batch_size if resource.paged else 0
            )
            found = creation_order(one for one in objects if not one.get("deleted_at"))
        except ApiError as error:
            found = error
            if error.status in NOT_THERE or (resource.beyond and error.status < 500):
                self.unavailable[resource.name] = f"{api.side} answered {error.status}"
                if api is self.source and error.status not in NOT_THERE:
                    self.refused[resource.name] = str(error)
                found = []
        else:
            if resource is PROJECTS and api is self.source:
                found = renamed(found, self.settings.rename_projects)
        with (
            self._lock
        ):  # two threads may have asked: the first answer stays, so that what is added to it stays
            self._lists.setdefault((api.side, resource.name, project_id), found)

    # -- destination by natural key

    def dest_by_key(self, resource: Resource, project_id: str = "") -> Dict[tuple, dict]:
        """natural key -> destination object, inside the project; kept up to date with what this run makes."""
        where = (resource.name, project_id)
        with self._lock:
            if where not in self._by_key:
                self.provide(resource, project_id, self.dest_objects(resource, project_id))
            return self._by_key[where]

    def dest_object(self, resource: Resource, project_id: str, dest_id: str) -> Optional[dict]:
        """The destination's object of that id, None where it is gone."""
        self.dest_by_key(resource, project_id)
        return self._by_id[resource.name, project_id].get(dest_id)

    def stands_for(self, resource: Resource, dest_id: str) -> Optional[str]:
        """The source id of the object whose counterpart it is known to be."""
        return self._held[resource.name].get(dest_id)

    def dest_doubles(self, resource: Resource, project_id: str = "") -> List[dict]:
        """Destination objects whose natural key an older one has."""
        self.dest_by_key(resource, project_id)
        return self._doubles[(resource.name, project_id)]

    def provide(self, resource: Resource, project_id: str, objects: List[dict]) -> None:
        """The destination's objects of a kind, oldest first; from outside for a kind that is listed per owner."""
        by_key: Dict[tuple, dict] = {}
        doubles = [
            one for one in objects if by_key.setdefault(natural_key(resource, one), one) is not one
        ]
        with self._lock:
            (
                self._by_key[(resource.name, project_id)],
                self._doubles[(resource.name, project_id)],
            ) = by_key, doubles
            self._by_id[resource.name, project_id] = {one["id"]: one for one in objects}

    def start_empty(self, project_id: str) -> None:
        """A project that was made a moment ago has nothing in it: no list is asked for."""
        with self._lock:
            for resource in BY_NAME.values():
                if resource.listed == BY_PROJECT:
                    self._lists.setdefault((self.dest.side, resource.name, project_id), [])

    def remember(
        self,
        resource: Resource,
        source_id: str,
        dest_object: Mapping[str, Any],
        project_id: str = "",
        *,
        left: bool = False,
    ) -> None:
        """A destination object that stands for a source object from now on. `left`: as it is; else by its new name, not the old one."""
        where, dest_id = (resource.name, project_id), dest_object["id"]
        with self._lock:
            self._mapping[resource.name][source_id] = dest_id
            self._held[resource.name][dest_id] = source_id
            if where in self._by_key:
                before = self._by_id[where].get(dest_id)
                if before and not left:
                    self._by_key[where].pop(natural_key(resource, before), None)
                self._by_key[where][natural_key(resource, dest_object)] = self._by_id[where][
                    dest_id
                ] = dict(dest_object)

    def forget(self, resource: Resource, source_id: str) -> None:
        """Nothing stands for the source object any more."""
        with self._lock:
            self._held[resource.name].pop(self._mapping[resource.name].pop(source_id, ""), None)

    def claim(self, dest_id: str, source_id: str) -> bool:
        """Whether no other source object has asked for this destination object before."""
        with self._lock:
            return self._claims.setdefault(dest_id, source_id) == source_id

    # -- references

    def resolve(self, targets: Tuple[str, ...], source_id: str) -> Optional[str]:
        """The destination id for a source id that is one of `targets`; None where there is none (yet)."""
        for target in targets:
            found = self._mapping[target].get(source_id) or self._look_up(target, source_id)
            if found:
                return found
        return None

    def _look_up(self, target: str, source_id: str) -> Optional[str]:
        if target == "organizations":
            return self.dest.org_id if source_id == self.source.org_id else None
        resource = BY_NAME.get(target)
        if resource is None:
            return None
        with self._lock:
            source = self.source_object(resource, source_id)
            if source is None:
                return None
            dest = self._counterpart(resource, source)
            if dest is None:
                return None
            self._mapping[target][source_id] = dest["id"]
            self._held[target][dest["id"]] = source_id
            return str(dest["id"])

    def _counterpart(self, resource: Resource, source: dict) -> Optional[dict]:
        project_id = ""
        if resource.scope == "project":
            found = self.resolve(("projects",), source["project_id"])
            if found is None or found.startswith(PLANNED):
                return None
            project_id = found
        dest = self.dest_by_key(resource, project_id).get(natural_key(resource, source))
        return (
            dest if dest and self.stands_for(resource, dest["id"]) in (None, source["id"]) else None
        )

    def source_object(self, resource: Resource, source_id: str) -> Optional[dict]:
        """The source object of that id, None if there is none (any more)."""
        with self._lock:
            by_id = self._source_by_id[resource.name]
            if not by_id:
                by_id.update((one["id"], one) for one in self._source_list_or_none(resource))
            return by_id.get(source_id)

    def _source_list_or_none(self, resource: Resource) -> List[dict]:
        try:
            return self.source_list(resource)
        except ApiError as error:  # a key that may not list users still moves the rest
            log.warning("source: %s cannot be listed (%s)", resource.name, error.status)
            self.unavailable[resource.name] = f"source answered {error.status}"
            return []

    def may_come(self, targets: Tuple[str, ...], source_id: str) -> bool:
        """Whether a reference that does not resolve can do so later: its target is there in the source and can be moved."""
        for target in targets:
            resource = BY_NAME.get(target)
            source = (
                self.source_object(resource, source_id)
                if resource and resource is not USERS
                else None
            )
            if resource and source and not resource.cannot_move(source):
                return True
        return False

    def cannot_come(self, targets: Tuple[str, ...], source_id: str) -> str:
        """Why by its nature the API cannot carry the target, "" where it could: then an unresolved reference is a failure."""
        if targets == ("users",):
            return "the destination has no user with that e-mail address"
        if UNMOVABLE_TARGETS & set(targets):
            return "playgrounds have no API"
        for target in targets:
            resource = BY_NAME.get(target)
            source = self.source_object(resource, source_id) if resource else None
            reason = resource.cannot_move(source) if resource and source else None
            if reason:
                return f"its target was not moved: {reason}"
        return ""

    def known(self) -> Mapping[str, Tuple[str, ...]]:
        """Every id of the source that other objects may hold -> the resources it may be."""
        if self._known is None:
            self.prefetch(REFERABLE)
        with self._lock:
            if self._known is None:
                known: Dict[str, Tuple[str, ...]] = {self.source.org_id: ("organizations",)}
                for resource in REFERABLE:
                    targets = CALLABLE if resource.name in CALLABLE else (resource.name,)
                    known.update(
                        (one["id"], targets) for one in self._source_list_or_none(resource)
                    )
                self._known = known
            return self._known

    def known_tails(self, head: int) -> FrozenSet[bytes]:
        """The known ids without their first `head` characters, encoded; built once for all streams."""
        known = self.known()
        with self._lock:
            if self._known_tails is None:
                self._known_tails = frozenset(one[head:].encode() for one in known)
            return self._known_tails


def renamed(projects: List[dict], new_names: Mapping[str, str]) -> List[dict]:
    """The source's projects by the names that they have in the destination: all that follows knows them by these.

    Raises UsageError for a name that the source does not have, and where two would be one: their objects would be mixed.
    """
    refuse_unknown("--rename-projects", new_names, [one["name"] for one in projects])
    result = [{**one, "name": new_names.get(one["name"], one["name"])} for one in projects]
    names = Counter(one["name"] for one in result)
    twice = next((name for name in new_names.values() if names[name] > 1), None)
    if twice is not None:
        olds = " and ".join(
            sorted(
                repr(one["name"])
                for one in projects
                if new_names.get(one["name"], one["name"]) == twice
            )
        )
        raise UsageError(
            f"--rename-projects: {olds} would both be {twice!r}; give each a name of its own"
        )
    return result


def refuse_unknown(option: str, names: Iterable[str], known: Collection[str]) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        raise UsageError(
            f"{option}: the source has no project {missing[0]!r}; it has: {', '.join(sorted(known)[:20]) or 'none'}"
        )


def planned_id(source_id: str) -> str:
    """Stands for the id that the destination will give. Without dashes: it must not be taken for a text that holds a source id."""
    return PLANNED + source_id.replace("-", "")
