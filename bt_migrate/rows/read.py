"""Read the rows of a stream: BTQL pages in key order, one after the other, the next one already on
its way.

Knows nothing of what is done with the rows: the copy and the comparison both read through here.

Where a stream ends is known from its count. The service sends a cursor with every non-empty page,
and a server may cap pages at any size, so neither a cursor nor a short page proves anything. A
reader that is given the number of rows ends once it has read as many; one that has read fewer, or
does not know the number, goes on until a page is empty.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import Any, Iterator, List, Optional, Sequence

from bt_migrate.api.btql import (
    MAX_LIMIT,
    MIN_LIMIT,
    Bounds,
    count_query,
    page_query,
    rows_query,
    smaller_limit,
)
from bt_migrate.api.client import Api
from bt_migrate.api.request import QUERY_PATH, RETRY_STATUSES, Answer
from bt_migrate.api.transactions import after_second, key_before, key_seconds
from bt_migrate.errors import AnswerError, ApiError
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.rows.by_id import query_by_ids
from bt_migrate.rows.facets import add_facets
from bt_migrate.rows.page_ahead import SIZE_STATUSES, AskedPage, PageAhead
from bt_migrate.rows.page_checks import KEY, has_one_key, refusal, without_cut_off_key
from bt_migrate.rows.page_size import PageSize
from bt_migrate.rows.slices import SliceReader

log = logging.getLogger("bt_migrate.rows")

# A row that was received in the second of the start is from before the start, whatever the
# rounding.
SAME_SECOND_S = 2
# a signal is handled within this time while a reader waits
POLL_S = 0.5


@dataclass(frozen=True)
class Page:
    """Rows in ascending key order. With them, everything up to `end_key` has been read (from the
    other end: down to it).
    """

    rows: List[dict]
    end_key: str
    last: bool = False  # nothing comes after it
    plain: bool = False  # see json_codec.decode


def unusable_answer(api: Api, why: str) -> ApiError:
    """The error of a stream whose server answers something else than was asked for."""
    return AnswerError(api.side, "POST", QUERY_PATH, 200, why)


# belief: keys_sort_by_insertion, rows_keep_key_and_created
class PageReader:
    """Reads the pages of the objects inside the bounds; used by one thread, which owns it.

    No page ends between two rows of one key, so none is skipped or repeated. A stream that grows
    while it is read ends at what was there at its start.

    `expected`: how many rows there are, where that is known. `slice_reader`: reads one end of a
    slice, whose bounds move while others read it too. `turn`: held from the second page on, because
    a stream that is read on holds decoded pages in memory.
    """

    def __init__(
        self,
        api: Api,
        kind: str,
        object_ids: Sequence[str],
        bounds: Bounds,
        *,
        limit: int,
        expected: Optional[int] = None,
        slice_reader: Optional[SliceReader] = None,
        turn: Optional[threading.BoundedSemaphore] = None,
    ) -> None:
        self.rows = 0
        self.began_s = now_s(api)
        self._api = api
        self._kind = kind
        self._ids = object_ids
        self._bounds = bounds
        self._expected = expected
        self._slice = slice_reader
        self._turn = turn
        self._has_turn = turn is None
        self._size = PageSize(limit, api.capabilities)
        self._ahead = PageAhead(api, kind, object_ids, self._may_need)
        self._ended = False
        self._wanted: Optional[AskedPage] = None
        # rows of all answers, with those that are read again because their key was cut off
        self._rows_shown = 0
        self._turn_lock = threading.Lock()

    # -- for its owner

    def start(self) -> None:
        """Ask for the first page; it is taken later."""
        self._ahead.ask(self._next_asked())

    def is_ready(self, also: Optional[Future[Any]], timeout_s: float) -> bool:
        """Wait until `next_page` does not block, until `also` is done, or so long. Returns whether
        `next_page` is ready.
        """
        if self._ended or self._slice_is_left():
            return True
        if not self._take_turn(self.rows, 0.0 if also else timeout_s):
            wait([also] if also else [], timeout_s)
            return False
        mine = self._awaited(self._want())
        done = wait([*mine, *([also] if also else [])], timeout_s, FIRST_COMPLETED).done
        return any(future in done for future in mine)

    def next_page(self) -> Optional[Page]:
        """The next page with rows; None once nothing is left. Raises what the query raised, and
        ApiError for another answer.
        """
        while not self._ended:
            asked = self._next_answered()
            page = self._page_of(asked) if asked is not None else None
            if page is not None:
                if not self._ended:
                    self._ask_ahead()
                return page
        return None

    def close(self) -> None:
        """End the page threads. The reader of a slice has nothing on its way any more."""
        if self._slice is not None:
            self._slice.stop()
        self._ahead.close()
        if self._has_turn and self._turn is not None:
            self._turn.release()
        self._turn = None

    # -- asking

    def _next_asked(self) -> AskedPage:
        if self._slice is not None:
            self._bounds = self._slice.unread(self._bounds)
        return AskedPage(
            self._bounds, self._size.limit, self.rows, self._rows_shown, self._size.smaller_helps
        )

    def _want(self) -> AskedPage:
        """The page that the reader waits for, until it is taken."""
        if self._wanted is None:
            self._wanted = self._ahead.want(self._next_asked())
        return self._wanted

    def _awaited(self, asked: AskedPage) -> List[Future[Any]]:
        return [asked.answer, *([self._slice.over] if self._slice is not None else [])]

    def _ask_ahead(self) -> None:
        """Have the next page on its way while this one is used; in a slice another reader may come
        before it.
        """
        if self._slice is None:
            asked = self._next_asked()
            if self._may_need(asked):
                self._ahead.ask(asked)

    def _may_need(self, asked: AskedPage) -> bool:
        """Whether a page can be needed that nobody waits for yet. Called by page threads too."""
        place, end_key = asked.bounds.place, asked.bounds.end_key
        if not asked.bounds.newest_first and place and end_key and place >= end_key:
            return False
        if self._slice is not None and not self._slice.goes_on(place):
            return False
        if self._expected is not None and asked.rows_shown == self._expected:
            return False
        return self._take_turn(asked.rows_before, 0.0)

    def _take_turn(self, rows_before: int, timeout_s: float) -> bool:
        """Whether a page after so many rows may be asked for: from the second one on it needs a
        turn.
        """
        with self._turn_lock:
            if not self._has_turn and self._turn is not None and rows_before:
                self._has_turn = self._turn.acquire(timeout=timeout_s)
                return self._has_turn
            return True

    def _slice_is_left(self) -> bool:
        """Whether all that is left of the slice is on its way to others."""
        on_its_way = self._wanted is not None or self._ahead.has_asked
        if self._slice is None or on_its_way or self._slice.goes_on():
            return False
        self._ended = True
        return True

    def _next_answered(self) -> Optional[AskedPage]:
        """The next page, answered; None where it was too large, or where others have read the rest
        of the slice.
        """
        if self._slice_is_left():
            return None
        while not self._take_turn(self.rows, POLL_S):
            self._api.check()
        asked = self._want()
        while not wait(self._awaited(asked), POLL_S, FIRST_COMPLETED).done:
            pass
        if not asked.answer.done():
            self._ended = True
            return None
        self._wanted = None
        if self._ahead.take(asked) is not None:
            return asked
        self._size.shrink()
        log.info(
            "%s timed out, reading %d rows a page",
            self._api.side,
            self._size.limit,
            extra={"event": "smaller_pages"},
        )
        return None

    # -- what came

    def _page_of(self, asked: AskedPage) -> Optional[Page]:
        """The rows of an answer that nobody has read yet; None where there are none, or more of
        them must be asked for.
        """
        answer = asked.answer.result()
        assert answer is not None
        bounds, limit = asked.bounds, asked.limit
        rows = answer.json[::-1] if bounds.newest_first else answer.json
        self._check(rows, bounds, limit)
        if len(rows) == limit:
            known = self._api.capabilities.full_page_rows
            self._api.capabilities.full_page_rows = max(known, limit)
        ended = self._is_end(rows, limit)
        self._rows_shown = self.rows + len(rows)
        if not ended and len(rows) == limit and has_one_key(rows):
            if limit < MAX_LIMIT:
                self._size.widen(limit)
                return None
            self._refuse_crowd(rows)
        if not ended:
            rows = without_cut_off_key(rows, newest_first=bounds.newest_first)
        if self._slice is not None:
            first, behind, ended = self._slice.take([row[KEY] for row in rows], ended)
            rows = rows[first:behind]
        self._ended = ended
        self._size.note_page()
        self.rows += len(rows)
        if not rows:
            return None
        add_facets(self._api, self._kind, self._ids, rows, bounds.version)
        end_key = rows[0 if bounds.newest_first else -1][KEY]
        self._bounds = bounds.after(end_key)
        return Page(rows, end_key, ended, answer.plain)

    def _check(self, rows: List[Any], bounds: Bounds, limit: int) -> None:
        id_field = ROW_KINDS[self._kind].id_field
        why = refusal(rows, bounds, limit, id_field=id_field, object_ids=self._ids)
        if why is not None:
            raise unusable_answer(self._api, why)

    # belief: cursors_reach_every_row
    def _is_end(self, rows: List[dict], limit: int) -> bool:
        """Whether nothing comes after the rows of this answer."""
        if not rows:
            return True
        total = self.rows + len(rows)
        is_short = len(rows) < limit
        # In a sync, rows that are edited meanwhile may come between those that were counted.
        exact = total == self._expected and not self._bounds.after_xact
        if exact or (self._expected is not None and total >= self._expected and is_short):
            return True
        if self._slice is not None:
            # The end of a slice is found by its readers, and what the count misses then is read
            # again.
            if is_short and limit <= self._api.capabilities.full_page_rows:
                return True
            if self._slice.is_marked:
                return False
        return self._is_new(rows)

    def _is_new(self, rows: List[dict]) -> bool:
        """Whether the page reaches rows that came after the start, by either clock; a key from its
        future is no date.
        """
        received_s = key_seconds(rows[-1][KEY])
        return self.began_s + SAME_SECOND_S < received_s <= now_s(self._api) + SAME_SECOND_S

    def _refuse_crowd(self, rows: List[dict]) -> None:
        """Raises ApiError where more rows share a key than a query answers: the others cannot be
        read.
        """
        key = rows[0][KEY]
        found = count_inside(
            self._api,
            self._kind,
            self._ids,
            replace(self._bounds, after_key=key_before(key), end_key=key),
        )
        if found is None or found > len(rows):
            shown = "more" if found is None else f"{found:,}"
            text = f"{shown} rows share the key {key}, of which a query answers {len(rows):,}"
            raise unusable_answer(self._api, f"{text}: they cannot be read")


def now_s(api: Api) -> float:
    """The later of the server's clock and ours: the Date of an answer may be a gateway's, and rows
    from before the start must not be taken for new.
    """
    return max(api.clock.earliest_s(), time.time())


def pages(
    api: Api,
    kind: str,
    object_ids: Sequence[str],
    bounds: Bounds,
    *,
    limit: int,
    expected: Optional[int] = None,
) -> Iterator[Page]:
    """Yields all rows inside the bounds, page by page. Raises ApiError at the end if there are
    fewer than `expected`.
    """
    reader = PageReader(api, kind, object_ids, bounds, limit=limit, expected=expected)
    try:
        page = reader.next_page()
        while page is not None:
            yield page
            page = reader.next_page()
    finally:
        reader.close()
    if expected is not None:
        counted = missing_count(
            api, kind, object_ids, bounds, reader.rows, expected, reader.began_s
        )
        if counted is not None:
            raise unusable_answer(api, short_read_text(counted, reader.rows))


def short_read_text(counted: int, rows: int) -> str:
    return f"{counted:,} rows were counted and {rows:,} read; the others were not shown"


def missing_count(
    api: Api,
    kind: str,
    object_ids: Sequence[str],
    bounds: Bounds,
    rows: int,
    expected: int,
    began_s: float,
) -> Optional[int]:
    """How many rows there are, where that is more than were read; None where nothing is missing.

    Rows may have been deleted since they were counted, so they are counted again, up to what was
    there when reading began.
    """
    if rows >= expected:
        return None
    upto = after_second(int(began_s) + SAME_SECOND_S)
    end_key = min(bounds.end_key, upto) if bounds.end_key else upto
    counted = count_inside(api, kind, object_ids, replace(bounds, end_key=end_key))
    counted = expected if counted is None else counted
    return counted if counted > rows else None


def count_inside(api: Api, kind: str, object_ids: Sequence[str], bounds: Bounds) -> Optional[int]:
    """How many rows the objects hold together; None where the server does not count."""
    try:
        query = count_query(kind, object_ids, bounds)
        found = api.query(query, version=bounds.version).json
        return whole_number(found[0]["rows"]) if found else 0
    except (ApiError, KeyError, TypeError, ValueError):
        return None


def whole_number(value: Any) -> int:
    """A count, which some servers send as text, as a number. Raises ValueError."""
    if isinstance(value, bool) or not str(value).isdecimal():
        raise ValueError(f"not a count: {str(value)[:40]!r}")
    return int(value)


# -- without pages


def one_page(api: Api, kind: str, object_id: str, bounds: Bounds, limit: int) -> Answer:
    """The first rows of an object, fewer where the server finds so many too large."""
    limit = min(limit, MAX_LIMIT)
    while True:
        statuses = RETRY_STATUSES - SIZE_STATUSES if limit > MIN_LIMIT else RETRY_STATUSES
        try:
            query = page_query(kind, [object_id], bounds, limit)
            answer = api.query(query, retry_statuses=statuses)
            add_facets(api, kind, [object_id], answer.json)
            return answer
        except ApiError as error:
            if error.status not in SIZE_STATUSES or limit <= MIN_LIMIT:
                raise
            limit = smaller_limit(limit)


def rows_of_ids(
    api: Api,
    kind: str,
    object_ids: Sequence[str],
    row_ids: Sequence[str],
    version: Optional[int] = None,
) -> List[dict]:
    """The rows of these ids that the objects hold (or held at a version), at most MAX_LIMIT; half
    of the ids at a time where the server takes too long.
    """
    rows = query_by_ids(
        api,
        lambda ids, one_by_one: rows_query(kind, object_ids, ids, one_by_one=one_by_one),
        row_ids,
        version,
    )
    add_facets(api, kind, object_ids, rows, version)
    return rows
