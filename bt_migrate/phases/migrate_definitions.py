"""Move project tags, span iframes, MCP servers, agents, simulated users, functions, prompts,
environment variables (without values) and project scores.

Online scores react to data; migrate-settings moves them.
"""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.cli.program import run_program
from bt_migrate.migration.context import Migration
from bt_migrate.migration.steps import move_kinds

NAME = "migrate-definitions"


def run(migration: Migration) -> None:
    """Move functions before prompts. The second pass adds references that form a cycle."""
    move_kinds(migration, NAME)


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
