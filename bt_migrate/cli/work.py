"""One start of a program: which runs it works in, and the work in each of them.

This module does not know signals and options.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple

from bt_migrate.api.capabilities import FacetPlace
from bt_migrate.api.client import Api
from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.cli.connect import identity_of
from bt_migrate.cli.invitations import agree_to_invite
from bt_migrate.cli.log_lines import TextLines
from bt_migrate.cli.operate import Operator
from bt_migrate.cli.program_names import program_prefix
from bt_migrate.cli.results import (
    RunsOfStart,
    refuse_losses,
    report_comparison,
    report_run,
    write_plan,
)
from bt_migrate.cli.run_log import logged_to
from bt_migrate.cli.signals import Ending
from bt_migrate.cli.terminal import screen
from bt_migrate.config.options import PROGRAMS, SETTING_OPTIONS
from bt_migrate.config.settings import Settings
from bt_migrate.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    ApiError,
    Interrupted,
    LockedError,
    MigrationError,
    StateError,
)
from bt_migrate.migration.context import Migration
from bt_migrate.migration.mapped_users import with_mapped_users
from bt_migrate.migration.phase_loop import (
    Step,
    is_unfinished,
    run_phases,
    start_sync_round,
)
from bt_migrate.migration.windows import report_window, windowed_kinds, without_gaps
from bt_migrate.model.date_windows import iso
from bt_migrate.objects.catalog import open_catalog
from bt_migrate.objects.lists import Lists
from bt_migrate.report.advice import again_as_plan
from bt_migrate.report.display import duration_text
from bt_migrate.report.last_start import LastStart
from bt_migrate.report.plan_check import log_rows_grew, plan_digest, read_plan, refuse_changes
from bt_migrate.report.plan_file import build_plan
from bt_migrate.rows.estimate import Listed, estimate
from bt_migrate.rows.unrecorded import note_in_flight
from bt_migrate.state.copied_attachments import CopiedAttachments
from bt_migrate.state.files import now
from bt_migrate.state.find_run import (
    VERIFY,
    copy_to_plan,
    create_run,
    find_run,
    unfinished_window_run,
)
from bt_migrate.state.run_directory import (
    RunDirectory,
    window_of,
)
from bt_migrate.state.run_record import Identity, Session, ShownFacets
from bt_migrate.state.sessions import add_session, end_killed_session

log = logging.getLogger("bt_migrate")

LOCK_POLL_S = 0.5

# A run to work in, the settings with the run's own window, and whether another run follows.
FoundRun = Tuple[RunDirectory, Settings, bool]


@dataclass(frozen=True)
class Start:
    """The inputs of one start of a program."""

    command: str
    source: Api
    dest: Api
    steps: Sequence[Step]
    ending: Ending
    runs: RunsOfStart = field(default_factory=RunsOfStart)

    @property
    def judges(self) -> bool:
        """True for bin/verify, which writes only its own result."""
        return self.command == VERIFY

    def identity(self, settings: Settings) -> Identity:
        return identity_of(settings, self.source, self.dest)


def work(start: Start, settings: Settings) -> int:
    """Finish what an earlier start left of its window or sync, then do what this start asks for.

    Returns the highest exit code of the runs: a sync replaces the result of the one before it.
    """
    _refuse_unknown_projects(start, settings)
    kinds = windowed_kinds(settings, start.steps)
    codes: Dict[Path, int] = {}
    find: Callable[[], FoundRun] = lambda: _unfinished_or_new(start, settings, kinds)  # noqa: E731
    follows = True
    while follows and not start.ending.event.is_set():
        with _locked(find, settings.wait_lock, start.ending.event) as (run, its_settings, follows):
            start.runs.follows = follows
            codes[run.path] = _work_in(start, its_settings, run, kinds)
        find = lambda: _new(start, settings, kinds, is_first=False)  # noqa: E731
    if follows:
        log.info(
            "%s before this start began; run the same command to continue",
            start.ending.reason,
            extra={"event": "stopped"},
        )
        return max([start.ending.code, *codes.values()])
    return max(codes.values())


def _refuse_unknown_projects(start: Start, settings: Settings) -> None:
    """Refuse wrong names before a run is made for them; its next command would repeat them."""
    if settings.selects_projects or settings.rename_projects:
        with contextlib.suppress(ApiError):  # the first phase meets and reports it too
            Lists(start.source, start.dest, settings).projects()


def _unfinished_or_new(start: Start, settings: Settings, kinds: Sequence[str]) -> FoundRun:
    """Returns the run that an earlier start left unfinished, or else the run for this start."""
    unfinished = unfinished_window_run(settings, start.identity(settings), start.command)
    if unfinished is None:
        return _new(start, settings, kinds, is_first=True)
    its_settings = replace(settings, **window_of(unfinished))
    end = its_settings.created_before
    # An earlier start that filled a gap may cover today's window already: then nothing follows.
    return unfinished, its_settings, end is None or end != settings.created_before


def _new(start: Start, settings: Settings, kinds: Sequence[str], *, is_first: bool) -> FoundRun:
    """Returns the run for this start. An unfinished sync run is finished before the next sync."""
    if settings.since_last:
        run, its_settings = find_run(settings, start.identity(settings), start.command)
        return run, its_settings, is_first and is_unfinished(run, its_settings, start.steps)
    if settings.fill_gaps:
        settings = without_gaps(settings, start.identity(settings), kinds)
    return (*find_run(settings, start.identity(settings), start.command), False)


@contextlib.contextmanager
def _locked(
    find: Callable[[], FoundRun], wait_s: float, stop: threading.Event
) -> Iterator[FoundRun]:
    """Yields the run to work in, locked.

    Its last holder may have finished it, so `find` is called again after each wait. Raises
    LockedError when `wait_s` is over.
    """
    deadline = time.monotonic() + wait_s
    is_told = False
    while True:
        run_and_lock = find()
        with contextlib.ExitStack() as locks:
            try:
                locks.enter_context(run_and_lock[0])
            except LockedError as error:
                if time.monotonic() >= deadline or stop.wait(LOCK_POLL_S):
                    raise
                if not is_told:
                    until = f"for at most {duration_text(wait_s)}"
                    log.info("waiting %s: %s", until, error, extra={"event": "lock"})
                is_told = True
                continue
            yield run_and_lock
            return


def _work_in(start: Start, settings: Settings, run: RunDirectory, kinds: Sequence[str]) -> int:
    """Report the window, plan first where that is asked for, then work in the run."""
    if settings.created_after or settings.created_before:
        report_window(run, settings, start.identity(settings), kinds)
    plan = read_plan(Path(settings.plan)) if settings.plan else None
    if plan is not None and _carries_out(run, plan):
        settings = replace(settings, plan="", fail_on_loss=False)
    plans_first = settings.plan_out or settings.fail_on_loss or settings.plan
    if plans_first and not settings.dry_run and not start.judges:
        today = _plan_first(start, settings, run)
        if plan is not None:
            new_plan_command = _new_plan(start, settings, has_new_logs=log_rows_grew(plan, today))
            refuse_changes(settings.plan, plan, today, new_plan_command)
            run.record.plan = plan_digest(plan)
            run.save()
    return _work_in_run(start, settings, run)


def _new_plan(start: Start, settings: Settings, *, has_new_logs: bool) -> str:
    """Returns the command that makes the plan of --plan again.

    New rows of logs would change each plan, unless it ends at a date.
    """
    at_end = has_new_logs and not settings.created_before
    until = datetime.fromtimestamp(int(start.source.clock.mark_s()), timezone.utc)
    last = LastStart(start.command, settings.arguments, program_prefix(sys.argv[0]), "")
    return again_as_plan(last, settings.plan, iso(until) if at_end else "")


def _carries_out(run: RunDirectory, plan: Mapping[str, Any]) -> bool:
    """Whether an earlier start of this run has begun to carry the plan out.

    If so, the plans are not compared: a new plan would lack what that start has done.
    """
    return run.record.plan == plan_digest(plan)


def _plan_first(start: Start, settings: Settings, run: RunDirectory) -> Dict[str, Any]:
    """Make the plan as a dry run of its own, before the first write of the real run. Returns it.

    Raises LossError if the plan has losses and --fail-on-loss is given.
    """
    # A person has read the plan of --plan; only changes since then are printed.
    dry_settings = replace(settings, dry_run=True, quiet=settings.quiet or bool(settings.plan))
    identity = start.identity(dry_settings)
    if settings.since_last and run.record.sessions:
        plan_run = copy_to_plan(run, identity, start.command)
    else:
        plan_run = create_run(run.path.parent, identity, start.command)
    with plan_run:
        _work_in_run(replace(start, runs=RunsOfStart(follows=True)), dry_settings, plan_run)
        # A stopped plan is incomplete and must not be carried out.
        start.source.check()
        return build_plan(plan_run)


# -- one run


def _work_in_run(start: Start, settings: Settings, run: RunDirectory) -> int:
    """Run the phases that are not done, with everything in run.log. Returns the exit code."""
    secrets = (settings.source_api_key, settings.dest_api_key)
    with logged_to(run.path, TextLines(secrets, kept=True)):
        return _work_logged(start, settings, run)


def _work_logged(start: Start, settings: Settings, run: RunDirectory) -> int:
    """Run the phases that are not done; the report is written whatever happens."""
    began = time.monotonic()
    start.ending.crash_folders.append(run.path)
    session = _open_session(start, settings, run)
    code: Optional[int] = None
    status = ""
    try:
        _run_phases(start, settings, run)
        code = EXIT_OK
    except Interrupted as error:
        session.error = start.ending.reason or str(error)
        code = start.ending.code if start.ending.event.is_set() else error.exit_code
        if code == EXIT_INTERRUPTED:
            raise
        status = "stopped"
        extra = {"event": "stopped"}
        log.info("%s; run the same command to continue", start.ending.reason, extra=extra)
    except MigrationError as error:
        session.error = str(error)
        code = error.exit_code
        raise
    except KeyboardInterrupt:  # the second Ctrl-C
        session.error = start.ending.reason
        code = EXIT_INTERRUPTED
        raise
    finally:
        _close_session(start, run, session, began)
        try:
            if start.judges:
                code = report_comparison(run, settings, code, status)
            else:
                code = report_run(run, settings, code, status, start.runs)
        except StateError:
            # A full disk cannot store the report either; the first error is shown.
            if code == EXIT_OK:
                raise
    if settings.dry_run and not status:
        refuse_losses(settings, run)
    return code


def _open_session(start: Start, settings: Settings, run: RunDirectory) -> Session:
    """Record this start in run.json. Returns its record."""
    end_killed_session(run, start.dest.clock.earliest_s() - time.time())
    run.moves = not start.judges
    run.record.waiting = run.record.waiting or run.moves  # its end says whether that is so
    if settings.since_last:
        start_sync_round(settings, start.source, run, start.steps)
    session = Session(
        now(), start.command, list(settings.arguments), prefix=program_prefix(sys.argv[0])
    )
    add_session(run.record.sessions, session)
    run.record.settings = dict(settings.changed_settings)
    note_in_flight(settings, run.record)
    source_time = settings.shard.mark.source if settings.shard else None
    if run.record.source_time is None:
        run.record.source_time = source_time or int(start.source.clock.mark_s())
    for side in (start.source, start.dest):
        # what an earlier process of the run found out about the server
        side.capabilities.reads_groups = (
            side.capabilities.reads_groups or side.side in run.record.reads_groups
        )
        side.capabilities.facets.places.update(
            (recorded.kind, FacetPlace(recorded.shown, recorded.objects))
            for recorded in run.record.facets
            if recorded.side == side.side
        )
    run.save()
    # --plan: a person is not shown the run in which the plan is made again.
    is_check = settings.dry_run and bool(settings.plan)
    log.log(
        logging.DEBUG if is_check else logging.INFO,
        "%s run %s",
        "resuming" if len(run.record.sessions) > 1 else "starting",
        run.path,
        extra={"event": "run", "run": str(run.path)},
    )
    terminal = screen()
    if terminal is not None and terminal.can_pin:
        terminal.line("Ctrl-C stops it at any time; the same command continues")
    return session


def _close_session(start: Start, run: RunDirectory, session: Session, began: float) -> None:
    session.ended = now()
    session.wrote_until = start.dest.transport.last_write_s
    session.rows = run.live.total
    session.seconds = round(time.monotonic() - began, 3)
    sides = (start.source, start.dest)
    run.record.reads_groups = [side.side for side in sides if side.capabilities.reads_groups]
    run.record.facets = [
        ShownFacets(side.side, kind, place.shown, place.objects)
        for side in sides
        for kind, place in sorted(side.capabilities.facets.places.items())
    ]


def _run_phases(start: Start, settings: Settings, run: RunDirectory) -> None:
    sides = (start.source, start.dest)
    can_invite = SETTING_OPTIONS["invite_users"] in PROGRAMS[start.command]
    catalog = with_mapped_users(open_catalog(*sides, run, settings), can_invite=can_invite)
    settings = catalog.settings
    agree_to_invite(catalog)
    attachments = contextlib.closing(CopiedAttachments(run.path / "attachments.sqlite3"))
    with attachments as copied, Operator(run, sides, start.ending, start.command):
        migration = Migration(
            settings,
            catalog,
            run,
            AttachmentCopier(*sides, copied, settings.attachment_max_bytes),
            start.ending.event,
            objects_only=settings.no_rows,
        )
        whole = run.record.selection == start.identity(settings).selection
        with migration.background:
            run_phases(migration, start.steps, whole=whole)
        if settings.dry_run:
            listed = (run.record.validation or {}).get("listed")
            plans = run.record.row_plans
            run.record.estimate = estimate(catalog, plans, Listed(**listed) if listed else None)
            # before the result is printed, whose last line is the command to run next
            write_plan(settings, run)
