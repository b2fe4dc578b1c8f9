"""Jitter: every pause after a failure or a 429 is a little longer, at random."""

from __future__ import annotations

import math

# part of a pause that is added at random
JITTER = 0.25
# at most, to the pause that a server asked for
MAX_JITTER_S = 1.0


def jittered(pause_s: float, share: float, *, is_asked: bool = False) -> float:
    """Returns a pause that is a little longer, so that those who failed together do not return
    together.

    `share`: a random number, 0 to 1. `is_asked`: the server named the pause.
    """
    return pause_s + min(JITTER * pause_s, MAX_JITTER_S if is_asked else math.inf) * share
