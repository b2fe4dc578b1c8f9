"""Compare the objects of both organizations field by field, as they are now. Never writes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set

from bt_migrate.api.transactions import xact_of, xact_of_version
from bt_migrate.attachments.digests import UNREADABLE as UNREADABLE_BYTES
from bt_migrate.attachments.digests import AttachmentBytes
from bt_migrate.model.activation import missing_words
from bt_migrate.model.equality import differing_paths
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.outcomes import DIFFERS, NOT_KNOWN_THERE, READY_TO_ACTIVATE
from bt_migrate.model.references import (
    Path,
    attachment_places,
    paths_matching,
    value_at,
    without,
)
from bt_migrate.model.resource import OWNER, Resource
from bt_migrate.model.resource_table import FUNCTIONS, PROMPTS
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import (
    NaturalKey,
    comparable,
    display_name,
    natural_key,
    writable_fields,
)
from bt_migrate.objects.prepare import (
    PlannedObject,
    Prepared,
    expected_body,
    not_placeable,
    prepare,
    skip_reason,
    waits_for,
    with_versions_there,
)
from bt_migrate.objects.update import difference_of
from bt_migrate.objects.version_mapping import has_same_number
from bt_migrate.verify.normalize import TOLERATED_OF_FINDING
from bt_migrate.verify.pairs import BothAttachments
from bt_migrate.verify.renamed import counterpart_of
from bt_migrate.verify.result import (
    CANNOT_MOVE,
    EXTRA,
    MATCH,
    MISSING,
    ONLY_IN_DEST,
    Comparison,
    first_paths,
)
from bt_migrate.verify.traces import SourceTraces, kept_transactions
from bt_migrate.verify.versions import (
    VERSIONS,
    ComparedVersions,
    as_first_written,
    compared_versions,
)


@dataclass(frozen=True)
class KindComparer:
    """Compares the objects of one kind in one project, or in the organization."""

    catalog: Catalog
    resource: Resource
    attachments: BothAttachments
    result: Comparison
    traces: SourceTraces

    def compare(self, items: Sequence[PlannedObject], *, extras_in: Optional[str]) -> None:
        """Add an outcome for every source object that can move.

        `extras_in`: the destination project whose other objects are extra; "" for the
        organization, None to ignore them.
        """
        self.traces.note_ids(item.source for item in items)
        matched = {key for key in map(self._compare_object, items) if key is not None}
        # Settings are part of their project, so none can be extra.
        if extras_in is not None and not self.resource.part_of:
            self._add_extras(extras_in, matched | self._expected_keys(items, extras_in))

    def _compare_object(self, item: PlannedObject) -> Optional[NaturalKey]:
        """Returns the natural key of the destination's object, None if there is none."""
        catalog, resource = self.catalog, self.resource
        if skip_reason(catalog, resource, item.source):
            self._add_unmovable(item)
            return None
        prepared = prepare(catalog, resource, item)
        key = natural_key(resource, prepared.body if resource.key_holds_ids else item.source)
        existing = counterpart_of(catalog, resource, item, key)
        prepared = with_versions_there(catalog, resource, item, prepared, existing)
        body = expected_body(catalog, resource, prepared, existing)
        misplaced = not_placeable(resource, item.source, body)
        if misplaced:
            name = display_name(resource, item.source)
            outcome = MISSING if waits_for(resource, prepared) else CANNOT_MOVE
            facts = {"id": item.source["id"], "name": name, "detail": misplaced}
            self.result.add(
                outcome, **facts, fingerprint=difference_of(resource, item.source, None)
            )
            return None
        facts = {
            "id": item.source["id"],
            "name": display_name(resource, item.source),
            "fingerprint": difference_of(resource, item.source, existing),
        }
        reason = "" if existing else self._reason_to_be_missing(item)
        if reason:
            self.result.add(CANNOT_MOVE, **facts, detail=reason)
            return None
        if existing is None:
            self.result.add(MISSING, **facts)
            return None
        if resource.scope == OWNER:
            # Objects that are compared later may refer to this one.
            catalog.ids.put(resource.name, item.source["id"], existing["id"])
        self._count_tolerated(item, prepared, existing)
        self._add_compared(item, prepared, existing, facts)
        return natural_key(resource, existing)

    def _add_compared(
        self,
        item: PlannedObject,
        prepared: Prepared,
        existing: Dict[str, Any],
        facts: Dict[str, Any],
    ) -> None:
        """Add the outcome for an object that both sides have."""
        versions = self._versions(item, existing)
        differing = [
            *self._differing(item, prepared, existing),
            *self._version_paths(item, versions),
        ]
        paths = first_paths(iter(dict.fromkeys(differing)))
        opened = "public" in paths and bool(existing.get("public"))
        outcome = DIFFERS if paths else CANNOT_MOVE if versions.missing else MATCH
        detail = f"{versions.missing:,} earlier versions" if versions.missing else ""
        self.result.add(outcome, **facts, fields=paths, security=opened, detail=detail)
        if outcome == MATCH:
            held = {name: existing.get(name) for name in self.resource.create}
            self.traces.hold(self.result, facts, held)

    def _reason_to_be_missing(self, item: PlannedObject) -> str:
        """Returns why the destination does not need the object, "" if it should have it."""
        catalog, resource = self.catalog, self.resource
        if resource.name in catalog.lists.unknown_there:
            return NOT_KNOWN_THERE
        words = missing_words(resource.acts(item.source), catalog.settings.activate)
        return f"{READY_TO_ACTIVATE}: {', '.join(words)}" if words else ""

    def _versions(self, item: PlannedObject, existing: Mapping[str, Any]) -> ComparedVersions:
        """Returns the earlier versions of an object; none if they were not asked for."""
        if not (self.resource.versioned and self.catalog.settings.history):
            return ComparedVersions([], 0, is_broken=False)
        return compared_versions(self.catalog, self.resource, item.source, existing)

    def _version_paths(self, item: PlannedObject, versions: ComparedVersions) -> Iterator[str]:
        """Returns what differs in earlier versions.

        On both sides they have the latest natural key.
        """
        if versions.is_broken:
            yield VERSIONS
        key = {name: item.source.get(name) for name in self.resource.key}
        for pair in versions.pairs:
            source, there = {**pair.source, **key}, {**pair.dest, **key}
            paths = list(self._differing_version(item, source, there))
            early = as_first_written(self.catalog, self.resource, source)
            if paths and early is not None:
                paths = list(self._differing_version(item, early, there))
                self.result.tolerated["left_out"] += not paths
            yield from (pair.named(path) for path in paths)

    def _differing_version(
        self, item: PlannedObject, source: JsonObject, existing: Mapping[str, Any]
    ) -> Iterator[str]:
        version = replace(item, source=source)
        prepared = prepare(self.catalog, self.resource, version)
        later = [
            place
            for pin in self.resource.pins
            for place in paths_matching(prepared.body, pin.path)
            if xact_of_version(value_at(prepared.body, place)) > xact_of(existing["_xact_id"])
        ]
        # A start without --history wrote this version before the one that it names.
        self.result.tolerated["version"] += len(later)
        prepared.body = without(prepared.body, later)
        return self._differing(version, prepared, existing)

    def _add_unmovable(self, item: PlannedObject) -> None:
        """Count an object that the API cannot carry, unless somebody made it by hand."""
        source, resource = item.source, self.resource
        reason = resource.cannot_move(source)
        if not reason or resource.servers_own(source) or resource.part_of:
            return
        there = self.catalog.index.by_key(resource, item.dest_project_id)
        if natural_key(resource, source) not in there:
            name = display_name(resource, source)
            self.result.add(CANNOT_MOVE, id=source["id"], name=name, detail=reason)

    def _count_tolerated(
        self, item: PlannedObject, prepared: Prepared, existing: Mapping[str, Any]
    ) -> None:
        tolerated = self.result.tolerated
        for finding in prepared.findings:
            kind = finding["kind"]
            still_public = kind == "made_private" and existing.get("public")
            if kind in TOLERATED_OF_FINDING and not still_public:
                tolerated[TOLERATED_OF_FINDING[kind]] += 1
        body = prepared.body
        tolerated["owner"] += sum(
            body.get(name, existing.get(name)) != existing.get(name)
            for name in self.resource.if_ours
        )
        tolerated["reference"] += sum(
            name in body and body[name] != item.source.get(name) for name in self.resource.create
        )

    def _differing(
        self, item: PlannedObject, prepared: Prepared, existing: Mapping[str, Any]
    ) -> Iterator[str]:
        """Returns the paths at which the destination's object is not what it should be."""
        resource, tolerated = self.resource, self.result.tolerated
        expected = _with_digests(
            expected_body(self.catalog, resource, prepared, existing),
            _originals(resource, item.source, prepared.body),
            self.attachments.source,
        )
        actual = {name: existing.get(name) for name in resource.create}
        references = [value_at(actual, path) for path in attachment_places(actual)]
        actual = _with_digests(actual, references, self.attachments.dest)
        tolerated["attachment"] += len(attachment_places(expected))
        expected, actual = comparable(expected), comparable(actual)
        for name in _fields_without_user(prepared):
            # Without a user in the request, the destination sets its caller.
            if name not in expected:
                actual.pop(name, None)
        keeps_public = self.catalog.settings.keep_public
        if "public" in actual and item.source.get("public") and not keeps_public:
            # The source shows it to everybody, so it may be public or not.
            actual.pop("public")
        different = list(_differing_fields(resource, expected, actual, tolerated))
        if different:
            self.attachments.note_wrong(writable_fields(resource, item.source), dict(existing))
        yield from different
        for path, version in kept_transactions(writable_fields(resource, item.source), actual):
            if not has_same_number(self.catalog.run, version):
                yield path

    def _expected_keys(self, items: Sequence[PlannedObject], dest_project: str) -> Set[NaturalKey]:
        """Returns the natural keys that are not extra, also of source objects that cannot move."""
        keys = {natural_key(self.resource, item.source) for item in items}
        return keys | self._keys_of_the_twin_kind(dest_project)

    def _keys_of_the_twin_kind(self, dest_project: str) -> Set[NaturalKey]:
        """Returns keys of the other kind, because the API stores prompts and functions together.

        They are compared there, so they are not extra here.
        """
        catalog, resource = self.catalog, self.resource
        if resource is FUNCTIONS:
            prompts = catalog.index.by_key(PROMPTS, dest_project).values()
            return {natural_key(resource, prompt) for prompt in prompts}
        if resource is PROMPTS:
            return {
                natural_key(resource, function)
                for function in catalog.lists.source_list(FUNCTIONS)
                if catalog.targets.resolve(("projects",), function["project_id"]) == dest_project
            }
        return set()

    def _add_extras(self, dest_project: str, expected: Set[NaturalKey]) -> None:
        catalog, resource = self.catalog, self.resource
        for key, existing in catalog.index.by_key(resource, dest_project).items():
            if key not in expected and not resource.servers_own(existing):
                self._add_extra(self._outcome_of_extra(existing), existing)
        for existing in catalog.index.doubles(resource, dest_project):
            self._add_extra(EXTRA, existing, detail="there more than once")

    def _outcome_of_extra(self, existing: Mapping[str, Any]) -> str:
        """Of an object that the source does not have. One that others made is no difference, unless
        it may show to more people what was moved.
        """
        made = existing["id"] in self.catalog.earlier.created(self.resource.name)
        return EXTRA if made or self._is_open(existing) else ONLY_IN_DEST

    def _is_open(self, existing: Mapping[str, Any]) -> bool:
        return self.resource.grants_access or bool(existing.get("public"))

    def _add_extra(self, outcome: str, existing: Mapping[str, Any], *, detail: str = "") -> None:
        self.result.add(
            outcome,
            id=existing["id"],
            name=display_name(self.resource, existing),
            detail=detail,
            security=self._is_open(existing),
            fingerprint=difference_of(self.resource, None, existing),
        )


def _fields_without_user(prepared: Prepared) -> List[str]:
    """Returns the fields whose user has no counterpart in the destination."""
    return [
        finding["path"]
        for finding in prepared.findings
        if finding["kind"] == "user_without_counterpart" and "path" in finding
    ]


def _differing_fields(
    resource: Resource,
    expected: Mapping[str, Any],
    actual: Mapping[str, Any],
    tolerated: Counter[str],
) -> Iterator[str]:
    for name in (name for name in resource.create if name not in resource.if_ours):
        left, right = expected.get(name), actual.get(name)
        if left or right:
            yield from differing_paths(left, right, name, tolerated, nulls_count=False)
        elif left is not right:
            tolerated["unset"] += 1


def _originals(resource: Resource, source: JsonObject, body: Mapping[str, Any]) -> List[Any]:
    """Returns the attachments of the body as the source refers to them."""
    fields = writable_fields(resource, source)
    return [value_at(fields, path) for path in attachment_places(body)]


def _with_digests(
    value: Dict[str, Any], references: Sequence[Any], attachments: AttachmentBytes
) -> Dict[str, Any]:
    """Returns the value with each attachment key replaced by the digest of its bytes.

    The value itself if it has no attachments.
    """
    for path, reference in zip(attachment_places(value), references):
        mark = attachments.mark(reference) if isinstance(reference, dict) else UNREADABLE_BYTES
        value = _replaced(value, (*path, "key"), mark)
    return value


def _replaced(value: Any, path: Path, new: Any) -> Any:
    """Returns a copy of the value with `new` at the path."""
    if not path:
        return new
    copied = list(value) if isinstance(value, list) else dict(value)
    copied[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copied
