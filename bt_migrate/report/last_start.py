"""The last start of a run: its command line, and how a command line that follows it is written."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Iterable, List, Mapping, Sequence

from bt_migrate.config.options import PROGRAMS
from bt_migrate.config.settings import ALL_SETTINGS
from bt_migrate.report.arguments import KEPT, accepted_by, flags_of, only, without
from bt_migrate.report.display import shell_word
from bt_migrate.state.run_record import RunRecord, Session

ONLY_OF_PART = ("--shard", "--no-rows")
VARIABLES = {setting.flag: setting.env for setting in ALL_SETTINGS if setting.flag}
# option -> the variable that must not be set beside it
UNSET_BESIDE = {
    "--created-after": "MIGRATION_WINDOW",
    "--created-before": "MIGRATION_WINDOW",
    "--state-dir": "MIGRATION_RESUME_RUN_DIR",
}


@dataclass(frozen=True)
class LastStart:
    """The command line of the last start of the run, and its error.

    `kept_before`: options of earlier starts that change what is moved. `environment`: the values of
    other settings, which the environment or .env set, as options; the next command finds them there
    too. `variables`: all that are set there. `assigned`: what the next command sets or empties.
    """

    command: str
    arguments: Sequence[str]
    # "bin/" in a checkout, "bt-" where the package is installed.
    prefix: str
    error: str
    kept_before: Sequence[str] = ()
    environment: Sequence[str] = ()
    variables: Sequence[str] = ()
    assigned: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> List[str]:
        """All that the start was given, wherever it came from. Only `arguments` are repeated."""
        before = without(self.kept_before, _flags(self.arguments))
        given = [*self.arguments, *before]
        return [*given, *without(self.environment, _flags(given))]

    def unsetting(self, flags: Sequence[str]) -> LastStart:
        """Returns the start with these settings empty in the environment of the next command."""
        named = _flags(self.environment)
        emptied = {VARIABLES[flag]: "" for flag in flags if flag in named}
        return replace(self, assigned={**self.assigned, **emptied})

    def setting(self, variable: str, value: str) -> LastStart:
        """Returns the start with a setting for the next command."""
        return replace(self, assigned={**self.assigned, variable: value})

    def line(self, command: str, arguments: Sequence[str], comment: str) -> str:
        """Returns the command with what was kept before, and the arguments that it accepts."""
        options = PROGRAMS[command]
        given = _flags(arguments)
        kept_flags = [option.flag for option in options if option.kept and option.flag not in given]
        arguments = [*only(self.kept_before, kept_flags), *arguments]
        words = map(shell_word, [self.prefix + command, *accepted_by(command, arguments)])
        return f"{' '.join([*self._assignments(command, arguments), *words])}  # {comment}"

    def _assignments(self, command: str, arguments: Sequence[str]) -> List[str]:
        """Returns `MIGRATION_X=` for each variable that has to be set or empty for the command."""
        beside = {UNSET_BESIDE.get(flag, "") for flag in _flags(arguments)}
        of_others = {VARIABLES[flag] for flag in VARIABLES.keys() - flags_of(command)}
        emptied = {name: "" for name in self.variables if name in beside}
        return [
            f"{name}={shell_word(value) if value else ''}"
            for name, value in {**emptied, **self.assigned}.items()
            if name not in of_others
        ]

    def again(self, arguments: Sequence[str], comment: str) -> str:
        return self.line(self.command, arguments, comment)


def last_start(record: RunRecord) -> LastStart:
    """Returns the last start of the run.

    Unless the run is a part (a shard, or objects without rows), it is returned without --shard and
    --no-rows: a run that bin/merge-runs joined has the starts of its parts, and is whole.
    """
    session = record.sessions[-1] if record.sessions else None
    command = session.command if session else record.command
    arguments = list(session.arguments) if session else []
    if not is_part(record):
        arguments = without(arguments, ONLY_OF_PART)
    prefix = session.prefix if session else "bin/"
    error = (session.error if session else None) or ""
    settings = record.settings
    return LastStart(
        command,
        arguments,
        prefix,
        error,
        _kept_before(record.sessions),
        _environment(settings, arguments),
        list(settings),
        {name: "" for name, text in settings.items() if not text},
    )


def _environment(settings: Mapping[str, str], arguments: Sequence[str]) -> List[str]:
    """Returns the settings that no argument gave, as options. `settings`: variable -> text."""
    words: List[str] = []
    for setting in ALL_SETTINGS:
        text = settings.get(setting.env)
        if not setting.flag or not text or setting.flag in _flags(arguments):
            continue
        if setting.metavar:
            words += [setting.flag, text]
        elif setting.read(setting.env, text) != setting.inverted:
            words.append(setting.flag)
    return words


def _flags(arguments: Iterable[str]) -> List[str]:
    return [argument.partition("=")[0] for argument in arguments]


def _kept_before(sessions: Sequence[Session]) -> List[str]:
    """Returns the options of KEPT that starts before the last one gave, with their values.

    For each option, only the last `migrate-…` start whose program accepts it counts. If that is the
    last start of all, the option is not returned: the caller has the arguments of that start.
    """
    moves = [session for session in sessions if session.command.startswith("migrate-")]
    words: List[str] = []
    for flag in KEPT:
        accepting = [session for session in moves if flag in flags_of(session.command)]
        if accepting and accepting[-1] is not sessions[-1]:
            words += only(accepting[-1].arguments, [flag])
    return words


def is_part(record: RunRecord) -> bool:
    return record.shard is not None or record.selection.part is not None
