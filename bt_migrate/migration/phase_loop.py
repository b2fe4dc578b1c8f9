"""phase_loop."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from datetime import datetime, timezone
from typing import Any, Callable, Dict, List, Sequence, Tuple

from bt_migrate.api.client import Api
from bt_migrate.config.settings import Settings
from bt_migrate.migration.context import Migration
from bt_migrate.migration.lag import measure_lag
from bt_migrate.migration.steps import refuse_conflicts
from bt_migrate.migration.waiting import finish_waiting, kinds_behind, tell_waiting
from bt_migrate.model.date_windows import iso
from bt_migrate.objects.catalog import Catalog
from bt_migrate.report.text import lag_text
from bt_migrate.rows.background import wait_for
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.sync_marks import end_round, mark_seconds, open_sync_round
from bt_migrate.state.window_log import record_window

log = logging.getLogger("bt_migrate")

VERIFY = "verify"  # the program that judges a run: it writes nothing but its own result, and can be run again and again

Step = Tuple[
    str, Callable[[Migration], Any]
]  # the phase's name and what it does; gives back what goes on beside the next ones, or None

ROWS_OF_PHASE = {
    "migrate-datasets": "datasets",
    "migrate-experiments": "experiments",
    "migrate-logs": "logs",
}
BESIDE_ROWS = (
    "migrate-definitions",
    "migrate-experiments",
)  # go on while rows are written: nothing that they make reacts to rows
AFTER_OBJECTS = (
    "migrate-logs"  # the first phase that has nothing to do without rows, or has to wait for them
)
KINDS_WITH_WINDOW = ("experiments", "logs")
PHASES_END_S = (
    1.0  # between two looks at what waits and at all streams, which the end of a phase takes
)
LAG_AFTER_S = 60  # a round that took longer has something to tell


def steps_of_part(settings: Settings, steps: Sequence[Step]) -> Sequence[Step]:
    """Of a shard those that copy rows; of the objects alone those before the first that comes after rows."""
    names = [name for name, _ in steps]
    if settings.shard:
        return [step for step in steps if step[0] in ROWS_OF_PHASE]
    return (
        steps[: names.index(AFTER_OBJECTS)]
        if settings.no_rows and AFTER_OBJECTS in names
        else steps
    )


def is_unfinished(run: RunDirectory, settings: Settings, steps: Sequence[Step]) -> bool:
    """Whether an earlier start left a copy or a round unfinished: what was written since its mark needs a round of its own."""
    open_steps = [name for name, _ in steps if not run.phase_done(name)]
    return bool(run.data["sessions"] and open_steps and not settings.dry_run)


def start_sync_round(
    settings: Settings, source: Api, run: RunDirectory, steps: Sequence[Step]
) -> None:
    """A program that judges or only looks goes on in the run as it is."""
    names = [name for name, _ in steps]
    kinds = [
        kind
        for kind in (ROWS_OF_PHASE.get(name, "") for name in names)
        if kind and settings.selects(kind)
    ]
    if any(name.startswith("migrate-") for name in names) and open_sync_round(
        run, names, kinds, source.earliest_seconds()
    ):
        since = {
            kind: iso(datetime.fromtimestamp(mark_seconds(run.data, kind), timezone.utc))
            for kind in kinds
        }
        words = ", ".join(f"{kind} since {text}" for kind, text in since.items()) or "objects only"
        log.info("round %d: %s", run.data["round"], words, extra={"event": "round", "since": since})


def do_steps(migration: Migration, steps: Sequence[Step], *, whole: bool) -> None:
    """Each phase that is not done yet. A phase stays open where rows did not come to their end, or where only a part (not the
    `whole`) of the run's selection was asked for: the same command resumes it.
    """
    beside: Dict[str, Future[None]] = {}
    ending: List[str] = []  # phases that have done their part, but for rows that are on their way
    ended_s = time.monotonic()
    refuse_conflicts(
        migration,
        [
            phase
            for name, phase in steps
            if name.startswith("migrate-") and not migration.run.phase_done(name)
        ],
    )
    for number, (name, phase) in enumerate(steps, 1):
        judges = len(steps) == 1 and name == VERIFY
        if migration.run.phase_done(name) and not judges:
            log.info(
                "phase %d of %d: %s was done before",
                number,
                len(steps),
                name,
                extra={"event": "phase_skipped", "phase": name},
            )
            continue
        migration.catalog.dest.check()
        if name not in BESIDE_ROWS:
            migration.background.wait()
        if migration.background.rest is None and (
            name == VERIFY or time.monotonic() - ended_s > PHASES_END_S
        ):
            _end_phases(migration, ending, whole=whole)
            ended_s = time.monotonic()
        log.info(
            "phase %d of %d: %s", number, len(steps), name, extra={"event": "phase", "phase": name}
        )
        migration.run.live.phase, migration.run.live.phase_number = name, (number, len(steps))
        rest = phase(migration)
        if rest is not None:
            beside[name] = rest
        elif not judges:
            ending.append(name)
        _end_beside(migration, beside, whole=whole, waits=False)
    _end_phases(migration, ending, whole=whole)
    _end_beside(migration, beside, whole=whole, waits=True)
    if [name for name, _ in steps] != [VERIFY]:
        tell_waiting(migration, final=len(steps) > 1 and not migration.settings.part)
    if len(steps) > 1 and all(migration.run.phase_done(name) for name, _ in steps):
        migration.run.data["finished"] = True
    if (
        migration.settings.relative_window or migration.run.data.get("round")
    ) and not migration.settings.dry_run:
        _note_lag(migration, [ROWS_OF_PHASE[name] for name, _ in steps if name in ROWS_OF_PHASE])


def _end_phases(migration: Migration, names: List[str], *, whole: bool) -> None:
    """Wait for the rows of these phases; then complete what waited for what they made, and write down that they are done. One with
    rows that failed stays open, so that the same command tries them again; the streams of a sync know themselves where they are
    behind.
    """
    migration.background.wait()
    if any(name != VERIFY for name in names):
        finish_waiting(migration)
    done, behind = [], kinds_behind(migration.run) if whole else set()
    for name in names if whole else ():
        kind = ROWS_OF_PHASE.get(name, "")
        first = (
            kind not in behind
            and not migration.run.data.get("round")
            and not migration.settings.dry_run
        )
        if (
            first
            and kind in KINDS_WITH_WINDOW
            and migration.settings.selects(kind)
            and not migration.settings.part
        ):
            record_window(
                migration.run.path.parent, migration.run.data, migration.run.path.name, kind
            )
        if kind not in behind or migration.settings.since_last:
            end_round(migration.run.data, kind)
            done.append(name)
    migration.run.mark_phases_done(done)
    names.clear()


def _note_lag(migration: Migration, kinds: Sequence[str]) -> None:
    """Of a sync; a copy of everything is verified. A round that met nothing new and took no time has told it already."""
    run, took_s = migration.run, time.monotonic() - migration.run.live.began
    if run.data.get("round") and not run.live.total and took_s < LAG_AFTER_S:
        return
    fresh = Catalog(migration.catalog.source, migration.catalog.dest, run, migration.settings)
    lag = run.data["lag"] = measure_lag(fresh, run.data, kinds)
    log.info("lag: %s", lag_text(lag), extra={"event": "lag", **lag})


def _end_beside(
    migration: Migration, beside: Dict[str, Future[None]], *, whole: bool, waits: bool
) -> None:
    """A phase is done when what it left to be done beside the next ones is. Raises what went wrong in it."""
    for name, rest in list(beside.items()):
        if waits:
            wait_for([rest])
        if rest.done():
            beside.pop(name).result()
            if whole:
                migration.run.mark_phases_done([name])
