"""Which source id is which destination id, and what earlier runs knew of an object."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Tuple

from bt_migrate.model.resource import Resource
from bt_migrate.state.run_directory import RunDirectory, fingerprints_in, readable_runs_in


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
        """The source object whose counterpart the destination's object is known to be."""
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
    """The mapping that the state files of a run hold."""
    mapping = IdMapping(lock)
    for states in run.all_objects():
        for source_id, dest_id in states.id_mapping().items():
            mapping.put(states.resource, source_id, dest_id)
    return mapping


@dataclass
class EarlierRuns:
    """What runs of the same two organizations recorded. Safe for many threads; read when needed."""

    run: RunDirectory
    lock: threading.RLock
    _fingerprints: Dict[str, Dict[str, List[str]]] = field(default_factory=dict)
    _incomplete: Optional[Dict[Tuple[str, str], str]] = None

    def fingerprints(self, resource: Resource, source_id: str) -> Optional[List[str]]:
        """[source's, destination's] content as the newest run that knows the object left it."""
        with self.lock:
            if resource.name not in self._fingerprints:
                self._fingerprints[resource.name] = fingerprints_in(self.run, resource.name)
            return self._fingerprints[resource.name].get(source_id)

    def incomplete(self, resource_name: str, source_id: str) -> Optional[str]:
        """The destination id of an object that an earlier run created and could not complete."""
        with self.lock:
            if self._incomplete is None:
                self._incomplete = self._read_incomplete()
            return self._incomplete.get((resource_name, source_id))

    def _read_incomplete(self) -> Dict[Tuple[str, str], str]:
        return {
            (states.resource, source_id): dest_id
            for earlier in readable_runs_in(self.run.path.parent)
            if earlier.record.waiting
            and earlier.path != self.run.path
            and earlier.same_pair(self.run.record, dry_run=False)
            for states in earlier.all_objects()
            for source_id, dest_id in states.deferred.items()
        }
