"""Folder and file names for projects and objects of any name."""

from __future__ import annotations

import hashlib
import re
import sys
from typing import Iterable

from bt_migrate.state.run_files import RESERVED_NAMES, RUN_FILES

MAX_NAME_BYTES = 80
MARK_CHARS = 8
# An id that is a file name as it is; a UUID is one. Case is left out: some file systems ignore it.
PLAIN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,79}$", re.ASCII)
MAX_ID_CHARS = 40
ID_MARK_CHARS = 32


def storable(name: str) -> str:
    """The name without characters that file names cannot hold in the locale of this process."""
    encoding = sys.getfilesystemencoding()
    return name.encode(encoding, "ignore").decode(encoding)


def folder_name(name: str, taken: Iterable[str]) -> str:
    """A folder for a project: no path, no leading dot, no clash when case is ignored, short.

    It is the project's own name where that is possible, else a similar one with a part of its hash.
    """
    plain = storable(re.sub(r"[^\w .-]", "_", name)).strip(" .")
    plain = plain.encode("utf-8", "ignore")[:MAX_NAME_BYTES].decode("utf-8", "ignore").strip(" .")
    folded = plain.casefold()
    clashing = {*RUN_FILES, *(other.casefold() for other in taken)}
    if plain == name and folded.split(".")[0] not in RESERVED_NAMES and folded not in clashing:
        return plain
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    marked = (
        f"{plain or 'project'}-{digest[start : start + MARK_CHARS]}"
        for start in range(len(digest) - MARK_CHARS)
    )
    return next(name for name in marked if name.casefold() not in clashing)


def is_folder_name(text: str) -> bool:
    """Whether a text that was read from a file can be a name that `folder_name` chose."""
    safe = re.match(r"[\w-]([\w .-]*[\w-])?$", text) and len(text.encode("utf-8", "ignore")) < 128
    return bool(safe)


def id_file_name(object_id: str) -> str:
    """The begin of the names of the files of an object: its id where that is safe, else similar
    letters and a part of its hash.
    """
    if PLAIN_ID.match(object_id) and object_id not in RESERVED_NAMES:
        return object_id
    plain = re.sub(r"[^a-z0-9-]", "_", object_id.casefold(), flags=re.ASCII)[:MAX_ID_CHARS]
    digest = hashlib.sha256(object_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"id_{plain}-{digest[:ID_MARK_CHARS]}"
