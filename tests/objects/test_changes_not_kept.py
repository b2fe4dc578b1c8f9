"""A destination that confirms a change and does not keep it: told, and tried again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Iterator, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.following import follow, next_line
from tests.support.orgs import Pair, report
from tests.support.row_runs import World
from tests.support.syncs import DATASET, equal, first_sync, holder, living, sync


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with living(tmp_path, rows=2) as w:
        first_sync(w)
        yield w


def confirm(w: World, *, claims: bool) -> Any:
    """Answers each PATCH of the dataset with the object as it was, or as it should become."""

    def answer(method: str, path: str, body: bytes) -> Optional[Answer]:
        if method != "PATCH" or not path.startswith("/v1/dataset/"):
            return None
        (there,) = w.dest.objects("dataset")
        claimed = {**there, **json.loads(body)} if claims else there
        return Answer(200, json.dumps(claimed).encode())

    return answer


@pytest.mark.parametrize("claims", [False, True])
@pytest.mark.variants(1)
def test_a_change_that_is_confirmed_and_not_kept_is_tried_again(
    w: World, claims: bool, tmp_path: Path
) -> None:
    w.source.patch("dataset", holder(w, DATASET), {"description": "edited"})
    w.sandbox.refuse = confirm(w, claims=claims)
    for _ in range(2):
        done = sync(w)
        (problem,) = report(w.root)["problems"]
        assert (done.code, problem["outcome"]) == (1, "failed"), done.out
        assert "the destination did not keep the change of description" in problem["reason"]
        assert next_line(done).startswith("bin/migrate-all")
    w.sandbox.refuse = None
    done = follow(Pair(w.sandbox, w.source, w.dest), done, tmp_path)
    assert (done.code, equal(w)) == (0, True), done.out


def test_a_change_that_is_shown_late_is_no_failure(w: World) -> None:
    w.source.patch("dataset", holder(w, DATASET), {"description": "edited"})
    (before,) = w.dest.objects("dataset")
    reads = 0

    def as_before(method: str, path: str, body: bytes) -> Optional[Answer]:
        nonlocal reads
        if method != "GET" or path != f"/v1/dataset/{before['id']}":
            return None
        if w.dest.objects("dataset")[0].get("description") == before.get("description"):
            return None
        reads += 1
        return Answer(200, json.dumps(before).encode()) if reads == 1 else None

    w.sandbox.refuse = as_before
    done = sync(w)
    assert (done.code, reads, equal(w)) == (0, 2, True), done.out
