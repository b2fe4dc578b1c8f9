"""The mapping of source ids to destination ids, and what earlier runs recorded about an object."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Optional, Set, Tuple

from bt_migrate.errors import StateError
from bt_migrate.model.outcomes import CREATED
from bt_migrate.model.resource import Resource
from bt_migrate.objects.version_mapping import VersionMapping, read_version_mapping
from bt_migrate.state.object_file import Intention
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory, fingerprints_in, readable_runs_in

log = logging.getLogger("bt_migrate.objects")


@dataclass
class IdMapping:
    """The one mapping of ids of a run, in both directions. Safe for many threads."""

    lock: threading.RLock
    # resource -> source id -> destination id, and the reverse
    _dest_ids: Dict[str, Dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    _source_ids: Dict[str, Dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    # destination id -> source id
    _claims: Dict[str, str] = field(default_factory=dict)

    def dest_id(self, resource_name: str, source_id: str) -> Optional[str]:
        return self._dest_ids[resource_name].get(source_id)

    def source_id(self, resource_name: str, dest_id: str) -> Optional[str]:
        """Returns the source object whose counterpart the destination object is known to be."""
        return self._source_ids[resource_name].get(dest_id)

    def put(self, resource_name: str, source_id: str, dest_id: str) -> None:
        with self.lock:
            self._dest_ids[resource_name][source_id] = dest_id
            self._source_ids[resource_name][dest_id] = source_id

    def remove(self, resource_name: str, source_id: str) -> None:
        with self.lock:
            dest_id = self._dest_ids[resource_name].pop(source_id, "")
            self._source_ids[resource_name].pop(dest_id, None)

    def claim(self, dest_id: str, source_id: str) -> bool:
        """Whether no other source object has claimed this destination object before."""
        with self.lock:
            return self._claims.setdefault(dest_id, source_id) == source_id


def read_id_mapping(run: RunDirectory, lock: threading.RLock) -> IdMapping:
    """Returns the mapping that the state files of a run contain."""
    mapping = IdMapping(lock)
    for states in run.all_objects():
        for source_id, dest_id in states.id_mapping().items():
            mapping.put(states.resource, source_id, dest_id)
    return mapping


@dataclass
class EarlierRuns:
    """Records of earlier runs for the same two organizations. Safe for many threads.

    They are read when they are needed.
    """

    run: RunDirectory
    lock: threading.RLock
    _fingerprints: Dict[str, Dict[str, List[str]]] = field(default_factory=dict)
    # (resource, source id) -> those that this process recorded
    _own_fingerprints: Dict[Tuple[str, str], List[str]] = field(default_factory=dict)
    _incomplete: Optional[Dict[Tuple[str, str], str]] = None
    _left_out: Set[Tuple[str, str]] = field(default_factory=set)
    _intended: Dict[Tuple[str, str], Intention] = field(default_factory=dict)
    _created: Optional[Dict[str, Set[str]]] = None
    _begun: Optional[Dict[Tuple[str, str], Set[str]]] = None
    _dest_ids: Optional[Dict[str, Dict[str, str]]] = None
    _versions: Optional[List[VersionMapping]] = None
    _not_taken: Optional[Dict[str, Set[str]]] = None
    # those that it has known since
    _taken: Dict[str, Set[str]] = field(default_factory=lambda: defaultdict(set))
    # the part of the first that this process saw refused
    _refused: Dict[str, Set[str]] = field(default_factory=lambda: defaultdict(set))

    def fingerprints(self, resource: Resource, source_id: str) -> Optional[List[str]]:
        """Returns the [source, destination] fingerprints that were recorded last."""
        with self.lock:
            own = self._own_fingerprints.get((resource.name, source_id))
            if own:
                return own
            if resource.name not in self._fingerprints:
                self._fingerprints[resource.name] = fingerprints_in(self.run, resource.name)
            return self._fingerprints[resource.name].get(source_id)

    def note_fingerprints(self, resource: Resource, source_id: str, prints: List[str]) -> None:
        """Note what this process recorded in the states of its run."""
        with self.lock:
            self._own_fingerprints[resource.name, source_id] = prints

    def fields_not_taken(self, resource: Resource) -> Set[str]:
        """Returns patterns of the fields that the destination's data plane refused as unknown."""
        with self.lock:
            if self._not_taken is None:
                self._not_taken = defaultdict(set)
                for run in reversed(list(readable_runs_in(self.run.path.parent))):
                    if run.same_pair(self.run.record, dry_run=False):
                        self._read_not_taken(self._not_taken, run)
            return self._not_taken[resource.name]

    def fields_refused_once(self, resource: Resource) -> Set[str]:
        """Returns `fields_not_taken`, and those that the data plane has known since."""
        with self.lock:
            return self.fields_not_taken(resource) | self._taken[resource.name]

    def _read_not_taken(self, not_taken: Dict[str, Set[str]], run: RunDirectory) -> None:
        """Add what a run recorded to what earlier ones did."""
        for name, fields in run.record.fields_taken.items():
            not_taken[name].difference_update(fields)
            self._taken[name].update(fields)
        for name, fields in run.record.fields_not_taken.items():
            not_taken[name].update(fields)

    def fields_refused(self, resource: Resource) -> Set[str]:
        """Returns those of `fields_not_taken` that this process saw refused."""
        with self.lock:
            return self._refused[resource.name]

    def note_not_taken(self, resource: Resource, fields: List[str]) -> None:
        with self.lock:
            self._refused[resource.name].update(fields)
            not_taken = self.fields_not_taken(resource)
            if not not_taken.issuperset(fields):
                not_taken.update(fields)
                self._record_fields(resource, not_taken, set())

    def expect_again(self, resource: Resource) -> None:
        """Expect fields that an earlier process saw refused: the data plane may be a newer one.

        They are refused again otherwise.
        """
        with self.lock:
            not_taken = self.fields_not_taken(resource)
            doubted = not_taken - self._refused[resource.name]
            if doubted:
                not_taken -= doubted
                self._record_fields(resource, not_taken, doubted)

    def _record_fields(self, resource: Resource, not_taken: Set[str], taken: Set[str]) -> None:
        record = self.run.record
        taken |= set(record.fields_taken.get(resource.name, ()))
        record.fields_taken[resource.name] = sorted(taken - not_taken)
        record.fields_not_taken[resource.name] = sorted(not_taken)
        self.run.save()

    def incomplete(self, resource_name: str, source_id: str) -> Optional[str]:
        """Returns the destination id of an object that an earlier run could not complete."""
        with self.lock:
            return self._read().get((resource_name, source_id))

    def left_out(self, resource_name: str, source_id: str) -> bool:
        """Whether an earlier run wrote the object without references that may resolve later."""
        with self.lock:
            self._read()
            return (resource_name, source_id) in self._left_out

    def intended(self, resource_name: str, source_id: str) -> Optional[Intention]:
        """Returns what an earlier run was about to create when it was killed."""
        with self.lock:
            self._read()
            return self._intended.get((resource_name, source_id))

    def begun_versions(self, resource_name: str, source_id: str) -> Set[str]:
        """Returns digests of the versions that earlier runs, which failed or were killed, wrote or
        were about to write.
        """
        with self.lock:
            if self._begun is None:
                self._begun = defaultdict(set)
                for run in readable_runs_in(self.run.path.parent):
                    if run.same_pair(self.run.record, dry_run=False) and not run.record.undone:
                        for states in _objects_of(run):
                            for begun_id, digests in states.begun_versions.items():
                                self._begun[states.resource, begun_id].update(digests)
            return self._begun[resource_name, source_id]

    def created(self, resource_name: str) -> Set[str]:
        """Returns the destination ids of the objects that this run and earlier ones created."""
        with self.lock:
            if self._created is None:
                self._created = defaultdict(set)
                for run in readable_runs_in(self.run.path.parent):
                    if run.same_pair(self.run.record, dry_run=False):
                        _add_created(self._created, run)
            return self._created[resource_name]

    def dest_id(self, resource_name: str, source_id: str) -> Optional[str]:
        """Returns the destination id that the newest of these runs mapped, if it is not undone.

        For kinds whose lists a later start of a single phase does not read.
        """
        with self.lock:
            if self._dest_ids is None:
                self._dest_ids = defaultdict(dict)
                for run in reversed(list(readable_runs_in(self.run.path.parent))):
                    if run.same_pair(self.run.record, dry_run=False) and not run.record.undone:
                        for states in _objects_of(run):
                            self._dest_ids[states.resource].update(states.id_mapping())
            return self._dest_ids[resource_name].get(source_id)

    def dest_versions(self, source_id: str, row_id: str, version: object) -> Set[str]:
        """Returns the versions that are the copy of that version of a row, by any of these runs.

        There may be several: the transaction that wrote the row, and those of later states that
        still show it.
        """
        with self.lock:
            found = {mapping.dest_version(source_id, version) for mapping in self._mappings()}
            for mapping in self._mappings():
                found.add(mapping.dest_version_of_row(source_id, row_id, version))
            return {dest_version for dest_version in found if dest_version}

    def unfinished_versions(self, source_id: str, row_id: str, version: object) -> Set[str]:
        """Returns the versions that lack what was added to that copy of the row later."""
        with self.lock:
            return {
                dest_version
                for mapping in self._mappings()
                for dest_version in mapping.dest_versions_of_row(source_id, row_id, version)[1:]
            }

    def _mappings(self) -> List[VersionMapping]:
        if self._versions is None:
            self._versions = [
                read_version_mapping(run, self.lock, of_rows=True)
                for run in readable_runs_in(self.run.path.parent)
                if run.same_pair(self.run.record, dry_run=False)
            ]
        return self._versions

    def _read(self) -> Dict[Tuple[str, str], str]:
        if self._incomplete is None:
            states = list(self._waiting_states())
            self._incomplete = {
                (kind_states.resource, source_id): dest_id
                for kind_states in states
                for source_id, dest_id in kind_states.deferred.items()
            }
            self._left_out = {
                (kind_states.resource, source_id)
                for kind_states in states
                for source_id in kind_states.left_out
            }
            self._intended = {
                (kind_states.resource, source_id): intent
                for kind_states in states
                for source_id, intent in kind_states.intended.items()
            }
        return self._incomplete

    def _waiting_states(self) -> Iterator[ObjectStates]:
        """Returns the states of earlier runs for these organizations in which something waits."""
        for earlier in readable_runs_in(self.run.path.parent):
            is_same = earlier.path == self.run.path
            if not earlier.record.waiting or is_same:
                continue
            if earlier.same_pair(self.run.record, dry_run=False):
                yield from _objects_of(earlier)


def _objects_of(run: RunDirectory) -> List[ObjectStates]:
    """Returns what a run recorded of objects; nothing, with a warning, if it is damaged."""
    try:
        return run.all_objects()
    except StateError as error:
        log.warning("skipped: %s", error)
        return []


def _add_created(created: Dict[str, Set[str]], run: RunDirectory) -> None:
    """Add the destination ids, by resource, of the objects that a run created."""
    for states in _objects_of(run):
        for entry in states.over_all_rounds().values():
            if entry.outcome == CREATED:
                created[states.resource].add(entry.dest_id)
