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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from bt_migrate.api import Api
from bt_migrate.attachments import AttachmentCopier
from bt_migrate.catalog import Catalog, connect
from bt_migrate.endings import hand_over_plan, tell_comparison, tell_run
from bt_migrate.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    Interrupted,
    LockedError,
    MigrationError,
    StateError,
    UsageError,
)
from bt_migrate.findings import finding
from bt_migrate.history import missed, record_window, taken_twice
from bt_migrate.lag import lag_text, measure_lag
from bt_migrate.operating import Ending, Operator, asked_to_end
from bt_migrate.options import flags_of, make_parser
from bt_migrate.progress import start_logging
from bt_migrate.rounds import begin_round, end_round, mark_seconds
from bt_migrate.row_plan import estimate
from bt_migrate.runs import (
    RunDirectory,
    add_session,
    copy_to_plan,
    create_run,
    end_killed_session,
    find_run,
    left_behind,
    state_root,
    window_of,
)
from bt_migrate.seen import CopiedAttachments
from bt_migrate.settings import Settings, load_settings
from bt_migrate.shards import refuse_other_organizations
from bt_migrate.state import now
from bt_migrate.tail import wait_for
from bt_migrate.windows import iso
from bt_migrate.work import Work, finish_waiting, kinds_behind, refuse_conflicts, tell_waiting

log = logging.getLogger("bt_migrate")

VERIFY = "verify"  # the program that judges a run: it writes nothing but its own result, and can be run again and again

Step = Tuple[str, Callable[[Work], Any]]  # the phase's name and what it does; gives back what goes on beside the next ones, or None
Found = Tuple[RunDirectory, Settings, bool]  # a run to work in, with its own window, and whether another one follows

ROWS_OF_PHASE = {"migrate-datasets": "datasets", "migrate-experiments": "experiments", "migrate-logs": "logs"}
BESIDE_ROWS = ("migrate-definitions", "migrate-experiments")  # go on while rows are written: nothing that they make reacts to rows
AFTER_OBJECTS = "migrate-logs"  # the first phase that has nothing to do without rows, or has to wait for them
KINDS_WITH_WINDOW = ("experiments", "logs")
LOCK_POLL_S = 0.5
PHASES_END_S = 1.0  # between two looks at what waits and at all streams, which the end of a phase takes
LAG_AFTER_S = 60  # a round that took longer has something to tell


M_ARENA_MAX = -8  # of glibc's malloc.h


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
            refuse_other_organizations(settings.shard, {"source": source.org_id, "dest": dest.org_id})
        return _run_all(command, settings, source, dest, _steps_of_part(settings, steps), ending)

    return in_program(argv, command, description, act, environ)


def _steps_of_part(settings: Settings, steps: Sequence[Step]) -> Sequence[Step]:
    """Of a shard those that copy rows; of the objects alone those before the first that comes after rows."""
    names = [name for name, _ in steps]
    if settings.shard:
        return [step for step in steps if step[0] in ROWS_OF_PHASE]
    return steps[: names.index(AFTER_OBJECTS)] if settings.no_rows and AFTER_OBJECTS in names else steps


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
    _suit_to_rows()
    flags = flags_of(make_parser(command, description), argv)
    try:
        settings = replace(load_settings(flags, environ), arguments=tuple(sys.argv[1:] if argv is None else argv))
        if command == VERIFY and settings.dry_run:
            raise UsageError("--dry-run: verify writes nothing anyway; leave it out")
    except MigrationError as error:
        return _told(error, in_json=bool(flags.get("json")))
    start_logging(settings.log_level, settings.log_format, (settings.source_api_key, settings.dest_api_key))
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


def _suit_to_rows() -> None:
    """Settings of the interpreter and of the C library for a program that takes large pages apart in several threads."""
    gc.freeze()
    with contextlib.suppress(Exception):  # a library without it (musl, macOS) does without
        # One heap for all threads: each would keep what it freed of its largest page, tens of MB in all.
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def _told(error: MigrationError, *, in_json: bool) -> int:
    line = {"level": "error", "event": "ended", "message": str(error), "exit_code": error.exit_code}
    print(json.dumps(line) if in_json else f"bt_migrate: {error}", file=sys.stderr)
    return error.exit_code


def connected(settings: Settings, stop: threading.Event, *, writes: bool) -> Tuple[Api, Api]:
    """Both clients with their organizations known. Raises UsageError if they are the same one."""
    source = Api("source", settings.source_url, settings.source_api_key, writable=False, **_common(settings, stop))
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
    dest = Api("destination", settings.dest_url, settings.dest_api_key, writable=writes, **_common(settings, stop))
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
            **({"part": settings.part} if settings.part else {}),
        },
        **({"shard": settings.shard} if settings.shard else {}),
        "relative_window": settings.relative_window,
        "dry_run": settings.dry_run,
    }


def _run_all(command: str, settings: Settings, source: Api, dest: Api, steps: Sequence[Step], ending: Ending) -> int:
    """What an earlier start left of its window first, then what is asked for now. The worse exit code counts."""
    kinds = _windowed_kinds(settings, steps)
    codes: List[int] = []

    def left_or_new() -> Found:
        left = left_behind(settings, identity_of(settings, source, dest), command)
        if left is None:
            return new()
        its = replace(settings, **window_of(left))
        # the same night, begun earlier to fill a gap, is all that was asked for
        return left, its, its.created_before is None or its.created_before != settings.created_before

    def new() -> Found:
        if settings.since_last:
            run, its = find_run(settings, identity_of(settings, source, dest), command)
            return run, its, not codes and _is_left(run, its, steps)
        wanted = _without_gaps(settings, identity_of(settings, source, dest), kinds) if settings.fill_gaps else settings
        return (*find_run(wanted, identity_of(wanted, source, dest), command), False)

    find, follows = left_or_new, True
    while follows and not ending.event.is_set():
        with _held(find, settings.wait_lock, ending.event) as (run, its, follows):
            if its.created_after or its.created_before:
                _tell_window(run, its, identity_of(its, source, dest), kinds)
            if not its.dry_run and command != VERIFY and (its.plan_out or its.fail_on_loss):
                _plan_first(command, its, source, dest, run, steps, ending)
            codes.append(_in_run(command, its, source, dest, run, steps, ending))
        find = new
    if follows:
        log.info("%s: what was asked for has not begun; the same command goes on", ending.reason, extra={"event": "stopped"})
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


# -- windows


def _windowed_kinds(settings: Settings, steps: Sequence[Step]) -> List[str]:
    kinds = [ROWS_OF_PHASE[name] for name, _ in steps if name in ROWS_OF_PHASE]
    return [kind for kind in kinds if kind in KINDS_WITH_WINDOW and settings.selects(kind)]


def _without_gaps(settings: Settings, identity: Mapping[str, Any], kinds: Sequence[str]) -> Settings:
    """The window widened to where the first gap before it begins."""
    begins = [begin for gaps in missed(state_root(settings), identity, kinds).values() for begin, _ in gaps]
    if not begins:
        return settings
    log.info("the window begins at %s, to take what was missed", iso(min(begins)), extra={"event": "gap_filled"})
    return replace(settings, created_after=iso(min(begins)))


def _tell_window(run: RunDirectory, settings: Settings, identity: Mapping[str, Any], kinds: Sequence[str]) -> None:
    """The window; what no window took before it, as findings of the run; and at its first start what it takes again."""
    log.info(
        "window: %s to %s", settings.created_after or "the beginning", settings.created_before or "now", extra={"event": "window"}
    )
    root = run.path.parent
    run.data["window_gaps"] = []
    for kind, stretches in missed(root, identity, kinds).items():
        for begin, end in stretches:
            text = f"{iso(begin)} to {iso(end)}"
            log.error("gap: no window took %s created from %s; --fill-gaps takes them", kind, text, extra={"event": "gap"})
            facts = {"resource": kind, "name": "date window", "detail": text, "next": "run the same command with --fill-gaps"}
            run.data["window_gaps"].append(finding("window_gap", **facts))
    if not run.data["sessions"]:
        for kind, stretches in taken_twice(root, identity, kinds).items():
            for begin, end in stretches:
                log.info(
                    "overlap: %s created from %s to %s were taken before", kind, iso(begin), iso(end), extra={"event": "overlap"}
                )


# -- one run


def _in_run(
    command: str, settings: Settings, source: Api, dest: Api, run: RunDirectory, steps: Sequence[Step], ending: Ending
) -> int:
    """Do the steps that this run has not done; write the report whatever happens."""
    started = time.monotonic()
    end_killed_session(run, dest.server_seconds() - time.time())
    run.moves = command != VERIFY
    if settings.since_last:
        _begin_round(settings, source, run, steps)
    session: Dict[str, Any] = {"started": now(), "command": command, "arguments": list(settings.arguments)}
    add_session(run.data["sessions"], session)
    run.data.setdefault("source_time", settings.shard["mark"]["source"] if settings.shard else int(source.earliest_seconds()))
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
            work = Work(settings, Catalog(source, dest, run, settings), run, copier, ending.event, objects_only=settings.no_rows)
            with work.tail:
                _do_steps(work, steps, whole=run.data["selection"] == identity_of(settings, source, dest)["selection"])
            if settings.dry_run:
                run.data["estimate"] = estimate(work.catalog, run.data.get("row_plans", {}))
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
        session.update(ended=now(), wrote_until=dest.last_write_s, seconds=round(time.monotonic() - started, 3))
        run.data["reads_groups"] = [side.side for side in (source, dest) if side.reads_groups]
        try:
            tell = tell_comparison if command == VERIFY else tell_run
            code = tell(run, settings, code, status)
        except StateError:  # on a full disk nor the report can be written: what failed first is told
            if code == EXIT_OK:
                raise
    if settings.dry_run and not status:
        hand_over_plan(settings, run)
    return code


def _is_left(run: RunDirectory, settings: Settings, steps: Sequence[Step]) -> bool:
    """Whether an earlier start left a copy or a round unfinished: what was written since its mark needs a round of its own."""
    open_steps = [name for name, _ in steps if not run.phase_done(name)]
    return bool(run.data["sessions"] and open_steps and not settings.dry_run)


def _begin_round(settings: Settings, source: Api, run: RunDirectory, steps: Sequence[Step]) -> None:
    """A program that judges or only looks goes on in the run as it is."""
    names = [name for name, _ in steps]
    kinds = [kind for kind in (ROWS_OF_PHASE.get(name, "") for name in names) if kind and settings.selects(kind)]
    if any(name.startswith("migrate-") for name in names) and begin_round(run, names, kinds, source.earliest_seconds()):
        since = {kind: iso(datetime.fromtimestamp(mark_seconds(run.data, kind), timezone.utc)) for kind in kinds}
        words = ", ".join(f"{kind} since {text}" for kind, text in since.items()) or "objects only"
        log.info("round %d: %s", run.data["round"], words, extra={"event": "round", "since": since})


def _plan_first(
    command: str, settings: Settings, source: Api, dest: Api, run: RunDirectory, steps: Sequence[Step], ending: Ending
) -> None:
    """A dry run of its own beside the run, before its first write. Raises LossError where the plan forbids to go on."""
    dry = replace(settings, dry_run=True)
    identity = identity_of(dry, source, dest)
    goes_on = settings.since_last and run.data["sessions"]
    with copy_to_plan(run, identity, command) if goes_on else create_run(run.path.parent, identity, command) as planned:
        _in_run(command, dry, source, dest, planned, steps, ending)
    source.check()  # a plan that was stopped allows nothing


def _do_steps(work: Work, steps: Sequence[Step], *, whole: bool) -> None:
    """Each phase that is not done yet. A phase stays open where rows did not come to their end, or where only a part (not the
    `whole`) of the run's selection was asked for: the same command resumes it.
    """
    beside: Dict[str, Future[None]] = {}
    ending: List[str] = []  # phases that have done their part, but for rows that are on their way
    ended_s = time.monotonic()
    refuse_conflicts(work, [phase for name, phase in steps if name.startswith("migrate-") and not work.run.phase_done(name)])
    for number, (name, phase) in enumerate(steps, 1):
        judges = len(steps) == 1 and name == VERIFY
        if work.run.phase_done(name) and not judges:
            log.info(
                "phase %d of %d: %s was done before", number, len(steps), name, extra={"event": "phase_skipped", "phase": name}
            )
            continue
        work.catalog.dest.check()
        if name not in BESIDE_ROWS:
            work.tail.wait()
        if work.tail.rest is None and (name == VERIFY or time.monotonic() - ended_s > PHASES_END_S):
            _end_phases(work, ending, whole=whole)
            ended_s = time.monotonic()
        log.info("phase %d of %d: %s", number, len(steps), name, extra={"event": "phase", "phase": name})
        work.run.meter.phase, work.run.meter.phase_number = name, (number, len(steps))
        rest = phase(work)
        if rest is not None:
            beside[name] = rest
        elif not judges:
            ending.append(name)
        _end_beside(work, beside, whole=whole, waits=False)
    _end_phases(work, ending, whole=whole)
    _end_beside(work, beside, whole=whole, waits=True)
    if [name for name, _ in steps] != [VERIFY]:
        tell_waiting(work, final=len(steps) > 1 and not work.settings.part)
    if len(steps) > 1 and all(work.run.phase_done(name) for name, _ in steps):
        work.run.data["finished"] = True
    if (work.settings.relative_window or work.run.data.get("round")) and not work.settings.dry_run:
        _note_lag(work, [ROWS_OF_PHASE[name] for name, _ in steps if name in ROWS_OF_PHASE])


def _end_phases(work: Work, names: List[str], *, whole: bool) -> None:
    """Wait for the rows of these phases; then complete what waited for what they made, and write down that they are done. One with
    rows that failed stays open, so that the same command tries them again; the streams of a sync know themselves where they are
    behind.
    """
    work.tail.wait()
    if any(name != VERIFY for name in names):
        finish_waiting(work)
    done, behind = [], kinds_behind(work.run) if whole else set()
    for name in names if whole else ():
        kind = ROWS_OF_PHASE.get(name, "")
        first = kind not in behind and not work.run.data.get("round") and not work.settings.dry_run
        if first and kind in KINDS_WITH_WINDOW and work.settings.selects(kind) and not work.settings.part:
            record_window(work.run.path.parent, work.run.data, work.run.path.name, kind)
        if kind not in behind or work.settings.since_last:
            end_round(work.run.data, kind)
            done.append(name)
    work.run.mark_phases_done(done)
    names.clear()


def _note_lag(work: Work, kinds: Sequence[str]) -> None:
    """Of a sync; a copy of everything is verified. A round that met nothing new and took no time has told it already."""
    run, took_s = work.run, time.monotonic() - work.run.meter.began
    if run.data.get("round") and not run.meter.total and took_s < LAG_AFTER_S:
        return
    fresh = Catalog(work.catalog.source, work.catalog.dest, run, work.settings)
    lag = run.data["lag"] = measure_lag(fresh, run.data, kinds)
    log.info("lag: %s", lag_text(lag), extra={"event": "lag", **lag})


def _end_beside(work: Work, beside: Dict[str, Future[None]], *, whole: bool, waits: bool) -> None:
    """A phase is done when what it left to be done beside the next ones is. Raises what went wrong in it."""
    for name, rest in list(beside.items()):
        if waits:
            wait_for([rest])
        if rest.done():
            beside.pop(name).result()
            if whole:
                work.run.mark_phases_done([name])
