"""What every entry point does around its phase: options, settings, logging, signals."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Callable,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
)

from bt_migrate.cli.after_start import after_start
from bt_migrate.cli.edge import Edge, run_guarded
from bt_migrate.cli.log_lines import start_logging
from bt_migrate.cli.signals import Ending, handle_signals
from bt_migrate.config.load import load_settings
from bt_migrate.config.options import flags_of, make_parser
from bt_migrate.config.settings import Settings
from bt_migrate.errors import UsageError
from bt_migrate.model.resources import resources_by_phase
from bt_migrate.shards.selected import selection_of_shard
from bt_migrate.shards.shard_file import refuse_other_organizations
from bt_migrate.state.find_run import VERIFY
from bt_migrate.state.open_files import raise_file_limit

if TYPE_CHECKING:
    from bt_migrate.migration.phase_loop import Step

log = logging.getLogger("bt_migrate")

# M_ARENA_MAX of glibc's malloc.h
M_ARENA_MAX = -8
RECURSION_LIMIT = 10_000
GC_THRESHOLDS = (100_000, 20, 100)


def run_program(
    argv: Optional[Sequence[str]],
    command: str,
    description: str,
    steps: Iterable[Step],
    environ: Optional[Mapping[str, str]] = None,
) -> int:
    """Run the phases `steps` as one program. Returns its exit code.

    The steps, and the modules of a run, are loaded once the options are known to be right.
    """

    def act(settings: Settings, ending: Ending) -> int:
        from bt_migrate.cli.connect import connected
        from bt_migrate.cli.work import Start, work
        from bt_migrate.migration.phase_loop import steps_of_part

        settings = replace(settings, verify=settings.verify or command == VERIFY)
        source, dest = connected(settings, ending.event, writes=command != VERIFY)
        if settings.shard:
            refuse_other_organizations(
                settings.shard, {"source": source.org_id, "dest": dest.org_id}
            )
        start = Start(command, source, dest, steps_of_part(settings, list(steps)), ending)
        return work(start, settings)

    return in_program(argv, command, description, act, environ)


def in_program(
    argv: Optional[Sequence[str]],
    command: str,
    description: str,
    act: Callable[[Settings, Ending], int],
    environ: Optional[Mapping[str, str]] = None,
) -> int:
    """Call `act` with settings, logging and signal handlers in place. Returns its exit code.

    Every error ends as one line on stderr. `environ` replaces the environment and `.env`.
    """

    began_s = time.time()
    loaded: List[Settings] = []
    folders: List[Path] = []

    def body(edge: Edge) -> int:
        flags = flags_of(make_parser(command, description), argv)
        edge.in_json = bool(flags.get("json"))
        settings = _settings_of(flags, sys.argv[1:] if argv is None else argv, environ)
        if flags.get("resources") or flags.get("exclude_resources"):
            _refuse_unmoved(settings, command)
        _log_as(settings, edge)
        folders.append(Path(settings.state_dir))
        edge.folders = folders
        ending = Ending()
        ending.crash_folders = folders
        loaded.append(settings)
        with handle_signals(ending, settings.max_duration, in_json=settings.json):
            return act(settings, ending)

    prepare_interpreter()
    with _few_collections(is_process=argv is None):
        code = run_guarded(body)
        for settings in loaded:
            after_start(settings, folders[-1], code, began_s)
        return code


@contextlib.contextmanager
def _few_collections(*, is_process: bool) -> Iterator[None]:
    """Keep modules, and at the end everything, out of garbage collections.

    Not if another program called this one: it goes on, and needs the memory.
    """
    if is_process:
        gc.freeze()
    try:
        yield
    finally:
        if is_process:
            gc.freeze()


def _log_as(settings: Settings, edge: Edge) -> None:
    edge.secrets += [settings.source_api_key, settings.dest_api_key]
    start_logging(settings.log_level, settings.log_format, edge.secrets)
    for warning in settings.warnings:
        log.warning("%s", warning, extra={"event": "setting"})


def _settings_of(
    flags: Mapping[str, object], arguments: Sequence[str], environ: Optional[Mapping[str, str]]
) -> Settings:
    settings = replace(load_settings(flags, environ), arguments=tuple(arguments))
    return replace(settings, **selection_of_shard(flags)) if flags.get("shard") else settings


def _refuse_unmoved(settings: Settings, command: str) -> None:
    """Raises UsageError if the program of one phase moves none of the selected resources."""
    phases = resources_by_phase()
    moved = phases.get(command)
    if moved is None or set(moved) & set(settings.resources):
        return
    named = [name for name in settings.named_resources if name in settings.resources]
    if not named:
        raise UsageError(
            f"--exclude-resources: nothing is left for {command}, which moves {', '.join(moved)}"
        )
    others = [phase for phase, resources in phases.items() if set(resources) & set(named)]
    raise UsageError(
        f"--resources {','.join(named)}: moved by {' and '.join(others)}, not by {command}"
    )


def prepare_interpreter() -> None:
    """Set up this process for large pages: numbers of any size, deep values, rare garbage
    collection.

    A program calls this once, at its start. It changes settings of the whole process.
    """
    raise_file_limit()
    # Since Python 3.11 the digits of an integer are limited; rows hold integers of any size.
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(0)
    # Rows may be nested as deep as the JSON reader accepts.
    sys.setrecursionlimit(max(sys.getrecursionlimit(), RECURSION_LIMIT))
    # A page holds hundreds of thousands of values and no cycles; with the default thresholds,
    # garbage collection takes a sixth of the CPU time.
    gc.set_threshold(*GC_THRESHOLDS)
    with contextlib.suppress(Exception):  # musl and macOS have no mallopt
        # One heap for all threads: each would keep the memory of its largest page, tens of MB.
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
