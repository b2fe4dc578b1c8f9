"""--propagate-deletes: deletes rows that are gone from the source, within a limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, Iterator, List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import Ended, findings, report, runs
from tests.support.row_runs import WRITE, World
from tests.support.syncs import (
    DATASET,
    KINDS,
    LOGS,
    equal,
    files,
    first_sync,
    holder,
    later,
    living,
    row,
    sync,
    twin,
)

DELETES = ("--propagate-deletes", "--max-deletes", "20%")


def sync_twice(w: World, *args: str) -> Ended:
    """What is gone is seen by the first sync and deleted by the second, an hour later."""
    first = sync(w, *args)
    assert first.code == 0, first.last_words
    return sync(w, *args)


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with living(tmp_path, projects=2, rows=60) as made:
        first_sync(made)
        later(made)
        yield made


def delete(w: World, kind: str, *ids: str, number: int = 0) -> None:
    w.source.insert(
        kind, holder(w, kind, number), [{"id": row_id, "_object_delete": True} for row_id in ids]
    )


def there(w: World, kind: str, number: int = 0) -> List[str]:
    return [found["id"] for found in w.dest.rows(kind, twin(w, kind, number))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.recorded  # only a transaction proves that a row may be deleted
@pytest.mark.variants(1)
def test_rows_that_are_gone_are_deleted_when_asked_for(kind: str, w: World) -> None:
    w.source.insert(kind, holder(w, kind), [row("new")])
    delete(w, kind, "r00000", "r00001", "r00059")
    without = sync(w)
    assert (without.code, len(there(w, kind))) == (0, 61)
    first = sync(w, *DELETES)
    assert (first.code, len(there(w, kind))) == (0, 61), first.last_words
    assert [record["count"] for record in findings(w.root, "gone_row_waits")] == [3]
    soon = sync(w, *DELETES, after_s=60)
    assert (soon.code, len(there(w, kind))) == (0, 61), soon.last_words
    end = sync(w, *DELETES)
    assert (end.code, equal(w)) == (0, True), end.last_words
    assert [record["deleted"] for record in report(w.root)["rows"] if record.get("deleted")] == [3]
    w.sandbox.clear_requests()
    again = sync(w, *DELETES)
    assert (again.code, w.sandbox.writes(WRITE)) == (0, [])
    # For each kind: the new rows, their number, and counts of all: two of the source, one there.
    assert sum(request.path == "/btql" for request in w.sandbox.requests) == 5 * 3


@pytest.mark.recorded  # only a transaction proves that a row may be deleted
def test_a_row_that_is_inserted_again_is_copied_again(w: World) -> None:
    delete(w, LOGS, "r00007")
    assert (sync_twice(w, *DELETES).code, equal(w)) == (0, True)
    w.source.insert(LOGS, holder(w, LOGS), [row("r00007", output="back")])
    assert (sync(w, *DELETES).code, equal(w)) == (0, True)


@pytest.mark.recorded  # only a transaction proves that a row may be deleted
def test_edited_rows_and_rows_of_others_are_not_deleted(w: World) -> None:
    w.dest.insert(LOGS, twin(w, LOGS), [row("r00003", output="reviewed"), row("theirs")])
    delete(w, LOGS, "r00003", "r00004")
    end = sync_twice(w, *DELETES)
    assert (end.code, {"r00003", "r00004", "theirs"} & set(there(w, LOGS))) == (
        0,
        {"r00003", "theirs"},
    ), end.last_words
    assert [record["count"] for record in findings(w.root, "gone_row_kept")] == [2]
    w.sandbox.clear_requests()
    assert sync(w, *DELETES).code == 0
    # Rows that stay are not examined by every sync.
    assert sum(request.path == "/btql" for request in w.sandbox.requests) == 5 * 3
    delete(w, LOGS, "r00005")
    assert (sync_twice(w, *DELETES).code, "r00005" in there(w, LOGS)) == (0, False)


@pytest.mark.recorded  # only a transaction proves that a row may be deleted
def test_more_than_the_limit_is_reported_and_deleted_only_with_a_higher_limit(w: World) -> None:
    delete(w, DATASET, *(f"r{number:05}" for number in range(2)))
    delete(w, DATASET, *(f"r{number:05}" for number in range(3)), number=1)
    default = sync(w, "--propagate-deletes")
    assert (default.code, len(there(w, DATASET)), len(there(w, DATASET, 1))) == (1, 60, 60)
    assert sorted(record["count"] for record in findings(w.root, "too_many_deletes")) == [2, 3]
    # The consent to invitations is none to deletions.
    agreed = ("--invite-users", "--yes")
    limited = sync(w, "--propagate-deletes", "--max-deletes", "4", *agreed)
    assert (limited.code, "run again with --max-deletes 5" in limited.err) == (1, True)
    end = sync(w, "--propagate-deletes", "--max-deletes", "5")
    assert (end.code, equal(w), findings(w.root, "too_many_deletes")) == (0, True, []), (
        end.last_words
    )


@pytest.mark.recorded  # only a transaction proves that a row may be deleted
def test_a_source_that_shows_no_rows_reaches_the_limit_of_deletes(w: World) -> None:
    delete(w, LOGS, *(f"r{number:05}" for number in range(60)))
    limit = ("--propagate-deletes", "--max-deletes", "10%")
    blind = sync(w, *limit)
    behind = [record["name"] for record in findings(w.root, "stream_behind")]
    assert (blind.code, behind) == (1, ["p00"]), blind.last_words
    end = sync(w, *limit)
    assert (
        end.code,
        len(there(w, LOGS)),
        [record["count"] for record in findings(w.root, "too_many_deletes")],
    ) == (1, 60, [60]), end.last_words


@pytest.mark.recorded  # only a transaction proves that a row may be deleted
def test_in_existing_objects_only_rows_of_this_tool_are_deleted(
    tmp_path: Path,
) -> None:
    with living(tmp_path, rows=60) as pair:
        project = pair.dest.create("project", {"name": "p00"})["id"]
        pair.dest.insert(LOGS, project, [row("theirs")])
        assert sync(pair).code == 0
        delete(pair, LOGS, "r00010")
        end = sync_twice(pair, *DELETES)
        ids = there(pair, LOGS)
        assert (end.code, len(ids), "theirs" in ids, "r00010" in ids) == (0, 60, True, False), (
            end.last_words
        )


def test_rows_that_the_source_does_not_show_for_one_sync_are_not_deleted(w: World) -> None:
    """A right is missing for a night, and the queries of one log answer with nothing."""

    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        ours = path == "/btql" and holder(w, LOGS).encode() in raw
        return Answer(200, b'{"data": []}') if ours else None

    w.sandbox.refuse = refuse
    assert sync(w, "--propagate-deletes", "--max-deletes", "100%").code == 1
    w.sandbox.refuse = None
    assert (sync(w, "--propagate-deletes", "--max-deletes", "100%").code, equal(w)) == (0, True)


def planned_deletes(w: World, *args: str) -> Dict[str, Dict[str, int]]:
    """What a dry run says that the next sync deletes; it changes nothing."""
    (real, *_) = runs(w.root)
    before = files(real)
    w.sandbox.clear_requests()
    end = sync(w, "--dry-run", *args, after_s=0)
    assert (end.code, w.sandbox.writes(WRITE), files(real)) == (0, [], before), end.last_words
    planned: Dict[str, Dict[str, int]] = report(w.root)["estimate"]["deletes"]
    return planned


def deleted(w: World) -> Dict[str, int]:
    """kind of rows -> what the last sync deleted"""
    (real, *_) = runs(w.root)
    rows = json.loads((real / "migration_report.json").read_text(encoding="utf-8"))["rows"]
    return {record["kind"]: record["deleted"] for record in rows if record.get("deleted")}


@pytest.mark.recorded  # only a transaction proves that a row may be deleted
def test_a_dry_run_says_what_the_sync_deletes(w: World) -> None:
    """New rows in the same object hide those that are gone: the numbers of rows are equal."""
    w.dest.insert(LOGS, twin(w, LOGS), [row("r00003", output="reviewed"), row("theirs")])
    delete(w, LOGS, "r00002", "r00003", "r00004")
    delete(w, DATASET, "r00001", number=1)
    first = planned_deletes(w, *DELETES)
    assert first == {
        "logs": {"rows": 0, "waiting": 2, "too_many": 0},
        "datasets": {"rows": 0, "waiting": 1, "too_many": 0},
    }
    assert sync(w, *DELETES).code == 0
    assert deleted(w) == {}
    later(w)
    delete(w, LOGS, "r00005")
    w.source.insert(LOGS, holder(w, LOGS), [row("new"), row("r00006", output="edited"), row("n2")])
    second = planned_deletes(w, *DELETES)
    assert second == {
        "logs": {"rows": 2, "waiting": 1, "too_many": 0},
        "datasets": {"rows": 1, "waiting": 0, "too_many": 0},
    }
    assert planned_deletes(w, "--propagate-deletes", "--max-deletes", "2")["logs"] == {
        "rows": 0,
        "waiting": 0,
        "too_many": 3,
    }
    assert sync(w, *DELETES, after_s=0).code == 0
    assert deleted(w) == {"logs": 2, "datasets": 1}
    assert planned_deletes(w) == {}
    later(w)
    delete(w, LOGS, "new")  # the row store alone says that a sync delivered it
    third = planned_deletes(w, *DELETES)
    assert third["logs"] == {"rows": 1, "waiting": 1, "too_many": 0}
