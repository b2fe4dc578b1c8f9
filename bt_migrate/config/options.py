"""The command line of each program: its options and its parser.

Options for settings are declared with the setting, in `settings`. An option means the same in every
program, and only programs in which it has an effect accept it. Keys are read from the environment
only, because options are visible in `ps`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import textwrap
from dataclasses import dataclass
from functools import partial
from typing import Any, Dict, List, NoReturn, Optional, Sequence, Tuple

from bt_migrate import __version__
from bt_migrate.config.brief_help import BriefHelp, BriefOption, brief_text
from bt_migrate.config.declare import Setting
from bt_migrate.config.settings import ALL_SETTINGS, RUN, SECTIONS, SELECTION
from bt_migrate.model.activation import ACTIVATION_WORDS
from bt_migrate.model.resources import SELECTABLE
from bt_migrate.model.selection import did_you_mean

# Options whose values may begin with a dash.
DASHED = ("--created-after", "--created-before", "--tz")
EXIT_CODES = (
    "exit codes: 0 done, 1 something did not arrive (see the report), 2 usage or settings,"
    " 3 stopped (safe to run again), 4 run is locked, 70 internal error, 130 interrupted"
)
BRIEF_EXIT_CODES = (
    "exit codes: 0 done, 1 not all arrived, 2 usage, 3 stopped (run again), 4 locked,"
    " 70 internal error, 130 interrupted"
)
HELP_COLUMN = 30


# Environment variable that argcomplete sets when a shell asks for completions.
COMPLETING = "_ARGCOMPLETE"
# Option -> words that a shell completes. For other options it completes names of files.
COMPLETIONS: Dict[str, Sequence[str]] = {
    "resources": ("all", *SELECTABLE),
    "exclude_resources": SELECTABLE,
    "on_conflict": ("keep", "follow", "update", "fail"),
    "activate": ("all", *ACTIVATION_WORDS),
    "window": ("daily", "hourly"),
    "log_level": ("DEBUG", "INFO", "WARNING", "ERROR"),
    "log_format": ("text", "json"),
    "words": ("pause", "resume", "stop", "set", "requests-per-second=", "max-concurrent="),
}
SHORT_FLAGS = {"--verbose": "-v"}
# Values of these options are separated by commas.
LISTS = ("NAMES", "KINDS", "WORDS")

# A program with more options shows only these in --help. --help-all shows all options in full.
ONE_SCREEN = 12
COMMON = frozenset(
    "--state-dir --dry-run --plan-out --plan --resources --projects --created-after --shards"
    " --activate --since-last --on-conflict --full --quiet --verbose --json".split()
)


@dataclass(frozen=True)
class Option:
    """One option, or a positional argument (without a flag)."""

    dest: str
    section: str
    flag: str
    metavar: str  # "" for a switch
    help: str
    nargs: str = ""  # of a positional argument: "1", "?" or "+"
    kept: bool = False  # see Setting


def option_of(setting: Setting) -> Option:
    words = f"do not {setting.about}" if setting.inverted else setting.about
    if setting.metavar and setting.default:
        words += f" (default: {setting.default})"
    names = (setting.dest, setting.section, setting.flag, setting.metavar)
    return Option(*names, words, kept=setting.kept)


SETTING_OPTIONS: Dict[str, Option] = {
    setting.field: option_of(setting) for setting in ALL_SETTINGS if setting.flag
}
USER_MAP = SETTING_OPTIONS["user_map"]
ENV_FILE = Option(
    "env_file", RUN, "--env-file", "PATH", "read settings from this file (default: .env)", kept=True
)
SHARD = Option(
    "shard", SELECTION, "--shard", "FILE:N",
    "move only the rows of line N (from 0) of a file that bin/plan-shards wrote",
)  # fmt: skip
DEMO = Option(
    "demo", RUN, "--demo", "",
    "move an example organization between two local ones; needs no settings",
)  # fmt: skip
UNDO_YES = Option("yes", RUN, "--yes", "", "do not ask before it is undone")
UNDO_RUN = Option(
    "resume_run_dir", RUN, "", "RUN", "run directory, such as checkpoints/20260113_212530", "1"
)
STATUS_RUN = Option(
    "run",
    RUN,
    "",
    "RUN",
    "run directory, or folder of runs: its newest, an active one first (default: ./checkpoints)",
    "?",
)
ACCEPT_RUN = Option("run", RUN, "", "RUN", "run directory, or folder of runs: its newest", "1")
CONTROL_RUN = Option(
    "run", RUN, "", "RUN", "run directory, or folder of runs: its newest active one", "1"
)
CONTROL_ARGUMENT = Option(
    "words", RUN, "", "WORD",
    "pause, resume, stop or set requests-per-second=5 max-concurrent=3 (off lifts a limit)", "+",
)  # fmt: skip
STATUS_WATCH = Option(
    "watch", RUN, "--watch", "", "show it again every second until the process ends"
)
STATUS_ALL = Option(
    "all", RUN, "--all", "", "list the runs of the folder: command, result, rows, when"
)
STATUS_JSON = Option("json", RUN, "--json", "", "print one JSON object")
STATUS_LAG = Option(
    "lag", RUN, "--lag", "", "count the rows that were written since the run's mark"
)
MERGE_RUNS = Option("runs", RUN, "", "RUN", "run directories, or folders of one run each", "+")
MERGE_UNFINISHED = Option(
    "unfinished", RUN, "--unfinished", "",
    "join unfinished runs too, also if shards are missing",
)  # fmt: skip

ACCEPT_ONLY = Option(
    "only", RUN, "--only", "NAMES",
    "these kinds, names or ids, comma-separated; * and ? are wildcards",
)  # fmt: skip
ACCEPT_ALL = Option("all", RUN, "--all", "", "everything that differs")
ACCEPT_LIST = Option("list", RUN, "--list", "", "list what is accepted, by whom and when")
ACCEPT_REMOVE = Option(
    "remove", RUN, "--remove", "", "no longer accept: report these as differences again"
)
ACCEPT_YES = Option("yes", RUN, "--yes", "", "do not ask")

PROBE_SOURCE = Option(
    "source", RUN, "--source", "", "use the key of the source, instead of the destination's"
)
PROBE_READ_ONLY = Option(
    "read_only", RUN, "--read-only", "", "create nothing; try what reading alone shows"
)
PROBE_YES = Option("yes", RUN, "--yes", "", "do not ask before creating the scratch project")
PROBE_JSON = Option(
    "json", RUN, "--json", "", "print a record without secrets or names, for a bug report"
)
OPENAPI_FILE = Option("file", RUN, "", "FILE", "OpenAPI document, as JSON", "1")


# -- which program has which options


def _options(fields: str) -> Tuple[Option, ...]:
    return tuple(SETTING_OPTIONS[field] for field in fields.split())


_SELECT = _options(
    "resources exclude_resources projects exclude_projects created_after created_before window tz"
    " rename_projects"
)
_HISTORY = _options("history")
_CONNECT = (*_options("batch_size max_concurrent btql_per_minute"), ENV_FILE)
_OUTPUT = _options("log_level log_format verbose quiet json")
_WORK = (
    *_CONNECT,
    *_OUTPUT,
    *_options("state_dir new_run max_duration wait_lock on_end metrics_file"),
)
_MOVE = (
    *_SELECT,
    *_HISTORY,
    *_WORK,
    *_options(
        "since_last on_conflict dry_run plan_out plan fail_on_loss user_map invite_users"
        " send_invites yes"
    ),
)
_MOVE_ROWS = (
    *_MOVE,
    *_options(
        "lookback propagate_deletes max_deletes fetch_limit insert_batch_size use_seen_db"
        " max_request_bytes headroom_ratio max_in_flight_bytes read_streams preserve_order"
        " attachments"
    ),
    SHARD,
)
_VERSIONS = _options("dataset_versions")
_DEPTH = _options("counts verify_sample full")

PROGRAMS: Dict[str, Sequence[Option]] = {
    "migrate-all": (
        DEMO, *_MOVE_ROWS, *_VERSIONS, *_DEPTH,
        *_options("no_rows fill_gaps keep_public activate bundles verify"),
    ),
    "validate": (
        *_SELECT, *_HISTORY, *_WORK, *_VERSIONS, USER_MAP,
        *_options("dry_run plan_out fail_on_loss fetch_limit read_streams bundles"),
    ),
    "migrate-organization": _MOVE,
    "migrate-datasets": (*_MOVE_ROWS, *_VERSIONS, *_options("no_rows")),
    "migrate-definitions": (*_MOVE, *_options("bundles")),
    "migrate-experiments": (*_MOVE_ROWS, *_VERSIONS, *_options("no_rows fill_gaps keep_public")),
    "migrate-logs": (*_MOVE_ROWS, *_VERSIONS, *_options("fill_gaps")),
    "migrate-views": _MOVE,
    "migrate-settings": (*_MOVE, *_options("activate")),
    "migrate-acls": _MOVE,
    "verify": (
        *_SELECT, *_HISTORY, *_WORK, *_DEPTH, USER_MAP,
        *_options("keep_public fetch_limit attachments"),
    ),
    "undo": (UNDO_RUN, UNDO_YES, *_options("changed"), *_CONNECT, *_OUTPUT),
    "status": (STATUS_RUN, STATUS_WATCH, STATUS_ALL, STATUS_JSON, STATUS_LAG, ENV_FILE),
    "report": (STATUS_RUN, STATUS_JSON, ENV_FILE),
    "control": (CONTROL_RUN, CONTROL_ARGUMENT, STATUS_JSON),
    "accept": (
        ACCEPT_RUN, ACCEPT_ONLY, ACCEPT_ALL, ACCEPT_LIST, ACCEPT_REMOVE, ACCEPT_YES, STATUS_JSON,
    ),
    "probe": (PROBE_SOURCE, PROBE_READ_ONLY, PROBE_YES, PROBE_JSON, ENV_FILE),
    "check-openapi": (OPENAPI_FILE, STATUS_JSON),
    "plan-shards": (*_options("shards state_dir fetch_limit"), *_SELECT, *_CONNECT, *_OUTPUT),
    "merge-runs": (MERGE_RUNS, MERGE_UNFINISHED, STATUS_JSON, *_options("state_dir"), ENV_FILE),
}  # fmt: skip

EXAMPLES: Dict[str, Sequence[str]] = {
    "migrate-all": ("--dry-run --plan-out plan.json", "--plan plan.json", "--since-last --quiet"),
    "validate": ("", "--projects 'Support,Sales'"),
    "migrate-organization": ("", "--dry-run"),
    "migrate-datasets": ("", "--projects Support --no-rows"),
    "migrate-definitions": ("", "--on-conflict prompts=update"),
    "migrate-experiments": ("", "--created-after 2026-01-01"),
    "migrate-logs": ("", "--created-after -30d --preserve-order"),
    "migrate-views": ("", "--dry-run"),
    "migrate-settings": ("", "--activate slack,webhook"),
    "migrate-acls": ("", "--dry-run"),
    "verify": ("--counts", "--full --state-dir checkpoints/20260113_212530"),
    "undo": ("checkpoints/20260113_212530", "checkpoints/20260113_212530 --yes"),
    "status": ("--watch", "checkpoints --all"),
    "report": ("", "checkpoints/20260113_212530"),
    "probe": ("", "--read-only --source", "--yes --json > probe.json"),
    "check-openapi": ("openapi.json", "openapi.json --json > differences.json"),
    "accept": ("checkpoints", "checkpoints --only 'prompts,Support *'"),
    "control": ("checkpoints pause", "checkpoints set requests-per-second=5"),
    "plan-shards": ("--shards 4 > shards.jsonl", "--shards 8 --projects Support > shards.jsonl"),
    "merge-runs": ("runs/objects runs/shard-0 runs/shard-1", "runs/* --unfinished"),
}


# -- parsers


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        hint = self._hint(message.partition("unrecognized arguments: ")[2].split()[:1])
        self.exit(2, f"{self.prog}: {message}{hint} (see {self.prog} --help)\n")

    def format_help(self) -> str:
        """Returns one screen; `format_all` returns everything."""
        columns = shutil.get_terminal_size().columns - 1
        return brief_text(_brief_help(self.prog, self.description or ""), columns)

    def format_all(self) -> str:
        return super().format_help()

    def _hint(self, words: Sequence[str]) -> str:
        """Returns a hint for an unknown option: similar options, or the programs that accept it."""
        flag = words[0].partition("=")[0] if words else ""
        if not flag.startswith("--"):
            return ""
        owners = [
            name for name, options in PROGRAMS.items() if any(item.flag == flag for item in options)
        ]
        if owners:
            return f"; it does nothing in {self.prog}, but in {', '.join(owners)}"
        return did_you_mean(flag, self._option_string_actions)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Wraps the paragraphs around the options too; lines that begin with a blank stay."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=HELP_COLUMN)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(_wrapped(paragraph, width) for paragraph in text.split("\n\n"))


def _wrapped(paragraph: str, width: int) -> str:
    if "\n " in paragraph or paragraph.startswith("- "):
        return paragraph
    return textwrap.fill(paragraph, width)


class _HelpAll(argparse.Action):
    """Prints the help with all options, and exits."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        assert isinstance(parser, _Parser)
        print(parser.format_all(), end="")
        parser.exit()


class _JoinLists(argparse.Action):
    """Joins the lists of an option that is given several times: the last one alone loses names."""

    def __call__(
        self, _: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *__: Any
    ) -> None:
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if given is None else f"{given},{values}")


def _brief_help(program: str, description: str) -> BriefHelp:
    options = PROGRAMS[program]
    return BriefHelp(
        _usage(program),
        description,
        [
            BriefOption(_words_of(option), option.section, option.help)
            for option in options
            if len(options) <= ONE_SCREEN or option.flag in COMMON or option.nargs
        ],
        [f"bin/{program} {words}".rstrip() for words in EXAMPLES[program]],
        BRIEF_EXIT_CODES,
        f"--help-all: all {len(options)} options",
    )


def _words_of(option: Option) -> str:
    short = f"{SHORT_FLAGS[option.flag]}, " if option.flag in SHORT_FLAGS else ""
    return f"{short}{option.flag} {option.metavar}".strip()


# how a positional argument is shown in the first line of --help, by its `nargs`
USAGE_WORDS = {"1": "{}", "?": "[{}]", "+": "{} ..."}


def _usage(program: str) -> str:
    words = [
        USAGE_WORDS[option.nargs].format(option.metavar)
        for option in PROGRAMS[program]
        if option.nargs
    ]
    return " ".join(["usage:", program, "[options]", *words])


def make_parser(program: str, description: str) -> argparse.ArgumentParser:
    """Returns the parser of a program. `description` is the docstring of its module."""
    options = PROGRAMS[program]
    examples = [f"  bin/{program} {words}".rstrip() for words in EXAMPLES[program]]
    parser = _Parser(
        prog=program,
        usage=_usage(program).partition(" ")[2],
        description=description.strip(),
        epilog="\n".join(["examples:", *examples, "", EXIT_CODES]),
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bt_migrate {__version__}")
    text = "show all options in full; --help shows the common ones"
    parser.add_argument("--help-all", action=_HelpAll, help=text)
    for section in SECTIONS:
        of_section = [option for option in options if option.section == section]
        group = parser.add_argument_group(section) if of_section else parser
        for option in of_section:
            _add(group, option)
    return parser


def _add(group: Any, option: Option) -> None:
    words = option.help.replace("%", "%%")
    if option.nargs:
        nargs = None if option.nargs == "1" else option.nargs
        group.add_argument(option.dest, metavar=option.metavar, nargs=nargs, help=words)
    elif option.metavar:
        action: Any = _JoinLists if option.metavar in LISTS else "store"
        group.add_argument(
            option.flag, dest=option.dest, metavar=option.metavar, action=action, help=words
        )
    else:
        short = [SHORT_FLAGS[option.flag]] if option.flag in SHORT_FLAGS else []
        group.add_argument(*short, option.flag, dest=option.dest, action="store_true", help=words)


def complete(parser: argparse.ArgumentParser) -> None:
    """Print the completions that a shell asks for (argcomplete), and exit."""
    try:
        argcomplete = importlib.import_module("argcomplete")
    except ImportError:
        parser.exit(1)
    for action in parser._actions:
        words = COMPLETIONS.get(action.dest)
        if words:
            action.completer = partial(_after_comma, words)  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser, always_complete_options="long", print_suppressed=True)


def _after_comma(words: Sequence[str], prefix: str, **_: Any) -> List[str]:
    """Returns the words that may stand at the end of a list of which `prefix` is typed."""
    before = "".join(prefix.rpartition(",")[:2])
    return [f"{before}{word}" for word in words]


def flags_of(parser: argparse.ArgumentParser, argv: Optional[Sequence[str]]) -> Dict[str, Any]:
    """Returns dest -> text, None for an option that was not given.

    A wrong option ends the program with exit code 2.
    """
    if COMPLETING in os.environ:
        complete(parser)
    flags = vars(parser.parse_args(_joined(sys.argv[1:] if argv is None else argv)))
    for option in PROGRAMS[parser.prog]:
        value = flags[option.dest]
        for text in value if isinstance(value, list) else [value]:
            # An empty value may come from an unset shell variable, and would select everything.
            if isinstance(text, str) and not text.strip(", "):
                name = option.flag or option.metavar
                parser.error(f"{name}: its value is empty; leave it out, or give one")
    return flags


def _joined(argv: Sequence[str]) -> List[str]:
    """Returns the arguments with `--created-after -2d` and `--tz -05:00` joined by `=`.

    argparse would take a separate word that begins with a dash for an option.
    """
    words: List[str] = []
    for word in argv:
        if words and words[-1] in DASHED and word[:1] == "-" and word[1:2].isdigit():
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words
