"""Lookups over the table of resources, and the three kinds of rows. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Tuple

from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import ORGANIZATION, OWNER, Resource
from bt_migrate.model.resource_table import (
    CALLABLE,
    DATASETS,
    EXPERIMENTS,
    FUNCTIONS,
    OBJECT_RESOURCES,
    PROJECTS,
    PROMPTS,
    USERS,
)

BY_NAME: Mapping[str, Resource] = {
    resource.name: resource for resource in (*OBJECT_RESOURCES, USERS)
}
ROWS_WITHOUT_OBJECT = "logs"  # rows that have no object of their own: their project's

# The words of --resources in the order in which they move.
SELECTABLE: Tuple[str, ...] = tuple(
    name
    for resource in OBJECT_RESOURCES
    if resource is not PROJECTS
    for name in (resource.name, *((ROWS_WITHOUT_OBJECT,) if resource is EXPERIMENTS else ()))
)


_VERSIONED = [place for place, kind in enumerate(OBJECT_RESOURCES) if kind.versioned]
# The kinds that move after all kinds with versions.
AFTER_VERSIONED = frozenset(kind.name for kind in OBJECT_RESOURCES[max(_VERSIONED) + 1 :])


@dataclass(frozen=True)
class RowKind:
    """One of the three kinds of rows. The same engine reads, rewrites and inserts all of them."""

    # The word of --resources, and of btql.FROM_OF_KIND.
    name: str
    # The phase that moves them.
    phase: str
    # The documented insert endpoint, with {id} of the destination object.
    insert_path: str
    # What POST /v1/insert, which takes several objects, calls the kind.
    insert_key: str
    # The field of a row that is read that names its object.
    id_field: str
    # The folder of its checkpoints in the run directory; "" for the project's own file.
    folder: str
    # The infix of its MIGRATION_… settings.
    setting: str
    # The fields of a row that its insert endpoint takes.
    fields: Tuple[str, ...]

    def object_fields(self, object_id: str) -> Dict[str, str]:
        """The fields by which a row of POST /logs3 names its object."""
        log_id = {"log_id": "g"} if self.id_field == "project_id" else {}
        return {self.id_field: object_id, **log_id}


_ROW_FIELDS = (
    "id", "created", "input", "expected", "metadata", "tags", "origin", "facets", "span_id",
    "root_span_id", "span_parents",
)  # fmt: skip
_SPAN_FIELDS = (*_ROW_FIELDS, "output", "error", "scores", "metrics", "context", "span_attributes")

ROW_KINDS: Mapping[str, RowKind] = {
    "datasets": RowKind(
        "datasets", "migrate-datasets", "/v1/dataset/{id}/insert", "dataset", "dataset_id",
        "dataset_events", "DATASET_EVENTS", _ROW_FIELDS,
    ),
    "experiments": RowKind(
        "experiments", "migrate-experiments", "/v1/experiment/{id}/insert", "experiment",
        "experiment_id", "experiment_events", "EXPERIMENT_EVENTS", _SPAN_FIELDS,
    ),
    "logs": RowKind(
        "logs", "migrate-logs", "/v1/project_logs/{id}/insert", "project_logs", "project_id",
        "", "LOGS", _SPAN_FIELDS,
    ),
}  # fmt: skip

# Fields of a row that only the server writes and whose absence loses nothing.
ROW_SERVER_FIELDS = frozenset(
    (
        "_xact_id", "_pagination_key", "org_id", "project_id", "experiment_id", "dataset_id",
        "log_id", "is_root", "_async_scoring_state",
    )
)  # fmt: skip

# The resources that an `object_type` names, in ACLs, views, function origins and row origins
# (AclObjectType and ObjectReference).
TARGETS_OF_TYPE: Dict[str, Tuple[str, ...]] = {
    "organization": ("organizations",),
    "org_project": ("organizations",),  # all projects: the id is the organization's
    "org_member": ("organizations",),
    "org_audit_logs": ("organizations",),
    "project": ("projects",),
    "project_log": ("projects",),  # the id is the project's
    "project_logs": ("projects",),
    "experiment": ("experiments",),
    "dataset": ("datasets",),
    "prompt": CALLABLE,
    "function": CALLABLE,
    "mcp_server": ("mcp_servers",),
    "group": ("groups",),
    "role": ("roles",),
    "ai_secret": ("ai_secrets",),
    "org_ai_secret": ("organizations",),  # all AI secrets: the id is the organization's
    "org_account": ("organizations",),
    "prompt_session": ("playgrounds",),  # no endpoint: never resolved
    "project_group": ("project_groups",),
    "project_group_projects": ("project_groups",),
}

# Kinds of targets that are not moved -> why.
UNMOVABLE_TARGETS: Mapping[str, str] = {
    "playgrounds": "playgrounds have no API",
}


# Named by ACLs only, which look them up: their list is not needed by other kinds.
_NAMED_BY_ACLS_ONLY = ("ai_secrets", "project_groups")


def _referable() -> Tuple[Resource, ...]:
    named = {target for targets in TARGETS_OF_TYPE.values() for target in targets}
    for resource in OBJECT_RESOURCES:
        named.update(target for reference in resource.references for target in reference.to)
    return tuple(
        resource
        for resource in BY_NAME.values()
        if resource.name in named
        and resource.scope != OWNER
        and resource.name not in _NAMED_BY_ACLS_ONLY
    )


# The kinds whose ids other objects hold.
REFERABLE: Tuple[Resource, ...] = _referable()
# Those that rows name: in origins, prompts of spans, parents of spans, and assignments.
NAMED_BY_ROWS = (PROJECTS, DATASETS, FUNCTIONS, PROMPTS, EXPERIMENTS, USERS)


def kinds_of_phase(phase: str) -> List[Resource]:
    """Every kind that has objects which the phase moves, in the order of the table."""
    return [
        resource
        for resource in OBJECT_RESOURCES
        if phase in (resource.phase, resource.reacting_phase)
    ]


def moves_later(resource: Resource, phase: str, obj: JsonObject) -> bool:
    """Whether another phase, after the rows, moves an object of a kind of this phase."""
    return resource.reacting_phase not in ("", phase) and resource.reacts_to_data(obj)


def is_listed_alone(resource: Resource) -> bool:
    """Whether a list of its own holds the kind: it is neither listed by owner nor a part."""
    return resource.scope != OWNER and not resource.part_of


def refers_to_projects(resource: Resource) -> bool:
    """Whether objects of the organization as a whole hold ids of projects."""
    return is_of_organization(resource) and any(
        PROJECTS.name in reference.to for reference in resource.references
    )


def is_of_organization(resource: Resource) -> bool:
    """Whether the objects belong to the organization itself, and are no part of another kind."""
    return resource.scope == ORGANIZATION and not resource.part_of


def resource_around(resource: Resource) -> Resource:
    """The kind of the object that `inside` names."""
    return next(
        BY_NAME[reference.to[0]]
        for reference in resource.references
        if reference.path == resource.inside
    )


def kinds_listing(resource: Resource) -> List[Resource]:
    """The kinds whose lists may show an object of the kind: prompts and functions are one store."""
    return [BY_NAME[name] for name in CALLABLE if resource.name in CALLABLE] or [resource]


def pins_rows(resource: Resource) -> bool:
    """Whether objects of the kind may name a state of the rows of another object."""
    return any(set(pin.to) & set(ROW_KINDS) for pin in resource.pins)


def holder_of_rows(kind_name: str) -> Resource:
    """The kind of the objects that hold rows of a kind."""
    return BY_NAME.get(kind_name, PROJECTS)


def resources_by_phase() -> Dict[str, List[str]]:
    """Returns phase -> its resources, in the order in which phases run: what reacts to rows comes
    after them.
    """
    phases: Dict[str, List[str]] = {}
    for name in SELECTABLE:
        phase = BY_NAME[name].phase if name in BY_NAME else ROW_KINDS[name].phase
        phases.setdefault(phase, []).append(name)
    for resource in OBJECT_RESOURCES:
        if resource.reacting_phase:
            phases[resource.reacting_phase].append(resource.name)
    return phases
