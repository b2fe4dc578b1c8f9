"""Source objects against the destination's, as they are now, field by field. Never writes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set

from bt_migrate.attachments.digests import UNREADABLE as UNREADABLE_BYTES
from bt_migrate.attachments.digests import AttachmentBytes
from bt_migrate.model.equality import differing_paths
from bt_migrate.model.references import attachment_places, value_at
from bt_migrate.model.resources import (
    ACLS,
    EXPERIMENTS,
    FUNCTIONS,
    PROJECT_SETTINGS,
    PROMPTS,
    Resource,
    is_servers_own,
)
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import comparable, display_name, natural_key, writable_fields
from bt_migrate.objects.prepare import PlannedObject, Prepared, not_placeable, prepare, skip_reason
from bt_migrate.verify.normalize import TOLERATED_OF_FINDING

MATCH, DIFFERS, MISSING, EXTRA, UNREADABLE = OUTCOMES = (
    "match",
    "differs",
    "missing",
    "extra",
    "unreadable",
)

MAX_PATHS = 50  # told of one object or row

Tell = Callable[[Dict[str, Any]], None]  # takes the record of what is no match


@dataclass
class Comparison:
    """Counts by outcome of one kind in one project. What is not a match is told at once and not kept."""

    resource: str
    project: str
    tell: Tell
    counts: Counter[str] = field(default_factory=Counter)
    since: Counter[str] = field(
        default_factory=Counter
    )  # of these counts: changes of the source since the copy
    tolerated: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: str, *, since: bool = False, **facts: Any) -> None:
        """`facts`: id and name of the object, and row, fields, detail, security where there are such."""
        self.counts[outcome] += 1
        if outcome == MATCH:
            return
        self.since[outcome] += since
        more = {
            name: value
            for name, value in {**facts, "changed_since_copy": since}.items()
            if value not in (None, "", [], False)
        }
        self.tell({"outcome": outcome, "resource": self.resource, "project": self.project, **more})


@dataclass(frozen=True)
class Bytes:
    """What lies behind the attachments of both sides."""

    source: AttachmentBytes
    dest: AttachmentBytes

    def close(self) -> None:
        self.source.close()
        self.dest.close()


def compare_objects(
    catalog: Catalog,
    resource: Resource,
    items: Sequence[PlannedObject],
    bytes_of: Bytes,
    result: Comparison,
    *,
    extras_in: Optional[str],
) -> None:
    """Every movable source object against the destination's object of the same natural key; what the destination has beyond in
    the project `extras_in` ("" for the organization, None not to look) is extra.
    """
    matched: Set[tuple] = set()
    for item in items:
        if skip_reason(catalog, resource, item.source):
            continue
        prepared = prepare(catalog, resource, item)
        if not_placeable(resource, item.source, prepared.body):
            result.tolerated["left_out"] += 1
            continue
        key = natural_key(resource, prepared.body if resource.scope == "object" else item.source)
        existing = catalog.dest_by_key(resource, item.dest_project_id).get(key)
        facts = {"id": item.source["id"], "name": display_name(resource, item.source)}
        if existing is None:
            result.add(MISSING, **facts)
            continue
        matched.add(key)
        for finding in prepared.findings:
            shown = finding["kind"] == "made_private" and existing.get("public")
            if finding["kind"] in TOLERATED_OF_FINDING and not shown:
                result.tolerated[TOLERATED_OF_FINDING[finding["kind"]]] += 1
        body = prepared.body
        result.tolerated["reference"] += sum(
            name in body and body[name] != item.source.get(name) for name in resource.create
        )
        paths = first_paths(
            _differing(catalog, resource, item, prepared, existing, bytes_of, result.tolerated)
        )
        opened = resource is EXPERIMENTS and "public" in paths and bool(existing.get("public"))
        result.add(DIFFERS if paths else MATCH, **facts, fields=paths, security=opened)
    if (
        extras_in is not None and resource is not PROJECT_SETTINGS
    ):  # settings are a part of their project
        ours = matched | {
            natural_key(resource, item.source) for item in items
        }  # also what stands for what cannot move
        ours |= _of_the_other_kind(catalog, resource, extras_in)
        for key, existing in catalog.dest_by_key(resource, extras_in).items():
            if key not in ours and not is_servers_own(resource.name, existing):
                _add_extra(resource, existing, result)
        for existing in catalog.dest_doubles(resource, extras_in):
            _add_extra(resource, existing, result, detail="there more than once")


def _add_extra(
    resource: Resource, existing: Mapping[str, Any], result: Comparison, detail: str = ""
) -> None:
    opens = resource is ACLS or (resource is EXPERIMENTS and bool(existing.get("public")))
    result.add(
        EXTRA,
        id=existing["id"],
        name=display_name(resource, existing),
        detail=detail,
        security=opens,
    )


def first_paths(paths: Iterator[str]) -> List[str]:
    """As many paths as are told of one object or row; where there are more, the last is "…"."""
    found = list(islice(paths, MAX_PATHS + 1))
    return found if len(found) <= MAX_PATHS else [*found[:-1], "…"]


def _of_the_other_kind(catalog: Catalog, resource: Resource, dest_project: str) -> Set[tuple]:
    """Prompts and functions are one store: keys of what is judged as the other of the two."""
    if resource is FUNCTIONS:
        return {
            natural_key(resource, one)
            for one in catalog.dest_by_key(PROMPTS, dest_project).values()
        }
    if resource is PROMPTS:
        found = catalog.source_list(FUNCTIONS)
        return {
            natural_key(resource, one)
            for one in found
            if catalog.resolve(("projects",), one["project_id"]) == dest_project
        }
    return set()


def _differing(
    catalog: Catalog,
    resource: Resource,
    item: PlannedObject,
    prepared: Prepared,
    existing: Mapping[str, Any],
    bytes_of: Bytes,
    tolerated: Counter[str],
) -> Iterator[str]:
    """Paths at which the destination's object is not what the source's should have become."""
    expected = _with_bytes(
        prepared.body, _originals(resource, item.source, prepared.body), bytes_of.source
    )
    found = {name: existing.get(name) for name in resource.create}
    found = _with_bytes(
        found, [value_at(found, path) for path in attachment_places(found)], bytes_of.dest
    )
    tolerated["attachment"] += len(attachment_places(expected))
    expected, found = comparable(expected), comparable(found)
    if item.source.get("public") and resource is EXPERIMENTS and not catalog.settings.keep_public:
        found.pop("public")  # public or not: the source shows it to everybody
    for name in resource.create:
        left, right = expected.get(name), found.get(name)
        if left or right:
            yield from differing_paths(left, right, name, tolerated, nulls_count=False)
        elif left is not right:
            tolerated["unset"] += 1


def _originals(resource: Resource, source: dict, body: Mapping[str, Any]) -> List[Any]:
    """The attachments of the body as the source knows them."""
    fields = writable_fields(resource, source)
    return [value_at(fields, path) for path in attachment_places(body)]


def _with_bytes(
    value: Dict[str, Any], references: Sequence[Any], attachments: AttachmentBytes
) -> Dict[str, Any]:
    """The value with what stands for the bytes in the place of each attachment's key; the value itself where it has none."""
    for path, reference in zip(attachment_places(value), references):
        mark = attachments.mark(reference) if isinstance(reference, dict) else UNREADABLE_BYTES
        value = _put(value, (*path, "key"), mark)
    return value


def _put(value: Any, path: tuple, new: Any) -> Any:
    """The value with another one at the path; nothing is changed in place."""
    if not path:
        return new
    copied = list(value) if isinstance(value, list) else dict(value)
    copied[path[0]] = _put(value[path[0]], path[1:], new)
    return copied
