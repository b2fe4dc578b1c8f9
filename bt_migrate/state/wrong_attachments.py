"""Attachments whose bytes a comparison found to differ: the next start that moves uploads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable, List

from bt_migrate.state.files import FORMAT, make_private, read_record, write_json
from bt_migrate.state.records import json_of
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_files import VERIFY_FOLDER

WRONG_FILE = "wrong_attachments.json"


@dataclass(frozen=True)
class WrongAttachment:
    """A reference of the source. `uploads`: how often it was uploaded since it was found wrong.

    Or a field of a row that is an attachment in the destination, because the row was too large:
    then `key` is that of the destination, and `kind`, `object_id` and `row_id` are the source's.
    """

    key: str
    filename: str
    content_type: str
    uploads: int = 0
    kind: str = ""
    object_id: str = ""
    row_id: str = ""


@dataclass
class WrongFile:
    """The content of the file."""

    attachments: List[WrongAttachment] = field(default_factory=list)


def read_wrong(run: RunDirectory) -> List[WrongAttachment]:
    """Returns what the last comparison found. Raises StateError for a file that is damaged."""
    path = _path(run)
    return read_record(path, WrongFile).attachments if path.exists() else []


def write_wrong(run: RunDirectory, attachments: Iterable[WrongAttachment]) -> None:
    path = _path(run)
    items = list(attachments)
    if items or path.exists():
        make_private(path.parent)
        write_json(path, {"format": FORMAT, **json_of(WrongFile(items))})


def _path(run: RunDirectory) -> Path:
    return run.path / VERIFY_FOLDER / WRONG_FILE
