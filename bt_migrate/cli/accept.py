"""bin/accept: which differences of a run are selected, and what is printed and recorded."""

from __future__ import annotations

import getpass
import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence

from bt_migrate.cli.streams import agrees
from bt_migrate.config.values import names
from bt_migrate.errors import UsageError
from bt_migrate.model.selection import matches
from bt_migrate.report.advice import after_accepting
from bt_migrate.report.comparison import difference_line
from bt_migrate.report.differences import known_differences
from bt_migrate.report.display import plural, wrapped
from bt_migrate.report.sections import next_lines
from bt_migrate.state.accepted import accept, accepted_of, key_of, list_accepted, remove_accepted
from bt_migrate.state.files import now
from bt_migrate.state.records import json_of
from bt_migrate.state.run_directory import RunDirectory

Records = List[Dict[str, Any]]

TITLES = {
    "differences": "Differences that are not accepted:",
    "accepted": "Accepted:",
    "removed": "No longer accepted:",
}


def refuse_useless(flags: Mapping[str, Any]) -> None:
    """Raises UsageError for options that do nothing together."""
    if flags["list"] and (flags["all"] or flags["remove"] or flags["yes"]):
        raise UsageError("--list only lists: leave out --all, --remove and --yes")
    if flags["only"] and flags["all"]:
        raise UsageError("--only and --all: choose one")
    if flags["yes"] and not (flags["only"] or flags["all"]):
        raise UsageError("--yes does something only with --only or --all")


def accept_differences(path: Path, flags: Mapping[str, Any]) -> None:
    """Accept what is selected, or list it. Raises UsageError for a pattern that fits nothing."""
    with RunDirectory(path) as run:
        wanted = names("--only", flags["only"] or "")
        if flags["list"]:
            _print({"accepted": selected(_accepted(run), wanted)}, [], flags)
        elif flags["remove"]:
            _remove(run, wanted, flags)
        else:
            _accept(run, wanted, flags)


def selected(records: Records, wanted: Sequence[str]) -> Records:
    """Returns the records whose kind, name or id is wanted; all if nothing is named."""
    for pattern in wanted:
        if not any(_fits(pattern, record) for record in records):
            kinds = ", ".join(dict.fromkeys(record["resource"] for record in records)) or "none"
            raise UsageError(f"--only: no difference matches {pattern!r}; some exist of: {kinds}")
    return [
        record
        for record in records
        if not wanted or any(_fits(pattern, record) for pattern in wanted)
    ]


def _fits(pattern: str, record: Mapping[str, Any]) -> bool:
    """`datasets` fits the datasets, their rows, and the numbers of their rows."""
    kind = record["resource"]
    values = [kind, kind.split()[-1], *(record.get(name) for name in ("name", "id", "row"))]
    return any(matches(pattern, str(value)) for value in values if value)


def _accepted(run: RunDirectory) -> Records:
    return [json_of(item) for item in list_accepted(run)]


def _accept(run: RunDirectory, wanted: Sequence[str], flags: Mapping[str, Any]) -> None:
    accepted = accepted_of(run)
    open_differences = [record for record in known_differences(run) if not accepted.holds(record)]
    chosen = selected(open_differences, wanted)
    if not _agrees(chosen, wanted, flags, "Accept"):
        _print({"differences": chosen}, [], flags)
        return
    accept(run, chosen, _user(), now())
    keys = {key_of(record) for record in chosen}
    done = [item for item in _accepted(run) if key_of(item) in keys]
    remaining = [record for record in open_differences if key_of(record) not in keys]
    _print({"accepted": done, "differences": remaining}, after_accepting(run), flags)


def _remove(run: RunDirectory, wanted: Sequence[str], flags: Mapping[str, Any]) -> None:
    chosen = selected(_accepted(run), wanted)
    if not _agrees(chosen, wanted, flags, "No longer accept"):
        _print({"accepted": chosen}, [], flags)
        return
    remove_accepted(run, map(key_of, chosen))
    _print({"removed": chosen}, after_accepting(run), flags)


def _agrees(
    records: Records, wanted: Sequence[str], flags: Mapping[str, Any], question: str
) -> bool:
    """Whether something was selected and --yes given, or a person agrees on a terminal.

    Raises UsageError if nobody can be asked.
    """
    if not records or not (wanted or flags["all"]):
        return False
    if flags["yes"]:
        return True
    if flags["json"] or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("nobody can be asked without a terminal or with --json: add --yes")
    _print({"differences": records}, [], flags)
    return agrees(f"{question} {plural(len(records), 'difference')} as shown?", sys.stdout)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may have no name for its user
        return str(os.getuid())


def _print(
    lists: Mapping[str, Records], next_commands: List[str], flags: Mapping[str, Any]
) -> None:
    if flags["json"]:
        print(json.dumps({**lists, "next_commands": next_commands}))
        return
    for name, records in lists.items():
        if records or len(lists) == 1:
            print(TITLES[name] if records else f"{TITLES[name]} none")
        for record in records:
            print("\n".join(wrapped(_line(record))))
    if "differences" in lists and lists["differences"] and not next_commands:
        print("To accept them: --all or --only NAMES, and --yes without a terminal")
    for line in next_lines({"next_commands": next_commands}):
        print(line)


def _line(record: Mapping[str, Any]) -> str:
    line = difference_line(record)
    return f"{line}; accepted by {record['by']}, {record['at']}" if record.get("by") else line
