"""Which prompts and functions of the source have earlier versions, which do not move.

Asked for, never concluded from dates: `created` of a prompt or function is the time of its latest
version. One query answers for many projects.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import Any, Dict, Iterator, List, Sequence, Set

from bt_migrate.api.btql import OBJECTS_PER_QUERY, versions_query
from bt_migrate.api.transport import CURSOR_HEADER
from bt_migrate.errors import ApiError
from bt_migrate.model.findings import finding
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import CALLABLE
from bt_migrate.model.resources import BY_NAME
from bt_migrate.objects.catalog import Catalog

log = logging.getLogger("bt_migrate.validate")

Versions = Dict[str, Set[str]]  # object id -> transactions


# belief: earlier_versions_are_listed
def earlier_versions(catalog: Catalog, projects: Sequence[dict]) -> Iterator[Dict[str, Any]]:
    """Yields a finding for each selected definition that was written more than once."""
    kinds = [BY_NAME[name] for name in CALLABLE if catalog.settings.selects(name)]
    defined: Dict[str, Dict[str, List[dict]]] = {
        project["id"]: {
            kind.name: catalog.lists.source_objects(kind, project["id"]) for kind in kinds
        }
        for project in projects
    }
    holding = [project_id for project_id, objects in defined.items() if any(objects.values())]
    versions: Versions = defaultdict(set)
    for start in range(0, len(holding), OBJECTS_PER_QUERY):
        some = holding[start : start + OBJECTS_PER_QUERY]
        # Prompts and functions are one store: the first kind mostly has both.
        for kind in (BY_NAME[name] for name in CALLABLE):
            asked = [
                project_id
                for project_id in some
                if any(
                    obj["id"] not in versions
                    for objects in defined[project_id].values()
                    for obj in objects
                )
            ]
            if asked:
                _add_versions(catalog, kind, asked, versions)
    for project in projects:
        for name, objects in defined[project["id"]].items():
            for obj in objects:
                if len(versions[obj["id"]]) > 1:
                    facts = {"id": obj["id"], "name": obj["name"], "project": project["name"]}
                    yield finding("earlier_versions", resource=name, **facts)


def _add_versions(
    catalog: Catalog, resource: Resource, project_ids: Sequence[str], versions: Versions
) -> None:
    """Add the transactions of all versions of a kind in these projects.

    Where a server refuses a query over several projects, each project is asked for alone.
    """
    try:
        for row in _rows(catalog, resource, project_ids):
            versions[str(row.get("id"))].add(str(row.get("_xact_id")))
    except ApiError as error:
        if len(project_ids) > 1:
            for project_id in project_ids:
                _add_versions(catalog, resource, [project_id], versions)
            return
        words = (resource.name, project_ids[0], error)
        log.warning("earlier versions of %s in project %s are not known: %s", *words)


def _rows(catalog: Catalog, resource: Resource, project_ids: Sequence[str]) -> Iterator[dict]:
    cursor = ""
    seen: Set[tuple] = set()
    while True:
        query = versions_query(resource.kind, project_ids, cursor)
        answer = catalog.source.query(query, audit_log=True)
        rows = [row for row in answer.json if isinstance(row, dict)]
        fresh = [row for row in rows if (row.get("id"), row.get("_xact_id")) not in seen]
        yield from fresh
        seen.update((row.get("id"), row.get("_xact_id")) for row in fresh)
        cursor = answer.headers.get(CURSOR_HEADER, "")
        # A server that ignores the cursor answers the same rows again.
        if not fresh or not cursor:
            return
