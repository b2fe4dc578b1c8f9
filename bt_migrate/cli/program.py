"""What every entry point does around its phase: options, settings, connections, run directory, signals, report, exit code.

The one place where errors become a line and an exit code.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from bt_migrate.api.client import Api
from bt_migrate.api.organization import connect
from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.cli.log_lines import start_logging
from bt_migrate.cli.operate import Ending, Operator, asked_to_end
from bt_migrate.config.options import flags_of, make_parser
from bt_migrate.config.settings import Settings, load_settings
from bt_migrate.errors import (
    EXIT_INCOMPLETE,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_STOPPED,
    Interrupted,
    LockedError,
    LossError,
    MigrationError,
    StateError,
    UsageError,
)
from bt_migrate.migration.context import Migration
from bt_migrate.migration.phase_loop import (
    VERIFY,
    Step,
    do_steps,
    is_unfinished,
    start_sync_round,
    steps_of_part,
)
from bt_migrate.migration.windows import tell_window, windowed_kinds, without_gaps
from bt_migrate.model.outcomes import CREATED, UPDATED
from bt_migrate.objects.catalog import Catalog
from bt_migrate.report.build import build_report, exit_code_of, status_of
from bt_migrate.report.plan_file import build_plan, losses_text
from bt_migrate.report.text import (
    SUMMARY_FILE,
    comparison_text,
    short_text,
    summary_line,
    summary_record,
)
from bt_migrate.report.write import write_report
from bt_migrate.rows.estimate import estimate
from bt_migrate.shards.selected import selection_of_shard
from bt_migrate.shards.share_out import refuse_other_organizations
from bt_migrate.state.copied_attachments import CopiedAttachments
from bt_migrate.state.files import now, write_json
from bt_migrate.state.find_run import copy_to_plan, create_run, find_run, left_behind
from bt_migrate.state.run_directory import RunDirectory, add_session, end_killed_session, window_of


def hand_over_plan(settings: Settings, run: RunDirectory) -> None:
    """Write the plan where that was asked for. Raises LossError where it leaves something behind and that is forbidden."""
    plan = build_plan(run)
    if settings.plan_out:
        write_json(Path(settings.plan_out).absolute(), plan)
        print(f"Plan: {settings.plan_out}")
    if settings.fail_on_loss and plan["losses"]:
        raise LossError(
            f"nothing was written (--fail-on-loss): {losses_text(plan['losses'])}; all are in {run.path / SUMMARY_FILE}"
        )


def tell_comparison(run: RunDirectory, settings: Settings, code: Optional[int], status: str) -> int:
    """Print what was compared; the run's report takes it up. The exit code is that of the comparison alone."""
    if code != EXIT_OK or status:
        return code or EXIT_STOPPED  # stopped before its end it says nothing
    report = build_report(run, status_of(code))
    write_report(run, report)
    result = report["verification"]
    if settings.json:
        print(json.dumps(result))
    elif not settings.quiet:
        print(comparison_text(result))
    elif not result["equal"]:
        print(f"Verification: {result['text']}; see {result['folder']}")
    return EXIT_OK if result["equal"] else EXIT_INCOMPLETE


def tell_run(run: RunDirectory, settings: Settings, code: Optional[int], status: str) -> int:
    """Write and print the report; gives back the exit code, which is 1 where a run came to its end without everything having
    arrived.
    """
    report = build_report(run, status or status_of(code))
    if code == EXIT_OK and not status:
        code = exit_code_of(report)
    wrote = bool({CREATED, UPDATED} & {*report["totals"]["objects"], *report["totals"]["rows"]})
    run.data["wrote"] = not run.data["dry_run"] and (wrote or run.data.get("wrote", False))
    run.save()
    write_report(run, report)
    if settings.quiet and code == EXIT_OK:
        return EXIT_OK
    if settings.json:
        print(json.dumps({**summary_record(report), "exit_code": code}))
    elif settings.quiet:
        print(summary_line(report))
    else:
        print(short_text(report))
        print(f"Report: {run.path / SUMMARY_FILE}")
    return code or EXIT_OK


log = logging.getLogger("bt_migrate")
Found = Tuple[
    RunDirectory, Settings, bool
]  # a run to work in, with its own window, and whether another one follows
LOCK_POLL_S = 0.5

M_ARENA_MAX = -8  # of glibc's malloc.h
RECURSION_LIMIT = 10_000
GC_THRESHOLDS = (100_000, 20, 100)


def run_program(
    argv: Optional[Sequence[str]],
    command: str,
    description: str,
    steps: Sequence[Step],
    environ: Optional[Mapping[str, str]] = None,
) -> int:
    """Run the steps as one program; gives back its exit code."""

    def act(settings: Settings, ending: Ending) -> int:
        settings = replace(settings, verify=settings.verify or command == VERIFY)
        source, dest = connected(settings, ending.event, writes=command != VERIFY)
        if settings.shard:
            refuse_other_organizations(
                settings.shard, {"source": source.org_id, "dest": dest.org_id}
            )
        return _run_all(command, settings, source, dest, steps_of_part(settings, steps), ending)

    return in_program(argv, command, description, act, environ)


def in_program(
    argv: Optional[Sequence[str]],
    command: str,
    description: str,
    act: Callable[[Settings, Ending], int],
    environ: Optional[Mapping[str, str]] = None,
) -> int:
    """Options, settings, logging and signals around `act`, which gives the exit code. Every error ends as one line on stderr.

    `environ` takes the place of the environment and of `.env`.
    """
    prepare_interpreter()
    flags = flags_of(make_parser(command, description), argv)
    try:
        settings = replace(
            load_settings(flags, environ),
            arguments=tuple(sys.argv[1:] if argv is None else argv),
            **(selection_of_shard(flags) if flags.get("shard") else {}),
        )
        if command == VERIFY and settings.dry_run:
            raise UsageError("--dry-run: verify writes nothing anyway; leave it out")
    except MigrationError as error:
        return _told(error, in_json=bool(flags.get("json")))
    start_logging(
        settings.log_level, settings.log_format, (settings.source_api_key, settings.dest_api_key)
    )
    ending = Ending()
    try:
        with asked_to_end(ending, settings.max_duration, in_json=settings.json):
            return act(settings, ending)
    except MigrationError as error:
        return _told(error, in_json=settings.json)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        gc.freeze()  # nothing is looked for in what is about to vanish as a whole


def prepare_interpreter() -> None:
    """Set up this process for large pages: numbers of any size, deep values, few collections.

    A program calls this once, at its start. It changes settings of the whole process.
    """
    if hasattr(sys, "set_int_max_str_digits"):  # since Python 3.11; rows hold integers of any size
        sys.set_int_max_str_digits(0)
    # Rows may be nested as deep as the JSON reader accepts.
    sys.setrecursionlimit(max(sys.getrecursionlimit(), RECURSION_LIMIT))
    # A page holds hundreds of thousands of values and no cycles; with the default thresholds,
    # collections take a sixth of the CPU time.
    gc.set_threshold(*GC_THRESHOLDS)
    gc.freeze()
    with contextlib.suppress(Exception):  # musl and macOS have no mallopt
        # One heap for all threads: each would keep the memory of its largest page, tens of MB.
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _told(error: MigrationError, *, in_json: bool) -> int:
    line = {"level": "error", "event": "ended", "message": str(error), "exit_code": error.exit_code}
    print(json.dumps(line) if in_json else f"bt_migrate: {error}", file=sys.stderr)
    return error.exit_code


def connected(settings: Settings, stop: threading.Event, *, writes: bool) -> Tuple[Api, Api]:
    """Both clients with their organizations known. Raises UsageError if they are the same one."""
    source = Api(
        "source",
        settings.source_url,
        settings.source_api_key,
        writable=False,
        **_common(settings, stop),
    )
    with ThreadPoolExecutor(2, thread_name_prefix="connect") as pool:
        asked = (
            pool.submit(connect, source, settings.source_org, "BT_SOURCE"),
            pool.submit(connect_destination, settings, stop, writes=writes),
        )
    asked[0].result()
    dest = asked[1].result()
    if source.org_id == dest.org_id:
        raise UsageError(
            f"source and destination are the same organization, {source.display_name} ({source.org_id}); check the two keys"
        )
    return source, dest


def connect_destination(settings: Settings, stop: threading.Event, *, writes: bool = True) -> Api:
    dest = Api(
        "destination",
        settings.dest_url,
        settings.dest_api_key,
        writable=writes,
        **_common(settings, stop),
    )
    connect(dest, settings.dest_org, "BT_DEST")
    return dest


def _common(settings: Settings, stop: threading.Event) -> Dict[str, Any]:
    return {
        "attempts": settings.retry_attempts, "delay_s": settings.retry_delay, "max_concurrent": settings.max_concurrent, "stop": stop,
        "queries_per_minute": settings.btql_per_minute,
    }  # fmt: skip


def identity_of(settings: Settings, source: Api, dest: Api) -> Dict[str, Any]:
    """What a run is made for. Kept in run.json and compared at each start; holds no key."""
    return {
        "source": {"org_id": source.org_id, "org_name": source.display_name, "url": source.url},
        "dest": {"org_id": dest.org_id, "org_name": dest.display_name, "url": dest.url},
        "selection": {
            "resources": list(settings.resources),
            "projects": sorted(settings.projects),
            "created_after": settings.created_after,
            "created_before": settings.created_before,
            **(
                {"rename_projects": dict(settings.rename_projects)}
                if settings.rename_projects
                else {}
            ),
            **({"part": settings.part} if settings.part else {}),
        },
        **({"shard": settings.shard} if settings.shard else {}),
        "relative_window": settings.relative_window,
        "dry_run": settings.dry_run,
    }


def _run_all(
    command: str, settings: Settings, source: Api, dest: Api, steps: Sequence[Step], ending: Ending
) -> int:
    """What an earlier start left of its window first, then what is asked for now. The worse exit code counts."""
    kinds = windowed_kinds(settings, steps)
    codes: List[int] = []

    def left_or_new() -> Found:
        left = left_behind(settings, identity_of(settings, source, dest), command)
        if left is None:
            return new()
        its = replace(settings, **window_of(left))
        # the same night, begun earlier to fill a gap, is all that was asked for
        return (
            left,
            its,
            its.created_before is None or its.created_before != settings.created_before,
        )

    def new() -> Found:
        if settings.since_last:
            run, its = find_run(settings, identity_of(settings, source, dest), command)
            return run, its, not codes and is_unfinished(run, its, steps)
        wanted = (
            without_gaps(settings, identity_of(settings, source, dest), kinds)
            if settings.fill_gaps
            else settings
        )
        return (*find_run(wanted, identity_of(wanted, source, dest), command), False)

    find, follows = left_or_new, True
    while follows and not ending.event.is_set():
        with _held(find, settings.wait_lock, ending.event) as (run, its, follows):
            if its.created_after or its.created_before:
                tell_window(run, its, identity_of(its, source, dest), kinds)
            if not its.dry_run and command != VERIFY and (its.plan_out or its.fail_on_loss):
                _plan_first(command, its, source, dest, run, steps, ending)
            codes.append(_in_run(command, its, source, dest, run, steps, ending))
        find = new
    if follows:
        log.info(
            "%s: what was asked for has not begun; the same command goes on",
            ending.reason,
            extra={"event": "stopped"},
        )
        codes.append(ending.code)
    return max(codes)


@contextlib.contextmanager
def _held(find: Callable[[], Found], wait_s: float, stop: threading.Event) -> Iterator[Found]:
    """The run that is to be worked in, locked. Whoever held it may have finished it, so it is looked for anew after a wait."""
    deadline = time.monotonic() + wait_s
    while True:
        found = find()
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(found[0])
            except LockedError as error:
                if time.monotonic() >= deadline or stop.wait(LOCK_POLL_S):
                    raise
                log.debug("waiting: %s", error)
                continue
            yield found
            return


# -- one run


def _in_run(
    command: str,
    settings: Settings,
    source: Api,
    dest: Api,
    run: RunDirectory,
    steps: Sequence[Step],
    ending: Ending,
) -> int:
    """Do the steps that this run has not done; write the report whatever happens."""
    started = time.monotonic()
    end_killed_session(run, dest.server_seconds() - time.time())
    run.moves = command != VERIFY
    if settings.since_last:
        start_sync_round(settings, source, run, steps)
    session: Dict[str, Any] = {
        "started": now(),
        "command": command,
        "arguments": list(settings.arguments),
    }
    add_session(run.data["sessions"], session)
    run.data.setdefault(
        "source_time",
        settings.shard["mark"]["source"] if settings.shard else int(source.earliest_seconds()),
    )
    for side in (source, dest):  # as an earlier process of the run was shown
        side.reads_groups = side.reads_groups or side.side in run.data.get("reads_groups", ())
    run.save()
    word = "resuming" if len(run.data["sessions"]) > 1 else "starting"
    sides = f"{source.display_name} -> {dest.display_name}"
    log.info("%s run %s: %s", word, run.path, sides, extra={"event": "run", "run": str(run.path)})
    code: Optional[int] = None
    status = ""
    try:
        attachments = contextlib.closing(CopiedAttachments(run.path / "attachments.sqlite3"))
        with attachments as copied, Operator(run, (source, dest), ending, command):
            copier = AttachmentCopier(source, dest, copied, settings.attachment_max_bytes)
            migration = Migration(
                settings,
                Catalog(source, dest, run, settings),
                run,
                copier,
                ending.event,
                objects_only=settings.no_rows,
            )
            with migration.background:
                do_steps(
                    migration,
                    steps,
                    whole=run.data["selection"] == identity_of(settings, source, dest)["selection"],
                )
            if settings.dry_run:
                run.data["estimate"] = estimate(migration.catalog, run.data.get("row_plans", {}))
            code = EXIT_OK
    except Interrupted as error:
        session["error"] = ending.reason or str(error)
        code = ending.code if ending.event.is_set() else error.exit_code
        if code == EXIT_INTERRUPTED:
            raise
        status = "stopped"
        log.info("%s; the same command goes on", ending.reason, extra={"event": "stopped"})
    except MigrationError as error:
        session["error"] = str(error)
        code = error.exit_code
        raise
    finally:
        session.update(
            ended=now(), wrote_until=dest.last_write_s, seconds=round(time.monotonic() - started, 3)
        )
        run.data["reads_groups"] = [side.side for side in (source, dest) if side.reads_groups]
        try:
            tell = tell_comparison if command == VERIFY else tell_run
            code = tell(run, settings, code, status)
        except (
            StateError
        ):  # on a full disk nor the report can be written: what failed first is told
            if code == EXIT_OK:
                raise
    if settings.dry_run and not status:
        hand_over_plan(settings, run)
    return code


def _plan_first(
    command: str,
    settings: Settings,
    source: Api,
    dest: Api,
    run: RunDirectory,
    steps: Sequence[Step],
    ending: Ending,
) -> None:
    """A dry run of its own beside the run, before its first write. Raises LossError where the plan forbids to go on."""
    dry = replace(settings, dry_run=True)
    identity = identity_of(dry, source, dest)
    goes_on = settings.since_last and run.data["sessions"]
    with (
        copy_to_plan(run, identity, command)
        if goes_on
        else create_run(run.path.parent, identity, command)
    ) as planned:
        _in_run(command, dry, source, dest, planned, steps, ending)
    source.check()  # a plan that was stopped allows nothing
