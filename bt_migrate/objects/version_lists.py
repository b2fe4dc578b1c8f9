"""The versions of prompts and functions as one organization lists and shows them.

Asked for, never concluded from dates: `created` of a prompt or function is the time of its latest
version. One query with `audit_log` answers for many projects; each earlier version is then read
with `GET ?version=`.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from bt_migrate.api.answers import object_with_id
from bt_migrate.api.btql import OBJECTS_PER_QUERY, versions_query
from bt_migrate.api.client import Api
from bt_migrate.api.transactions import xact_of
from bt_migrate.api.transport import CURSOR_HEADER
from bt_migrate.errors import ApiError
from bt_migrate.model.json_object import JsonObject
from bt_migrate.model.portions import portions
from bt_migrate.model.resource import Resource
from bt_migrate.model.resource_table import CALLABLE
from bt_migrate.model.resources import BY_NAME

log = logging.getLogger("bt_migrate.versions")

# project id -> ids of objects in it
ObjectIds = Mapping[str, Iterable[str]]


@dataclass
class VersionLists:
    """The versions of one side's objects. Safe for many threads."""

    api: Api
    lock: threading.RLock = field(default_factory=threading.RLock)
    # projects whose versions are not known -> why
    unknown: Dict[str, str] = field(default_factory=dict)
    # object id -> why a version of it was not read
    unread: Dict[str, str] = field(default_factory=dict)
    # object id -> transactions
    _xacts: Dict[str, Set[int]] = field(default_factory=lambda: defaultdict(set))
    _asked: Set[str] = field(default_factory=set)

    def read(self, objects: ObjectIds) -> None:
        """List the versions of objects, many projects at a time, unless that was done.

        If another thread is reading them, wait for it.
        """
        with self.lock:
            wanted = {
                project_id: set(ids)
                for project_id, ids in objects.items()
                if project_id not in self._asked and ids
            }
            for portion in portions(list(wanted), OBJECTS_PER_QUERY):
                # Prompts and functions are one store: the first kind mostly has both.
                for kind in (BY_NAME[name] for name in CALLABLE):
                    open_ids = [
                        object_id
                        for object_id in portion
                        if not wanted[object_id].issubset(self._xacts)
                    ]
                    if open_ids:
                        self._add(kind, open_ids)
            self._asked.update(wanted)

    def transactions(self, object_id: str) -> List[int]:
        """Returns the transactions of the versions of a listed object, oldest first."""
        return sorted(self._xacts.get(object_id, ()))

    # assumption: versions_are_read
    def contents(
        self, resource: Resource, latest: Mapping[str, Any], last: int, *, after: int = 0
    ) -> List[JsonObject]:
        """Returns the object as it was in its last `last` versions before `latest`, oldest first.

        Only versions after the transaction `after`. A version that the server refuses is left out
        and noted in `unread`. Raises ApiError for a server that fails.
        """
        now = xact_of(latest.get("_xact_id"))
        if now and now <= after:
            return []
        earlier = [xact for xact in self.transactions(latest["id"]) if after < xact < now]
        wanted = earlier[max(0, len(earlier) - last) :]
        versions = [self.content(resource, latest["id"], xact) for xact in wanted]
        return [*(version for version in versions if version is not None), dict(latest)]

    def content(self, resource: Resource, object_id: str, xact: int) -> Optional[JsonObject]:
        """Returns the object at a version. None if the server refuses it, which `unread` notes."""
        path = f"{resource.path}/{object_id}"
        check = object_with_id(object_id)
        try:
            content = self.api.get(path, {"version": str(xact)}, check=check)
        except ApiError as error:
            if error.status >= 500 or error.status == 401:
                raise
            self.unread[object_id] = str(error)
            return None
        # A server that does not know the parameter shows the latest version.
        if xact_of(content.get("_xact_id")) not in (0, xact):
            self.unread[object_id] = f"{self.api.side}: GET {path} shows another version"
            return None
        return {**content, "_xact_id": str(xact)}

    def _add(self, resource: Resource, project_ids: Sequence[str]) -> None:
        """Add the transactions of all versions of a kind in these projects.

        If a server refuses a query over several projects, each project is queried alone.
        """
        try:
            rows = list(self._rows(resource, project_ids))
        except ApiError as error:
            if len(project_ids) > 1:
                for project_id in project_ids:
                    self._add(resource, [project_id])
                return
            self.unknown[project_ids[0]] = str(error)
            words = (self.api.side, resource.name, project_ids[0], error)
            log.warning("%s: versions of %s in project %s are not known: %s", *words)
            return
        for row in rows:
            self._xacts[str(row.get("id"))].add(xact_of(row.get("_xact_id")))

    def _rows(self, resource: Resource, project_ids: Sequence[str]) -> Iterator[Dict[str, Any]]:
        cursor = ""
        seen: Set[Tuple[Any, Any]] = set()
        while True:
            query = versions_query(resource.kind, project_ids, cursor)
            answer = self.api.query_audit_log(query)
            rows = [row for row in answer.json if isinstance(row, dict)]
            fresh = [row for row in rows if (row.get("id"), row.get("_xact_id")) not in seen]
            yield from fresh
            seen.update((row.get("id"), row.get("_xact_id")) for row in fresh)
            cursor = answer.headers.get(CURSOR_HEADER, "")
            # A server that ignores the cursor answers the same rows again.
            if not fresh or not cursor:
                return
