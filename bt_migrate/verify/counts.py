"""Compare row counts with one aggregate query for each group of objects and side. Never writes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import List, Optional, Sequence, Tuple

from bt_migrate.api.client import Api
from bt_migrate.api.transactions import after_second
from bt_migrate.model.equality import same
from bt_migrate.model.outcomes import CREATED, DIFFERS, FOUND, UPDATED
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.report.display import plural
from bt_migrate.rows.count import Summaries, Summary, summaries
from bt_migrate.rows.read import count_inside
from bt_migrate.rows.streams import bounds_of
from bt_migrate.verify.pairs import CompareContext, ObjectPair, copy_second
from bt_migrate.verify.result import EXTRA, MATCH, MISSING, UNREADABLE, Comparison

IN_DESTINATION = (CREATED, FOUND, UPDATED, DIFFERS)  # outcomes of rows that are there after a copy


# assumption: aggregates_count
def count_both(context: CompareContext, group: Sequence[ObjectPair]) -> List[Summaries]:
    """Returns the row counts of the source and of the destination, queried in parallel."""
    catalog = context.catalog
    kind = group[0].kind

    def count(api: Api, ids: List[str]) -> Summaries:
        return summaries(catalog, api, kind, ids)

    with ThreadPoolExecutor(2, thread_name_prefix="count") as pool:
        source = pool.submit(count, catalog.source, [pair.source_id for pair in group])
        dest = pool.submit(count, catalog.dest, [pair.dest_id for pair in group])
        both = [source.result(), dest.result()]
    _count_doubtful(context, group, *both)
    for counts in both:
        context.note_counts(counts)
    return both


def _count_doubtful(
    context: CompareContext, group: Sequence[ObjectPair], source: Summaries, dest: Summaries
) -> None:
    """Count objects alone that seem empty on one side only.

    A server may silently use only the first id of a FROM, even if it has used all of them before.
    """
    if len(group) == 1:
        return
    catalog, kind = context.catalog, group[0].kind
    for pair in group:
        source_summary, dest_summary = source[pair.source_id], dest[pair.dest_id]
        if (
            source_summary is None
            or dest_summary is None
            or bool(source_summary.rows) == bool(dest_summary.rows)
        ):
            continue
        api, counts, object_id = (
            (catalog.dest, dest, pair.dest_id)
            if source_summary.rows
            else (catalog.source, source, pair.source_id)
        )
        counts.update(summaries(catalog, api, kind, [object_id]))
        alone = counts[object_id]
        if alone is not None and alone.rows:
            api.capabilities.reads_groups = False


def compare_counts(
    context: CompareContext, group: Sequence[ObjectPair]
) -> Tuple[List[Comparison], Summaries]:
    """Compare row counts, id counts, first and last date of objects of one kind.

    Waits for a destination that shows fewer rows. Also returns the counts of the source.
    """
    catalog = context.catalog
    source, dest = count_both(context, group)
    while (
        any(_is_awaited(pair, source[pair.source_id], dest[pair.dest_id]) for pair in group)
        and context.patience.wait()
    ):
        ids = [pair.dest_id for pair in group]
        dest = summaries(catalog, catalog.dest, group[0].kind, ids)
        _count_doubtful(context, group, source, dest)
        context.note_counts(dest)
    results = [_judge(context, pair, source[pair.source_id], dest[pair.dest_id]) for pair in group]
    return results, source


def _is_awaited(pair: ObjectPair, wanted: Optional[Summary], actual: Optional[Summary]) -> bool:
    """Whether the run delivered rows that the destination does not show yet."""
    if pair.copied is None or wanted is None or actual is None or actual.rows >= wanted.rows:
        return False
    if _holds_each_id_once(wanted, actual):
        return False
    if pair.synced:
        return pair.counts[CREATED] > 0
    return actual.rows < sum(pair.counts[outcome] for outcome in IN_DESTINATION)


def _judge(
    context: CompareContext,
    pair: ObjectPair,
    wanted: Optional[Summary],
    actual: Optional[Summary],
) -> Comparison:
    result = context.result(pair, "row counts of")
    if wanted is None or actual is None:
        result.add(UNREADABLE, **pair.facts, detail="rows cannot be counted")
    elif actual.rows != wanted.rows and not _holds_each_id_once(wanted, actual):
        _add_other_number(context, pair, result, wanted, actual)
    elif actual.ids != wanted.ids:
        detail = f"{plural(wanted.ids, 'id')} in the source, {actual.ids:,} in the destination"
        print_ = f"{actual.ids - wanted.ids:+} ids"
        result.add(DIFFERS, **pair.facts, detail=detail, fingerprint=print_)
    elif not (same(wanted.first, actual.first) and same(wanted.last, actual.last)):
        detail = (
            f"created {wanted.first} to {wanted.last} in the source,"
            f" {actual.first} to {actual.last} in the destination"
        )
        dates = f"{wanted.first} {wanted.last} {actual.first} {actual.last}"
        facts = {**pair.facts, "fields": ["created"], "fingerprint": dates}
        result.add(DIFFERS, **facts, detail=detail)
    else:
        result.add(MATCH)
    return result


def _holds_each_id_once(wanted: Summary, actual: Summary) -> bool:
    """Whether the destination has one row for each id of the source, which shows some twice."""
    return actual.rows == actual.ids == wanted.ids


def _add_other_number(
    context: CompareContext,
    pair: ObjectPair,
    result: Comparison,
    wanted: Summary,
    actual: Summary,
) -> None:
    detail = f"{plural(wanted.rows, 'row')} in the source, {actual.rows:,} in the destination"
    # The fingerprint is the difference, so that an accepted one stays accepted when the source
    # grows.
    facts = {**pair.facts, "fingerprint": f"{actual.rows - wanted.rows:+} rows"}
    if actual.rows > wanted.rows:
        result.add(EXTRA, **facts, detail=detail)
        return
    since = wanted.rows - actual.rows <= _rows_since_copy(context.catalog, pair)
    result.add(MISSING, since=since, **facts, detail=detail)


def _rows_since_copy(catalog: Catalog, pair: ObjectPair) -> int:
    """Returns how many rows the source received after the copy."""
    copied_at = copy_second(catalog, pair)
    if copied_at is None:
        return 0
    bounds = bounds_of(catalog, ROW_KINDS[pair.kind]).after(after_second(copied_at))
    return count_inside(catalog.source, pair.kind, [pair.source_id], bounds) or 0
