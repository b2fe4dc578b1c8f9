"""The destination's transaction of a version of a dataset row, by its transaction in the source."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional

from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_files import SEEN_ENDING
from bt_migrate.state.seen_rows import SeenRows

FOLDER = ROW_KINDS["datasets"].folder


@dataclass
class DeliveredRows:
    """Reads the records of the run's copy. Safe for many threads.

    The copy keeps all deliveries of a dataset if earlier states are wanted.
    """

    run: RunDirectory
    lock: threading.RLock
    _paths: Dict[str, Optional[Path]] = field(default_factory=dict)
    _stores: Dict[str, SeenRows] = field(default_factory=dict)

    def note(self, dataset_id: str, path: Path) -> None:
        """Record that the deliveries of a dataset are about to be written to that file."""
        with self.lock:
            self._paths[dataset_id] = path

    def dest_xacts(self, dataset_id: str, row_id: str, xact: int) -> List[int]:
        """Returns the destination's transactions: see `SeenRows.dest_xacts_of`."""
        with self.lock:
            store = self._stores.get(dataset_id) or self._opened(dataset_id)
        return store.dest_xacts_of(dataset_id, row_id, xact) if store else []

    def _opened(self, dataset_id: str) -> Optional[SeenRows]:
        if dataset_id not in self._paths:
            self._paths[dataset_id] = self._found(dataset_id)
        path = self._paths[dataset_id]
        if path is None or not path.exists():
            return None
        self._stores[dataset_id] = SeenRows(path)
        return self._stores[dataset_id]

    def _found(self, dataset_id: str) -> Optional[Path]:
        """The file that an earlier process has written."""
        for project in self.run.record.folders:
            path = self.run.stream_path(FOLDER, project, dataset_id)
            file = path.with_name(path.name + SEEN_ENDING)
            if file.exists():
                return file
        return None
