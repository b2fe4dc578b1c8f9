"""Dataclasses as JSON, checked. What lies in a file of a run is never believed by its shape.

A record is a dataclass whose annotations are its schema. `record_from` refuses a value of another
shape and says where it differs. A field with a default may be absent, and is not written while it
has that default.
"""

from __future__ import annotations

import functools
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import (
    Any,
    Collection,
    Dict,
    Mapping,
    Type,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from bt_migrate.errors import StateError

WHAT_TO_DO = (
    "restore it from a copy, or start a new run with --new-run (existing objects and rows are"
    " found, not doubled)"
)

T = TypeVar("T")

# type of a field -> what messages call it; a float is "a number"
FIELD_TYPE_WORDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    bool: "true or false",
}


class ShapeError(ValueError):
    """A value does not have the shape of its record; `str()` says where and how."""


def record_from(kind: Type[T], value: object, place: str = "") -> T:
    """The record in a JSON value. Raises ShapeError. `place` names the value in errors."""
    _refuse_other(dict, value, place)
    assert isinstance(value, dict)
    hints = _hints(kind)  # type: ignore[arg-type]
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ShapeError(f"{_inside(place, unknown[0])} is not known to this version")
    given: Dict[str, Any] = {}
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name in value:
            inside = _inside(place, item.name)
            given[item.name] = checked(hints[item.name], value[item.name], inside)
        elif _is_required(item):
            raise ShapeError(f"{_inside(place, item.name)} is missing")
    return kind(**given)


def check_part(kind: Any, value: object, place: str = "") -> None:
    """Check only the fields that `kind` names; others may be there. Raises ShapeError."""
    _refuse_other(dict, value, place)
    assert isinstance(value, dict)
    for item in fields(kind):
        inside = _inside(place, item.name)
        if item.name in value:
            _check_deep(_hints(kind)[item.name], value[item.name], inside)
        elif _is_required(item):
            raise ShapeError(f"{inside} is missing")


def _check_deep(kind: Any, value: object, place: str) -> None:
    origin = get_origin(kind)
    if is_dataclass(kind):
        check_part(kind, value, place)
    elif origin is Union:
        if value is not None:
            _check_deep(get_args(kind)[0], value, place)
    elif origin is list:
        _refuse_other(list, value, place)
        for number, item in enumerate(value):  # type: ignore[arg-type,var-annotated]
            _check_deep(get_args(kind)[0], item, f"{place}[{number}]")
    elif origin is dict:
        _refuse_other(dict, value, place)
        for name, item in value.items():  # type: ignore[attr-defined]
            _check_deep(get_args(kind)[1], item, _inside(place, name))
    else:
        checked(kind, value, place)


def json_of(record: Any) -> Dict[str, Any]:
    """The record as JSON. Raises nothing; the values are those of the record, not copies."""
    written: Dict[str, Any] = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if _is_required(item) or value != _default(item):
            written[item.name] = _plain(value)
    return written


def checked(kind: Any, value: object, place: str) -> Any:
    """The value as what the annotation says. Raises ShapeError."""
    if kind is Any:
        return value
    if is_dataclass(kind):
        return record_from(kind, value, place)  # type: ignore[arg-type]
    origin = get_origin(kind)
    if origin is Union:
        inner = get_args(kind)[0]
        return None if value is None else checked(inner, value, place)
    if origin is list:
        _refuse_other(list, value, place)
        (inner,) = kind.__args__
        assert isinstance(value, list)
        return [checked(inner, item, f"{place}[{n}]") for n, item in enumerate(value)]
    if origin is dict:
        _refuse_other(dict, value, place)
        inner = kind.__args__[1]
        assert isinstance(value, dict)
        return {name: checked(inner, item, _inside(place, name)) for name, item in value.items()}
    if kind is float:
        _refuse_other((int, float), value, place)
        return value
    _refuse_other(kind, value, place)
    return value


def _refuse_other(kind: Any, value: object, place: str) -> None:
    # In Python a bool is an int; in a file it is not.
    if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
        return
    word = FIELD_TYPE_WORDS.get(kind, "a number")
    raise ShapeError(f"{place or 'its content'} is not {word} but {_described(value)}")


def _described(value: object) -> str:
    if value is None:
        return "null"
    return FIELD_TYPE_WORDS.get(type(value), "a number")


def _inside(place: str, name: object) -> str:
    shown = str(name)[:60]
    return f"{place}.{shown}" if place else shown


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return json_of(value)
    if isinstance(value, list) and value and is_dataclass(value[0]):
        return [json_of(item) for item in value]
    if isinstance(value, Mapping) and not isinstance(value, dict):
        return dict(value)
    return value


def _is_required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _default(item: Field[Any]) -> Any:
    if item.default is not MISSING:
        return item.default
    assert item.default_factory is not MISSING
    return item.default_factory()


@functools.lru_cache(maxsize=None)
def _hints(kind: Any) -> Dict[str, Any]:
    return get_type_hints(kind)


# -- records of which a part is read at a time


def record_fields(
    path: Path, record: type, value: object, names: Collection[str] = ()
) -> Dict[str, Any]:
    """The fields of the dataclass `record` that `value` holds; only those in `names`, if any are
    named.

    Raises StateError for a value of another type than the field's. A field that is missing keeps
    the default of the dataclass.
    """
    if not isinstance(value, Mapping):
        raise StateError(f"{path}: a {record.__name__} is {_shown(value)}; {WHAT_TO_DO}")
    hints = get_type_hints(record)
    wanted = [item.name for item in fields(record) if not names or item.name in names]
    present = {name: value[name] for name in wanted if name in value}
    for name, content in present.items():
        if not has_type(hints[name], content):
            raise StateError(f"{path}: {name} is {_shown(content)}; {WHAT_TO_DO}")
    return present


def refuse_other_fields(
    path: Path, value: Mapping[str, Any], field_names: Collection[str], needed: Collection[str]
) -> None:
    """Raises StateError for a field that this program does not know, and for one that it needs and
    that is missing.
    """
    for name in sorted(set(value) - set(field_names)):
        raise StateError(f"{path}: {name} is not known to this version; {WHAT_TO_DO}")
    for name in needed:
        if name not in value:
            raise StateError(f"{path}: {name} is missing; {WHAT_TO_DO}")


def has_type(hint: Any, value: object) -> bool:
    """Whether a JSON value has the type of an annotation."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Union:
        return any(has_type(argument, value) for argument in arguments)
    if origin is list:
        return isinstance(value, list) and all(has_type(arguments[0], entry) for entry in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            has_type(arguments[1], entry) for entry in value.values()
        )
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _shown(value: object) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
