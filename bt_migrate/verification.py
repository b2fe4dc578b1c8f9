"""Compare everything that was selected and keep the result with the run."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Iterator, List, Sequence

from bt_migrate.catalog import REFERABLE, Catalog
from bt_migrate.compare import DIFFERS, MISSING, Comparison, Pair, compare_counts, compare_objects, compare_rows, totals
from bt_migrate.owned_objects import acl_owners, list_acls, list_dest_acls, list_dest_views, list_views
from bt_migrate.prepare_objects import Item
from bt_migrate.resources import ACLS, BY_NAME, OBJECT_RESOURCES, PROJECT_SETTINGS, PROJECTS, ROW_KINDS, VIEWS, Resource
from bt_migrate.row_plan import row_object_ids
from bt_migrate.state import FAILED, ObjectStates
from bt_migrate.work import Scope, Work

log = logging.getLogger("bt_migrate.verify")

MAX_DIFFERENCES_KEPT = 1000
ROWS_AT_ONCE = 4


def verify(work: Work) -> None:
    """Compare objects, then rows; the outcome goes into run.json and from there into the report."""
    catalog = Catalog(work.catalog.source, work.catalog.dest, work.run, work.settings)  # lists as they are now
    kinds = [one for one in OBJECT_RESOURCES if one.scope == "project" and work.settings.selects(one.name)]
    catalog.prefetch([*REFERABLE, *kinds], [PROJECTS])
    scopes = [Scope(project, catalog.resolve(("projects",), project["id"])) for project in catalog.projects()]
    catalog.prefetch((), kinds, [scope.dest_id for scope in scopes if scope.dest_id])
    objects = list(_compare_objects(work, catalog, scopes))
    pairs = [pair for scope in scopes if scope.dest_id for pair in _pairs(work, catalog, scope)]
    rows = _compare_rows(work, catalog, pairs)
    found, row_totals = totals(objects), totals(rows)
    differences = [one for comparison in (*objects, *rows) for one in comparison.differences]
    equal = not any(counts.get(name) for counts in (found, row_totals) for name in (DIFFERS, MISSING))
    what = "rows" if work.settings.full else "row counts"
    text = f"{'equal' if equal else 'NOT EQUAL'}: objects {_words(found)}; {what} {_words(row_totals)}"
    work.run.data["verification"] = {
        "equal": equal,
        "depth": "full" if work.settings.full else "counts",
        "text": text,
        "objects": found,
        "rows": row_totals,
        "differences": differences[:MAX_DIFFERENCES_KEPT],
    }
    work.run.save()
    log.info("verification: %s", text, extra={"event": "verified", "equal": equal})


def _words(counts: dict) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def _compare_objects(work: Work, catalog: Catalog, scopes: Sequence[Scope]) -> Iterator[Comparison]:
    def items(resource: Resource, objects: Sequence[dict], scope_name: str = "", dest_project: str = "") -> List[Item]:
        states = ObjectStates(work.run.path / "none", resource.name, scope_name)  # only names the project; never saved
        return [Item(one, states, dest_project) for one in objects]

    yield compare_objects(catalog, PROJECTS, items(PROJECTS, [scope.source for scope in scopes]), "")
    for resource in OBJECT_RESOURCES:
        if not work.settings.selects(resource.name):
            continue
        if resource is ACLS:
            owners = acl_owners(catalog, [scope.source for scope in scopes])
            catalog.provide(ACLS, "", list_dest_acls(catalog, owners))
            yield compare_objects(catalog, ACLS, items(ACLS, list_acls(catalog, owners)), "")
        elif resource.scope == "organization" and resource is not PROJECT_SETTINGS:
            yield compare_objects(catalog, resource, items(resource, catalog.source_list(resource)), "")
        else:
            for scope in scopes:
                if scope.dest_id:
                    if resource is VIEWS:
                        catalog.provide(VIEWS, scope.dest_id, list_dest_views(catalog, scope.source["id"]))
                    objects = _objects_of(catalog, resource, scope)
                    yield compare_objects(catalog, resource, items(resource, objects, scope.name, scope.dest_id), scope.name)


def _objects_of(catalog: Catalog, resource: Resource, scope: Scope) -> List[dict]:
    if resource is PROJECT_SETTINGS:
        return [scope.source]
    if resource is VIEWS:
        return list_views(catalog, scope.source["id"])
    return catalog.source_objects(resource, scope.source["id"])


def _pairs(work: Work, catalog: Catalog, scope: Scope) -> Iterator[Pair]:
    """Every object with rows that has a counterpart, with the number of rows that this run delivered to it."""
    streams = {(stream.header["kind"], stream.header["source_id"]): stream for stream in work.run.all_streams()}
    for kind in ROW_KINDS:
        if not work.settings.selects(kind):
            continue
        names = (
            {one["id"]: one["name"] for one in catalog.source_objects(BY_NAME[kind], scope.source["id"])}
            if kind != "logs"
            else {}
        )
        for source_id in row_object_ids(catalog, kind, scope.source["id"]):
            targets = ("projects",) if kind == "logs" else (kind,)
            dest_id = catalog.resolve(targets, source_id)
            stream = streams.get((kind, source_id))
            if dest_id and (stream is None or stream.done):  # an open stream is told as such
                expected = stream.counts["fetched"] - stream.counts[FAILED] if stream else None
                yield Pair(kind, scope.name, names.get(source_id, scope.name), source_id, dest_id, expected)


def _compare_rows(work: Work, catalog: Catalog, pairs: Sequence[Pair]) -> List[Comparison]:
    if not work.settings.full:
        return compare_counts(catalog, pairs, sleep=work.stop.wait)
    with ThreadPoolExecutor(ROWS_AT_ONCE, thread_name_prefix="compare") as pool:
        return list(pool.map(lambda pair: compare_rows(catalog, pair), pairs))
