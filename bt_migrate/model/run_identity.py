"""What a run is made for: the two organizations, the selection, and the shard if it copies one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional


@dataclass
class RunSide:
    """One of the two organizations of a run."""

    org_id: str
    org_name: str
    url: str


@dataclass
class Selection:
    """What is moved. A run is resumed only with the same selection."""

    resources: List[str]
    projects: List[str]  # empty: all
    created_after: Optional[str]
    created_before: Optional[str]
    rename_projects: Optional[Dict[str, str]] = None
    part: Optional[str] = None  # of a move in parts: "objects", or the name of a shard
    exclude_projects: Optional[List[str]] = None

    @property
    def window(self) -> Dict[str, Any]:
        """The bounds, by the names of the settings."""
        return {"created_after": self.created_after, "created_before": self.created_before}


@dataclass(frozen=True)
class ShardMark:
    """Seconds of each server's clock at which the shards were planned."""

    source: int
    dest: int


@dataclass(frozen=True)
class ShardUnit:
    """The rows of one object, or a slice of them: keys above `after` and up to `end`."""

    kind: str
    project: str
    id: str
    name: str
    rows: int
    new: bool  # the destination's object was created for this move and has no rows
    after: Optional[str] = None
    end: Optional[str] = None

    def __str__(self) -> str:
        words = (("above", self.after), ("up to", self.end))
        bounds = " ".join(f"{word} {key}" for word, key in words if key)
        slice_name = f" (keys {bounds})" if bounds else ""
        return f"{self.kind} {self.name!r} of {self.project!r}{slice_name}"


@dataclass(frozen=True)
class Shard:
    """One shard: the line that bin/plan-shards wrote."""

    format: int
    plan: str
    number: int
    of: int
    mark: ShardMark
    source: RunSide
    dest: RunSide
    selection: Selection
    resources: List[str]
    rows: int
    units: List[ShardUnit]

    def __str__(self) -> str:
        return f"shard {self.number} of {self.of} of plan {self.plan}"
