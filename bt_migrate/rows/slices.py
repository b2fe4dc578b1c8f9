"""One stream read by several readers: the slices of its key range, and who reads where.

A slice is read from both ends until its two readers meet, so nobody has to know how its rows lie. Who has nothing to do helps
where most is left: from a free end, or from the middle, where the slice is cut in two.
"""

from __future__ import annotations

import contextlib
import math
import threading
from bisect import bisect_right
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.api.btql import Bounds
from bt_migrate.api.transactions import key_before, key_number, pagination_key
from bt_migrate.state.stream_state import KeyRange, StreamState

POLL_S = 0.5


class Slice:
    """A range of keys while it is read. Its `part` of the checkpoint says what is not written yet, (low, high] what is not read."""

    def __init__(self, part: KeyRange) -> None:
        self.part = part
        self.low: Optional[str] = part.after
        self.high: Optional[str] = part.end
        self.read = False  # nothing is left
        self.readers: Dict[
            bool, Reader
        ] = {}  # by whether they read the newest first; until all that they read is written
        self.page_keys: Dict[
            bool, int
        ] = {}  # from the first to the last row of the last page that they brought

    def pages_left(self) -> float:
        """As many as there are if rows lie as where they lie closest; inf while that is not known."""
        if self.read:
            return 0.0
        if self.low is None or self.high is None or not self.page_keys:
            return math.inf
        return (key_number(self.high) - key_number(self.low)) / min(self.page_keys.values())

    def pages_on_their_way(self) -> int:
        return sum(one.reading for one in self.readers.values())

    def cut(self) -> Slice:
        """Keep the front half of what is left; gives back the other one, with the reader of the back."""
        assert self.low is not None and self.high is not None
        middle = pagination_key((key_number(self.low) + key_number(self.high)) // 2)
        back = Slice(KeyRange(middle, self.part.end))
        back.high = self.high
        self.high = middle
        self.part.end = middle
        back.page_keys[True] = self.page_keys.pop(True)
        if True in self.readers:
            back.readers[True] = self.readers.pop(True)
            back.readers[True].slice = back
        return back


class Reader:
    """Reads a slice from one of its ends. Safe for the threads of its stream."""

    def __init__(self, at: Slice, newest_first: bool, changed: threading.Condition) -> None:
        self.slice, self.newest_first, self._changed = at, newest_first, changed
        self.reading = True  # its next page is on its way
        at.readers[newest_first] = self

    @property
    def part(self) -> KeyRange:
        """What is not written of its slice, in the checkpoint."""
        return self.slice.part

    @property
    def marked(self) -> bool:
        """Whether the upper mark is known, behind which nothing is read."""
        return self.newest_first or self.part.end is not None

    def unread(self, bounds: Bounds) -> Bounds:
        with self._changed:
            return replace(
                bounds,
                after_key=self.slice.low,
                end_key=self.slice.high,
                newest_first=self.newest_first,
            )

    def wrote(self, key: str) -> None:
        """All that it read up to this key is written."""
        if self.newest_first:
            self.part.end = key_before(key)
        else:
            self.part.after = key

    def take(self, keys: Sequence[str], ended: bool) -> Tuple[int, int, bool]:
        """Which rows of a page of these ascending keys nobody has read yet: (the first, the one behind the last), and whether
        nothing is left behind them. `ended`: there are no more of them inside the bounds that were asked for.
        """
        with self._changed:
            at = self.slice
            first = 0 if at.low is None else bisect_right(keys, at.low)
            behind = len(keys) if at.high is None else bisect_right(keys, at.high)
            if at.read or behind < first:
                first = behind = 0
            if self.newest_first and keys and at.part.end is None:
                at.part.end = keys[-1]
            if keys:
                at.page_keys[self.newest_first] = key_number(keys[-1]) - key_number(keys[0]) + 1
            if first < behind and self.newest_first:
                at.high = key_before(keys[first])
            elif first < behind:
                at.low = keys[behind - 1]
            met = first > 0 if self.newest_first else behind < len(keys)
            at.read = (
                at.read
                or ended
                or met
                or (at.low is not None and at.high is not None and at.low >= at.high)
            )
            self._changed.notify_all()
            return first, behind, at.read

    def goes_on(self, key: Optional[str] = None) -> bool:
        """Whether more is left than is on its way; `key`: behind a page up to it, which is about to be taken."""
        with self._changed:
            at = self.slice
            if key is None:
                return at.pages_left() > at.pages_on_their_way() - self.reading
            met = (
                key <= (at.low or "")
                if self.newest_first
                else at.high is not None and key >= at.high
            )
            return not met and at.pages_left() > at.pages_on_their_way()

    def awaits(self, page: Future[Any]) -> bool:
        """Wait for a page; whether it came while there was something left to read."""
        page.add_done_callback(self._tell)
        with self._changed:
            self._changed.wait_for(lambda: page.done() or self.slice.read)
            return not self.slice.read

    def _tell(self, _: Any) -> None:
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """Nothing more is on its way."""
        with self._changed:
            self.reading = False
            self._changed.notify_all()


class Slices:
    """The slices of one object, handed out to its readers. `check` raises once the run is to end."""

    def __init__(self, state: StreamState, check: Callable[[], None]) -> None:
        self._state, self._check = state, check
        self._changed = threading.Condition(state.lock)
        self._open = [Slice(one) for one in state.slices if not one.done]
        self._stopped = False

    @contextlib.contextmanager
    def one(self) -> Iterator[Optional[Reader]]:
        """For one reader: an end of a slice to read inside; waits for one, None when nothing is left to do. All that was read
        must be written at the end. After an error inside nobody begins another one, and the slice stays open.
        """
        reader = self._next()
        try:
            yield reader
        except BaseException:
            self._stopped = True
            raise
        if reader is not None:
            self.leave(reader)

    def _next(self) -> Optional[Reader]:
        with self._changed:
            while self._open and not self._stopped:
                reader = self.enter()
                if reader is not None:
                    return reader
                self._changed.wait(POLL_S)
                self._check()
            return None

    def enter(self) -> Optional[Reader]:
        """A reader for the end that needs one most, None where the pages on their way are all that is left, or that is not known."""
        wanting = [one for one in self._open if one.pages_left() > one.pages_on_their_way()]
        free = [one for one in wanting if len(one.readers) < 2]
        if not free:
            free = self._cut([one for one in wanting if len(one.page_keys) == 2])
        if not free:
            return None
        most = max(
            free, key=lambda one: (not one.readers, one.pages_left() - one.pages_on_their_way())
        )
        return Reader(most, False in most.readers, self._changed)

    def leave(self, reader: Reader) -> None:
        """All that it read is written."""
        with self._changed:
            del reader.slice.readers[reader.newest_first]
            if reader.slice.read and not reader.slice.readers:
                reader.part.done = True
                self._open.remove(reader.slice)
            self._state.save()
            self._changed.notify_all()

    def _cut(self, slices: Sequence[Slice]) -> List[Slice]:
        """Both halves of the one of them that has most to come."""
        if not slices:
            return []
        front = max(slices, key=lambda one: one.pages_left() - one.pages_on_their_way())
        back = front.cut()
        self._open.append(back)
        self._state.slices.append(back.part)
        return [front, back]
