"""Compares the table of resources with an OpenAPI document of the API. Pure.

Each difference is one line that names the kind and the field. What differs on purpose is in
ON_PURPOSE, with its reason, so that a difference is always something to look at.
"""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, Iterator, List, Mapping, Optional, Sequence, Tuple

from bt_migrate.model.activation import INSIDE, WORD_OF_ACTION, WORD_OF_EVENT
from bt_migrate.model.resource import BY_OWNER, IN_PROJECT, PROJECT, Resource
from bt_migrate.model.resource_table import ACLS, OBJECT_RESOURCES, SERVER_FIELDS
from bt_migrate.model.resources import TARGETS_OF_TYPE
from bt_migrate.model.unmoved import UNMOVED

JsonNode = Mapping[str, Any]

# (kind, field) of POST, PUT or PATCH that is not written, or not read, and why.
ON_PURPOSE: Mapping[Tuple[str, str], str] = {
    ("ai_secret", "secret"): "cannot be read",
    ("env_var", "value"): "cannot be read",
    ("env_var", "put"): "it might wipe a value that a person entered",
    ("prompt", "environment_slugs"): "an assignment comes after the version that it names",
    ("project", "project_group_name"): "the group gets its members by PATCH",
    ("experiment", "ensure_new"): "a retry would create a second experiment",
    ("view", "deleted_at"): "only living objects are moved",
    ("role", "add_member_permissions"): "see membership_patch",
    ("role", "remove_member_permissions"): "see membership_patch",
    ("role", "add_member_roles"): "see membership_patch",
    ("role", "remove_member_roles"): "see membership_patch",
    ("group", "add_member_users"): "see membership_patch",
    ("group", "remove_member_users"): "see membership_patch",
    ("group", "add_member_groups"): "see membership_patch",
    ("group", "remove_member_groups"): "see membership_patch",
    ("project_group", "put"): "PATCH changes all of its fields",
    ("project_group", "add_member_projects"): "see membership_patch",
    ("project_group", "remove_member_projects"): "see membership_patch",
    ("project_automation", "config.created_by_user_id"): "of asynchronous queries: not moved",
    ("function", "metadata"): "the service writes it",
    ("prompt", "metadata"): "the service writes it",
}
# Lines about (kind, field), or about a whole kind (""), that came in October 2026.
NEW_IN_OCTOBER_2026 = frozenset((
    ("project_group", ""), ("simulated_user", ""), ("org_automation", ""), ("view", "description"),
    ("view", "starred"),
))  # fmt: skip
IS_OLDER = " (new in October 2026: is the document older?)"
_EVENTS = frozenset((*WORD_OF_EVENT, *INSIDE))
# Places whose value decides how an object moves, and the values for which the code was written.
DECIDING: Mapping[Tuple[str, str], FrozenSet[str]] = {
    ("project_automation", "config.event_type"): _EVENTS,
    ("project_automation", "config.action.type"): frozenset(WORD_OF_ACTION),
    ("project_automation", "config.actions.[].type"): frozenset(WORD_OF_ACTION),
    ("org_automation", "config.event_type"): _EVENTS,
    ("project_score", "score_type"): frozenset((
        "slider", "categorical", "weighted", "minimum", "maximum", "online", "free-form",
    )),
    ("function", "function_data.type"): frozenset((
        "prompt", "code", "graph", "remote_eval", "global", "facet", "batched_facet", "topic_map",
        "parameters", "simulation",
    )),
    ("acl", "object_type"): frozenset((*ACLS.owner_types, "prompt_session")),
    ("function", "function_data.nodes.*.type"): frozenset((
        "function", "input", "output", "literal", "btql", "gate", "aggregator", "prompt_template",
    )),
}  # fmt: skip
# Fields of requests that choose the organization.
ADDRESSING = frozenset(("org_name",))
# Kinds with a list and a POST that are no resources, and why.
NO_RESOURCES: Mapping[str, str] = {kind.path: kind.why for kind in UNMOVED if kind.path}
MAX_DEPTH = 12


def differences(document: JsonNode, resources: Sequence[Resource] = OBJECT_RESOURCES) -> List[str]:
    """One line for each difference, in the order of the table. Raises ValueError for another
    kind of document.
    """
    if not isinstance(document, dict) or not isinstance(document.get("paths"), dict):
        raise ValueError("not an OpenAPI document: it has no paths")
    schemas = Schemas(document)
    lines: List[str] = []
    for resource in resources:
        if not resource.part_of:
            lines += _Kind(schemas, resource).differences()
    return lines + _unknown_kinds(schemas, resources)


class Schemas:
    """The paths of a document, and its schemas with references followed."""

    def __init__(self, document: JsonNode) -> None:
        self._document = document
        self.paths: Dict[str, JsonNode] = dict(document["paths"])

    def resolved(self, schema: Any) -> JsonNode:
        """A schema without $ref at its top; {} for anything else."""
        for _ in range(MAX_DEPTH):
            if not isinstance(schema, dict) or "$ref" not in schema:
                break
            schema = self._target(str(schema["$ref"]))
        return schema if isinstance(schema, dict) else {}

    def _target(self, reference: str) -> Any:
        target: Any = self._document
        for step in reference.lstrip("#/").split("/"):
            target = target.get(step) if isinstance(target, dict) else None
        return target

    def operation(self, path: str, method: str) -> JsonNode:
        item = self.paths.get(path)
        operation = item.get(method) if isinstance(item, dict) else None
        return operation if isinstance(operation, dict) else {}

    def item_path(self, path: str) -> str:
        """The path of one object of a list; "" if there is none."""
        names = (
            name
            for name in self.paths
            if name.startswith(path + "/{") and name.count("{") == path.count("{") + 1
        )
        return next((name for name in names if name.endswith("}")), "")

    def body(self, path: str, method: str) -> JsonNode:
        """The schema of the JSON body of a request."""
        request = self.resolved(self.operation(path, method).get("requestBody"))
        return self.resolved(_json_schema(request))

    def answer(self, path: str, method: str) -> JsonNode:
        responses = self.operation(path, method).get("responses") or {}
        return self.resolved(_json_schema(self.resolved(responses.get("200"))))

    def parameters(self, path: str, method: str) -> FrozenSet[str]:
        named = (self.resolved(item) for item in self.operation(path, method).get("parameters", ()))
        return frozenset(str(item.get("name")) for item in named)

    def properties(self, schema: JsonNode) -> Dict[str, JsonNode]:
        """The properties of an object, of all alternatives together."""
        properties: Dict[str, JsonNode] = {}
        for part in self.parts(schema):
            for name, value in (part.get("properties") or {}).items():
                properties.setdefault(name, value)
        return properties

    def parts(self, schema: JsonNode, depth: int = 0) -> Iterator[JsonNode]:
        """A schema and its alternatives."""
        yield schema
        for word in ("anyOf", "oneOf", "allOf"):
            for part in schema.get(word) or () if depth < MAX_DEPTH else ():
                yield from self.parts(self.resolved(part), depth + 1)

    def places(
        self, schema: JsonNode, path: str = "", depth: int = 0
    ) -> Iterator[Tuple[str, JsonNode]]:
        """(dotted path, schema) of every place inside a schema; `[]` is any item, `*` any key."""
        if depth > MAX_DEPTH:
            return
        for part in self.parts(schema):
            for name, value in (part.get("properties") or {}).items():
                yield from self._place(value, f"{path}.{name}" if path else name, depth)
            if "items" in part:
                yield from self._place(part["items"], f"{path}.[]", depth)
            if isinstance(part.get("additionalProperties"), dict):
                yield from self._place(part["additionalProperties"], f"{path}.*", depth)

    def _place(self, schema: Any, path: str, depth: int) -> Iterator[Tuple[str, JsonNode]]:
        resolved = self.resolved(schema)
        yield path, resolved
        yield from self.places(resolved, path, depth + 1)


def _json_schema(container: JsonNode) -> Any:
    content = container.get("content") or {}
    return (content.get("application/json") or {}).get("schema")


class _Kind:
    """One row of the table compared with its paths in the document."""

    def __init__(self, schemas: Schemas, resource: Resource) -> None:
        self.schemas = schemas
        self.resource = resource
        self.item_path = schemas.item_path(resource.path)

    def differences(self) -> List[str]:
        if self.resource.below_owner:
            return []  # its paths hold the owner
        if self.resource.path not in self.schemas.paths:
            newer = self._newer("")
            return [f"{self.resource.kind}: {self.resource.path} is not in the document{newer}"]
        return [
            f"{self.resource.kind}: {text}"
            for lines in (
                self._methods(),
                self._list_parameters(),
                self._written("post", self.resource.path, self._posted()),
                self._written("patch", self.item_path, self.resource.patch),
                self._required("post", self.resource.path, self.resource.create),
                self._required("patch", self.item_path, self.resource.patch_required),
                self._read(),
                self._values(),
                self._ids_and_versions(),
            )
            for text in lines
        ]

    def _posted(self) -> List[str]:
        resource = self.resource
        fields = [name for name in resource.create if name not in resource.patch_only]
        in_body = resource.scope == PROJECT and not (
            resource.inside or resource.listed == IN_PROJECT
        )
        return [*fields, "project_id"] if in_body else fields

    def _methods(self) -> Iterator[str]:
        wanted = {
            (self.resource.path, "get"): True,
            (self.resource.path, "post"): True,
            (self.resource.path, "put"): self.resource.put,
            (self.item_path, "get"): True,
            (self.item_path, "patch"): bool(self.resource.patch),
            (self.item_path, "delete"): True,
        }
        for (path, method), expected in wanted.items():
            there = bool(self.schemas.operation(path, method))
            if there != expected and (self.resource.kind, method) not in ON_PURPOSE:
                shown = path or self.resource.path + "/{id}"
                words = "is new" if there else "is gone"
                yield f"{method.upper()} {shown} {words}"

    def _list_parameters(self) -> Iterator[str]:
        names = self.schemas.parameters(self.resource.path, "get")
        for name, expected in (
            ("limit", self.resource.paged or "limit" in names),
            ("starting_after", self.resource.paged),
            ("project_id", self.resource.has_project_lists),
        ):
            if (name in names) != expected:
                yield f"the list {'takes' if name in names else 'does not take'} {name}"
        if ("object_id" in names) != (self.resource.listed == BY_OWNER):
            yield "the list is asked for in another way by owner"

    def _known(self, fields: Sequence[str]) -> FrozenSet[str]:
        scope: Tuple[str, ...] = ("project_id",) if self.resource.scope == PROJECT else ()
        scope += ("org_id",) if self.resource.needs_org_id else ()
        scope += ("object_type", "object_id") if self.resource.names_owner else ()
        purpose = (name for kind, name in ON_PURPOSE if kind == self.resource.kind)
        return frozenset((*fields, *scope, *purpose)) | ADDRESSING

    def _written(self, method: str, path: str, fields: Sequence[str]) -> Iterator[str]:
        if not self.schemas.operation(path, method):
            return
        body = self.schemas.body(path, method)
        if not body:
            return  # the document does not say what is sent
        there = self.schemas.properties(body)
        for name in sorted(set(there) - self._known(fields)):
            yield f"{method.upper()} takes {name}, which the table does not send"
        for name in sorted(set(fields) - set(there)):
            newer = self._newer(name)
            yield f"{method.upper()} does not take {name}, which the table sends{newer}"

    def _newer(self, field: str) -> str:
        return IS_OLDER if (self.resource.kind, field) in NEW_IN_OCTOBER_2026 else ""

    def _required(self, method: str, path: str, fields: Sequence[str]) -> Iterator[str]:
        required = self.schemas.body(path, method).get("required") or ()
        for name in sorted(set(required) - self._known(fields)):
            yield f"{method.upper()} requires {name}, which the table does not always send"

    def _object_schema(self) -> JsonNode:
        return self.schemas.answer(self.item_path, "get") if self.item_path else {}

    def _read(self) -> Iterator[str]:
        resource = self.resource
        fields = (*resource.create, *resource.server, *resource.unwritable, *SERVER_FIELDS)
        known_fields = self._known(fields)
        for name in sorted(set(self.schemas.properties(self._object_schema())) - known_fields):
            yield f"{name} is read, and neither copied nor known as set by the server"

    def _places(self) -> Dict[str, List[JsonNode]]:
        """Dotted path -> its schemas in all alternatives, of what POST takes."""
        places: Dict[str, List[JsonNode]] = {}
        for path, schema in self.schemas.places(self.schemas.body(self.resource.path, "post")):
            places.setdefault(path, []).extend(self.schemas.parts(schema))
        return places

    def _values(self) -> Iterator[str]:
        """Values of object_type, and of places that decide how an object moves."""
        for path, parts in self._places().items():
            known_values = DECIDING.get((self.resource.kind, path))
            if path == "object_type" and known_values is None:
                known_values = frozenset(TARGETS_OF_TYPE)
            values = {str(name) for part in parts for name in part.get("enum") or () if name}
            for value in sorted(values - known_values) if known_values is not None else ():
                yield f"{path} {value!r} is new"

    def _ids_and_versions(self) -> Iterator[str]:
        """Places of ids and versions, by their schema, that are written and not in the table."""
        references = {reference.path for reference in self.resource.references}
        pins = {pin.path for pin in self.resource.pins}
        known_fields = self._known(())
        places = self._places()
        for path in sorted(places):
            if path.split(".")[0] in known_fields or (self.resource.kind, path) in ON_PURPOSE:
                continue
            is_id = any(part.get("format") == "uuid" for part in places[path])
            if is_id and path not in references:
                yield f"{path} is an id, and no reference of the table"
            if _is_version(path, places) and path not in pins:
                yield f"{path} is a version, and no pin of the table"


def _is_version(path: str, places: Mapping[str, Any]) -> bool:
    """A transaction next to an id: `version` next to `id`, or `x_version` next to `x_id`."""
    holder, _, name = path.rpartition(".")
    stem: Optional[str] = None
    if name == "version":
        stem = "id"
    elif name.endswith("_version"):
        stem = name[: -len("version")] + "id"
    return stem is not None and (f"{holder}.{stem}" if holder else stem) in places


def _unknown_kinds(schemas: Schemas, resources: Sequence[Resource]) -> List[str]:
    """Paths that can be listed and posted to, and that no row of the table has."""
    known_paths = {resource.path for resource in resources}
    return [
        f"{path} can be listed and created, and is not in the table"
        for path in sorted(schemas.paths)
        if path not in known_paths
        and path not in NO_RESOURCES
        and "{" not in path
        and schemas.operation(path, "get")
        and schemas.operation(path, "post")
    ]
