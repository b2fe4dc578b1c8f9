"""Runs the phases of a run in order, and decides which of them are done.

This module does not know what a phase does.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from datetime import datetime, timezone
from typing import Any, Callable, Dict, List, Sequence, Set, Tuple

from bt_migrate.api.client import Api
from bt_migrate.config.settings import Settings
from bt_migrate.migration.context import Migration
from bt_migrate.migration.deleted import refuse_deleted
from bt_migrate.migration.delivered import confirm_objects, confirm_rows, upload_again
from bt_migrate.migration.lag import measure_lag
from bt_migrate.migration.steps import refuse_conflicts
from bt_migrate.migration.waiting import (
    finish_waiting,
    incomplete_row_kinds,
    kinds_that_wait,
    record_waiting,
)
from bt_migrate.model.activation import missing_words
from bt_migrate.model.date_windows import iso
from bt_migrate.model.findings import LIST_REFUSED
from bt_migrate.model.outcomes import OPEN_OUTCOMES, SKIPPED
from bt_migrate.model.resource import no_bundle
from bt_migrate.model.resource_table import OBJECT_RESOURCES, PROJECTS
from bt_migrate.model.resources import BY_NAME, ROW_KINDS, kinds_of_phase
from bt_migrate.objects.bundles import bundle_file
from bt_migrate.objects.catalog import open_catalog
from bt_migrate.report.measures import lag_text
from bt_migrate.rows.background import wait_for
from bt_migrate.rows.planned_comparison import why_not_compared
from bt_migrate.rows.unseen import keep_unseen_marks
from bt_migrate.state.files import now
from bt_migrate.state.find_run import VERIFY
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.sync_marks import end_round, mark_seconds, open_sync_round, round_of
from bt_migrate.state.window_log import record_window

log = logging.getLogger("bt_migrate")

# The phase that compares both organizations. It writes only its own result, and can be repeated.

# The name of a phase and its function. The function returns a Future for work that continues in
# the background, or None.
Step = Tuple[str, Callable[[Migration], Any]]

ROWS_OF_PHASE = {kind.phase: kind.name for kind in ROW_KINDS.values()}
# Phases that may run while rows are still written: nothing that they create reacts to rows.
BESIDE_ROWS = ("migrate-definitions", "migrate-experiments")
# The first phase that needs rows; --no-rows stops before it.
AFTER_OBJECTS = "migrate-logs"
# Phases that compare objects, so that references that these wait for are added before.
NEED_WHOLE_OBJECTS = {
    VERIFY,
    *(kind.phase for kind in OBJECT_RESOURCES if any(pin.keeps_latest for pin in kind.pins)),
}
# the verification's word for what only the source has
MISSING = "missing"
KINDS_WITH_WINDOW = ("experiments", "logs")
# Minimum time between two (costly) checks of waiting references and all streams.
PHASES_END_S = 1.0
# The lag is measured after a sync that took longer than this or that moved rows.
LAG_AFTER_S = 60


def steps_of_part(settings: Settings, steps: Sequence[Step]) -> Sequence[Step]:
    """Returns the phases of a shard (those that copy rows), or those of --no-rows."""
    names = [name for name, _ in steps]
    if settings.shard:
        return [step for step in steps if step[0] in ROWS_OF_PHASE]
    if settings.no_rows and AFTER_OBJECTS in names:
        return steps[: names.index(AFTER_OBJECTS)]
    return steps


def is_unfinished(run: RunDirectory, settings: Settings, steps: Sequence[Step]) -> bool:
    """True if an earlier start left a copy or a sync unfinished.

    Changes after its mark then need another sync.
    """
    has_open_steps = any(not run.phase_done(name) for name, _ in steps)
    return bool(run.record.sessions and has_open_steps and not settings.dry_run)


def start_sync_round(
    settings: Settings, source: Api, run: RunDirectory, steps: Sequence[Step]
) -> None:
    """Open the next sync, unless the program only reads: then the run stays as it is."""
    names = [name for name, _ in steps]
    if not any(name.startswith("migrate-") for name in names):
        return
    kinds = [ROWS_OF_PHASE[name] for name in names if name in ROWS_OF_PHASE]
    kinds = [kind for kind in kinds if settings.selects(kind)]
    if not open_sync_round(run, names, kinds, source.clock.mark_s()):
        return
    since = {kind: _iso_mark(run, kind) for kind in kinds}
    changes = ", ".join(f"{kind} since {text}" for kind, text in since.items())
    log.info(
        "sync %d: %s",
        run.record.round,
        changes or "objects only",
        extra={"event": "round", "since": since},
    )


def _iso_mark(run: RunDirectory, kind: str) -> str:
    return iso(datetime.fromtimestamp(mark_seconds(run.record, kind), timezone.utc))


def run_phases(migration: Migration, steps: Sequence[Step], *, whole: bool) -> None:
    """Run each phase that is not done.

    A phase stays open, so that the same command resumes it, if some of its rows were not copied, or
    if only a part (not the `whole`) of the run's selection was requested.
    """
    if not migration.settings.dry_run:
        reopen_for_skipped(migration)
        reopen_for_missing(migration.run)
        reopen_verification(migration.run, [name for name, _ in steps])
    moves = _open_moves(migration, steps)
    if moves:
        refuse_deleted(migration, [name for name, _ in steps])
    refuse_conflicts(migration, moves)
    loop = PhaseLoop(migration, steps, whole)
    for number, step in enumerate(steps, 1):
        loop.run_phase(number, step)
    loop.finish()


def reopen_for_skipped(migration: Migration) -> None:
    """Reopen the phases with objects that earlier starts left and that this start can move."""
    run = migration.run
    for states in run.all_objects():
        phase = BY_NAME[states.resource].phase
        if phase in run.record.phases_done and (
            _may_act(states, migration.settings.activate) or _has_bundle(migration, states)
        ):
            run.record.phases_done.remove(phase)


def reopen_for_missing(run: RunDirectory) -> None:
    """Reopen the phases that did not see an object which the verification found to be missing."""
    differences = (run.record.verification or {}).get("differences", ())
    missing = [
        BY_NAME[difference["resource"]]
        for difference in differences
        if difference["outcome"] == MISSING and difference["resource"] in BY_NAME
    ]
    phases = {phase for resource in missing for phase in (resource.phase, resource.reacting_phase)}
    if PROJECTS in missing:  # every phase creates them
        phases.update(run.record.phases_done)
    done = run.record.phases_done
    run.record.phases_done = [phase for phase in done if phase not in phases]


def _may_act(states: ObjectStates, activated: Sequence[str]) -> bool:
    """Whether an object was left ready to activate, and may be activated now."""
    details = [
        record["detail"].split(",")
        for findings in states.findings.values()
        for record in findings
        if record["kind"] == "ready_to_activate"
    ]
    return any(not missing_words(words, activated) for words in details)


def _has_bundle(migration: Migration, states: ObjectStates) -> bool:
    """Whether an object was skipped because of its code bundle, and a person has that now."""
    lists, resource = migration.catalog.lists, BY_NAME[states.resource]
    if resource.bundle is no_bundle or not migration.settings.bundles.files:
        return False
    skipped = [
        source_id
        for source_id, entry in states.outcomes.items()
        if entry.outcome == SKIPPED and not entry.dest_id
    ]
    sources = (lists.source_object(resource, source_id) for source_id in skipped)
    return any(source and bundle_file(lists, resource, source) for source in sources)


def reopen_verification(run: RunDirectory, names: Sequence[str]) -> None:
    """Make sure that a verification follows the phases `names`.

    The last result becomes invalid when a phase is about to write. A verification that did not find
    everything is repeated.
    """
    writes = any(name.startswith("migrate-") and not run.phase_done(name) for name in names)
    has_arrived = (run.record.verification or {}).get("arrived", False)
    if writes:
        run.record.verification = None
    if VERIFY in run.record.phases_done and (writes or (VERIFY in names and not has_arrived)):
        run.record.phases_done.remove(VERIFY)


def has_open_objects(run: RunDirectory, phase: str) -> bool:
    """True if an object of the phase failed or waits for another one, or a project failed."""
    kinds = {PROJECTS.name, *(resource.name for resource in kinds_of_phase(phase))}
    return any(
        entry.outcome in OPEN_OUTCOMES
        for states in run.all_objects()
        if states.resource in kinds
        for entry in states.outcomes.values()
    )


def has_refused_lists(run: RunDirectory) -> bool:
    """True if a list was refused, so that objects of every phase may be missing."""
    return any(
        record["kind"] == LIST_REFUSED
        for states in run.all_objects()
        for record in states.findings.get("", ())
    )


def _open_moves(migration: Migration, steps: Sequence[Step]) -> List[Callable[[Migration], Any]]:
    return [
        phase
        for name, phase in steps
        if name.startswith("migrate-") and not migration.run.phase_done(name)
    ]


class PhaseLoop:
    """The phases of one start: which are still at work, and which are to be closed.

    Not safe for several threads.
    """

    def __init__(self, migration: Migration, steps: Sequence[Step], whole: bool) -> None:
        self._migration = migration
        self._run = migration.run
        self._names = [name for name, _ in steps]
        self._whole = whole
        # The result of each phase that continues in the background.
        self._in_background: Dict[str, Future[None]] = {}
        # phases that have ended, except for rows that are still being written
        self._ended: List[str] = []
        self._closed_s = time.monotonic()
        # whether waiting references were completed after the last phase that moves something
        self._completed = False

    @property
    def _judges(self) -> bool:
        """True for bin/verify alone, which is never done."""
        return self._names == [VERIFY]

    def run_phase(self, number: int, step: Step) -> None:
        """Run a phase, after waiting for the rows that must arrive before it."""
        name, phase = step
        of_all = (number, len(self._names))
        if name.startswith("migrate-"):  # a validation tries a write that cannot succeed
            self._migration.catalog.dest.before_write = self._run.note_write
        if self._run.phase_done(name) and not self._judges:
            facts = {"event": "phase_skipped", "phase": name}
            log.info("phase %d of %d: %s: done by an earlier start", *of_all, name, extra=facts)
            return
        self._migration.catalog.dest.check()
        if name not in BESIDE_ROWS:
            self._migration.background.wait()
        is_due = name in NEED_WHOLE_OBJECTS or time.monotonic() - self._closed_s > PHASES_END_S
        if self._migration.background.rest is None and is_due:
            self._close_ended(last=name == VERIFY)
            self._closed_s = time.monotonic()
        facts = {"event": "phase", "phase": name}
        log.info("phase %d of %d: %s%s", *of_all, name, self._why_idle(name), extra=facts)
        self._show_phase(name)
        began = time.monotonic()
        try:
            rest = phase(self._migration)
        finally:  # also of a phase that is interrupted
            self._record_seconds(name, time.monotonic() - began)
        if name == VERIFY and self._run.record.verification:
            self._run.record.verification["at"] = now()
        if rest is not None:
            self._in_background[name] = rest
        elif not self._judges:
            self._ended.append(name)
        self._close_background(waits=False)

    def _why_idle(self, name: str) -> str:
        """Returns `: ` and why the phase does nothing, "" if it does something."""
        if name != VERIFY:
            return ""
        if self._migration.settings.dry_run:
            return ": not in a dry run"
        reason = why_not_compared(self._migration.catalog)
        return f": {reason}" if reason else ""

    def _show_phase(self, name: str) -> None:
        self._run.live.phase = name
        self._run.live.phase_number = (self._names.index(name) + 1, len(self._names))

    def _record_seconds(self, name: str, seconds: float) -> None:
        """Add to the time of a phase; rows that it writes in the background do not count."""
        phases = self._run.record.sessions[-1].phases
        phases[name] = round(phases.get(name, 0.0) + seconds, 3)

    def finish(self) -> None:
        """Wait for background work; close the phases, and the run if all of its phases are done."""
        self._close_ended(last=not self._completed)
        self._close_background(waits=True)
        if not self._judges:
            is_last = len(self._names) > 1 and not self._migration.settings.part
            record_waiting(self._migration, final=is_last)
        if len(self._names) > 1 and all(self._run.phase_done(name) for name in self._names):
            self._run.record.finished = True
        is_repeated = self._migration.settings.relative_window or self._run.record.round
        if is_repeated and not self._migration.settings.dry_run:
            _report_lag(self._migration, self._row_kinds())

    def _row_kinds(self) -> List[str]:
        return [ROWS_OF_PHASE[name] for name in self._names if name in ROWS_OF_PHASE]

    def _close_ended(self, *, last: bool) -> None:
        """Wait for the rows of the ended phases, complete what waited for them, and mark them done.

        The `last` time, before a verification, what earlier starts left open is completed too.

        Rows of datasets may wait for objects of later phases: their phase is closed after these. A
        phase with rows that failed stays open, so that the same command tries them again. In a sync
        each stream knows itself how far it has come.
        """
        self._migration.background.wait()
        if any(name != VERIFY for name in (self._names if last else self._ended)):
            finish_waiting(self._migration, last=last)
            if last and not self._migration.settings.dry_run:
                confirm_objects(self._migration)
                confirm_rows(self._migration)
                upload_again(self._migration)
        self._completed = last
        open_kinds = set() if last else kinds_that_wait(self._run)
        waiting = [name for name in self._ended if ROWS_OF_PHASE.get(name) in open_kinds]
        self._ended = [name for name in self._ended if name not in waiting]
        if self._whole:
            self._keep_marks()
            behind = incomplete_row_kinds(self._run)
            self._run.mark_phases_done([name for name in self._ended if self._close(name, behind)])
        self._ended = waiting

    def _keep_marks(self) -> None:
        """Let streams that this sync has not read keep their marks, before the kind's mark moves.

        A dry run reads no streams and moves no mark.
        """
        if self._migration.settings.dry_run:
            return
        for name in self._ended:
            kind = ROWS_OF_PHASE.get(name, "")
            round_ = round_of(self._run.record, kind, self._migration.settings.lookback)
            if round_ is not None:
                keep_unseen_marks(self._migration.catalog, kind, round_)

    def _close(self, name: str, behind: Set[str]) -> bool:
        """Record the result of a phase. Returns whether it is done."""
        kind = ROWS_OF_PHASE.get(name, "")
        if kind not in behind and self._takes_window(kind):
            record_window(self._run.path.parent, self._run.record, self._run.path.name, kind)
        # A sync continues with the next changes: the next sync tries again what failed.
        failed = has_open_objects(self._run, name) or has_refused_lists(self._run)
        is_left_open = kind in behind or failed
        if is_left_open and not self._migration.settings.since_last:
            return False
        end_round(self._run.record, kind)
        return True

    def _takes_window(self, kind: str) -> bool:
        """True for the first copy of all rows of a kind in the run's window."""
        settings = self._migration.settings
        is_first_copy = not self._run.record.round and not settings.dry_run
        has_window = kind in KINDS_WITH_WINDOW and settings.selects(kind)
        return is_first_copy and has_window and not settings.part

    def _close_background(self, *, waits: bool) -> None:
        """Mark a phase as done when its background work is. Raises the error that ended it."""
        for name, rest in list(self._in_background.items()):
            if waits:
                self._show_phase(name)
                began = time.monotonic()
                wait_for([rest])
                self._record_seconds(name, time.monotonic() - began)
            if rest.done():
                self._in_background.pop(name).result()
                if self._whole:
                    self._run.mark_phases_done([name])


def lag_is_due(run: RunDirectory, kinds: Sequence[str], took_s: float) -> bool:
    """True for a start that moves kinds of rows, unless it is a short sync that found nothing new.

    A comparison alone moves none: it would count no rows.
    """
    is_idle = run.record.round and not run.live.total and took_s < LAG_AFTER_S
    return bool(kinds) and not is_idle


def _report_lag(migration: Migration, kinds: Sequence[str]) -> None:
    """Measure the lag of the destination, if that is due."""
    run = migration.run
    if not lag_is_due(run, kinds, time.monotonic() - run.live.began):
        return
    catalog = migration.catalog
    fresh = open_catalog(catalog.source, catalog.dest, run, migration.settings)
    lag = measure_lag(fresh, run.record, kinds)
    run.record.lag = lag
    log.info("lag: %s", lag_text(lag), extra={"event": "lag", **lag})
