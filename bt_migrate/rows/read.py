"""Read the rows of a stream in BTQL pages, in the order of their pagination keys.

While a page is used, the next one is already requested. The copy and the comparison both read
through this module; it does not know what they do with the rows.

The end of a stream is known from its row count. Neither a cursor nor a short page proves the end:
the service sends a cursor with every non-empty page, and a server may limit pages to any size. A
reader that knows the count ends once it has read as many rows. A reader that has read fewer, or
does not know the count, ends at an empty page.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence

from bt_migrate.api.answers import keys_after, rows_asked_for
from bt_migrate.api.btql import (
    Bounds,
    count_query,
    page_query,
    rows_query,
)
from bt_migrate.api.client import Api
from bt_migrate.api.request import QUERY_PATH, Answer
from bt_migrate.api.transactions import after_second, key_before, key_seconds
from bt_migrate.errors import AnswerError, ApiError, Route
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.report.display import plural
from bt_migrate.rows.by_id import Found, query_by_ids, query_with_limit
from bt_migrate.rows.facets import add_facets
from bt_migrate.rows.page_ahead import AskedPage, PageAhead
from bt_migrate.rows.page_checks import KEY, has_one_key, reason_to_refuse, without_cut_off_key
from bt_migrate.rows.page_size import PageSize
from bt_migrate.rows.repeated import newest_rows
from bt_migrate.rows.slices import SliceReader

log = logging.getLogger("bt_migrate.rows")

# Rows inserted in the second in which reading began count as older than the start. Both times are
# rounded, hence two seconds.
SAME_SECOND_S = 2
# a signal is handled within this time while a reader waits
POLL_S = 0.5
# before another look at rows that are not shown; doubles with each look
FIRST_PAUSE_S = 0.5


@dataclass(frozen=True)
class Page:
    """Rows in ascending key order.

    After this page the stream has been read up to `end_key`; a reader that reads the newest rows
    first has read it down to `end_key`.
    """

    rows: List[JsonObject]
    end_key: str
    last: bool = False  # the stream ends with this page
    plain: bool = False  # see json_codec.decode


class RowSelection(NamedTuple):
    """The rows of one kind ("logs") in these objects and inside the bounds.

    `expected` is how many there are, None if that is not known.
    """

    kind: str
    object_ids: Sequence[str]
    bounds: Bounds
    expected: Optional[int] = None


def unusable_answer(api: Api, why: str) -> ApiError:
    """Returns the error for a query whose answer does not fit the request."""
    return AnswerError(Route(api.side, "POST", QUERY_PATH), 200, why)


# assumption: keys_sort_by_insertion, rows_keep_key_and_created
class PageReader:
    """Reads the selected rows page by page. Owned and used by one thread.

    A page never ends between two rows with the same key, so no row is skipped or read twice. If
    rows are inserted during the read, it ends at the rows that existed when it began.

    `slice_reader` makes it read one end of a slice, whose bounds move while other readers read the
    same slice. `turn` is acquired before the second page and held until `close`: it limits how many
    readers hold decoded pages in memory.
    """

    def __init__(
        self,
        api: Api,
        selection: RowSelection,
        *,
        limit: int,
        slice_reader: Optional[SliceReader] = None,
        turn: Optional[threading.BoundedSemaphore] = None,
    ) -> None:
        self.rows = 0
        self.began_s = now_s(api)
        self._api = api
        self._kind, self._ids, self._bounds, self._expected = selection
        self._slice = slice_reader
        self._turn = turn
        self._has_turn = turn is None
        self._size = PageSize(limit, api.capabilities)
        self._ahead = PageAhead(api, self._kind, self._ids, self._may_need)
        self._ended = False
        self._wanted: Optional[AskedPage] = None
        # Rows of all answers, including those at the end of a page whose key was incomplete and
        # which are therefore read again.
        self._rows_shown = 0
        self._turn_lock = threading.Lock()

    # -- for its owner

    def start(self) -> None:
        """Request the first page, without waiting for it."""
        self._ahead.ask(self._next_asked())

    def is_ready(self, also: Optional[Future[Any]], timeout_s: float) -> bool:
        """Wait until `next_page` would not block, `also` is done, or the time is over.

        Returns whether `next_page` would not block.
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
        """Returns the next page with rows, None at the end.

        Raises what the query raised, and ApiError for an answer that was not requested.
        """
        while not self._ended:
            next_page = self._next_answered()
            page = self._page_of(next_page) if next_page is not None else None
            if page is not None:
                if not self._ended:
                    self._ask_ahead()
                return page
        return None

    def close(self) -> None:
        """Stop the page threads, and mark the slice as no longer read by this reader."""
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
        """The request that the reader waits for; the same one until its answer is used."""
        if self._wanted is None:
            self._wanted = self._ahead.want(self._next_asked())
        return self._wanted

    def _awaited(self, next_page: AskedPage) -> List[Future[Any]]:
        return [next_page.answer, *([self._slice.over] if self._slice is not None else [])]

    def _ask_ahead(self) -> None:
        """Request the next page while this one is used.

        Not in a slice, where another reader may read that page first.
        """
        if self._slice is None:
            next_page = self._next_asked()
            if self._may_need(next_page):
                self._ahead.ask(next_page)

    def _may_need(self, next_page: AskedPage) -> bool:
        """Whether it makes sense to request a page in advance. Called by page threads too."""
        place, end_key = next_page.bounds.place, next_page.bounds.end_key
        if not next_page.bounds.newest_first and place and end_key and place >= end_key:
            return False
        if self._slice is not None and not self._slice.goes_on(place):
            return False
        if self._expected is not None and next_page.rows_shown == self._expected:
            return False
        return self._take_turn(next_page.rows_before, 0.0)

    def _take_turn(self, rows_before: int, timeout_s: float) -> bool:
        """Whether the page after `rows_before` rows may be requested.

        The first page always may; a later one needs the turn.
        """
        with self._turn_lock:
            if not self._has_turn and self._turn is not None and rows_before:
                self._has_turn = self._turn.acquire(timeout=timeout_s)
                return self._has_turn
            return True

    def _slice_is_left(self) -> bool:
        """Whether other readers have already requested the rest of the slice. Ends this reader."""
        is_waiting = self._wanted is not None or self._ahead.has_asked
        if self._slice is None or is_waiting or self._slice.goes_on():
            return False
        self._ended = True
        return True

    def _next_answered(self) -> Optional[AskedPage]:
        """Returns the next answered request.

        None if the page was too large, or if other readers have read the rest of the slice.
        """
        if self._slice_is_left():
            return None
        while not self._take_turn(self.rows, POLL_S):
            self._api.check()
        next_page = self._want()
        while not wait(self._awaited(next_page), POLL_S, FIRST_COMPLETED).done:
            pass
        if not next_page.answer.done():
            self._ended = True
            return None
        self._wanted = None
        if self._ahead.take(next_page) is not None:
            return next_page
        self._size.shrink()
        log.info(
            "%s timed out, reading %d rows a page",
            self._api.side,
            self._size.limit,
            extra={"event": "smaller_pages"},
        )
        return None

    # -- using an answer

    def _page_of(self, next_page: AskedPage) -> Optional[Page]:
        """Returns the rows of the answer that were not read before.

        None if there are none, or if a larger page must be requested.
        """
        answer = next_page.answer.result()
        assert answer is not None
        bounds, most = next_page.bounds, self._api.capabilities.query_limit.most
        rows = answer.json[::-1] if bounds.newest_first else answer.json
        self._check(rows, bounds, next_page.limit)
        limit = min(next_page.limit, most)
        if len(rows) == limit:
            full_page_rows = self._api.capabilities.full_page_rows
            self._api.capabilities.full_page_rows = max(full_page_rows, limit)
        ended = self._is_end(rows, limit)
        self._rows_shown = self.rows + len(rows)
        if not ended and len(rows) == limit and has_one_key(rows):
            if limit < most:
                self._size.widen(limit)
                return None
            self._refuse_crowd(rows)
        if not ended:
            rows = without_cut_off_key(rows, newest_first=bounds.newest_first)
        if self._slice is not None:
            first, end, ended = self._slice.take([row[KEY] for row in rows], ended)
            rows = rows[first:end]
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
        why = reason_to_refuse(rows, bounds, limit, id_field=id_field, object_ids=self._ids)
        if why is not None:
            raise unusable_answer(self._api, why)

    # assumption: cursors_reach_every_row
    def _is_end(self, rows: List[JsonObject], limit: int) -> bool:
        """Whether the stream ends with the rows of this answer."""
        if not rows:
            return True
        total = self.rows + len(rows)
        is_short = len(rows) < limit
        # In a sync, rows edited since the count appear among the counted ones, so that an equal
        # number proves nothing.
        exact = total == self._expected and not self._bounds.after_xact
        if exact or (self._expected is not None and total >= self._expected and is_short):
            return True
        if self._slice is not None:
            # A short page ends the slice. If it was too short, the count of the whole stream shows
            # that rows are missing, and they are read again.
            if is_short and limit <= self._api.capabilities.full_page_rows:
                return True
            if self._slice.is_marked:
                return False
        return self._is_new(rows)

    def _is_new(self, rows: List[JsonObject]) -> bool:
        """Whether the page reaches rows that were inserted after the read began.

        A key whose time lies in the future is not trusted as a date.
        """
        received_s = key_seconds(rows[-1][KEY])
        return self.began_s + SAME_SECOND_S < received_s <= now_s(self._api) + SAME_SECOND_S

    def _refuse_crowd(self, rows: List[JsonObject]) -> None:
        """Raises ApiError if more rows share one key than a query returns.

        The rows beyond them cannot be read, because a query can only continue after a key.
        """
        key = rows[0][KEY]
        bounds = replace(self._bounds, after_key=key_before(key), end_key=key)
        counted = count_inside(self._api, self._kind, self._ids, bounds)
        if counted is None or counted > len(rows):
            total = "more" if counted is None else f"{counted:,}"
            text = f"{total} rows share the key {key}, of which a query returns {len(rows):,}"
            raise unusable_answer(self._api, f"{text}: the others cannot be read")


def now_s(api: Api) -> float:
    """Returns the later of the server's time and the local time.

    The server's Date header may come from a gateway whose clock is slow; rows from before the start
    must not be taken for new ones.
    """
    return max(api.clock.earliest_s(), time.time())


def pages(api: Api, selection: RowSelection, *, limit: int) -> Iterator[Page]:
    """Yields the selected rows page by page, `limit` rows on each.

    Raises ApiError at the end if fewer rows were read than the server counts.
    """
    reader = PageReader(api, selection, limit=limit)
    try:
        page = reader.next_page()
        while page is not None:
            yield page
            page = reader.next_page()
    finally:
        reader.close()
    counted = count_if_short(api, selection, reader.rows, reader.began_s)
    if counted is not None:
        raise unusable_answer(api, short_read_text(counted, reader.rows))


def short_read_text(counted: int, rows: int) -> str:
    return f"{plural(counted, 'row')} counted and {rows:,} read; the others were not shown"


def count_if_short(
    api: Api, selection: RowSelection, rows_read: int, began_s: float
) -> Optional[int]:
    """Returns the server's count if fewer rows were read, else None.

    Rows may have been deleted since `expected` was counted, so the rows from before the start of
    the read are counted again.
    """
    expected, bounds = selection.expected, selection.bounds
    if expected is None or rows_read >= expected:
        return None
    newest_key = after_second(int(began_s) + SAME_SECOND_S)
    end_key = min(bounds.end_key, newest_key) if bounds.end_key else newest_key
    bounds = replace(bounds, end_key=end_key)
    counted = count_inside(api, selection.kind, selection.object_ids, bounds)
    counted = expected if counted is None else counted
    return counted if counted > rows_read else None


def count_inside(api: Api, kind: str, object_ids: Sequence[str], bounds: Bounds) -> Optional[int]:
    """Returns the number of rows inside the bounds, None if the server does not count them."""
    try:
        answer = api.query(count_query(kind, object_ids, bounds), version=bounds.version).json
        return whole_number(answer[0]["rows"]) if answer else 0
    except (ApiError, KeyError, TypeError, ValueError):
        return None


def looks(api: Api, most_s: float) -> Iterator[None]:
    """Yields at once, then after pauses that double, for `most_s`: rows may not be indexed yet."""
    yield
    pause_s = FIRST_PAUSE_S
    while most_s > 0:
        api.transport.wait(min(pause_s, most_s))
        most_s -= pause_s
        pause_s *= 2
        yield


def whole_number(value: Any) -> int:
    """Returns a count as a number; some servers send it as text. Raises ValueError."""
    if isinstance(value, bool) or not str(value).isdecimal():
        raise ValueError(f"not a count: {str(value)[:40]!r}")
    return int(value)


# -- single queries


def one_page(api: Api, kind: str, object_id: str, bounds: Bounds, limit: int) -> Answer:
    """Returns the first rows of an object; fewer than `limit` if the server refuses so many."""
    answer = first_rows(api, kind, [object_id], bounds, limit)
    add_facets(api, kind, [object_id], answer.json)
    return answer


def first_rows(
    api: Api, kind: str, object_ids: Sequence[str], bounds: Bounds, limit: int
) -> Answer:
    """Returns the first rows of all objects together, without their facets; see `one_page`."""

    def query_of(rows: int) -> str:
        return page_query(kind, object_ids, bounds, rows)

    return query_with_limit(api, query_of, limit, check=keys_after(None))


def found_rows(
    api: Api,
    kind: str,
    object_ids: Sequence[str],
    row_ids: Sequence[str],
    version: Optional[int] = None,
) -> Found:
    """Returns the rows of the objects that have these ids (or had them at a version), each once.

    At most MAX_LIMIT ids; apart from the rows, those that the server refuses in a query.
    """
    rows, refused = query_by_ids(
        api,
        lambda ids, one_by_one: rows_query(kind, object_ids, ids, one_by_one=one_by_one),
        row_ids,
        version,
        rows_asked_for(frozenset(row_ids), ROW_KINDS[kind].id_field, frozenset(object_ids)),
    )
    rows = newest_rows(rows, ROW_KINDS[kind].id_field)
    add_facets(api, kind, object_ids, rows, version)
    return rows, refused
