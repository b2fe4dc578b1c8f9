"""Which date windows of a folder of runs were copied to their end: JSON lines in `windows.jsonl`.

Lines are only added. The file is in the folder of runs, so that old runs may be deleted.
What is done about gaps is decided elsewhere.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

from bt_migrate.errors import StateError
from bt_migrate.model.date_windows import Interval, gaps, instant, interval, overlaps
from bt_migrate.state.files import cannot_write, make_private, now
from bt_migrate.state.records import json_of, record_from
from bt_migrate.state.run_record import Identity, RunRecord

log = logging.getLogger("bt_migrate.state")

WINDOWS_FILE = "windows.jsonl"


@dataclass
class WindowLine:
    """A run copied the rows of a kind that were created from `after` to before `before`."""

    kind: str
    source: str  # organization ids
    dest: str
    projects: List[str]  # empty: all
    after: Optional[str]
    before: str
    run: str
    recorded: str
    rename_projects: Optional[Dict[str, str]] = None
    exclude_projects: Optional[List[str]] = None


@dataclass
class UndoneLine:
    """A run was undone: its windows count as not copied."""

    run: str
    undone: str


def record_window(root: Path, record: RunRecord, run_name: str, kind: str) -> None:
    """Add what a run copied of a kind. Rows that came after the run's start are not promised,
    whatever its window says.
    """
    selection = record.selection
    ends = [end for end in (selection.created_before, record.created) if end]
    line = WindowLine(
        kind,
        record.source.org_id,
        record.dest.org_id,
        selection.projects,
        selection.created_after,
        min(ends, key=lambda end: interval(None, end)[1]),
        run_name,
        now(),
        selection.rename_projects,
        selection.exclude_projects,
    )
    _append(root, json_of(line))


def record_undone(root: Path, run_name: str) -> None:
    _append(root, json_of(UndoneLine(run_name, now())))


def _append(root: Path, line: Mapping[str, Any]) -> None:
    path = root / WINDOWS_FILE
    try:
        make_private(root)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # The line break comes first: a power cut may have left half a line.
            os.write(fd, f"\n{json.dumps(line)}\n".encode())
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise cannot_write(path, error) from None


def missed(root: Path, identity: Identity, kinds: Sequence[str]) -> Dict[str, List[Interval]]:
    """Kind -> the periods between the first window and the begin of the requested one that no run
    covered.
    """
    after = identity.selection.created_after
    if not after:
        return {}
    return {kind: gaps(windows_taken(root, identity, kind), instant(after)) for kind in kinds}


def taken_twice(root: Path, identity: Identity, kinds: Sequence[str]) -> Dict[str, List[Interval]]:
    """Kind -> the parts of the requested window that were copied before."""
    selection = identity.selection
    window = interval(selection.created_after, selection.created_before)
    return {kind: overlaps(windows_taken(root, identity, kind), window) for kind in kinds}


def windows_taken(root: Path, identity: Identity, kind: str) -> List[Interval]:
    """The windows of a kind that were copied for these organizations and all selected projects."""
    lines = list(_lines(root / WINDOWS_FILE))
    undone = {line.run for line in lines if isinstance(line, UndoneLine)}
    return [
        interval(line.after, line.before)
        for line in lines
        if isinstance(line, WindowLine) and line.run not in undone and _covers(line, identity, kind)
    ]


def _covers(line: WindowLine, identity: Identity, kind: str) -> bool:
    selection = identity.selection
    projects = selection.projects
    return (
        line.kind == kind
        and line.source == identity.source.org_id
        and line.dest == identity.dest.org_id
        and line.rename_projects == selection.rename_projects
        and set(line.exclude_projects or ()) <= set(selection.exclude_projects or ())
        and (not line.projects or bool(projects and set(projects) <= set(line.projects)))
    )


def _lines(path: Path) -> Iterator[Union[WindowLine, UndoneLine]]:
    """The lines of the file. Half a line, as a power cut leaves it, is reported and left out: its
    window counts as not copied, and copying it again loses nothing. Raises StateError for a line of
    another shape.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, ValueError) as error:
        raise StateError(f"{path}: cannot be read ({error})") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line:
            continue
        try:
            value = json.loads(line)
        except ValueError:
            log.warning("%s: line %d is damaged and is left out", path, number)
            continue
        try:
            yield _line_of(value)
        except ValueError as error:
            raise StateError(
                f"{path}: line {number} is damaged or of another version ({error}); remove the line"
                " (its window then counts as not copied)"
            ) from None


def _line_of(value: Any) -> Union[WindowLine, UndoneLine]:
    undone = isinstance(value, dict) and "undone" in value
    line = record_from(UndoneLine, value) if undone else record_from(WindowLine, value)
    if isinstance(line, WindowLine):
        interval(line.after, line.before)  # raises ValueError for what is not a date
    return line
