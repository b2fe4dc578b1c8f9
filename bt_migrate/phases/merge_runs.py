"""Join the runs of a move that was made in parts, on one machine or several, into one run: verify, undo and later syncs see one.

Takes the run of the objects and those of all shards, which are only read, and asks no server. migrate-all with the same --state-dir
then goes on with the run that was made: with what comes after rows.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import List, Optional, Sequence

from bt_migrate.errors import EXIT_OK, MigrationError, UsageError
from bt_migrate.merge_runs import merge_runs
from bt_migrate.options import flags_of, make_parser
from bt_migrate.report import SUMMARY_FILE, build_report, short_text, write_report
from bt_migrate.runs import RUN_FILE, RunDirectory, runs_in
from bt_migrate.settings import state_dir_of

NAME = "merge-runs"


def run_paths(names: Sequence[str]) -> List[Path]:
    """The run directories of these names, each a run or a folder that holds one. Raises UsageError."""
    paths = []
    for name in names:
        path = Path(name)
        found = [path] if (path / RUN_FILE).is_file() else [run.path for run in runs_in(path)]
        if len(found) != 1:
            raise UsageError(f"{path}: holds {len(found) or 'no'} runs; name the run that is to be joined")
        paths += found
    return paths


def main(argv: Optional[Sequence[str]] = None) -> int:
    flags = flags_of(make_parser(NAME, __doc__ or ""), argv)
    try:
        root = Path(flags["state_dir"] or state_dir_of(flags["env_file"]))
        run = RunDirectory(merge_runs(run_paths(flags["runs"]), root, unfinished=flags["unfinished"]))
        report = build_report(run, "merged")
        write_report(run, report)
        print(short_text(report))
        print(f"Report: {run.path / SUMMARY_FILE}")
    except MigrationError as error:
        print(f"bt_migrate: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
