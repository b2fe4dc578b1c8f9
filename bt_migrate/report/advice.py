"""What to run next: commands that are ready to paste."""

from __future__ import annotations

import shlex
from typing import List, Sequence

from bt_migrate.state.run_directory import RunDirectory, window_of
from bt_migrate.state.run_record import RunRecord

# Options of a plan. The command that carries the plan out does not have them.
ONLY_OF_PLAN = ("--dry-run", "--plan-out", "--fail-on-loss", "--new-run")
# Options that a resumed run remembers.
KEPT_BY_RUN = (
    "--state-dir",
    "--new-run",
    "--created-after",
    "--created-before",
    "--window",
    "--tz",
    "--fill-gaps",
)
ONLY_OF_PART = ("--shard", "--no-rows")
WITHOUT_VALUE = frozenset(("--dry-run", "--fail-on-loss", "--new-run", "--fill-gaps", "--no-rows"))
# States of a run that the same command resumes.
RESUMABLE = ("interrupted", "failed", "stopped", "merged")


def next_commands(run: RunDirectory, status: str) -> List[str]:
    """Returns the commands to run next, each with a comment."""
    record = run.record
    command = record.command
    place = ["--state-dir", str(run.path)]
    is_part = record.shard is not None or record.selection.part is not None
    given = arguments_of(record)
    if not is_part:
        # A joined run is no part, although its last start was that of one.
        given = without(given, ONLY_OF_PART)
    if "--demo" in given:
        return ["bin/validate  # with your keys and URLs in .env (see .env.example)"]
    if record.dry_run:
        return [f"{_line(command, without(given, ONLY_OF_PLAN))}  # carries the plan out"]
    if status in RESUMABLE:
        again = _line(command, [*without(given, KEPT_BY_RUN), *place])
        return [f"{again}  # continues where it stopped"]
    if status == "incomplete":
        again = _line(command, without(given, ("--new-run",)))
        return [f"{again}  # after fixing the problems above; only what is missing is copied"]
    if command == "validate":
        plan = _line("migrate-all", [*without(given, ONLY_OF_PLAN), "--dry-run"])
        return [f"{plan}  # shows the plan; writes nothing to the destination"]
    if is_part:
        return [
            "bin/merge-runs  # joins the runs of all shards and of the objects, once all are done"
        ]
    if record.verification and command == "migrate-all" and not any(window_of(run).values()):
        options = [*without(given, (*KEPT_BY_RUN, "--since-last")), *place, "--since-last"]
        return [f"{_line(command, options)}  # copies what is written to the source from now on"]
    return [f"{_line('verify', place)}  # compares both organizations"]


def arguments_of(record: RunRecord) -> List[str]:
    """Returns the arguments of the last start of the run's own command."""
    for session in reversed(record.sessions):
        if session.command == record.command:
            return list(session.arguments)
    return []


def _line(command: str, arguments: Sequence[str]) -> str:
    return shlex.join([f"bin/{command}", *arguments])


def without(arguments: Sequence[str], names: Sequence[str]) -> List[str]:
    """Returns the arguments without these options and their values."""
    left: List[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if name not in names:
            left.append(argument)
        elif not equals and name not in WITHOUT_VALUE:
            next(rest, None)
    return left
