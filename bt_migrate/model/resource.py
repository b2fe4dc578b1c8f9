"""What one row of the table of resources says: the records `Resource` and `Reference`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from bt_migrate.model.activation import acts_not
from bt_migrate.model.json_object import JsonObject

Predicate = Callable[[JsonObject], bool]
Bundle = Callable[[Mapping[str, Any]], Optional[Dict[str, Any]]]
Reason = Callable[[JsonObject], Optional[str]]
Words = Callable[[Mapping[str, Any]], Tuple[str, ...]]

# What an object belongs to.
ORGANIZATION = "organization"
PROJECT = "project"
OWNER = "owner"
# How a server lists a kind: all objects in one list, one list per project, one list per owner.
WHOLE = "whole"
BY_PROJECT = "by project"
BY_OWNER = "by owner"
# One list per project, whose id is in the path of every request.
IN_PROJECT = "in project"


def never(obj: JsonObject) -> bool:
    return False


def always(obj: JsonObject) -> bool:
    return True


def no_bundle(obj: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    return None


def no_reason(obj: JsonObject) -> Optional[str]:
    return None


@dataclass(frozen=True)
class Reference:
    """A place that holds the id of another object.

    `path` is dotted; `*` matches any key, `[]` any item. `to` are the resources to look in, in
    turn; `@field` means the kind that the sibling `field` names. `when` restricts the reference to
    holders whose sibling `type` has that value. `drop` says what is left out where the id cannot
    be resolved: the "field" itself, the "holder" that is useless without it, or the whole "item"
    of the list around it.
    """

    path: str
    to: Tuple[str, ...]
    drop: str = "field"
    when: Optional[str] = None
    # Values of the place that are words, not ids.
    words: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Pin:
    """A place that holds a version of another object: a transaction of the source.

    `path` as in Reference. `of` names the siblings that may hold the id of that object; an object
    of `to` may also be named by its slug and its project. `row` names the sibling with the id of
    the row of that object whose version it is.
    """

    path: str
    to: Tuple[str, ...]
    of: Tuple[str, ...] = ("id",)
    row: str = ""
    # Where earlier versions do not move: the latest version becomes the latest one.
    keeps_latest: bool = False


@dataclass(frozen=True)
class Resource:
    """One kind of object."""

    # The word of --resources, the word of the API, and the REST path, with {project_id} for
    # listed=IN_PROJECT.
    name: str
    kind: str
    path: str
    # organization | project | owner: what an object belongs to.
    scope: str
    # The natural key inside the scope. POST of an equal key creates no second object.
    key: Tuple[str, ...]
    # Fields of POST, without the id of the scope.
    create: Tuple[str, ...]
    # Upper and lower case do not count in the natural key; without a key there is no counterpart.
    folds_case: bool = False
    # The phase that moves the kind; "" for projects, which every phase finds or creates first.
    phase: str = ""
    # Objects that would score, alert, export or delete when rows arrive. They are created after
    # the rows: by `reacting_phase` where that is set, else by `phase`.
    reacts_to_data: Predicate = never
    reacting_phase: str = ""
    # The words of --activate without which an object is not created: it acts outside, or deletes.
    acts: Words = acts_not
    # POST names the organization by its id, where other kinds take its name.
    needs_org_id: bool = False
    # WHOLE | BY_PROJECT (the list documents a project_id parameter) | BY_OWNER (the list requires
    # object_type and object_id) | IN_PROJECT.
    listed: str = WHOLE
    # Whether the list documents limit and starting_after; where not, one answer holds all of it.
    paged: bool = True
    # PROJECT: the field that names the object around this one, where an object names no project
    # itself: it is in the project of that object.
    inside: str = ""
    # The resource that the object is a field of: listed with it, matched by its key, and written
    # by its PATCH, which replaces the whole field.
    part_of: str = ""
    # BY_OWNER: the object types that can own one, and those of them that a server may refuse to
    # list, which then own none.
    owner_types: Tuple[str, ...] = ()
    doubtful_owner_types: Tuple[str, ...] = ()
    # BY_OWNER: path of one list of all owners, for keys that may use it.
    list_all: str = ""
    # BY_OWNER: an owner's list is at path/{object_type}/{object_id}, an object below it by the last
    # field of its key, where PUT creates or replaces it.
    below_owner: bool = False
    # The kind without whose objects there are none of this kind: the last field of the natural key
    # is the key of one.
    needs_kind: str = ""
    # BY_OWNER: GET, PATCH and DELETE of an object also require object_type and object_id.
    names_owner: bool = False
    # The parameter by which the list finds a natural key, for kinds of which a POST overwrites or
    # hides an object with the same key: the key is looked up right before each POST.
    look_up_by: str = ""
    # The answer of a write is not the object as it is read: fields are missing, numbers differ.
    sparse_answer: bool = False
    # Fields of PATCH; () where there is none.
    patch: Tuple[str, ...] = ()
    # Fields that every PATCH must hold.
    patch_required: Tuple[str, ...] = ()
    # Fields of `create` that only PATCH takes: they are written after the object.
    patch_only: Tuple[str, ...] = ()
    # Those of `patch_only` that only an object of ours gets, if the destination takes them: in any
    # other object, any value is right.
    if_ours: Tuple[str, ...] = ()
    # Fields that the destination sets to its caller where the source has none: any value is right.
    callers: Tuple[str, ...] = ()
    # PUT on the same path creates or replaces by natural key.
    put: bool = False
    # Read-only fields that the destination sets itself, beyond SERVER_FIELDS.
    server: Tuple[str, ...] = ()
    # Fields that hold content and that no endpoint takes.
    unwritable: Tuple[str, ...] = ()
    # Values of read-only fields that say nothing; anything else there is a field not carried.
    server_values: Tuple[Tuple[str, Any], ...] = ()
    references: Tuple[Reference, ...] = ()
    # The finding for a version that the object needs and that the destination does not have.
    without_version: str = ""
    # Fields that the object needs if the source has them, references and pins: without one it would
    # mean another thing.
    needed: Tuple[str, ...] = ()
    # Paths of queries: ids in their text are replaced.
    queries: Tuple[str, ...] = ()
    # Paths that name a project, which may have another name in the destination.
    project_names: Tuple[str, ...] = ()
    # Versions of other objects: transactions of the source that mean nothing in the destination.
    pins: Tuple[Pin, ...] = ()
    # Every write of an object makes a version, which can be read and pinned.
    versioned: bool = False
    # Why the API cannot carry an object, or None.
    cannot_move: Reason = no_reason
    # Objects that every organization gets from the server: never created, never superfluous.
    servers_own: Predicate = never
    # The date window selects these objects by `created`.
    in_date_window: bool = False
    # The object gives somebody access: one too many in the destination is a security finding.
    grants_access: bool = False
    # A field that can be written and never read, and the one that shows whether it has a value.
    hidden_field: str = ""
    hidden_field_shown_by: str = ""
    # Paths whose values must not be written to a file, such as the address of a webhook.
    secret_paths: Tuple[str, ...] = ()
    # What of an object, or which objects, the API does not carry; for the manual. "" for nothing.
    not_carried: str = ""
    # The code bundle that an object needs, {bundle_id, runtime_context, …}: a person may have it.
    bundle: Bundle = no_bundle
    # What a person has to do for what the API does not carry.
    next_action: str = ""
    # Newer or plan-dependent kind: a server without it is not a failure, unless a person asked for
    # the kind by name or by the setting `asked_by`.
    beyond: bool = False
    asked_by: str = ""
    # Page of the API reference.
    page: str = ""

    @property
    def has_project_lists(self) -> bool:
        """Whether a list holds the objects of one project only."""
        return self.listed in (BY_PROJECT, IN_PROJECT)

    def path_in(self, project_id: str) -> str:
        """The path of the list, in the project where the path names one."""
        return self.path.replace("{project_id}", project_id)

    def path_of(self, object_id: str, project_id: str = "") -> str:
        return f"{self.path_in(project_id)}/{object_id}"

    def without_patch_only(self, body: Mapping[str, Any]) -> Dict[str, Any]:
        """Returns what POST and PUT take of a body."""
        return {name: value for name, value in body.items() if name not in self.patch_only}

    @property
    def key_holds_ids(self) -> bool:
        """Whether the natural key holds ids, which differ in the destination."""
        return any(reference.path in self.key for reference in self.references)
