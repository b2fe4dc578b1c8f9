"""Blobs behind signed URLs of the second origin: attachments, overflows, redirected results."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Dict, Optional, Tuple, Union

from bt_migrate.sandbox.data.clock import Clock
from bt_migrate.sandbox.data.errors import Refused

# Larger blobs are kept in files.
MAX_BYTES_IN_MEMORY = 1 << 20
COPY_BYTES = 1 << 16

Blob = Union[bytes, Path]


@dataclass
class Attachment:
    key: str
    filename: str
    content_type: str
    upload_status: str = "uploading"
    error_message: Optional[str] = None


@dataclass(frozen=True)
class Signed:
    """The request that one signed URL allows."""

    method: str  # GET or PUT
    org_name: str
    place: Tuple[str, str]  # (organization id, key) of an attachment, or ("overflow"|"result", key)
    content_type: str
    expires: float  # unix seconds


class Files:
    """Stored bytes by key, and their signed URLs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.url = ""
        self.ttl_seconds = 3600.0
        self.attachments: Dict[Tuple[str, str], Attachment] = {}
        self.blobs: Dict[Tuple[str, str], Blob] = {}
        self._signed: Dict[str, Signed] = {}
        self._lock = threading.Lock()
        self._folder = tempfile.mkdtemp(prefix="bt-sandbox-")

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def sign(self, method: str, org_name: str, place: Tuple[str, str], content_type: str) -> str:
        token = secrets.token_hex(16)
        expires = self._clock.seconds() + self.ttl_seconds
        with self._lock:
            self._signed[token] = Signed(method, org_name, place, content_type, expires)
        name = place[1].rsplit("/", 1)[-1]
        expires_in = f"X-Amz-Expires={self.ttl_seconds:.0f}"
        return f"{self.url}/bucket/{name}?{expires_in}&X-Amz-Signature={token}"

    def find(self, signature: str) -> Optional[Signed]:
        with self._lock:
            return self._signed.get(signature)

    def signed(self, method: str, signature: str) -> Signed:
        """Returns the request that a signature allows. Refuses wrong or expired ones as S3 does."""
        signed = self.find(signature)
        if signed is None or signed.method != method:
            raise Refused(403, "<Error><Code>SignatureDoesNotMatch</Code></Error>")
        if self._clock.seconds() > signed.expires:
            raise Refused(
                403,
                "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
            )
        return signed

    def receive(self, place: Tuple[str, str], stream: BinaryIO, length: int) -> None:
        """Store the next `length` bytes of the stream; ConnectionError if it ends before."""
        if length <= MAX_BYTES_IN_MEMORY:
            data = stream.read(length)
            if len(data) != length:
                raise ConnectionResetError("the body ended early")
            self.blobs[place] = data
            return
        path = Path(self._folder) / secrets.token_hex(16)
        with path.open("wb") as file:
            bytes_left = length
            while bytes_left:
                data = stream.read(min(bytes_left, COPY_BYTES))
                if not data:
                    raise ConnectionResetError("the body ended early")
                file.write(data)
                bytes_left -= len(data)
        self.blobs[place] = path

    def content(self, place: Tuple[str, str]) -> Optional[bytes]:
        blob = self.blobs.get(place)
        return blob.read_bytes() if isinstance(blob, Path) else blob
