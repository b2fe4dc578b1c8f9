"""The page readers of the source's streams.

Some readers request their first page in advance, while objects are created in the destination.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, Dict, List, Optional, Sequence, Tuple

from bt_migrate.api.btql import Bounds
from bt_migrate.model.resources import RowKind
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.count import RowCounts
from bt_migrate.rows.read import PageReader, RowSelection
from bt_migrate.rows.slices import SliceReader
from bt_migrate.rows.streams import RowStream, bounds_of

# streams read beyond their first page at once: each holds decoded pages in memory
LARGE_STREAMS_AT_ONCE = 4


class SourceReaders:
    """Returns page readers. Leaving `with` closes the unused ones. Safe for many threads."""

    def __init__(self, catalog: Catalog, counts: RowCounts) -> None:
        self.counts = counts
        self._catalog = catalog
        self._turns = threading.BoundedSemaphore(LARGE_STREAMS_AT_ONCE)
        self._lock = threading.Lock()
        self._closed = False
        # cleared until `begin` has requested the first pages
        self._ready = threading.Event()
        self._ready.set()
        self._started: Dict[Tuple[Tuple[str, ...], Bounds], PageReader] = {}

    def __enter__(self) -> SourceReaders:
        return self

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._closed = True
            for reader in self._started.values():
                reader.close()

    def begin(
        self,
        kind: RowKind,
        groups: Sequence[Sequence[RowStream]],
        after: Optional[Future[None]] = None,
    ) -> None:
        """Request the first page of each group of new streams, after `after` if it is given."""
        self._ready.clear()
        if after is None:
            self._begin(kind, groups)
        else:
            after.add_done_callback(lambda _: self._begin(kind, groups))

    def _begin(self, kind: RowKind, groups: Sequence[Sequence[RowStream]]) -> None:
        bounds = bounds_of(self._catalog, kind)
        try:
            for group in groups:
                ids = [stream.source_id for stream in group]
                reader = self._reader(kind, ids, bounds, expected_rows(group))
                with self._lock:
                    if self._closed:
                        return
                    self._started[tuple(ids), bounds] = reader
                reader.start()
        finally:
            self._ready.set()

    def of(
        self, kind: RowKind, object_ids: Sequence[str], bounds: Bounds, expected: Optional[int]
    ) -> PageReader:
        """Returns a reader of these objects inside the bounds. The caller closes it."""
        self._ready.wait()
        with self._lock:
            started = self._started.pop((tuple(object_ids), bounds), None)
        return started or self._reader(kind, object_ids, bounds, expected)

    def of_slice(
        self, kind: RowKind, object_id: str, bounds: Bounds, slice_reader: SliceReader
    ) -> PageReader:
        """Returns a reader of one end of a slice. The caller closes it."""
        return PageReader(
            self._catalog.source,
            RowSelection(kind.name, [object_id], bounds),
            limit=self._catalog.settings.rows(kind.name).fetch_limit,
            slice_reader=slice_reader,
        )

    def _reader(
        self, kind: RowKind, object_ids: Sequence[str], bounds: Bounds, expected: Optional[int]
    ) -> PageReader:
        return PageReader(
            self._catalog.source,
            RowSelection(kind.name, object_ids, bounds, expected),
            limit=self._catalog.settings.rows(kind.name).fetch_limit,
            turn=self._turns,
        )


def expected_rows(streams: Sequence[RowStream]) -> Optional[int]:
    """Returns the number of rows of all streams together, None if one of them was not counted."""
    counts: List[Optional[int]] = [stream.rows for stream in streams]
    return None if None in counts else sum(count or 0 for count in counts)
