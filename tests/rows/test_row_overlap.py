"""Rows of small objects are read and written while other objects of their kind are still being
made.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import is_insert
from tests.support.row_runs import READ, World, small_rows, told, world

COUNT = 75  # three groups of 25
BATCHES = {"MIGRATION_CHECKPOINT_INTERVAL": "100"}  # one batch: rows do not wait for its end


class LastWaits:
    """The creation of the last object waits for the first rows; `seen` says whether they came."""

    def __init__(self, kind: str) -> None:
        self._path, self._rows, self.seen = f"/v1/{kind}", threading.Event(), False

    def __call__(self, method: str, path: str, raw: bytes) -> Optional[Answer]:
        if is_insert(path):
            self._rows.set()
        elif path == self._path and json.loads(raw)["name"] == f"object {COUNT - 1:03}":
            self.seen = self._rows.wait(20)
        return None


def filled(w: World, kind: str) -> List[str]:
    ids = w.make(kind, *(f"object {number:03}" for number in range(COUNT)))
    for number, object_id in enumerate(ids):
        w.source.insert(kind, object_id, small_rows(3, metadata={"of": number}))
    return ids


@pytest.mark.parametrize("kind", ["experiment", "dataset"])
@pytest.mark.variants(1)
def test_rows_are_copied_while_other_objects_are_being_created(kind: str, tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = filled(w, kind)
        w.sandbox.refuse = last = LastWaits(kind)
        assert (w.move(kind, **BATCHES), last.seen, len(w.sandbox.sent)) == (0, True, COUNT * 3)
        source, dest = w.contents(kind, ids)
        assert source == dest


def test_a_row_that_refers_to_an_object_of_its_kind_waits_until_that_is_made(
    tmp_path: Path,
) -> None:
    """It is written once, with the reference; nothing is left to a second pass."""
    with world(tmp_path) as w:
        ids = filled(w, "experiment")
        origin = {"object_type": "experiment", "object_id": ids[-1], "id": "r00001"}
        w.source.insert("experiment", ids[0], [{"id": "late", "input": 1, "origin": origin}])
        w.sandbox.refuse = last = LastWaits("experiment")
        assert (w.move("experiment", **BATCHES), last.seen, told(w.root)) == (0, True, {})
        there = w.twin("experiment", ids[0])
        (late,) = [row for row in w.dest.rows("experiment", there) if row["id"] == "late"]
        assert late["origin"] == {**origin, "object_id": w.twin("experiment", ids[-1])}
        assert w.sandbox.sent.count((there, "late")) == 1


def test_an_object_that_cannot_be_made_leaves_the_rows_of_its_group(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        ids = filled(w, "dataset")

        def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
            refused = path == "/v1/dataset" and json.loads(raw)["name"] == "object 003"
            return Answer(400, b"no", "text/plain") if refused else None

        w.sandbox.refuse = refuse
        assert w.move("dataset", **BATCHES) == 1
        source, dest = w.contents("dataset", [*ids[:3], *ids[4:]])
        assert source == dest


def test_pages_that_are_requested_in_advance_are_not_requested_again(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        filled(w, "dataset")
        assert w.move("dataset", **BATCHES) == 0
        # 75 rows may be a server's cap; and whether any row has facets
        assert w.asked(READ, "POST", "/btql") <= COUNT // 25 * 2 + 1
