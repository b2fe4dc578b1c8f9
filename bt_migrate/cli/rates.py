"""How fast the counts of a process grow, and how long the rest takes.

A beat is one second; the counts are recorded once in each.
"""

from __future__ import annotations

from collections import deque
from typing import Deque, Mapping, NamedTuple, Optional

# A rate is taken over this many beats.
RATE_BEATS = 30
# Refused requests come in bursts, so their rate is taken over this many beats.
KEPT_BEATS = 600


class Beat(NamedTuple):
    """The progress at one moment: `counts` by name, `queries` by side."""

    at_s: float
    counts: Mapping[str, int]
    queries: Mapping[str, int]


class Rates:
    """The last beats of a process."""

    def __init__(self) -> None:
        self._beats: Deque[Beat] = deque(maxlen=KEPT_BEATS)

    def add(self, beat: Beat) -> None:
        self._beats.append(beat)

    def per_second(self, name: str, beats: int = RATE_BEATS) -> float:
        """Returns the growth of a count since the oldest of the last beats that has it."""
        first = self._first(name, beats)
        last = self._beats[-1]
        if last.at_s <= first.at_s:
            return 0.0
        grown = max(0, last.counts[name] - first.counts[name])
        return round(grown / (last.at_s - first.at_s), 1)

    def grown(self, name: str) -> int:
        """Returns by how much a count has grown in the beats that are kept."""
        return self._beats[-1].counts[name] - self._first(name, KEPT_BEATS).counts[name]

    def seconds_left(self, name: str, left: int, limits: Mapping[str, Optional[float]]) -> float:
        """Returns the seconds that `left` more units of work take, 0 if unknown.

        `limits`: side -> queries a minute that it allows, None if its limit is not known. Sides
        without a limit are left out.
        """
        paces = [self._per_query(name, side) * rate / 60 for side, rate in limits.items() if rate]
        known_paces = [pace for pace in paces if pace]
        pace = (
            min(known_paces)
            if known_paces
            else self.per_second(name, KEPT_BEATS if limits else RATE_BEATS)
        )
        return left / pace if pace else 0.0

    def _per_query(self, name: str, side: str) -> float:
        """Returns how much the count grows with each query to a side, 0 if that is not known."""
        first = self._first(name, KEPT_BEATS)
        queries = self._beats[-1].queries[side] - first.queries[side]
        return self.grown(name) / queries if queries > 0 else 0.0

    def _first(self, name: str, beats: int) -> Beat:
        """Returns the oldest of the last beats that has the count."""
        first = self._beats[-1]
        for number, beat in enumerate(reversed(self._beats)):
            if number >= beats or name not in beat.counts:
                break
            first = beat
        return first
