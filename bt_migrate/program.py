"""What every entry point does around its phase: options, settings, connections, run directory, signals, report, exit code.

The one place where errors become a line and an exit code.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple

from bt_migrate.api import Api
from bt_migrate.attachments import AttachmentCopier
from bt_migrate.catalog import Catalog, connect
from bt_migrate.errors import EXIT_INTERRUPTED, EXIT_OK, MigrationError, StateError, UsageError
from bt_migrate.options import flags_of, make_parser
from bt_migrate.progress import start_logging
from bt_migrate.report import SUMMARY_FILE, build_report, exit_code_of, short_text, status_of, write_report
from bt_migrate.runs import RunDirectory, end_killed_session, find_run
from bt_migrate.settings import Settings, load_settings
from bt_migrate.state import CREATED, UPDATED, CopiedAttachments, now
from bt_migrate.work import Work, finish_waiting, incomplete_streams, refuse_conflicts, tell_waiting

log = logging.getLogger("bt_migrate")

Step = Tuple[str, Callable[[Work], None]]  # the phase's name and what it does


# Pages are hundreds of thousands of values without cycles: looking through them again and again is a sixth of the CPU time.
GC_THRESHOLD = (100_000, 20, 100)
M_ARENA_MAX = -8  # of glibc's malloc.h


def run_program(
    argv: Optional[Sequence[str]],
    command: str,
    description: str,
    steps: Sequence[Step],
    environ: Optional[Mapping[str, str]] = None,
) -> int:
    """Run the steps as one program; gives back its exit code."""

    def act(settings: Settings, stop: threading.Event) -> int:
        source, dest = connected(settings, stop)
        run, settings = find_run(settings, identity_of(settings, source, dest), command)
        with run:
            return _in_run(command, settings, source, dest, run, steps, stop)

    return in_program(argv, command, description, act, environ)


def in_program(
    argv: Optional[Sequence[str]],
    command: str,
    description: str,
    act: Callable[[Settings, threading.Event], int],
    environ: Optional[Mapping[str, str]] = None,
) -> int:
    """Options, settings, logging and signals around `act`, which gives the exit code. Every error ends as one line on stderr.

    `environ` takes the place of the environment and of `.env`.
    """
    _suit_to_rows()
    flags = flags_of(make_parser(command, description), argv)
    try:
        settings = load_settings(flags, environ)
    except MigrationError as error:
        return _told(error)
    start_logging(settings.log_level, settings.log_format, (settings.source_api_key, settings.dest_api_key))
    stop = threading.Event()
    try:
        with _signals(stop):
            return act(settings, stop)
    except MigrationError as error:
        return _told(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _suit_to_rows() -> None:
    """Settings of the interpreter and of the C library for a program that takes large pages apart in several threads."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    with contextlib.suppress(Exception):  # a library without it (musl, macOS) does without
        # One heap for all threads: each would keep what it freed of its largest page, tens of MB in all.
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _told(error: MigrationError) -> int:
    print(f"bt_migrate: {error}", file=sys.stderr)
    return error.exit_code


def connected(settings: Settings, stop: threading.Event) -> Tuple[Api, Api]:
    """Both clients with their organizations known. Raises UsageError if they are the same one."""
    source = Api("source", settings.source_url, settings.source_api_key, writable=False, **_common(settings, stop))
    with ThreadPoolExecutor(2, thread_name_prefix="connect") as pool:
        asked = pool.submit(connect, source, settings.source_org, "BT_SOURCE"), pool.submit(connect_destination, settings, stop)
    asked[0].result()
    dest = asked[1].result()
    if source.org_id == dest.org_id:
        raise UsageError(
            f"source and destination are the same organization, {source.display_name} ({source.org_id}); check the two keys"
        )
    return source, dest


def connect_destination(settings: Settings, stop: threading.Event) -> Api:
    dest = Api("destination", settings.dest_url, settings.dest_api_key, writable=True, **_common(settings, stop))
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
            **({"rename_projects": dict(settings.rename_projects)} if settings.rename_projects else {}),
        },
        "dry_run": settings.dry_run,
    }


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM asks for a clean end; the second one takes the program down at once."""

    def ask(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("bt_migrate: finishing what is in flight (once more to stop at once) …", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_run(
    command: str, settings: Settings, source: Api, dest: Api, run: RunDirectory, steps: Sequence[Step], stop: threading.Event
) -> int:
    """Do the steps that this run has not done; write the report whatever happens."""
    started = time.monotonic()
    end_killed_session(run, dest.server_seconds() - time.time())
    session: Dict[str, Any] = {"started": now(), "command": command}
    run.data["sessions"].append(session)
    run.save()
    word = "resuming" if len(run.data["sessions"]) > 1 else "starting"
    sides = f"{source.display_name} -> {dest.display_name}"
    log.info("%s run %s: %s", word, run.path, sides, extra={"event": "run", "run": str(run.path)})
    code: Optional[int] = None
    try:
        copied = CopiedAttachments(run.path / "attachments.sqlite3")
        copier = AttachmentCopier(source, dest, copied, settings.attachment_max_bytes)
        work = Work(settings, Catalog(source, dest, run, settings), run, copier, stop)
        _do_steps(work, steps, whole=run.data["selection"] == identity_of(settings, source, dest)["selection"])
        code = EXIT_OK
    except MigrationError as error:
        session["error"] = str(error)
        code = error.exit_code
        raise
    finally:
        session.update(ended=now(), wrote_until=dest.last_write_s, seconds=round(time.monotonic() - started, 3))
        try:
            code = _tell(run, code)
        except StateError:  # on a full disk nor the report can be written: what failed first is told
            if code == EXIT_OK:
                raise
    return code


def _tell(run: RunDirectory, code: Optional[int]) -> int:
    """Write and print the report; gives back the exit code, which is 1 where a run came to its end without everything having
    arrived.
    """
    report = build_report(run, status_of(code))
    if code == EXIT_OK:
        code = exit_code_of(report)
        report = build_report(run, status_of(code))
    run.data["wrote"] = bool({CREATED, UPDATED} & {*report["totals"]["objects"], *report["totals"]["rows"]})
    run.save()
    write_report(run, report)
    print(short_text(report))
    print(f"Report: {run.path / SUMMARY_FILE}")
    return code or EXIT_OK


def _do_steps(work: Work, steps: Sequence[Step], *, whole: bool) -> None:
    """Each phase that is not done yet. A phase stays open where rows did not come to their end, or where only a part (not the
    `whole`) of the run's selection was asked for: the same command resumes it.
    """
    refuse_conflicts(work, [phase for name, phase in steps if name.startswith("migrate-") and not work.run.phase_done(name)])
    for number, (name, phase) in enumerate(steps, 1):
        if work.run.phase_done(name):
            log.info(
                "phase %d of %d: %s was done before", number, len(steps), name, extra={"event": "phase_skipped", "phase": name}
            )
            continue
        work.catalog.dest.check()
        log.info("phase %d of %d: %s", number, len(steps), name, extra={"event": "phase", "phase": name})
        phase(work)
        finish_waiting(work)
        if whole and not incomplete_streams(work.run):
            work.run.mark_phase_done(name)
    tell_waiting(work, final=len(steps) > 1)
    if len(steps) > 1 and all(work.run.phase_done(name) for name, _ in steps):
        work.run.data["finished"] = True
