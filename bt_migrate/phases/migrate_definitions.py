"""Move project tags, span iframes, MCP servers, agents, functions, prompts and project scores.

Online scores react to data; migrate-settings moves them.
"""

from __future__ import annotations

from typing import Optional, Sequence

from bt_migrate.cli.program import run_program
from bt_migrate.migration.context import Migration
from bt_migrate.migration.steps import copy_project_kind, project_scopes
from bt_migrate.model.resources import (
    AGENTS,
    FUNCTIONS,
    MCP_SERVERS,
    PROJECT_SCORES,
    PROJECT_TAGS,
    PROMPTS,
    SPAN_IFRAMES,
    reacts_to_data,
)

NAME = "migrate-definitions"


def run(migration: Migration) -> None:
    """Functions before prompts. The second pass adds references between them that form a circle."""
    scopes = project_scopes(migration)
    for resource in (PROJECT_TAGS, SPAN_IFRAMES, MCP_SERVERS, AGENTS, FUNCTIONS, PROMPTS):
        copy_project_kind(migration, resource, scopes)
    copy_project_kind(
        migration,
        PROJECT_SCORES,
        scopes,
        later=lambda score: reacts_to_data(PROJECT_SCORES.name, score),
    )


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_program(argv, NAME, __doc__ or "", [(NAME, run)])


if __name__ == "__main__":
    raise SystemExit(main())
