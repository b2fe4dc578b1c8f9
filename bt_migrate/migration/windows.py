"""Date windows of a start: the kinds that have one, gaps before it, overlaps with earlier ones."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Dict, Iterable, List, Mapping, Sequence

from bt_migrate.config.settings import Settings
from bt_migrate.migration.phase_loop import KINDS_WITH_WINDOW, ROWS_OF_PHASE, Step
from bt_migrate.model.date_windows import Interval, iso
from bt_migrate.model.findings import finding
from bt_migrate.state.find_run import state_root
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_record import Identity
from bt_migrate.state.window_log import missed, taken_twice

log = logging.getLogger("bt_migrate")


def windowed_kinds(settings: Settings, steps: Sequence[Step]) -> List[str]:
    """Returns the kinds of rows of these phases that a date window applies to."""
    kinds = [ROWS_OF_PHASE[name] for name, _ in steps if name in ROWS_OF_PHASE]
    return [kind for kind in kinds if kind in KINDS_WITH_WINDOW and settings.selects(kind)]


def without_gaps(settings: Settings, identity: Identity, kinds: Sequence[str]) -> Settings:
    """Returns the settings with the window extended back to where the first gap begins."""
    gaps = missed(state_root(settings), identity, kinds)
    begins = [begin for intervals in gaps.values() for begin, _ in intervals]
    if not begins:
        return settings
    begin = iso(min(begins))
    log.info("window extended back to %s to fill gaps", begin, extra={"event": "gap_filled"})
    return replace(settings, created_after=begin)


def report_window(
    run: RunDirectory, settings: Settings, identity: Identity, kinds: Sequence[str]
) -> None:
    """Log the window; record the gaps before it as findings of the run; log overlaps once."""
    log.info(
        "window: %s to %s",
        settings.created_after or "the beginning",
        settings.created_before or "now",
        extra={"event": "window"},
    )
    root = run.path.parent
    gaps = missed(root, identity, kinds)
    run.record.window_gaps = [
        _gap_finding(kind, gap) for kind, intervals in gaps.items() for gap in intervals
    ]
    if not run.record.sessions:
        _log_overlaps(taken_twice(root, identity, kinds))


def _gap_finding(kind: str, gap: Interval) -> Dict[str, Any]:
    begin, end = gap
    period = f"{iso(begin)} to {iso(end)}"
    log.warning(
        "gap: no run covered %s created from %s; to copy them: --fill-gaps",
        kind,
        period,
        extra={"event": "gap"},
    )
    return finding("window_gap", resource=kind, name="date window", detail=period)


def _log_overlaps(overlaps: Mapping[str, Iterable[Interval]]) -> None:
    for kind, intervals in overlaps.items():
        for begin, end in intervals:
            log.info(
                "overlap: an earlier run covered %s created from %s to %s",
                kind,
                iso(begin),
                iso(end),
                extra={"event": "overlap"},
            )
