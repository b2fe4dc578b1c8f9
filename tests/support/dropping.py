"""A destination that confirms rows, with their ids and a transaction, and does not keep them."""

from __future__ import annotations

import json
from typing import Any, Collection, List, Optional, Tuple

import bt_migrate.sandbox.data.clock as keys
import bt_migrate.sandbox.routes.table as routes
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Incoming
from tests.support.row_runs import World


class Dropping:
    """Drops the writes of some rows, as often as `times` says, or always.

    `dropped`: (row id, was it a deletion) of each write that was dropped.
    """

    def __init__(
        self,
        w: World,
        row_ids: Collection[str],
        times: Optional[int] = None,
        *,
        only_merges: bool = False,
    ) -> None:
        self.dropped: List[Tuple[str, bool]] = []
        self._sandbox = w.sandbox
        self._row_ids = frozenset(row_ids)
        self._times = times
        self._only_merges = only_merges
        self._before = w.sandbox.intercept
        w.sandbox.intercept = self._answer

    def stop(self) -> None:
        self._sandbox.intercept = self._before

    def _answer(self, request: Incoming) -> Optional[Answer]:
        assert self._before is not None
        refusal = self._before(request)
        if refusal is not None or (request.method, request.path) != ("POST", "/logs3"):
            return refusal
        rows = json.loads(request.body)["rows"]
        kept = [row for row in rows if not self._drops(row)]
        return None if len(kept) == len(rows) else self._confirmed(request, rows, kept)

    def _drops(self, row: Any) -> bool:
        drops = row["id"] in self._row_ids and "comment" not in row
        drops = drops and (bool(row.get("_is_merge")) or not self._only_merges)
        if not drops or (self._times is not None and len(self.dropped) >= self._times):
            return False
        self.dropped.append((row["id"], bool(row.get("_object_delete"))))
        return True

    def _confirmed(self, request: Incoming, rows: List[Any], kept: List[Any]) -> Answer:
        """The answer for all rows, after those to keep were written."""
        api = self._sandbox.api
        if kept:
            body = json.dumps({"rows": kept, "api_version": 2}).encode()
            done = routes.answer(api, "POST", "/logs3", request.headers, body)
            answer = json.loads(done.body)
        else:
            answer = {"xact_id": keys.xact_id(api.store.clock.next_moment()), "ok": True}
            if not api.store.behaviour.logs3_answers_transaction:
                del answer["xact_id"]
        return Answer(200, json.dumps({**answer, "ids": [row["id"] for row in rows]}).encode())
