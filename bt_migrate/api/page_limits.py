"""A limit of a page that a server refuses is replaced by a lower one, which is remembered.

Servers differ in the largest LIMIT of a query and `limit` of a list. Most answer a smaller page
than asked for; some refuse the request.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Callable, TypeVar

from bt_migrate.errors import ApiError

# the limits that are tried instead of one that is refused
STEPS = (1000, 500, 250, 100, 50, 25, 10, 5, 1)
LEAST = STEPS[-1]
REFUSED_STATUSES = frozenset((400, 413, 422))
# the last line of a query; a limit inside a literal is followed by a quote
_LIMIT = re.compile(r"(?<=\nlimit: )\d+\Z")

T = TypeVar("T")


@dataclass
class PageLimit:
    """What is known about the limits of a server. Threads may learn the same fact twice."""

    # The server refuses higher ones, as far as is known.
    most: int = sys.maxsize
    # the highest limit of a request that was answered
    accepted: int = 0


def limit_of(query: str) -> int:
    """Returns the limit at the end of a query, 0 without one."""
    match = _LIMIT.search(query)
    return int(match[0]) if match else 0


def with_limit(query: str, limit: int) -> str:
    return _LIMIT.sub(str(limit), query)


def within_limit(limit: int, known: PageLimit, request: Callable[[int], T]) -> T:
    """Returns the answer to `request(limit)`, or to that with a lower limit if it is refused.

    Raises the ApiError of the first try where the lowest limit is refused too: the reason is
    another one then. One request finds that out, and only until the limit was accepted once.
    """
    limit = min(limit, known.most)
    try:
        answer = request(limit)
    except ApiError as error:
        if error.status not in REFUSED_STATUSES or limit <= max(known.accepted, LEAST):
            raise
        if not (known.accepted or _is_accepted(LEAST, request)):
            raise
        refused = error
    else:
        known.accepted = max(known.accepted, limit)
        return answer
    for lower in (step for step in STEPS if max(known.accepted, LEAST) <= step < limit):
        try:
            answer = request(lower)
        except ApiError as error:
            if error.status not in REFUSED_STATUSES:
                raise
        else:
            known.most = min(known.most, lower)
            known.accepted = max(known.accepted, lower)
            return answer
    raise refused


def _is_accepted(limit: int, request: Callable[[int], T]) -> bool:
    try:
        request(limit)
    except ApiError as error:
        if error.status not in REFUSED_STATUSES:
            raise
        return False
    return True
