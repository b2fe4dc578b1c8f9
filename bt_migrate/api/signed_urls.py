"""Signed URLs of a store on another origin: the API hands them out, they expire, and never get the
key.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Callable, Dict, Mapping, Set, TypeVar, Union

import requests
from urllib3.exceptions import HTTPError

from bt_migrate.api.http import address_problem, is_page, origin, shown
from bt_migrate.api.request import OUTAGE_S
from bt_migrate.api.transport import Transport
from bt_migrate.errors import AnswerError, ApiError, NetworkError

log = logging.getLogger("bt_migrate.api")

AZURE_HOST = "blob.core.windows.net"
# Azure refuses a PUT without it; no other store knows it.
AZURE_HEADERS = {"x-ms-blob-type": "BlockBlob"}
# Bytes are copied as they are stored: a store must not compress them for the transfer.
AS_STORED = {"Accept-Encoding": "identity"}
# how long 5xx of a store is waited for, if nothing else worked meanwhile
BUSY_STORE_S = 20

Result = TypeVar("Result")


class NoAnswer(NetworkError):
    """A store gave no answer at all."""

    def __init__(self, text: str, store: str) -> None:
        super().__init__(text)
        self.store = store


class SignedUrls:
    """The stores of one organization. Safe for many threads."""

    def __init__(self, transport: Transport, *, writable: bool) -> None:
        self._transport = transport
        self._writable = writable
        # origin -> when it last answered with anything but 5xx
        self._worked_at: Dict[str, float] = {}
        # origins that never answered: each of them is waited for once
        self._unreachable: Set[str] = set()

    def retrying(self, use: Callable[[], Result]) -> Result:
        """Calls `use`, which asks for a signed URL and uses it, again while that may help.

        A URL expires and a transfer breaks off. A store that has answered before may be gone as
        long as the API may; then the error is final. Every other error is that of one file.
        """
        attempts = self._transport.limits.attempts
        failures = 0
        started = time.monotonic()
        while True:
            try:
                return use()
            except (ApiError, NetworkError) as error:
                if _is_the_apis(error) or not attempts:
                    raise
                failures += 1
                if failures > attempts or self._is_given_up(error):
                    self._raise_after_outage(error, started)
                log.info("%s; trying again", error)
            self._transport.wait(self._transport.backoff_s(failures))

    def _is_given_up(self, error: Exception) -> bool:
        return isinstance(error, NoAnswer) and error.store in self._unreachable

    def _raise_after_outage(self, error: Union[ApiError, NetworkError], started: float) -> None:
        """Returns while the error may be an outage of the whole store, else raises it."""
        if isinstance(error, NoAnswer):
            if error.store not in self._worked_at:
                self._unreachable.add(error.store)
                raise error
            if time.monotonic() - started >= OUTAGE_S:
                raise NetworkError(str(error), final=True) from None
            return
        busy = isinstance(error, ApiError) and error.status >= 500
        worked_before = 0 < max(self._worked_at.values(), default=0.0) < started
        if not (busy and worked_before and time.monotonic() - started < BUSY_STORE_S):
            raise error

    def open_download(self, signed_url: str, content_type: str = "") -> requests.Response:
        """Returns a streaming response of 200 for a file of this type; the caller closes it."""
        response = self._request("GET", signed_url, stream=True, headers=AS_STORED)
        page = is_page(response) and "html" not in content_type.lower()
        if response.status_code != 200 or page:
            response.close()
            raise self._error("GET", signed_url, response, "signed URL refused", page=page)
        return response

    def upload(self, signed_url: str, headers: Mapping[str, str], content: Any) -> None:
        """PUTs bytes, or a file-like object with a length."""
        azure = AZURE_HOST in signed_url.partition("?")[0]
        headers = {**headers, **(AZURE_HEADERS if azure else {})}
        self._send("PUT", signed_url, headers=headers, data=content)

    def send(self, signed: Mapping[str, Any], content: bytes) -> None:
        """Sends bytes as a signed answer says: PUT, or a form with the bytes as its file (POST)."""
        if signed.get("method") != "POST":
            self.upload(signed["signedUrl"], signed.get("headers") or {}, content)
            return
        fields = signed.get("fields") or {}
        self._send("POST", signed["signedUrl"], data=fields, files={"file": content})

    def _send(self, method: str, signed_url: str, **arguments: Any) -> None:
        """A store answers a write with nothing or XML: a page is a proxy's, nothing was stored."""
        if not self._writable:
            raise PermissionError("the source cannot be written")
        response = self._request(method, signed_url, **arguments)
        page = is_page(response)
        if response.status_code // 100 != 2 or page:
            raise self._error(method, signed_url, response, "upload refused", page=page)

    def _request(self, method: str, signed_url: str, **arguments: Any) -> requests.Response:
        """Not delayed by the throttle: the URL expires, and the request for it was delayed."""
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
            raise self._unusable(method, shown(signed_url), text) from None
        except (requests.RequestException, HTTPError) as error:
            request = f"{method} {shown(signed_url)}"
            raise NoAnswer(
                f"{transport.side}: no answer from {store} for {request} ({type(error).__name__})",
                store,
            ) from None
        if response.status_code < 500:
            self._worked_at[store] = time.monotonic()
            self._unreachable.discard(store)
        return response

    def _unusable(self, method: str, address: str, problem: str) -> AnswerError:
        error = AnswerError(self._transport.side, method, address, 200, problem)
        error.args = (f"{error.side}: {method} {address}: {problem}",)
        return error

    def _error(
        self, method: str, signed_url: str, response: requests.Response, why: str, *, page: bool
    ) -> ApiError:
        """A page says nothing about what the store holds."""
        text = "a page instead of the store's answer" if page else why
        side = self._transport.side
        error = ApiError(side, method, shown(signed_url), response.status_code, text)
        error.is_page = page
        return error


def _is_the_apis(error: Union[ApiError, NetworkError]) -> bool:
    """Whether the transport has retried already: it is the API's own answer, or none from it."""
    if isinstance(error, NetworkError):
        return error.final
    return not error.path.startswith("http")
