"""Sends the queries of one stream, up to one page ahead of its reader.

Threads: the reader's own thread requests and waits. Two page threads, which belong to one
`PageAhead` and end with it, alternate: while one decodes a page, the other has already sent the
query for the next one. For that, the key after which the next page begins is searched in the
undecoded bytes. Decoding holds the interpreter lock, so without this the network would be idle
meanwhile.
"""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Callable, FrozenSet, List, Optional, Sequence, Tuple

from bt_migrate.api.btql import Bounds, page_query
from bt_migrate.api.client import Api
from bt_migrate.api.request import RETRY_STATUSES, Answer
from bt_migrate.errors import ApiError

# Statuses for a query that takes too long; a smaller limit helps.
SIZE_STATUSES = frozenset((500, 504))
# The next page is requested before decoding only if this page is not larger: both are in memory.
MAX_AHEAD_BYTES = 8 << 20
# pause before decoding, so that the other thread can send its query
HANDOFF_S = 0.003
PAGE_THREADS = 2
_KEY_NAME = b'"_pagination_key"'
_KEY_VALUE = re.compile(rb'\s*:\s*"([^"\\]+)"')

Task = Callable[[], None]


@dataclass
class AskedPage:
    """A requested page.

    `rows_before`: how many rows of the stream were read before it. `rows_shown`: the same,
    including rows of a last key that was incomplete and that are therefore read again.
    """

    bounds: Bounds
    limit: int
    rows_before: int
    rows_shown: int
    smaller_helps: bool
    answer: Future[Optional[Answer]] = field(default_factory=Future)
    wanted: bool = False  # the reader waits for it


class PageAhead:
    """Requests the pages of one stream, at most one page ahead of the reader."""

    def __init__(
        self, api: Api, kind: str, object_ids: Sequence[str], may_ask: Callable[[AskedPage], bool]
    ) -> None:
        """`may_ask` returns whether a page may be requested before the reader waits for it."""
        self._api = api
        self._kind = kind
        self._ids = object_ids
        self._may_ask = may_ask
        self._asked: Optional[AskedPage] = None
        # the reader and a page thread may both ask for the next page
        self._lock = threading.Lock()
        self._lanes: List[SimpleQueue[Optional[Task]]] = []

    @property
    def has_asked(self) -> bool:
        """Whether a page is requested and not yet used."""
        return self._asked is not None

    def ask(self, page: AskedPage) -> bool:
        """Request a page, unless one is already requested. Returns whether it did."""
        with self._lock:
            if self._asked is not None:
                return False
            self._asked = page
            # the thread of the previous page may still be decoding, so use the other one
            lane = self._lanes.pop(0) if len(self._lanes) == PAGE_THREADS else _start_lane()
            self._lanes.append(lane)
            lane.put(lambda: self._answer(page))
        return True

    def want(self, page: AskedPage) -> AskedPage:
        """Returns the requested page if the reader needs that one, else requests the needed one."""
        with self._lock:
            asked = self._asked
            if asked and (asked.bounds.place, asked.limit) != (page.bounds.place, page.limit):
                self._asked = asked = None  # not the page needed: drop its answer
        if asked is None:
            page.wanted = True
            self.ask(page)
            asked = page
        asked.wanted = True
        return asked

    def take(self, page: AskedPage) -> Optional[Answer]:
        """Returns the answer of a wanted page, None if the server found it too large.

        Raises what the query raised.
        """
        answer = page.answer.result()
        with self._lock:
            if self._asked is page:
                self._asked = None
        return answer

    def close(self) -> None:
        for lane in self._lanes:
            lane.put(None)

    # -- in the page threads

    def _answer(self, page: AskedPage) -> None:
        try:
            page.answer.set_result(self._query(page))
        except BaseException as error:  # noqa: BLE001  not swallowed: who wants the page raises it
            page.answer.set_exception(error)

    def _query(self, page: AskedPage) -> Optional[Answer]:
        statuses: FrozenSet[int] = RETRY_STATUSES
        if page.smaller_helps:
            statuses = RETRY_STATUSES - SIZE_STATUSES
        try:
            return self._api.query(
                page_query(self._kind, self._ids, page.bounds, page.limit),
                retry_statuses=statuses,
                on_body=lambda content: self._ask_early(page, content),
                version=page.bounds.version,
            )
        except ApiError as error:
            if error.status in SIZE_STATUSES and page.smaller_helps:
                return None
            raise

    def _ask_early(self, page: AskedPage, content: bytes) -> None:
        """Request the next page before this one is decoded, if the reader waits for this one."""
        if not page.wanted or len(content) > MAX_AHEAD_BYTES:
            return
        key, held_back = next_after(content, page.limit)
        if key is None:
            return
        following = AskedPage(
            page.bounds.after(key),
            page.limit,
            page.rows_before + page.limit - held_back,
            page.rows_before + page.limit,
            page.smaller_helps,
        )
        if not self._may_ask(following):
            return
        with self._lock:
            if self._asked is page:
                self._asked = None
        if self.ask(following):
            time.sleep(HANDOFF_S)


def _start_lane() -> SimpleQueue[Optional[Task]]:
    """Returns the queue of a new thread that runs each queued function until it gets None.

    A daemon thread: the program does not wait for it at its end.
    """
    tasks: SimpleQueue[Optional[Task]] = SimpleQueue()

    def work() -> None:
        task = tasks.get()
        while task is not None:
            task()
            del task  # it holds the page, whose memory is needed for the next one
            task = tasks.get()

    threading.Thread(target=work, name="page", daemon=True).start()
    return tasks


def next_after(content: bytes, limit: int) -> Tuple[Optional[str], int]:
    """Returns (key after which the next page begins, number of rows with the last key).

    The key is the last but one of this full page, because the next page may have more rows with the
    last key. (None, 0) if the bytes look different.
    """
    if content.count(_KEY_NAME) < limit:
        return None, 0
    place = len(content)
    last: Optional[bytes] = None
    held_back = 0
    while True:
        place = content.rfind(_KEY_NAME, 0, place)
        match = _KEY_VALUE.match(content, place + len(_KEY_NAME)) if place >= 0 else None
        if match is None:
            return None, 0
        if last not in (None, match[1]):
            return match[1].decode(), held_back
        last = match[1]
        held_back += 1
