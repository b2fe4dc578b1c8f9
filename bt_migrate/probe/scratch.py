"""The scratch project of a probe: all that it creates lies in there.

Its name says what it is. Nothing outside of it is written, and `removed` deletes it.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional

from bt_migrate.api.btql import Bounds, count_query, page_query
from bt_migrate.api.client import Api
from bt_migrate.api.request import Answer
from bt_migrate.errors import ApiError, MigrationError, NetworkError

Json = Dict[str, Any]

PROJECT_NAME = "bt_migrate probe {token} - scratch, safe to delete"
# between two looks for a fresh row
PROBE_POLL_S = 0.5
PATIENCE_S = 60.0
PAGE_ROWS = 100


@dataclass
class Scratch:
    """An organization and a project of its own. In a read-only probe `project_id` is ""."""

    api: Api
    token: str
    project_id: str
    patience_s: float = PATIENCE_S

    def post(self, path: str, **body: Any) -> Answer:
        return self.api.post(path, body)

    def create(self, kind: str, **body: Any) -> Json:
        """Create an object of the project; returns the answer."""
        return self._object(self.post(f"/v1/{kind}", project_id=self.project_id, **body).json, kind)

    def get(self, kind: str, object_id: str, **params: str) -> Json:
        return self._object(self.api.get(f"/v1/{kind}/{object_id}", params), kind)

    @staticmethod
    def _object(value: Any, kind: str) -> Json:
        if not isinstance(value, dict) or not isinstance(value.get("id"), str):
            raise NetworkError(f"the answer for a {kind} has no id")
        return value

    def dataset(self) -> str:
        """Returns the id of a new, empty dataset."""
        return str(self.create("dataset", name=f"d {uuid.uuid4()}")["id"])

    def insert(self, dataset_id: str, *rows: Json) -> Json:
        path = f"/v1/dataset/{dataset_id}/insert"
        answer = self.post(path, events=list(rows)).json
        return answer if isinstance(answer, dict) else {}

    def filled(self, *rows: Json) -> str:
        """Returns the id of a new dataset that shows these rows."""
        dataset_id = self.dataset()
        self.insert(dataset_id, *rows)
        self.shown(dataset_id, len(rows))
        return dataset_id

    def query(self, text: str) -> List[Json]:
        return [row for row in self.api.query(text).json if isinstance(row, dict)]

    def rows(self, dataset_id: str) -> List[Json]:
        """The rows as a migration reads them, oldest key first."""
        return self.query(page_query("datasets", [dataset_id], Bounds(), PAGE_ROWS))

    def count(self, dataset_id: str) -> int:
        answer = self.query(count_query("datasets", [dataset_id], Bounds()))
        return int(answer[0].get("rows") or 0) if answer else 0

    def shown(self, dataset_id: str, count: int) -> List[Json]:
        """The rows of a dataset, once there are so many or patience has ended."""
        deadline = time.monotonic() + self.patience_s
        while True:
            rows = self.rows(dataset_id)
            if len(rows) >= count or time.monotonic() > deadline:
                return rows
            time.sleep(PROBE_POLL_S)

    def changed(self, dataset_id: str, row_id: str, field: str, value: Any) -> Optional[Json]:
        """The row once its field has this value, or as it is when patience has ended."""
        deadline = time.monotonic() + self.patience_s
        while True:
            rows = [row for row in self.rows(dataset_id) if row.get("id") == row_id]
            if rows and rows[0].get(field) == value:
                return rows[0]
            if time.monotonic() > deadline:
                return rows[0] if rows else None
            time.sleep(PROBE_POLL_S)


def status_of(error: ApiError) -> str:
    """A refusal without the words of the server, which may name people."""
    return f"refused with {error.status}"


def is_refused(scratch: Scratch, path: str, body: Json) -> bool:
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
    """A new project; deleted at the end, whatever happened.

    `cleaner` is a client of the same organization that an interruption does not stop.
    """
    token = uuid.uuid4().hex[:12]
    body: Json = {"name": PROJECT_NAME.format(token=token)}
    if api.org_name:
        body["org_name"] = api.org_name
    made = api.post("/v1/project", body)
    project = made.json
    found = "x-bt-found-existing" in {name.lower() for name in made.headers}
    mine = isinstance(project, dict) and project.get("name") == body["name"] and not found
    if not mine or not isinstance(project.get("id"), str):
        raise NetworkError("the server did not create the scratch project that was asked for")
    try:
        yield Scratch(api, token, project["id"], patience_s)
    finally:
        _delete(cleaner, project["id"], body["name"])


def _delete(cleaner: Api, project_id: str, name: str) -> None:
    try:
        cleaner.delete(f"/v1/project/{project_id}")
    except MigrationError as error:
        raise NetworkError(
            f"project {name!r} was not deleted, delete it by hand: {error}"
        ) from None


def compact(value: Any) -> str:
    """A value as it is printed, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=True, sort_keys=True, default=str)
    return text if len(text) <= 120 else text[:117] + "..."
