"""Every command-line option, once.

An option means the same in every phase. Keys come from the environment only: a flag shows in `ps`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from bt_migrate import __version__

DESCRIPTION_WIDTH = 100
DASHED = ("--created-after", "--created-before", "--tz")  # their values may begin with a dash


@dataclass(frozen=True)
class Option:
    """One option: its flag ("" for what stands alone), the setting it wins over ("" for a switch of its own), and its help line."""

    flag: str
    field: str
    help: str
    metavar: str = ""
    switch: bool = False
    nargs: str = ""  # of an argument that has no flag: "?" or "+"


ENV_FILE = Option("--env-file", "env_file", "read settings from this file (default: .env)", "PATH")
SELECTION = (
    Option(
        "--resources",
        "resources",
        "move only these resources, comma-separated (default: all)",
        "NAMES",
    ),
    Option(
        "--projects",
        "projects",
        'move only these projects, comma-separated, "one, with a comma" in quotes (default: all)',
        "NAMES",
    ),
    Option(
        "--created-after",
        "created_after",
        "move only logs and experiments created at or after this date",
        "DATE",
    ),
    Option(
        "--created-before",
        "created_before",
        "move only logs and experiments created before this date",
        "DATE",
    ),
    Option(
        "--window",
        "window",
        "move only logs and experiments of the last full day or hour: daily or hourly",
        "UNIT",
    ),
    Option("--tz", "tz", "time zone of days, hours and dates without one (default: UTC)", "ZONE"),
    Option(
        "--fill-gaps",
        "fill_gaps",
        "begin the window where the ones before it ended, or left a gap",
        switch=True,
    ),
    Option(
        "--keep-public",
        "keep_public",
        "leave public experiments public (default: they are moved as private)",
        switch=True,
    ),
)
SYNC = (
    Option(
        "--since-last",
        "since_last",
        "go on in the last run: move what was written to the source since then",
        switch=True,
    ),
    Option(
        "--lookback",
        "lookback",
        "read this much before the last mark once more: rows that were not shown yet (default: 10m)",
        "TIME",
    ),
    Option(
        "--propagate-deletes",
        "propagate_deletes",
        "delete rows that this tool brought and that are gone from the source",
        switch=True,
    ),
    Option(
        "--max-deletes",
        "max_deletes",
        "delete no row where more than this would go, a share or a number (default: 1%%)",
        "N",
    ),
    Option("--yes", "yes", "delete more than --max-deletes allows", switch=True),
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
    Option(
        "--dry-run",
        "dry_run",
        "print what would be done and write nothing outside of the run directory",
        switch=True,
    ),
    Option(
        "--plan-out",
        "plan_out",
        "write the plan to this file as JSON; a real run makes its plan first",
        "PATH",
    ),
    Option(
        "--fail-on-loss",
        "fail_on_loss",
        "stop before the first write where something cannot be carried: plan first, exit 1",
        switch=True,
    ),
    Option(
        "--new-run",
        "new_run",
        "start a new run even where an unfinished one could be resumed",
        switch=True,
    ),
    Option(
        "--state-dir",
        "state_dir",
        "keep runs in this folder, or work in this run, or this project of a run (default: ./checkpoints)",
        "PATH",
    ),
    Option(
        "--max-duration",
        "max_duration",
        "stop cleanly after this time, such as 90, 30m or 2h (default: none)",
        "TIME",
    ),
    Option(
        "--wait-lock",
        "wait_lock",
        "wait this long for a run that another process holds (default: 0)",
        "SECONDS",
    ),
    ENV_FILE,
)
LOGGING = (
    Option(
        "--log-level",
        "log_level",
        "print DEBUG, INFO, WARNING or ERROR lines (default: INFO)",
        "LEVEL",
    ),
    Option("--log-format", "log_format", "print lines as text or json (default: text)", "FORMAT"),
    Option(
        "--quiet",
        "quiet",
        "print nothing but errors, and one line where not everything arrived",
        switch=True,
    ),
    Option("--json", "json", "print every line as one JSON object, the summary too", switch=True),
)
TUNING = (
    Option(
        "--batch-size",
        "batch_size",
        "ask for and create this many objects at a time (default: 100)",
        "N",
    ),
    Option(
        "--max-concurrent",
        "max_concurrent",
        "have at most this many requests in flight per organization (default: 10)",
        "N",
    ),
)
ROWS = (
    Option(
        "--fetch-limit",
        "fetch_limit",
        "read this many rows per page (default: 1000, the API's most)",
        "N",
    ),
    Option(
        "--insert-batch-size",
        "insert_batch_size",
        "insert at most this many rows per request (default: 1000)",
        "N",
    ),
    Option(
        "--use-seen-db",
        "use_seen_db",
        "remember each delivered row in SQLite (default: true)",
        "BOOL",
    ),
    Option(
        "--max-request-bytes",
        "max_request_bytes",
        "largest insert request that the server takes (default: 6291456)",
        "N",
    ),
    Option("--headroom-ratio", "headroom_ratio", "use this part of it (default: 0.75)", "RATIO"),
    Option(
        "--max-in-flight-bytes",
        "max_in_flight_bytes",
        "hold at most this many bytes of rows (default: 67108864)",
        "N",
    ),
    Option(
        "--read-streams",
        "read_streams",
        "read one large stream with this many readers (default: 1, which keeps the order)",
        "N",
    ),
    Option(
        "--btql-per-minute",
        "btql_per_minute",
        "send at most this many queries a minute (default: learnt from 429s)",
        "N",
    ),
    Option(
        "--preserve-order",
        "preserve_order",
        "give the destination's rows the order of the source's",
        switch=True,
    ),
    Option(
        "--no-attachments",
        "no_attachments",
        "leave the bytes of attachments where they are, and count them",
        switch=True,
    ),
)
DEPTH = (
    Option("--counts", "counts", "compare rows by number only", switch=True),
    Option(
        "--sample",
        "verify_sample",
        "compare this many rows of each stream by content beside the counts (default: 100)",
        "N",
    ),
    Option("--full", "full", "compare every row by content", switch=True),
)
SHARD = Option(
    "--shard",
    "shard",
    "move only the rows of this line of what bin/plan-shards wrote, 0 being the first",
    "FILE:N",
)
NO_ROWS = Option(
    "--no-rows",
    "no_rows",
    "move objects without their rows, and nothing that comes after rows",
    switch=True,
)
OWN: Dict[str, Sequence[Option]] = {
    "verify": DEPTH,
    "migrate-datasets": (NO_ROWS, SHARD),
    "migrate-experiments": (NO_ROWS, SHARD),
    "migrate-logs": (SHARD,),
    "plan-shards": (Option("--shards", "shards", "share the rows out among this many", "N"),),
    "migrate-all": (
        Option(
            "--demo",
            "demo",
            "move an example organization between two local ones; needs no settings",
            switch=True,
        ),
        Option(
            "--no-verify", "no_verify", "do not compare both organizations at the end", switch=True
        ),
        NO_ROWS,
        SHARD,
        *DEPTH,
    ),
    "undo": (
        Option(
            "",
            "resume_run_dir",
            "the run directory, such as checkpoints/20260113_212530",
            "RUN",
            nargs="1",
        ),
        Option(
            "--yes",
            "yes",
            "delete; without it the list is printed and nothing is done",
            switch=True,
        ),
        Option("--changed", "changed", "delete also what was changed since the run", switch=True),
    ),
}  # options that only one program has
FETCH_LIMIT, BTQL_PER_MINUTE = (
    next(one for one in ROWS if one.field == name) for name in ("fetch_limit", "btql_per_minute")
)
STATE_DIR = next(one for one in RUN if one.field == "state_dir")
GROUPS_OF: Dict[str, Sequence[Tuple[str, Sequence[Option]]]] = {
    "undo": (("run", (ENV_FILE,)), ("logging", LOGGING), ("tuning", TUNING)),
    "plan-shards": (
        ("selection", [one for one in SELECTION if one.field not in ("fill_gaps", "keep_public")]),
        ("conflicts", [one for one in CONFLICTS if one.field == "rename_projects"]),
        ("run", (STATE_DIR, ENV_FILE)),
        ("logging", LOGGING),
        ("tuning", TUNING),
        ("rows", (FETCH_LIMIT, BTQL_PER_MINUTE)),
    ),
}  # of a program that has not all of them
OPERATING: Dict[str, Sequence[Option]] = {
    "status": (
        Option(
            "",
            "run",
            "run directory, or folder of runs: its newest (default: ./checkpoints)",
            "RUN",
            nargs="?",
        ),
        Option(
            "--watch", "watch", "show it again every second until the process ends", switch=True
        ),
        Option("--json", "json", "print one JSON object", switch=True),
        Option(
            "--lag",
            "lag",
            "ask the source how many rows were written since the run took its mark",
            switch=True,
        ),
        ENV_FILE,
    ),
    "control": (
        Option("", "run", "run directory, or folder of runs: its newest", "RUN", nargs="1"),
        Option(
            "",
            "words",
            "pause, resume, stop, or: set requests-per-second=5 max-concurrent=3 (off lifts it)",
            "WORD",
            nargs="+",
        ),
    ),
    "merge-runs": (
        Option("", "runs", "run directories, or folders of one run each", "RUN", nargs="+"),
        Option(
            "--unfinished",
            "unfinished",
            "join also runs that are not finished, and shards of which some are missing",
            switch=True,
        ),
        STATE_DIR,
        ENV_FILE,
    ),
}  # programs beside the phases: these options and no others
GROUPS = (
    ("selection", SELECTION), ("sync", SYNC), ("conflicts", CONFLICTS), ("run", RUN), ("logging", LOGGING), ("tuning", TUNING),
    ("rows", ROWS),
)  # fmt: skip


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help of one width, so that the README can hold it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=DESCRIPTION_WIDTH)


def make_parser(program: str, description: str) -> argparse.ArgumentParser:
    """The parser of a phase: all options, in groups; of a program beside them: its own. `description` is the docstring."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=description.strip(),
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bt_migrate {__version__}")
    own, shared = (
        OPERATING.get(program, OWN.get(program, ())),
        GROUPS_OF.get(program, () if program in OPERATING else GROUPS),
    )
    for title, options in (("this program", own), *shared):
        group = parser.add_argument_group(title) if options else parser
        for option in options:
            if option.nargs:
                nargs = None if option.nargs == "1" else option.nargs
                group.add_argument(
                    option.field, metavar=option.metavar, nargs=nargs, help=option.help
                )
            elif option.switch:
                group.add_argument(
                    option.flag, dest=option.field, action="store_true", help=option.help
                )
            else:
                group.add_argument(
                    option.flag, dest=option.field, metavar=option.metavar, help=option.help
                )
    return parser


def flags_of(parser: argparse.ArgumentParser, argv: Optional[Sequence[str]]) -> Dict[str, Any]:
    """field -> text, None for an option that was not given. A wrong option ends the program with exit 2, as argparse does."""
    return vars(parser.parse_args(_joined(sys.argv[1:] if argv is None else argv)))


def _joined(argv: Sequence[str]) -> List[str]:
    """`--created-after -2d` and `--tz -05:00` as one word: argparse takes a word that begins with a dash for an option."""
    words: List[str] = []
    for word in argv:
        if words and words[-1] in DASHED and word[:1] == "-" and word[1:2].isdigit():
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words
