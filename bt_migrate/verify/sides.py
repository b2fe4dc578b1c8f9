"""Read the rows of a group of objects on either side, in the form that is compared."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Callable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple, Union

from bt_migrate.api.btql import Bounds
from bt_migrate.api.client import Api
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.report.display import and_more
from bt_migrate.rows.read import Page, RowSelection, pages
from bt_migrate.rows.streams import bounds_of
from bt_migrate.verify.normalize import DestForms, SourceForms
from bt_migrate.verify.pairs import CompareContext, ObjectPair
from bt_migrate.verify.result import Comparison

# name of the progress counter of a full comparison; a sample counts objects
ROWS_COMPARED = "rows compared"


@dataclass(frozen=True)
class ReadSide:
    """One side of a group of objects. `ids`: object id on this side -> id in the source.

    `version`: the transaction at which rows are read; None for the current rows.
    """

    api: Api
    ids: Mapping[str, str]
    forms: Union[SourceForms, DestForms]
    version: Optional[int] = None


@dataclass(frozen=True)
class ReadPair:
    """Both sides of a group of objects of one kind."""

    source: ReadSide
    dest: ReadSide

    def at_once(self, function: Callable[..., Any], *arguments: Any) -> List[Any]:
        """Returns the function's results for the source and the destination, called in parallel."""
        with ThreadPoolExecutor(2, thread_name_prefix="side") as pool:
            futures = [pool.submit(function, side, *arguments) for side in (self.source, self.dest)]
            return [future.result() for future in futures]

    def count_tolerated(self, result: Comparison) -> None:
        """Add the tolerated changes that both sides counted while rows were normalized."""
        result.tolerated.update(self.source.forms.tolerated)
        result.tolerated.update(self.dest.forms.tolerated)


def read_pair(context: CompareContext, group: Sequence[ObjectPair]) -> ReadPair:
    catalog = context.catalog
    kind = ROW_KINDS[group[0].kind]
    source = SourceForms(catalog, kind, context.attachments.source)
    dest = DestForms(catalog, kind, context.attachments.dest, context.source_ids)
    source_ids = {pair.source_id: pair.source_id for pair in group}
    dest_ids = {pair.dest_id: pair.source_id for pair in group}
    return ReadPair(
        ReadSide(catalog.source, source_ids, source, group[0].source_version),
        ReadSide(catalog.dest, dest_ids, dest, group[0].dest_version),
    )


def show_rows_counted(context: CompareContext, first_id: str, rows: int) -> None:
    """Count rows of a group, whose first object is `first_id`, for the progress display."""
    task = context.catalog.run.live.task
    if task is not None and task.unit == ROWS_COMPARED:
        task.add({first_id: rows})


@contextlib.contextmanager
def shown_as_open(context: CompareContext, group: Sequence[ObjectPair]) -> Iterator[None]:
    """Inside `with`, the progress display shows the group as an open stream."""
    task = context.catalog.run.live.task
    if task is None or task.unit != ROWS_COMPARED:
        yield
        return
    first = group[0]
    header = {
        "kind": first.kind,
        "project": first.project,
        "name": and_more(first.name, len(group) - 1),
        "source_id": first.source_id,
    }
    task.begin(header, 0, context.counted_rows([pair.source_id for pair in group]))
    try:
        yield
    finally:
        task.end(first.source_id)


def rows_of_object(
    context: CompareContext, side: ReadSide, kind_name: str, bounds: Bounds, expected: Optional[int]
) -> Iterator[Page]:
    """Yields the rows of one object page by page; there are at least `expected`."""
    limit = context.catalog.settings.rows(kind_name).fetch_limit
    ((there, source_id),) = side.ids.items()
    for page in pages(side.api, RowSelection(kind_name, [there], bounds, expected), limit=limit):
        side.api.check()
        if side.api is context.catalog.source:
            show_rows_counted(context, source_id, len(page.rows))
        yield page


# assumption: several_objects_in_one_query
def read_rows(
    context: CompareContext, side: ReadSide, kind_name: str, bounds: Bounds
) -> Iterator[Tuple[str, JsonObject]]:
    """Yields (source object, row) of all rows inside the bounds.

    A server may silently use only the first id of a FROM. Until it has returned rows of two objects
    for one query, each object that seems empty is read alone.
    """
    ids = list(side.ids)
    whole = bounds == bounds_of(context.catalog, ROW_KINDS[kind_name])
    bounds = replace(bounds, version=side.version)
    limit = context.catalog.settings.rows(kind_name).fetch_limit
    shown: Set[str] = set()
    expected = context.counted_rows(ids) if whole else None
    if expected is not None:
        # An object that was just counted and has no rows needs no query.
        ids = [object_id for object_id in ids if context.row_counts[object_id]]
        if not ids:
            return
    is_counted = whole and side.api is context.catalog.source
    for page in pages(side.api, RowSelection(kind_name, ids, bounds, expected), limit=limit):
        side.api.check()
        if is_counted:
            show_rows_counted(context, next(iter(side.ids.values())), len(page.rows))
        if len(ids) == 1:
            yield from zip(repeat(side.ids[ids[0]]), page.rows)
            continue
        for row in page.rows:
            object_id = row[ROW_KINDS[kind_name].id_field]
            shown.add(object_id)
            yield side.ids[object_id], row
    if len(ids) == 1:
        return
    side.api.capabilities.reads_groups = side.api.capabilities.reads_groups or len(shown) > 1
    if not side.api.capabilities.reads_groups:
        for object_id in ids:
            if object_id not in shown:
                alone = replace(side, ids={object_id: side.ids[object_id]})
                yield from read_rows(context, alone, kind_name, bounds)
