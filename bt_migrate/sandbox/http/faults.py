"""Faults that can be switched on: which requests they hit, and how often."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional

KINDS = "status reset_before reset_after truncate garbage redirect delay drop".split()
DETAILS = ("status", "body", "headers", "above_limit", "seconds")


@dataclass(eq=False)
class Fault:
    """One fault of the requests that match.

    Kinds, and the details they take:
    - status: answers `status` with `body` and `headers`
      (`above_limit`: only to queries with a higher LIMIT)
    - reset_before, reset_after: resets the connection before, or after, the request is carried out
    - truncate: correct headers, half of the body
    - garbage: 200 with HTML
    - redirect: a query is answered by 303 to a gzip object on the files origin
    - delay: waits `seconds`, then goes on as usual
    - drop: does nothing and answers nothing for `seconds`, then closes
    """

    kind: str
    org: Optional[str] = None  # name; None: any
    method: Optional[str] = None
    path: Optional[str] = None  # regular expression, searched in the path with its query
    times: Optional[int] = 1  # None: for ever
    after: int = 0  # the first n matches are left alone
    # what the kinds take
    status: Optional[int] = None
    body: Any = None  # a text, or JSON
    headers: Optional[Mapping[str, str]] = None
    above_limit: Optional[int] = None
    seconds: Optional[float] = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of fault: {self.kind}")

    @property
    def details(self) -> Dict[str, Any]:
        """What the kind takes, as far as it was given."""
        values = {name: getattr(self, name) for name in DETAILS}
        return {name: value for name, value in values.items() if value is not None}

    def matches(self, org: str, method: str, path: str) -> bool:
        return (
            self.org in (None, org)
            and self.method in (None, method)
            and (self.path is None or re.search(self.path, path) is not None)
        )


class Faults:
    """The faults that are switched on, in order; the first that hits a request is its fault."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: List[Fault] = []
        self._matches: Dict[int, int] = {}
        self._hits: Dict[int, int] = {}

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._active.append(fault)
        return fault

    def clear(self) -> None:
        """Switch all off; hits are still counted for those who hold a fault."""
        with self._lock:
            self._active.clear()

    def hits(self, fault: Fault) -> int:
        with self._lock:
            return self._hits.get(id(fault), 0)

    def counts(self) -> List[int]:
        with self._lock:
            return [self._hits.get(id(fault), 0) for fault in self._active]

    def hit(
        self, org: str, method: str, path: str, limit: Callable[[], Optional[int]]
    ) -> Optional[Fault]:
        """Returns the fault of a request and counts it. `limit` returns the LIMIT of a query."""
        with self._lock:
            for fault in self._active:
                if (
                    fault.matches(org, method, path)
                    and self._is_above(fault, limit)
                    and self._is_due(fault)
                ):
                    self._hits[id(fault)] = self._hits.get(id(fault), 0) + 1
                    return fault
        return None

    @staticmethod
    def _is_above(fault: Fault, limit: Callable[[], Optional[int]]) -> bool:
        above = fault.above_limit
        return above is None or (limit() or 0) > above

    def _is_due(self, fault: Fault) -> bool:
        seen = self._matches[id(fault)] = self._matches.get(id(fault), 0) + 1
        used = self._hits.get(id(fault), 0)
        return seen > fault.after and (fault.times is None or used < fault.times)
