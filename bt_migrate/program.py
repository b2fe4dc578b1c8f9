"""What every entry point does around its phase: options, settings, connections, run directory, signals, report, exit code.

The one place where errors become a line and an exit code.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Tuple

from bt_migrate.api import Api
from bt_migrate.attachments import AttachmentCopier
from bt_migrate.catalog import Catalog, connect
from bt_migrate.errors import EXIT_INTERRUPTED, Interrupted, MigrationError, UsageError
from bt_migrate.options import flags_of, make_parser
from bt_migrate.progress import start_logging
from bt_migrate.report import SUMMARY_FILE, exit_code_of, status_of, summary_text, write_report
from bt_migrate.settings import Settings, load_settings
from bt_migrate.state import CopiedAttachments, RunDirectory, find_run, now
from bt_migrate.work import Work, finish_waiting, tell_waiting

log = logging.getLogger("bt_migrate")

Step = Tuple[str, Callable[[Work], None]]  # the phase's name and what it does


def run_program(argv: Optional[Sequence[str]], command: str, description: str, steps: Sequence[Step]) -> int:
    """Run the steps as one program; gives back its exit code. Every error ends as one line on stderr."""
    flags = flags_of(make_parser(command, description), argv)
    try:
        settings = load_settings(flags)
    except MigrationError as error:
        return _told(error)
    start_logging(settings.log_level, settings.log_format, (settings.source_api_key, settings.dest_api_key))
    stop = threading.Event()
    try:
        with _signals(stop):
            source, dest = connected(settings, stop)
            run, settings = find_run(settings, identity_of(settings, source, dest), command)
            with run:
                return _in_run(command, settings, source, dest, run, steps, stop)
    except MigrationError as error:
        return _told(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _told(error: MigrationError) -> int:
    print(f"bt_migrate: {error}", file=sys.stderr)
    return error.exit_code


def connected(settings: Settings, stop: threading.Event) -> Tuple[Api, Api]:
    """Both clients with their organizations known. Raises UsageError if they are the same one."""
    common: Dict[str, Any] = {
        "attempts": settings.retry_attempts, "delay_s": settings.retry_delay, "max_concurrent": settings.max_concurrent, "stop": stop,
    }  # fmt: skip
    source = Api("source", settings.source_url, settings.source_api_key, writable=False, **common)
    dest = Api("destination", settings.dest_url, settings.dest_api_key, writable=True, **common)
    connect(source, settings.source_org, "BT_SOURCE")
    connect(dest, settings.dest_org, "BT_DEST")
    if source.org_id == dest.org_id:
        raise UsageError(
            f"source and destination are the same organization, {source.display_name} ({source.org_id}); check the two keys"
        )
    return source, dest


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
    session: Dict[str, Any] = {"started": now(), "command": command}
    run.data["sessions"].append(session)
    run.save()
    resumed = "resuming" if len(run.data["sessions"]) > 1 else "starting"
    log.info(
        "%s run %s: %s -> %s",
        resumed,
        run.path,
        source.display_name,
        dest.display_name,
        extra={"event": "run", "run": str(run.path)},
    )
    code: Optional[int] = None
    try:
        copied = CopiedAttachments(run.path / "attachments.sqlite3")
        copier = AttachmentCopier(source, dest, copied, settings.attachment_max_bytes)
        work = Work(settings, Catalog(source, dest, run, settings), run, copier, stop)
        _do_steps(work, steps)
        whole = len(steps) > 1
        tell_waiting(work, final=whole)
        if whole:
            run.data["finished"] = True
        code = 0
    except Interrupted:
        code = EXIT_INTERRUPTED
        raise
    except MigrationError as error:
        session["error"] = str(error)
        code = error.exit_code
        raise
    finally:
        session.update(ended=now(), seconds=round(time.monotonic() - started, 3))
        run.save()
        report = write_report(run, status_of(code))
        if code == 0:
            code = exit_code_of(report)
            report = write_report(run, status_of(code))
        print(summary_text(report))
        print(f"Report: {run.path / SUMMARY_FILE}")
    return code


def _do_steps(work: Work, steps: Sequence[Step]) -> None:
    """Each phase that is not done yet.

    A phase whose rows did not all come to their end stays open: the same command resumes it.
    """
    for number, (name, phase) in enumerate(steps, 1):
        if work.run.phase_done(name):
            log.info(
                "phase %d of %d: %s was done before", number, len(steps), name, extra={"event": "phase_skipped", "phase": name}
            )
            continue
        if work.stop.is_set():
            raise Interrupted("interrupted between two phases")
        log.info("phase %d of %d: %s", number, len(steps), name, extra={"event": "phase", "phase": name})
        phase(work)
        finish_waiting(work)
        work.run.mark_phase_done(name)
