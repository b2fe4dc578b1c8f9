"""Compares what a move with all versions must keep, besides what `compare_orgs` compares.

The versions of prompts and functions, one by one; the environments that are assigned to them; and
each pin, by the content of what it names. Scans all that the destination stores, present and past,
for ids and transactions of the source.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from bt_migrate.sandbox.data.inserts import row_set
from bt_migrate.sandbox.data.schema import KINDS
from tests.support.compare_orgs import (
    TRANSACTION,
    UUID,
    Translation,
    differences,
    exact,
    is_pin,
    object_difference,
    streams,
    with_bytes,
)
from tests.support.orgs import ROWS_OF, Json, Pair

VERSIONED = ("prompt", "function")
# kinds of which `compare_orgs` compares the states of datasets that they name
COMPARED = ("dataset_version", "xact_id")
ROW_CONTENT = ("input", "expected", "tags")


def all_differences(pair: Pair, findings: Iterable[Json]) -> List[str]:
    """All in which the destination is not what the source is, with all of its versions.

    `findings`: of the report, which may name texts that mention ids of the source.
    """
    translation = Translation(pair, versions=True)
    return [
        *differences(pair, versions=True),
        *history_differences(translation),
        *pin_differences(translation),
        *owner_differences(translation),
        *source_ids(translation, findings),
    ]


def history_differences(translation: Translation) -> Iterator[str]:
    pair = translation.pair
    for kind, source, dest in _versioned(translation):
        label = f"{kind} {source['slug']!r}"
        versions = pair.source.versions(kind, source["id"])
        there = versions_there(translation, kind, source, dest)
        if len(versions) != len(there):
            yield f"{label}: {len(there)} versions instead of {len(versions)}"
        for number, sides in enumerate(zip(versions, there)):
            for text in object_difference(translation, kind, *sides):
                yield f"version {number} of {text}"


def _versioned(translation: Translation) -> Iterator[Tuple[str, Json, Json]]:
    return (entry for entry in translation.pairs if entry[0] in VERSIONED)


def versions_there(translation: Translation, kind: str, source: Json, dest: Json) -> List[Json]:
    """The destination's versions, oldest first, without one that the next only completes.

    The last version of an object that refers to an experiment is written before it exists.
    """
    found = list(translation.pair.dest.versions(kind, dest["id"]))
    later = {experiment["id"] for experiment in translation.pair.source.objects("experiment")}
    if later.intersection(UUID.findall(json.dumps(source))):
        del found[-2]
    return found


# -- pins


class Side:
    """What the pins of one organization name.

    `names`: id -> its name, alike on both sides. `histories`: id of a prompt or function -> the
    transactions of its versions, oldest first.
    """

    def __init__(self, org: Any, names: Dict[str, str], histories: Dict[str, List[str]]) -> None:
        self.org, self.names, self.histories = org, names, histories

    def version(self, object_id: str, xact: str) -> str:
        """Which version a reader at that transaction sees."""
        number = sum(known <= xact for known in self.histories[object_id]) - 1
        return f"version {number} of {self.names[object_id]}"

    def assignments(self, object_id: str) -> Dict[str, str]:
        found = self.org.assignments(object_id)
        return {slug: self.version(object_id, xact) for slug, xact in found.items()}

    def pins(self, value: Any) -> Counter[str]:
        """A text for each pin inside the value that names something that moves."""
        found = (self._text(holder, name) for holder, name in _pins(value))
        return Counter(text for text in found if text)

    def _text(self, holder: Json, name: str) -> Optional[str]:
        if name in COMPARED:
            return None
        if holder.get("object_type") == "dataset":
            return self._row(holder, name)
        owner = next((item for item in holder.values() if _is_key(item, self.histories)), None)
        if owner not in self.names:
            return None
        return f"{name}: {self.version(str(owner), holder[name])}"

    def _row(self, origin: Json, name: str) -> Optional[str]:
        dataset_id = origin["object_id"]
        if dataset_id not in self.names:
            return None
        rows = self.org.rows("dataset", dataset_id, origin[name])
        content = [
            with_bytes(self.org, [row.get(field) for field in ROW_CONTENT])
            for row in rows
            if row["id"] == origin["id"]
        ]
        return f"{name}: row {origin['id']!r} of {self.names[dataset_id]}: {exact(content)}"


def _is_key(value: Any, table: Dict[str, Any]) -> bool:
    return isinstance(value, str) and value in table


def _pins(value: Any) -> Iterator[Tuple[Json, str]]:
    """(holder, field) of each transaction inside the value."""
    if isinstance(value, dict):
        for name, item in value.items():
            is_origin = name == "_xact_id" and "object_type" in value
            if is_pin("version" if is_origin else name, item):
                yield value, name
            yield from _pins(item)
    elif isinstance(value, list):
        for item in value:
            yield from _pins(item)


def sides_of(translation: Translation) -> Tuple[Side, Side]:
    pair = translation.pair
    moved = {source["id"]: dest["id"] for _, source, dest in translation.pairs}
    versions, there = {}, {}
    for kind, source, dest in _versioned(translation):
        versions[source["id"]] = _xacts(pair.source.versions(kind, source["id"]))
        there[dest["id"]] = _xacts(versions_there(translation, kind, source, dest))
    names = {dest_id: dest_id for dest_id in moved.values()}
    return Side(pair.source, moved, versions), Side(pair.dest, names, there)


def _xacts(versions: Iterable[Json]) -> List[str]:
    return [version["_xact_id"] for version in versions]


def pin_differences(translation: Translation) -> Iterator[str]:
    source_side, dest_side = sides_of(translation)
    for _, source, dest in _versioned(translation):
        wanted, found = source_side.assignments(source["id"]), dest_side.assignments(dest["id"])
        if wanted != found:
            yield f"{source['slug']!r}: assignments {wanted} became {found}"
    for label, source, dest in _holders(translation):
        pinned, there = source_side.pins(source), dest_side.pins(dest)
        yield from (f"{label}: {count} missing: {text}" for text, count in (pinned - there).items())
        yield from (
            f"{label}: {count} too many: {text}" for text, count in (there - pinned).items()
        )


def _holders(translation: Translation) -> Iterator[Tuple[str, Any, Any]]:
    """(name, source, destination) of each object, each version of one, and each row."""
    pair = translation.pair
    for kind, source, dest in translation.pairs:
        label = f"{kind} {source.get('name') or source['id']!r}"
        if kind in VERSIONED:
            versions = pair.source.versions(kind, source["id"])
            sides = zip(versions, versions_there(translation, kind, source, dest))
            for number, (version, there) in enumerate(sides):
                yield f"{label} version {number}", _content(kind, version), _content(kind, there)
        else:
            yield label, _content(kind, source), _content(kind, dest)
    for kind, source, dest in streams(translation):
        rows = {row["id"]: row for row in pair.dest.rows(kind, dest["id"])}
        for row in pair.source.rows(kind, source["id"]):
            label = f"{kind} {source['name']!r} row {row['id']!r}"
            yield label, _placed(row), _placed(rows.get(row["id"], {}))


def _content(kind: str, obj: Json) -> Json:
    return {name: obj.get(name) for name in (*KINDS[kind].create, "settings")}


def _placed(row: Json) -> Json:
    return {name: row.get(name) for name in ("origin", "metadata")}


def owner_differences(translation: Translation) -> Iterator[str]:
    """Projects that do not belong to the same user; to that of the key if there is no such user."""
    caller = translation.pair.dest.objects("user")[0]["id"]
    for kind, source, dest in translation.pairs:
        wanted = translation.ids.get(source.get("user_id"), caller)
        if kind == "project" and dest["user_id"] != wanted:
            yield f"project {source['name']!r}: belongs to {dest['user_id']} instead of {wanted}"


# -- what is stored


def source_ids(translation: Translation, findings: Iterable[Json]) -> Iterator[str]:
    """Stored values of the destination with an id, attachment or transaction of the source.

    Without the texts that a finding names: people wrote these, and they are left as they are.
    """
    pair = translation.pair
    forbidden = translation.foreign | _transactions(pair.source)
    forbidden |= {key for org_id, key in pair.sandbox.files.attachments if org_id == pair.source.id}
    said = {
        (record["id"], record["path"])
        for record in findings
        if record["kind"] == "source_id_in_text"
    }
    sources = {dest["id"]: source["id"] for _, source, dest in translation.pairs}
    for label, dest_id, value in stored(pair.dest, pair.sandbox.store):
        for path, text in _texts(value):
            held = forbidden.intersection([*UUID.findall(text), *TRANSACTION.findall(text)])
            if held and not _is_said(said, sources.get(dest_id, ""), path):
                yield f"{label} {path}: holds {sorted(held)} of the source"


def _is_said(said: Set[Tuple[str, str]], source_id: str, path: str) -> bool:
    """Whether a finding names this place, or the field of a row around it."""
    steps = path.split(".")
    places = (".".join(steps[:length]) for length in range(1, len(steps) + 1))
    return any((source_id, place) in said for place in places)


def _texts(value: Any, path: str = "") -> Iterator[Tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield f"{path} (a key)", str(name)
            yield from _texts(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, f"{path}[{number}]")
    elif isinstance(value, str):
        yield path, value


def stored(org: Any, store: Any) -> Iterator[Tuple[str, str, Any]]:
    """(name, id of the object, value) of all that an organization stores, present and past."""
    for kind in KINDS:
        for obj in org.objects(kind):
            history = store.entries[KINDS[kind].store].get(obj["id"])
            states = [obj, *(data for _, data in (history.history if history else ()))]
            for state in states:
                yield f"{kind} {obj['id']}", obj["id"], state
            if history:
                yield f"assignments of {kind} {obj['id']}", obj["id"], history.environments
    for kind, holder in ROWS_OF.items():
        for obj in org.objects(holder):
            held = row_set(store, (org.id,), kind, obj["id"])
            for row in [*held.rows, *(row for row, _ in held.past)]:
                yield f"{kind} {obj['name']!r} row {row.id!r}", obj["id"], row.value()
            for row_id, comments in held.comments.items():
                yield f"{kind} {obj['name']!r} comments of {row_id!r}", obj["id"], comments


def _transactions(org: Any) -> Set[str]:
    found = {
        version["_xact_id"]
        for kind in VERSIONED
        for obj in org.objects(kind)
        for version in org.versions(kind, obj["id"])
    }
    for kind, holder in ROWS_OF.items():
        for obj in org.objects(holder):
            found |= {row["_xact_id"] for row in org.rows(kind, obj["id"])}
            found |= set(TRANSACTION.findall(json.dumps(org.comments(kind, obj["id"]))))
    return found
