"""Every command-line option, once.

An option means the same in every phase. Keys come from the environment only: a flag shows in `ps`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence

from bt_migrate import __version__

DESCRIPTION_WIDTH = 100


@dataclass(frozen=True)
class Option:
    """One option: its flag ("" for what stands alone), the setting it wins over ("" for a switch of its own), and its help line."""

    flag: str
    field: str
    help: str
    metavar: str = ""
    switch: bool = False


ENV_FILE = Option("--env-file", "env_file", "read settings from this file (default: .env)", "PATH")
SELECTION = (
    Option("--resources", "resources", "move only these resources, comma-separated (default: all)", "NAMES"),
    Option(
        "--projects",
        "projects",
        'move only these projects, comma-separated, "one, with a comma" in quotes (default: all)',
        "NAMES",
    ),
    Option("--created-after", "created_after", "move only logs and experiments created at or after this date", "DATE"),
    Option("--created-before", "created_before", "move only logs and experiments created before this date", "DATE"),
)
CONFLICTS = (
    Option(
        "--on-conflict",
        "on_conflict",
        "keep, update or fail where an object exists with other content, also by resource: keep,prompts=update (default: keep)",
        "WORDS",
    ),
    Option(
        "--rename-projects",
        "rename_projects",
        'move projects into others of these names, "Old=New,..." ("\\=" for an equals sign in a name)',
        "NAMES",
    ),
)
RUN = (
    Option("--dry-run", "dry_run", "print what would be done and write nothing outside of the run directory", switch=True),
    Option("--new-run", "new_run", "start a new run even where an unfinished one could be resumed", switch=True),
    Option(
        "--state-dir",
        "state_dir",
        "keep runs in this folder, or work in this run, or this project of a run (default: ./checkpoints)",
        "PATH",
    ),
    ENV_FILE,
)
LOGGING = (
    Option("--log-level", "log_level", "print DEBUG, INFO, WARNING or ERROR lines (default: INFO)", "LEVEL"),
    Option("--log-format", "log_format", "print lines as text or json (default: text)", "FORMAT"),
)
TUNING = (
    Option("--batch-size", "batch_size", "ask for and create this many objects at a time (default: 100)", "N"),
    Option("--max-concurrent", "max_concurrent", "have at most this many requests in flight per organization (default: 10)", "N"),
)
ROWS = (
    Option("--fetch-limit", "fetch_limit", "read this many rows per page (default: 1000, the API's most)", "N"),
    Option("--insert-batch-size", "insert_batch_size", "insert at most this many rows per request (default: 1000)", "N"),
    Option("--use-seen-db", "use_seen_db", "remember each delivered row in SQLite (default: true)", "BOOL"),
    Option("--max-request-bytes", "max_request_bytes", "largest insert request that the server takes (default: 6291456)", "N"),
    Option("--headroom-ratio", "headroom_ratio", "use this part of it (default: 0.75)", "RATIO"),
    Option("--max-in-flight-bytes", "max_in_flight_bytes", "hold at most this many bytes of rows (default: 67108864)", "N"),
    Option(
        "--read-streams", "read_streams", "read one large stream with this many readers (default: 1, which keeps the order)", "N"
    ),
    Option("--btql-per-minute", "btql_per_minute", "send at most this many queries a minute (default: learnt from 429s)", "N"),
    Option("--preserve-order", "preserve_order", "give the destination's rows the order of the source's", switch=True),
    Option("--no-attachments", "no_attachments", "leave the bytes of attachments where they are, and count them", switch=True),
)
FULL = Option("--full", "full", "compare every row by content, not only the counts", switch=True)
OWN: Dict[str, Sequence[Option]] = {
    "verify": (FULL,),
    "migrate-all": (
        Option("--demo", "demo", "move an example organization between two local ones; needs no settings", switch=True),
        Option("--no-verify", "no_verify", "do not compare both organizations at the end", switch=True),
        FULL,
    ),
    "undo": (
        Option("", "resume_run_dir", "the run directory, such as checkpoints/20260113_212530", "RUN"),
        Option("--yes", "yes", "delete; without it the list is printed and nothing is done", switch=True),
        Option("--changed", "changed", "delete also what was changed since the run", switch=True),
    ),
}  # options that only one program has
GROUPS = (("selection", SELECTION), ("conflicts", CONFLICTS), ("run", RUN), ("logging", LOGGING), ("tuning", TUNING), ("rows", ROWS))
GROUPS_OF = {"undo": (("run", (ENV_FILE,)), ("logging", LOGGING), ("tuning", TUNING))}  # of a program that has not all of them


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help of one width, so that the README can hold it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=DESCRIPTION_WIDTH)


def make_parser(program: str, description: str) -> argparse.ArgumentParser:
    """The parser of a phase: all options, in groups. `description` is the phase's docstring."""
    parser = argparse.ArgumentParser(
        prog=program, description=description.strip(), formatter_class=_Formatter, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"bt_migrate {__version__}")
    for title, options in (("this program", OWN.get(program, ())), *GROUPS_OF.get(program, GROUPS)):
        if not options:
            continue
        group = parser.add_argument_group(title)
        for option in options:
            if option.switch:
                group.add_argument(option.flag, dest=option.field, action="store_true", help=option.help)
            elif not option.flag:
                group.add_argument(option.field, metavar=option.metavar, help=option.help)
            else:
                group.add_argument(option.flag, dest=option.field, metavar=option.metavar, help=option.help)
    return parser


def flags_of(parser: argparse.ArgumentParser, argv: Optional[Sequence[str]]) -> Dict[str, Any]:
    """field -> text, None for an option that was not given. A wrong option ends the program with exit 2, as argparse does."""
    return vars(parser.parse_args(argv))
