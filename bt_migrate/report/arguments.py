"""Reads and changes the arguments of a program, as the options declare them. Pure."""

from __future__ import annotations

from typing import Iterable, List, Sequence

from bt_migrate.config.options import PROGRAMS

# flag -> option, of all programs
OPTIONS = {option.flag: option for options in PROGRAMS.values() for option in options}
# Flags that are not followed by a value.
WITHOUT_VALUE = frozenset(flag for flag, option in OPTIONS.items() if not option.metavar)


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
