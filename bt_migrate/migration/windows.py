"""windows."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, List, Mapping, Sequence

from bt_migrate.config.settings import Settings
from bt_migrate.migration.phase_loop import KINDS_WITH_WINDOW, ROWS_OF_PHASE, Step
from bt_migrate.model.date_windows import iso
from bt_migrate.model.findings import finding
from bt_migrate.state.find_run import state_root
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.window_log import missed, taken_twice

log = logging.getLogger("bt_migrate")


# -- windows


def windowed_kinds(settings: Settings, steps: Sequence[Step]) -> List[str]:
    kinds = [ROWS_OF_PHASE[name] for name, _ in steps if name in ROWS_OF_PHASE]
    return [kind for kind in kinds if kind in KINDS_WITH_WINDOW and settings.selects(kind)]


def without_gaps(settings: Settings, identity: Mapping[str, Any], kinds: Sequence[str]) -> Settings:
    """The window widened to where the first gap before it begins."""
    begins = [
        begin
        for gaps in missed(state_root(settings), identity, kinds).values()
        for begin, _ in gaps
    ]
    if not begins:
        return settings
    log.info(
        "the window begins at %s, to take what was missed",
        iso(min(begins)),
        extra={"event": "gap_filled"},
    )
    return replace(settings, created_after=iso(min(begins)))


def tell_window(
    run: RunDirectory, settings: Settings, identity: Mapping[str, Any], kinds: Sequence[str]
) -> None:
    """The window; what no window took before it, as findings of the run; and at its first start what it takes again."""
    log.info(
        "window: %s to %s",
        settings.created_after or "the beginning",
        settings.created_before or "now",
        extra={"event": "window"},
    )
    root = run.path.parent
    run.data["window_gaps"] = []
    for kind, intervals in missed(root, identity, kinds).items():
        for begin, end in intervals:
            text = f"{iso(begin)} to {iso(end)}"
            log.error(
                "gap: no window took %s created from %s; --fill-gaps takes them",
                kind,
                text,
                extra={"event": "gap"},
            )
            facts = {
                "resource": kind,
                "name": "date window",
                "detail": text,
                "next": "run the same command with --fill-gaps",
            }
            run.data["window_gaps"].append(finding("window_gap", **facts))
    if not run.data["sessions"]:
        for kind, intervals in taken_twice(root, identity, kinds).items():
            for begin, end in intervals:
                log.info(
                    "overlap: %s created from %s to %s were taken before",
                    kind,
                    iso(begin),
                    iso(end),
                    extra={"event": "overlap"},
                )
