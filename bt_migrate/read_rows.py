"""Read the rows of a stream: BTQL pages in key order, one after the other, the next already on its way.

Knows nothing of what becomes of the rows; the copy and the comparison both read through here.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass
from typing import Deque, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.api import CURSOR_HEADER, RETRY_STATUSES, Api, looks_capped
from bt_migrate.btql import MAX_LIMIT, MIN_LIMIT, page_query, smaller_limit
from bt_migrate.errors import ApiError, NetworkError

log = logging.getLogger("bt_migrate.rows")

SIZE_STATUSES = frozenset((500, 504))  # what a query that takes too long is answered with: a smaller LIMIT helps
PAGES_BEFORE_GROWTH = 4  # pages in a row that must succeed before a reduced LIMIT is doubled again
MAX_BYTES_AHEAD = 8 << 20  # of JSON; decoded it is several times that


@dataclass(frozen=True)
class Page:
    """Rows in ascending key order, and the key up to which, with them, everything has been read."""

    rows: List[dict]
    end_key: str
    size: int  # bytes of the answer


@dataclass(frozen=True)
class Window:
    """Half-open bounds of `created`; None for none."""

    after: Optional[str] = None
    before: Optional[str] = None


def pages(
    api: Api, kind: str, object_ids: Sequence[str], *, limit: int, after_key: Optional[str] = None, window: Window = Window()
) -> Iterator[Page]:
    """All rows above `after_key`, page by page. A page never ends between two rows of one key: no row is skipped or repeated by
    paging.

    A short page without a cursor is the end; where its size is a round number the server may cap pages, and is asked once more.
    """
    most = min(limit, MAX_LIMIT)
    now, good, trusted = most, 0, False
    while True:
        try:
            answer = api.query(
                page_query(
                    kind, object_ids, limit=now, after_key=after_key, created_after=window.after, created_before=window.before
                ),
                retry_statuses=RETRY_STATUSES - SIZE_STATUSES if now > MIN_LIMIT else RETRY_STATUSES,
            )
        except ApiError as error:
            if error.status not in SIZE_STATUSES or now <= MIN_LIMIT:
                raise
            now, good = smaller_limit(now), 0
            log.info("%s answered %s, reading %d rows a page", api.side, error.status, now, extra={"event": "smaller_pages"})
            continue
        rows = answer.json
        short = len(rows) < now and not answer.headers.get(CURSOR_HEADER)
        ended = not rows or (short and (trusted or not looks_capped(len(rows))))
        if rows:
            page = _page(api, rows, answer.size, ended, after_key)
            after_key = page.end_key
            yield page
        elif good:
            trusted = True  # the round page before this empty one was the end
        if ended:
            return
        good += 1
        if now < most and good % PAGES_BEFORE_GROWTH == 0:
            now = min(most, now * 2)


def _page(api: Api, rows: List[dict], size: int, ended: bool, after_key: Optional[str]) -> Page:
    keys: List[str] = [row.get("_pagination_key") or "" for row in rows]
    if not all(keys):
        raise NetworkError(f"{api.side}: rows come without _pagination_key; this data plane is too old to be read in order")
    last = keys[-1]
    if after_key is not None and last <= after_key:
        raise NetworkError(f"{api.side}: pages do not advance beyond {after_key}; the server ignores the filter or the sort")
    if not ended and keys[0] != last:  # rows of the last key may go on in the next page: they are read again as a whole
        rows = [row for row, key in zip(rows, keys) if key != last]
    return Page(rows, rows[-1]["_pagination_key"], size)


class ReadAhead:
    """Runs an iterator of pages in a thread of its own, ahead of its consumer until `max_bytes` of pages are not yet released."""

    def __init__(self, source: Iterator[Page], max_bytes: int = MAX_BYTES_AHEAD) -> None:
        self._source, self._max_bytes = source, max_bytes
        self._ready: Deque[Tuple[Optional[Page], Optional[BaseException]]] = deque()
        self._changed = threading.Condition()
        self._bytes = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Page]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._ready))
                page, error = self._ready.popleft()
            if error is not None:
                raise error
            if page is None:
                return
            yield page

    def release(self, page: Page) -> None:
        """The page's rows are written: its bytes are free."""
        with self._changed:
            self._bytes -= page.size
            self._changed.notify_all()

    def _run(self) -> None:
        """The thread: an error of the source is handed to the consumer after the pages before it."""
        try:
            for page in self._source:
                with self._changed:
                    self._bytes += page.size
                    self._ready.append((page, None))
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._closed or self._bytes < self._max_bytes)
                    if self._closed:
                        return
            self._hand_over(None)
        except Exception as error:  # noqa: BLE001  not swallowed: the consumer raises it
            self._hand_over(error)

    def _hand_over(self, error: Optional[BaseException]) -> None:
        with self._changed:
            self._ready.append((None, error))
            self._changed.notify_all()
