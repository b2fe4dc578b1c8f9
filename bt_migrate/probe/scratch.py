"""The scratch project of a probe. It holds everything that a probe creates except groups and roles.

All these objects are deleted at the end, also after an error. They are found by name, so that an
object is deleted even if the answer to its creation was lost. Each name holds a random token.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Optional, Tuple

from bt_migrate.api.btql import Bounds, count_query, page_query
from bt_migrate.api.client import Api
from bt_migrate.api.request import Answer
from bt_migrate.errors import ApiError, MigrationError, NetworkError, UsageError
from bt_migrate.model.json_object import JsonObject

SCRATCH_NAME = "bt_migrate probe {token} - scratch, safe to delete"
# pause between two queries for a new row
PROBE_POLL_S = 0.5
PATIENCE_S = 60.0
PAGE_ROWS = 100


@dataclass
class Scratch:
    """A client and the scratch project. In a read-only probe, `project_id` is ""."""

    api: Api
    token: str
    project_id: str
    patience_s: float = PATIENCE_S
    # (kind, name) of the project, and of each object outside of it that was requested -> its id; ""
    # if the answer is not known
    to_delete: Dict[Tuple[str, str], str] = field(default_factory=dict)

    def post(self, path: str, **body: Any) -> Answer:
        return self.api.post(path, body)

    def create(self, kind: str, **body: Any) -> JsonObject:
        """Create an object of the project; returns the answer."""
        return self._object(self.post(f"/v1/{kind}", project_id=self.project_id, **body).json, kind)

    def create_outside(self, kind: str, word: str, **fields: Any) -> JsonObject:
        """Create a group or a role, which is deleted at the end; returns the answer."""
        body = self.body_outside(kind, word)
        made = self._object(self.post(f"/v1/{kind}", **body, **fields).json, kind)
        self.to_delete[kind, body["name"]] = made["id"]
        return made

    def body_outside(self, kind: str, word: str) -> JsonObject:
        """Returns the body for an object of the organization, which is deleted at the end."""
        name = SCRATCH_NAME.format(token=f"{word} {self.token}")
        self.to_delete[kind, name] = ""
        return {"name": name, **_organization(self.api)}

    def get(self, kind: str, object_id: str, **params: str) -> JsonObject:
        return self._object(self.api.get(f"/v1/{kind}/{object_id}", params), kind)

    @staticmethod
    def _object(value: Any, kind: str) -> JsonObject:
        if not isinstance(value, dict) or not isinstance(value.get("id"), str):
            raise NetworkError(f"the answer for a {kind} has no id")
        return value

    def dataset(self) -> str:
        """Returns the id of a new, empty dataset."""
        return str(self.create("dataset", name=f"d {uuid.uuid4()}")["id"])

    def insert(self, dataset_id: str, *rows: JsonObject) -> JsonObject:
        path = f"/v1/dataset/{dataset_id}/insert"
        answer = self.post(path, events=list(rows)).json
        return answer if isinstance(answer, dict) else {}

    def filled(self, *rows: JsonObject) -> str:
        """Returns the id of a new dataset that shows these rows."""
        dataset_id = self.dataset()
        self.insert(dataset_id, *rows)
        self.shown(dataset_id, len(rows))
        return dataset_id

    def query(self, text: str) -> List[JsonObject]:
        return [row for row in self.api.query(text).json if isinstance(row, dict)]

    def rows(self, dataset_id: str) -> List[JsonObject]:
        """The rows as a migration reads them, oldest key first."""
        return self.query(page_query("datasets", [dataset_id], Bounds(), PAGE_ROWS))

    def count(self, dataset_id: str) -> int:
        answer = self.query(count_query("datasets", [dataset_id], Bounds()))
        return int(answer[0].get("rows") or 0) if answer else 0

    def shown(self, dataset_id: str, count: int) -> List[JsonObject]:
        """Returns the rows of a dataset once it shows `count` rows, or after `patience_s`."""
        deadline = time.monotonic() + self.patience_s
        while True:
            rows = self.rows(dataset_id)
            if len(rows) >= count or time.monotonic() > deadline:
                return rows
            time.sleep(PROBE_POLL_S)

    def changed(self, dataset_id: str, row_id: str, field: str, value: Any) -> Optional[JsonObject]:
        """Returns the row once its field has this value, or as it is after `patience_s`."""
        deadline = time.monotonic() + self.patience_s
        while True:
            rows = [row for row in self.rows(dataset_id) if row.get("id") == row_id]
            if rows and rows[0].get(field) == value:
                return rows[0]
            if time.monotonic() > deadline:
                return rows[0] if rows else None
            time.sleep(PROBE_POLL_S)


def status_text(error: ApiError) -> str:
    """Returns the status of a refusal without the server's text, which may name people."""
    return f"refused with {error.status}"


def is_refused(scratch: Scratch, path: str, body: JsonObject) -> bool:
    """Whether a POST is refused because of its content."""
    try:
        scratch.api.post(path, body)
    except ApiError as error:
        if error.status in (400, 422):
            return True
        raise
    return False


@contextlib.contextmanager
def scratch_project(api: Api, cleaner: Api, patience_s: float = PATIENCE_S) -> Iterator[Scratch]:
    """Yields a scratch with a new project, which is deleted at the end, also after an error.

    `cleaner` is a client of the same organization that an interruption does not stop.
    """
    token = uuid.uuid4().hex[:12]
    name = SCRATCH_NAME.format(token=token)
    scratch = Scratch(api, token, "", patience_s, {("project", name): ""})
    try:
        scratch.project_id = _create_project(api, name)
        scratch.to_delete["project", name] = scratch.project_id
        yield scratch
    finally:
        _delete_all(cleaner, scratch.to_delete)


def _create_project(api: Api, name: str) -> str:
    try:
        made = api.post("/v1/project", {"name": name, **_organization(api)})
    except ApiError as error:
        if not error.refuses_key:
            raise
        raise UsageError(
            f"{api.side}: the key may not create a project ({error.status});"
            " use a key that may write, or --read-only"
        ) from None
    project = made.json
    existed = "x-bt-found-existing" in {header.lower() for header in made.headers}
    mine = isinstance(project, dict) and project.get("name") == name and not existed
    if not mine or not isinstance(project.get("id"), str):
        raise NetworkError("the server did not create the scratch project that was asked for")
    return str(project["id"])


def _organization(api: Api) -> JsonObject:
    return {"org_name": api.org_name} if api.org_name else {}


def _delete_all(cleaner: Api, made: Dict[Tuple[str, str], str]) -> None:
    """Delete what has these names, the last first. Raises NetworkError for what is left."""
    not_deleted = []
    for (kind, name), object_id in reversed(list(made.items())):
        try:
            for some_id in [object_id] if object_id else _ids_of_name(cleaner, kind, name):
                cleaner.delete(f"/v1/{kind}/{some_id}")
        except MigrationError as error:
            not_deleted.append(f"{kind} {name!r} was not deleted, delete it by hand: {error}")
    if not_deleted:
        raise NetworkError("; ".join(not_deleted)) from None


def _ids_of_name(api: Api, kind: str, name: str) -> List[str]:
    objects = api.list(f"/v1/{kind}", {f"{kind}_name": name}, page_size=100)
    return [str(obj["id"]) for obj in objects if obj.get("name") == name]


def compact(value: Any) -> str:
    """Returns a value as short text."""
    text = json.dumps(value, ensure_ascii=True, sort_keys=True, default=str)
    return text if len(text) <= 120 else text[:117] + "..."
