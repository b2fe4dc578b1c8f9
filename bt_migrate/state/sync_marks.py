"""The rounds of a sync: one run, in which everything is copied once and then, round after round, what was written since.

`run.json` keeps for each kind of rows a mark, {"from": X, "upper": Y}: all that the source wrote up to the transaction X is in
the destination; Y was taken when the round under way began, and takes the place of X when all rows of the kind have their outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional, Sequence

from bt_migrate.api.transactions import before_xact, xact_at, xact_seconds
from bt_migrate.model.date_windows import instant
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_record import RunRecord

SLACK_S = 2  # the server's clock is known to the second


@dataclass(frozen=True)
class Round:
    """One kind of rows in the round under way: rows written after `above` are read; the next round begins at `upper`."""

    number: int
    above: int
    upper: int


def mark_now(source_seconds: float) -> int:
    """What was written before this transaction is there to be read, by the source's clock."""
    return xact_at(int(source_seconds) - SLACK_S)


def mark_seconds(record: RunRecord, kind: str = "") -> int:
    """Unix seconds of the source's clock: what was written before it is in the destination, or was there to be taken. The last
    sync's mark; else the run's start, or the end of its window.
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
    """Open a round of these steps, unless one of them is still to be done: then that is finished first. Whether it did."""
    record = run.record
    if not all(run.phase_done(step) for step in steps):
        return False
    marks = record.marks
    for kind in kinds:
        begun = marks.get(kind, {}).get("from") or xact_at(mark_seconds(record))
        marks[kind] = {"from": begun, "upper": max(begun, mark_now(source_seconds))}
    record.phases_done = [phase for phase in record.phases_done if phase not in steps]
    record.round += 1
    record.finished = False
    # These are about the time before; plans of a large copy are most of run.json.
    record.verification = None
    record.lag = None
    record.row_plans = {}
    run.save()
    return True


def round_of(record: RunRecord, kind: str, lookback_s: float) -> Optional[Round]:
    """The round under way, None for the copy of everything."""
    mark = record.marks.get(kind, {})
    return (
        Round(record.round, before_xact(mark["from"], lookback_s), mark["upper"])
        if "upper" in mark
        else None
    )


def end_round(record: RunRecord, kind: str) -> None:
    """All rows of the kind have their outcome, or their stream knows where it is behind. Saved with the phase that is done."""
    mark = record.marks.get(kind, {})
    if "upper" in mark:
        record.marks[kind] = {"from": mark["upper"]}
