"""Rows by number: one aggregate query for each group of objects and side, more only where they disagree. Never writes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.api.btql import OBJECTS_PER_COUNT, count_query, newest_query
from bt_migrate.api.transactions import after_second, xact_of, xact_seconds
from bt_migrate.model.equality import same
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.count import Summaries, Summary, summaries
from bt_migrate.rows.streams import bounds_of
from bt_migrate.verify.objects import (
    DIFFERS,
    EXTRA,
    MATCH,
    MISSING,
    UNREADABLE,
    Bytes,
    Comparison,
    Tell,
)

FIRST_PAUSE_S = 0.5  # for a destination that does not show fresh rows yet; doubles with each


@dataclass(frozen=True)
class Pair:
    """One object with rows on both sides.

    `copied`: unix seconds at which the run that copied it began and ended, None where no run is known. `mark`: of the source's
    clock, up to which it was copied. `seen`: file of the rows that it delivered.
    """

    kind: str
    project: str
    name: str
    source_id: str
    dest_id: str
    copied: Optional[Tuple[float, float]] = None
    seen: Optional[Path] = None
    mark: int = 0

    @property
    def facts(self) -> Dict[str, Any]:
        return {"id": self.source_id, "name": self.name}


class Patience:
    """Waits for fresh rows to be shown: so many seconds for all streams together, for the lag is the destination's."""

    def __init__(self, seconds: float, sleep: Callable[[float], Any]) -> None:
        self._left, self._pause, self._sleep, self._lock = (
            seconds,
            FIRST_PAUSE_S,
            sleep,
            threading.Lock(),
        )

    def wait(self) -> bool:
        """Whether there was time left to wait; then it is over."""
        with self._lock:
            pause = min(self._pause, self._left)
            self._left, self._pause = self._left - pause, self._pause * 2
            if pause > 0:
                self._sleep(pause)
            return pause > 0


@dataclass(frozen=True)
class CompareContext:
    """All that a comparison of rows needs."""

    catalog: Catalog
    bytes_of: Bytes
    patience: Patience
    tell: Tell
    sample: int = 0  # rows of each stream

    def result(self, pair: Pair, what: str = "rows of") -> Comparison:
        return Comparison(f"{what} {pair.kind}", pair.project, self.tell)


def grouped(pairs: Sequence[Pair], size: int = OBJECTS_PER_COUNT) -> Iterator[List[Pair]]:
    """Pairs of one kind, so many at a time."""
    for kind in ROW_KINDS:
        ours = [pair for pair in pairs if pair.kind == kind]
        yield from (ours[start : start + size] for start in range(0, len(ours), size))


def both(sides: CompareContext, group: Sequence[Pair]) -> List[Summaries]:
    """Source and destination, at the same time."""
    catalog, kind = sides.catalog, group[0].kind
    asked = (
        (catalog.source, [pair.source_id for pair in group]),
        (catalog.dest, [pair.dest_id for pair in group]),
    )
    with ThreadPoolExecutor(2, thread_name_prefix="count") as pool:
        return list(pool.map(lambda one: summaries(catalog, one[0], kind, one[1]), asked))


def compare_counts(
    sides: CompareContext, group: Sequence[Pair]
) -> Tuple[List[Comparison], Summaries]:
    """Objects of one kind, by number of rows, distinct ids, first and last date; and what the source said.

    A destination that shows fewer is given time.
    """
    source, dest = both(sides, group)
    while (
        any(_short(source[pair.source_id], dest[pair.dest_id]) for pair in group)
        and sides.patience.wait()
    ):
        dest = summaries(
            sides.catalog, sides.catalog.dest, group[0].kind, [pair.dest_id for pair in group]
        )
    return [
        _judge(sides, pair, source[pair.source_id], dest[pair.dest_id]) for pair in group
    ], source


def _short(wanted: Optional[Summary], found: Optional[Summary]) -> bool:
    return wanted is not None and found is not None and found.rows < wanted.rows


def _judge(
    sides: CompareContext, pair: Pair, wanted: Optional[Summary], found: Optional[Summary]
) -> Comparison:
    result = sides.result(pair, "row counts of")
    if wanted is None or found is None:
        result.add(UNREADABLE, **pair.facts, detail="rows cannot be counted")
    elif found.rows != wanted.rows:
        short = found.rows < wanted.rows
        detail = f"{wanted.rows:,} rows in the source, {found.rows:,} in the destination"
        since = short and wanted.rows - found.rows <= _came_since(sides.catalog, pair)
        result.add(MISSING if short else EXTRA, since=since, **pair.facts, detail=detail)
    elif found.ids != wanted.ids:
        result.add(
            DIFFERS,
            **pair.facts,
            detail=f"{wanted.ids:,} ids in the source, {found.ids:,} in the destination",
        )
    elif not (same(wanted.first, found.first) and same(wanted.last, found.last)):
        detail = f"created {wanted.first} to {wanted.last} in the source, {found.first} to {found.last} in the destination"
        result.add(DIFFERS, **pair.facts, fields=["created"], detail=detail)
    else:
        result.add(MATCH)
    return result


def _came_since(catalog: Catalog, pair: Pair) -> int:
    """Rows that the source took in after the copy."""
    copied_at = copy_second(catalog, pair)
    if copied_at is None:
        return 0
    bounds = bounds_of(catalog, ROW_KINDS[pair.kind]).after(after_second(copied_at))
    rows = catalog.source.query(count_query(pair.kind, [pair.source_id], bounds)).json
    return int(rows[0]["rows"]) if rows else 0


def copy_second(catalog: Catalog, pair: Pair) -> Optional[int]:
    """Unix seconds after which the source's changes are newer than the copy: its run began then, or its last sync; without a run, the
    destination was last written to then. None for neither.
    """
    if pair.copied:
        return pair.mark or int(pair.copied[0])
    rows = catalog.dest.query(
        newest_query(pair.kind, ROW_KINDS[pair.kind].id_field, [pair.dest_id])
    ).json
    return xact_seconds(xact_of(rows[0].get("newest"))) or None if rows else None
