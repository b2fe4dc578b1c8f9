"""One stream read by several readers: the slices of its key range, and who reads where.

A slice is read from both ends until its two readers meet, so nobody has to know how its rows lie. A
reader that has nothing to do helps where most is left: from a free end, or from the middle, where
the slice is cut in two.
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

# how often a reader that waits for work looks whether the run is to end
WORK_POLL_S = 0.5


class Slice:
    """A range of keys while it is read. `part` of the checkpoint says what is not written yet;
    (low, high] is not read yet.
    """

    def __init__(self, part: KeyRange) -> None:
        self.part = part
        self.low: Optional[str] = part.after
        self.high: Optional[str] = part.end
        # nothing is left to read
        self.is_read = False
        # by whether they read the newest first; a reader stays until all that it read is written
        self.readers: Dict[bool, SliceReader] = {}
        # by the same: the keys from the first to the last row of the last page that came from this
        # end
        self.page_keys: Dict[bool, int] = {}

    def pages_left(self) -> float:
        """As many as there are if all rows lie as close as in the densest page; inf while that is
        not known.
        """
        if self.is_read:
            return 0.0
        if self.low is None or self.high is None or not self.page_keys:
            return math.inf
        return (key_number(self.high) - key_number(self.low)) / min(self.page_keys.values())

    def pages_unasked(self) -> float:
        """Of the pages that are left, those that nobody has asked for."""
        return self.pages_left() - sum(reader.reading for reader in self.readers.values())

    def end_reading(self) -> None:
        """Nothing is left: whoever waits for a page of the slice need not."""
        self.is_read = True
        for reader in self.readers.values():
            if not reader.over.done():
                reader.over.set_result(None)

    def cut(self) -> Slice:
        """Keep the front half of what is left. Returns the rest, with the reader of its end."""
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


class SliceReader:
    """Reads a slice from one of its ends. Safe for the threads of its stream."""

    def __init__(self, place: Slice, newest_first: bool, changed: threading.Condition) -> None:
        self.slice = place
        self.newest_first = newest_first
        # its next page is on its way
        self.reading = True
        # done once others have read the rest of the slice
        self.over: Future[None] = Future()
        self._changed = changed

    @property
    def part(self) -> KeyRange:
        """What is not written of its slice, in the checkpoint."""
        return self.slice.part

    @property
    def is_marked(self) -> bool:
        """Whether the upper end of the slice is known: nothing behind it is read."""
        return self.newest_first or self.part.end is not None

    def unread(self, bounds: Bounds) -> Bounds:
        with self._changed:
            return replace(
                bounds,
                after_key=self.slice.low,
                end_key=self.slice.high,
                newest_first=self.newest_first,
            )

    def note_written(self, key: str) -> None:
        """All rows that it read up to this key are written."""
        if self.newest_first:
            self.part.end = key_before(key)
        else:
            self.part.after = key

    def take(self, keys: Sequence[str], ended: bool) -> Tuple[int, int, bool]:
        """Which rows of a page of these ascending keys nobody has read yet.

        Returns (the first of them, the first after them, whether nothing is left of the slice).
        `ended`: there are no more inside the bounds that were asked for.
        """
        with self._changed:
            part = self.slice
            first = 0 if part.low is None else bisect_right(keys, part.low)
            behind = len(keys) if part.high is None else bisect_right(keys, part.high)
            if part.is_read or behind < first:
                first = 0
                behind = 0
            if keys:
                if self.newest_first and part.part.end is None:
                    part.part.end = keys[-1]
                part.page_keys[self.newest_first] = key_number(keys[-1]) - key_number(keys[0]) + 1
            if first < behind and self.newest_first:
                part.high = key_before(keys[first])
            elif first < behind:
                part.low = keys[behind - 1]
            met = first > 0 if self.newest_first else behind < len(keys)
            closed = part.low is not None and part.high is not None and part.low >= part.high
            if ended or met or closed:
                part.end_reading()
            self._changed.notify_all()
            return first, behind, part.is_read

    def goes_on(self, key: Optional[str] = None) -> bool:
        """Whether more is left than was asked for; `key`: after a page up to it, which is about to
        be taken.
        """
        with self._changed:
            part = self.slice
            if key is None:
                return part.pages_unasked() > -self.reading
            bound = part.low if self.newest_first else part.high
            met = bound is not None and (key <= bound if self.newest_first else key >= bound)
            return not met and part.pages_unasked() > 0

    def stop(self) -> None:
        """Nothing more is on its way."""
        with self._changed:
            self.reading = False
            self._changed.notify_all()


class Slices:
    """The slices of one object, given to its readers. `check` raises once the run is to end."""

    def __init__(self, state: StreamState, check: Callable[[], None]) -> None:
        self._state = state
        self._check = check
        self._changed = threading.Condition(state.lock)
        self._open = [Slice(part) for part in state.slices if not part.done]
        self._stopped = False

    @contextlib.contextmanager
    def reader(self) -> Iterator[Optional[SliceReader]]:
        """An end of a slice to read; waits for one, None when nothing is left to do.

        All that was read must be written at the end. After an error inside nobody begins another
        one, and the slice stays open.
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
        """A reader for the end that needs one most; None where the pages on their way are all that
        is left, or may be.
        """
        wanting = [part for part in self._open if part.pages_unasked() > 0]
        free = [part for part in wanting if len(part.readers) < 2]
        if not free:
            free = self._cut([part for part in wanting if len(part.page_keys) == 2])
        if not free:
            return None
        most = max(free, key=lambda part: (not part.readers, part.pages_unasked()))
        reader = SliceReader(most, False in most.readers, self._changed)
        most.readers[reader.newest_first] = reader
        return reader

    def leave(self, reader: SliceReader) -> None:
        """All that it read is written."""
        with self._changed:
            del reader.slice.readers[reader.newest_first]
            if reader.slice.is_read and not reader.slice.readers:
                reader.part.done = True
                self._open.remove(reader.slice)
            self._state.save()
            self._changed.notify_all()

    def _cut(self, slices: Sequence[Slice]) -> List[Slice]:
        """Both halves of the one of them that has most left."""
        if not slices:
            return []
        front = max(slices, key=Slice.pages_unasked)
        back = front.cut()
        self._open.append(back)
        self._state.slices.append(back.part)
        return [front, back]
