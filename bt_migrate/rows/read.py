"""Read the rows of a stream: BTQL pages in key order, one after the other, the next already on its way.

Knows nothing of what becomes of the rows; the copy and the comparison both read through here.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Callable, Generator, List, Optional, Sequence

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
from bt_migrate.api.lists import looks_capped
from bt_migrate.api.transactions import key_before, key_seconds
from bt_migrate.api.transport import CURSOR_HEADER, RETRY_STATUSES, Answer
from bt_migrate.errors import ApiError, NetworkError
from bt_migrate.rows.slices import Reader

log = logging.getLogger("bt_migrate.rows")

SIZE_STATUSES = frozenset(
    (500, 504)
)  # what a query that takes too long is answered with: a smaller LIMIT helps
PAGES_BEFORE_GROWTH = 4  # pages in a row that must succeed before a reduced LIMIT is doubled again; four times as many next time
MAX_GUESS_BYTES = (
    8 << 20
)  # of a page whose next one is asked for before it is decoded: both are held then
HANDOFF_S = 0.003  # for the other thread to send its query: decoding a page keeps the interpreter to itself all the while
CLOCK_SLACK_S = (
    2  # what is written in the second of the start is before the mark, whatever the rounding
)
_KEY_NAME = b'"_pagination_key"'
_KEY_VALUE = re.compile(rb'\s*:\s*"([^"\\]+)"')


@dataclass(frozen=True)
class Page:
    """Rows in ascending key order, and the key up to which, with them, everything has been read: the last one, or the first one
    where the newest are read first.
    """

    rows: List[dict]
    end_key: str
    last: bool = False  # nothing comes after it
    plain: bool = False  # see json_text.decode


def pages(
    api: Api,
    kind: str,
    object_ids: Sequence[str],
    bounds: Bounds,
    *,
    limit: int,
    reader: Optional[Reader] = None,
) -> Generator[Page, None, None]:
    """All rows inside the bounds, page by page. A page never ends between two rows of one key: none is skipped or repeated by
    paging.

    A short page without a cursor is the end; where its size is a round number the server may cap pages, and is asked once more:
    the page waits for that answer, which mostly says that it was the last. A stream that grows while it is read ends at what was
    there when it was begun. `reader`: of one end of a slice, whose bounds move while others read it too.
    """
    most = min(limit, MAX_LIMIT)
    now, patience = min(most, api.capabilities.page_rows), PAGES_BEFORE_GROWTH
    good, grown, began, doubted, held, widened = 0, False, _now(api), 0, 0, False
    waiting: Optional[Page] = None  # a page of which the next answer says whether it is the last
    asked = _Asked(api, kind, object_ids, reader)
    try:
        while asked.more():
            if reader is not None:
                before, bounds = bounds, reader.unread(bounds)
                doubted = (
                    doubted if bounds == before else 0
                )  # what is missing now the other reader may have read
            answer = asked.page(bounds, now, smaller_helps=now > MIN_LIMIT and not widened)
            if answer is None:
                now, good = smaller_limit(now), 0
                api.capabilities.page_rows, patience, grown = (
                    min(now, api.capabilities.page_rows),
                    patience * 4 if grown else patience,
                    False,
                )
                log.info(
                    "%s timed out, reading %d rows a page",
                    api.side,
                    now,
                    extra={"event": "smaller_pages"},
                )
                continue
            rows = answer.json[::-1] if bounds.newest_first else answer.json
            if doubted and len(rows) > held:
                most = now = doubted  # the server does cap pages
            elif doubted:
                api.capabilities.short_pages_end = True
            short = len(rows) < now and not answer.headers.get(CURSOR_HEADER)
            doubted = (
                len(rows)
                if short and not api.capabilities.short_pages_end and looks_capped(len(rows))
                else 0
            )
            ended = (
                not rows
                or (short and not doubted)
                or (not (reader and reader.marked) and _is_new(api, rows, began))
            )
            if now <= len(rows) < MAX_LIMIT and _one_key(rows):
                # Objects that were written together share keys: all rows of this one are needed, or (an error) each object read alone.
                now, doubted, widened = min(MAX_LIMIT, len(rows) * 2), 0, True
                continue
            if len(rows) >= MAX_LIMIT and _one_key(rows):
                _refuse_crowd(api, kind, object_ids, bounds, rows)
            whole = _whole(api, rows, bounds, ended) if rows else []
            held = len(rows) - len(whole)
            if reader is not None:
                first, behind, ended = reader.take([row["_pagination_key"] for row in whole], ended)
                whole = whole[first:behind]
            if whole:
                page = Page(
                    whole,
                    whole[0 if bounds.newest_first else -1]["_pagination_key"],
                    ended,
                    answer.plain,
                )
                bounds = bounds.after(page.end_key)
                if waiting is not None and ended:
                    page, waiting = _joined(waiting, page), None
            if waiting is not None:
                yield replace(waiting, last=not whole)
            waiting = page if doubted and not ended and reader is None else None
            if whole and waiting is None:
                yield page
            if ended:
                return
            good += 1
            now, widened = min(now, most), False
            if now < most and good % patience == 0:
                now, grown = min(most, now * 2), True
                api.capabilities.page_rows = now
    finally:
        if reader is not None:
            reader.stop()
        asked.close()


def _one_key(rows: List[dict]) -> bool:
    return rows[0].get("_pagination_key") == rows[-1].get("_pagination_key")


def _refuse_crowd(
    api: Api, kind: str, object_ids: Sequence[str], bounds: Bounds, rows: List[dict]
) -> None:
    """Raises NetworkError where more rows share a key than a query answers: none of the others could be read."""
    key = rows[0]["_pagination_key"]
    found = api.query(
        count_query(kind, object_ids, replace(bounds, after_key=key_before(key), end_key=key))
    ).json
    count = int(found[0]["rows"]) if found else 0
    if count > len(rows):
        raise NetworkError(
            f"{api.side}: {count:,} rows share the key {key}, of which a query answers {len(rows):,}: they cannot be read"
        )


class _Guess:
    """A page that was asked for before the one before it was decoded. `wanted`: somebody waits for it."""

    def __init__(self, place: Optional[str], limit: int) -> None:
        self.place = place, limit
        self.answer: Future[Optional[Answer]] = Future()
        self.wanted = False


class _Asked:
    """The queries of one stream. While the bytes of a full page are decoded the next one is on its way: the key behind which it
    begins is found in the bytes, and where that turns out to be another one it is asked for again.

    Two threads take turns; they end with the stream, and the program does not wait for them.
    """

    def __init__(
        self, api: Api, kind: str, object_ids: Sequence[str], reader: Optional[Reader]
    ) -> None:
        self._api, self._kind, self._ids, self._reader = api, kind, object_ids, reader
        self._guess: Optional[_Guess] = None
        self._lock = (
            threading.Lock()
        )  # who takes a page and who reads it may both ask for the next one
        self._lanes: List[SimpleQueue[Optional[Callable[[], None]]]] = []

    def more(self) -> bool:
        """Whether there may be something left to read."""
        return self._reader is None or self._guess is not None or self._reader.goes_on()

    def page(self, bounds: Bounds, limit: int, *, smaller_helps: bool) -> Optional[Answer]:
        """The next page of the bounds, None where the server found it too large and a smaller one may do."""
        guess, self._guess = self._guess, None
        if guess is None or guess.place != (bounds.place, limit):
            return self._query(bounds, limit, smaller_helps, None)
        guess.wanted = True
        if self._reader is not None:
            return guess.answer.result() if self._reader.awaits(guess.answer) else Answer([], {})
        answer = guess.answer.result()
        # The next one is on its way, unless this one came before it was wanted.
        if answer is not None and len(answer.json) == limit and answer.size <= MAX_GUESS_BYTES:
            self._ask_next(_last_but_one_key(answer.json), bounds, limit, smaller_helps)
        return answer

    def close(self) -> None:
        for lane in self._lanes:
            lane.put(None)

    def _query(
        self, bounds: Bounds, limit: int, smaller_helps: bool, guess: Optional[_Guess]
    ) -> Optional[Answer]:
        def early(content: bytes) -> None:
            # Not behind a first page, which is often the only one; nor where the consumer is slower than the source.
            due = (
                bounds.place is not None
                and (guess is None or guess.wanted)
                and len(content) <= MAX_GUESS_BYTES
            )
            if due and self._ask_next(next_after(content, limit), bounds, limit, smaller_helps):
                time.sleep(HANDOFF_S)

        statuses = RETRY_STATUSES - SIZE_STATUSES if smaller_helps else RETRY_STATUSES
        try:
            return self._api.query(
                page_query(self._kind, self._ids, bounds, limit),
                retry_statuses=statuses,
                on_body=early,
            )
        except ApiError as error:
            if error.status in SIZE_STATUSES and smaller_helps:
                return None
            raise

    def _ask_next(
        self, key: Optional[str], bounds: Bounds, limit: int, smaller_helps: bool
    ) -> bool:
        """Ask for the page behind the key, unless there is none or it was asked for: whether it was done."""
        if key is None or (bounds.end_key is not None and key >= bounds.end_key):
            return False
        if self._reader is not None and not self._reader.goes_on(key):
            return False
        rest = bounds.after(key)
        guess = _Guess(rest.place, limit)
        with self._lock:
            if self._guess is not None:
                return False
            self._guess = guess

        def answer() -> None:
            try:
                guess.answer.set_result(self._query(rest, limit, smaller_helps, guess))
            except BaseException as error:  # noqa: BLE001  not swallowed: who wants the page raises it
                guess.answer.set_exception(error)

        if not self._lanes:
            self._lanes = [_lane(), _lane()]
        self._lanes.reverse()
        self._lanes[0].put(answer)
        return True


def _lane() -> SimpleQueue[Optional[Callable[[], None]]]:
    """A thread that does what is put, one after the other, until None; it keeps its connection."""
    tasks: SimpleQueue[Optional[Callable[[], None]]] = SimpleQueue()

    def work() -> None:
        for task in iter(tasks.get, None):
            task()

    threading.Thread(target=work, name="next-page", daemon=True).start()
    return tasks


def _last_but_one_key(rows: Sequence[dict]) -> Optional[str]:
    """As `next_after`, of rows."""
    keys = (row.get("_pagination_key") for row in reversed(rows))
    last = next(keys)
    return next((key for key in keys if key != last), None)


def next_after(content: bytes, limit: int) -> Optional[str]:
    """The key behind which the page after this full page of rows begins: its last but one, as the last may go on. None for what
    looks otherwise.
    """
    if content.count(_KEY_NAME) < limit:
        return None
    place, last = len(content), None
    while True:
        place = content.rfind(_KEY_NAME, 0, place)
        found = _KEY_VALUE.match(content, place + len(_KEY_NAME)) if place >= 0 else None
        if found is None:
            return None
        if last not in (None, found[1]):
            return found[1].decode()
        last = found[1]


def _now(api: Api) -> float:
    """The later of the server's clock and ours: the Date of an answer may be a gateway's, and what was written before the start must not
    be taken for new.
    """
    return max(api.clock.earliest_s(), time.time())


def _is_new(api: Api, rows: List[dict], began: float) -> bool:
    """Whether the page reaches rows that came after the start, by either clock; a key from its future is no date."""
    taken_in = key_seconds(rows[-1].get("_pagination_key") or "") if rows else 0
    return began + CLOCK_SLACK_S < taken_in <= _now(api) + CLOCK_SLACK_S


def _whole(api: Api, rows: List[dict], bounds: Bounds, ended: bool) -> List[dict]:
    """The rows of an answer, given in ascending order, whose key it holds whole: those of the key at which it was cut off may go
    on in the next one, and are read again with it.
    """
    keys: List[str] = [row.get("_pagination_key") or "" for row in rows]
    if not all(keys):
        raise NetworkError(
            f"{api.side}: rows come without _pagination_key; this data plane is too old to be read in order"
        )
    if keys != sorted(keys):
        raise NetworkError(
            f"{api.side}: rows do not come in the order of _pagination_key; the server ignores the sort"
        )
    place, cut_off = bounds.place, keys[0 if bounds.newest_first else -1]
    if place is not None and (cut_off > place if bounds.newest_first else cut_off <= place):
        raise NetworkError(
            f"{api.side}: pages do not advance beyond {place}; the server ignores the filter or the sort"
        )
    if ended or keys[0] == keys[-1]:
        return rows
    return [row for row, key in zip(rows, keys) if key != cut_off]


def _joined(first: Page, rest: Page) -> Page:
    """Both as one: what was held back of the first, because it might have gone on."""
    return replace(rest, rows=first.rows + rest.rows, plain=first.plain and rest.plain)


def one_page(api: Api, kind: str, object_id: str, bounds: Bounds, limit: int) -> Answer:
    """The first rows of an object by themselves, fewer where the server finds so many too large."""
    now = min(limit, MAX_LIMIT)
    while True:
        statuses = RETRY_STATUSES - SIZE_STATUSES if now > MIN_LIMIT else RETRY_STATUSES
        try:
            return api.query(page_query(kind, [object_id], bounds, now), retry_statuses=statuses)
        except ApiError as error:
            if error.status not in SIZE_STATUSES or now <= MIN_LIMIT:
                raise
            now = smaller_limit(now)


def rows_of_ids(
    api: Api, kind: str, object_ids: Sequence[str], row_ids: Sequence[str]
) -> List[dict]:
    """The rows of these ids that there are in the objects, at most MAX_LIMIT; half of the ids at a time where the server takes
    too long.
    """
    statuses = RETRY_STATUSES - SIZE_STATUSES if len(row_ids) > 1 else RETRY_STATUSES
    try:
        query = rows_query(kind, object_ids, row_ids, one_by_one=api.capabilities.lacks_in)
        rows: List[dict] = api.query(query, retry_statuses=statuses).json
        return rows
    except ApiError as error:
        if error.status == 400 and not api.capabilities.lacks_in:
            api.capabilities.lacks_in = True
            return rows_of_ids(api, kind, object_ids, row_ids)
        if error.status not in SIZE_STATUSES or len(row_ids) == 1:
            raise
    half = len(row_ids) // 2
    return [
        row
        for some in (row_ids[:half], row_ids[half:])
        for row in rows_of_ids(api, kind, object_ids, some)
    ]
