"""The table of resources: what the API holds, how it is found, created and tied together. Data only.

Each row was checked by hand against the official OpenAPI document (create and patch fields, required fields, paths); where it is
knowingly different a comment says why. A new kind of object is a new row. API pages:
https://www.braintrust.dev/docs/reference/api/<page>.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

# Prompts and functions are one store in the API: an id of one may stand wherever an id of the other may.
CALLABLE = ("functions", "prompts")


@dataclass(frozen=True)
class Reference:
    """A place that holds the id of another object.

    `path` is dotted; `*` is any key, `[]` any item. `to` are the resources to look in, in turn; `@field` stands for the kind
    that the sibling `field` names. `when` restricts it to holders with that sibling `type`. Where the id cannot be resolved,
    `drop` says what is left out: the "field" itself, the "holder" that is useless without it, or the whole "item" of the list around it.
    """

    path: str
    to: Tuple[str, ...]
    drop: str = "field"
    when: Optional[str] = None


@dataclass(frozen=True)
class Resource:
    """One kind of object. `name` is the word of --resources, `kind` the API's word, `path` its REST path."""

    name: str
    kind: str
    path: str
    scope: str  # organization | project | object
    key: Tuple[
        str, ...
    ]  # natural key inside the scope; creating an equal one returns the existing object unmodified
    create: Tuple[str, ...]  # fields of POST, without the scope's id
    patch: Tuple[str, ...] = ()  # fields of PATCH; () where there is none
    put: bool = False  # PUT on the same path creates or replaces by natural key
    server: Tuple[
        str, ...
    ] = ()  # read-only fields that the destination makes anew, beyond SERVER_FIELDS
    references: Tuple[Reference, ...] = ()
    project_names: Tuple[
        str, ...
    ] = ()  # paths that name a project, which may have another name in the destination
    pins: Tuple[
        str, ...
    ] = ()  # paths of versions: transactions of the source that mean nothing in the destination
    project_filter: bool = False  # whether the list documents a project_id parameter
    paged: bool = (
        True  # whether the list documents limit and starting_after; it is whole where it does not
    )
    beyond: bool = False  # newer or plan-dependent kind: a server without it is no failure
    page: str = ""  # of the API reference


# Read-only in every kind: the server makes them. (`project_id` is the scope, sent from the mapping.)
SERVER_FIELDS = (
    "id",
    "created",
    "org_id",
    "user_id",
    "deleted_at",
    "project_id",
    "_xact_id",
    "log_id",
)

_PROMPT_REFERENCES = (
    Reference("prompt_data.tool_functions.[].id", CALLABLE, "holder", when="function"),
    Reference("prompt_data.tool_functions.[].project_id", ("projects",), "holder", when="slug"),
    Reference("prompt_data.mcp.*.id", ("mcp_servers",), "holder", when="id"),
    Reference("prompt_data.origin.prompt_id", CALLABLE, "holder"),
    Reference("prompt_data.origin.project_id", ("projects",), "holder"),
)
_PROMPT_PINS = ("prompt_data.tool_functions.[].version", "prompt_data.origin.prompt_version")

AI_SECRETS = Resource(
    "ai_secrets", "ai_secret", "/v1/ai_secret", "organization", ("name",),
    # `secret` is never sent: it cannot be read, and sending none keeps a value that somebody typed in.
    create=("name", "type", "metadata"), patch=("name", "type", "metadata"), put=True,
    server=("preview_secret", "updated_at", "secret_updated_at", "secret_updated_by_user_id", "secret_category"),
    page="AISecrets",
)  # fmt: skip
ROLES = Resource(
    "roles", "role", "/v1/role", "organization", ("name",),
    create=("name", "description", "member_permissions", "member_roles"),
    patch=("name", "description"),  # members are patched by add_member_roles: see `membership_patch`
    put=True, references=(Reference("member_roles.[]", ("roles",)),), page="Roles",
)  # fmt: skip
GROUPS = Resource(
    "groups", "group", "/v1/group", "organization", ("name",),
    create=("name", "description", "member_users", "member_groups"),
    patch=("name", "description"),
    put=True,
    references=(Reference("member_users.[]", ("users",)), Reference("member_groups.[]", ("groups",))),
    page="Groups",
)  # fmt: skip
ENVIRONMENTS = Resource(
    "environments", "environment", "/environment", "organization", ("slug",),  # this path has no /v1
    create=("name", "slug", "description"), patch=("name", "slug", "description"), paged=False, beyond=True, page="Environments",
)  # fmt: skip
PROJECTS = Resource(
    "projects", "project", "/v1/project", "organization", ("name",),
    create=("name", "description"), patch=("name", "description", "settings"),
    server=("settings",),  # moved by PROJECT_SETTINGS: POST does not take it
    page="Projects",
)  # fmt: skip
DATASETS = Resource(
    "datasets", "dataset", "/v1/dataset", "project", ("name",),
    create=("name", "description", "tags", "metadata"), patch=("name", "description", "tags", "metadata"),
    server=("url_slug",), project_filter=True, page="Datasets",
)  # fmt: skip
PROJECT_TAGS = Resource(
    "project_tags", "project_tag", "/v1/project_tag", "project", ("name",),
    create=("name", "description", "color"), patch=("name", "description", "color"), put=True,
    server=("position",),  # not creatable: kept by creating in the source's order
    project_filter=True, page="ProjectTags",
)  # fmt: skip
SPAN_IFRAMES = Resource(
    "span_iframes", "span_iframe", "/v1/span_iframe", "project", ("name",),
    create=("name", "url", "description", "post_message"), patch=("name", "url", "description", "post_message"), put=True,
    page="SpanIframes",
)  # fmt: skip
MCP_SERVERS = Resource(
    "mcp_servers", "mcp_server", "/v1/mcp_server", "project", ("name",),
    create=("name", "url", "description"), patch=("name", "url", "description"), put=True, beyond=True, page="McpServers",
)  # fmt: skip
AGENTS = Resource(
    "agents", "agent", "/v1/agent", "project", ("name",),
    create=("name", "description", "metadata"), patch=("name", "description", "metadata"), put=True,
    server=("slug", "kind"), beyond=True, page="Agents",
)  # fmt: skip
FUNCTIONS = Resource(
    "functions", "function", "/v1/function", "project", ("slug",),
    create=("name", "slug", "function_data", "description", "prompt_data", "tags", "function_type", "origin", "function_schema"),
    patch=("name", "description", "prompt_data", "function_data", "tags"), put=True,
    references=(
        *_PROMPT_REFERENCES,
        Reference("origin.object_id", ("@object_type",), "holder"),
        Reference("function_data.nodes.*.function.function_id", CALLABLE),
        Reference("function_data.nodes.*.function.id", CALLABLE),
        Reference("function_data.nodes.*.function.project_id", ("projects",)),
        Reference("function_data.nodes.*.function.prompt_session_id", ("playgrounds",)),
        Reference("function_data.preprocessor.id", CALLABLE, "holder", when="function"),
        Reference("function_data.topic_maps.*.[].topic_map_id", CALLABLE),
    ),
    project_names=("function_data.nodes.*.function.project_name",),
    pins=(
        *_PROMPT_PINS,
        "function_data.nodes.*.function.version",
        "function_data.preprocessor.version",
        "function_data.parameters_version",
    ),
    project_filter=True, page="Functions",
)  # fmt: skip
PROMPTS = Resource(
    "prompts", "prompt", "/v1/prompt", "project", ("slug",),
    create=("name", "slug", "description", "prompt_data", "tags", "function_type"),
    patch=("name", "slug", "description", "prompt_data", "tags"), put=True,
    server=("function_data",),  # the store's mark of a prompt, read only here
    references=_PROMPT_REFERENCES, pins=_PROMPT_PINS, project_filter=True, page="Prompts",
)  # fmt: skip
PROJECT_SCORES = Resource(
    "project_scores", "project_score", "/v1/project_score", "project", ("name",),
    create=("name", "score_type", "description", "categories", "config"),
    patch=("name", "description", "score_type", "categories", "config"), put=True,
    server=("position",),  # as in PROJECT_TAGS
    references=(
        Reference("config.online.scorers.[].id", CALLABLE, "holder", when="function"),
        Reference("config.online.scorers.[].project_id", ("projects",), "holder", when="slug"),
        Reference("config.visibility.users.[]", ("users",)),
        Reference("config.visibility.groups.[]", ("groups",)),
    ),
    pins=("config.online.scorers.[].version",),
    project_filter=True, page="ProjectScores",
)  # fmt: skip
EXPERIMENTS = Resource(
    "experiments", "experiment", "/v1/experiment", "project", ("name",),
    create=(
        "name", "description", "repo_info", "base_exp_id", "dataset_id", "dataset_version", "internal_metadata",
        "parameters_id", "parameters_version", "public", "metadata", "tags",
    ),  # never ensure_new: it would make a second experiment on a retry
    patch=(
        "name", "description", "repo_info", "base_exp_id", "dataset_id", "dataset_version", "internal_metadata",
        "parameters_id", "parameters_version", "public", "metadata", "tags",
    ),
    server=("commit",),  # taken from repo_info.commit
    references=(
        Reference("base_exp_id", ("experiments",)),
        Reference("dataset_id", ("datasets",)),
        Reference("parameters_id", CALLABLE),
    ),
    pins=("dataset_version", "parameters_version"),
    project_filter=True, page="Experiments",
)  # fmt: skip
VIEWS = Resource(
    "views", "view", "/v1/view", "object", ("object_type", "object_id", "view_type", "name"),
    create=("object_type", "object_id", "view_type", "name", "view_data", "options", "user_id"),
    patch=("object_type", "object_id", "view_type", "name", "view_data", "options", "user_id"), put=True,
    references=(
        Reference("object_id", ("@object_type",)),
        Reference("user_id", ("users",)),
        Reference("options.options.projectId", ("projects",)),
        Reference("options.projectId", ("projects",)),
    ),
    page="Views",
)  # fmt: skip
PROJECT_SETTINGS = Resource(
    # A part of its project: matched by the project's name, written by the project's PATCH.
    "project_settings", "project", "/v1/project", "organization", ("name",),
    create=("settings",), patch=("settings",), server=("name", "description"),
    references=(
        Reference("settings.baseline_experiment_id", ("experiments",)),
        Reference("settings.default_preprocessor.id", CALLABLE, "holder", when="function"),
    ),
    pins=("settings.default_preprocessor.version",),
    page="Projects",
)  # fmt: skip
PROJECT_AUTOMATIONS = Resource(
    "project_automations", "project_automation", "/v1/project_automation", "project", ("name",),
    create=("name", "description", "config"), patch=("name", "description", "config"), put=True,
    references=(
        Reference("config.facet_functions.[].id", CALLABLE, "holder", when="function"),
        Reference("config.topic_map_functions.[].function.id", CALLABLE, "item", when="function"),
        Reference("config.topic_map_function_ids.[]", CALLABLE),
        Reference("config.data_scope.experiment_id", ("experiments",)),
    ),
    pins=("config.facet_functions.[].version", "config.topic_map_functions.[].function.version"),
    beyond=True, page="ProjectAutomations",
)  # fmt: skip
ACLS = Resource(
    "acls", "acl", "/v1/acl", "object",
    ("object_type", "object_id", "user_id", "group_id", "permission", "restrict_object_type", "role_id"),
    create=("object_type", "object_id", "user_id", "group_id", "permission", "restrict_object_type", "role_id"),
    server=("_object_org_id",),
    references=(
        Reference("object_id", ("@object_type",)),
        Reference("user_id", ("users",)),
        Reference("group_id", ("groups",)),
        Reference("role_id", ("roles",)),
    ),
    page="Acls",
)  # fmt: skip
USERS = Resource("users", "user", "/v1/user", "organization", ("email",), create=(), page="Users")

# Every kind of object that is copied, in the order of the report. PROJECTS come first: they are found or made by whoever needs
# one.
OBJECT_RESOURCES: Tuple[Resource, ...] = (
    PROJECTS, AI_SECRETS, ROLES, GROUPS, ENVIRONMENTS, DATASETS, PROJECT_TAGS, SPAN_IFRAMES, MCP_SERVERS, AGENTS, FUNCTIONS, PROMPTS,
    PROJECT_SCORES, EXPERIMENTS, VIEWS, PROJECT_SETTINGS, PROJECT_AUTOMATIONS, ACLS,
)  # fmt: skip
BY_NAME: Mapping[str, Resource] = {one.name: one for one in (*OBJECT_RESOURCES, USERS)}

# The words of --resources in the order in which they move. `logs` are rows without an object of their own: the project's.
SELECTABLE: Tuple[str, ...] = (
    "ai_secrets", "roles", "groups", "environments", "datasets", "project_tags", "span_iframes", "mcp_servers", "agents", "functions",
    "prompts", "project_scores", "experiments", "logs", "views", "project_settings", "project_automations", "acls",
)  # fmt: skip


@dataclass(frozen=True)
class RowKind:
    """One of the three kinds of rows. All are read, rewritten and inserted by the same engine."""

    name: str  # the word of --resources, and of btql.FROM_OF_KIND
    insert_path: str  # of the documented insert endpoint, with {id} of the destination object
    insert_key: str  # what POST /v1/insert, which takes several objects, calls the kind
    id_field: str  # field of a row that is read that names its object
    folder: str  # of its checkpoints in the run directory; "" for the project's own file
    setting: str  # infix of its MIGRATION_… settings
    fields: Tuple[str, ...]  # what its insert endpoint takes of a row

    def object_fields(self, object_id: str) -> Dict[str, str]:
        """How a row of POST /logs3 names its object."""
        return {
            self.id_field: object_id,
            **({"log_id": "g"} if self.id_field == "project_id" else {}),
        }


_ROW_FIELDS = (
    "id", "created", "input", "expected", "metadata", "tags", "origin", "facets", "span_id", "root_span_id", "span_parents",
)  # fmt: skip
_SPAN_FIELDS = (*_ROW_FIELDS, "output", "error", "scores", "metrics", "context", "span_attributes")

ROW_KINDS: Mapping[str, RowKind] = {
    "datasets": RowKind(
        "datasets", "/v1/dataset/{id}/insert", "dataset", "dataset_id", "dataset_events", "DATASET_EVENTS", _ROW_FIELDS
    ),
    "experiments": RowKind(
        "experiments", "/v1/experiment/{id}/insert", "experiment", "experiment_id", "experiment_events", "EXPERIMENT_EVENTS", _SPAN_FIELDS
    ),
    "logs": RowKind("logs", "/v1/project_logs/{id}/insert", "project_logs", "project_id", "", "LOGS", _SPAN_FIELDS),
}  # fmt: skip

# Fields of a row that only the server writes and that say nothing which is lost without them.
ROW_SERVER_FIELDS = frozenset(
    (
        "_xact_id",
        "_pagination_key",
        "org_id",
        "project_id",
        "experiment_id",
        "dataset_id",
        "log_id",
        "is_root",
        "_async_scoring_state",
    )
)

# Which resources an `object_type` names, in ACLs, views, function origins and row origins (AclObjectType and ObjectReference).
TARGETS_OF_TYPE: Dict[str, Tuple[str, ...]] = {
    "organization": ("organizations",),
    "org_project": (
        "organizations",
    ),  # all projects of the organization: the id is the organization's
    "org_member": ("organizations",),
    "org_audit_logs": ("organizations",),
    "project": ("projects",),
    "project_log": ("projects",),  # the id is the project's
    "project_logs": ("projects",),
    "experiment": ("experiments",),
    "dataset": ("datasets",),
    "prompt": CALLABLE,
    "function": CALLABLE,
    "group": ("groups",),
    "role": ("roles",),
    "prompt_session": ("playgrounds",),  # no endpoint: never resolved
}

UNMOVABLE_TARGETS = frozenset(("playgrounds",))  # kinds that this API does not let anybody move


def function_cannot_move(obj: dict) -> Optional[str]:
    """Code bundles and topic maps live in the source's storage; the API has no way to read them."""
    data = obj.get("function_data") or {}
    if data.get("type") == "code" and (data.get("data") or {}).get("type") == "bundle":
        return "code bundle cannot be read through the API"
    if data.get("type") == "topic_map":
        return "topic map artefacts cannot be read through the API"
    return None


def role_cannot_move(obj: dict) -> Optional[str]:
    """A built-in role (org_id null) is the same in every organization; it is matched by name, never created."""
    return "built-in" if obj.get("org_id") is None else None


def automation_cannot_move(obj: dict) -> Optional[str]:
    """async_query automations are the server's own notes of asynchronous queries."""
    return (
        "made by the server for an asynchronous query"
        if (obj.get("config") or {}).get("event_type") == "async_query"
        else None
    )


def settings_cannot_move(obj: dict) -> Optional[str]:
    return (
        None
        if any(value is not None for value in (obj.get("settings") or {}).values())
        else "no settings"
    )


CANNOT_MOVE: Mapping[str, Callable[[dict], Optional[str]]] = {
    "functions": function_cannot_move,
    "roles": role_cannot_move,
    "project_automations": automation_cannot_move,
    "project_settings": settings_cannot_move,
}


def may_hold_secret(resource: Resource, obj: Mapping[str, Any]) -> bool:
    """Whether the object holds what must not lie in a file: whoever knows the address of a webhook can post to it."""
    action = (obj.get("config") or {}).get("action") if resource is PROJECT_AUTOMATIONS else None
    return isinstance(action, dict) and bool(action.get("url"))


def is_servers_own(resource_name: str, obj: dict) -> bool:
    """Whether every organization gets such an object from the server: nobody moves it, and none is too many."""
    return (
        resource_name in ("roles", "project_automations")
        and CANNOT_MOVE[resource_name](obj) is not None
    )


def reacts_to_data(resource_name: str, obj: dict) -> bool:
    """Whether it would score, alert, export or delete on rows that arrive: such things are created after the rows."""
    if resource_name == "project_scores":
        return obj.get("score_type") == "online" or bool((obj.get("config") or {}).get("online"))
    return resource_name == "project_automations"


# What must be done by a person because the API does not carry it: resource -> sentence.
NEXT_ACTION: Mapping[str, str] = {
    "ai_secrets": "type the secret in (Settings, AI providers): its value cannot be read through the API",
    "functions": "push the function's code again from its repository (braintrust push)",
}
