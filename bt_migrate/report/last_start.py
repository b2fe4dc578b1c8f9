"""The last start of a run: its command line, and how a command line that follows it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence

from bt_migrate.config.options import PROGRAMS
from bt_migrate.report.arguments import KEPT, accepted_by, flags_of, only, without
from bt_migrate.report.display import shell_word
from bt_migrate.state.run_record import RunRecord, Session

ONLY_OF_PART = ("--shard", "--no-rows")


@dataclass(frozen=True)
class LastStart:
    """The command line of the last start of the run, and its error.

    `kept_before`: options of earlier starts that change what is moved.
    """

    command: str
    arguments: Sequence[str]
    # "bin/" in a checkout, "bt-" where the package is installed.
    prefix: str
    error: str
    kept_before: Sequence[str] = ()

    def line(self, command: str, arguments: Sequence[str], comment: str) -> str:
        """Returns the command with what was kept before, and the arguments that it accepts."""
        options = PROGRAMS[command]
        given = {argument.partition("=")[0] for argument in arguments}
        kept_flags = [option.flag for option in options if option.kept and option.flag not in given]
        arguments = [*only(self.kept_before, kept_flags), *arguments]
        words = map(shell_word, [self.prefix + command, *accepted_by(command, arguments)])
        return f"{' '.join(words)}  # {comment}"

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
    return LastStart(command, arguments, prefix, error, _kept_before(record.sessions))


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
