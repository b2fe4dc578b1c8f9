"""What the destination must answer before rows count as delivered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable, List, Optional

import pytest

from bt_migrate.rows.send import confirmed_of
from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import events_in, is_insert
from tests.support.row_runs import World, counted, refused, small_rows, told, world
from tests.support.syncs import LOGS, equal, holder, living, row, sync

DELETES = ("--propagate-deletes", "--max-deletes", "20%")
FAST = {"MIGRATION_RETRY_ATTEMPTS": "1", "MIGRATION_RETRY_DELAY": "0.01"}


@pytest.mark.parametrize(
    ("named", "confirmed"),
    [
        (["a", "b", "c"], [True, True, True]),
        (["c", "a", "b"], [True, True, True]),
        (["a", "c"], [True, False, True]),
        (["a", "a", "a"], [False, False, False]),
        (["a", "x"], [False, False, False]),
        (["a", "b", "c", "d"], [False, False, False]),
        ([], [False, False, False]),
    ],
)
def test_a_row_is_confirmed_if_the_answer_names_only_rows_that_were_sent(
    named: List[str], confirmed: List[bool]
) -> None:
    assert confirmed_of(["a", "b", "c"], named) == confirmed


NONSENSE = [
    Answer(200, b'{"error":"quota exceeded"}'),
    Answer(200, b"{}"),
    Answer(200, b"null"),
    Answer(200, b"[]"),
    Answer(204, b""),
    Answer(200, b'{"ids":null,"row_ids":null}'),
    Answer(200, b'{"ids":["other"],"row_ids":["other"],"xact_id":"1"}'),
    Answer(200, b'{"ids":7,"row_ids":7}'),
]


def answering(w: World, answer: Answer) -> Callable[[str, str, bytes], Optional[Answer]]:
    """Takes no rows for the destination and answers all the same."""

    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        return answer if method == "POST" and is_insert(path) else None

    return refuse


@pytest.mark.parametrize("answer", NONSENSE, ids=lambda answer: f"{answer.status}-{answer.body!r}")
@pytest.mark.parametrize("kind", ["project_logs", "dataset"])
def test_an_answer_that_names_no_row_is_no_delivery(
    kind: str, answer: Answer, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        ids = [w.project] if kind == LOGS else w.make(kind, "a", "b", "c")
        for object_id in ids:
            w.source.insert(kind, object_id, small_rows(7))
        w.sandbox.refuse = answering(w, answer)
        assert w.move(kind, **FAST) == 1
        assert sum(counts.get("created", 0) for counts in counted(w.root).values()) == 0
        w.sandbox.refuse = None
        assert w.move(kind) == 0
        source, dest = w.contents(kind, ids)
        assert source == dest


@pytest.mark.parametrize("answer", NONSENSE[:5], ids=lambda answer: repr(answer.body))
@pytest.mark.variants(1)
def test_a_sync_brings_later_what_was_not_confirmed(answer: Answer, tmp_path: Path) -> None:
    with living(tmp_path) as w:
        assert (sync(w).code, equal(w)) == (0, True)
        w.source.insert(LOGS, holder(w, LOGS), [row("new"), row("r00003", output="edited")])
        w.sandbox.refuse = answering(w, answer)
        assert sync(w, **FAST).code == 1
        w.sandbox.refuse = None
        assert (sync(w).code, equal(w)) == (0, True)


def test_a_row_that_the_answer_does_not_name_fails_alone(tmp_path: Path) -> None:
    """The server drops one row and says so, in that it does not name it."""
    with world(tmp_path) as w:
        w.source.insert(LOGS, w.project, small_rows(6))

        def drop(method: str, path: str, raw: bytes) -> Optional[Answer]:
            if method == "POST" and is_insert(path) and b"r00002" in raw:
                ids = [event["id"] for _, event in events_in(path, raw)]
                ids.remove("r00002")
                taken = json.dumps({"ids": ids, "row_ids": ids, "xact_id": "1"})
                return Answer(200, taken.encode())
            return None

        w.sandbox.refuse = drop
        assert w.move(LOGS, **FAST) == 1
        assert [line["id"] for line in refused(w.root)] == ["r00002"]
        assert told(w.root) == {"row_refused": 1}


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_logs3_gets_rows_by_the_documented_endpoints(
    status: int, tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        ids = w.make("dataset", "a", "b", "c")
        for object_id in ids:
            w.source.insert("dataset", object_id, small_rows(30))
        w.sandbox.refuse = lambda method, path, raw: (
            Answer(status, b"Cannot POST /logs3", "text/plain") if path == "/logs3" else None
        )
        assert w.move("dataset", MIGRATION_EVENTS_INSERT_BATCH_SIZE="20") == 0
        source, dest = w.contents("dataset", ids)
        assert source == dest


def test_a_transaction_that_the_answer_does_not_name_costs_no_row(tmp_path: Path) -> None:
    """An older data plane answers {"ids", "ok"}."""
    with living(tmp_path) as w:
        w.sandbox.behaviour.logs3_answers_transaction = False
        assert (sync(w).code, equal(w)) == (0, True)
        w.source.insert(LOGS, holder(w, LOGS), [row("new")])
        assert (sync(w).code, equal(w)) == (0, True)
        # An edit that does not arrive leaves the row ours.
        w.source.insert(LOGS, holder(w, LOGS), [row("r00003", output="edited")])
        w.sandbox.refuse = answering(w, Answer(200, b"{}"))
        assert sync(w, **FAST).code == 1
        w.sandbox.refuse = None
        assert (sync(w).code, equal(w)) == (0, True)


@pytest.mark.recorded
def test_a_delete_that_is_not_confirmed_is_not_counted(tmp_path: Path) -> None:
    with living(tmp_path, rows=60) as w:
        assert sync(w).code == 0
        w.source.insert(LOGS, holder(w, LOGS), [{"id": "r00003", "_object_delete": True}])
        w.sandbox.refuse = lambda method, path, raw: (
            Answer(200, b"{}") if b"_object_delete" in raw else None
        )
        assert sync(w, *DELETES, **FAST).code == 0  # seen to be gone, for the first time
        assert sync(w, *DELETES, **FAST).code == 1
        w.sandbox.refuse = None
        assert (sync(w, *DELETES).code, equal(w)) == (0, True)
