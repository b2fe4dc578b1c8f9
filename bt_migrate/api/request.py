"""What is asked of the transport and what it returns: records, without any HTTP."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Callable, FrozenSet, List, Mapping, Optional, Tuple, Union

from bt_migrate.api.answers import Check, any_answer

QUERY_PATH = "/btql"
RETRY_STATUSES = frozenset((408, 425, 429, 500, 502, 503, 504))
# how long a host that has answered before is waited for
OUTAGE_S = 180

# How many parts of a path name its route: "", "v1" and "dataset" of "/v1/dataset/<id>".
ROUTE_PARTS = 3

Json = Any
Params = Union[Mapping[str, Any], List[Tuple[str, Any]], None]


@dataclass(frozen=True)
class Endpoint:
    """Where one organization is served, and the key. `side` is "source" or "destination"."""

    side: str
    url: str
    key: str = field(repr=False)


@dataclass(frozen=True)
class Limits:
    """How hard one organization may be asked, and how often after failures."""

    # retries of a failed request; 0 fails at once, also on a 429
    attempts: int
    # before the first retry; doubles with each
    delay_s: float
    # requests in flight
    max_concurrent: int
    # 0: learned from 429s
    queries_per_minute: int = 0
    # 429s in a row of one route. A 429 says when to come back: it is not a failure, so it has a
    # bound of its own.
    rate_limit_tries: int = 100
    # A server that asks for more is not waited for.
    max_retry_after_s: float = 900.0


@dataclass(frozen=True)
class Request:
    """One request as its caller means it.

    Every request of this tool is safe to send twice, unless it is sent `once`: reads are; creating
    an existing natural key returns the existing object; rows carry their ids and replace
    themselves; PATCH, PUT and DELETE name the final state.
    """

    method: str
    path: str
    params: Params = None
    body: Optional[bytes] = None
    # statuses that are retried; the caller handles the others
    retry_statuses: FrozenSet[int] = RETRY_STATUSES
    # called with the bytes of an answer that is about to be decoded
    on_body: Optional[Callable[[bytes], None]] = None
    # what the answer must say to be believed
    check: Check = any_answer
    # Not sent again after a try that may have been carried out: the caller finds out.
    once: bool = False

    @property
    def is_query(self) -> bool:
        return self.path == QUERY_PATH

    @property
    def route(self) -> str:
        """The method and what a path of one object has in common with those of others."""
        return f"{self.method} {'/'.join(self.path.split('/')[:ROUTE_PARTS])}"

    @property
    def is_read(self) -> bool:
        return self.method == "GET" or (self.method == "POST" and self.is_query)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Answer:
    """A finished 2xx answer: decoded body and headers."""

    json: Json
    headers: Mapping[str, str]
    # bytes of the body
    size: int = 0
    # see json_codec.decode
    plain: bool = False
    # the request was sent more than once: the first try may have been carried out too
    sent_again: bool = False


class Tries:
    """What happened to one request so far."""

    def __init__(self) -> None:
        self.failures = 0
        self.rate_limited = 0
        # when the first of them failed, by the monotonic clock
        self.failed_s = 0.0
        # when the last of them was sent, by the monotonic clock
        self.sent_s = 0.0
        self._started = time.monotonic()

    def in_outage_time(self) -> bool:
        return time.monotonic() - self._started < OUTAGE_S
