"""Compare the versions of prompts and functions, in order. Never writes."""

from __future__ import annotations

from typing import Any, List, Mapping, NamedTuple, Sequence, Tuple

from bt_migrate.config.values import EARLIER_VERSIONS
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import OBJECT_RESOURCES
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.pins import pairs_of_versions
from bt_migrate.state.run_directory import RunDirectory

VERSIONS = "versions"  # field reported for an object with a wrong number of versions


class VersionPair(NamedTuple):
    """A version of the source and its counterpart; `number` counts from 1, `of` is the last."""

    number: int
    of: int
    source: dict
    dest: dict

    def named(self, path: str) -> str:
        return f"version {self.number} of {self.of}: {path}"


class ComparedVersions(NamedTuple):
    """`missing`: how many versions the run reported as left, or the API cannot carry.

    `is_broken`: other versions are missing, or there are too many.
    """

    pairs: List[VersionPair]
    missing: int
    is_broken: bool


def asked_history(run: RunDirectory, asked: int) -> int:
    """Returns how many earlier versions are compared: as asked for, or all that the run mapped."""
    versioned = [resource.name for resource in OBJECT_RESOURCES if resource.versioned]
    recorded = any(states.versions for states in run.all_objects() if states.resource in versioned)
    return asked or (EARLIER_VERSIONS["all"] if recorded else 0)


def compared_versions(
    catalog: Catalog, resource: Resource, source: Mapping[str, Any], existing: Mapping[str, Any]
) -> ComparedVersions:
    """Returns the earlier versions of both sides in pairs. The latest are compared anyway.

    Raises ApiError if a version cannot be read.
    """
    histories, last = catalog.histories, catalog.settings.history
    if source["project_id"] in histories.source.unknown:
        return ComparedVersions([], 0, is_broken=False)
    read = histories.source.contents(resource, source, last)
    versions = [version for version in read if not resource.cannot_move(version)]
    unmovable = len(read) - len(versions)
    there = histories.dest.contents(resource, existing, EARLIER_VERSIONS["all"])
    if _was_left(catalog.run, resource, source["id"]):
        # The destination had the object before: the copied versions are its last ones.
        found = pairs_of_versions(catalog, resource, versions, there)
        pairs = [(versions[place], there[counter]) for place, counter in sorted(found.items())]
        missing = len(versions) - len(pairs) + unmovable
        return ComparedVersions(_numbered(pairs[:-1], len(versions)), missing, is_broken=False)
    if last < EARLIER_VERSIONS["all"]:
        # Earlier syncs may have copied older ones.
        there = there[-len(versions) :]
    pairs = list(zip(versions, there))
    is_broken = len(versions) != len(there)
    return ComparedVersions(
        [] if is_broken else _numbered(pairs[:-1], len(versions)), unmovable, is_broken
    )


def _was_left(run: RunDirectory, resource: Resource, source_id: str) -> bool:
    """Whether the run reported that earlier versions of the object do not move."""
    return any(
        found["kind"] == "earlier_versions"
        for states in run.all_objects()
        if states.resource == resource.name
        for found in states.findings.get(source_id, ())
    )


def _numbered(pairs: Sequence[Tuple[dict, dict]], of: int) -> List[VersionPair]:
    return [VersionPair(number, of, *pair) for number, pair in enumerate(pairs, 1)]
