"""Reports prompts and functions of the source with earlier versions that do not move."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Sequence

from bt_migrate.model.findings import finding
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource_table import OBJECT_RESOURCES
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.pins import read_version_lists
from bt_migrate.report.display import plural


# assumption: earlier_versions_are_listed
def earlier_versions(catalog: Catalog, projects: Sequence[JsonObject]) -> Iterator[Dict[str, Any]]:
    """Yields a finding for each selected object with more versions than are asked for."""
    settings, lists = catalog.settings, catalog.lists
    kinds = [kind for kind in OBJECT_RESOURCES if kind.versioned and settings.selects(kind.name)]
    defined: Dict[str, Dict[str, List[JsonObject]]] = {
        project["id"]: {kind.name: lists.source_objects(kind, project["id"]) for kind in kinds}
        for project in projects
    }
    read_version_lists(catalog, [(project["id"], "") for project in projects])
    versions = catalog.histories.source
    for project in projects:
        for name, objects in defined[project["id"]].items():
            for obj in objects:
                left_count = len(versions.transactions(obj["id"])) - 1 - settings.history
                if left_count > 0:
                    facts = {"id": obj["id"], "name": obj["name"], "project": project["name"]}
                    detail = plural(left_count, "earlier version")
                    yield finding("earlier_versions", resource=name, detail=detail, **facts)
