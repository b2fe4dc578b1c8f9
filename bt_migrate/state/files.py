"""Files of a run: JSON checkpoints of objects and rows; the SQLite files are those of `seen`. Nothing else writes state.

JSON is written to a temporary file, flushed to disk and renamed, so a file is whole or the old one. A file that cannot be read
stops the run and is named; nothing is ever silently started over. Directories are 0700 and files 0600; no key, signed URL or
row content is in them.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple, Type, TypeVar, Union

from bt_migrate.errors import StateError
from bt_migrate.model.date_windows import iso
from bt_migrate.state.records import WHAT_TO_DO, ShapeError, record_from

log = logging.getLogger("bt_migrate.state")

T = TypeVar("T")

FORMAT = 1


def now() -> str:
    return iso(datetime.now(timezone.utc))


# -- files


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace the file as a whole. Raises StateError (the old file is still there)."""
    write_files([(path, json_lines(value))])


def write_files(files: Sequence[Tuple[Path, str]]) -> None:
    """Replace each file as a whole; all are on the disk when it returns. Raises StateError naming the one that cannot be written."""
    path = Path()
    try:
        for path in {path.parent: path for path, _ in files}.values():
            make_private(path.parent)
        for path, text in files:
            temporary = f"{path}.tmp"
            with open(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
                "w",
                encoding="utf-8",
            ) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        for path in {path.parent: path for path, _ in files}.values():
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the renames themselves
            finally:
                os.close(folder)
    except OSError as error:
        raise StateError(
            f"{path}: cannot be written ({error.strerror}); the last checkpoint is whole: make room, then run again"
        ) from None


def json_lines(value: Mapping[str, Any]) -> str:
    """JSON with a line for each entry of the value and of the dicts and lists in it: readable, and left to the fast encoder,
    which knows no indents.
    """
    entries = []
    for name, one in list(value.items()):  # at once: another thread may add to it
        if one and isinstance(one, (dict, list)):
            opening, closing = ("[", "]") if isinstance(one, list) else ("{", "}")
            entries.append(f"{json.dumps(name)}: {opening}\n  {_lines(one)}\n {closing}")
        else:
            entries.append(_entry(name, one))
    return "{\n " + ",\n ".join(entries) + "\n}\n"


def _lines(one: Union[List[Any], Dict[str, Any]]) -> str:
    end = ",\n  "
    if all(
        isinstance(part, str) for part in (one if isinstance(one, list) else list(one.values()))
    ):
        return json.dumps(one, separators=(end, ": "))[1:-1]  # of thousands of ids: in one go
    return end.join(
        [json.dumps(part) for part in one]
        if isinstance(one, list)
        else [_entry(*pair) for pair in list(one.items())]
    )


def _entry(name: Any, value: Any) -> str:
    """`"name": value`, whatever JSON makes of the name."""
    return json.dumps({name: value})[1:-1]


def make_private(folder: Path) -> None:
    """Make the folder and those above it that are missing, all 0700: `parents=True` alone would give those above to everybody."""
    if folder.is_dir():
        return
    for one in (*reversed(folder.parents), folder):
        one.mkdir(mode=0o700, exist_ok=True)


def append_line(path: Path, value: Any) -> None:
    """Add one JSON line. Raises StateError."""
    try:
        make_private(path.parent)
        with open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(json.dumps(value) + "\n")
    except OSError as error:
        raise StateError(
            f"{path}: cannot be written ({error.strerror}); make room, then run again"
        ) from None


def read_json(path: Path) -> Any:
    """The file's content. Raises StateError naming the file."""
    damaged = StateError(
        f"{path}: is damaged; restore it from a copy, or start anew with --new-run (what is there is found, not doubled)"
    )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise damaged from None
    if not isinstance(value, dict):
        raise damaged
    if value.get("format") != FORMAT:
        raise StateError(
            f"{path}: has format {value.get('format')}, this program writes {FORMAT}; use the version that wrote it, or --new-run"
        )
    return value


def read_record(path: Path, kind: Type[T]) -> T:
    """The file's content as a record. Raises StateError naming the file and what is wrong in it."""
    value = read_json(path)
    del value["format"]
    return record_in(path, kind, value)


def record_in(path: Path, kind: Type[T], value: Any) -> T:
    try:
        return record_from(kind, value)
    except ShapeError as error:
        raise StateError(
            f"{path}: is damaged or of another version ({error}); {WHAT_TO_DO}"
        ) from None
