"""Compare everything that was selected and keep the result with the run.

Neither organization is written. Each outcome has a file of its own, with ids and field paths only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Dict, Iterator, List, Sequence, Tuple, TypeVar

from bt_migrate import __version__
from bt_migrate.attachments.digests import AttachmentBytes
from bt_migrate.errors import ApiError
from bt_migrate.migration.context import Migration, ProjectPair
from bt_migrate.migration.unmovable import users_without_counterpart
from bt_migrate.model.equality import merged
from bt_migrate.model.outcomes import DIFFERS
from bt_migrate.model.resource import ORGANIZATION
from bt_migrate.model.resource_table import OBJECT_RESOURCES, PROJECTS, ROLES, USERS
from bt_migrate.model.resources import REFERABLE, ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.lists import LISTS_READ
from bt_migrate.report.actions import grouped_by_kind as grouped_findings
from bt_migrate.rows.assignments import seconds_until_shown
from bt_migrate.rows.count import OBJECTS_COUNTED, Summaries
from bt_migrate.rows.facets import doubt_facets, learn_facets, learn_facets_of_copies
from bt_migrate.rows.streams import bounds_of
from bt_migrate.state.accepted import accepted_of
from bt_migrate.state.files import write_json
from bt_migrate.state.live_counts import LiveCounts, Task
from bt_migrate.state.run_files import VERIFY_FOLDER
from bt_migrate.state.wrong_attachments import read_wrong, write_wrong
from bt_migrate.verify.copies import object_pairs
from bt_migrate.verify.cost import cost_text
from bt_migrate.verify.counts import compare_counts, count_both
from bt_migrate.verify.dataset_states import (
    CountedState,
    compare_dataset_states,
    counted_states,
)
from bt_migrate.verify.kept import KEPT_FOLDER, KeptRows
from bt_migrate.verify.kinds import ObjectComparison, ReportTo
from bt_migrate.verify.normalize import for_judging
from bt_migrate.verify.pairs import (
    BothAttachments,
    CompareContext,
    ObjectPair,
    Patience,
    groups_of_pairs,
)
from bt_migrate.verify.renamed import map_renamed
from bt_migrate.verify.result import (
    ACCEPTED,
    AS_IT_CAN_BE,
    CANNOT_MOVE,
    MATCH,
    MISSING,
    ONLY_IN_DEST,
    UNREADABLE,
    Comparison,
    Differences,
    changed_since_totals,
    outcome_totals,
    outcomes_text,
    totals_by_day,
)
from bt_migrate.verify.rows import compare_full, compare_sample, read_groups
from bt_migrate.verify.sides import ROWS_COMPARED
from bt_migrate.verify.traces import SourceTraces

log = logging.getLogger("bt_migrate.verify")

Result = TypeVar("Result")

# Outcomes that are as they can be, in the verdict.
EXCEPTIONS = {
    CANNOT_MOVE: "what cannot be moved",
    ACCEPTED: "what was accepted",
    ONLY_IN_DEST: "what only the destination has",
}
GROUPS_AT_ONCE = 4
COMPARE_POLL_S = 0.2  # a signal is handled within this time


def verify(migration: Migration) -> Dict[str, Any]:
    """Compare objects, then rows.

    The result is saved in run.json, from which the report is made.
    """
    migration = replace(migration, catalog=for_judging(migration.catalog))
    run = migration.run
    # Removed first, so that an interrupted comparison leaves no result.
    run.record.verification = None
    run.save()
    with Differences(run.path / VERIFY_FOLDER) as differences:
        compared, kept = _compare(migration, differences)
    result = _result(migration.settings.depth, compared, differences)
    # Whatever refers to these users is equal without the reference.
    missing = grouped_findings(users_without_counterpart(migration.catalog))
    result["to_do"] = [line["text"] for line in missing["to_do"]]
    matches = {
        "objects": outcome_totals(compared.objects).get(MATCH, 0),
        "rows": outcome_totals(compared.rows).get(MATCH, 0),
    }
    write_json(differences.folder / "match.json", matches)
    run.record.verification = result
    run.record.refuted = not result["arrived"]
    run.save()
    kept.forget()
    facts = {"event": "verified", "equal": result["equal"]}
    log.info("verification: %s", result["text"], extra=facts)
    return result


def _compare(migration: Migration, differences: Differences) -> Tuple[Compared, KeptRows]:
    catalog, accepted = migration.catalog, accepted_of(migration.run)
    attachments = BothAttachments(AttachmentBytes(catalog.source), AttachmentBytes(catalog.dest))
    try:
        projects = _project_pairs(migration)
        traces = SourceTraces()
        comparison = ObjectComparison(
            migration, attachments, ReportTo(differences.add, accepted), traces
        )
        objects = _counted_objects(migration.run.live, comparison.compare_all(projects))
        _settle_traces(catalog, traces)
        context = CompareContext(
            catalog,
            attachments,
            Patience(seconds_until_shown(catalog), partial(_sleep, migration)),
            differences.add,
            accepted,
            migration.settings.verify_sample,
            source_ids=traces.only_source,
        )
        kept = KeptRows(
            differences.folder / KEPT_FOLDER,
            _basis_of_digests(migration, objects, traces),
            migration.settings.checkpoint_interval,
        )
        states = counted_states(migration, projects)
        counts, rows = _compare_rows(migration, projects, context, kept, states)
        with migration.run.live.working("states of datasets compared", None) as task:
            objects += compare_dataset_states(migration, states, context, task)
        _keep_wrong(migration, attachments)
        return Compared(objects, counts, rows), kept
    finally:
        attachments.close()


def _keep_wrong(migration: Migration, attachments: BothAttachments) -> None:
    """Keep what is to be uploaded again; what was uploaded again before keeps that number."""
    uploads = {item.key: item.uploads for item in read_wrong(migration.run)}
    wrong = [replace(item, uploads=uploads.get(key, 0)) for key, item in attachments.wrong.items()]
    write_wrong(migration.run, wrong)


def _basis_of_digests(
    migration: Migration, objects: Sequence[Comparison], traces: SourceTraces
) -> str:
    """What the digests of rows depend on besides the rows: settings, and the objects of both sides.

    Kept digests of another basis are not used.
    """
    settings = migration.settings
    facts = [
        __version__,
        [settings.attachments, settings.attachment_max_bytes, settings.keep_public],
        _by_kind(objects),
        sorted(traces.only_source),
    ]
    return hashlib.sha256(json.dumps(facts).encode("utf-8")).hexdigest()


def _counted_objects(live: LiveCounts, comparisons: Iterator[Comparison]) -> List[Comparison]:
    """All comparisons of objects; each object is counted for the screen."""
    objects = []
    with live.working("objects compared", None) as task:
        for comparison in comparisons:
            task.step(sum(comparison.counts.values()))
            objects.append(comparison)
    return objects


def _sleep(migration: Migration, seconds: float) -> None:
    with migration.run.live.waiting("the destination does not show all rows yet:", seconds):
        migration.stop.wait(seconds)


def _settle_traces(catalog: Catalog, traces: SourceTraces) -> None:
    """Decide about source ids in equal objects, once all objects of both sides were listed."""
    traces.source_ids.update(catalog.targets.known_ids())
    traces.note_dest_ids([catalog.dest.org_id])
    for resource in (USERS, ROLES):
        # Users, and roles that are built in, are the same on both sides.
        with contextlib.suppress(ApiError):
            traces.note_dest_ids(obj["id"] for obj in catalog.lists.dest_objects(resource))
    traces.settle()


def _project_pairs(migration: Migration) -> List[ProjectPair]:
    """The selected projects; the lists that the comparison of objects needs are read at once."""
    catalog, settings = migration.catalog, migration.settings
    kinds = [
        resource
        for resource in OBJECT_RESOURCES
        if resource.scope == "project" and settings.selects(resource.name)
    ]
    with catalog.run.live.working(LISTS_READ, None) as task:
        catalog.lists.prefetch([*REFERABLE, *kinds], [PROJECTS], note_read=task.step)
    projects = catalog.lists.projects()
    map_renamed(catalog, PROJECTS, [("", catalog.lists.projects)])
    pairs = [
        ProjectPair(
            project, catalog.targets.resolve((PROJECTS.name,), project["id"]), project["name"]
        )
        for project in projects
    ]
    catalog.lists.prefetch((), kinds, [pair.dest_id for pair in pairs if pair.dest_id])
    for resource in kinds:
        places = [
            (pair.dest_id, partial(catalog.lists.source_objects, resource, pair.source["id"]))
            for pair in pairs
            if pair.dest_id
        ]
        map_renamed(catalog, resource, places)
    for resource in OBJECT_RESOURCES:
        if resource.scope == ORGANIZATION and settings.selects(resource.name):
            map_renamed(catalog, resource, [("", partial(catalog.lists.source_list, resource))])
    return pairs


@dataclass(frozen=True)
class Compared:
    """What was compared: objects, numbers of rows, and rows."""

    objects: Sequence[Comparison]
    counts: Sequence[Comparison]
    rows: Sequence[Comparison]

    @property
    def everything(self) -> List[Comparison]:
        return [*self.objects, *self.counts, *self.rows]


def _result(depth: str, compared: Compared, differences: Differences) -> Dict[str, Any]:
    """`equal`: everything matches, except what EXCEPTIONS names.

    `arrived`: nothing differs, is missing or could not be compared, except what changed in the
    source after the copy.
    """
    everything = compared.everything
    total, since = outcome_totals(everything), changed_since_totals(everything)
    lost = any(total.get(name, 0) > since.get(name, 0) for name in (DIFFERS, MISSING))
    unproven = bool(total.get(UNREADABLE))
    equal = all(outcome in AS_IT_CAN_BE for outcome in total)
    word = "equal" if equal else "NOT EQUAL" if lost else "all arrived, not equal"
    if unproven and not lost:
        word = "NOT PROVEN, some could not be compared"
    if equal:
        exceptions = [text for outcome, text in EXCEPTIONS.items() if total.get(outcome)]
        word = ", except ".join(filter(None, ["equal", " and ".join(exceptions)]))
    return {
        "equal": equal,
        "arrived": not lost and not unproven,
        "depth": depth,
        "text": f"{word}: {_compared_text(depth, compared)}",
        "objects": outcome_totals(compared.objects),
        "counts": outcome_totals(compared.counts),
        "rows": outcome_totals(compared.rows),
        "changed_since_copy": sum(since.values()),
        "kinds": _by_kind(everything),
        "days": _by_day(compared.rows) if depth == "full" else {},
        "tolerated": merged(comparison.tolerated for comparison in everything),
        "security": differences.security,
        "cannot_move": differences.cannot_move,
        "accepted": differences.accepted,
        "only_in_dest": differences.only_in_dest,
        "differences": differences.kept,
        "folder": str(differences.folder),
    }


def _compared_text(depth: str, compared: Compared) -> str:
    parts = [f"objects {outcomes_text(outcome_totals(compared.objects))}"]
    if depth != "full":
        parts.append(f"row counts {outcomes_text(outcome_totals(compared.counts))}")
    if depth != "counts":
        words = {"full": "all rows", "sample": "sampled rows"}
        parts.append(f"{words[depth]} {outcomes_text(outcome_totals(compared.rows))}")
    return "; ".join(parts)


def _by_kind(comparisons: Sequence[Comparison]) -> Dict[str, Dict[str, Any]]:
    kinds: Dict[str, List[Comparison]] = {}
    for comparison in comparisons:
        kinds.setdefault(comparison.resource, []).append(comparison)
    return {
        name: {
            "outcomes": outcome_totals(of_kind),
            "changed_since_copy": sum(changed_since_totals(of_kind).values()),
        }
        for name, of_kind in kinds.items()
    }


def _by_day(comparisons: Sequence[Comparison]) -> Dict[str, Dict[str, Dict[str, int]]]:
    names = dict.fromkeys(comparison.resource for comparison in comparisons)
    return {
        name: totals_by_day(
            [comparison for comparison in comparisons if comparison.resource == name]
        )
        for name in names
    }


# -- rows


def _compare_rows(
    migration: Migration,
    projects: Sequence[ProjectPair],
    context: CompareContext,
    kept: KeptRows,
    states: Sequence[CountedState],
) -> Tuple[List[Comparison], List[Comparison]]:
    """(comparisons of the numbers of rows, comparisons of rows).

    `states` of datasets are compared later; their cost is reported with that of the rows.
    """
    depth = migration.settings.depth
    pairs = [
        pair for project in projects if project.dest_id for pair in object_pairs(migration, project)
    ]
    live = migration.run.live
    with ThreadPoolExecutor(GROUPS_AT_ONCE, thread_name_prefix="compare") as pool:
        if depth == "full":
            return [], _compare_all_rows(pool, context, pairs, kept, states)
        with live.working(OBJECTS_COUNTED, len(pairs)):
            counts, source = _compare_counts(pool, context, pairs)
        if depth == "sample":
            _learn_facets(context, pairs)
        groups = list(read_groups(context.with_rows(pairs), source)) if depth == "sample" else []
        with live.working("objects with rows compared", sum(map(len, groups))) as task:
            sampled = [pool.submit(compare_sample, context, group, source) for group in groups]
            return counts, _results(sampled, task)


def _results(compared: Sequence[Future[List[Comparison]]], task: Task) -> List[Comparison]:
    """The comparisons of all groups, each counted as it ends."""
    results = []
    for of_group in _in_order(compared):
        task.step(len(of_group))
        results += of_group
    return results


def _compare_all_rows(
    pool: ThreadPoolExecutor,
    context: CompareContext,
    pairs: Sequence[ObjectPair],
    kept: KeptRows,
    states: Sequence[CountedState],
) -> List[Comparison]:
    """Compare every row; the counts of the source say which objects are read together."""
    live = context.catalog.run.live
    counts: Summaries = {}
    with live.working(OBJECTS_COUNTED, len(pairs)) as task:
        counted = [pool.submit(count_both, context, group) for group in groups_of_pairs(pairs)]
        for source, _ in _in_order(counted):
            task.step(len(source))
            counts.update(source)
    _learn_facets(context, pairs)
    groups = list(read_groups(context.with_rows(pairs), counts))
    rows = context.counted_rows([pair.source_id for group in groups for pair in group])
    log.info("%s", cost_text(context, groups, states), extra={"event": "cost", "rows": rows})
    if kept.is_begun:
        log.info("continuing the comparison of an earlier start", extra={"event": "kept"})
    with live.working(ROWS_COMPARED, rows):
        compared = [pool.submit(compare_full, context, group, kept) for group in groups]
        return [result for results in _in_order(compared) for result in results]


def _learn_facets(context: CompareContext, pairs: Sequence[ObjectPair]) -> None:
    """Find out which rows of either side need another query for their facets."""
    source, dest = context.catalog.source, context.catalog.dest
    with context.catalog.run.live.working("kinds of rows examined", len(ROW_KINDS)) as task:
        for kind in ROW_KINDS.values():
            of_kind = [pair for pair in context.with_rows(pairs) if pair.kind == kind.name]
            bounds = bounds_of(context.catalog, kind)
            source_ids = [pair.source_id for pair in of_kind]
            # A wrong answer to the copy would hide what is missing.
            again = context.catalog.settings.depth == "full"
            learn_facets(source, kind.name, source_ids, bounds, again=again)
            dest_ids = [pair.dest_id for pair in of_kind]
            learn_facets_of_copies(source, dest, kind.name, dest_ids, bounds)
            # Fresh rows may not be shown yet, so none with facets proves nothing.
            doubt_facets(dest, kind.name, dest_ids)
            task.step()


def _compare_counts(
    pool: ThreadPoolExecutor, context: CompareContext, pairs: Sequence[ObjectPair]
) -> Tuple[List[Comparison], Summaries]:
    """The comparisons, and the counts of the source."""
    results: List[Comparison] = []
    counts: Summaries = {}
    counted = [pool.submit(compare_counts, context, group) for group in groups_of_pairs(pairs)]
    task = context.catalog.run.live.task
    for of_group, source in _in_order(counted):
        if task is not None:
            task.step(len(of_group))
        results += of_group
        counts.update(source)
    return results, counts


def _in_order(futures: Sequence[Future[Result]]) -> Iterator[Result]:
    """Results of the futures. Waits in slices of COMPARE_POLL_S, so that signals are handled."""
    for future in futures:
        while not future.done():
            wait([future], timeout=COMPARE_POLL_S)
        yield future.result()
