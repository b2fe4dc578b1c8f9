"""Versions of objects in one process: their lists, what was written, and what could not be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Set, Tuple

from bt_migrate.model.references import Unresolved
from bt_migrate.objects.version_lists import VersionLists


@dataclass
class Histories:
    """Everything except the lists is keyed by the object's source id. Safe for many threads."""

    source: VersionLists
    dest: VersionLists
    # number of versions that this process wrote or would write
    written: Dict[str, int] = field(default_factory=dict)
    # objects that existed before and got newer versions
    continued: Set[str] = field(default_factory=set)
    # what objects wait for of which no version is written yet
    waiting: Dict[str, List[Unresolved]] = field(default_factory=dict)
    # objects that pins name, of which the versions were listed and mapped
    listed: Set[str] = field(default_factory=set)
    # why a version could not be written
    failures: Dict[str, str] = field(default_factory=dict)
    # (object, version there, version in the destination) of which the contents differ
    unlike: Set[Tuple[str, str, str]] = field(default_factory=set)
    # findings about earlier versions
    findings: Dict[str, List[Dict[str, Any]]] = field(default_factory=dict)

    def findings_only_earlier(
        self, source_id: str, latest: List[Dict[str, Any]]
    ) -> List[Dict[str, Any]]:
        """The findings about earlier versions, without those that the latest version has too."""
        latest_subjects = [_subject(earlier) for earlier in latest]
        findings = []
        for earlier in self.findings.get(source_id, []):
            if _subject(earlier) not in latest_subjects:
                latest_subjects.append(_subject(earlier))
                findings.append(earlier)
        return findings


def _subject(record: Dict[str, Any]) -> Dict[str, Any]:
    return {name: record.get(name) for name in ("kind", "path", "ref")}
