"""One stream read by several readers: the slices of its key range, and who reads what is left.

Keys are spread over a range as rows came in, by day and night and in lumps, so the first cut is only a guess: a reader that has
nothing to do takes the back of the slice that has most to come.
"""

from __future__ import annotations

import contextlib
import math
import threading
from bisect import bisect_right
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.keys import key_number, key_slices, pagination_key
from bt_migrate.state import StreamState

LEAST_PAGES = 1.1  # to come, one of them on its way, that are worth to be shared
ON_ITS_WAY = 0.95  # pages that the query on its way is sure to bring: rows may lie less densely than before
LUMP_PAGES = 8  # that a reader keeps where rows lie in lumps, so that the other one starts inside the lump
POLL_S = 0.5


class KeyRange:
    """The keys of one slice while it is read. Its end may come nearer. Everything happens under the lock of the checkpoint."""

    def __init__(self, part: Dict[str, Any], changed: threading.Condition) -> None:
        self.part, self._changed = part, changed
        self._span: Optional[Tuple[str, str]] = None  # first and last key of the rows that were read
        self._page_rows = 0  # of the fullest page
        self.rows = 0  # that were read

    @property
    def position(self) -> str:
        """The key up to which it was read."""
        return self._span[1] if self._span else self.part["after"] or ""

    @property
    def end(self) -> Optional[str]:
        return self.part["end"]

    def take(self, keys: Sequence[str]) -> int:
        """How many of the rows that were read, of these ascending keys, are in the slice; they are its reader's from now on."""
        with self._changed:
            inside = bisect_right(keys, self.end) if self.end is not None else len(keys)
            if inside:
                self._span = self._span[0] if self._span else keys[0], keys[inside - 1]
                self._page_rows = max(self._page_rows, inside)
                self.rows += inside
            self._changed.notify_all()
            return inside

    def pages_left(self) -> float:
        """As many as there are if rows lie as they did so far; 0 while that is not known."""
        if self.end is None or self._span is None:
            return 0.0
        return (key_number(self.end) - key_number(self._span[1])) / self._page_keys()

    def _page_keys(self) -> int:
        """Keys from one page to the next, by day and night together."""
        assert self._span
        return (key_number(self._span[1]) - key_number(self._span[0]) + 1) * self._page_rows // self.rows + 1

    def cut(self, parts: int, most_pages: float) -> List[Dict[str, Any]]:
        """Keep the page that is on its way and one of equal parts of the rest, of at most so many pages; gives back the others.

        A rest of a page for each of the others takes as long as a smaller one: then only what is on its way is kept.
        """
        assert self._span and self.end
        last, end, page = key_number(self._span[1]), key_number(self.end), self._page_keys()
        rest = max(0, end - last - page)
        kept = last + int(ON_ITS_WAY * page + (0 if rest <= (parts - 1) * page else min(rest / parts, most_pages * page)))
        others = key_slices(pagination_key(kept + 1), self.end, parts - 1)
        self.part["end"] = pagination_key(kept)
        return [{"after": above, "end": upto, "done": False} for above, upto in others]


class Slices:
    """The slices of one object, handed out to its readers. `check` raises once the run is to end."""

    def __init__(self, state: StreamState, check: Callable[[], None]) -> None:
        self._state, self._check = state, check
        self._changed = threading.Condition(state.lock)
        self._open = [number for number, one in enumerate(state.slices) if not one["done"]]
        self._read: Dict[int, KeyRange] = {}  # by those who are at it
        self._idle = 0
        self._lumps = False  # a slice had no rows: they do not lie evenly
        self._stopped = False

    @contextlib.contextmanager
    def last(self, begin_key: str, end_key: str) -> Iterator[Optional[int]]:
        """Set the upper mark, behind which nothing is read, for who has read the last page already: its keys become a slice of
        their own, whose number is given, unless the reader of the one slice that there was has come so far.
        """
        with self._changed:
            state, behind = self._state, KeyRange({"after": begin_key, "end": end_key, "done": False}, self._changed)
            first = state.slices[-1]
            beyond = first["done"] or any(one.position >= begin_key for one in self._read.values())
            first["end"] = end_key if beyond else begin_key
            number = None
            if not beyond:
                number = len(state.slices)
                state.slices.append(behind.part)
                behind.take([end_key])
                self._read[number] = behind
            self._changed.notify_all()
        if number is None:
            yield None
            return
        with self._left(number):
            yield number

    @contextlib.contextmanager
    def one(self) -> Iterator[Optional[Tuple[int, KeyRange]]]:
        """For one reader: (number, keys) of a slice to read inside; waits for one, None when nothing is left to do. After an error
        inside nobody begins another one.
        """
        number = self._next()
        if number is None:
            yield None
            return
        with self._left(number):
            yield number, self._read[number]

    @contextlib.contextmanager
    def _left(self, number: int) -> Iterator[None]:
        """A slice is read inside."""
        try:
            yield
        except BaseException:
            self._stopped = True
            raise
        finally:
            with self._changed:
                left = self._read.pop(number)
                self._lumps = self._lumps or not left.rows
                self._changed.notify_all()

    def _next(self) -> Optional[int]:
        with self._changed:
            self._idle += 1
            try:
                while not self._stopped:
                    if not self._open:
                        self._share()
                    if self._open:
                        number = self._open.pop(0)
                        self._read[number] = KeyRange(self._state.slices[number], self._changed)
                        return number
                    if not self._read:
                        break
                    self._changed.wait(POLL_S)
                    self._check()
                return None
            finally:
                self._idle -= 1

    def _share(self) -> None:
        """Cut the slice that has most to come among its reader and those who have nothing to do."""
        shareable = [one for one in self._read.values() if one.pages_left() >= LEAST_PAGES]
        if not shareable:
            return
        most = max(shareable, key=KeyRange.pages_left)
        parts = 1 + math.ceil(self._idle / len(shareable))
        for part in most.cut(parts, LUMP_PAGES if self._lumps else math.inf):
            self._open.append(len(self._state.slices))
            self._state.slices.append(part)
