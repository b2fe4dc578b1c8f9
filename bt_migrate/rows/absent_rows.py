"""Records since when rows are missing: `<object>_absent.json` of a stream, and files like it.

One look does not prove that a row was deleted: a right may be missing for a night. A row counts as
deleted only if two looks, some time apart, did not find it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterable, List

from bt_migrate.errors import StateError
from bt_migrate.state.files import FORMAT, read_json, write_json
from bt_migrate.state.records import WHAT_TO_DO, has_type
from bt_migrate.state.run_files import ABSENT_ENDING
from bt_migrate.state.stream_state import StreamState
from bt_migrate.state.sync_marks import ABSENCE_S


def note_absent(
    state: StreamState, row_ids: Iterable[str], now_s: int, ending: str = ABSENT_ENDING
) -> List[str]:
    """Record the missing rows. Returns those that have been missing for ABSENCE_S.

    A row that was found again in between is no longer recorded.
    """
    path = state.sibling(ending)
    missing_since = _read(path)
    absent = {row_id: missing_since.get(row_id, now_s) for row_id in row_ids}
    _write(path, absent)
    return [row_id for row_id, since_s in absent.items() if now_s - since_s >= ABSENCE_S]


def forget_absent(state: StreamState, row_ids: Iterable[str]) -> None:
    """Remove rows that were deleted in the destination."""
    gone = set(row_ids)
    path = state.sibling(ABSENT_ENDING)
    _write(path, {row_id: s for row_id, s in _read(path).items() if row_id not in gone})


def _read(path: Path) -> Dict[str, int]:
    if not path.exists():
        return {}
    absent = read_json(path).get("absent")
    if not has_type(Dict[str, int], absent):
        raise StateError(f"{path}: absent is not a map of row ids to seconds; {WHAT_TO_DO}")
    return dict(absent or {})


def _write(path: Path, absent: Dict[str, int]) -> None:
    if absent:
        write_json(path, {"format": FORMAT, "absent": absent})
    elif path.exists():
        path.unlink()
