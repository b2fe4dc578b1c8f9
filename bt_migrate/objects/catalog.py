"""Both organizations as one run knows them: lists, natural keys, ids and targets of references."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple

from bt_migrate.api.answers import folded
from bt_migrate.api.client import Api
from bt_migrate.config.settings import Settings
from bt_migrate.model.resource import Resource
from bt_migrate.objects.bundles import BundleUploads
from bt_migrate.objects.dest_index import DestIndex
from bt_migrate.objects.histories import Histories
from bt_migrate.objects.id_mapping import EarlierRuns, IdMapping, read_id_mapping
from bt_migrate.objects.lists import Lists
from bt_migrate.objects.proof import CreationClock
from bt_migrate.objects.targets import Targets
from bt_migrate.objects.version_lists import VersionLists
from bt_migrate.objects.version_mapping import VersionMapping, read_version_mapping
from bt_migrate.state.run_directory import RunDirectory


@dataclass(frozen=True)
class Catalog:
    """The catalog of a run. Safe for many threads. `source` and `dest` know their org_id."""

    source: Api
    dest: Api
    run: RunDirectory
    settings: Settings
    lists: Lists
    index: DestIndex
    ids: IdMapping
    targets: Targets
    earlier: EarlierRuns
    versions: VersionMapping
    histories: Histories
    bundles: BundleUploads
    # Source id -> transaction of the creation, of what this process created.
    written: Dict[str, Optional[str]] = field(default_factory=dict)
    # (resource, field) -> the first source object with that field, which the table does not know.
    new_fields: Dict[Tuple[str, str], str] = field(default_factory=dict)
    # (kind of rows, days, source object) -> its rows that are older; None where not counted.
    old_rows: Dict[Tuple[str, int, str], Optional[int]] = field(default_factory=dict)
    creation_clock: CreationClock = field(default_factory=CreationClock)
    _key_locks: Dict[Tuple[str, ...], threading.Lock] = field(
        default_factory=lambda: defaultdict(threading.Lock)
    )

    def key_lock(self, resource: Resource, body: Mapping[str, Any]) -> threading.Lock:
        """Held from the look-up of a natural key until the object is created.

        A destination may take two keys for one, and a POST of the one then overwrites the other. So
        keys that differ only in case, blanks or Unicode form are created one after the other.
        """
        names = ("project_id", *resource.key)
        with self.ids.lock:
            return self._key_locks[tuple(folded(str(body.get(name))) for name in names)]

    def first_with_field(self, resource: Resource, field_name: str, source_id: str) -> bool:
        """Whether the object is the first of its kind in which an unknown field was seen."""
        with self.ids.lock:
            first = self.new_fields.setdefault((resource.name, field_name), source_id)
        return first == source_id

    def remember(
        self,
        resource: Resource,
        source_id: str,
        dest_object: Mapping[str, Any],
        project_id: str = "",
        *,
        renamed: bool = True,
    ) -> None:
        """Record the counterpart of a source object. `renamed`: it may have a new natural key."""
        self.ids.put(resource.name, source_id, dest_object["id"])
        self.index.put(resource, project_id, dict(dest_object), renamed=renamed)


def open_catalog(source: Api, dest: Api, run: RunDirectory, settings: Settings) -> Catalog:
    """The catalog of a run, with the id mapping that its state files hold."""
    lock = threading.RLock()
    versions = read_version_mapping(run, lock, of_rows=settings.dataset_versions)
    return _catalog((source, dest), run, settings, (read_id_mapping(run, lock), versions))


def catalog_by_natural_key(
    source: Api, dest: Api, run: RunDirectory, settings: Settings
) -> Catalog:
    """Returns a catalog without the id mapping of earlier runs.

    A counterpart is the object with the same natural key. For the comparison, which must not trust
    what a run recorded.
    """
    lock = threading.RLock()
    mappings = (IdMapping(lock), VersionMapping(lock))
    return _catalog((source, dest), run, settings, mappings, strict=True)


def _catalog(
    sides: Tuple[Api, Api],
    run: RunDirectory,
    settings: Settings,
    mappings: Tuple[IdMapping, VersionMapping],
    *,
    strict: bool = False,
) -> Catalog:
    source, dest = sides
    ids, versions = mappings
    # One lock for all parts: a look-up of a reference uses several of them.
    lock = ids.lock
    lists = Lists(source, dest, settings, lock, strict=strict)
    index = DestIndex(lists, lock)
    earlier = EarlierRuns(run, lock)
    targets = Targets(lists, index, ids, earlier, lock)
    histories = Histories(VersionLists(source), VersionLists(dest))
    return Catalog(
        source,
        dest,
        run,
        settings,
        lists,
        index,
        ids,
        targets,
        earlier,
        versions,
        histories,
        BundleUploads(dest),
    )
