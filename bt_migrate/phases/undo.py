"""Undo what a run wrote to the destination. Without --yes it only lists what would be done.

Deletes the objects that the run created, and the rows that it inserted into existing objects.
Restores the content of objects that it updated. Objects and rows that existed before the run with
the same content are not touched. Objects that changed since the run are kept, without --changed.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Optional, Sequence

from bt_migrate.cli.connect import connect_destination
from bt_migrate.cli.operate import Operator
from bt_migrate.cli.program import in_program
from bt_migrate.cli.signals import Ending
from bt_migrate.cli.streams import agrees
from bt_migrate.config.settings import Settings
from bt_migrate.errors import EXIT_INCOMPLETE, EXIT_OK, UsageError
from bt_migrate.migration.undo import undo
from bt_migrate.report.build import UNDONE, build_report
from bt_migrate.report.display import plural
from bt_migrate.report.write import write_report
from bt_migrate.state.run_directory import RunDirectory, run_paths_in
from bt_migrate.state.run_files import RUN_FILE

NAME = "undo"


def run(settings: Settings, ending: Ending) -> int:
    path = Path(settings.resume_run_dir)
    if not (path / RUN_FILE).is_file():
        newest = run_paths_in(path)[:1]
        hint = f"; it holds runs, the newest is {newest[0]}" if newest else ""
        raise UsageError(f"{path} is not a run directory (it has no {RUN_FILE}){hint}")
    dest = connect_destination(settings, ending.event)
    with RunDirectory(path) as directory:
        if directory.record.dry_run:
            raise UsageError(f"{path} is a dry run; it wrote nothing, so there is nothing to undo")
        directory.live.phase = NAME
        with Operator(directory, [dest], ending, NAME):
            undone = undo(dest, directory, settings)
        if undone.changes and not settings.yes and _agrees(settings, undone.rows_of_others):
            settings = replace(settings, yes=True, quiet=True)  # the list was shown
            with Operator(directory, [dest], ending, NAME):
                undone = undo(dest, directory, settings)
        if settings.yes:
            write_report(directory, build_report(directory, UNDONE), settings.app_urls)
    return EXIT_INCOMPLETE if settings.yes and undone.remaining else EXIT_OK


def _agrees(settings: Settings, foreign: int) -> bool:
    """Ask on a terminal whether to delete what was listed."""
    if settings.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    others = f", with {plural(foreign, 'row')} of others" if foreign else ""
    return agrees(f"Delete it now{others}?", sys.stdout)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return in_program(argv, NAME, __doc__ or "", run)


if __name__ == "__main__":
    raise SystemExit(main())
