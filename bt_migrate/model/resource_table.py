"""The table of resources: every kind of object that the API holds, one row a kind. Data only.

A row says how a kind is listed, which phase moves it, what identifies an object, which fields are
written, which hold ids and versions, and what cannot be read. Validation, phases, plan,
verification and undo iterate over the rows, so a new kind needs no code of its own.

Each row was checked by hand against the official OpenAPI document (fields of POST and PATCH,
required fields, paths); a comment says why where it differs on purpose. API pages:
https://www.braintrust.dev/docs/reference/api/<page>.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Tuple

from bt_migrate.model.activation import acts_outside
from bt_migrate.model.json_object import JsonObject, object_at
from bt_migrate.model.resource import (
    BY_OWNER,
    BY_PROJECT,
    IN_PROJECT,
    ORGANIZATION,
    OWNER,
    PROJECT,
    Pin,
    Reference,
    Resource,
    always,
)

# Prompts and functions are one store in the API: an id of one is accepted where the other is.
# assumption: slugs_of_prompts_and_functions
CALLABLE = ("functions", "prompts")
# Why a built-in role is skipped: it is matched by name, never created.
BUILT_IN = "built-in"


def code_bundle(obj: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    """{bundle_id, runtime_context, location, …} of a function whose code is a bundle."""
    function_data = object_at(obj, "function_data")
    data = function_data.get("data") if function_data.get("type") == "code" else None
    return data if isinstance(data, dict) and data.get("type") == "bundle" else None


def function_cannot_move(obj: JsonObject) -> Optional[str]:
    """Code bundles and topic maps are in the source's storage, which the API does not expose."""
    if code_bundle(obj):
        return "code bundle cannot be read through the API"
    if object_at(obj, "function_data").get("type") == "topic_map":
        return "topic map artefacts cannot be read through the API"
    return None


# assumption: built_in_roles_belong_to_nobody
def is_built_in(obj: JsonObject) -> bool:
    """Built-in roles (org_id null) are the same in every organization: matched, never created."""
    return obj.get("org_id") is None


def role_cannot_move(obj: JsonObject) -> Optional[str]:
    return BUILT_IN if is_built_in(obj) else None


def is_async_query(obj: JsonObject) -> bool:
    """Whether the automation is one in which the server keeps an asynchronous query."""
    return object_at(obj, "config").get("event_type") == "async_query"


def automation_cannot_move(obj: JsonObject) -> Optional[str]:
    return "made by the server for an asynchronous query" if is_async_query(obj) else None


def settings_cannot_move(obj: JsonObject) -> Optional[str]:
    settings = object_at(obj, "settings").values()
    return None if any(value is not None for value in settings) else "no settings"


def is_online_score(obj: JsonObject) -> bool:
    return obj.get("score_type") == "online" or bool(object_at(obj, "config").get("online"))


# Read-only in every kind: set by the server. (`project_id` is the scope, sent from the mapping.)
SERVER_FIELDS = (
    "id", "created", "org_id", "user_id", "deleted_at", "project_id", "_xact_id", "log_id",
)  # fmt: skip

_PROMPT_REFERENCES = (
    Reference("prompt_data.tool_functions.[].id", CALLABLE, "holder", when="function"),
    Reference("prompt_data.tool_functions.[].project_id", ("projects",), "holder", when="slug"),
    Reference("prompt_data.mcp.*.id", ("mcp_servers",), "holder", when="id"),
    Reference("prompt_data.origin.prompt_id", CALLABLE, "holder"),
    Reference("prompt_data.origin.project_id", ("projects",), "holder"),
    Reference("prompt_data.preprocessor.id", CALLABLE, "holder", when="function"),
)
_PROMPT_PINS = (
    Pin("prompt_data.tool_functions.[].version", CALLABLE),
    Pin("prompt_data.origin.prompt_version", CALLABLE, of=("prompt_id",)),
    Pin("prompt_data.preprocessor.version", CALLABLE),
)

AI_SECRETS = Resource(
    "ai_secrets", "ai_secret", "/v1/ai_secret", ORGANIZATION, ("name",),
    phase="migrate-organization",
    create=("name", "type", "metadata"), patch=("name", "type", "metadata"), put=True,
    server=(
        "preview_secret", "updated_at", "secret_updated_at", "secret_updated_by_user_id",
        "secret_category",
    ),
    # `secret` is never sent: it cannot be read, and without it a PUT keeps what a person entered.
    hidden_field="secret", hidden_field_shown_by="preview_secret",
    next_action=(
        "type the secret in (Settings, AI providers): its value cannot be read through the API"
    ),
    not_carried="its value",
    page="AISecrets",
)  # fmt: skip
# assumption: roles_keep_their_permissions
ROLES = Resource(
    "roles", "role", "/v1/role", ORGANIZATION, ("name",),
    phase="migrate-organization",
    create=("name", "description", "member_permissions", "member_roles"),
    patch=("name", "description"),  # members: add_member_roles, see `membership_patch`
    put=True, references=(Reference("member_roles.[]", ("roles",)),),
    cannot_move=role_cannot_move, servers_own=is_built_in, page="Roles",
)  # fmt: skip
# assumption: groups_show_their_members
GROUPS = Resource(
    "groups", "group", "/v1/group", ORGANIZATION, ("name",),
    phase="migrate-organization",
    create=("name", "description", "member_users", "member_groups"),
    patch=("name", "description"),
    put=True,
    references=(
        Reference("member_users.[]", ("users",)),
        Reference("member_groups.[]", ("groups",)),
    ),
    sparse_answer=True,
    not_carried="members who are not in the destination, until they are invited",
    page="Groups",
)  # fmt: skip
ENVIRONMENTS = Resource(
    "environments", "environment", "/environment", ORGANIZATION, ("slug",),  # this path has no /v1
    phase="migrate-organization",
    create=("name", "slug", "description"), patch=("name", "slug", "description"),
    paged=False, beyond=True, page="Environments",
)  # fmt: skip
PROJECTS = Resource(
    "projects", "project", "/v1/project", ORGANIZATION, ("name",),
    create=("name", "description", "user_id"),
    patch=("name", "description", "settings", "user_id"),
    patch_only=("user_id",), if_ours=("user_id",),
    server=("settings",),  # moved by PROJECT_SETTINGS: POST does not take it
    references=(Reference("user_id", ("users",)),),
    not_carried="its user, until that is a member of the destination",
    page="Projects",
)  # fmt: skip
PROJECT_GROUPS = Resource(
    "project_groups", "project_group", "/v1/project_group", ORGANIZATION, ("name",),
    phase="migrate-organization",
    create=("name", "description", "member_projects"),
    patch=("name", "description"), patch_only=("member_projects",),
    references=(Reference("member_projects.[]", ("projects",)),),
    beyond=True, page="ProjectGroups",
)  # fmt: skip
# assumption: datasets_have_tags
DATASETS = Resource(
    "datasets", "dataset", "/v1/dataset", PROJECT, ("name",),
    phase="migrate-datasets",
    create=("name", "description", "tags", "metadata"),
    patch=("name", "description", "tags", "metadata"),
    server=("url_slug",), listed=BY_PROJECT,
    not_carried="earlier states, without --dataset-versions",
    page="Datasets",
)  # fmt: skip
DATASET_SNAPSHOTS = Resource(
    "dataset_snapshots", "dataset_snapshot", "/v1/dataset_snapshot", PROJECT,
    ("dataset_id", "name"),
    phase="migrate-datasets", inside="dataset_id",
    create=("dataset_id", "name", "description", "xact_id"), patch=("name", "description"),
    put=True,
    references=(Reference("dataset_id", ("datasets",)),),
    pins=(Pin("xact_id", ("datasets",), of=("dataset_id",)),),
    needed=("dataset_id", "xact_id"), without_version="state_not_there",
    beyond=True, asked_by="dataset_versions",
    not_carried="those of earlier states, without --dataset-versions",
    page="DatasetSnapshots",
)  # fmt: skip
PROJECT_TAGS = Resource(
    "project_tags", "project_tag", "/v1/project_tag", PROJECT, ("name",),
    phase="migrate-definitions",
    create=("name", "description", "color"), patch=("name", "description", "color"), put=True,
    server=("position",),  # not creatable: kept by creating in the source's order
    listed=BY_PROJECT,
    not_carried="its position, kept by creating in order",
    page="ProjectTags",
)  # fmt: skip
SPAN_IFRAMES = Resource(
    "span_iframes", "span_iframe", "/v1/span_iframe", PROJECT, ("name",),
    phase="migrate-definitions",
    create=("name", "url", "description", "post_message"),
    patch=("name", "url", "description", "post_message"), put=True,
    page="SpanIframes",
)  # fmt: skip
MCP_SERVERS = Resource(
    "mcp_servers", "mcp_server", "/v1/mcp_server", PROJECT, ("name",),
    phase="migrate-definitions",
    create=("name", "url", "description"), patch=("name", "url", "description"), put=True,
    beyond=True, page="McpServers",
)  # fmt: skip
AGENTS = Resource(
    "agents", "agent", "/v1/agent", PROJECT, ("name",),
    phase="migrate-definitions",
    create=("name", "description", "metadata"), patch=("name", "description", "metadata"),
    put=True, server=("slug", "kind"), beyond=True, page="Agents",
)  # fmt: skip
SIMULATED_USERS = Resource(
    "simulated_users", "simulated_user", "/v1/project/{project_id}/simulated_user", PROJECT,
    ("name",),
    phase="migrate-definitions",
    create=("name", "goal", "instructions", "voice_config"),
    patch=("name", "goal", "instructions", "voice_config"),
    listed=IN_PROJECT, beyond=True, page="SimulatedUsers",
)  # fmt: skip
FUNCTIONS = Resource(
    "functions", "function", "/v1/function", PROJECT, ("slug",),
    phase="migrate-definitions",
    create=(
        "name", "slug", "function_data", "description", "prompt_data", "tags", "function_type",
        "origin", "function_schema",
    ),
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
        Reference("function_data.source_facet_function.id", CALLABLE, "holder", when="function"),
        Reference(
            "function_data.topic_maps.*.[].topic_map_data.source_facet_function.id", CALLABLE,
            "holder", when="function",
        ),
    ),
    project_names=("function_data.nodes.*.function.project_name",),
    queries=(
        "function_data.nodes.*.expr",
        "function_data.nodes.*.condition",
        "function_data.btql_filter",
        "function_data.topic_maps.*.[].topic_map_data.btql_filter",
        "function_data.topic_maps.*.[].topic_map_data.automation_btql_filter",
    ),
    pins=(
        *_PROMPT_PINS,
        Pin("function_data.nodes.*.function.version", CALLABLE, of=("function_id", "id")),
        Pin("function_data.preprocessor.version", CALLABLE),
        Pin("function_data.parameters_version", CALLABLE, of=("parameters_id",)),
        Pin("function_data.source_facet_function.version", CALLABLE),
        Pin(
            "function_data.topic_maps.*.[].topic_map_data.source_facet_function.version", CALLABLE
        ),
    ),
    cannot_move=function_cannot_move, unwritable=("metadata",),
    bundle=code_bundle,
    next_action=(
        "push the function's code again from its repository (braintrust push), or give its bundle"
        " with --bundles; then run the same command again"
    ),
    listed=BY_PROJECT, look_up_by="slug", sparse_answer=True, versioned=True,
    not_carried="code bundles and topic maps; `metadata`; earlier versions, without --history",
    page="Functions",
)  # fmt: skip
PROMPTS = Resource(
    "prompts", "prompt", "/v1/prompt", PROJECT, ("slug",),
    phase="migrate-definitions",
    create=("name", "slug", "description", "prompt_data", "tags", "function_type"),
    patch=("name", "slug", "description", "prompt_data", "tags"), put=True,
    # The store's mark of a prompt, read only here. A prompt with more in it moves as a function.
    server_values=(("function_data", {"type": "prompt"}),),
    unwritable=("metadata", "function_data"),
    references=_PROMPT_REFERENCES, pins=_PROMPT_PINS, listed=BY_PROJECT, look_up_by="slug",
    sparse_answer=True, versioned=True,
    not_carried="`metadata`; earlier versions, without --history",
    page="Prompts",
)  # fmt: skip
ENV_VARS = Resource(
    "env_vars", "env_var", "/v1/env_var", OWNER, ("object_type", "object_id", "name"),
    phase="migrate-definitions",
    create=("object_type", "object_id", "name", "metadata", "secret_type"),
    # Never PUT: nothing says that it keeps a value which somebody entered.
    patch=("name", "metadata", "secret_type"), patch_required=("name",),
    server=(
        "preview_secret", "used", "secret_updated_at", "secret_updated_by_user_id",
    ),
    unwritable=("secret_category",), server_values=(("secret_category", "env_var"),),
    listed=BY_OWNER, list_all="/v1/env_var", paged=False, look_up_by="env_var_name",
    owner_types=("organization", "project", "function", "mcp_server"),
    doubtful_owner_types=("mcp_server",),
    references=(Reference("object_id", ("@object_type",)),),
    # `value` is never sent: it cannot be read.
    hidden_field="value", hidden_field_shown_by="preview_secret",
    next_action="enter the value: it cannot be read through the API",
    beyond=True,
    not_carried="its value; its category, unless it is that of a variable",
    page="EnvVars",
)  # fmt: skip
PROJECT_SCORES = Resource(
    "project_scores", "project_score", "/v1/project_score", PROJECT, ("name",),
    phase="migrate-definitions",
    create=("name", "score_type", "description", "categories", "config"),
    patch=("name", "description", "score_type", "categories", "config"), put=True,
    server=("position",),  # as in PROJECT_TAGS
    references=(
        Reference("config.online.scorers.[].id", CALLABLE, "holder", when="function"),
        Reference("config.online.scorers.[].project_id", ("projects",), "holder", when="slug"),
        Reference("config.visibility.users.[]", ("users",)),
        Reference("config.visibility.groups.[]", ("groups",)),
    ),
    queries=(
        "config.online.btql_filter",
        "config.condition.when.clauses.[]",
    ),
    pins=(Pin("config.online.scorers.[].version", CALLABLE),),
    reacts_to_data=is_online_score, reacting_phase="migrate-settings",
    listed=BY_PROJECT,
    not_carried="its position, kept by creating in order; online scores come last",
    page="ProjectScores",
)  # fmt: skip
_EXPERIMENT_FIELDS = (
    "name", "description", "repo_info", "base_exp_id", "dataset_id", "dataset_version",
    "internal_metadata", "parameters_id", "parameters_version", "public", "metadata", "tags",
)  # fmt: skip
EXPERIMENTS = Resource(
    "experiments", "experiment", "/v1/experiment", PROJECT, ("name",),
    phase="migrate-experiments",
    create=_EXPERIMENT_FIELDS,  # never ensure_new: a retry would create a second experiment
    patch=_EXPERIMENT_FIELDS,
    server=("commit",),  # taken from repo_info.commit
    references=(
        Reference("base_exp_id", ("experiments",)),
        Reference("dataset_id", ("datasets",)),
        Reference("parameters_id", CALLABLE),
    ),
    pins=(
        Pin("dataset_version", ("datasets",), of=("dataset_id",)),
        Pin("parameters_version", CALLABLE, of=("parameters_id",)),
    ),
    in_date_window=True, listed=BY_PROJECT,
    not_carried="`public`, without --keep-public",
    page="Experiments",
)  # fmt: skip
_VIEW_FIELDS = (
    "object_type", "object_id", "view_type", "name", "description", "view_data", "options",
    "user_id", "starred",
)  # fmt: skip
VIEWS = Resource(
    "views", "view", "/v1/view", OWNER, ("object_type", "object_id", "view_type", "name"),
    phase="migrate-views",
    create=_VIEW_FIELDS, patch=_VIEW_FIELDS, patch_only=("starred",), put=True,
    callers=("user_id",),
    server=("updated_at",),
    listed=BY_OWNER, names_owner=True,
    owner_types=("organization", "org_project", "project", "project_log", "dataset", "experiment"),
    # Owners of views by the letter of the API's document, which a server may refuse to list.
    doubtful_owner_types=("organization", "org_project", "project_log"),
    queries=(
        "view_data.search.*.[].text",
        "view_data.custom_charts.*.filter",
    ),
    references=(
        Reference("object_id", ("@object_type",)),
        Reference("user_id", ("users",)),
        Reference("options.options.projectId", ("projects",)),
        Reference("options.projectId", ("projects",)),
    ),
    not_carried="those of playgrounds",
    page="Views",
)  # fmt: skip
ENVIRONMENT_ASSIGNMENTS = Resource(
    "environment_assignments", "environment_assignment", "/environment-object", OWNER,
    ("object_type", "object_id", "environment_slug"),
    # After the second pass over definitions, which makes versions, and before the automations that
    # react to assignments.
    phase="migrate-settings",
    create=("object_type", "object_id", "environment_slug", "object_version"), put=True,
    listed=BY_OWNER, paged=False, below_owner=True, needs_kind="environments",
    look_up_by="environment_slug", owner_types=("prompt", "function"),
    references=(Reference("object_id", ("@object_type",)),),
    pins=(Pin("object_version", CALLABLE, of=("object_id",), keeps_latest=True),),
    needed=("object_version", "environment_slug"), without_version="version_not_moved",
    beyond=True, asked_by="history",
    not_carried="those of earlier versions, without --history",
    page="Environments",
)  # fmt: skip
PROJECT_SETTINGS = Resource(
    "project_settings", "project", "/v1/project", ORGANIZATION, ("name",),
    phase="migrate-settings",
    part_of="projects", create=("settings",), patch=("settings",), server=("name", "description"),
    references=(
        Reference("settings.baseline_experiment_id", ("experiments",)),
        Reference("settings.default_preprocessor.id", CALLABLE, "holder", when="function"),
    ),
    pins=(Pin("settings.default_preprocessor.version", CALLABLE),),
    cannot_move=settings_cannot_move,
    page="Projects",
)  # fmt: skip
# assumption: automations_are_kept
PROJECT_AUTOMATIONS = Resource(
    "project_automations", "project_automation", "/v1/project_automation", PROJECT, ("name",),
    # After the rows: a retention rule deletes by the original date of rows.
    phase="migrate-settings",
    reacts_to_data=always, acts=acts_outside,
    create=("name", "description", "config"), patch=("name", "description", "config"), put=True,
    references=(
        Reference("config.facet_functions.[].id", CALLABLE, "holder", when="function"),
        Reference("config.topic_map_functions.[].function.id", CALLABLE, "item", when="function"),
        Reference("config.topic_map_function_ids.[]", CALLABLE),
        Reference("config.data_scope.experiment_id", ("experiments",)),
        Reference(
            "config.loop.target.id", ("views",), "holder", when="dashboard", words=("overview",)
        ),
    ),
    queries=(
        "config.btql_filter",
        "config.export_definition.btql_query",
    ),
    pins=(
        Pin("config.facet_functions.[].version", CALLABLE),
        Pin("config.topic_map_functions.[].function.version", CALLABLE),
    ),
    server=("runtime_block",),  # why the server stopped the automation
    cannot_move=automation_cannot_move, servers_own=is_async_query,
    # Everybody who knows the URL of a webhook can post to it.
    secret_paths=("config.action.url", "config.actions.[].url"),
    beyond=True,
    not_carried="what acts outside or deletes, until you activate it",
    page="ProjectAutomations",
)  # fmt: skip
ORG_AUTOMATIONS = Resource(
    "org_automations", "org_automation", "/v1/org_automation", ORGANIZATION, ("name",),
    phase="migrate-settings",  # last: retention of the whole organization
    reacts_to_data=always, acts=acts_outside, needs_org_id=True,
    create=("name", "description", "config"), patch=("name", "description", "config"), put=True,
    secret_paths=("config.action.url", "config.actions.[].url"),
    beyond=True,
    not_carried="what acts outside or deletes, until you activate it",
    page="OrgAutomations",
)  # fmt: skip
_ACL_FIELDS = (
    "object_type", "object_id", "user_id", "group_id", "permission", "restrict_object_type",
    "role_id",
)  # fmt: skip
ACLS = Resource(
    "acls", "acl", "/v1/acl", OWNER, _ACL_FIELDS,
    phase="migrate-acls",
    create=_ACL_FIELDS, server=("_object_org_id",),
    listed=BY_OWNER, list_all="/v1/acl/list_org",
    owner_types=(
        "organization", "org_project", "org_member", "org_audit_logs", "group", "role", "project",
        "project_log", "dataset", "experiment", "prompt", "ai_secret", "org_ai_secret",
        "org_account", "project_group", "project_group_projects",
    ),
    # Newer types, which an older data plane does not know.
    doubtful_owner_types=(
        "ai_secret", "org_ai_secret", "org_account", "project_group", "project_group_projects",
    ),
    grants_access=True, needed=("user_id", "group_id", "role_id"),
    references=(
        Reference("object_id", ("@object_type",)),
        Reference("user_id", ("users",)),
        Reference("group_id", ("groups",)),
        Reference("role_id", ("roles",)),
    ),
    not_carried="those of users who are not invited yet, and of playgrounds",
    page="Acls",
)  # fmt: skip
USERS = Resource(
    "users", "user", "/v1/user", ORGANIZATION, ("email",), folds_case=True, create=(), page="Users"
)

# Every kind of object that is moved, in the order in which they move. Every phase finds or creates
# PROJECTS first.
OBJECT_RESOURCES: Tuple[Resource, ...] = (
    PROJECTS, AI_SECRETS, ROLES, GROUPS, ENVIRONMENTS, PROJECT_GROUPS, DATASETS, DATASET_SNAPSHOTS,
    PROJECT_TAGS, SPAN_IFRAMES, MCP_SERVERS, AGENTS, SIMULATED_USERS, FUNCTIONS, PROMPTS, ENV_VARS,
    PROJECT_SCORES, EXPERIMENTS, VIEWS, ENVIRONMENT_ASSIGNMENTS, PROJECT_SETTINGS,
    PROJECT_AUTOMATIONS, ORG_AUTOMATIONS, ACLS,
)  # fmt: skip
