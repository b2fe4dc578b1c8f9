"""What of an organization nobody can move through the API and that no object of the move tells of: findings, by name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterator, List, Mapping, Sequence

from bt_migrate.api.transactions import xact_of, xact_seconds
from bt_migrate.errors import ApiError
from bt_migrate.model.date_windows import instant
from bt_migrate.model.findings import finding
from bt_migrate.model.resource_table import DATASETS, FUNCTIONS, PROMPTS, USERS
from bt_migrate.objects.catalog import Catalog

# Kinds that the API can list at most: (path, resource, kind of finding, what a person has to do)
LISTED_ONLY = (
    (
        "/v1/service_token",
        "service_tokens",
        "not_movable",
        "make a new one by hand: its key is shown once",
    ),
    (
        "/v1/api_key",
        "api_keys",
        "key_to_make",
        "let its user make a new one: its key is shown once",
    ),
    ("/v1/env_var", "env_vars", "not_movable", "enter it again: its value cannot be read"),
    (
        "/v1/dataset_snapshot",
        "dataset_snapshots",
        "not_movable",
        "make a new one: it names a transaction of the source",
    ),
)
EDIT_S = 5  # a transaction so much later than the creation is another version


def organization_losses(catalog: Catalog, projects: Sequence[dict]) -> List[Dict[str, Any]]:
    """Service tokens, API keys, environment variables, snapshots, users without a counterpart and earlier versions."""
    return [
        *_listed_only(catalog, projects),
        *_users(catalog),
        *_earlier_versions(catalog, projects),
    ]


def _listed_only(catalog: Catalog, projects: Sequence[dict]) -> Iterator[Dict[str, Any]]:
    """Of the organization and the selected projects; a kind that this server or key does not list is passed over."""
    selected = {one["id"] for one in projects}
    with ThreadPoolExecutor(len(LISTED_ONLY), thread_name_prefix="list") as pool:
        lists = list(pool.map(lambda row: _list(catalog, row[0]), LISTED_ONLY))
    for found, (_, resource, kind, action) in zip(lists, LISTED_ONLY):
        for one in sorted(found, key=lambda one: (str(one.get("name")), one["id"])):
            project_id = _project_of(catalog, one)
            if project_id in ("", *selected):
                yield finding(
                    kind,
                    resource=resource,
                    id=one["id"],
                    name=str(one.get("name") or one["id"]),
                    next=action,
                )


def _list(catalog: Catalog, path: str) -> List[dict]:
    try:
        return list(catalog.source.list(path, page_size=catalog.settings.batch_size))
    except ApiError:
        return []


def _project_of(catalog: Catalog, one: Mapping[str, Any]) -> str:
    """The source project that a variable or snapshot belongs to, "" for the organization itself."""
    if one.get("object_type") == "project":
        return str(one.get("object_id"))
    if one.get("dataset_id") or one.get("object_type") == "function":
        owner = catalog.source_object(
            DATASETS if one.get("dataset_id") else FUNCTIONS,
            one.get("dataset_id") or one["object_id"],
        )
        return str((owner or {}).get("project_id", "of nobody any more"))
    return ""


def _users(catalog: Catalog) -> Iterator[Dict[str, Any]]:
    try:
        users = catalog.source_list(USERS)
    except ApiError as error:
        yield finding(
            "user_without_counterpart",
            resource=USERS.name,
            name="all users",
            detail=f"cannot be listed: {error}",
        )
        return
    for one in users:
        if catalog.resolve(("users",), one["id"]) is None:
            yield finding(
                "user_without_counterpart",
                resource=USERS.name,
                id=one["id"],
                name=str(one.get("email")),
            )


def _earlier_versions(catalog: Catalog, projects: Sequence[dict]) -> Iterator[Dict[str, Any]]:
    for resource in (FUNCTIONS, PROMPTS):
        if not catalog.settings.selects(resource.name):
            continue
        for project in projects:
            for one in catalog.source_objects(resource, project["id"]):
                if has_earlier_versions(one):
                    names = {
                        "resource": resource.name,
                        "id": one["id"],
                        "name": one["name"],
                        "project": project["name"],
                    }
                    yield finding("earlier_versions", **names)


def has_earlier_versions(obj: Mapping[str, Any]) -> bool:
    """Whether a prompt or function was written again after it was made: its transaction is later than its creation."""
    try:
        created = instant(str(obj.get("created"))).timestamp()
    except ValueError:
        return False
    return xact_seconds(xact_of(obj.get("_xact_id"))) > created + EDIT_S
