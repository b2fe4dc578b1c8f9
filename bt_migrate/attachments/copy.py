"""Copies the files of attachments from the source to the destination, once per key.

A file is downloaded from a signed URL into a temporary file, and uploaded to a signed URL. A key is
valid in its own organization only, so the file gets a new key. The new key is derived from the old
key and the destination, so that every run computes the same key.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tempfile
import threading
import uuid
from typing import IO, Any, Dict, Mapping, Optional, Set, Tuple, cast

from bt_migrate.api.answers import Check, described, error_free, signed_upload, value_at_place
from bt_migrate.api.client import Api
from bt_migrate.attachments.read import NotUploaded, attachment_chunks, names_of
from bt_migrate.errors import ApiError, MigrationError, NetworkError, StateError
from bt_migrate.model.references import attachment_places, value_at
from bt_migrate.state.copied_attachments import CopiedAttachments

log = logging.getLogger("bt_migrate.attachments")

# files above this size are kept on disk during the copy, not in memory
SPOOL_BYTES = 1 << 20
NAMESPACE = uuid.UUID("6f4b8a52-3f0e-5d0c-9a53-1d1d6f1f7c11")
# How many failed keys are remembered, so that they are not tried again. The oldest are dropped.
MAX_NOT_COPIED = 10_000
# kinds of findings
MISSING = "attachment_missing"
NOT_COPIED = "attachment_not_copied"


def dest_attachment_key(dest_org_id: str, key: str) -> str:
    """Returns the key of a source attachment in the destination."""
    return str(uuid.uuid5(NAMESPACE, f"{dest_org_id}/{key}"))


class NotCopied(MigrationError):
    """The attachment was not copied. `str()` is the reason, `kind` the kind of the finding."""

    def __init__(self, reason: str, kind: str = NOT_COPIED) -> None:
        super().__init__(reason)
        self.kind = kind


class AttachmentCopier:
    """Copies each key at most once per run. Threads that need the same key wait for the copy."""

    def __init__(self, source: Api, dest: Api, copied: CopiedAttachments, max_bytes: int) -> None:
        self._source = source
        self._dest = dest
        self._copied = copied
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        # keys that a thread is copying now
        self._running: Dict[str, threading.Event] = {}
        # answers of POST /attachment/status that were followed by the status "done"
        self._status_answers: Set[str] = set()
        # keys that the source lost, and that an earlier run copied
        self._kept: Set[str] = set()
        # key -> why it was not copied, of the last MAX_NOT_COPIED
        self._not_copied: Dict[str, NotCopied] = {}

    def copy_into(self, value: Any) -> Dict[str, NotCopied]:
        """Copies all attachments of a JSON value and rewrites their keys in it, in place.

        Returns key -> reason, of the attachments that were not copied.
        """
        failures: Dict[str, NotCopied] = {}
        for place in attachment_places(value):
            reference = value_at(value, place)
            problem = self._copy_once(reference)
            if problem is None:
                reference["key"] = dest_attachment_key(self._dest.org_id, reference["key"])
            else:
                failures[reference["key"]] = problem
        return failures

    def copy_again(self, reference: Mapping[str, Any]) -> Optional[NotCopied]:
        """Copies an attachment whose bytes are wrong; returns the reason if that failed."""
        problem = self._copy_or_reason(reference)
        if problem is not None:
            self._note_not_copied(reference["key"], problem)
        return problem

    def upload(self, key: str, filename: str, content_type: str, content: bytes) -> None:
        """Uploads bytes under a key of the destination. Safe to repeat.

        Raises NotCopied if the failure concerns only this upload.
        """
        names = {"filename": filename, "content_type": content_type}
        file = io.BytesIO(content)
        try:
            self._dest.store.retrying(lambda: self._upload(key, names, file, len(content)))
        except NetworkError as error:
            if error.final:
                raise
            raise NotCopied(str(error)) from None
        except ApiError as error:
            raise NotCopied(str(error)) from None

    def _copy_once(self, reference: Mapping[str, Any]) -> Optional[NotCopied]:
        """Copies the bytes once; waits if another thread is copying them."""
        key = reference["key"]
        while True:
            with self._lock:
                if key in self._kept:
                    return None
                if key in self._not_copied or self._copied.has(key):
                    return self._not_copied.get(key)
                running = self._running.get(key)
                if running is None:
                    done = self._running[key] = threading.Event()
                    break
            running.wait()
        try:
            problem = self._copy_or_reason(reference)
            if problem is not None and problem.kind == MISSING and self._is_there(reference):
                self._kept.add(key)
                problem = None
            if problem is not None:
                self._note_not_copied(key, problem)
            return problem
        finally:
            with self._lock:
                del self._running[key]
            done.set()

    def _is_there(self, reference: Mapping[str, Any]) -> bool:
        """Whether the destination has a copy, of which the first bytes can be read."""
        copy = {**reference, "key": dest_attachment_key(self._dest.org_id, reference["key"])}
        try:
            return next(attachment_chunks(self._dest, copy), None) is not None
        except NetworkError as error:
            if error.final:
                raise
        except (ApiError, NotUploaded):
            pass
        return False

    def _note_not_copied(self, key: str, problem: NotCopied) -> None:
        """Keep the reason without its traceback, which would keep the content in memory."""
        with self._lock:
            self._not_copied[key] = NotCopied(str(problem), problem.kind)
            while len(self._not_copied) > MAX_NOT_COPIED:
                del self._not_copied[next(iter(self._not_copied))]

    def _copy_or_reason(self, reference: Mapping[str, Any]) -> Optional[NotCopied]:
        """Copies the bytes; returns the reason if it failed for this attachment only."""
        try:
            self._copy(reference)
            return None
        except NotCopied as problem:
            reason = problem
        except NetworkError as error:
            # the host is unreachable: the stream stops, and is resumed by the next start
            if error.final:
                raise
            reason = NotCopied(str(error))
        except ApiError as error:
            reason = _refused(error)
        log.warning(
            "attachment %s was not copied: %s",
            reference["key"],
            reason,
            extra={"event": "attachment_failed"},
        )
        return reason

    def _copy(self, reference: Mapping[str, Any]) -> None:
        key = reference["key"]
        new_key = dest_attachment_key(self._dest.org_id, key)
        names = names_of(reference)
        try:
            with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
                file = cast("IO[bytes]", spool)
                size, digest = self._source.store.retrying(lambda: self._download(reference, file))
                self._dest.store.retrying(lambda: self._upload(new_key, names, file, size))
        # from the temporary file; errors of the network are NetworkErrors
        except OSError as error:
            folder = tempfile.gettempdir()
            raise StateError(
                f"{folder}: cannot hold an attachment ({error.strerror});"
                " make room or set TMPDIR, then run again"
            ) from None
        self._copied.record(key, new_key, size, digest)

    def _download(self, reference: Mapping[str, Any], spool: IO[bytes]) -> Tuple[int, str]:
        """Reads the bytes into `spool`; returns (size, SHA-256)."""
        size = 0
        digest = hashlib.sha256()
        # an interrupted attempt may have written some bytes
        spool.seek(0)
        spool.truncate()
        try:
            for chunk in attachment_chunks(self._source, reference):
                size += len(chunk)
                if size > self._max_bytes:
                    raise NotCopied(
                        f"larger than MIGRATION_ATTACHMENT_MAX_BYTES ({self._max_bytes})"
                    )
                digest.update(chunk)
                spool.write(chunk)
        except NotUploaded as error:
            reason = f"not ready in the source (upload status {error.upload_status!r})"
            raise NotCopied(reason, MISSING if error.is_lost else NOT_COPIED) from None
        return size, digest.hexdigest()

    # assumption: attachments_keep_their_bytes
    def _upload(self, key: str, names: Mapping[str, str], file: IO[bytes], size: int) -> None:
        """Requests a signed URL, uploads, and sets the status "done". Safe to repeat."""
        org_id = self._dest.org_id
        body = {"key": key, **names, "org_id": org_id}
        announced = self._dest.post("/attachment", body, check=signed_upload()).json
        file.seek(0)
        self._dest.store.upload(
            announced["signedUrl"], announced.get("headers") or {}, SizedFile(file, size)
        )
        self._dest.post(
            "/attachment/status",
            {"key": key, "org_id": org_id, "status": {"upload_status": "done"}},
            check=self._status_check({"key": key, **names, "org_id": org_id}),
        )

    def _status_check(self, params: Mapping[str, str]) -> Check:
        """Returns the check for POST /attachment/status, whose answer is not documented.

        An answer that was not seen before is accepted only if the destination then shows the
        attachment as done: the answer may come from a proxy.
        """

        def check(answer: Any) -> str:
            problem = error_free(answer)
            text = json.dumps(answer, sort_keys=True)
            if problem or text in self._status_answers:
                return problem
            shown = self._dest.get("/attachment", dict(params))
            status = value_at_place(shown, ("status", "upload_status"))
            if status != "done":
                return f"the upload status is {described(status)} afterwards"
            self._status_answers.add(text)
            return ""

        return check


def _refused(error: ApiError) -> NotCopied:
    """Returns the reason for a refusal. Only 404 and 410 of the source mean that a file is missing.

    An HTML page comes from a gateway, which may not know the path, so it does not count.
    """
    missing = error.side == "source" and error.status in (404, 410) and not error.is_page
    return NotCopied(str(error), MISSING) if missing else NotCopied(str(error))


class SizedFile:
    """A file with a length: requests then sends Content-Length and streams it.

    Signed PUTs refuse chunked bodies.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)
