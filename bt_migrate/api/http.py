"""Words of HTTP that know nothing of what is asked: who a request is from, where it may go, when to come back."""

from __future__ import annotations

import contextlib
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Optional
from urllib.parse import urlsplit

import requests


class BearerAuth(requests.auth.AuthBase):
    """Sets the key itself, so that requests does not put a password of ~/.netrc in its place."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class NoAuth(requests.auth.AuthBase):
    """For other origins: no key, and none of ~/.netrc either."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def retry_after_s(response: requests.Response) -> Optional[float]:
    """Seconds of the Retry-After header (a number or a date), None without one that can be read. Honoured in full."""
    value = response.headers.get("Retry-After", "")
    try:
        seconds = float(value)
        if seconds <= threading.TIMEOUT_MAX:  # neither nan nor beyond what can be waited for
            return max(0.0, seconds)
    except ValueError:
        pass
    try:
        moment_s, now_s = parsedate_to_datetime(value).timestamp(), time.time()
    except (TypeError, ValueError):
        return None
    with contextlib.suppress(KeyError, TypeError, ValueError):  # a date of the server's clock
        now_s = parsedate_to_datetime(response.headers["Date"]).timestamp()
    return max(0.0, moment_s - now_s)


def origin(url: str) -> str:
    """Scheme, host and port: what a key belongs to."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or {'https': 443, 'http': 80}.get(parts.scheme)}"


def shown(url: str) -> str:
    """The URL as it may be shown: without query and user."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{parts.path}"
