"""Divide the rows of a move among several processes, on one machine or several.

Prints one JSON line for each shard; all shards have about the same number of rows. Counts rows in
source and destination, and writes nothing. First move the objects with migrate-all --no-rows, and
pass its --state-dir here: objects that it created and that have no rows are known to be empty. Then
pass each shard with --shard to a program that moves rows.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Optional, Sequence

from bt_migrate.cli.connect import connected, identity_of
from bt_migrate.cli.operate import Operator
from bt_migrate.cli.program import in_program
from bt_migrate.cli.signals import Ending
from bt_migrate.config.settings import Settings
from bt_migrate.errors import EXIT_OK, UsageError
from bt_migrate.objects.catalog import open_catalog
from bt_migrate.report.display import plural
from bt_migrate.shards.plan import shards_of
from bt_migrate.shards.shard_file import shard_line
from bt_migrate.state.find_run import create_run

NAME = "plan-shards"
log = logging.getLogger("bt_migrate.shards")


def plan(settings: Settings, ending: Ending) -> int:
    if not settings.shards:
        raise UsageError("--shards is missing: give the number of shards, for example --shards 8")
    source, dest = connected(settings, ending.event, writes=False)
    identity = identity_of(settings, source, dest)
    with tempfile.TemporaryDirectory(prefix="bt_migrate_") as folder:
        run = create_run(Path(folder), identity, NAME)
        run.live.phase = NAME
        with Operator(run, [source, dest], ending, NAME):
            catalog = open_catalog(source, dest, run, settings)
            shards = shards_of(catalog, identity, settings.shards)
    for shard in shards:
        print(shard_line(shard))
        log.info(
            "shard %d: %s in %s",
            shard.number,
            plural(shard.rows, "row"),
            plural(len(shard.units), "object"),
        )
    return EXIT_OK


def main(argv: Optional[Sequence[str]] = None) -> int:
    return in_program(argv, NAME, __doc__ or "", plan)


if __name__ == "__main__":
    raise SystemExit(main())
