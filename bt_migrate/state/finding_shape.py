"""The shape of findings in state files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict

from bt_migrate.model.findings import KINDS
from bt_migrate.state.records import ShapeError, check_part


@dataclass
class Note:
    """What is noted of a stream; see model/notes."""

    kind: str
    path: str = ""
    detail: str = ""
    count: int = 1
    fingerprint: str = ""


@dataclass
class Finding(Note):
    """A finding as `model.findings.finding` makes it."""

    severity: str = ""
    about: str = ""
    next: str = ""
    resource: str = ""


@dataclass
class StreamHeader:
    kind: str
    project: str
    name: str
    source_id: str


def check_note(value: Dict[str, Any]) -> None:
    """Raises ShapeError."""
    check_part(Note, value, "a finding")
    if value["kind"] not in KINDS:
        raise ShapeError(f"the finding {value['kind'][:40]!r} is not known")


def check_finding(value: Dict[str, Any]) -> None:
    """Raises ShapeError."""
    check_note(value)
    check_part(Finding, value, "a finding")
    for name in ("severity", "resource"):
        if name not in value:
            raise ShapeError(f"a finding has no {name}")
