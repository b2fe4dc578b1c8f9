"""The lists of both organizations; each is read once.

Owns the objects as the servers listed them, and which kinds a server did not list. The source is
listed once per kind; the destination once per kind, and per project if the API can filter.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
    Union,
)

from bt_migrate.api.client import Api
from bt_migrate.config.settings import Settings
from bt_migrate.errors import NOT_THERE, ApiError, UsageError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import IN_PROJECT, OWNER, PROJECT, Resource
from bt_migrate.model.resource_table import CALLABLE, FUNCTIONS, PROJECTS, PROMPTS, USERS
from bt_migrate.model.resources import BY_NAME, NAMED_BY_ROWS, resource_around
from bt_migrate.model.selection import chosen, meant_or_allowed, unmatched
from bt_migrate.objects.decide import creation_order
from bt_migrate.objects.listed_fields import usable_objects
from bt_migrate.objects.user_map import mapped_users
from bt_migrate.report.display import and_more

log = logging.getLogger("bt_migrate.catalog")

T = TypeVar("T")
ListKey = Tuple[str, str, str]  # (side, resource, project id or "")

# Prefix of placeholder ids in a dry run: see `planned_id`.
PLANNED = "planned:"
# what a start shows while it reads lists
LISTS_READ = "lists read"
# Fields that only a function has, to decide what an object in both lists is.
FUNCTION_ONLY_FIELDS = ("function_type", "origin", "function_schema")
PROMPT_MARK = {"type": "prompt"}
# How many names of projects an error shows.
NAMES_SHOWN = 20
# refused lists of a kind that are shown one by one
REFUSALS_SHOWN = 3


def planned_id(source_id: str) -> str:
    """Returns the placeholder for an id that the destination has not assigned yet.

    It has no dashes, so that it is not taken for a text that contains a source id.
    """
    return PLANNED + source_id.replace("-", "")


@dataclass(frozen=True)
class Refusal:
    """A list that a server refused. `place`: the owner whose list it is, "" for all objects."""

    place: str
    error: ApiError
    # The key has no right to read it, so for this key there is nothing to move.
    lacks_right: bool

    def name_of(self, resource: Resource) -> str:
        """`views of project 1f0e…`, or the kind for a list of all its objects"""
        return f"{resource.name} of {self.place}" if self.place else resource.name


def refusal_of(error: ApiError, place: str = "") -> Refusal:
    return Refusal(place, error, error.status in (400, 403) and not error.is_page)


@dataclass
class Lists:
    """Safe for many threads. Both clients are connected: their org_id is known."""

    source: Api
    dest: Api
    settings: Settings
    lock: threading.RLock = field(default_factory=threading.RLock)
    # resource -> why it is not listed: the server does not have it, or refuses the list
    unavailable: Dict[str, str] = field(default_factory=dict)
    # kinds that the server of the destination does not have
    unknown_there: Set[str] = field(default_factory=set)
    # what a server has, or may have, and does not list: resource -> refused lists
    refusals: Dict[str, List[Refusal]] = field(default_factory=dict)
    # A comparison raises where the source refuses a list; a migration goes on with the other kinds.
    strict: bool = False
    _lists: Dict[ListKey, Union[List[JsonObject], ApiError]] = field(default_factory=dict)
    # resource -> id -> object
    _source_by_id: Dict[str, Dict[str, JsonObject]] = field(default_factory=dict)
    # (resource, id) -> source object of a kind that is listed by owner
    _owned: Dict[Tuple[str, str], JsonObject] = field(default_factory=dict)
    _twin_kinds: Optional[Dict[str, str]] = None
    _only_functions: Optional[List[JsonObject]] = None

    # -- the source

    def projects(self) -> List[JsonObject]:
        """Returns the selected source projects, oldest first, with their names in the destination.

        Raises UsageError for a name that the source does not have.
        """
        projects = self.source_list(PROJECTS)
        if not projects:
            raise UsageError(
                f"source: the key sees no project in {self.source.display_name};"
                " use a key that may read the projects"
            )
        if not self.settings.selects_projects:
            return projects
        old_names = {new: old for old, new in self.settings.rename_projects.items()}
        by_name = {
            old_names.get(project["name"], str(project["name"])): project for project in projects
        }
        wanted = self.settings.projects
        excluded = self.settings.exclude_projects
        refuse_unknown("--projects", wanted, by_name)
        refuse_unknown("--exclude-projects", excluded, by_name)
        return [by_name[name] for name in chosen(by_name, wanted, excluded)]

    def is_selected(self, project_id: str) -> bool:
        """Whether the source project is selected; true without a selection."""
        if not self.settings.selects_projects:
            return True
        return any(project["id"] == project_id for project in self.projects())

    def source_list(self, resource: Resource) -> List[JsonObject]:
        """Returns all source objects of a kind in the whole organization, in creation order.

        Prompts include those that only the list of functions shows.
        """
        objects = self._list(self.source, resource)
        if resource is not PROMPTS or PROMPTS.name in self.unavailable:
            return objects
        return [*objects, *self._unlisted_prompts(objects)]

    def source_objects(self, resource: Resource, project_id: str) -> List[JsonObject]:
        """Returns the source objects of one project.

        An object that is listed as a prompt and as a function (the API stores both together) is
        moved once.
        """
        if resource.part_of:
            holders = self.source_list(BY_NAME[resource.part_of])
            return [holder for holder in holders if holder["id"] == project_id]
        if resource.inside:
            around = self.source_objects(resource_around(resource), project_id)
            return _inside(resource, self.source_list(resource), around)
        objects = [obj for obj in self.source_list(resource) if obj.get("project_id") == project_id]
        if resource.name in CALLABLE:
            twins = self._twins()
            objects = [
                obj for obj in objects if twins.get(obj["id"], resource.name) == resource.name
            ]
        return objects

    def source_object(self, resource: Resource, source_id: str) -> Optional[JsonObject]:
        """Returns the source object of that id, None if it does not exist.

        Of a kind that is listed by owner, only the objects passed to `note_owned` are known.
        """
        if resource.scope == OWNER:
            return self._owned.get((resource.name, source_id))
        # Without the lock: a list that was not read yet is asked for.
        by_id = self._source_by_id.get(resource.name)
        if not by_id:
            by_id = {obj["id"]: obj for obj in self.source_list_or_empty(resource)}
            self._source_by_id[resource.name] = by_id
        return by_id.get(source_id)

    def project_id_of(self, resource: Resource, source: Mapping[str, Any]) -> str:
        """Returns the source project of an object of a project, "" if what is around it is gone."""
        if not resource.inside:
            return str(source["project_id"])
        around = resource_around(resource)
        holder = self.source_object(around, source[resource.inside])
        return self.project_id_of(around, holder) if holder else ""

    def note_owned(self, resource: Resource, objects: Iterable[JsonObject]) -> None:
        """Remember source objects of a kind that is listed by owner."""
        with self.lock:
            self._owned.update(((resource.name, obj["id"]), obj) for obj in objects)

    def source_list_or_empty(self, resource: Resource) -> List[JsonObject]:
        """Returns the list, [] if it is refused: a key that may not list users moves the rest."""
        try:
            return self.source_list(resource)
        except ApiError as error:
            self.refuse(resource, error)
            return []

    def _unlisted_prompts(self, prompts: Sequence[JsonObject]) -> List[JsonObject]:
        """Returns the plain prompts of the list of functions that are not among `prompts`."""
        if self._only_functions is None:
            ids = {prompt["id"] for prompt in prompts}
            try:
                functions = self._list(self.source, FUNCTIONS)
            except ApiError:
                functions = []
            marked = [obj for obj in functions if obj.get("function_data") == PROMPT_MARK]
            self._only_functions = [
                obj for obj in marked if obj["id"] not in ids and kind_of_twin(obj) == PROMPTS.name
            ]
        return self._only_functions

    def _twins(self) -> Dict[str, str]:
        """Returns id -> the resource as which it is moved, of the objects in both lists.

        Where the source refuses one of the lists, each object of the other one may be in both.
        """
        if self._twin_kinds is None:
            prompts, functions = self.source_list(PROMPTS), self.source_list(FUNCTIONS)
            if self.unavailable.keys() & set(CALLABLE):
                twins = [*prompts, *functions]
            else:
                ids = {prompt["id"] for prompt in prompts}
                twins = [function for function in functions if function["id"] in ids]
            self._twin_kinds = {obj["id"]: kind_of_twin(obj) for obj in twins}
        return self._twin_kinds

    # -- the destination

    def dest_objects(self, resource: Resource, project_id: str = "") -> List[JsonObject]:
        """Returns the destination's objects of a kind; of one project if the kind has projects."""
        if project_id.startswith(PLANNED):
            return []
        if resource.scope != PROJECT:
            return self._list(self.dest, resource)
        if resource.inside:
            around = self.dest_objects(resource_around(resource), project_id)
            return _inside(resource, self._list(self.dest, resource), around)
        listed_for = project_id if resource.has_project_lists else ""
        objects = self._list(self.dest, resource, listed_for)
        return [obj for obj in objects if obj.get("project_id") == project_id]

    def forget_dest(self, resource: Resource) -> None:
        """List a kind of the destination again when it is needed next."""
        with self.lock:
            self._lists.pop((self.dest.side, resource.name, ""), None)

    def start_empty(self, project_id: str) -> None:
        """Record that a destination project was just created: its lists are empty.

        Lists of kinds that a server may lack are read all the same: only its answer says that.
        """
        with self.lock:
            for resource in BY_NAME.values():
                if resource.has_project_lists and not resource.beyond:
                    self._lists.setdefault((self.dest.side, resource.name, project_id), [])

    # -- reading

    def prefetch(
        self,
        source: Iterable[Resource],
        dest: Iterable[Resource] = (),
        dest_projects: Iterable[str] = (),
        *,
        note_read: Callable[[], None] = lambda: None,
    ) -> None:
        """Read these lists concurrently, unless they have been read; `note_read` after each.

        Lists of the destination are read in `dest_projects` if the kind is listed by project. A
        refused list is reported to the caller that needs it.
        """
        projects = [project for project in dest_projects if not project.startswith(PLANNED)]
        wanted = [(self.source, resource, "") for resource in source]
        for resource in dest:
            places = projects if resource.has_project_lists else [""]
            wanted += [(self.dest, resource, project) for project in places]
        missing = {
            key: (api, resource, project)
            for api, resource, project in wanted
            for key in [(api.side, resource.name, project)]
            if key not in self._lists
        }

        def read(key: Tuple[str, str, str]) -> None:
            self._read_list(*missing[key])
            note_read()

        self.at_once(read, missing)

    def at_once(self, ask: Callable[[Any], T], inputs: Iterable[Any]) -> List[T]:
        """Returns the answers in the order of `inputs`.

        As many are requested concurrently as requests may be in flight to both organizations.
        """
        workers = 2 * self.settings.max_concurrent
        with ThreadPoolExecutor(workers, thread_name_prefix="ask") as pool:
            return list(pool.map(ask, inputs))

    def _list(self, api: Api, resource: Resource, project_id: str = "") -> List[JsonObject]:
        """Returns a list, which is read once. Raises the ApiError with which reading ended."""
        key = (api.side, resource.name, project_id)
        if key not in self._lists:
            self._read_list(api, resource, project_id)
        listed = self._lists[key]
        if isinstance(listed, ApiError):
            raise listed
        return listed

    def _read_list(self, api: Api, resource: Resource, project_id: str) -> None:
        """Read and keep a list. Raises Interrupted once somebody asked for the end."""
        api.check()
        listed: Union[List[JsonObject], ApiError]
        params = {"project_id": project_id} if project_id else {}
        page_size = self.settings.batch_size if resource.paged else 0
        try:
            if resource.listed == IN_PROJECT:
                objects = self._list_in_projects(api, resource, project_id)
            else:
                objects = list(api.list(resource.path, params, page_size=page_size))
            objects = usable_objects(api, resource, objects)
            listed = creation_order(obj for obj in objects if not obj.get("deleted_at"))
            if resource is PROJECTS and api is self.source:
                listed = renamed(listed, self.settings.rename_projects)
            if resource is USERS and api is self.source:
                listed = mapped_users(listed, self.settings.user_map)
        except ApiError as error:
            listed = self._without_list(api, resource, error)
        # Two threads may have read it: the first list stays, because objects may have been added to
        # it.
        with self.lock:
            self._lists.setdefault((api.side, resource.name, project_id), listed)

    def _list_in_projects(self, api: Api, resource: Resource, project_id: str) -> List[JsonObject]:
        """Returns the objects of one project, or of all selected source projects, from a list each.

        The first is read before the others, so that a server without the kind is asked once.
        """

        def of_project(owner: str) -> List[JsonObject]:
            api.check()
            path = resource.path_in(owner)
            listed = api.list(path, page_size=self.settings.batch_size if resource.paged else 0)
            return [{"project_id": owner, **obj} for obj in listed]

        projects = [project_id] if project_id else [obj["id"] for obj in self.projects()]
        first = [of_project(owner) for owner in projects[:1]]
        lists = [*first, *self.at_once(of_project, projects[1:])]
        # callers reverse the list, oldest first
        return [obj for objects in reversed(lists) for obj in objects]

    def _without_list(
        self, api: Api, resource: Resource, error: ApiError
    ) -> Union[List[JsonObject], ApiError]:
        """Returns [] for a list that the source refuses and for a kind that a server lacks.

        Raises the error if nothing can be done without the list: the projects of the source, and
        the lists of the destination.
        """
        if self.is_not_there(resource, error):
            return []
        is_needed = self.strict and not self._never_comes(resource.name, refusal_of(error))
        if resource is PROJECTS or api is not self.source or is_needed or error.status == 401:
            return error
        self.refuse(resource, error)
        return []

    def is_not_there(self, resource: Resource, error: ApiError) -> bool:
        """Whether an older server lacks a newer kind, which is recorded then."""
        # Only the API's own answer says that it has no such kind: a gateway may not know the path.
        from_gateway = error.is_page and not error.lacks_route
        if not resource.beyond or error.status not in NOT_THERE or from_gateway:
            return False
        with self.lock:
            if resource.name not in self.unavailable:
                words = (error.side, resource.name, error.status)
                log.debug("%s: this server has no %s (%s)", *words)
            self.unavailable[resource.name] = f"{error.side} answered {error.status}"
        if error.side == self.dest.side:
            self.unknown_there.add(resource.name)
        return True

    def refuse(self, resource: Resource, error: ApiError, place: str = "") -> None:
        """Record that a server refused a list: of all objects, or of one owner."""
        refusal = refusal_of(error, place)
        with self.lock:
            refusals = self.refusals.setdefault(resource.name, [])
            if (place, str(error)) in [(other.place, str(other.error)) for other in refusals]:
                return
            alike = [other for other in refusals if other.error.status == error.status]
            refusals.append(refusal)
            if not place and error.side == self.source.side:
                self.unavailable[resource.name] = f"source answered {error.status}"
        of_place = f" of {place}" if place else ""
        # A line for each owner would hide everything else. In the destination, lists of single
        # owners matter to the comparison only.
        is_needed = not place or error.side == self.source.side
        is_shown = is_needed and len(alike) < REFUSALS_SHOWN
        level = logging.WARNING if is_shown else logging.DEBUG
        words = (error.side, resource.name, of_place, error)
        log.log(level, "%s: %s%s cannot be listed: %s", *words)
        if is_needed and len(alike) == REFUSALS_SHOWN:
            log.warning("further lists of %s cannot be read either; run.log has all", resource.name)

    def is_awaited(self, name: str) -> bool:
        """Whether a list of the kind is refused that may come."""
        return name in self.refusals and not self.is_left_out(name)

    def is_left_out(self, name: str) -> bool:
        """Whether --exclude-resources names a kind that the key may not list: it never comes."""
        refusals = self.refusals.get(name, [])
        return bool(refusals) and all(self._never_comes(name, refusal) for refusal in refusals)

    def _never_comes(self, name: str, refusal: Refusal) -> bool:
        return refusal.lacks_right and name in self.settings.exclude_resources

    def missing_for_rows(self) -> Optional[ApiError]:
        """Returns why rows cannot be copied yet: a kind that rows name is not listed.

        Its ids could not be recognized in the rows, and would not be found later. A kind that is
        not selected, or that this key may never list, does not keep rows waiting.
        """
        for resource in NAMED_BY_ROWS:
            for refusal in self.refusals.get(resource.name, ()):
                selected = resource is USERS or self.settings.selects(resource.name)
                for_good = refusal.lacks_right and (resource is USERS or resource.beyond)
                if selected and not for_good:
                    return _because_of(resource, refusal.error)
        return None


def kind_of_twin(obj: Mapping[str, Any]) -> str:
    """Returns `functions` if only a function has all fields of the object, else `prompts`."""
    is_function = any(obj.get(name) for name in FUNCTION_ONLY_FIELDS)
    if is_function or obj.get("function_data") not in (None, PROMPT_MARK):
        return FUNCTIONS.name
    return PROMPTS.name


def _inside(
    resource: Resource, objects: Iterable[JsonObject], around: Iterable[JsonObject]
) -> List[JsonObject]:
    """Returns the objects of a kind that belong to one of those in `around`."""
    ids = {obj["id"] for obj in around}
    return [obj for obj in objects if obj[resource.inside] in ids]


def _because_of(resource: Resource, error: ApiError) -> ApiError:
    because = ApiError(error.route, error.status, error.body)
    because.args = (
        f"rows may refer to {resource.name}, which cannot be listed (use a key that may list them,"
        f" or move the rows without: --exclude-resources {resource.name}): {error}",
    )
    return because


def renamed(projects: List[JsonObject], new_names: Mapping[str, str]) -> List[JsonObject]:
    """Returns the source's projects with the names that they get in the destination.

    Raises UsageError for a name that the source does not have, and if two projects would have one
    name: their objects would be mixed.
    """
    refuse_unknown("--rename-projects", new_names, [project["name"] for project in projects])
    result = [
        {**project, "name": new_names.get(project["name"], project["name"])} for project in projects
    ]
    names = Counter(project["name"] for project in result)
    twice = next((name for name in new_names.values() if names[name] > 1), None)
    if twice is not None:
        olds = [repr(old["name"]) for old, new in zip(projects, result) if new["name"] == twice]
        raise UsageError(
            f"--rename-projects: {' and '.join(sorted(olds))} would both be {twice!r};"
            " give each a name of its own"
        )
    return result


def refuse_unknown(option: str, names: Iterable[str], project_names: Collection[str]) -> None:
    missing = unmatched(names, project_names)
    if missing:
        names_in_order = sorted(project_names)
        there = ", ".join(names_in_order[:NAMES_SHOWN]) or "none"
        there = f"it has: {and_more(there, len(names_in_order) - NAMES_SHOWN)}"
        hint = meant_or_allowed(missing[0], project_names, there)
        raise UsageError(f"{option}: the source has no project {missing[0]!r}{hint}")
