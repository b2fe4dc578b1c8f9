"""The requests that a sandbox has served, and how many were in flight at once."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Dict, List

# The status of a request that was reset or dropped before it was carried out.
NO_ANSWER = 0


@dataclass(frozen=True)
class Request:
    """One finished request."""

    number: int  # from 1, in order of arrival
    org_name: str  # "-" for an unknown key
    method: str
    path: str  # with the query
    status: int  # NO_ANSWER if there was none
    changed: bool  # it changed what the sandbox holds
    body_bytes: int
    # Authorization is replaced by the name of the organization.
    headers: Dict[str, str] = field(compare=False)
    started: float = field(compare=False)  # unix seconds
    finished: float = field(compare=False)
    origin: str = "api"  # or "files"


class RequestLog:
    """Finished requests, and per organization the number of requests in flight."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: List[Request] = []
        self._number = 0
        self._in_flight: Dict[str, int] = {}
        self._in_flight_max: Dict[str, int] = {}

    def begin(self, org_name: str) -> int:
        """Count a request that has arrived, and return its number."""
        with self._lock:
            self._number += 1
            current = self._in_flight.get(org_name, 0) + 1
            self._in_flight[org_name] = current
            self._in_flight_max[org_name] = max(current, self._in_flight_max.get(org_name, 0))
            return self._number

    def end(self, org_name: str) -> None:
        """Count a request as no longer in flight."""
        with self._lock:
            self._in_flight[org_name] -= 1

    def add(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def requests(self) -> List[Request]:
        """Returns the finished requests in order of arrival."""
        with self._lock:
            return sorted(self._requests, key=lambda request: request.number)

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()
            self._in_flight_max.clear()

    def in_flight_max(self, org_name: str) -> int:
        """Returns the highest number of requests that were in flight at one moment."""
        with self._lock:
            return self._in_flight_max.get(org_name, 0)
