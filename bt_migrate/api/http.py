"""HTTP terms that do not depend on what is asked: origins, URLs in messages, Retry-After."""

from __future__ import annotations

import contextlib
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Optional
from urllib.parse import urlsplit

import requests

DEFAULT_PORTS = {"https": 443, "http": 80}


def retry_after_s(response: requests.Response) -> Optional[float]:
    """Returns the seconds of the Retry-After header (a number or a date), None if unreadable."""
    value = response.headers.get("Retry-After", "")
    try:
        seconds = float(value)
        # neither NaN nor more than a thread can wait
        if seconds <= threading.TIMEOUT_MAX:
            return max(0.0, seconds)
    except ValueError:
        pass
    try:
        moment_s = parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError):
        return None
    return max(0.0, moment_s - _server_now_s(response))


def _server_now_s(response: requests.Response) -> float:
    """Returns the Date of the answer in Unix seconds, our own clock without one."""
    with contextlib.suppress(KeyError, TypeError, ValueError):
        return parsedate_to_datetime(response.headers["Date"]).timestamp()
    return time.time()


def is_page(response: requests.Response) -> bool:
    """Whether the answer says that it is HTML."""
    return "html" in response.headers.get("Content-Type", "").lower()


def origin(url: str) -> str:
    """Scheme, host and port: what a key belongs to."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or DEFAULT_PORTS.get(parts.scheme)}"


def shown(url: str) -> str:
    """The URL as it may be shown: without query and user."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"
