"""Findings about what the API cannot move and no moved object refers to.

These are API keys, service tokens, users without a counterpart, and earlier versions of
definitions.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, Iterator, List, Sequence

from bt_migrate.errors import ApiError
from bt_migrate.migration.versions import earlier_versions
from bt_migrate.model.findings import finding
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource_table import USERS
from bt_migrate.model.unmoved import LISTED_ONLY
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.user_map import shown_address


def organization_losses(catalog: Catalog, projects: Sequence[JsonObject]) -> List[Dict[str, Any]]:
    """Findings about the organization and the selected projects."""
    return [
        *_listed_only(catalog),
        *users_without_counterpart(catalog),
        *([] if catalog.run.record.round else earlier_versions(catalog, projects)),
    ]


def _listed_only(catalog: Catalog) -> Iterator[Dict[str, Any]]:
    """Yields findings about objects that can only be listed.

    A kind that cannot even be listed has none.
    """
    with ThreadPoolExecutor(len(LISTED_ONLY), thread_name_prefix="list") as pool:
        lists = list(pool.map(lambda kind: _list(catalog, kind.path), LISTED_ONLY))
    for objects, kind in zip(lists, LISTED_ONLY):
        for obj in sorted(objects, key=lambda obj: (str(obj.get("name")), obj["id"])):
            yield finding(
                kind.finding,
                resource=kind.name,
                id=obj["id"],
                name=str(obj.get("name") or obj["id"]),
                next=kind.next,
            )


def _list(catalog: Catalog, path: str) -> List[JsonObject]:
    try:
        return list(catalog.source.list(path, page_size=catalog.settings.batch_size))
    except ApiError:
        return []


def users_without_counterpart(catalog: Catalog) -> Iterator[Dict[str, Any]]:
    """Yields findings about users without a counterpart.

    A refused list of users is reported with the lists.
    """
    kind = "user_without_counterpart"
    for user in catalog.lists.source_list_or_empty(USERS):
        counterpart = catalog.targets.resolve((USERS.name,), user["id"])
        if counterpart is None and USERS.name not in catalog.lists.refusals:
            name = shown_address(user) or user["id"]
            yield finding(kind, resource=USERS.name, id=user["id"], name=name)
