"""Reading of rows in threads of its own: the next page while the last is taken apart, the first ones while objects are made."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from concurrent.futures import Future, wait
from itertools import islice
from typing import Any, Deque, Dict, Generator, Iterable, Iterator, Optional, Sequence, Tuple

from bt_migrate.api.btql import Bounds
from bt_migrate.model.resources import RowKind
from bt_migrate.objects.catalog import Catalog
from bt_migrate.rows.read import Page, pages
from bt_migrate.rows.slices import Reader
from bt_migrate.rows.streams import bounds_of

PAGES_AHEAD = 1  # decoded pages that wait for the consumer, beside the one that is being read
LARGE_STREAMS_AT_ONCE = 4


class ReadAhead:
    """Runs an iterator of pages in a thread of its own, so that the next page is on its way while the last is taken apart.

    It begins at once; until `with` it goes no further than the first page. Holds only PAGES_AHEAD of them: rows wait as bytes, in
    the batches that the consumer makes, not as objects.
    """

    def __init__(self, source: Iterable[Page]) -> None:
        self._source = iter(source)
        self._ready: Deque[Tuple[Optional[Page], Optional[BaseException]]] = deque()
        self._changed = threading.Condition()
        self._wanted = False
        self._closed = False
        self._poked = False
        threading.Thread(target=self._run, name="read-ahead", daemon=True).start()

    def __enter__(self) -> ReadAhead:
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def poke(self, *_: Any) -> None:
        """Make the iteration give None once, for a consumer that has something else to do meanwhile."""
        with self._changed:
            self._poked = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Optional[Page]]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._ready) or self._poked)
                poked, self._poked = self._poked, False
                page, error = (None, None) if poked else self._ready.popleft()
                self._changed.notify_all()
            if poked:
                yield None
                continue
            if error is not None:
                raise error
            if page is None:
                return
            yield page

    def _run(self) -> None:
        """The thread: an error of the source is handed to the consumer after the pages before it."""
        try:
            for page in self._source:
                if not self._hand_over(page, None):
                    return
            self._hand_over(None, None)
        except Exception as error:  # noqa: BLE001  not swallowed: the consumer raises it
            self._hand_over(None, error)
        finally:
            if isinstance(self._source, Generator):
                self._source.close()

    def _hand_over(self, page: Optional[Page], error: Optional[BaseException]) -> bool:
        """Whether the consumer still wants more."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (self._wanted and len(self._ready) < PAGES_AHEAD)
            )
            if not self._closed:
                self._ready.append((page, error))
                self._changed.notify_all()
            return not self._closed


class FirstPages:
    """Starts the reading of streams, of some before it is wanted: what the source holds does not wait for what is made in the
    destination. `with`: what nobody wanted ends.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._large = threading.BoundedSemaphore(LARGE_STREAMS_AT_ONCE)
        self._lock = threading.Lock()
        self._closed = False
        self._beginning = threading.Event()  # cleared while reading is being begun
        self._beginning.set()
        self._begun: Dict[Tuple[Tuple[str, ...], Bounds], ReadAhead] = {}
        self._began: Dict[Tuple[str, ...], float] = {}

    def __enter__(self) -> FirstPages:
        return self

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._closed = True
            for ahead in self._begun.values():
                ahead.close()

    def begin(
        self, kind: RowKind, groups: Iterable[Sequence[str]], after: Optional[Future[None]] = None
    ) -> None:
        """Read the first page of each group of objects, in the background: what is made meanwhile does not wait until ten threads have
        been started. `after`: once that is done.
        """
        self._beginning.clear()
        threading.Thread(
            target=self._begin, args=(kind, groups, after), name="first-pages", daemon=True
        ).start()

    def _begin(
        self, kind: RowKind, groups: Iterable[Sequence[str]], after: Optional[Future[None]]
    ) -> None:
        try:
            if after is not None:
                wait([after])
            for ids in groups:
                bounds = bounds_of(self._catalog, kind)
                with self._lock:
                    if self._closed:
                        return
                    self._began[tuple(ids)] = self._catalog.source.clock.mark_s()
                    self._begun[tuple(ids), bounds] = ReadAhead(
                        self._pages(kind, ids, bounds, None)
                    )
        finally:
            self._beginning.set()

    def began(self, ids: Sequence[str]) -> float:
        """Unix seconds, by the source's clock, at which the reading of these objects began; now, if it has not."""
        self._beginning.wait()
        return self._began.get(tuple(ids)) or self._catalog.source.clock.mark_s()

    def of(
        self, kind: RowKind, ids: Sequence[str], bounds: Bounds, reader: Optional[Reader] = None
    ) -> ReadAhead:
        """All pages of these objects inside the bounds."""
        self._beginning.wait()
        begun = self._begun.pop((tuple(ids), bounds), None) if reader is None else None
        return begun or ReadAhead(self._pages(kind, ids, bounds, reader))

    def _pages(
        self, kind: RowKind, ids: Sequence[str], bounds: Bounds, reader: Optional[Reader]
    ) -> Generator[Page, None, None]:
        """Behind the first page only a few streams at once, because each holds some decoded pages."""
        limit = self._catalog.settings.rows(kind.name).fetch_limit
        source = pages(self._catalog.source, kind.name, ids, bounds, limit=limit, reader=reader)
        yield from islice(source, 1)
        with self._large if reader is None else contextlib.nullcontext():
            yield from source
