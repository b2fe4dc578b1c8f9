"""Reads files that a person names or may have put in place: regular ones, of a bounded size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

MAX_BYTES = 64_000_000
# of a file that this tool or a build tool wrote
MAX_LARGE_BYTES = 4_000_000_000


def read_bounded(path: Path, most: int = MAX_BYTES) -> bytes:
    """Returns the content. Raises OSError, also for a pipe, a device, and a file that is larger."""
    # A pipe without a writer would be waited for.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        content = file.read(most + 1) if facts.st_size <= most else b""
        if facts.st_size > most or len(content) > most:
            raise OSError(errno.EFBIG, f"it is larger than {most // 1_000_000:,} MB", str(path))
        return content


def read_text_bounded(path: Path, most: int = MAX_BYTES, encoding: str = "utf-8") -> str:
    """Returns the text. Raises OSError or UnicodeDecodeError."""
    return read_bounded(path, most).decode(encoding)
