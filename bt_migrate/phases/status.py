"""Show the progress of a run: phase, rows, rate, requests, last error, lag.

Can be used at any time, from a second shell. Changes nothing. For a folder of runs, shows the
newest run on which a process works. For a folder with the folders of all shards, shows their sum.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from bt_migrate.cli.command import run_command
from bt_migrate.cli.many_runs import (
    all_runs,
    all_runs_lines,
    parts_below,
    summed,
    summed_lines,
)
from bt_migrate.cli.pinned import ERASE_BELOW, ERASE_LINE, terminal_size
from bt_migrate.cli.process_status import BEAT_S
from bt_migrate.cli.run_status import AT_WORK, newest_run, run_status
from bt_migrate.cli.status_text import broken_lines, status_lines
from bt_migrate.cli.streams import is_open, raw_stream
from bt_migrate.config.load import state_dir_of
from bt_migrate.errors import EXIT_OK, UsageError
from bt_migrate.report.display import COLUMNS, shown

NAME = "status"
TO_TOP = "\033[H"


class Shown(NamedTuple):
    """What is shown: as JSON, as lines of a window, and whether a process is at work."""

    record: Any
    lines: List[str]
    at_work: bool


def _status(path: Path, flags: Dict[str, Any], window: Optional[os.terminal_size]) -> Shown:
    height = window.lines - 1 if window else None
    now = datetime.now(timezone.utc)
    if flags["all"]:
        runs = all_runs(path, now)
        return Shown(runs, all_runs_lines(runs), False)
    parts = parts_below(path, now)
    if parts:
        together = summed(path, parts, now)
        return Shown(together, summed_lines(together, height), together["at_work"])
    run = newest_run(path, now)
    status = run_status(run, now)
    if flags["lag"]:
        from bt_migrate.cli.lag_now import lag_now  # the only part that needs a client

        status["lag"] = lag_now(run, flags["env_file"])
    columns = window.columns - 1 if window else COLUMNS
    # A narrow window breaks lines instead of cutting names to nothing.
    lines = status_lines(status, now, height, columns)
    if window:
        lines = broken_lines(lines, columns)[:height]
    return Shown(status, lines, status["state"] in AT_WORK)


def _show(path: Path, flags: Dict[str, Any]) -> bool:
    """Print the status once. Returns whether a process works on the run."""
    on_terminal = sys.stdout.isatty()
    size = terminal_size(raw_stream(sys.stdout))
    status = _status(path, flags, size if on_terminal else None)
    if flags["json"]:
        print(json.dumps(status.record))
    elif on_terminal:
        # In a full line, erasing its rest would erase its last character.
        lines = [shown(line, size.columns - 1) for line in status.lines]
        _print_lines(lines, again=flags["watch"])
    else:
        print("\n".join(status.lines))
    sys.stdout.flush()
    return status.at_work


def _print_lines(lines: Sequence[str], *, again: bool) -> None:
    """With --watch, over what is there: clearing the screen first would flicker."""
    raw = raw_stream(sys.stdout)
    is_able = again and os.environ.get("TERM", "dumb") != "dumb"
    if not is_able:
        print("\n".join(lines))
        return
    raw.write(TO_TOP)
    for line in lines:
        print(line, end="")
        raw.write(f"{ERASE_LINE}\n")
    raw.write(ERASE_BELOW)


def show(flags: Dict[str, Any]) -> int:
    path = Path(flags["run"] or state_dir_of(flags["env_file"]))
    if flags["all"] and (flags["watch"] or flags["lag"]):
        raise UsageError("--all lists the runs once: leave out --watch and --lag")
    try:
        while _show(path, flags) and flags["watch"] and is_open(sys.stdout):
            time.sleep(BEAT_S)
    except KeyboardInterrupt:  # ends --watch
        print(file=sys.stderr)
    return EXIT_OK


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(argv, NAME, __doc__ or "", show)


if __name__ == "__main__":
    raise SystemExit(main())
