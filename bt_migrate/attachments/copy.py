"""Copy the bytes behind attachment references: source -> signed URL -> signed URL -> destination, streamed, once per key.

A reference is {"type": "braintrust_attachment", "key", "filename", "content_type"}. A key belongs to its organization, so the
bytes are uploaded under a new key that is made from the old one and the destination: a second run gives the same reference.
"""

from __future__ import annotations

import hashlib
import io
import logging
import tempfile
import threading
import uuid
from typing import IO, Any, Dict, Mapping, Optional, cast

import requests

from bt_migrate.api.client import Api
from bt_migrate.api.http import shown
from bt_migrate.errors import ApiError, MigrationError, NetworkError, StateError
from bt_migrate.model.references import attachment_places, value_at
from bt_migrate.state.copied_attachments import CopiedAttachments

log = logging.getLogger("bt_migrate.attachments")

CHUNK_BYTES = 1 << 16
SPOOL_BYTES = 1 << 20  # above it the bytes between the two ends lie in a temporary file
NAMESPACE = uuid.UUID("6f4b8a52-3f0e-5d0c-9a53-1d1d6f1f7c11")
MISSING = "attachment_missing"


def dest_key(dest_org_id: str, key: str) -> str:
    """The key under which a source attachment lives in the destination."""
    return str(uuid.uuid5(NAMESPACE, f"{dest_org_id}/{key}"))


class NotCopied(MigrationError):
    """This attachment stays in the source; `str()` is the reason, `kind` that of the finding."""

    def __init__(self, reason: str, kind: str = "attachment_not_copied") -> None:
        super().__init__(reason)
        self.kind = kind


class AttachmentCopier:
    """Copies each key at most once per run; threads that need the same key wait for one copy. Reasons of failures are kept."""

    def __init__(self, source: Api, dest: Api, copied: CopiedAttachments, max_bytes: int) -> None:
        self._source, self._dest, self._copied, self._max_bytes = source, dest, copied, max_bytes
        self._lock = threading.Lock()
        self._key_locks: Dict[str, threading.Lock] = {}
        self.not_copied: Dict[str, NotCopied] = {}  # by key

    def copy_into(self, value: Any) -> Dict[str, NotCopied]:
        """Copy all attachments of a JSON value and rewrite their keys in it. Gives back key -> why it stays.

        `value` is ours: it is changed in place.
        """
        failures: Dict[str, NotCopied] = {}
        for place in attachment_places(value):
            reference = value_at(value, place)
            problem = self._copy_once(reference)
            if problem is None:
                reference["key"] = dest_key(self._dest.org_id, reference["key"])
            else:
                failures[reference["key"]] = problem
        return failures

    def upload(self, key: str, filename: str, content_type: str, content: bytes) -> None:
        """Put bytes that are at hand under a key of the destination; the same key may be uploaded again."""
        named = {"filename": filename, "content_type": content_type}
        self._dest.with_signed(lambda: self._upload(key, named, io.BytesIO(content), len(content)))

    def _copy_once(self, reference: Mapping[str, Any]) -> Optional[NotCopied]:
        key = reference["key"]
        with self._lock:
            key_lock = self._key_locks.setdefault(key, threading.Lock())
        with key_lock:
            if key in self.not_copied:
                return self.not_copied[key]
            if not self._copied.has(key):
                try:
                    self._copy(reference)
                except (NotCopied, ApiError) as error:
                    if isinstance(error, ApiError) and error.status >= 500:
                        raise  # the server's trouble, not the attachment's: the stream is resumed later
                    problem = error if isinstance(error, NotCopied) else _refused(error)
                    self.not_copied[key] = problem
                    log.warning(
                        "attachment %s was not copied: %s",
                        key,
                        problem,
                        extra={"event": "attachment_failed"},
                    )
                    return problem
        return None

    def _copy(self, reference: Mapping[str, Any]) -> None:
        key, new_key = reference["key"], dest_key(self._dest.org_id, reference["key"])
        named = {
            "filename": reference.get("filename") or "attachment",
            "content_type": reference.get("content_type") or "application/octet-stream",
        }
        try:
            with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
                file = cast("IO[bytes]", spool)
                size, digest = self._source.with_signed(lambda: self._download(key, named, file))
                self._dest.with_signed(lambda: self._upload(new_key, named, file, size))
        except (
            OSError
        ) as error:  # of the temporary file: those of the network are NetworkErrors by now
            place = tempfile.gettempdir()
            raise StateError(
                f"{place}: cannot hold an attachment ({error.strerror}); make room or set TMPDIR, then run again"
            ) from None
        self._copied.record(key, new_key, size, digest)

    def _download(self, key: str, named: Mapping[str, str], spool: IO[bytes]) -> tuple:
        """Fetch the bytes into `spool`; (size, SHA-256). A signed URL is used at once: it expires."""
        answer = self._source.get(
            "/attachment", {"key": key, **named, "org_id": self._source.org_id}
        )
        status = (answer or {}).get("status") or {}
        if status.get("upload_status") != "done":
            reason = f"not ready in the source (upload status {status.get('upload_status')!r})"
            raise (
                NotCopied(reason, MISSING)
                if status.get("upload_status") == "error"
                else NotCopied(reason)
            )
        size, digest = 0, hashlib.sha256()
        spool.seek(0)
        spool.truncate()  # what a try that broke off has left
        response = self._source.open_download(answer["downloadUrl"], named["content_type"])
        try:
            for chunk in response.iter_content(CHUNK_BYTES):
                size += len(chunk)
                if size > self._max_bytes:
                    raise NotCopied(
                        f"larger than MIGRATION_ATTACHMENT_MAX_BYTES ({self._max_bytes})"
                    )
                digest.update(chunk)
                spool.write(chunk)
        except requests.RequestException as problem:
            raise NetworkError(
                f"source: download of an attachment broke off ({type(problem).__name__})"
            ) from None
        finally:
            response.close()
        expected = response.headers.get("Content-Length")
        if (
            expected
            and expected.isdigit()
            and not response.headers.get("Content-Encoding")
            and int(expected) != size
        ):
            raise NetworkError(f"source: download from {shown(response.url)} was cut off")
        return size, digest.hexdigest()

    def _upload(self, key: str, named: Mapping[str, str], spool: IO[bytes], size: int) -> None:
        """Announce, PUT, report done. The same key may be uploaded again: it names the same bytes."""
        announced = self._dest.post(
            "/attachment", {"key": key, **named, "org_id": self._dest.org_id}
        ).json
        spool.seek(0)
        self._dest.upload(
            announced["signedUrl"], announced.get("headers") or {}, SizedFile(spool, size)
        )
        self._dest.post(
            "/attachment/status",
            {"key": key, "org_id": self._dest.org_id, "status": {"upload_status": "done"}},
        )


def _refused(error: ApiError) -> NotCopied:
    """What the source does not hold nobody can copy; anything else may be mended, also a page: a path that a gateway does not know."""
    missing = error.side == "source" and error.status in (404, 410) and not error.is_page
    return NotCopied(str(error), MISSING) if missing else NotCopied(str(error))


class SizedFile:
    """A file with a length, so that requests sends Content-Length (signed PUTs refuse chunks) and streams it."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)
