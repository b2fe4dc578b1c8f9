"""Find and rewrite ids inside objects. Pure: the one who knows the mapping passes it in as a function.

Three passes: version pins go, ids at the places named in the table are rewritten, and any other string that *is* a known source
id is rewritten too. A source id inside a longer text stays and is told.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, List, Mapping, Optional, Tuple

from bt_migrate.model.resource import Reference
from bt_migrate.model.resources import TARGETS_OF_TYPE

ATTACHMENT_TYPE = "braintrust_attachment"


def attachment_places(value: Any, path: Path = ()) -> List[Path]:
    """Paths of every attachment reference whose bytes Braintrust stores, at any depth."""
    if isinstance(value, dict):
        if value.get("type") == ATTACHMENT_TYPE and isinstance(value.get("key"), str):
            return [path]
        return [
            place for key, item in value.items() for place in attachment_places(item, (*path, key))
        ]
    if isinstance(value, list):
        return [
            place
            for index, item in enumerate(value)
            for place in attachment_places(item, (*path, index))
        ]
    return []


Path = Tuple[Any, ...]  # keys and list positions, outermost first
Resolve = Callable[
    [Tuple[str, ...], str], Optional[str]
]  # (resources, source id) -> destination id

NAMES = ("name", "slug")  # an object may be named like an id; its name is its key and stays

UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Unresolved:
    """A reference that was left out: where it stood, what it may be, its source id."""

    path: str
    to: Tuple[str, ...]
    id: str


@dataclass
class Rewritten:
    """The rewritten copy, and all that a person must know of the rewriting.

    `pins` and `free_text` are paths (with the id found).
    """

    value: Any
    unresolved: List[Unresolved]
    pins: List[str]
    free_text: List[Tuple[str, str]]


def rewrite(
    value: dict,
    references: Iterable[Reference],
    pins: Iterable[str],
    *,
    resolve: Resolve,
    known: Mapping[str, Tuple[str, ...]],
) -> Rewritten:
    """A deep copy with every id of the source replaced or left out. `known`: source id -> resources it belongs to."""
    result = Rewritten(copy.deepcopy(value), [], [], [])
    placed = set()
    for pin in pins:
        for path in list(paths_matching(result.value, pin)):
            if value_at(result.value, path) is not None:
                remove(result.value, path)
                result.pins.append(dotted(path))
    for reference in references:
        placed.update(_rewrite_places(result, reference, resolve))
    _rewrite_strays(result, placed, resolve, known)
    return result


def _rewrite_places(result: Rewritten, reference: Reference, resolve: Resolve) -> List[str]:
    """Rewrite all places of one reference; gives back the destination ids that were put in."""
    placed = []
    for path in reversed(
        list(paths_matching(result.value, reference.path))
    ):  # from the back, so that positions stay right
        found = value_at(result.value, path)
        holder = value_at(result.value, path[:-1])
        if not isinstance(found, str) or not _holds(holder, reference):
            continue
        targets = _targets(holder, reference)
        new = resolve(targets, found)
        if new is not None:
            set_at(result.value, path, new)
            placed.append(new)
        else:
            result.unresolved.append(Unresolved(dotted(path), targets, found))
            remove(result.value, _dropped(path, reference.drop))
    return placed


def _dropped(path: Path, drop: str) -> Path:
    if drop == "item":
        return path[: max(number for number, step in enumerate(path) if isinstance(step, int)) + 1]
    return path if drop == "field" else path[:-1]


def _holds(holder: Any, reference: Reference) -> bool:
    return (
        reference.when is None
        or not isinstance(holder, dict)
        or holder.get("type", reference.when) == reference.when
    )


def _targets(holder: Any, reference: Reference) -> Tuple[str, ...]:
    first = reference.to[0]
    if not first.startswith("@"):
        return reference.to
    return TARGETS_OF_TYPE.get(holder.get(first[1:]), ())


def _rewrite_strays(
    result: Rewritten, placed: set, resolve: Resolve, known: Mapping[str, Tuple[str, ...]]
) -> None:
    """Known ids anywhere else: whole strings are rewritten, parts of a longer text are told."""
    for path, text in reversed(list(strings(result.value))):
        if path[0] in NAMES and len(path) == 1:
            continue
        if text in known and text not in placed:
            new = resolve(known[text], text)
            if new is None:
                result.unresolved.append(Unresolved(dotted(path), known[text], text))
                remove(result.value, path)
            else:
                set_at(result.value, path, new)
        elif len(text) > 36:
            result.free_text.extend(
                (dotted(path), one) for one in UUID.findall(text) if one in known
            )
    result.free_text.extend(
        (dotted(path), one)
        for path, key in keys(result.value)
        for one in UUID.findall(key)
        if one in known
    )


def strings(value: Any, path: Path = ()) -> Iterator[Tuple[Path, str]]:
    """Every string value with its path, in document order."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, (*path, key))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from strings(item, (*path, position))


def keys(value: Any, path: Path = ()) -> Iterator[Tuple[Path, str]]:
    """Every key of an object with its path: a key cannot be rewritten without knowing what reads it."""
    for key, item in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value if isinstance(value, list) else ())
    ):
        if isinstance(key, str):
            yield (*path, key), key
        yield from keys(item, (*path, key))


def paths_matching(value: Any, pattern: str) -> Iterator[Path]:
    """The paths in `value` that a dotted pattern names; places that are absent or null are none."""
    yield from _matching(value, tuple(pattern.split(".")), ())


def _matching(value: Any, pattern: Tuple[str, ...], path: Path) -> Iterator[Path]:
    if not pattern:
        if value is not None:
            yield path
        return
    step, rest = pattern[0], pattern[1:]
    if step == "[]":
        for position, item in enumerate(value if isinstance(value, list) else ()):
            yield from _matching(item, rest, (*path, position))
    elif isinstance(value, dict):
        for key in list(value) if step == "*" else [step]:
            if key in value:
                yield from _matching(value[key], rest, (*path, key))


def value_at(value: Any, path: Path) -> Any:
    """The value at the path; None where an earlier removal took the place away."""
    for step in path:
        if isinstance(value, list):
            value = value[step] if isinstance(step, int) and step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def set_at(value: Any, path: Path, new: Any) -> None:
    value_at(value, path[:-1])[path[-1]] = new


def remove(value: Any, path: Path) -> None:
    """Take a key or a list item out."""
    holder = value_at(value, path[:-1])
    if isinstance(holder, (dict, list)) and path:
        del holder[path[-1]]


def dotted(path: Path) -> str:
    """`prompt_data.tool_functions[0].id`"""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else str(step))
    return text


def replace_ids(text: str, mapping: Callable[[str], Optional[str]]) -> str:
    """Every UUID in the text for which `mapping` knows another is replaced."""
    return UUID.sub(lambda match: mapping(match[0]) or match[0], text)
