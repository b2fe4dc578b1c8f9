"""Typed records in state files: what a file holds is checked against the dataclass that it is read into.

A field of another type, and one that this program does not know, stop the run with the name of the file: a checkpoint that is
read wrongly loses rows.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Collection, Dict, Mapping, Union, get_args, get_origin, get_type_hints

from bt_migrate.errors import StateError

WHAT_TO_DO = (
    "restore the file from a copy, use the version that wrote it, or start a new run with --new-run"
)


def record_fields(
    path: Path, record: type, value: object, names: Collection[str] = ()
) -> Dict[str, Any]:
    """The fields of the dataclass `record` that `value` holds; only those in `names`, if any are named.

    Raises StateError for a value of another type than the field's. A field that is missing keeps the default of the dataclass.
    """
    if not isinstance(value, Mapping):
        raise StateError(f"{path}: a {record.__name__} is {_shown(value)}; {WHAT_TO_DO}")
    hints = get_type_hints(record)
    wanted = [one.name for one in fields(record) if not names or one.name in names]
    found = {name: value[name] for name in wanted if name in value}
    for name, content in found.items():
        if not matches(hints[name], content):
            raise StateError(f"{path}: {name} is {_shown(content)}; {WHAT_TO_DO}")
    return found


def refuse_other_fields(
    path: Path, value: Mapping[str, Any], known: Collection[str], needed: Collection[str]
) -> None:
    """Raises StateError for a field that this program does not know, and for one that it needs and that is missing."""
    for name in sorted(set(value) - set(known)):
        raise StateError(f"{path}: {name} is not known to this version; {WHAT_TO_DO}")
    for name in needed:
        if name not in value:
            raise StateError(f"{path}: {name} is missing; {WHAT_TO_DO}")


def matches(hint: Any, value: object) -> bool:
    """Whether a JSON value has the type of an annotation."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Union:
        return any(matches(one, value) for one in arguments)
    if origin is list:
        return isinstance(value, list) and all(matches(arguments[0], entry) for entry in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            matches(arguments[1], entry) for entry in value.values()
        )
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _shown(value: object) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
