"""Slices of a stream's key range, and which reader reads where.

A slice is read from both ends until its two readers meet, so that the distribution of its rows need
not be known. An idle reader helps where most is left: at a free end of a slice, or in the middle,
where the slice is cut in two.
"""

from __future__ import annotations

import contextlib
import math
import threading
from bisect import bisect_right
from concurrent.futures import Future
from dataclasses import replace
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from bt_migrate.api.btql import Bounds
from bt_migrate.api.transactions import key_before, key_number, pagination_key
from bt_migrate.state.stream_state import KeyRange, StreamState

# how often a waiting reader checks whether the run is to end
WORK_POLL_S = 0.5


class Slice:
    """A range of keys that is being read.

    `unwritten` is its range in the checkpoint. The keys in (low, high] are not yet read.
    """

    def __init__(self, unwritten: KeyRange) -> None:
        self.unwritten = unwritten
        self.low: Optional[str] = unwritten.after
        self.high: Optional[str] = unwritten.end
        # all of it has been read
        self.is_read = False
        # key: whether it reads the newest rows first. A reader stays until all its rows are
        # written.
        self.readers: Dict[bool, SliceReader] = {}
        # same key: how many keys lie between the first and the last row of the last page from that
        # end
        self.page_keys: Dict[bool, int] = {}

    def pages_left(self) -> float:
        """Returns an estimate of the pages left, from the densest page read; inf without a page."""
        if self.is_read:
            return 0.0
        if self.low is None or self.high is None or not self.page_keys:
            return math.inf
        return (key_number(self.high) - key_number(self.low)) / min(self.page_keys.values())

    def pages_unasked(self) -> float:
        """Returns the estimated pages left that no reader has requested."""
        return self.pages_left() - sum(reader.reading for reader in self.readers.values())

    def end_reading(self) -> None:
        """Mark the slice as read, and wake the readers that wait for a page of it."""
        self.is_read = True
        for reader in self.readers.values():
            if not reader.over.done():
                reader.over.set_result(None)

    def cut(self) -> Slice:
        """Keep the lower half of what is left. Returns the upper half, with its reader."""
        assert self.low is not None and self.high is not None
        middle = pagination_key((key_number(self.low) + key_number(self.high)) // 2)
        back = Slice(KeyRange(middle, self.unwritten.end))
        back.high = self.high
        self.high = middle
        self.unwritten.end = middle
        back.page_keys[True] = self.page_keys.pop(True)
        if True in self.readers:
            back.readers[True] = self.readers.pop(True)
            back.readers[True].slice = back
        return back


class SliceReader:
    """Reads a slice from one of its ends. Safe for the threads of its stream."""

    def __init__(self, place: Slice, newest_first: bool, changed: threading.Condition) -> None:
        self.slice = place
        self.newest_first = newest_first
        # its next page is requested
        self.reading = True
        # done once others have read the rest of the slice
        self.over: Future[None] = Future()
        self._changed = changed

    @property
    def unwritten(self) -> KeyRange:
        """The unwritten range of its slice, in the checkpoint."""
        return self.slice.unwritten

    @property
    def is_marked(self) -> bool:
        """Whether the upper end of the slice is known, so that no row above it is read."""
        return self.newest_first or self.unwritten.end is not None

    def unread(self, bounds: Bounds) -> Bounds:
        with self._changed:
            return replace(
                bounds,
                after_key=self.slice.low,
                end_key=self.slice.high,
                newest_first=self.newest_first,
            )

    def note_written(self, key: str) -> None:
        """Record that all rows which it read up to this key are written."""
        if self.newest_first:
            self.unwritten.end = key_before(key)
        else:
            self.unwritten.after = key

    def take(self, keys: Sequence[str], ended: bool) -> Tuple[int, int, bool]:
        """Returns which rows of a page, by ascending keys, no other reader has read.

        The result is (index of the first, index after the last, whether the slice is read).
        `ended`: the page was the last inside the requested bounds.
        """
        with self._changed:
            mine = self.slice
            first = 0 if mine.low is None else bisect_right(keys, mine.low)
            behind = len(keys) if mine.high is None else bisect_right(keys, mine.high)
            if mine.is_read or behind < first:
                first = 0
                behind = 0
            if keys:
                if self.newest_first and mine.unwritten.end is None:
                    mine.unwritten.end = keys[-1]
                mine.page_keys[self.newest_first] = key_number(keys[-1]) - key_number(keys[0]) + 1
            if first < behind and self.newest_first:
                mine.high = key_before(keys[first])
            elif first < behind:
                mine.low = keys[behind - 1]
            met = first > 0 if self.newest_first else behind < len(keys)
            closed = mine.low is not None and mine.high is not None and mine.low >= mine.high
            if ended or met or closed:
                mine.end_reading()
            self._changed.notify_all()
            return first, behind, mine.is_read

    def goes_on(self, key: Optional[str] = None) -> bool:
        """Whether more is left than is requested.

        `key`: as if the page up to it were already read.
        """
        with self._changed:
            mine = self.slice
            if key is None:
                return mine.pages_unasked() > -self.reading
            bound = mine.low if self.newest_first else mine.high
            met = bound is not None and (key <= bound if self.newest_first else key >= bound)
            return not met and mine.pages_unasked() > 0

    def stop(self) -> None:
        """Record that this reader has no page requested any more."""
        with self._changed:
            self.reading = False
            self._changed.notify_all()


class Slices:
    """The slices of one object, and their readers. `check` raises if the run is to end."""

    def __init__(self, state: StreamState, check: Callable[[], None]) -> None:
        self._state = state
        self._check = check
        self._changed = threading.Condition(state.lock)
        self._open = [Slice(key_range) for key_range in state.slices if not key_range.done]
        self._stopped = False

    @contextlib.contextmanager
    def reader(self) -> Iterator[Optional[SliceReader]]:
        """Yields an end of a slice to read. Waits for one; None if nothing is left to read.

        All rows that were read must be written when the block ends. After an error inside it no
        other reader begins, and the slice stays open.
        """
        reader = self._next()
        try:
            yield reader
        except BaseException:
            self._stopped = True
            raise
        if reader is not None:
            self.leave(reader)

    def _next(self) -> Optional[SliceReader]:
        with self._changed:
            while self._open and not self._stopped:
                reader = self.enter()
                if reader is not None:
                    return reader
                self._changed.wait(WORK_POLL_S)
                self._check()
            return None

    def enter(self) -> Optional[SliceReader]:
        """Returns a reader for the end with most left.

        None if all that is left is, or may be, already requested.
        """
        wanting = [item for item in self._open if item.pages_unasked() > 0]
        free = [item for item in wanting if len(item.readers) < 2]
        if not free:
            free = self._cut([item for item in wanting if len(item.page_keys) == 2])
        if not free:
            return None
        most = max(free, key=lambda item: (not item.readers, item.pages_unasked()))
        reader = SliceReader(most, False in most.readers, self._changed)
        most.readers[reader.newest_first] = reader
        return reader

    def leave(self, reader: SliceReader) -> None:
        """Record that all rows of the reader are written."""
        with self._changed:
            del reader.slice.readers[reader.newest_first]
            if reader.slice.is_read and not reader.slice.readers:
                reader.unwritten.done = True
                self._open.remove(reader.slice)
            self._state.save()
            self._changed.notify_all()

    def _cut(self, slices: Sequence[Slice]) -> List[Slice]:
        """Returns both halves of the slice with most left."""
        if not slices:
            return []
        front = max(slices, key=Slice.pages_unasked)
        back = front.cut()
        self._open.append(back)
        self._state.slices.append(back.unwritten)
        return [front, back]
