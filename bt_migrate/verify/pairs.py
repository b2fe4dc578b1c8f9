"""Objects with rows on both sides, and the context of every comparison of rows."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from bt_migrate.api.btql import OBJECTS_PER_QUERY, newest_query
from bt_migrate.api.transactions import xact_of, xact_seconds
from bt_migrate.attachments.copy import dest_attachment_key
from bt_migrate.attachments.digests import UNREADABLE, AttachmentBytes
from bt_migrate.attachments.read import names_of
from bt_migrate.model.portions import portions
from bt_migrate.model.references import attachment_places, value_at
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.count import Summaries
from bt_migrate.rows.read import FIRST_PAUSE_S
from bt_migrate.state.accepted import Accepted
from bt_migrate.state.wrong_attachments import WrongAttachment
from bt_migrate.verify.result import Comparison, ReportDifference


@dataclass(frozen=True)
class ObjectPair:
    """One object with rows on both sides, and what is known about its copy.

    `copied`: unix seconds at which the run that copied it began and ended; None without a run.
    `mark`: second of the source's clock up to which it was copied; 0 for the start of the run.
    `seen`: the file of the rows that the run delivered. `counts`: outcome -> rows, of the last sync
    if `synced`. `complete`: the last copy or sync was completed.
    """

    kind: str
    project: str
    name: str
    source_id: str
    dest_id: str
    copied: Optional[Tuple[float, float]] = None
    seen: Optional[Path] = None
    mark: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    synced: bool = False
    complete: bool = False
    # transactions at which both sides are read; None for the current rows
    source_version: Optional[int] = None
    dest_version: Optional[int] = None

    @property
    def facts(self) -> Dict[str, Any]:
        return {"id": self.source_id, "name": self.name}


@dataclass(frozen=True)
class BothAttachments:
    """Digests of the attachments of both organizations."""

    source: AttachmentBytes
    dest: AttachmentBytes
    # by key, those with other bytes in the destination
    wrong: Dict[str, WrongAttachment] = field(default_factory=dict)

    def note_wrong(self, wanted: Any, actual: Any) -> None:
        """Note the attachments of a row or object that have other bytes in the destination.

        Both values are as they were read. An attachment that is not a copy is left out.
        """
        for place in attachment_places(wanted):
            reference, there = value_at(wanted, place), value_at(actual, place)
            key = there.get("key") if isinstance(there, dict) else None
            if key != dest_attachment_key(self.dest.org_id, reference["key"]):
                continue
            mark = self.source.mark(reference)
            if mark not in (UNREADABLE, self.dest.mark(there)):
                key, names = reference["key"], names_of(reference)
                self.wrong[key] = WrongAttachment(key, names["filename"], names["content_type"])

    def close(self) -> None:
        self.source.close()
        self.dest.close()


class Patience:
    """Waits until the destination shows recently delivered rows.

    All streams share the same number of seconds, because the lag is the destination's.
    """

    def __init__(self, seconds: float, sleep: Callable[[float], Any]) -> None:
        self._left = seconds
        self._pause = FIRST_PAUSE_S
        self._sleep = sleep
        self._lock = threading.Lock()

    def wait(self) -> bool:
        """Sleep for the next pause; returns False once the time is used up."""
        with self._lock:
            pause = min(self._pause, self._left)
            self._left -= pause
            self._pause *= 2
            if pause > 0:
                self._sleep(pause)
            return pause > 0


@dataclass(frozen=True)
class CompareContext:
    """Everything that a comparison of rows needs. `sample`: rows compared of each stream."""

    catalog: Catalog
    attachments: BothAttachments
    patience: Patience
    report: ReportDifference
    accepted: Accepted
    sample: int = 0
    # ids that only the source has: a copied row must not contain one
    source_ids: FrozenSet[str] = frozenset()
    # object id on either side -> its last row count
    row_counts: Dict[str, int] = field(default_factory=dict)

    def note_counts(self, counts: Summaries) -> None:
        """Keep the counts of a side: reading ends once as many rows were read."""
        for object_id, count in counts.items():
            if count is not None:
                self.row_counts[object_id] = count.rows

    def counted_rows(self, object_ids: Sequence[str]) -> Optional[int]:
        """Returns the number of rows of all objects together, None if one was not counted."""
        if not all(object_id in self.row_counts for object_id in object_ids):
            return None
        return sum(self.row_counts[object_id] for object_id in object_ids)

    def with_rows(self, pairs: Sequence[ObjectPair]) -> List[ObjectPair]:
        """Returns the pairs that may have rows on a side; counts were compared for all others."""
        return [
            pair
            for pair in pairs
            if self.row_counts.get(pair.source_id) != 0 or self.row_counts.get(pair.dest_id) != 0
        ]

    def result(self, pair: ObjectPair, rows_text: str = "rows of") -> Comparison:
        rows_text = f"{rows_text} states of" if pair.source_version else rows_text
        return Comparison(f"{rows_text} {pair.kind}", pair.project, self.report, self.accepted)


def groups_of_pairs(pairs: Sequence[ObjectPair]) -> Iterator[List[ObjectPair]]:
    """Returns groups of pairs of one kind, each as large as one count query allows."""
    for kind in ROW_KINDS:
        yield from portions([pair for pair in pairs if pair.kind == kind], OBJECTS_PER_QUERY)


def copy_second(catalog: Catalog, pair: ObjectPair) -> Optional[int]:
    """Returns the unix second after which a change in the source is newer than the copy.

    With a run, that is its start or its last sync. Without one, it is the last write to the
    destination. None if neither is known.
    """
    if pair.copied:
        return pair.mark or int(pair.copied[0])
    id_field = ROW_KINDS[pair.kind].id_field
    rows = catalog.dest.query(newest_query(pair.kind, id_field, [pair.dest_id])).json
    return xact_seconds(xact_of(rows[0].get("newest"))) or None if rows else None
