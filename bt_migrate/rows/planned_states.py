"""Plans the earlier states of datasets: what `replay` will read, insert and delete for them.

It takes the steps of `replay` and counts rows instead of reading them: two or three queries for a
state. Of very many states only the first ones are counted, and the others are taken to be alike.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set

from bt_migrate.api.btql import OBJECTS_PER_QUERY, Bounds
from bt_migrate.api.transactions import after_transaction
from bt_migrate.errors import ApiError
from bt_migrate.model.portions import portions
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.count import sync_marks
from bt_migrate.rows.origins import RowVersion, last_written
from bt_migrate.rows.present_states import Pinned, newest_xacts
from bt_migrate.rows.query_counts import (
    BatchLimits,
    id_pages,
    inserts,
    inserts_of_comments,
    page_rows_to_the_end,
)
from bt_migrate.rows.read import count_inside
from bt_migrate.state.seen_rows import IDS_PER_SELECT

log = logging.getLogger("bt_migrate.validate")

KIND = ROW_KINDS["datasets"]
# states of all datasets that are counted
MOST_COUNTED = 100


class NamedPast(NamedTuple):
    """What the source names of the past of its datasets.

    `pinned`: for each kind of objects, the states that these refer to. `rows`: dataset -> versions
    of its rows that origins of rows name; none are known without --dataset-versions.
    """

    pinned: Sequence[Pinned] = ()
    rows: Mapping[str, Set[RowVersion]] = {}

    @property
    def datasets(self) -> Set[str]:
        """Returns the datasets with states that are named."""
        return {dataset_id for pinned in self.pinned for dataset_id in pinned}

    def states_of(self, dataset_id: str) -> List[int]:
        """Returns the transactions of all states of the dataset, oldest first."""
        return sorted({xact for pinned in self.pinned for xact in pinned.get(dataset_id, ())})


@dataclass
class PlannedStates:
    """What the earlier states of datasets add to the copy.

    `late`: dataset -> how many of its present rows arrive after its last state. `compared`: the
    rows of each state that the comparison reads.
    """

    states: int = 0
    rows: int = 0
    deletes: int = 0
    bytes: int = 0
    queries: int = 0
    inserts: int = 0
    late: Dict[str, int] = field(default_factory=dict)
    compared: List[int] = field(default_factory=list)

    def add(self, other: PlannedStates, times: float = 1.0) -> None:
        for name in ("states", "rows", "deletes", "bytes", "queries", "inserts"):
            setattr(self, name, getattr(self, name) + round(getattr(other, name) * times))
        self.late.update(other.late)
        self.compared += other.compared * round(times)


def plan_states(
    catalog: Catalog, objects: Sequence[Dict[str, Any]], past: NamedPast
) -> PlannedStates:
    """Returns the plan for the states of all datasets.

    `objects`: as in `plan_rows`, with their rows and bytes.
    """
    sent = _sent(catalog)
    total = PlannedStates()
    states = 0
    kept: List[Dict[str, Any]] = []
    for planned in objects:
        dataset_id = planned["id"]
        versions = _to_make(catalog, planned, past, sent)
        if versions is None:
            kept.append(planned)
        elif states < MOST_COUNTED:
            replay = Replay(catalog, planned, past, sent.get(dataset_id, 0))
            total.add(replay.plan(versions))
        states += len(versions or ())
    if total.states:
        total.add(replace(total, late={}), states / total.states - 1)
    total.add(_present(catalog, kept, past))
    return total


def _sent(catalog: Catalog) -> Dict[str, int]:
    """Returns, in a sync, dataset -> the transaction up to which its rows have arrived."""
    marks = sync_marks(catalog, KIND.name)
    return {
        state.header["source_id"]: max(marks[state.header["source_id"]], state.sync.newest)
        for state in catalog.run.all_streams()
        if state.header["kind"] == KIND.name and state.header["source_id"] in marks
    }


def batch_limits(catalog: Catalog, kind_name: str) -> BatchLimits:
    """Returns the limits of pages and inserts of a kind of rows."""
    settings = catalog.settings.rows(kind_name)
    page = min(settings.fetch_limit, catalog.source.capabilities.query_limit.most)
    return BatchLimits(page, settings.insert_batch_size, settings.max_batch_bytes)


def _to_make(
    catalog: Catalog, planned: Mapping[str, Any], past: NamedPast, sent: Mapping[str, int]
) -> Optional[List[int]]:
    """Returns the states that will be made, None if the dataset keeps the history it has."""
    dataset_id = planned["id"]
    if not catalog.settings.dataset_versions:
        return None
    states = past.states_of(dataset_id)
    if dataset_id in sent:
        unmapped = [xact for xact in states if not catalog.versions.dest_version(dataset_id, xact)]
        return [xact for xact in unmapped if xact >= sent[dataset_id]]
    return None if planned["dest_id"] else states


class Replay:
    """Takes the steps of `replay` for one dataset, and counts what they read and write."""

    def __init__(
        self, catalog: Catalog, planned: Mapping[str, Any], past: NamedPast, sent: int
    ) -> None:
        self._catalog = catalog
        self._planned = planned
        self._named = past.rows.get(planned["id"], set())
        self._row_bytes = planned["bytes"] / (planned["rows"] or 1)
        self._share_commented = planned["commented"] / (planned["rows"] or 1)
        self._limits = batch_limits(catalog, KIND.name)
        self._plan = PlannedStates()
        # the transaction up to which the destination has the dataset, and its rows there
        self._before = sent
        self._held = self._count(version=sent) if sent else 0

    def plan(self, versions: Sequence[int]) -> PlannedStates:
        """Returns the plan for these states, oldest first."""
        is_sync = self._before > 0
        if is_sync and not versions and not self._named_since(None):
            return self._plan
        for version in versions[:MOST_COUNTED]:
            self._reach(version)
        self._finish(first_copy=not is_sync)
        self._plan.bytes = round(self._plan.rows * self._row_bytes)
        return self._plan

    def _count(
        self,
        after: Optional[int] = None,
        version: Optional[int] = None,
        after_key: Optional[str] = None,
    ) -> int:
        """Returns the rows inside the bounds; 0 if the server does not count them."""
        bounds = Bounds(after_xact=after or None, version=version, after_key=after_key)
        ids = [self._planned["id"]]
        return count_inside(self._catalog.source, KIND.name, ids, bounds) or 0

    def _reach(self, version: int) -> None:
        plan = self._plan
        self._write_named(version)
        rows = self._count(version=version)
        self._write(version, rows)
        plan.states += 1
        plan.compared.append(rows)
        # The state is counted after it was written, and once more after the last one.
        plan.queries += 2
        if self._held > rows:
            self._delete(rows, self._held - rows)
        self._before, self._held = version, rows

    def _write(self, version: Optional[int], rows: Optional[int] = None) -> None:
        """Insert the rows that were written since; `rows`: all rows of the state, if known."""
        plan, before = self._plan, self._before
        written = rows if rows is not None and not before else self._count(before, version)
        pages = page_rows_to_the_end(written, self._limits.page_rows)
        plan.rows += written
        plan.queries += len(pages) + 1
        plan.inserts += inserts(pages, self._row_bytes, self._limits)
        plan.inserts += inserts_of_comments(
            pages, self._row_bytes, self._limits, self._share_commented
        )
        self._held += self._new(written, version, rows)

    def _new(self, written: int, version: Optional[int], rows: Optional[int]) -> int:
        """Returns how many of the written rows are no edits."""
        if not self._held or not written or rows == self._held + written:
            return written
        return self._count(version=version, after_key=after_transaction(self._before))

    def _write_named(self, version: Optional[int]) -> None:
        """Insert the versions of rows that origins name and that the state has no more."""
        named = self._named_since(version)
        if not named:
            return
        self._plan.queries += self._id_pages(self._count(self._before, version))
        bounds = Bounds(xacts=sorted(named), version=version)
        shown = last_written(self._catalog.source, [self._planned["id"]], bounds)
        for xact in sorted(named):
            if shown.get(xact, 0) < named[xact]:
                self._write(xact)
                self._before = xact

    def _named_since(self, version: Optional[int]) -> Counter[int]:
        """Returns transaction -> how many of its rows are named, of those up to the version."""
        return Counter(
            xact
            for _, xact in self._named
            if xact > self._before and (version is None or xact <= version)
        )

    def _finish(self, *, first_copy: bool) -> None:
        """Delete what the source has no more; the present rows come with the copy."""
        dataset_id = self._planned["id"]
        self._write_named(None)
        if not self._before:
            return
        self._plan.late[dataset_id] = self._count(self._before)
        if first_copy:
            rows = self._planned["rows"] or 0
            new = self._count(after_key=after_transaction(self._before))
            self._delete(rows, max(0, self._held - (rows - new)))

    def _delete(self, rows: int, count: int) -> None:
        """Delete so many rows, which a list of the `rows` of the source lacks."""
        lists = min(count, math.ceil(self._held / IDS_PER_SELECT))
        self._plan.queries += self._id_pages(rows) + lists
        self._plan.inserts += lists
        self._plan.deletes += count

    def _id_pages(self, rows: int) -> int:
        seen = self._catalog.source.capabilities.full_page_rows
        limit = self._limits.page_rows
        return id_pages(rows, max(seen, limit if (self._planned["rows"] or 0) >= limit else 0))


def _present(
    catalog: Catalog, objects: Sequence[Mapping[str, Any]], past: NamedPast
) -> PlannedStates:
    """Returns the plan for states that are the present ones of datasets: these are compared.

    Costs one query for 25 datasets with states. See `present_states`.
    """
    rows_of = {planned["id"]: planned["rows"] or 0 for planned in objects}
    newest = _newest(catalog, list(filter(past.states_of, rows_of)))
    plan = PlannedStates()
    for pinned in past.pinned:
        known = [dataset_id for dataset_id in newest if pinned.get(dataset_id)]
        plan.queries += 2 * math.ceil(len(known) / OBJECTS_PER_QUERY)
        # The rows are counted once as they were then.
        plan.queries += sum(
            xact >= newest[dataset_id] for dataset_id in known for xact in pinned[dataset_id]
        )
    for dataset_id, last in newest.items():
        states = past.states_of(dataset_id)
        plan.compared += [rows_of[dataset_id] for xact in states if xact >= last]
    return plan


def _newest(catalog: Catalog, ids: Sequence[str]) -> Dict[str, int]:
    """Returns dataset -> its last transaction, if the server shows it."""
    newest: Dict[str, int] = {}
    for portion in portions(ids, OBJECTS_PER_QUERY):
        try:
            newest.update(newest_xacts(catalog.source, portion))
        except ApiError as error:
            log.info("states of datasets are not known: %s", error)
    return newest
