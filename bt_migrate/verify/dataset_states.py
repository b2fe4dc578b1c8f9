"""Compare former states of datasets that objects refer to, such as snapshots. Never writes.

A version is a transaction of one organization. So the rows are compared that each side had at its
version. A state that several objects refer to is compared once.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from bt_migrate.api.btql import Bounds
from bt_migrate.api.client import Api
from bt_migrate.api.transactions import xact_of_version
from bt_migrate.errors import ApiError
from bt_migrate.migration.context import Migration, ProjectPair
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import DIFFERS
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import DATASETS, OBJECT_RESOURCES
from bt_migrate.model.resources import pins_rows
from bt_migrate.objects.decide import display_name, natural_key
from bt_migrate.objects.prepare import PlannedObject, prepare
from bt_migrate.report.display import number, plural
from bt_migrate.rows.count import Summary
from bt_migrate.rows.read import count_inside
from bt_migrate.state.live_counts import Task
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.verify.pairs import CompareContext, ObjectPair
from bt_migrate.verify.result import MATCH, UNREADABLE, Comparison, outcome_totals
from bt_migrate.verify.rows import compare_sample, compare_state

STATES = "states of datasets"


class CountedState(NamedTuple):
    """A state on both sides, and how many rows the source counts in it (None: it does not)."""

    pair: ObjectPair
    rows: Optional[int]


def counted_states(migration: Migration, projects: Sequence[ProjectPair]) -> List[CountedState]:
    """Returns the states to which objects refer on both sides."""
    catalog = migration.catalog
    pairs = list(_states_on_both_sides(migration, projects))

    def count(pair: ObjectPair) -> Optional[int]:
        return _count(catalog.source, pair.source_id, pair.source_version)

    return [*map(CountedState, pairs, catalog.lists.at_once(count, pairs))]


def compare_dataset_states(
    migration: Migration, states: Sequence[CountedState], context: CompareContext, task: Task
) -> List[Comparison]:
    """Returns a comparison for each project that has some of the `states`.

    `task` counts the states, for the screen.
    """
    results: Dict[str, Comparison] = {}
    for state in states:
        pair = state.pair
        if pair.project not in results:
            result = Comparison(STATES, pair.project, context.report, context.accepted)
            results[pair.project] = result
        _compare(migration, context, state, results[pair.project])
        task.step()
    return list(results.values())


def _states_on_both_sides(
    migration: Migration, projects: Sequence[ProjectPair]
) -> Iterator[ObjectPair]:
    """Yields the dataset states to which objects refer on both sides."""
    for project in projects:
        try:
            yield from (_named_states(migration, project) if project.dest_id else {}).values()
        except ApiError as error:
            if error.status >= 500:
                raise
            # a refused list is in the comparison of its own kind


State = Tuple[str, Optional[int], str, Optional[int]]  # (dataset, version) of both sides


def _named_states(migration: Migration, project: ProjectPair) -> Dict[State, ObjectPair]:
    kinds = [
        resource
        for resource in OBJECT_RESOURCES
        if pins_rows(resource) and migration.settings.selects(resource.name)
    ]
    named: Dict[State, ObjectPair] = {}
    for resource in kinds:
        # A refused list is reported by the comparison of that kind.
        with contextlib.suppress(ApiError):
            for pair in _pairs(migration, resource, project):
                place = (pair.source_id, pair.source_version, pair.dest_id, pair.dest_version)
                named.setdefault(place, pair)
    return named


def _pairs(migration: Migration, resource: Resource, project: ProjectPair) -> Iterator[ObjectPair]:
    catalog = migration.catalog
    (pin,) = [pin for pin in resource.pins if DATASETS.name in pin.to]
    (field,) = pin.of
    for source in catalog.lists.source_objects(resource, project.source["id"]):
        if not source.get(pin.path) or not isinstance(source.get(field), str):
            continue
        there = _counterpart(migration, resource, project, source)
        dest_id = catalog.targets.resolve((DATASETS.name,), source[field])
        if not there or not there.get(pin.path) or there.get(field) != dest_id or not dest_id:
            continue
        yield ObjectPair(
            DATASETS.name,
            project.name,
            display_name(resource, source),
            source[field],
            dest_id,
            source_version=xact_of_version(source[pin.path]),
            dest_version=xact_of_version(there[pin.path]),
        )


def _counterpart(
    migration: Migration, resource: Resource, project: ProjectPair, source: JsonObject
) -> Optional[JsonObject]:
    catalog, dest_project = migration.catalog, project.dest_id or ""
    key = natural_key(resource, source)
    if resource.key_holds_ids:
        # Only names the project; never saved.
        states = ObjectStates(migration.run.path / "none", resource.name, project.name)
        item = PlannedObject(source, states, dest_project)
        key = natural_key(resource, prepare(catalog, resource, item).body)
    return catalog.index.by_key(resource, dest_project).get(key)


def _compare(
    migration: Migration, context: CompareContext, state: CountedState, result: Comparison
) -> None:
    """Add one outcome for a state: compare the number of rows, then the rows."""
    catalog, depth = migration.catalog, migration.settings.depth
    catalog.source.check()
    pair, wanted = state
    actual = _count(catalog.dest, pair.dest_id, pair.dest_version)
    facts = {**pair.facts, "fields": [f"version {pair.source_version}"]}
    if wanted != actual:
        result.add(DIFFERS, **facts, detail=f"{plural(actual, 'row')} instead of {number(wanted)}")
        return
    if depth == "counts":
        result.add(MATCH)
        return
    # The counts are those of the state, so that reading ends with its last row.
    counted = {pair.source_id: wanted, pair.dest_id: actual}
    context = replace(
        context, row_counts={side: rows for side, rows in counted.items() if rows is not None}
    )
    if depth == "full":
        rows = compare_state(context, pair)
    else:
        (rows,) = compare_sample(context, [pair], {pair.source_id: Summary(wanted or 0)})
    outcomes = outcome_totals([rows])
    result.tolerated.update(rows.tolerated)
    if outcomes.keys() <= {MATCH}:
        result.add(MATCH)
    elif UNREADABLE in outcomes:
        result.add(UNREADABLE, **facts)
    else:
        result.add(DIFFERS, **facts, detail="its rows differ")


def _count(api: Api, object_id: str, version: Optional[int]) -> Optional[int]:
    return count_inside(api, DATASETS.name, [object_id], Bounds(version=version))
