"""Reads and changes the arguments of a program, as the options declare them. Pure."""

from __future__ import annotations

from typing import Iterable, List, Sequence, Set

from bt_migrate.config.options import ENV_FILE, PROGRAMS, SETTING_OPTIONS
from bt_migrate.config.settings import SYNC

# flag -> option, of all programs
OPTIONS = {option.flag: option for options in PROGRAMS.values() for option in options}
# All flags; positional arguments have none.
FLAGS = frozenset(OPTIONS) - {""}
# Flags that are not followed by a value.
WITHOUT_VALUE = frozenset(flag for flag, option in OPTIONS.items() if not option.metavar)
# Flags that mean something with --since-last only.
ONLY_OF_SYNC = frozenset(flag for flag, option in OPTIONS.items() if option.section == SYNC)
# Flags that change what is moved, such as --user-map: every later command has to repeat them.
KEPT = [option.flag for option in (*SETTING_OPTIONS.values(), ENV_FILE) if option.kept]


def flags_of(command: str) -> Set[str]:
    """Returns the flags that a program accepts."""
    return {option.flag for option in PROGRAMS.get(command, ())}


def values_of(arguments: Sequence[str], option: str) -> List[str]:
    """Returns the values that the arguments give to an option."""
    values: List[str] = []
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            values.append(value if equals else "".join(arguments[number + 1 : number + 2]))
    return values


def only(arguments: Sequence[str], names: Iterable[str]) -> List[str]:
    """Returns these options of the arguments, with their values."""
    words: List[str] = []
    for name in names:
        if name in WITHOUT_VALUE:
            words += [name] if name in arguments else []
        else:
            words += [word for value in values_of(arguments, name) for word in (name, value)]
    return words


def without(arguments: Sequence[str], names: Sequence[str]) -> List[str]:
    """Returns the arguments without these options and their values."""
    remaining: List[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if name not in names:
            remaining.append(argument)
        elif not equals and name not in WITHOUT_VALUE:
            next(rest, None)
    return remaining


def accepted_by(command: str, arguments: Sequence[str]) -> List[str]:
    """Returns the arguments without options that mean nothing to the program."""
    useless = FLAGS - flags_of(command)
    if "--since-last" not in arguments:
        useless |= ONLY_OF_SYNC
    return without(arguments, tuple(useless))
