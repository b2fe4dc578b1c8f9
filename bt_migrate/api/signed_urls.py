"""Signed URLs of a store on another origin: the API returns them, and they expire.

They never get the API key.
"""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any, Callable, Dict, Mapping, Set, Tuple, TypeVar, Union

import requests
from urllib3.exceptions import HTTPError

from bt_migrate.api.http import address_problem, is_page, origin, without_query
from bt_migrate.api.request import OUTAGE_S
from bt_migrate.api.transport import Transport
from bt_migrate.errors import AnswerError, ApiError, NetworkError, Route

log = logging.getLogger("bt_migrate.api")

AZURE_HOST = "blob.core.windows.net"
# Azure refuses a PUT without it; no other store knows it.
AZURE_HEADERS = {"x-ms-blob-type": "BlockBlob"}
# Bytes are copied as they are stored: a store must not compress them for the transfer.
AS_STORED = {"Accept-Encoding": "identity"}

Result = TypeVar("Result")


class NoAnswer(NetworkError):
    """A store gave no answer at all."""

    def __init__(self, text: str, store: str) -> None:
        super().__init__(text)
        self.store = store


class StoreError(ApiError):
    """What a store answered instead of bytes, or of taking them."""

    store = ""


class SignedUrls:
    """The stores of one organization. Safe for many threads."""

    def __init__(self, transport: Transport, *, writable: bool) -> None:
        self._transport = transport
        self._writable = writable
        # (origin, whether it was a write) -> when it last answered with anything but 5xx
        self._worked_at: Dict[Tuple[str, bool], float] = {}
        # origin -> the last address from which bytes came
        self._good_url: Dict[str, str] = {}
        # origins that never answered: each of them is waited for once
        self._unreachable: Set[str] = set()

    def retrying(self, use: Callable[[], Result]) -> Result:
        """Calls `use`, which requests a signed URL and uses it; again after a failure.

        The URL may have expired, or the transfer broken off. If a store that has worked before does
        not answer, or answers 5xx for every file, it is waited for as long as the API is
        (OUTAGE_S); after that it raises a final NetworkError. Every other error, also 5xx while the
        store answers for other files, fails only this file.
        """
        attempts = self._transport.limits.attempts
        failures = 0
        failed_s = 0.0
        while True:
            try:
                return use()
            except (ApiError, NetworkError) as error:
                if _is_the_apis(error) or not attempts:
                    raise
                failures += 1
                failed_s = failed_s or time.monotonic()
                if failures > attempts or self._is_given_up(error):
                    self._raise_after_outage(error, failed_s)
                log.info("%s; trying again", error)
            self._transport.wait(self._transport.backoff_s(failures))

    def _is_given_up(self, error: Exception) -> bool:
        return isinstance(error, NoAnswer) and error.store in self._unreachable

    def _raise_after_outage(self, error: Union[ApiError, NetworkError], failed_s: float) -> None:
        """Returns while the error may be an outage of the whole store, else raises it.

        `failed_s`: when this file failed first, by the monotonic clock.
        """
        if isinstance(error, NoAnswer):
            if not any(store == error.store for store, _ in self._worked_at):
                self._unreachable.add(error.store)
                raise error
        elif not self._is_down(error, failed_s):
            raise error
        if time.monotonic() - failed_s >= OUTAGE_S:
            raise NetworkError(str(error), final=True) from None

    def _is_down(self, error: Union[ApiError, NetworkError], failed_s: float) -> bool:
        """Whether a store that worked answers 5xx for every file, not for this one only."""
        if not isinstance(error, StoreError) or error.status < 500:
            return False
        use = (error.store, error.method != "GET")
        if use not in self._worked_at:
            return False
        good_url = self._good_url.get(use[0])
        if error.method == "GET" and good_url and self._worked_at[use] < failed_s:
            # An address that has expired is refused, which is an answer too.
            with contextlib.suppress(ApiError, NetworkError):
                self._request("GET", good_url, stream=True, headers=AS_STORED).close()
        return self._worked_at[use] < failed_s

    def open_download(self, signed_url: str, content_type: str = "") -> requests.Response:
        """Returns a streaming response of 200 for a file of this type; the caller closes it."""
        response = self._request("GET", signed_url, stream=True, headers=AS_STORED)
        page = is_page(response) and "html" not in content_type.lower()
        if response.status_code != 200 or page:
            response.close()
            raise self._error("GET", signed_url, response, "signed URL refused", page=page)
        self._good_url[origin(signed_url)] = signed_url
        return response

    def upload(self, signed_url: str, headers: Mapping[str, str], content: Any) -> None:
        """PUTs bytes, or a file-like object with a length."""
        azure = AZURE_HOST in signed_url.partition("?")[0]
        headers = {**headers, **(AZURE_HEADERS if azure else {})}
        self._send("PUT", signed_url, headers=headers, data=content)

    def send(self, signed: Mapping[str, Any], content: bytes) -> None:
        """Sends bytes as the answer with the signed URL prescribes: by PUT, or in a form (POST)."""
        if signed.get("method") != "POST":
            self.upload(signed["signedUrl"], signed.get("headers") or {}, content)
            return
        fields = signed.get("fields") or {}
        self._send("POST", signed["signedUrl"], data=fields, files={"file": content})

    def _send(self, method: str, signed_url: str, **arguments: Any) -> None:
        """Raises StoreError for an HTML page: a store answers a write with nothing or XML."""
        if not self._writable:
            raise PermissionError("the source cannot be written")
        response = self._request(method, signed_url, **arguments)
        page = is_page(response)
        if response.status_code // 100 != 2 or page:
            raise self._error(method, signed_url, response, "upload refused", page=page)

    def _request(self, method: str, signed_url: str, **arguments: Any) -> requests.Response:
        """Sends a request to the store at once: the signed URL expires.

        The throttle has already delayed the request to the API for that URL.
        """
        transport = self._transport
        problem = address_problem(signed_url)
        if problem:
            raise self._unusable(method, "signed URL", problem)
        store = origin(signed_url)
        try:
            with transport.in_flight:
                response = transport.connections.request_elsewhere(method, signed_url, **arguments)
        # of the address or the headers, which the API made up
        except ValueError as error:
            text = f"it cannot be used ({type(error).__name__})"
            raise self._unusable(method, without_query(signed_url), text) from None
        except (requests.RequestException, HTTPError) as error:
            request = f"{method} {without_query(signed_url)}"
            raise NoAnswer(
                f"{transport.side}: no answer from {store} for {request} ({type(error).__name__})",
                store,
            ) from None
        if response.status_code < 500:
            self._worked_at[store, method != "GET"] = time.monotonic()
            self._unreachable.discard(store)
        return response

    def _unusable(self, method: str, address: str, problem: str) -> AnswerError:
        error = AnswerError(Route(self._transport.side, method, address), 200, problem)
        error.args = (f"{error.route}: {problem}",)
        return error

    def _error(
        self, method: str, signed_url: str, response: requests.Response, why: str, *, page: bool
    ) -> StoreError:
        """Returns the error; an HTML page says nothing about what the store has."""
        text = "a page instead of the store's answer" if page else why
        route = Route(self._transport.side, method, without_query(signed_url))
        error = StoreError(route, response.status_code, text)
        error.store = origin(signed_url)
        error.is_page = page
        return error


def _is_the_apis(error: Union[ApiError, NetworkError]) -> bool:
    """Whether it is an error of the API, which the transport has already retried."""
    if isinstance(error, NetworkError):
        return error.final
    return not error.path.startswith("http")
