"""Files of a run: JSON that is replaced as a whole. SQLite files are those of `seen_rows`.

JSON is written to a temporary file, flushed to disk and renamed, so a file is either the new or the
old one. A file that cannot be read stops the run and is named; nothing is started over silently.
Folders are 0700 and files 0600; no key, signed URL or row content is in them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Set, Tuple, Type, TypeVar, Union

from bt_migrate.config.bounded import MAX_LARGE_BYTES, read_text_bounded
from bt_migrate.errors import StateError
from bt_migrate.model.date_windows import iso
from bt_migrate.state.records import WHAT_TO_DO, ShapeError, record_from

T = TypeVar("T")

log = logging.getLogger("bt_migrate.state")

FORMAT = 1
# Errors of file systems, such as CIFS, that cannot flush a folder.
NO_FOLDER_SYNC = (
    errno.EINVAL, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOSYS, errno.ENOTSUP,
)  # fmt: skip
# Folders that were reported as impossible to flush: reported once for each run.
_reported: Set[int] = set()


def now() -> str:
    return iso(datetime.now(timezone.utc))


# -- writing


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace the file as a whole. Raises StateError; the old file is then still there."""
    write_files([(path, json_lines(value))])


def write_files(files: Sequence[Tuple[Path, str]]) -> None:
    """Replace each file as a whole; all are on the disk when it returns. Raises StateError naming
    the file that cannot be written.
    """
    folders = list(dict.fromkeys(path.parent for path, _ in files))
    path = Path()
    try:
        for path in folders:
            make_private(path)
        for path, text in files:
            _replace(path, text)
        for path in folders:
            _sync_folder(path)
    except OSError as error:
        raise cannot_write(path, error, "the last checkpoint is whole: ") from None


def cannot_write(path: Path, error: OSError, note: str = "") -> StateError:
    """The error to raise for a file that cannot be written, with what to do about it."""
    cure = "make room"
    if error.errno == errno.EROFS:
        cure = "mount its file system for writing, or use another --state-dir"
    elif error.errno in (errno.EACCES, errno.EPERM):
        cure = "give this user the right to write there"
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        cure = "raise the limit of open files (ulimit -n)"
    elif error.errno == errno.EFBIG:
        cure = "raise the limit of file sizes (ulimit -f)"
    return StateError(f"{path}: cannot be written ({error.strerror}); {note}{cure}, then run again")


def _replace(path: Path, text: str) -> None:
    temporary = f"{path}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_named_file(path: Path, text: str, mode: int) -> None:
    """Replace a file that a user named, as a whole. Raises OSError.

    A link is followed. What is no regular file, such as /dev/stdout, is written to, and stays.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
        return
    target = os.path.realpath(path)
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _sync_folder(folder: Path) -> None:
    """Flush the renames in a folder to disk, where the file system can do that."""
    try:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
        _report_once(folder, error)


def _report_once(folder: Path, error: OSError) -> None:
    with contextlib.suppress(OSError):
        device = os.stat(folder).st_dev
        if device not in _reported:
            _reported.add(device)
            log.warning(
                "%s: this file system cannot flush folders (%s); after a power cut the last"
                " checkpoint may be an older one, and some work is repeated",
                folder,
                error.strerror,
                extra={"event": "no_folder_sync"},
            )


def make_private(folder: Path) -> None:
    """Make the folder and the missing ones above it, all with mode 0700.

    `mkdir(parents=True)` would make those above it readable for everybody.
    """
    if folder.is_dir():
        return
    for place in (*reversed(folder.parents), folder):
        place.mkdir(mode=0o700, exist_ok=True)


def append_line(path: Path, value: Any) -> None:
    """Add one JSON line. Raises StateError."""
    try:
        make_private(path.parent)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
    except OSError as error:
        raise cannot_write(path, error) from None


# -- JSON that a person can read


def json_lines(value: Mapping[str, Any]) -> str:
    """JSON with one line for each entry of the value and of the objects and lists in it. The fast
    encoder does the work, which cannot indent.
    """
    entries = []
    for name, part in list(value.items()):  # a copy: another thread may add an entry
        if part and isinstance(part, (dict, list)):
            opening, closing = ("[", "]") if isinstance(part, list) else ("{", "}")
            entries.append(f"{json.dumps(name)}: {opening}\n  {_lines(part)}\n {closing}")
        else:
            entries.append(_entry(name, part))
    return "{\n " + ",\n ".join(entries) + "\n}\n"


def _lines(part: Union[List[Any], Dict[str, Any]]) -> str:
    end = ",\n  "
    texts = part if isinstance(part, list) else list(part.values())
    if all(isinstance(text, str) for text in texts):
        # Thousands of ids are encoded in one call.
        return json.dumps(part, separators=(end, ": "))[1:-1]
    if isinstance(part, list):
        return end.join([json.dumps(item) for item in part])
    return end.join([_entry(name, item) for name, item in list(part.items())])


def _entry(name: Any, value: Any) -> str:
    """Returns `"name": value` as JSON."""
    return json.dumps({name: value})[1:-1]


# -- reading


def read_json(path: Path) -> Dict[str, Any]:
    """The content of a file. Raises StateError naming the file."""
    unreadable = StateError(f"{path}: is damaged; {WHAT_TO_DO}")
    try:
        value = json.loads(read_text_bounded(path, MAX_LARGE_BYTES))
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise unreadable from None
    if not isinstance(value, dict):
        raise unreadable
    if value.get("format") != FORMAT:
        raise StateError(
            f"{path}: has format {str(value.get('format'))[:20]}, this program reads {FORMAT};"
            " use the version that wrote it, or --new-run"
        )
    return value


def read_record(path: Path, kind: Type[T]) -> T:
    """The content of a file as a record. Raises StateError naming the file and what is wrong."""
    value = read_json(path)
    del value["format"]
    return record_in(path, kind, value)


def record_in(path: Path, kind: Type[T], value: Any) -> T:
    """The record in a value that the file holds. Raises StateError."""
    try:
        return record_from(kind, value)
    except ShapeError as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: ValueError) -> StateError:
    """The error to raise for a file of another shape, with what to do about it."""
    return StateError(f"{path}: is damaged or of another version ({error}); {WHAT_TO_DO}")
