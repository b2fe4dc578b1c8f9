"""Signed URLs of a store on another origin: the API hands them out, they expire, and never get the key."""

from __future__ import annotations

import logging
import time
from typing import Any, Callable, Mapping, TypeVar, Union
from urllib.parse import urlsplit

import requests

from bt_migrate.api.http import is_page, shown
from bt_migrate.api.transport import OUTAGE_S, Transport
from bt_migrate.errors import ApiError, NetworkError

log = logging.getLogger("bt_migrate.api")

AZURE_HOST = "blob.core.windows.net"
# Azure refuses a PUT without it; no other store knows it.
AZURE_HEADERS = {"x-ms-blob-type": "BlockBlob"}

Result = TypeVar("Result")


class SignedUrls:
    """The store of one organization. Safe for many threads."""

    def __init__(self, transport: Transport, *, writable: bool) -> None:
        self._transport = transport
        self._writable = writable
        # a signed URL was answered
        self._proven = False

    def retrying(self, use: Callable[[], Result]) -> Result:
        """Calls `use`, which asks for a signed URL and uses it, again while that may help.

        A URL expires and a transfer breaks off. A store that has answered before may be gone as
        long as the API may.
        """
        attempts = self._transport.limits.attempts
        failures = 0
        started = time.monotonic()
        while True:
            try:
                return use()
            except (ApiError, NetworkError) as error:
                if _is_final(error):
                    raise
                outage = self._proven and attempts and time.monotonic() - started < OUTAGE_S
                if failures >= attempts and not (outage and isinstance(error, NetworkError)):
                    raise
                failures += 1
                log.info("%s; trying again", error)
            self._transport.wait(self._transport.backoff_s(failures))

    def open_download(self, signed_url: str, content_type: str = "") -> requests.Response:
        """Returns a streaming response of 200 for a file of this type; the caller closes it."""
        response = self._request("GET", signed_url, stream=True)
        page = is_page(response) and "html" not in content_type.lower()
        if response.status_code != 200 or page:
            response.close()
            raise self._error("GET", signed_url, response, "signed URL refused", page=page)
        return response

    def upload(self, signed_url: str, headers: Mapping[str, str], content: Any) -> None:
        """PUTs bytes, or a file-like object with a length."""
        azure = AZURE_HOST in (urlsplit(signed_url).hostname or "")
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
        try:
            with transport.in_flight:
                response = transport.connections.request_elsewhere(method, signed_url, **arguments)
            self._proven = True
            return response
        except requests.RequestException as problem:
            raise transport.network_error(f"{method} {shown(signed_url)}", problem) from None

    def _error(
        self, method: str, signed_url: str, response: requests.Response, why: str, *, page: bool
    ) -> ApiError:
        """A page says nothing about what the store holds."""
        text = "a page instead of the store's answer" if page else why
        side = self._transport.side
        error = ApiError(side, method, shown(signed_url), response.status_code, text)
        error.is_page = page
        return error


def _is_final(error: Union[ApiError, NetworkError]) -> bool:
    """Whether the transport has retried already: it is the API's own answer, or none from it."""
    if isinstance(error, NetworkError):
        return error.final
    return not error.path.startswith("http")
