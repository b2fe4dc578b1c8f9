"""Which date windows of a state root were taken to their end: one JSON line each in `windows.jsonl`, only ever added to.

Kept beside the runs, so that old run directories may be deleted. Knows nothing of what is done with gaps.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence

from bt_migrate.errors import StateError
from bt_migrate.model.date_windows import Interval, gaps, instant, interval, overlaps
from bt_migrate.state.files import make_private, now

log = logging.getLogger("bt_migrate.state")

WINDOWS_FILE = "windows.jsonl"


def record_window(root: Path, run: Mapping[str, Any], run_name: str, kind: str) -> None:
    """Add what a run took of a kind. What came after the run's start is not promised, whatever its window says."""
    selection = run["selection"]
    ends = [text for text in (selection["created_before"], run["created"]) if text]
    line = {
        "kind": kind,
        "source": run["source"]["org_id"],
        "dest": run["dest"]["org_id"],
        "projects": selection["projects"],
        "after": selection["created_after"],
        "before": min(ends, key=lambda text: interval(None, text)[1]),
        "run": run_name,
        "recorded": now(),
    }
    if selection.get("rename_projects"):
        line["rename_projects"] = selection["rename_projects"]
    _append(root, line)


def record_undone(root: Path, run_name: str) -> None:
    """What a run took is not there any more: its windows count as not taken."""
    _append(root, {"run": run_name, "undone": now()})


def _append(root: Path, line: Mapping[str, Any]) -> None:
    path = root / WINDOWS_FILE
    try:
        make_private(root)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(
                fd, f"\n{json.dumps(line)}\n".encode()
            )  # a line break before it: a power cut may have left half a line
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise StateError(
            f"{path}: cannot be written ({error.strerror}); make room, then run again"
        ) from None


def missed(
    root: Path, identity: Mapping[str, Any], kinds: Sequence[str]
) -> Dict[str, List[Interval]]:
    """kind -> what no window took between the first one and the begin of the window that is asked for."""
    after = identity["selection"]["created_after"]
    return (
        {kind: gaps(windows_taken(root, identity, kind), instant(after)) for kind in kinds}
        if after
        else {}
    )


def taken_twice(
    root: Path, identity: Mapping[str, Any], kinds: Sequence[str]
) -> Dict[str, List[Interval]]:
    """kind -> the parts of the window that is asked for which were taken before."""
    window = interval(
        identity["selection"]["created_after"], identity["selection"]["created_before"]
    )
    return {kind: overlaps(windows_taken(root, identity, kind), window) for kind in kinds}


def windows_taken(root: Path, identity: Mapping[str, Any], kind: str) -> List[Interval]:
    """The windows of a kind that were taken for these two organizations, and for all the projects that are selected today."""
    lines = list(_lines(root / WINDOWS_FILE))
    undone = {one["run"] for one in lines if "undone" in one}
    taken = [one for one in lines if one["run"] not in undone and _holds(one, identity, kind)]
    return [interval(one["after"], one["before"]) for one in taken]


def _holds(line: Mapping[str, Any], identity: Mapping[str, Any], kind: str) -> bool:
    projects = identity["selection"]["projects"]
    same = (
        all(line[side] == identity[side]["org_id"] for side in ("source", "dest"))
        and line["kind"] == kind
    )
    same = same and line.get("rename_projects") == identity["selection"].get("rename_projects")
    return bool(
        same and (not line["projects"] or (projects and set(projects) <= set(line["projects"])))
    )


def _lines(path: Path) -> Iterator[Dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, ValueError) as error:
        raise StateError(f"{path}: cannot be read ({error})") from None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if line:
                yield json.loads(line)
        except (
            ValueError
        ):  # its window counts as not taken: a gap is told, and nothing is lost by taking it again
            log.warning("%s: line %d is damaged and passed over", path, number)
