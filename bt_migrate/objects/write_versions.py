"""Write versions of prompts and functions, each of them once.

A write of a version that is sent twice makes two versions. So it is not sent again before the
destination's object was read and shows that the first try was not carried out.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from bt_migrate.api.answers import object_with_id
from bt_migrate.api.transactions import xact_of
from bt_migrate.attachments.copy import AttachmentCopier
from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.references import Path, pattern_of, without
from bt_migrate.model.resource import Resource
from bt_migrate.objects.apply import ObjectWriter, name_hint
from bt_migrate.objects.catalog import Catalog
from bt_migrate.objects.decide import natural_key
from bt_migrate.objects.history_waits import reason_to_stop
from bt_migrate.objects.prepare import PlannedObject, Prepared, prepare
from bt_migrate.objects.version_content import dest_digest
from bt_migrate.objects.write import look_up, sent_once, without_unknown_fields


@dataclass
class History:
    """The versions to be written of one object, oldest first. `existing`: what is there, or {}."""

    resource: Resource
    item: PlannedObject
    versions: List[JsonObject]
    existing: Mapping[str, Any] = field(default_factory=dict)
    # the places of fields of the last version that the destination refused as unknown
    left_out: List[Path] = field(default_factory=list)

    @property
    def source_id(self) -> str:
        return str(self.item.source["id"])


@dataclass(frozen=True)
class Version:
    """One version of a history; `refers` holds the source ids of objects that it refers to."""

    history: History
    number: int
    refers: Set[str]

    @property
    def source_id(self) -> str:
        return self.history.source_id

    @property
    def place(self) -> Tuple[str, int]:
        return self.source_id, self.number

    @property
    def content(self) -> JsonObject:
        """The version under the latest natural key: a PUT finds the object by that."""
        key = {name: self.history.item.source.get(name) for name in self.history.resource.key}
        return {**self.history.versions[self.number], **key}

    @property
    def xact(self) -> int:
        return xact_of(self.history.versions[self.number].get("_xact_id"))

    @property
    def is_latest(self) -> bool:
        return self.number == len(self.history.versions) - 1


@dataclass(frozen=True)
class VersionWriter:
    """Writes versions that do not need each other, many at a time."""

    catalog: Catalog
    copier: Optional[AttachmentCopier]

    def write(self, versions: Sequence[Version]) -> None:
        """An API error is the failure of the object; its later versions are not written then."""
        workers = self.catalog.settings.max_concurrent
        with ThreadPoolExecutor(workers, thread_name_prefix="versions") as pool:
            for _ in pool.map(self._write, versions):
                pass

    def _write(self, version: Version) -> None:
        histories = self.catalog.histories
        if version.source_id in histories.failures or not version.history.versions:
            return
        try:
            self._write_prepared(version)
        except ApiError as error:
            histories.failures[version.source_id] = f"{error}{name_hint(error)}"

    def _write_prepared(self, version: Version) -> None:
        catalog, history = self.catalog, version.history
        resource = history.resource
        content = version.content
        item = PlannedObject(content, history.item.states, history.item.dest_project_id)
        prepared = prepare(catalog, resource, item)
        reason = reason_to_stop(catalog, resource, content, prepared)
        if reason:
            catalog.histories.failures[version.source_id] = reason
            return
        with catalog.key_lock(resource, prepared.body):
            self._write_unless_there(version, item, prepared)

    def _write_unless_there(
        self, version: Version, item: PlannedObject, prepared: Prepared
    ) -> None:
        catalog, history, resource = self.catalog, version.history, version.history.resource
        if not history.existing and self._is_there(history, prepared.body):
            return
        writer = ObjectWriter(catalog, resource, self.copier)
        findings = [*prepared.findings, *writer.copy_attachments(item, prepared.body)]
        written = self._sent(history, prepared.body)
        if not history.existing:
            writer.refuse_another(item, {**prepared.body, **written}, prepared.body)
        self._remember(version, prepared.body, written)
        if not version.is_latest:
            self._note(version, findings)

    def _is_there(self, history: History, body: JsonObject) -> bool:
        """Whether somebody created the object since the list was read.

        A POST would add a version to their object: the plan of the object decides.
        """
        existing = look_up(self.catalog.dest, history.resource, body)
        if existing is None:
            return False
        states = history.item.states
        states.intended.pop(history.source_id, None)
        states.begun_versions.pop(history.source_id, None)
        history.versions.clear()
        place = history.item.dest_project_id
        self.catalog.index.put(history.resource, place, existing, renamed=False)
        return True

    def _note(self, version: Version, findings: List[Dict[str, Any]]) -> None:
        recorded = self.catalog.histories.findings.setdefault(version.source_id, [])
        recorded.extend(findings)

    def _remember(self, version: Version, body: JsonObject, written: Mapping[str, Any]) -> None:
        catalog, history = self.catalog, version.history
        body = without(body, history.left_out)
        there = {**body, "id": written["id"], "_xact_id": written["_xact_id"]}
        history.existing = there
        states, xact = history.item.states, history.versions[version.number].get("_xact_id")
        catalog.versions.record(states, version.source_id, xact, written["_xact_id"])
        catalog.written[version.source_id] = written["_xact_id"]
        place = history.item.dest_project_id
        catalog.remember(history.resource, version.source_id, there, place)

    # -- sending

    def _sent(self, history: History, body: JsonObject) -> Dict[str, Any]:
        """Write the version. Returns the destination's object with its `_xact_id`."""
        return sent_once(
            self.catalog.dest,
            lambda: self._with_transaction(history, self._send(history, body)),
            lambda: self._carried_out(history, body),
        )

    def _send(self, history: History, body: JsonObject) -> Dict[str, Any]:
        dest, resource = self.catalog.dest, history.resource
        object_id = history.existing.get("id")

        def send(sent: JsonObject) -> Dict[str, Any]:
            _note_incomplete(history, sent)
            answer: Dict[str, Any] = dest.write_version(resource.path, sent, object_id)
            return answer

        written, history.left_out = without_unknown_fields(resource, body, send)
        patterns = [pattern_of(place) for place in history.left_out]
        self.catalog.earlier.note_not_taken(resource, patterns)
        return written

    def _with_transaction(self, history: History, written: Dict[str, Any]) -> Dict[str, Any]:
        return written if xact_of(written.get("_xact_id")) else self._read(history, written["id"])

    def _read(self, history: History, object_id: str) -> Dict[str, Any]:
        path = f"{history.resource.path}/{object_id}"
        check = object_with_id(object_id)
        now: Dict[str, Any] = self.catalog.dest.get(path, check=check)
        return now

    def _carried_out(self, history: History, body: JsonObject) -> Optional[Dict[str, Any]]:
        """Returns the destination's object if an unanswered try has written the version."""
        resource, dest_id = history.resource, history.existing.get("id")
        if dest_id:
            existing: Optional[Dict[str, Any]] = self._read(history, dest_id)
        else:
            existing = look_up(self.catalog.dest, resource, body)
        if not existing or natural_key(resource, existing) != natural_key(resource, body):
            return None
        if dest_digest(resource, existing) != dest_digest(resource, body):
            return None
        before = xact_of(history.existing.get("_xact_id"))
        return existing if xact_of(existing.get("_xact_id")) > before else None


def _note_incomplete(history: History, body: JsonObject) -> None:
    """Record a version under the content it will have: without references to later objects, and
    without fields that the destination does not know.
    """
    states = history.item.states
    with states.lock:
        begun = states.begun_versions[history.source_id]
        digest = dest_digest(history.resource, body)
        is_new = digest not in begun
        if is_new:
            begun.append(digest)
    if is_new:
        states.save()
