"""Which version of an object in the source is which version of it in the destination.

One place for all kinds of objects that have versions. A run keeps it in the states of its objects.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Dict, List, Optional, Set

from bt_migrate.api.transactions import version_like, xact_of_version
from bt_migrate.objects.delivered_rows import DeliveredRows
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory


@dataclass
class VersionMapping:
    """Safe for many threads. Versions are given in either form and returned in the same form."""

    lock: threading.RLock
    # of rows that were delivered one by one; None where nothing that a run recorded is believed
    rows: Optional[DeliveredRows] = None
    # source id of the object -> transaction of the source -> transaction of the destination
    _versions: Dict[str, Dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    # source ids of datasets whose present state is that after references of their rows are added
    unsettled: Set[str] = field(default_factory=set)

    def put(self, source_id: str, source_version: object, dest_version: object) -> None:
        """Map a version in memory only: see `record`."""
        with self.lock:
            xacts = self._versions[source_id]
            xacts[xact_of_version(source_version)] = xact_of_version(dest_version)

    def record(
        self, states: ObjectStates, source_id: str, source_version: object, dest_version: object
    ) -> None:
        """Map a version, and note that in the states of the object, which the caller saves."""
        self.put(source_id, source_version, dest_version)
        with states.lock:
            of_object = states.versions.setdefault(source_id, {})
            of_object[str(xact_of_version(source_version))] = str(xact_of_version(dest_version))

    def keep(self, states: ObjectStates, source_id: str) -> None:
        """Note all that is mapped of the object in its states, which the caller saves."""
        with self.lock:
            mapped = {
                str(xact): str(dest_xact) for xact, dest_xact in self._versions[source_id].items()
            }
        with states.lock:
            states.versions.setdefault(source_id, {}).update(mapped)

    def forget(self, states: ObjectStates, source_id: str, source_version: int) -> None:
        """Undo `record`. The caller saves the states."""
        with self.lock:
            self._versions[source_id].pop(source_version, None)
        with states.lock:
            states.versions.get(source_id, {}).pop(str(source_version), None)

    def dest_version(self, source_id: str, version: object) -> Optional[str]:
        """Returns the destination's version with the same content, None if it is not mapped."""
        with self.lock:
            xact = self._versions[source_id].get(xact_of_version(version))
        return version_like(version, xact) if xact else None

    def knows(self, source_id: str) -> bool:
        """Whether a version of the object is mapped."""
        with self.lock:
            return bool(self._versions.get(source_id))

    def forget_all(self, states: ObjectStates, source_id: str) -> None:
        """Undo each `record` of an object that the destination no longer has."""
        with self.lock:
            self._versions.pop(source_id, None)
        with states.lock:
            states.versions.pop(source_id, None)

    def mapped(self, source_id: str) -> Set[int]:
        """The transactions of the source's versions that are mapped."""
        with self.lock:
            return set(self._versions.get(source_id, ()))

    def source_version(self, source_id: str, dest_version: object) -> int:
        """The transaction of the source's version that this one is; 0 if none is mapped to it."""
        wanted = xact_of_version(dest_version)
        with self.lock:
            mapped = self._versions[source_id]
            return max((xact for xact in mapped if mapped[xact] == wanted), default=0)

    def dest_version_of_row(self, source_id: str, row_id: str, version: object) -> Optional[str]:
        """The version in which the destination got that version of a row; None if it did not."""
        last = self.dest_versions_of_row(source_id, row_id, version)[:1]
        return last[0] if last else None

    def dest_versions_of_row(self, source_id: str, row_id: str, version: object) -> List[str]:
        """All these versions, the last first."""
        xact = xact_of_version(version)
        found = self.rows.dest_xacts(source_id, row_id, xact) if self.rows and xact else []
        # a last one that is not known
        known = found if found[:1] != [0] else []
        return [version_like(version, dest_xact) for dest_xact in known if dest_xact]


def has_same_number(run: RunDirectory, version: object) -> bool:
    """Whether the run mapped a transaction of the source to one of the destination with the same
    number: servers count independently of each other.
    """
    xact = str(xact_of_version(version))
    return any(
        versions.get(xact) == xact
        for states in run.all_objects()
        for versions in states.versions.values()
    )


def read_version_mapping(
    run: RunDirectory, lock: threading.RLock, *, of_rows: bool = False
) -> VersionMapping:
    """Returns the mapping in the state files of a run.

    `of_rows`: also the mapping of single rows. Not used if only some deliveries are recorded: each
    sync would add entries, and rows would be written again only to change their origin.
    """
    mapping = VersionMapping(lock, DeliveredRows(run, lock) if of_rows else None)
    for states in run.all_objects():
        for source_id, versions in states.versions.items():
            for source_version, dest_version in versions.items():
                mapping.put(source_id, source_version, dest_version)
    return mapping
