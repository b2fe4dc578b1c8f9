"""The starts of programs in a run."""

from __future__ import annotations

from typing import List

from bt_migrate.errors import StateError
from bt_migrate.model.date_windows import instant
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_files import STATE_ENDING
from bt_migrate.state.run_record import Session
from bt_migrate.state.status_file import read_status

# A process that was killed may have had requests in flight for this long.
KILLED_SLACK_S = 300
# How many starts are listed one by one: run.json must not grow with the weeks of a sync from cron.
MAX_SESSIONS = 50


def add_session(sessions: List[Session], session: Session) -> None:
    """Add a start.

    Above MAX_SESSIONS, the oldest start is merged into the first one of the same command.
    """
    sessions.append(session)
    if len(sessions) <= MAX_SESSIONS:
        return
    first = {item.command: item for item in reversed(sessions)}
    number = next(n for n, item in enumerate(sessions) if item is not first[item.command])
    oldest = sessions.pop(number)
    into = first[oldest.command]
    into.starts += oldest.starts
    into.rows += oldest.rows
    into.seconds = round(into.seconds + oldest.seconds, 3)
    into.wrote_until = max(into.wrote_until or 0.0, oldest.wrote_until or 0.0)


def was_killed(sessions: List[Session]) -> bool:
    """Whether one of the earlier starts did not record its end."""
    return any(session.ended is None for session in sessions[:-1])


def end_killed_session(run: RunDirectory, clock_offset_s: float) -> None:
    """Note what the last process did, if it was killed before it recorded that.

    Until when it can have written, by the destination's clock: the times of its files show it,
    until another process writes. Its seconds and rows: from its status file, up to a second before.
    """
    last = run.record.sessions[-1:]
    if last and last[0].wrote_until is None:
        times = [path.stat().st_mtime for path in run.path.rglob(f"*{STATE_ENDING}")]
        newest = max(times, default=run.path.stat().st_mtime)
        last[0].wrote_until = newest + clock_offset_s + KILLED_SLACK_S
    if last and last[0].ended is None:
        _take_from_status(last[0], run)


def _take_from_status(session: Session, run: RunDirectory) -> None:
    try:
        status = read_status(run.path)
        seconds = (instant(status["updated"]) - instant(session.started)).total_seconds()
    except (KeyError, StateError, ValueError):  # killed before its first status, or damaged
        return
    rows = status.get("rows")
    if seconds > 0 and isinstance(rows, int):
        session.seconds, session.rows = round(seconds, 3), rows
