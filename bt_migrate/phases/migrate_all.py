"""Move a whole organization, in one run that can be stopped and resumed.

--demo needs no settings: it starts a local sandbox with an example organization, moves that and
compares both sides.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from typing import TYPE_CHECKING, Iterator, Optional, Sequence

from bt_migrate.cli.program import run_program
from bt_migrate.phases import ORDER

if TYPE_CHECKING:
    from bt_migrate.migration.phase_loop import Step

NAME = "migrate-all"


def steps() -> Iterator[Step]:
    """Yields (name, function) of every phase. This program does nothing else."""
    for name in ORDER:
        module = importlib.import_module(f"bt_migrate.phases.{name}")
        yield module.NAME, module.run


def demo(argv: Sequence[str]) -> int:
    """Move an example organization between two local ones, and compare every row.

    It runs the same code as a real move.
    """
    from bt_migrate.sandbox.example.fill import (
        DEST_USERS,
        SOURCE_USERS,
        fill_destination,
        fill_example,
    )
    from bt_migrate.sandbox.http.server import Sandbox

    with Sandbox() as sandbox:
        source = sandbox.add_org("example", api_key="sk-demo-source", users=SOURCE_USERS)
        dest = sandbox.add_org("new-home", api_key="sk-demo-destination", users=DEST_USERS)
        fill_example(source)
        fill_destination(dest)
        environ = {
            "BT_SOURCE_API_KEY": source.api_key,
            "BT_DEST_API_KEY": dest.api_key,
            "BT_SOURCE_URL": sandbox.url,
            "BT_DEST_URL": sandbox.url,
            "MIGRATION_STATE_DIR": tempfile.mkdtemp(prefix="bt_migrate_demo_"),
        }
        return run_program([*argv, "--full"], NAME, __doc__ or "", steps(), environ)


def main(argv: Optional[Sequence[str]] = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--demo" in arguments:
        return demo(arguments)
    return run_program(arguments, NAME, __doc__ or "", steps())


if __name__ == "__main__":
    raise SystemExit(main())
