"""What a run records of single rows, see `SeenRows`."""

from __future__ import annotations

import json
from typing import NamedTuple, Tuple

from bt_migrate.model.references import Path


class DeferredReference(NamedTuple):
    """A reference of a row that waits for its target, as it is stored.

    `path` and `kept`, what is kept of the source's value, are JSON; `targets` are resources,
    separated by commas; `ref` is the id in the source.
    """

    object_id: str
    row_id: str
    path: str
    targets: str
    ref: str
    kept: str

    @property
    def key(self) -> Tuple[str, str, str]:
        """What identifies it in `SeenRows`."""
        return self[:3]

    @property
    def place(self) -> Path:
        return tuple(json.loads(self.path))

    @property
    def resources(self) -> Tuple[str, ...]:
        return tuple(self.targets.split(","))


class DeliveredRow(NamedTuple):
    """A row that the destination has. `dest_xact`: the destination's transaction in which this tool
    wrote it last, 0 if unknown.
    """

    object_id: str
    row_id: str
    xact: int
    outcome: str
    dest_xact: int = 0
