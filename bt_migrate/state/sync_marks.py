"""The rounds of a sync: a run copies everything once, and in each later round what was written
since.

`run.json` keeps a mark for each kind of rows, {"from": X, "upper": Y, "newest": Z}. Everything that
the source wrote up to the transaction X is in the destination. Y was taken when the current round
began; it replaces X when the round ends. A stream that is behind has an older mark of its own, in
its checkpoint.

X and Y are made from the time of the source's clock. Z is the newest transaction of all rows that
were read before the round. A round also reads what is newer than Z, because transactions may be
older than the clock says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional, Sequence

from bt_migrate.api.transactions import before_xact, xact_at, xact_seconds
from bt_migrate.model.date_windows import instant
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_record import RunRecord

# Valid lists must lack an object for this long before it counts as deleted.
ABSENCE_S = 600
# The server's clock is known to the second.
SLACK_S = 2


@dataclass(frozen=True)
class Round:
    """One kind of rows in the current round: rows that were written after `above` are read.

    The next round begins at `upper`. Both are transactions.
    """

    number: int
    above: int
    upper: int


# assumption: rows_keep_key_and_created
def mark_now(source_seconds: float) -> int:
    """Returns the transaction before which everything can be read now.

    `source_seconds` is the time of the source's clock.
    """
    return xact_at(int(source_seconds) - SLACK_S)


def mark_seconds(record: RunRecord, kind: str = "") -> int:
    """Unix seconds of the source's clock before which everything was copied, or could be read.

    That is the last sync's mark; without one the run's start, or the end of its date window.
    """
    mark = record.marks.get(kind)
    if mark:
        return xact_seconds(mark["from"])
    before = record.selection.created_before
    started = int(record.source_time or instant(record.created).timestamp()) - SLACK_S
    return min(started, int(instant(before).timestamp())) if before else started


def open_sync_round(
    run: RunDirectory, steps: Sequence[str], kinds: Iterable[str], source_seconds: float
) -> bool:
    """Open a sync round. Returns False, changing nothing, while one of the steps is unfinished."""
    record = run.record
    if not all(run.phase_done(step) for step in steps):
        return False
    marks = record.marks
    for kind in kinds:
        begun = marks.get(kind, {}).get("from") or xact_at(mark_seconds(record))
        marks[kind] = {"from": begun, "upper": max(begun, mark_now(source_seconds))}
        newest = newest_read(run, kind)
        if newest is not None:
            marks[kind]["newest"] = newest
    record.phases_done = [phase for phase in record.phases_done if phase not in steps]
    record.round += 1
    record.finished = False
    # These describe the previous round; row_plans can also be most of run.json.
    record.verification = None
    record.lag = None
    record.row_plans = {}
    run.save()
    return True


def round_of(record: RunRecord, kind: str, lookback_s: float) -> Optional[Round]:
    """The current sync round; None during the first, full copy."""
    mark = record.marks.get(kind, {})
    if "upper" not in mark:
        return None
    above = before_xact(mark["from"], lookback_s)
    return Round(record.round, min(above, mark.get("newest", above)), mark["upper"])


def newest_read(run: RunDirectory, kind: str) -> Optional[int]:
    """Returns the newest transaction of all rows of the kind that were read; 1 if there were none.

    None if an earlier version, which did not record it, read some of the rows.
    """
    states = [state for state in run.all_streams() if state.header["kind"] == kind]
    if any(state.copy.read and not state.sync.newest for state in states):
        return None
    return max((state.sync.newest for state in states), default=0) or 1


def end_round(record: RunRecord, kind: str) -> None:
    """End the round of a kind: `upper` becomes `from`. Streams that are behind keep their marks.

    It is saved together with the phase that is done.
    """
    mark = record.marks.get(kind, {})
    if "upper" in mark:
        record.marks[kind] = {"from": mark["upper"]}
