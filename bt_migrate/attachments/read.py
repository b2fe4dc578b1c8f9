"""Reads the file of an attachment: asks the API for a signed URL, then streams from the store.

A reference is {"type": "braintrust_attachment", "key", "filename", "content_type"}.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, Dict, Iterator, Mapping

import requests
from urllib3.exceptions import HTTPError

from bt_migrate.api.answers import signed_download
from bt_migrate.api.client import Api
from bt_migrate.errors import ApiError, NetworkError, RateLimitError, Route

CHUNK_BYTES = 1 << 16
UPLOADED = "done"
# The upload failed for good.
ERROR = "error"
# 4xx that ask to come again: they count only if they persist
COME_AGAIN = (408, 425, 429)
# the upload status in the text of a refusal, which may be JSON inside of JSON
_STATUS_IN_TEXT = re.compile(r"upload[_ ]?status\W+(?:is\W+)?(\w+)", re.IGNORECASE)


class NotUploaded(ApiError):
    """The organization knows the key, but its upload was never finished.

    `is_lost`: the bytes do not exist.
    """

    def __init__(self, side: str, upload_status: object, *, is_lost: bool) -> None:
        super().__init__(Route(side, "GET", "/attachment"), 404, f"upload status {upload_status!r}")
        self.upload_status = upload_status
        self.is_lost = is_lost


def names_of(reference: Mapping[str, Any]) -> Dict[str, str]:
    """Returns the file's name and type in the form of the API's attachment routes."""
    return {
        "filename": str(reference.get("filename") or "attachment"),
        "content_type": str(reference.get("content_type") or "application/octet-stream"),
    }


# assumption: attachments_keep_their_bytes
def attachment_chunks(api: Api, reference: Mapping[str, Any]) -> Iterator[bytes]:
    """Yields the bytes as they are stored. Call it inside `api.store.retrying`: the URL expires.

    Raises NotUploaded, ApiError for a refusal, and NetworkError for an interrupted transfer.
    """
    names = names_of(reference)
    answer = _signed_answer(api, {"key": reference["key"], **names, "org_id": api.org_id})
    upload_status = answer["status"]["upload_status"]
    url = str(answer.get("downloadUrl") or "")
    if upload_status != UPLOADED:
        is_lost = upload_status == ERROR or (bool(url) and _is_refused(api, url))
        raise NotUploaded(api.side, upload_status, is_lost=is_lost)
    with api.store.open_download(url, names["content_type"]) as response:
        yield from _whole_body(api.side, response)


def _signed_answer(api: Api, params: Mapping[str, str]) -> Dict[str, Any]:
    try:
        return dict(api.get("/attachment", params, check=signed_download))
    except RateLimitError as error:
        _raise_if_not_uploaded(error.refusal)
        raise
    except ApiError as error:
        _raise_if_not_uploaded(error)
        raise


def _raise_if_not_uploaded(error: ApiError) -> None:
    """Raises NotUploaded for a refusal that names the upload status, after all retries."""
    match = _STATUS_IN_TEXT.search(error.body)
    if match and match[1].lower() != UPLOADED and _is_refusal(error):
        raise NotUploaded(error.side, match[1], is_lost=True) from None


def _is_refused(api: Api, url: str) -> bool:
    """Whether the store refuses the file, after retries if it asks to come again."""

    def ask() -> bool:
        try:
            api.store.open_download(url).close()
        except ApiError as error:
            if error.status in COME_AGAIN:
                raise
            return _is_refusal(error)
        except NetworkError:
            pass
        return False

    try:
        return api.store.retrying(ask)
    except ApiError as error:
        return _is_refusal(error)


def _is_refusal(error: ApiError) -> bool:
    """Whether the server itself refuses the file, whatever it says."""
    return 400 <= error.status < 500 and not error.is_page


def _whole_body(side: str, response: requests.Response) -> Iterator[bytes]:
    """Yields the body without decoding it: Content-Encoding is metadata of the stored file.

    Raises NetworkError if it is cut off, or if the store names an MD5 of other bytes.
    """
    size = 0
    stated = stated_md5(response.headers)
    digest = _new_md5() if stated else None
    try:
        for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
            size += len(chunk)
            if digest is not None:
                digest.update(chunk)
            yield chunk
    except (requests.RequestException, HTTPError, OSError) as problem:
        raise NetworkError(
            f"{side}: download of an attachment was interrupted ({type(problem).__name__})"
        ) from None
    expected = response.headers.get("Content-Length", "")
    if expected.isdigit() and int(expected) != size:
        raise NetworkError(f"{side}: download of an attachment was cut off")
    if digest is not None and base64.b64encode(digest.digest()).decode() != stated:
        raise NetworkError(
            f"{side}: the bytes of an attachment do not have the MD5 that the store states"
        )


def _new_md5() -> Any:
    """Returns an MD5 object; None on a system that forbids MD5 (FIPS)."""
    try:
        return hashlib.md5()
    except ValueError:
        return None


def stated_md5(headers: Mapping[str, str]) -> str:
    """Returns the MD5 that a store names for the body, in base64; "" if it names none.

    Not the ETag of S3, which is the MD5 of some files only. Google Cloud Storage names that of the
    stored bytes, and may send a compressed file decompressed
    (https://cloud.google.com/storage/docs/xml-api/reference-headers).
    """
    if headers.get("x-goog-stored-content-encoding", "identity") != "identity":
        return ""
    hashes = headers.get("x-goog-hash", "").replace(" ", "").split(",")
    named = [text.partition("=")[2] for text in hashes if text.startswith("md5=")]
    return (named or [headers.get("Content-MD5", "")])[0].strip()
