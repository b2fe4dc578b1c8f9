"""Find and rewrite ids inside objects. Pure: the mapping of ids is passed in as a function.

Three passes: version pins are rewritten or removed, ids at the places that the table names are
rewritten, and any other string that is a known source id is rewritten too. A source id inside a
longer text stays and is reported.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Iterator, List, Mapping, Optional, Set, Tuple

from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.resource import Pin, Reference, Resource
from bt_migrate.model.resources import TARGETS_OF_TYPE

# Keys and list positions, outermost first.
Path = Tuple[Any, ...]
# (resources, source id) -> destination id
Resolve = Callable[[Tuple[str, ...], str], Optional[str]]
# (pin, the JSON object around it, version in the source) -> version in the destination
ResolveVersion = Callable[[Pin, Mapping[str, Any], Any], Optional[str]]
# Source id -> resources that it may belong to.
Known = Mapping[str, Tuple[str, ...]]

ATTACHMENT_TYPE = "braintrust_attachment"
# An object may be named like an id; its name is its key and stays.
NAMES = ("name", "slug")
UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
UUID_CHARS = 36
PREFIXED = re.compile(rf"([a-z_]+:)({UUID.pattern})")


@dataclass(frozen=True)
class Unresolved:
    """A reference that was left out: its place, the resources that it may name, its source id.

    `in_text`: it is a part of the text of a query, which still holds it.
    """

    path: str
    to: Tuple[str, ...]
    id: str
    in_text: bool = False


@dataclass
class Rewritten:
    """The rewritten copy, and what the rewriting left out or left alone.

    `pins` holds paths of those that were removed; `free_text` holds paths with the ids found there,
    and `in_queries` those of texts in which they are replaced once their targets exist.
    """

    value: Any
    unresolved: List[Unresolved]
    pins: List[str]
    free_text: List[Tuple[str, str]]
    in_queries: List[Unresolved] = field(default_factory=list)


def no_version(pin: Pin, holder: Mapping[str, Any], version: Any) -> Optional[str]:
    return None


def rewrite(
    value: JsonObject,
    resource: Resource,
    *,
    resolve: Resolve,
    known_ids: Known,
    resolve_version: ResolveVersion = no_version,
) -> Rewritten:
    """A deep copy in which every id and version of the source is replaced or left out."""
    result = Rewritten(copy.deepcopy(value), [], [], [])
    # First, while the ids next to them are still those of the source.
    for pin in resource.pins:
        _rewrite_pins(result, pin, resolve_version)
    placed: Set[str] = set()
    for reference in resource.references:
        placed.update(_rewrite_places(result, reference, resolve))
    _rewrite_strays(result, placed, resolve, known_ids)
    for pattern in resource.queries:
        _rewrite_queries(result, pattern, resolve, known_ids)
    _report_texts(result, known_ids)
    return result


def _rewrite_pins(result: Rewritten, pin: Pin, resolve_version: ResolveVersion) -> None:
    for path in list(paths_matching(result.value, pin.path)):
        holder = value_at(result.value, path[:-1])
        new = resolve_version(pin, holder, holder[path[-1]])
        if new is not None:
            set_at(result.value, path, new)
        else:
            remove(result.value, path)
            result.pins.append(dotted(path))


def _rewrite_places(result: Rewritten, reference: Reference, resolve: Resolve) -> List[str]:
    """Rewrite all places of one reference. Returns the destination ids that were put in."""
    placed = []
    # From the back, so that list positions stay right.
    for path in reversed(list(paths_matching(result.value, reference.path))):
        source_id = value_at(result.value, path)
        holder = value_at(result.value, path[:-1])
        if (
            not isinstance(source_id, str)
            or not _holds(holder, reference)
            or source_id in reference.words
        ):
            continue
        targets = _targets(holder, reference)
        new = resolve(targets, source_id)
        if new is not None:
            set_at(result.value, path, new)
            placed.append(new)
        else:
            result.unresolved.append(Unresolved(dotted(path), targets, source_id))
            remove(result.value, _dropped(path, reference.drop))
    return placed


def _dropped(path: Path, drop: str) -> Path:
    """Returns the path of the value that is left out because of an unresolved reference."""
    if drop == "item":
        last_item = max(number for number, step in enumerate(path) if isinstance(step, int))
        return path[: last_item + 1]
    return path if drop == "field" else path[:-1]


def _holds(holder: Any, reference: Reference) -> bool:
    if reference.when is None or not isinstance(holder, dict):
        return True
    return bool(holder.get("type", reference.when) == reference.when)


def _targets(holder: Any, reference: Reference) -> Tuple[str, ...]:
    first = reference.to[0]
    if not first.startswith("@"):
        return reference.to
    return TARGETS_OF_TYPE.get(holder.get(first[1:]), ())


def _rewrite_strays(
    result: Rewritten, placed: Set[str], resolve: Resolve, known_ids: Known
) -> None:
    """Known ids that are strings as a whole, in all other places."""
    texts = [
        (path, text)
        for path, text in strings(result.value)
        if not (len(path) == 1 and path[0] in NAMES)
    ]
    whole = [(path, text) for path, text in texts if text not in placed]
    for path, targets, source_id in rewrite_known_ids(result.value, whole, resolve, known_ids):
        result.unresolved.append(Unresolved(dotted(path), targets, source_id))


def _rewrite_queries(result: Rewritten, pattern: str, resolve: Resolve, known_ids: Known) -> None:
    """Replace the ids in the texts of queries: one that names the source finds nothing."""
    for path in list(paths_matching(result.value, pattern)):
        text = value_at(result.value, path)
        if not isinstance(text, str):
            continue
        for source_id in sorted(
            {id_in_text for id_in_text in UUID.findall(text) if id_in_text in known_ids}
        ):
            new = resolve(known_ids[source_id], source_id)
            if new is None:
                unresolved = Unresolved(dotted(path), known_ids[source_id], source_id, in_text=True)
                result.in_queries.append(unresolved)
            else:
                text = text.replace(source_id, new)
        set_at(result.value, path, text)


def _report_texts(result: Rewritten, known_ids: Known) -> None:
    """Known ids inside longer texts, and in keys, are left as they are and reported."""
    texts = [
        (path, text)
        for path, text in strings(result.value)
        if not (len(path) == 1 and path[0] in NAMES)
    ]
    longer = [(path, text) for path, text in reversed(texts) if len(text) > UUID_CHARS]
    for path, text in [*longer, *keys(result.value)]:
        ids = [source_id for source_id in UUID.findall(text) if source_id in known_ids]
        result.free_text.extend((dotted(path), source_id) for source_id in ids)


def rewrite_known_ids(
    value: Any, texts: Iterable[Tuple[Path, str]], resolve: Resolve, known_ids: Known
) -> List[Tuple[Path, Tuple[str, ...], str]]:
    """Replace, in place, each of the strings that is a known source id; remove unresolved ones.

    An id behind a prefix is replaced too, but stays where it is unresolved.

    Returns (path, resources, source id) of those that were removed.
    """
    unresolved = []
    # From the back, so that a removal does not move the list positions that are still to come.
    for path, text in reversed(list(texts)):
        prefix, source_id = without_prefix(text)
        if source_id not in known_ids:
            continue
        new = resolve(known_ids[source_id], source_id)
        if new is not None:
            set_at(value, path, prefix + new)
        elif not prefix:
            unresolved.append((path, known_ids[source_id], source_id))
            remove(value, path)
    return unresolved


def without_prefix(text: str) -> Tuple[str, str]:
    """Splits `experiment_id:<id>`, the parent of an OpenTelemetry span; other texts stay whole."""
    match = PREFIXED.fullmatch(text) if len(text) > UUID_CHARS else None
    return (match[1], match[2]) if match else ("", text)


def attachment_places(value: Any) -> List[Path]:
    """Paths of every reference to an attachment that Braintrust stores, at any depth."""
    return [place for place, part in _values(value, ()) if _is_attachment(part)]


def _is_attachment(value: Any) -> bool:
    is_reference = isinstance(value, dict) and value.get("type") == ATTACHMENT_TYPE
    return is_reference and isinstance(value.get("key"), str)


def strings(value: Any, path: Path = ()) -> Iterator[Tuple[Path, str]]:
    """Every string value with its path, in document order."""
    for place, part in _values(value, path):
        if isinstance(part, str):
            yield place, part


def _values(value: Any, path: Path) -> Iterator[Tuple[Path, Any]]:
    """Every value with its path, in document order.

    Without recursion: a row may be nested as deep as the JSON reader accepts.
    """
    waiting: List[Tuple[Path, Any]] = [(path, value)]
    while waiting:
        place, part = waiting.pop()
        yield place, part
        if isinstance(part, dict):
            waiting.extend(((*place, key), part[key]) for key in reversed(list(part)))
        elif isinstance(part, list):
            last = len(part) - 1
            waiting.extend(((*place, last - n), item) for n, item in enumerate(reversed(part)))


def keys(value: Any, path: Path = ()) -> Iterator[Tuple[Path, str]]:
    """Every key with its path. Keys are not rewritten: nobody knows what reads them."""
    items = value if isinstance(value, list) else ()
    for key, item in value.items() if isinstance(value, dict) else enumerate(items):
        if isinstance(key, str):
            yield (*path, key), key
        yield from keys(item, (*path, key))


def paths_matching(value: Any, pattern: str) -> Iterator[Path]:
    """The paths in `value` that a dotted pattern matches, without absent and null places."""
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
    """The value at the path; None where the place does not exist (any more)."""
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


def without(value: Any, places: Iterable[Path]) -> Any:
    """A copy of the value without these keys of objects."""
    copied = copy.deepcopy(value)
    for place in places:
        remove(copied, place)
    return copied


def pattern_of(path: Path) -> str:
    """The pattern of `paths_matching` for a place, at any position of the lists around it."""
    return ".".join("[]" if isinstance(step, int) else str(step) for step in path)


def top_field(dotted_path: str) -> str:
    """`prompt_data` of `prompt_data.tool_functions[0].id`"""
    return dotted_path.split(".")[0].split("[")[0]


def dotted(path: Path) -> str:
    """`prompt_data.tool_functions[0].id`"""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else str(step))
    return text
