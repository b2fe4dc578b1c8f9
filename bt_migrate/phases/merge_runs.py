"""Join the runs of a move in shards into one run, for verify, undo and later syncs.

Reads the run of the objects and the runs of all shards, and changes none of them. Sends no
requests. Afterwards run migrate-all with the same --state-dir: it continues the joined run with the
phases that come after the rows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from bt_migrate.cli.command import run_command
from bt_migrate.cli.log_lines import start_logging
from bt_migrate.cli.operate import shown_progress
from bt_migrate.cli.results import print_report
from bt_migrate.config.load import app_urls_of, state_dir_of
from bt_migrate.errors import EXIT_OK
from bt_migrate.report.build import build_report
from bt_migrate.report.screen import summary_record
from bt_migrate.report.write import write_report
from bt_migrate.shards.merge import join_runs, run_paths
from bt_migrate.state.live_counts import LiveCounts
from bt_migrate.state.run_directory import RunDirectory

NAME = "merge-runs"


def merge(flags: Dict[str, Any]) -> int:
    root = Path(flags["state_dir"] or state_dir_of(flags["env_file"]))
    start_logging("INFO", "json" if flags["json"] else "text", ())
    live = LiveCounts()
    live.phase = NAME
    with shown_progress(live):
        path = join_runs(run_paths(flags["runs"]), root, live, unfinished=flags["unfinished"])
    run = RunDirectory(path)
    report = build_report(run, "merged")
    write_report(run, report, app_urls_of(flags["env_file"]))
    if flags["json"]:
        print(json.dumps({**summary_record(report), "merged": run.record.merged}))
        return EXIT_OK
    print_report(report)
    return EXIT_OK


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(argv, NAME, __doc__ or "", merge)


if __name__ == "__main__":
    raise SystemExit(main())
