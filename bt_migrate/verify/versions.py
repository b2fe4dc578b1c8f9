"""Compare the versions of prompts and functions, in order. Never writes."""

from __future__ import annotations

from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from bt_migrate.config.values import EARLIER_VERSIONS
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.references import paths_matching, rewrite, without
from bt_migrate.model.resource import Pin, Resource
from bt_migrate.model.resources import AFTER_VERSIONED
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.pins import pairs_of_versions
from bt_migrate.state.run_directory import RunDirectory

VERSIONS = "versions"  # field reported for an object with a wrong number of versions


class VersionPair(NamedTuple):
    """A version of the source and its counterpart; `number` counts from 1, `of` is the last."""

    number: int
    of: int
    source: JsonObject
    dest: JsonObject

    def named(self, path: str) -> str:
        return f"version {self.number} of {self.of}: {path}"


class ComparedVersions(NamedTuple):
    """`missing`: how many versions the run reported as left, or the API cannot carry.

    `is_broken`: other versions are missing, or there are too many.
    """

    pairs: List[VersionPair]
    missing: int
    is_broken: bool


def compared_versions(
    catalog: Catalog, resource: Resource, source: Mapping[str, Any], existing: Mapping[str, Any]
) -> ComparedVersions:
    """Returns the earlier versions of both sides in pairs. The latest are compared anyway.

    Raises ApiError if a version cannot be read.
    """
    histories, last = catalog.histories, catalog.settings.history
    if source["project_id"] in histories.source.unknown:  # nothing to compare with
        return ComparedVersions([], 0, is_broken=False)
    read = histories.source.contents(resource, source, last)
    versions = [version for version in read if not resource.cannot_move(version)]
    unmovable = len(read) - len(versions)
    there = histories.dest.contents(resource, existing, EARLIER_VERSIONS["all"])
    if _was_left(catalog.run, resource, source["id"]):
        # The destination had the object before: the copied versions are its last ones.
        matches = pairs_of_versions(catalog, resource, versions, there)
        pairs = [(versions[place], there[counter]) for place, counter in sorted(matches.items())]
        missing = len(versions) - len(pairs) + unmovable
        return ComparedVersions(_numbered(pairs[:-1], len(versions)), missing, is_broken=False)
    if last < EARLIER_VERSIONS["all"]:
        # Earlier syncs may have copied older ones.
        there = there[-len(versions) :]
    early = as_first_written(catalog, resource, source)
    if early is not None and len(there) == len(versions) + 1:
        # The second pass completed the latest version.
        versions.insert(len(versions) - 1, early)
    pairs = list(zip(versions, there))
    is_broken = len(versions) != len(there)
    return ComparedVersions(
        [] if is_broken else _numbered(pairs[:-1], len(versions)), unmovable, is_broken
    )


def as_first_written(
    catalog: Catalog, resource: Resource, version: Mapping[str, Any]
) -> Optional[JsonObject]:
    """The version without what may have come later; None if it has nothing of that.

    These are references to kinds that move after this one, and fields that the destination's data
    plane did not know.
    """
    unknown = [
        place
        for pattern in catalog.earlier.fields_refused_once(resource)
        for place in paths_matching(version, pattern)
    ]

    def resolve(targets: Tuple[str, ...], source_id: str) -> Optional[str]:
        is_later = any(target in AFTER_VERSIONED for target in targets)
        return None if is_later else source_id

    def same_version(pin: Pin, holder: Mapping[str, Any], value: Any) -> Optional[str]:
        return str(value)

    rewritten = rewrite(
        without(dict(version), unknown),
        resource,
        resolve=resolve,
        known_ids={},
        resolve_version=same_version,
    )
    return dict(rewritten.value) if rewritten.unresolved or unknown else None


def _was_left(run: RunDirectory, resource: Resource, source_id: str) -> bool:
    """Whether the run reported that earlier versions of the object do not move."""
    return any(
        record["kind"] == "earlier_versions"
        for states in run.all_objects()
        if states.resource == resource.name
        for record in states.findings.get(source_id, ())
    )


def _numbered(pairs: Sequence[Tuple[JsonObject, JsonObject]], of: int) -> List[VersionPair]:
    return [VersionPair(number, of, *pair) for number, pair in enumerate(pairs, 1)]
