"""What the entry point of a program does that moves nothing: options and errors.

Imports nothing that a move needs, so that such a program starts quickly.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional, Sequence

from bt_migrate.cli.edge import Edge, run_guarded
from bt_migrate.cli.streams import print_message
from bt_migrate.config.load import unknown_variables
from bt_migrate.config.options import flags_of, make_parser


def run_command(
    argv: Optional[Sequence[str]],
    command: str,
    description: str,
    act: Callable[[Dict[str, Any]], int],
) -> int:
    """Call `act` with the options of a program that moves nothing. Returns its exit code."""

    def body(edge: Edge) -> int:
        flags = flags_of(make_parser(command, description), argv)
        edge.in_json = bool(flags.get("json"))
        if "env_file" in flags:
            for warning in unknown_variables(flags["env_file"]):
                print_message(warning)
        return act(flags)

    return run_guarded(body)
