"""Compares a destination with its source from the sandbox's data, without code of the migration.

Objects are matched by natural key, ids are translated, and each writable field and row is compared
exactly. What a migration changes by design is written down here once: users who are not in the
destination are left out, versions (transactions of the source) are removed, attachments get other
keys and the same bytes, public experiments become private, bundles and topic maps stay.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, Tuple

from bt_migrate.sandbox.data.rows import CONTENT, SPAN_IDS
from bt_migrate.sandbox.data.schema import KINDS, NEVER_READ
from tests.support.orgs import ROWS_OF, Json, Pair

SETS = frozenset(
    "member_users member_groups member_roles member_permissions member_projects".split()
)  # lists without an order
PINS = frozenset("version prompt_version parameters_version dataset_version xact_id".split())
# kind -> the field that names a state of the dataset `dataset_id`
STATES = {"experiment": "dataset_version", "dataset_snapshot": "xact_id"}
TRANSACTION = re.compile(r"\d{19}")
UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
USER_CONTENT = ("input", "output", "expected", "error")
PLACED = ("origin", "metadata", "context", "span_attributes")  # where ids of a row are references
GONE, ABSENT = "<has no counterpart>", "<absent>"


def _natural_keys() -> Dict[str, Tuple[str, ...]]:
    """Kind -> natural key, in an order in which the ids inside the keys are known."""
    keys = {
        kind.name: tuple(name for name in kind.unique[0] if name != "org_id")
        for kind in KINDS.values()
        if kind.unique and (kind.path or kind.in_project)
    }

    def depth(name: str) -> int:
        """Levels of objects that a key needs; an owner of any kind comes after all of these."""
        targets = [target for path, target in KINDS[name].links if path in keys[name]]
        if any(target.startswith("@") for target in targets):
            return len(keys)
        return 1 + max((depth(target) for target in targets), default=0)

    return {name: keys[name] for name in sorted(keys, key=depth)}


NATURAL_KEYS = _natural_keys()


class Translation:
    """Source id -> destination id by natural key, and what could not be matched."""

    def __init__(
        self,
        pair: Pair,
        projects: Optional[Set[str]] = None,
        kinds: Optional[Iterable[str]] = None,
        *,
        versions: bool = False,
    ) -> None:
        self.pair, self.ids = pair, {pair.source.id: pair.dest.id}
        self.versions = versions
        self.projects = projects
        self.foreign = _ids_of(pair.source) - _ids_of(pair.dest)
        self.pairs: List[Tuple[str, Json, Json]] = []
        self.problems: List[str] = []
        knows_later = pair.sandbox.store.behaviour.knows_october_2026
        for kind in NATURAL_KEYS:
            if KINDS[kind].is_later and not knows_later:
                continue  # neither side shows the kind
            self._match(kind, kinds is None or kind in kinds)

    def _match(self, kind: str, wanted: bool) -> None:
        by_key: Dict[str, List[Json]] = {}
        for found in self.pair.dest.objects(kind):
            by_key.setdefault(self._key(kind, found, {}), []).append(found)
        self.problems += [
            f"{kind} twice in the destination: {key}"
            for key, found in by_key.items()
            if len(found) > 1
        ]
        expected = set()
        for obj in self.pair.source.objects(kind):
            key = self._key(kind, obj, self.ids)
            if self._stays(kind, obj):
                continue
            expected.add(key)
            if key in by_key:
                self.ids[obj["id"]] = by_key[key][0]["id"]
                self.pairs.append((kind, obj, by_key[key][0]))
            elif wanted and kind != "user":
                self.problems.append(f"{kind} missing: {key}")
        if kind != "user":
            self.problems += [
                f"{kind} that the source does not have: {key}"
                for key in by_key
                if key not in expected
            ]

    def _key(self, kind: str, obj: Json, ids: Dict[str, str]) -> str:
        return json.dumps([ids.get(obj[name], obj[name]) for name in NATURAL_KEYS[kind]])

    def has(self, kind: str, obj: Json) -> bool:
        """Whether a source object has its counterpart, or stays for a good reason."""
        return obj["id"] in self.ids or obj["id"] not in self.foreign or self._stays(kind, obj)

    def _stays(self, kind: str, obj: Json) -> bool:
        """What no API can carry, and what belongs to such things or is not selected."""
        data = obj.get("function_data") or {}
        if kind == "dataset_snapshot" and not self.has_state(obj, "xact_id"):
            return True
        if kind == "function" and (
            data.get("type") == "topic_map" or (data.get("data") or {}).get("type") == "bundle"
        ):
            return True
        if kind == "project_automation" and obj["config"]["event_type"] == "async_query":
            return True
        if self.projects is not None and (obj["name"] if kind == "project" else None) not in (
            None,
            *self.projects,
        ):
            return True
        owners = (
            "project_id",
            "object_id",
            *(("user_id", "group_id", "role_id") if kind == "acl" else ()),
        )
        return any(obj.get(name) in self.foreign and obj[name] not in self.ids for name in owners)

    def has_state(self, obj: Json, pin: str) -> bool:
        """Whether the destination can have the state of a dataset that an object names.

        Without earlier versions that is the present one, and none of a dataset that is gone.
        """
        source = self.pair.source
        if obj["dataset_id"] not in {entry["id"] for entry in source.objects("dataset")}:
            return False
        then = source.rows("dataset", obj["dataset_id"], obj[pin])
        return self.versions or then == source.rows("dataset", obj["dataset_id"])

    def of(self, value: Any) -> Any:
        """The value with source ids replaced and versions of the source removed."""
        if isinstance(value, dict):
            return {name: self.of(item) for name, item in value.items() if not is_pin(name, item)}
        if isinstance(value, list):
            return [self.of(item) for item in value]
        return (
            self.ids.get(value, GONE) if isinstance(value, str) and value in self.foreign else value
        )

    def of_queries(self, kind: str, fields: Json) -> Json:
        """The fields with the ids in the texts of queries replaced, of what has a counterpart."""

        keys = KINDS[kind].queries

        def inside(value: Any, is_query: bool) -> Any:
            if isinstance(value, dict):
                return {name: inside(item, name in keys) for name, item in value.items()}
            if isinstance(value, list):
                return [inside(item, is_query) for item in value]
            if not is_query or not isinstance(value, str):
                return value
            return UUID.sub(lambda found: self.ids.get(found[0], found[0]), value)

        return inside(fields, False) if keys else fields


def is_pin(name: str, value: Any) -> bool:
    return name in PINS and isinstance(value, str) and TRANSACTION.fullmatch(value) is not None


def without_versions(value: Any) -> Any:
    """The value without versions, whose content `version_differences` compares."""
    if isinstance(value, dict):
        return {
            name: without_versions(item) for name, item in value.items() if not is_pin(name, item)
        }
    return [without_versions(item) for item in value] if isinstance(value, list) else value


def _ids_of(org: Any) -> Set[str]:
    return {org.id} | {obj["id"] for kind in KINDS for obj in org.objects(kind)}


def with_bytes(org: Any, value: Any) -> Any:
    """The value with every attachment's key replaced by the digest of its bytes."""
    if isinstance(value, list):
        return [with_bytes(org, item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "braintrust_attachment" and "key" in value:
        content = org.attachment(value["key"])
        digest = (
            f"no bytes under {value['key']} in {org.name}"
            if content is None
            else hashlib.sha256(content).hexdigest()
        )
        return {**value, "key": digest}
    return {name: with_bytes(org, item) for name, item in value.items()}


# -- comparing values


def exact(value: Any) -> str:
    """A text that is equal for equal values only: 1 is not 1.0, -0.0 is not 0.0."""
    return json.dumps(value, sort_keys=True)


def unequal(expected: Any, actual: Any, path: str) -> Iterator[str]:
    """The paths at which a value is not as expected.

    The holder of an unresolved reference may be missing as a whole.
    """
    if expected == GONE:
        if actual != ABSENT and actual is not None:
            yield f"{path}: names something that is not in the destination: {exact(actual)[:80]}"
    elif isinstance(expected, dict) and isinstance(actual, dict):
        for name in sorted({*expected, *actual}):
            yield from unequal(
                expected.get(name, ABSENT), actual.get(name, ABSENT), f"{path}.{name}"
            )
    elif isinstance(expected, list) and isinstance(actual, list):
        yield from _unequal_lists(expected, actual, path)
    elif not (actual in (ABSENT, None) and _is_broken(expected)) and exact(expected) != exact(
        actual
    ):
        yield f"{path}: {exact(expected)[:80]} became {exact(actual)[:80]}"


def _is_broken(value: Any, depth: int = 2) -> bool:
    """Whether the value is useless because what it refers to is not there."""
    if value == GONE:
        return True
    return (
        isinstance(value, dict)
        and depth > 0
        and any(_is_broken(item, depth - 1) for item in value.values())
    )


def _unequal_lists(expected: List[Any], actual: List[Any], path: str) -> Iterator[str]:
    position = 0
    for number, item in enumerate(expected):
        here = actual[position] if position < len(actual) else ABSENT
        problems = list(unequal(item, here, f"{path}[{number}]"))
        if _is_broken(item) and (problems or here == ABSENT):
            continue
        yield from problems
        position += 1
    if position != len(actual):
        yield f"{path}: {len(actual)} items instead of {position}"


# -- objects


def object_differences(translation: Translation) -> Iterator[str]:
    for kind, source, dest in translation.pairs:
        if kind == "user" or (kind == "role" and source["org_id"] is None):
            continue
        yield from object_difference(translation, kind, source, dest)


def object_difference(
    translation: Translation, kind: str, source: Json, dest: Json
) -> Iterator[str]:
    """In what an object of the destination, or a version of it, is not what the source's is."""
    pair = translation.pair
    fields = [name for name in KINDS[kind].create if name not in NEVER_READ] + (
        ["settings"] if kind == "project" else []
    )
    wanted = translation.of(
        with_bytes(
            pair.source, {name: source[name] for name in fields if source.get(name) is not None}
        )
    )
    wanted = translation.of_queries(kind, wanted)
    if kind == "experiment":
        wanted["public"] = False
    found = without_versions(
        with_bytes(pair.dest, {name: dest[name] for name in fields if dest.get(name) is not None})
    )
    if kind == "view" and wanted.get("user_id", GONE) == GONE:
        _drop_caller(pair, found)
    for name in SETS:
        for entry in (wanted, found):
            if name in entry:
                entry[name] = sorted((item for item in entry[name] if item != GONE), key=exact)
                if not entry[name]:
                    del entry[name]
    yield from unequal(
        wanted, found, f"{kind} {source.get('slug') or source.get('name') or source['id']!r}"
    )


def version_differences(translation: Translation) -> Iterator[str]:
    """States of datasets that are named in the destination and are not what the source names."""
    pair = translation.pair
    for kind, source, dest in translation.pairs:
        pin = STATES.get(kind, "")
        if not source.get(pin) or not dest.get("dataset_id"):
            continue
        where = f"{kind} {source['name']!r} {pin}"
        if not dest.get(pin):
            if translation.has_state(source, pin):
                yield f"{where}: missing"
            continue
        then = pair.source.rows("dataset", source["dataset_id"], source[pin])
        there = pair.dest.rows("dataset", dest["dataset_id"], dest[pin])
        by_id = {row["id"]: row for row in there}
        ids = sorted(row["id"] for row in then)
        if ids != sorted(row["id"] for row in there):
            yield f"{where}: rows {ids} became {sorted(by_id)}"
            continue
        for row in then:
            yield from unequal_row(translation, "dataset", row, by_id[row["id"]], where)


def _drop_caller(pair: Pair, view: Json) -> None:
    """A view that is created without a user belongs to the user of the key."""
    if view.get("user_id") == pair.dest.objects("user")[0]["id"]:
        del view["user_id"]


def position_differences(translation: Translation) -> Iterator[str]:
    """Not among `differences`: scores and tags are shown in an order that only creation sets
    (online scores come when the data is there)."""
    for kind in ("project_score", "project_tag"):
        orders: List[List[str]] = []
        for side in (1, 2):
            chosen = [
                entry[side]
                for entry in translation.pairs
                if entry[0] == kind and entry[1].get("score_type") != "online"
            ]
            projects = {
                entry[side]["project_id"]: entry[1]["project_id"]
                for entry in translation.pairs
                if entry[0] == kind
            }
            chosen.sort(key=lambda member: (projects[member["project_id"]], member["position"]))
            orders.append([item["name"] for item in chosen])
        if orders[0] != orders[1]:
            yield f"{kind}: order {orders[0]} became {orders[1]}"


# -- rows


def streams(translation: Translation) -> Iterator[Tuple[str, Json, Json]]:
    """(kind of rows, source object, destination object) of every pair that holds rows."""
    for kind, holder in ROWS_OF.items():
        for found, source, dest in translation.pairs:
            if found == holder:
                yield kind, source, dest


def expected_row(translation: Translation, kind: str, row: Json) -> Json:
    """The insertable fields of a source row as they should be in the destination."""
    wanted = {name: row.get(name) for name in ("id", "created", *SPAN_IDS, *CONTENT[kind])}
    origin = wanted["origin"]
    if origin:
        wanted["origin"] = {name: value for name, value in origin.items() if name != "_xact_id"}
    return {
        name: translation.of(value) if name in PLACED else value for name, value in wanted.items()
    }


def row_differences(translation: Translation, chosen: Any = None) -> Iterator[str]:
    """`chosen`(kind, object, row) says which rows are to be there; without it all of them."""
    pair = translation.pair
    for kind, source, dest in streams(translation):
        where = f"{kind} {source['name']!r}"
        rows = [
            row
            for row in pair.source.rows(kind, source["id"])
            if chosen is None or chosen(kind, source, row)
        ]
        found = pair.dest.rows(kind, dest["id"])
        counted = Counter(row["id"] for row in found)
        yield from (
            f"{where}: row {row_id!r} is there {count} times"
            for row_id, count in counted.items()
            if count > 1
        )
        by_id = {row["id"]: row for row in found}
        yield from (f"{where}: row {row['id']!r} missing" for row in rows if row["id"] not in by_id)
        yield from (
            f"{where}: row {row_id!r} too much"
            for row_id in by_id.keys() - {row["id"] for row in rows}
        )
        for row in rows:
            if row["id"] in by_id:
                yield from unequal_row(translation, kind, row, by_id[row["id"]], where)


def unequal_row(
    translation: Translation, kind: str, row: Json, found: Json, where: str = ""
) -> List[str]:
    pair = translation.pair
    wanted = with_bytes(pair.source, expected_row(translation, kind, row))
    actual = with_bytes(pair.dest, {name: found.get(name) for name in wanted})
    actual.update({name: without_versions(actual[name]) for name in PLACED if name in actual})
    if actual["origin"]:
        actual["origin"] = {k: v for k, v in actual["origin"].items() if k != "_xact_id"}
    if exact(wanted) == exact(actual):
        return []
    problems = []
    for name, value in wanted.items():
        if name in PLACED:
            problems += list(unequal(value, actual[name], f"{where} row {row['id']!r} {name}"))
        elif exact(value) != exact(actual[name]):
            problems.append(
                f"{where} row {row['id']!r} {name}: {exact(value)[:80]} became "
                f"{exact(actual[name])[:80]}"
            )
    return problems


def not_there(translation: Translation) -> Set[Tuple[str, str]]:
    """(id, "") of each missing source object, and (object id, row id) of each missing row."""
    source = translation.pair.source
    found = {
        (obj["id"], "")
        for kind in NATURAL_KEYS
        for obj in source.objects(kind)
        if kind != "user" and not translation.has(kind, obj)
    }
    for kind, holder, dest in streams(translation):
        there = {row["id"] for row in translation.pair.dest.rows(kind, dest["id"])}
        rows = source.rows(kind, holder["id"])
        found.update((holder["id"], row["id"]) for row in rows if row["id"] not in there)
    return found


# -- leftovers


def leftovers(translation: Translation) -> Iterator[str]:
    """Places of the destination that still hold an id, or an attachment key, of the source."""
    pair = translation.pair
    keys = {key for org_id, key in pair.sandbox.files.attachments if org_id == pair.source.id}
    for kind in KINDS:
        for obj in pair.dest.objects(kind):
            yield from _holding(obj, translation.foreign | keys, f"{kind} {obj['id']}")
    for kind, holder in ROWS_OF.items():
        for item in pair.dest.objects(holder):
            for row in pair.dest.rows(kind, item["id"]):
                for name, value in row.items():
                    forbidden = keys if name in USER_CONTENT else translation.foreign | keys
                    yield from _holding(value, forbidden, f"{kind} row {row['id']!r} {name}")


def unsaid_mentions(pair: Pair, findings: Iterable[Json]) -> List[str]:
    """Objects whose texts hold an id of the source that no finding names: every stored value."""
    translation = Translation(pair)
    told = {(record["id"], record["ref"]) for record in findings if record.get("ref")}
    return [
        f"{kind} {dest.get('name')!r} holds {found} of the source"
        for kind, source, dest in translation.pairs
        for found in sorted(set(UUID.findall(json.dumps(dest))) & translation.foreign)
        if (source["id"], found) not in told
    ]


def _holding(value: Any, forbidden: Set[str], path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if name in forbidden:
                yield f"{path}: a key is {name} of the source"
            yield from _holding(item, forbidden, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from _holding(item, forbidden, f"{path}[]")
    elif isinstance(value, str) and value in forbidden:
        yield f"{path}: holds {value} of the source"


# -- all


def differences(pair: Pair, *, versions: bool = False) -> List[str]:
    """Everything in which the destination is not what the source is; [] if it is its equal.

    `versions`: earlier states of datasets were moved too.
    """
    translation = Translation(pair, versions=versions)
    found = list(translation.problems)
    found += object_differences(translation)
    found += version_differences(translation)
    found += row_differences(translation)
    found += leftovers(translation)
    return found
