"""One organization of a sandbox, used from Python: the same checks and effects as over HTTP."""

from __future__ import annotations

import copy
from typing import Any, Dict, List, Mapping, Optional, Sequence

import bt_migrate.sandbox.data.clock as keys
import bt_migrate.sandbox.data.inserts as inserts
import bt_migrate.sandbox.data.objects as objects
from bt_migrate.sandbox.data.files import Attachment, Files
from bt_migrate.sandbox.data.rows import Json, encode
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.data.store import Entry, Org, Store
from bt_migrate.sandbox.routes.calls import decode


class SandboxOrg:
    """Creates, changes and reads objects and rows of one organization without HTTP."""

    def __init__(self, store: Store, files: Files, org: Org, api_key: str) -> None:
        self._store = store
        self._files = files
        self._org = org
        self.api_key = api_key

    @property
    def id(self) -> str:
        return self._org.id

    @property
    def name(self) -> str:
        return self._org.name

    def create(self, kind: str, body: Json) -> Json:
        with self._store.lock:
            entry, _ = objects.create(self._store, self._org, KINDS[kind], body)
            return objects.render(KINDS[kind], entry, self._store.behaviour)

    def patch(self, kind: str, object_id: str, body: Json) -> Json:
        with self._store.lock:
            entry = objects.patch(self._store, (self.id,), KINDS[kind], object_id, body)
            return objects.render(KINDS[kind], entry, self._store.behaviour)

    def delete(self, kind: str, object_id: str) -> Json:
        with self._store.lock:
            entry = self._store.find(KINDS[kind], (self.id,), object_id)
            owner = entry.data if entry is not None else None
            return objects.delete(self._store, (self.id,), KINDS[kind], object_id, owner)

    def objects(self, kind: str) -> List[Json]:
        """Live objects, oldest first; built-in roles are among the roles."""
        with self._store.lock:
            entries = objects.list_all(self._store, (self.id,), KINDS[kind], {})
            return [
                objects.render(KINDS[kind], entry, self._store.behaviour)
                for entry in reversed(entries)
            ]

    def versions(self, kind: str, object_id: str) -> List[Json]:
        """All versions of a prompt or function as a reader sees them, oldest first."""
        with self._store.lock:
            entry = self._store.entries[KINDS[kind].store][object_id]
            states = [data for _, data in entry.history] + [entry.data]
            return [
                objects.render(
                    KINDS[kind],
                    Entry(entry.store, entry.org_id, entry.number, data),
                    self._store.behaviour,
                )
                for data in states
            ]

    def assign(self, object_id: str, slug: str, version: str) -> None:
        """Assign an environment to a version of a prompt or function."""
        with self._store.lock:
            entry = self._store.entries["function"][object_id]
            objects.at_version(entry, version)  # refuses an unknown one
            entry.environments[slug] = version

    def assignments(self, object_id: str) -> Dict[str, str]:
        """Environment -> version, of a prompt or function."""
        with self._store.lock:
            return dict(self._store.entries["function"][object_id].environments)

    def has_secret(self, kind: str, object_id: str) -> bool:
        """Whether an ai_secret or env_var has a value, which nobody can read."""
        return self._store.entries[kind][object_id].has_secret

    def insert(
        self,
        kind: str,
        object_id: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        at: Optional[int] = None,
    ) -> List[str]:
        """Insert rows as POST /v1/{kind}/{id}/insert does, in one transaction; their ids in order.

        `at`: past unix seconds at which they are to have been inserted, not below earlier ones.
        """
        body = decode(encode({"events": list(rows)}).encode("ascii"))
        with self._store.lock:
            rows_of_object = inserts.row_set(self._store, (self.id,), kind, object_id)
            return inserts.insert(self._store, rows_of_object, body, at=at)

    def rows(self, kind: str, object_id: str, version: Optional[str] = None) -> List[Json]:
        """The rows as a reader sees them now, or saw them at a transaction, in order of their
        pagination key.
        """
        moment = keys.moment_of_xact(version) if version else None
        with self._store.lock:
            rows = list(inserts.row_set(self._store, (self.id,), kind, object_id).at(moment)[0])
        return [row.value() for row in rows]

    def count(self, kind: str, object_id: str) -> int:
        with self._store.lock:
            return len(inserts.row_set(self._store, (self.id,), kind, object_id).rows)

    def comments(self, kind: str, object_id: str) -> Dict[str, List[Json]]:
        """Row id -> its comments, oldest first."""
        with self._store.lock:
            by_row = inserts.row_set(self._store, (self.id,), kind, object_id).comments
            return {
                row_id: copy.deepcopy(list(comments.values()))
                for row_id, comments in by_row.items()
            }

    def comment(self, kind: str, object_id: str, row_id: str, text: str) -> None:
        body = {"feedback": [{"id": row_id, "comment": text}]}
        with self._store.lock:
            inserts.feedback(self._store, (self.id,), kind, object_id, body)

    def attach(self, data: bytes, filename: str, content_type: str) -> Json:
        """Store an attachment and give the reference to it."""
        key = keys.new_id()
        place = (self.id, key)
        self._files.attachments[place] = Attachment(key, filename, content_type, "done")
        self._files.blobs[place] = data
        return {
            "type": "braintrust_attachment",
            "filename": filename,
            "content_type": content_type,
            "key": key,
        }

    def attachment(self, key: str) -> Optional[bytes]:
        return self._files.content((self.id, key))
