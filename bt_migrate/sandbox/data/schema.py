"""The kinds of objects that the sandbox knows, as one table after Braintrust's OpenAPI document.

A field is written `name:type`, or `name*:type` if it is required. Types are checked loosely (see
CHECKS). An optional field may be null.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Tuple

Fields = Dict[str, str]

PERMISSIONS = "create read update delete create_acls read_acls update_acls delete_acls".split()
ACL_OBJECT_TYPES = (
    "organization project experiment dataset prompt prompt_session group role org_member "
    "project_log org_project "
    "org_audit_logs ai_secret org_ai_secret org_account project_group project_group_projects"
).split()
VIEW_TYPES = (
    "projects experiments experiment playgrounds playground datasets dataset prompts parameters "
    "tools "
    "scorers classifiers logs monitor for_review_project_log for_review_experiments "
    "for_review_datasets"
).split()
FUNCTION_TYPES = (
    "llm scorer task tool custom_view preprocessor facet classifier tag parameters sandbox"
).split()
SCORE_TYPES = "slider categorical weighted minimum maximum online free-form".split()
FUNCTION_DATA_TYPES = (
    "prompt code graph remote_eval global facet batched_facet parameters topic_map "
    "simulation".split()
)
AUTOMATION_EVENTS = (
    "logs btql_export async_query retention environment_update topic topic_digest windowed".split()
)

UUID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")


def is_id(value: Any) -> bool:
    return isinstance(value, str) and UUID.match(value) is not None


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(check(item) for item in value)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_one_of(values: List[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in values


def is_tagged(field: str, values: List[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and value.get(field) in values


def is_member_permission(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("permission") in PERMISSIONS
        and value.get("restrict_object_type") in [None] + ACL_OBJECT_TYPES
        and set(value) <= {"permission", "restrict_object_type"}
    )


CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "any": lambda value: True,
    "text": is_text,
    "name": lambda value: isinstance(value, str) and value != "",
    "id": is_id,
    "ids": is_list_of(is_id),
    "texts": is_list_of(is_text),
    "bool": lambda value: isinstance(value, bool),
    "number": is_number,
    "object": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
    "lists": is_list_of(is_list_of(is_text)),
    "categories": lambda value: isinstance(value, (list, dict)),
    "permission": is_one_of(PERMISSIONS),
    "member_permissions": is_list_of(is_member_permission),
    "object_type": is_one_of(ACL_OBJECT_TYPES),
    "env_object_type": is_one_of(["organization", "project", "function", "mcp_server"]),
    "view_type": is_one_of(VIEW_TYPES),
    "function_type": is_one_of(FUNCTION_TYPES),
    "score_type": is_one_of(SCORE_TYPES),
    "function_data": is_tagged("type", FUNCTION_DATA_TYPES),
    "automation_config": is_tagged("event_type", AUTOMATION_EVENTS),
}


@dataclass(frozen=True)
class Kind:
    name: str  # "project_score"; also the prefix of its name filter in lists
    path: Optional[str]  # None: no endpoint, made only from Python
    create: Fields  # field -> type, of POST and PUT
    required: FrozenSet[str]  # of create
    patch: Fields  # field -> type, of PATCH
    patch_required: FrozenSet[str]
    read_only: Tuple[str, ...]  # further fields of what is read
    unique: Tuple[Tuple[str, ...], ...]  # natural keys, each unique on its own
    links: Tuple[
        Tuple[str, str], ...
    ]  # path of an id -> kind it must exist as; '@field' says the kind
    put: bool  # has PUT
    post: bool  # has POST
    by_project: bool  # lists accept project_id and project_name
    filters: Tuple[str, ...]  # further query parameters of lists, named as the field they compare
    store: str  # objects of the same store share ids and natural keys
    later: FrozenSet[str]  # fields that the API of October 2026 added
    is_later: bool  # the whole kind is
    in_project: bool  # its path is /v1/project/{project_id}/{name}
    queries: FrozenSet[str]  # names of the fields, at any depth, whose text is a query


def _fields(text: str) -> Tuple[Fields, FrozenSet[str]]:
    pairs = [item.split(":") for item in text.split()]
    return {name.rstrip("*"): kind for name, kind in pairs}, frozenset(
        name[:-1] for name, _ in pairs if name.endswith("*")
    )


@dataclass(frozen=True)
class KindRow:
    """One row of the table below; `kind` is what the rest of the sandbox uses."""

    name: str
    create: str
    patch: str = ""
    read_only: str = ""
    unique: str = ""
    links: Tuple[Tuple[str, str], ...] = ()
    flags: str = "put post"
    filters: str = ""
    store: str = ""
    later: str = ""
    queries: str = ""

    def kind(self) -> Kind:
        fields, required = _fields(self.create)
        patched, patch_required = _fields(self.patch)
        words = self.flags.split()
        path: Optional[str] = "/environment" if self.name == "environment" else "/v1/" + self.name
        if "hidden" in words or "in_project" in words:
            path = None
        return Kind(
            name=self.name,
            path=path,
            create=fields,
            required=required,
            patch=patched,
            patch_required=patch_required,
            read_only=tuple(self.read_only.split()),
            unique=tuple(tuple(key.split("+")) for key in self.unique.split()),
            links=self.links,
            put="put" in words,
            post="post" in words,
            by_project="by_project" in words,
            filters=tuple(self.filters.split()),
            store=self.store or self.name,
            later=frozenset(self.later.split()),
            is_later="later" in words,
            in_project="in_project" in words,
            queries=frozenset(self.queries.split()),
        )


PROJECT = (("project_id", "project"),)
# Ids inside prompt_data, the same for prompts and functions.
PROMPT_DATA = (
    ("prompt_data.tool_functions[].id", "function"),
    ("prompt_data.preprocessor.id", "function"),
    ("prompt_data.mcp.*.id", "mcp_server"),
    ("prompt_data.origin.prompt_id", "function"),
    ("prompt_data.origin.project_id", "project"),
)
FUNCTION_DATA = (
    ("origin.object_id", "@object_type"),
    ("function_data.preprocessor.id", "function"),
    ("function_data.source_facet_function.id", "function"),
    ("function_data.topic_maps.*[].topic_map_id", "function"),
    ("function_data.nodes.*.function.function_id", "function"),
)
PROMPT_CREATE = (
    "project_id*:id name*:text slug*:text description:text prompt_data:object tags:texts "
)

# fmt: off
KINDS: Dict[str, Kind] = {row.name: row.kind() for row in (
    KindRow("project", "name*:name description:text org_name:text project_group_name:text",
          # "Patch operations replace all settings" is the one exception to deep merging.
          "name:name description:text user_id:text settings:object",
          read_only="org_id user_id created deleted_at settings", unique="org_id+name",
              flags="post",
          later="project_group_name",
          links=(("settings.baseline_experiment_id", "experiment"),
                 ("settings.default_preprocessor.id", "function"))),
    KindRow("experiment",
          "project_id*:id name:name description:text repo_info:object base_exp_id:id dataset_id:id "
          "dataset_version:text internal_metadata:object parameters_id:id parameters_version:text "
          # ancestor_commits is not in the OpenAPI document; the official Python SDK sends it.
          "public:bool metadata:object tags:texts ensure_new:bool ancestor_commits:texts",
          "name:name description:text repo_info:object base_exp_id:id dataset_id:id "
              "dataset_version:text "
          "internal_metadata:object parameters_id:id parameters_version:text public:bool "
              "metadata:object "
          "tags:texts",
          read_only="user_id created deleted_at commit", unique="project_id+name",
              flags="post by_project",
          links=PROJECT + (("base_exp_id", "experiment"), ("dataset_id", "dataset"),
                           ("parameters_id", "function"))),
    KindRow("dataset", "project_id*:id name*:name description:text tags:texts metadata:object",
          "name:name description:text tags:texts metadata:object",
          read_only="user_id created deleted_at url_slug", unique="project_id+name",
              flags="post by_project",
          links=PROJECT),
    # environment_slugs is documented outside of the OpenAPI document only.
    KindRow("prompt", PROMPT_CREATE + "function_type:function_type environment_slugs:texts",
          "name:text slug:text description:text prompt_data:object tags:texts",
          read_only="_xact_id log_id org_id created metadata", unique="project_id+slug",
          flags="put post by_project", filters="slug", links=PROJECT + PROMPT_DATA,
              store="function"),
    KindRow("function", PROMPT_CREATE + "function_type:function_type function_data*:function_data "
          "origin:object function_schema:object",
          "name:text description:text prompt_data:object function_data:function_data tags:texts",
          read_only="_xact_id log_id org_id created metadata", unique="project_id+slug",
          flags="put post by_project", filters="slug", links=PROJECT + PROMPT_DATA + FUNCTION_DATA,
          queries="expr condition btql_filter automation_btql_filter"),
    KindRow("role", "name*:name description:text member_permissions:member_permissions "
        "member_roles:ids "
          "org_name:text",
          "name:name description:text add_member_permissions:member_permissions "
          "remove_member_permissions:member_permissions add_member_roles:ids "
              "remove_member_roles:ids",
          read_only="org_id user_id created deleted_at", unique="org_id+name",
          links=(("member_roles[]", "role"),)),
    KindRow("group", "name*:name description:text member_users:ids member_groups:ids org_name:text",
          "name:name description:text add_member_users:ids remove_member_users:ids "
              "add_member_groups:ids "
          "remove_member_groups:ids",
          read_only="org_id user_id created deleted_at", unique="org_id+name",
          links=(("member_users[]", "user"), ("member_groups[]", "group"))),
    KindRow("acl", "object_type*:object_type object_id*:id user_id:id group_id:id "
        "permission:permission "
          "restrict_object_type:object_type role_id:id",
          read_only="_object_org_id created", flags="post",
          unique="object_type+object_id+user_id+group_id+permission+restrict_object_type+role_id",
          filters="object_type object_id user_id group_id permission restrict_object_type role_id",
          links=(("object_id", "@object_type"), ("user_id", "user"), ("group_id", "group"),
                 ("role_id", "role"))),
    KindRow("agent", "project_id*:id name*:name description:text metadata:object",
          "name:name description:text metadata:object",
          read_only="slug kind user_id created", unique="project_id+name", links=PROJECT),
    KindRow("project_automation", "project_id*:id name*:name config*:automation_config "
        "description:text",
          "name:name description:text config:object",
          read_only="user_id created", unique="project_id+name", queries="btql_filter btql_query",
          links=PROJECT + (("config.facet_functions[].id", "function"),
                           ("config.topic_map_functions[].function.id", "function"),
                           ("config.topic_map_function_ids[]", "function"),
                           ("config.data_scope.experiment_id", "experiment"),
                           ("config.loop.target.id", "view"))),
    KindRow("project_group", "name*:name description:text org_name:text",
          "name:name description:text add_member_projects:ids remove_member_projects:ids",
          read_only="org_id user_id created deleted_at member_projects", unique="org_id+name",
          flags="put post later", links=(("member_projects[]", "project"),)),
    KindRow("org_automation", "org_id*:id name*:name config*:automation_config description:text",
          "name:name description:text config:object",
          read_only="user_id created", unique="org_id+name", flags="put post later"),
    KindRow("project_score", "project_id*:id name*:name score_type*:score_type description:text "
          "categories:categories config:object",
          "name:name description:text score_type:score_type categories:categories config:object",
          read_only="user_id created position", unique="project_id+name",
              flags="put post by_project",
          filters="score_type", queries="btql_filter clauses",
          links=PROJECT + (("config.online.scorers[].id", "function"), ("config.visibility.users[]",
              "user"),
                           ("config.visibility.groups[]", "group"))),
    KindRow("project_tag", "project_id*:id name*:name description:text color:text",
          "name:name description:text color:text",
          read_only="user_id created position", unique="project_id+name",
              flags="put post by_project",
          links=PROJECT),
    KindRow("span_iframe", "project_id*:id name*:name url*:text description:text post_message:bool",
          "name:name url:text post_message:bool description:text",
          read_only="user_id created deleted_at", unique="project_id+name", links=PROJECT),
    KindRow("view", "object_type*:object_type object_id*:id view_type*:view_type name*:name "
        "view_data:object "
          "options:object user_id:id deleted_at:text description:text",
          "object_type*:object_type object_id*:id view_type:view_type name:name view_data:object "
          "options:object user_id:id description:text starred:bool",
          read_only="created starred updated_at", later="description starred updated_at",
              unique="object_type+object_id+view_type+name",
          filters="object_type object_id view_type", queries="text filter",
          links=(("object_id", "@object_type"), ("user_id", "user"),
                 ("options.options.projectId", "project"))),
    KindRow("mcp_server", "project_id*:id name*:name url*:text description:text",
          "name:name url:text description:text",
          read_only="user_id created deleted_at", unique="project_id+name", links=PROJECT),
    # A second snapshot of one transaction is the first (seen in the official command-line tool).
    KindRow("dataset_snapshot", "dataset_id*:id name*:name xact_id*:text description:text",
          "name:name description:text",
          read_only="created", unique="dataset_id+name dataset_id+xact_id",
          links=(("dataset_id", "dataset"),)),
    KindRow("ai_secret", "name*:name type:text metadata:object secret:text org_name:text",
          "name:name type:text metadata:object secret:text",
          read_only="org_id created preview_secret updated_at secret_updated_at "
              "secret_updated_by_user_id",
          unique="org_id+name"),
    KindRow("env_var", "object_type*:env_object_type object_id*:id name*:name value:text "
        "metadata:object "
          "secret_type:text",
          "name*:name value:text metadata:object secret_type:text",
          read_only="created preview_secret secret_category used secret_updated_at "
              "secret_updated_by_user_id",
          unique="object_type+object_id+name", filters="object_type object_id",
          links=(("object_id", "@object_type"),)),
    KindRow("environment", "name*:name slug*:name description:text org_name:text",
          "name:name slug:name description:text",
          read_only="org_id created deleted_at", unique="org_id+slug", flags="post"),
    KindRow("simulated_user", "project_id*:id name*:name goal:text instructions*:text "
          "voice_config*:object",
          "name:name goal:text instructions:text voice_config:object",
          read_only="_xact_id org_id created", unique="project_id+name", links=PROJECT,
          flags="post in_project later"),
    # The rest cannot be made through the API; tests make them from Python.
    KindRow("service_token", "name*:name service_account_id:id service_account_email:text "
          "service_account_name:text",
          read_only="created preview_name org_id", flags=""),
    KindRow("api_key", "name*:name user_id:id user_email:text user_given_name:text "
        "user_family_name:text",
          read_only="created preview_name org_id", flags=""),
    KindRow("user", "email*:text given_name:text family_name:text avatar_url:text",
        read_only="created",
          unique="org_id+email", flags="", filters="email given_name family_name"),
    KindRow("prompt_session", "project_id*:id name*:name", read_only="created",
        unique="project_id+name",
          links=PROJECT, flags="hidden"),
)}
# fmt: on

# Accepted on create and kept out of what is read.
NEVER_READ = frozenset(
    "org_name ensure_new ancestor_commits secret value environment_slugs project_group_name".split()
)

# object_type (of acls, views, env_vars, function origins) -> kind whose id object_id is.
KIND_OF_OBJECT_TYPE = {
    "organization": "organization",
    "org_member": "organization",
    "org_project": "organization",
    "org_audit_logs": "organization",
    "project": "project",
    "project_log": "project",
    "prompt": "function",
    "function": "function",
    "experiment": "experiment",
    "dataset": "dataset",
    "prompt_session": "prompt_session",
    "group": "group",
    "role": "role",
    "ai_secret": "ai_secret",
    "org_ai_secret": "organization",
    "org_account": "organization",
    "project_group": "project_group",
    "project_group_projects": "project_group",
    "mcp_server": "mcp_server",
}


def problem_of_fields(
    body: Any, fields: Fields, required: FrozenSet[str], name_of_body: str
) -> Optional[str]:
    """The first thing that is wrong with a request body; None if nothing is."""
    if not isinstance(body, dict):
        return f"{name_of_body}: expected a JSON object"
    for name in sorted(required):
        if body.get(name) is None:
            return f"{name_of_body}: required field '{name}' is missing"
    for name, value in body.items():
        if name not in fields:
            return f"Extraneous key '{name}' at path []"
        if value is not None and not CHECKS[fields[name]](value):
            return f"{name_of_body}: field '{name}' is not a valid {fields[name]}"
    return None


def linked(value: Any, path: str) -> List[Tuple[str, str, Mapping[str, Any]]]:
    """(path, id, its holder) of every id at a path such as 'config.online.scorers[].id'."""
    places: List[Tuple[str, Any, Mapping[str, Any]]] = [("", value, {})]
    for step in path.replace("[]", ".[]").split("."):
        places = [deeper for item in places for deeper in _step(item, step)]
    return [(where[1:], item, holder) for where, item, holder in places if isinstance(item, str)]


def _step(
    item: Tuple[str, Any, Mapping[str, Any]], step: str
) -> List[Tuple[str, Any, Mapping[str, Any]]]:
    where, value, holder = item
    if step == "[]" and isinstance(value, list):
        return [(f"{where}[{number}]", part, holder) for number, part in enumerate(value)]
    if step == "*" and isinstance(value, dict):
        return [(f"{where}.{name}", part, value) for name, part in value.items()]
    if isinstance(value, dict) and step in value:
        return [(f"{where}.{step}", value[step], value)]
    return []
