"""Connections to the API's own origin, which get the key, and to other origins, which do not.

requests does not promise that threads can share a session, so each session serves one thread at a
time.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Iterator, List, Optional

import requests
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy
from urllib3.util import parse_url
from urllib3.util.retry import Retry

from bt_migrate.errors import UsageError

# to connect, and between two bytes: a query may take 30 s on the server, an upload more
TIMEOUT_S = (10, 120)


class BearerAuth(requests.auth.AuthBase):
    """Sets the key itself, so that requests does not replace it by a password of ~/.netrc."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class NoAuth(requests.auth.AuthBase):
    """For other origins: no key, and no password of ~/.netrc."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class Connections:
    """The sessions of one organization. Safe for many threads.

    `connect_attempts` and `delay_s` are for connecting only, before anything was sent.
    """

    def __init__(self, url: str, *, connect_attempts: int, delay_s: float) -> None:
        self._url = url
        self._connect_attempts = connect_attempts
        self._delay_s = delay_s
        self._idle: List[requests.Session] = []
        self._local = threading.local()

    @contextlib.contextmanager
    def own(self) -> Iterator[requests.Session]:
        """A session for the API's own origin, exclusive to the caller while the block runs.

        An idle one is reused with its open connection. Proxies and certificates of the environment
        are read once a session, not for each request. Raises UsageError for an unusable proxy.
        """
        try:
            session = self._idle.pop()
        except IndexError:
            session = self._new_session()
            environment = session.merge_environment_settings(self._url, {}, None, None, None)
            session.trust_env = False
            session.proxies = environment["proxies"]
            session.verify = environment["verify"]
            _check_proxy(session, self._url)
        try:
            yield session
        finally:
            self._idle.append(session)

    def request_elsewhere(self, method: str, url: str, **arguments: Any) -> requests.Response:
        """Sends a request to another origin, without the key and without following redirects.

        The session belongs to the thread, because a streamed body may be read long after this call.
        """
        session: Optional[requests.Session] = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = self._new_session()
        return session.request(
            method, url, auth=NoAuth(), timeout=TIMEOUT_S, allow_redirects=False, **arguments
        )

    def _new_session(self) -> requests.Session:
        """urllib3 retries only connecting; statuses and broken answers are the transport's."""
        session = requests.Session()
        retry = Retry(
            total=None,
            connect=self._connect_attempts,
            read=False,
            redirect=False,
            status=0,
            other=0,
            backoff_factor=self._delay_s,
        )
        for scheme in ("https://", "http://"):
            session.mount(scheme, HTTPAdapter(max_retries=retry))
        return session


def _check_proxy(session: requests.Session, url: str) -> None:
    """Raises UsageError if the environment's proxy for the URL cannot be used.

    Later, the error of requests would not say whether it is about the proxy or the URL. The proxy
    is not shown: it may hold a password.
    """
    proxy = select_proxy(url, session.proxies)
    if not proxy:
        return
    adapter: Any = session.get_adapter(url)
    try:
        manager = adapter.proxy_manager_for(proxy if "://" in proxy else f"http://{proxy}")
        if manager and parse_url(proxy).host:
            return
        problem = "it names no host"
    except requests.exceptions.InvalidSchema:
        problem = "SOCKS needs the package PySocks (pip install pysocks)"
    except (requests.RequestException, ValueError):
        problem = "it is no URL like http://host:port"
    raise UsageError(f"the proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used: {problem}")
