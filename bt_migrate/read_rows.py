"""Read the rows of a stream: BTQL pages in key order, one after the other, the next already on its way.

Knows nothing of what becomes of the rows; the copy and the comparison both read through here.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Deque, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.api import CURSOR_HEADER, RETRY_STATUSES, Answer, Api, looks_capped
from bt_migrate.btql import MAX_LIMIT, MIN_LIMIT, Bounds, last_key_query, page_query, smaller_limit
from bt_migrate.errors import ApiError, NetworkError
from bt_migrate.keys import key_seconds
from bt_migrate.slices import KeyRange

log = logging.getLogger("bt_migrate.rows")

SIZE_STATUSES = frozenset((500, 504))  # what a query that takes too long is answered with: a smaller LIMIT helps
PAGES_BEFORE_GROWTH = 4  # pages in a row that must succeed before a reduced LIMIT is doubled again
PAGES_AHEAD = 1  # decoded pages that wait for the consumer, beside the one that is being read
CLOCK_SLACK_S = 2  # what is written in the second of the start is before the mark, whatever the rounding


@dataclass(frozen=True)
class Page:
    """Rows in ascending key order, and the key up to which, with them, everything has been read."""

    rows: List[dict]
    end_key: str
    last: bool = False  # nothing comes after it
    plain: bool = False  # see json_text.decode


def pages(
    api: Api, kind: str, object_ids: Sequence[str], bounds: Bounds, *, limit: int, key_range: Optional[KeyRange] = None
) -> Iterator[Page]:
    """All rows inside the bounds, page by page. A page never ends between two rows of one key: none is skipped or repeated by
    paging.

    A short page without a cursor is the end; where its size is a round number the server may cap pages, and is asked once more.
    A stream that grows while it is read ends at what was there when it was begun. `key_range`: a slice whose end may come nearer.
    """
    most = now = min(limit, MAX_LIMIT)
    good, began, doubted, held, widened = 0, api.server_seconds(), 0, 0, False
    while True:
        if key_range is not None:
            bounds = replace(bounds, end_key=key_range.end)
        answer = _query(api, kind, object_ids, bounds, now, smaller_helps=now > MIN_LIMIT and not widened)
        if answer is None:
            now, good = smaller_limit(now), 0
            log.info("%s timed out, reading %d rows a page", api.side, now, extra={"event": "smaller_pages"})
            continue
        rows = answer.json
        if doubted and len(rows) > held:
            most = now = doubted  # the server does cap pages
        elif doubted:
            api.short_pages_end = True
        short = len(rows) < now and not answer.headers.get(CURSOR_HEADER)
        doubted = len(rows) if short and not api.short_pages_end and looks_capped(len(rows)) else 0
        ended = not rows or (short and not doubted) or _is_new(api, rows, began)
        if len(object_ids) > 1 and now <= len(rows) < MAX_LIMIT and _one_key(rows):
            # Objects that were written together share keys: all rows of this one are needed, or (an error) each object read alone.
            now, doubted, widened = min(MAX_LIMIT, len(rows) * 2), 0, True
            continue
        if key_range is not None:
            inside = key_range.take([row.get("_pagination_key") or "" for row in rows])
            rows, ended = rows[:inside], ended or inside < len(rows)
        if rows:
            page = _page(api, rows, answer.plain, ended, bounds.after_key)
            held = len(rows) - len(page.rows)
            bounds = bounds.after(page.end_key)
            yield page
        if ended:
            return
        good += 1
        now, widened = min(now, most), False
        if now < most and good % PAGES_BEFORE_GROWTH == 0:
            now = min(most, now * 2)


def _one_key(rows: List[dict]) -> bool:
    return rows[0].get("_pagination_key") == rows[-1].get("_pagination_key")


def _query(
    api: Api, kind: str, object_ids: Sequence[str], bounds: Bounds, limit: int, *, smaller_helps: bool
) -> Optional[Answer]:
    """One page, None where the server found it too large and a smaller one may do."""
    statuses = RETRY_STATUSES - SIZE_STATUSES if smaller_helps else RETRY_STATUSES
    try:
        return api.query(page_query(kind, object_ids, bounds, limit), retry_statuses=statuses)
    except ApiError as error:
        if error.status in SIZE_STATUSES and smaller_helps:
            return None
        raise


def _is_new(api: Api, rows: List[dict], began: float) -> bool:
    """Whether the page reaches rows that came after the start, by the server's own clock; a key from its future is no date."""
    taken_in = key_seconds(rows[-1].get("_pagination_key") or "") if rows else 0
    return began + CLOCK_SLACK_S < taken_in <= api.server_seconds() + CLOCK_SLACK_S


def _page(api: Api, rows: List[dict], plain: bool, ended: bool, after_key: Optional[str]) -> Page:
    keys: List[str] = [row.get("_pagination_key") or "" for row in rows]
    if not all(keys):
        raise NetworkError(f"{api.side}: rows come without _pagination_key; this data plane is too old to be read in order")
    last = keys[-1]
    if after_key is not None and last <= after_key:
        raise NetworkError(f"{api.side}: pages do not advance beyond {after_key}; the server ignores the filter or the sort")
    if not ended and keys[0] != last:  # rows of the last key may go on in the next page: they are read again as a whole
        rows = [row for row, key in zip(rows, keys) if key != last]
    return Page(rows, rows[-1]["_pagination_key"], ended, plain)


def last_key(api: Api, kind: str, object_ids: Sequence[str], bounds: Bounds) -> Optional[str]:
    """The last key inside the bounds, None where there are no rows. One query."""
    rows = api.query(last_key_query(kind, object_ids, bounds)).json
    return rows[0]["_pagination_key"] if rows else None


class ReadAhead:
    """Runs an iterator of pages in a thread of its own, so that the next page is on its way while the last is taken apart.

    Holds only PAGES_AHEAD of them: rows wait as bytes, in the batches that the consumer makes, not as objects.
    """

    def __init__(self, source: Iterator[Page]) -> None:
        self._source = source
        self._ready: Deque[Tuple[Optional[Page], Optional[BaseException]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._poked = False
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
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

    def _hand_over(self, page: Optional[Page], error: Optional[BaseException]) -> bool:
        """Whether the consumer still wants more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._ready) < PAGES_AHEAD)
            if not self._closed:
                self._ready.append((page, error))
                self._changed.notify_all()
            return not self._closed
