"""Who wrote a row of the destination last is decided by transactions, whatever the clocks say."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Dict, Optional

import pytest

from bt_migrate.report.differences import known_differences
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.state.run_directory import RunDirectory
from tests.support.orgs import AtRequest, findings, run, run_with, runs
from tests.support.row_runs import WRITE, small_rows, told, world
from tests.support.syncs import (
    DATASET,
    KINDS,
    LOGS,
    equal,
    holder,
    living,
    merge,
    row,
    sent,
    sync,
    twin,
)
from tests.support.undoing import shift_dates, undo_run

DELETES = ("--propagate-deletes", "--max-deletes", "20%")


@pytest.mark.parametrize("seen", ["true", "false"])
@pytest.mark.parametrize("ahead_s", [-3600, -5, 0, 60])
@pytest.mark.variants(1)
def test_an_edit_right_after_the_delivery_is_kept_whatever_the_gateways_clock_says(
    ahead_s: int, seen: str, tmp_path: Path
) -> None:
    with living(tmp_path) as w:
        shift_dates(w.sandbox, ahead_s)
        assert (sync(w, MIGRATION_EVENTS_USE_SEEN_DB=seen).code, equal(w)) == (0, True)
        w.dest.insert(LOGS, twin(w, LOGS), [row("r00003", output="by a person")])
        edits = [row("r00003", output="by the source"), row("r00004", output="by the source")]
        w.source.insert(LOGS, holder(w, LOGS), edits)
        sent(w)
        end = sync(w, MIGRATION_EVENTS_USE_SEEN_DB=seen)
        assert (end.code, [row_id for _, row_id in sent(w)]) == (1, ["r00004"]), end.last_words
        assert told(w.root).get("row_differs") == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ahead_s", [1200, 86400])
@pytest.mark.variants(1)
def test_rows_arrive_although_the_dates_of_answers_are_ahead_of_all_transactions(
    ahead_s: int, kind: str, tmp_path: Path
) -> None:
    """By the clock each of these rows was written before the sync mark."""
    with living(tmp_path) as w:
        shift_dates(w.sandbox, ahead_s)
        assert (sync(w).code, equal(w)) == (0, True)
        for number in range(3):
            edits = [row(f"new {number}"), row("r00003", metadata={"n": number})]
            w.source.insert(kind, holder(w, kind), edits)
            sent(w)
            end = sync(w, after_s=60)
            assert (end.code, equal(w), len(sent(w))) == (0, True, 2), end.last_words
            end = sync(w, after_s=60)
            assert (end.code, sent(w)) == (0, []), end.last_words


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.variants(1)
def test_rows_of_every_delivery_are_known_as_ours(kind: str, tmp_path: Path) -> None:
    """Of the copy, of its last page, of a sync, and of rows that a sync found."""
    with living(tmp_path) as w:
        shift_dates(w.sandbox, -3600)
        assert sync(w, MIGRATION_EVENTS_FETCH_LIMIT="10").code == 0
        for number in range(3):
            edited = [row(f"r{place:05}", metadata={"n": number}) for place in (0, 15, 29)]
            w.source.insert(kind, holder(w, kind), edited)
            end = sync(w)
            assert (end.code, equal(w)) == (0, True), end.last_words


@pytest.mark.recorded
def test_a_row_that_a_person_added_during_the_copy_is_never_deleted(tmp_path: Path) -> None:
    """Not by its own id, and not by an id that the source had too."""
    with living(tmp_path, rows=60) as w:
        added: Dict[str, bool] = {}

        def add(method: str, path: str, raw: bytes) -> Optional[Answer]:
            if path == "/logs3" and b'"r00005"' in raw and not added:
                added["done"] = True
                project = w.dest.objects("project")[0]["id"]
                w.dest.insert(LOGS, project, [row("theirs"), row("r00059", output="theirs")])
            return None

        w.sandbox.refuse = add
        assert sync(w, MIGRATION_EVENTS_INSERT_BATCH_SIZE="20").code == 0
        w.sandbox.refuse = None
        w.dest.insert(LOGS, twin(w, LOGS), [row("r00007", output="edited by a person")])
        gone = [{"id": row_id, "_object_delete": True} for row_id in ("r00007", "r00008")]
        w.source.insert(LOGS, holder(w, LOGS), gone)
        assert sync(w, *DELETES).code == 0
        # Rows that two syncs missed are deleted.
        end = sync(w, *DELETES)
        ids = {found["id"] for found in w.dest.rows(LOGS, twin(w, LOGS))}
        assert (end.code, "theirs" in ids, "r00007" in ids, "r00008" in ids) == (
            0,
            True,
            True,
            False,
        ), end.last_words
        assert [finding["count"] for finding in findings(w.root, "gone_row_kept")] == [2]


@pytest.mark.usefixtures("data_plane")
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.variants(1)
def test_an_edit_of_a_row_that_a_killed_copy_delivered_is_kept(at: int, tmp_path: Path) -> None:
    """The killed process recorded no delivery of the row, so the copy sends it again."""
    with living(tmp_path, rows=60) as w:
        place = AtRequest(at, "after", signal.SIGKILL, lambda _, path: path == "/logs3")
        batches = {"MIGRATION_EVENTS_INSERT_BATCH_SIZE": "10"}
        command = ("--resources", "datasets", "--max-concurrent", "1")
        assert run_with(w, w.root, place, *command, **batches).code == -signal.SIGKILL
        dataset = w.dest.objects("dataset")[0]["id"]
        edited = w.dest.rows(DATASET, dataset)[-1]["id"]
        merge(w.dest, DATASET, dataset, [{"id": edited, "metadata": {"by": "a person"}}])
        before = w.dest.rows(DATASET, dataset)[-1]
        end = run(w.sandbox, w.root, *command, **batches)
        there = {found["id"]: found for found in w.dest.rows(DATASET, dataset)}
        assert (end.code, len(there), there[edited]) == (1, 60, before), end.last_words
        assert [finding["count"] for finding in findings(w.root, "row_differs")] == [1]
        again = run(w.sandbox, w.root, *command, **batches)
        assert w.dest.rows(DATASET, dataset) == list(there.values()), again.out


# An older data plane names no transactions, and nothing is read.
@pytest.mark.recorded
def test_a_copy_that_continues_reads_only_what_the_destination_wrote_without_a_record(
    tmp_path: Path,
) -> None:
    """One query names the transactions; two look up the rows that were in flight and those after
    them, of which none is there.
    """
    with living(tmp_path, rows=600) as w:
        place = AtRequest(30, "after", signal.SIGKILL, lambda _, path: path == "/logs3")
        sizes = {
            "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "10",
            "MIGRATION_EVENTS_FETCH_LIMIT": "50",
        }
        command = ("--resources", "datasets", "--max-concurrent", "1")
        assert run_with(w, w.root, place, *command, **sizes).code == -signal.SIGKILL
        w.sandbox.clear_requests()
        end = run(w.sandbox, w.root, *command, "--no-verify", **sizes)
        reads = [
            request
            for request in w.sandbox.requests
            if request.org_name == WRITE and request.path == "/btql"
        ]
        assert (end.code, len(reads)) == (0, 3), end.last_words


def test_a_row_that_a_person_wrote_again_with_the_same_content_is_not_deleted(
    tmp_path: Path,
) -> None:
    with living(tmp_path, rows=60) as w:
        assert sync(w).code == 0
        w.source.insert(LOGS, holder(w, LOGS), [row("new")])
        assert sync(w).code == 0
        w.dest.insert(LOGS, twin(w, LOGS), [row("new")])
        w.source.insert(LOGS, holder(w, LOGS), [{"id": "new", "_object_delete": True}])
        assert sync(w, *DELETES).code == 0
        assert "new" in {found["id"] for found in w.dest.rows(LOGS, twin(w, LOGS))}


def test_without_transactions_nothing_is_deleted_and_nobodys_edit_is_lost(tmp_path: Path) -> None:
    """An older data plane does not name the transaction of a delivery."""
    with living(tmp_path, rows=60) as w:
        w.sandbox.behaviour.logs3_answers_transaction = False
        assert sync(w).code == 0
        w.dest.insert(LOGS, twin(w, LOGS), [row("r00003", output="by a person")])
        edits = [row(name, output="by the source") for name in ("r00003", "r00004", "r00059")]
        w.source.insert(LOGS, holder(w, LOGS), edits)
        w.source.insert(LOGS, holder(w, LOGS), [{"id": "r00008", "_object_delete": True}])
        end = sync(w, *DELETES)
        found = {item["id"]: item.get("output") for item in w.dest.rows(LOGS, twin(w, LOGS))}
        assert (found["r00003"], "r00008" in found) == ("by a person", True), end.last_words
        # Rows that hold what was sent are ours, those of the last page too.
        assert [found[name] for name in ("r00004", "r00059")] == ["by the source"] * 2
        assert end.code == 1
        assert len(runs(w.root)) == 1


@pytest.mark.parametrize("names_transactions", [True, False])
def test_undo_keeps_a_row_that_a_person_edited_right_after_its_delivery(
    names_transactions: bool, tmp_path: Path
) -> None:
    """The edit is in the same second as the end of the run."""
    with world(tmp_path) as w:
        w.sandbox.behaviour.logs3_answers_transaction &= names_transactions
        project = w.dest.create("project", {"name": "rows"})["id"]
        w.source.insert(LOGS, w.project, small_rows(30))
        assert w.move(LOGS, MIGRATION_EVENTS_FETCH_LIMIT="10") == 0
        w.dest.insert(LOGS, project, [row("r00003", output="by a person")])
        done = undo_run(w, runs(w.root)[0], "--yes")
        assert (done.code, [found["id"] for found in w.dest.rows(LOGS, project)]) == (
            1,
            ["r00003"],
        )


def test_an_edit_that_a_finished_copy_kept_fails_the_start_whose_sync_follows(
    tmp_path: Path,
) -> None:
    """The sync of the same start does not read the row again; that of the next start need not."""
    with living(tmp_path, rows=60) as w:
        place = AtRequest(2, "after", signal.SIGKILL, lambda _, path: path == "/logs3")
        batches = {"MIGRATION_EVENTS_INSERT_BATCH_SIZE": "10"}
        command = ("--since-last", "--resources", "datasets", "--max-concurrent", "1")
        assert run_with(w, w.root, place, *command, **batches).code == -signal.SIGKILL
        dataset = w.dest.objects("dataset")[0]["id"]
        edited = w.dest.rows(DATASET, dataset)[-1]["id"]
        merge(w.dest, DATASET, dataset, [{"id": edited, "metadata": {"by": "a person"}}])
        end = sync(w, *command[1:], **batches)
        assert (end.code, "exist with other content" in end.out) == (1, True), end.last_words
        assert [found["count"] for found in findings(w.root, "row_differs")] == [1]
        with RunDirectory(runs(w.root)[-1]) as moved:
            assert [found["detail"] for found in known_differences(moved)] == ["rows: 1"]
        again = sync(w, *command[1:], **batches)
        assert (again.code, findings(w.root, "row_differs")) == (0, []), again.last_words
