"""Reads the bytes behind a reference: ask the API for a signed URL, then stream from the store.

A reference is {"type": "braintrust_attachment", "key", "filename", "content_type"}.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, Mapping

import requests

from bt_migrate.api.client import Api
from bt_migrate.errors import ApiError, NetworkError

CHUNK_BYTES = 1 << 16
DONE = "done"


class NotUploaded(ApiError):
    """The organization knows the key, but its upload was never finished."""

    def __init__(self, side: str, upload_status: object) -> None:
        super().__init__(side, "GET", "/attachment", 404, f"upload status {upload_status!r}")
        self.upload_status = upload_status


def names_of(reference: Mapping[str, Any]) -> Dict[str, str]:
    """Returns the file's name and type, as the API's attachment routes want them."""
    return {
        "filename": reference.get("filename") or "attachment",
        "content_type": reference.get("content_type") or "application/octet-stream",
    }


def attachment_chunks(api: Api, reference: Mapping[str, Any]) -> Iterator[bytes]:
    """Yields the bytes. For use inside `api.store.retrying`: a signed URL is used at once.

    Raises NotUploaded, ApiError for a refusal, NetworkError for a transfer that broke off.
    """
    names = names_of(reference)
    params = {"key": reference["key"], **names, "org_id": api.org_id}
    answer = api.get("/attachment", params) or {}
    upload_status = (answer.get("status") or {}).get("upload_status")
    if upload_status != DONE:
        raise NotUploaded(api.side, upload_status)
    with api.store.open_download(answer["downloadUrl"], names["content_type"]) as response:
        yield from _whole_body(api.side, response)


def _whole_body(side: str, response: requests.Response) -> Iterator[bytes]:
    size = 0
    try:
        for chunk in response.iter_content(CHUNK_BYTES):
            size += len(chunk)
            yield chunk
    except requests.RequestException as problem:
        raise NetworkError(
            f"{side}: download of an attachment broke off ({type(problem).__name__})"
        ) from None
    expected = response.headers.get("Content-Length", "")
    encoded = "Content-Encoding" in response.headers
    if expected.isdigit() and not encoded and int(expected) != size:
        raise NetworkError(f"{side}: download of an attachment was cut off")
