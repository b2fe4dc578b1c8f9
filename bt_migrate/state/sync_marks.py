"""The rounds of a sync: one run, in which everything is copied once and then, round after round, what was written since.

`run.json` keeps for each kind of rows a mark, {"from": X, "upper": Y}: all that the source wrote up to the transaction X is in
the destination; Y was taken when the round under way began, and takes the place of X when all rows of the kind have their outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence

from bt_migrate.api.transactions import before_xact, xact_at, xact_seconds
from bt_migrate.model.date_windows import instant
from bt_migrate.state.run_directory import RunDirectory

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


def mark_seconds(run: Mapping[str, Any], kind: str = "") -> int:
    """Unix seconds of the source's clock: what was written before it is in the destination, or was there to be taken. The last
    sync's mark; else the run's start, or the end of its window.
    """
    mark = run.get("marks", {}).get(kind)
    if mark:
        return xact_seconds(mark["from"])
    before = run["selection"]["created_before"]
    started = int(run.get("source_time") or instant(run["created"]).timestamp()) - SLACK_S
    return min(started, int(instant(before).timestamp())) if before else started


def open_sync_round(
    run: RunDirectory, steps: Sequence[str], kinds: Iterable[str], source_seconds: float
) -> bool:
    """Open a round of these steps, unless one of them is still to be done: then that is finished first. Whether it did."""
    data = run.data
    if not all(run.phase_done(step) for step in steps):
        return False
    marks: Dict[str, Dict[str, int]] = data.setdefault("marks", {})
    for kind in kinds:
        begun = marks.get(kind, {}).get("from") or xact_at(mark_seconds(data))
        marks[kind] = {"from": begun, "upper": max(begun, mark_now(source_seconds))}
    data["phases_done"] = [one for one in data["phases_done"] if one not in steps]
    data.update(round=data.get("round", 0) + 1, finished=False)
    for name in (
        "verification",
        "lag",
        "row_plans",
    ):  # of what was before; plans of a large copy are most of run.json
        data.pop(name, None)
    run.save()
    return True


def round_of(run: Mapping[str, Any], kind: str, lookback_s: float) -> Optional[Round]:
    """The round under way, None for the copy of everything."""
    mark = run.get("marks", {}).get(kind, {})
    return (
        Round(run["round"], before_xact(mark["from"], lookback_s), mark["upper"])
        if "upper" in mark
        else None
    )


def end_round(run: Dict[str, Any], kind: str) -> None:
    """All rows of the kind have their outcome, or their stream knows where it is behind. Saved with the phase that is done."""
    mark = run.get("marks", {}).get(kind, {})
    if "upper" in mark:
        run["marks"][kind] = {"from": mark["upper"]}
