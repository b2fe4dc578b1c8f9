"""A client of an organization as the tests of the API use it, without long waits."""

from __future__ import annotations

import threading
from typing import Any, Optional

from bt_migrate.api.client import Api
from bt_migrate.api.request import Endpoint, Limits

URL = "https://api.example.test"
KEY = "sk-key-of-a-test"
HTML = {"Content-Type": "text/html"}


def client(
    url: str = URL,
    *,
    side: str = "destination",
    writable: bool = True,
    attempts: int = 3,
    delay_s: float = 0.001,
    max_concurrent: int = 4,
    per_minute: int = 0,
    stop: Optional[threading.Event] = None,
) -> Api:
    limits = Limits(attempts, delay_s, max_concurrent, per_minute)
    return Api(Endpoint(side, url, KEY), limits, writable=writable, stop=stop)


def outcome(call: Any) -> Any:
    """What a call returns, or the error that it raises."""
    try:
        return call()
    except Exception as error:  # compared as a whole by the test
        return error
