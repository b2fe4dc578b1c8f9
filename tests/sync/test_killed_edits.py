"""A copy is killed between a delivery and its record; a person edits what it delivered.

The same command goes on: the edit stays, it is reported, and everything else arrives.
"""

from __future__ import annotations

import signal
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, List, Tuple

import pytest

from tests.migration.test_dataset_versions import SNAPSHOTS, VERSIONS, timed_pair
from tests.migration.test_dropped_states import drop_row
from tests.support.orgs import AtRequest, Json, findings, is_insert, run, run_with, tiny_pair
from tests.support.sharding import move_objects, plan
from tests.support.syncs import DATASET, LOGS, later, living, merge, twin
from tests.support.undoing import undo

BATCHES = {"MIGRATION_EVENTS_INSERT_BATCH_SIZE": "10", "MIGRATION_MAX_CONCURRENT": "1"}
PAGES = {**BATCHES, "MIGRATION_EVENTS_FETCH_LIMIT": "20"}
THEIRS = {"by": "a person"}


def killed(pair: Any, root: Path, at: int, *args: str, **settings: str) -> None:
    place = AtRequest(at, "after", signal.SIGKILL, lambda _, path: is_insert(path))
    assert run_with(pair, root, place, *args, **settings).code == -signal.SIGKILL


def newest(org: Any, kind: str, holder: str) -> Json:
    return max(org.rows(kind, holder), key=lambda row: (row["_xact_id"], row["_pagination_key"]))


def edit(org: Any, kind: str, holder: str, row_id: str = "", **fields: Any) -> Json:
    """A person adds to a row, by default the one that was written last. Returns that row."""
    row_id = row_id or newest(org, kind, holder)["id"]
    merge(org, kind, holder, [{"id": row_id, "metadata": THEIRS, **fields}])
    return newest(org, kind, holder)


def edited(org: Any, kind: str, holder: str) -> List[Json]:
    return [row for row in org.rows(kind, holder) if "by" in (row["metadata"] or {})]


@pytest.mark.usefixtures("data_plane")
@pytest.mark.parametrize("seen", ["true", "false"])
@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.variants(1)
def test_an_edit_of_a_row_that_nobody_recorded_is_kept(at: int, seen: str, tmp_path: Path) -> None:
    settings = {**PAGES, "MIGRATION_EVENTS_USE_SEEN_DB": seen}
    with living(tmp_path, rows=60) as w:
        command = ("--resources", "datasets")
        killed(w, w.root, at, *command, **settings)
        dataset = w.dest.objects("dataset")[0]["id"]
        theirs = edit(w.dest, DATASET, dataset)
        end = run(w.sandbox, w.root, *command, **settings)
        assert (end.code, edited(w.dest, DATASET, dataset)) == (1, [theirs]), end.last_words
        assert len(w.dest.rows(DATASET, dataset)) == 60
        (differs,) = findings(w.root, "row_differs")
        assert (differs["count"], differs["row"]) == (1, theirs["id"])


def test_an_edit_in_a_killed_shard_is_kept(tmp_path: Path) -> None:
    """The rows of the other shard, in the same object, are in no record of this one."""
    root = tmp_path
    with living(tmp_path, rows=60) as w:
        move_objects(w, root)
        assert len(plan(w, root, 2, "--resources", "logs")) == 2
        command = ("--shard", f"{root}/shards.jsonl:0")
        killed(w, root / "0", 2, *command, **PAGES)
        logs = twin(w, LOGS)
        theirs = edit(w.dest, LOGS, logs)
        end = run(w.sandbox, root / "1", "--shard", f"{root}/shards.jsonl:1", **PAGES)
        assert end.code == 0, end.last_words
        end = run(w.sandbox, root / "0", *command, **PAGES)
        assert (end.code, edited(w.dest, LOGS, logs)) == (1, [theirs]), end.last_words
        assert [found["count"] for found in findings(root / "0", "row_differs")] == [1]
        assert len(w.dest.rows(LOGS, logs)) == 60


@SNAPSHOTS
@pytest.mark.parametrize(
    ("at", "code", "told"),
    [(2, 1, "row_differs"), (5, 1, "row_differs"), (6, 1, "row_differs"), (7, 0, "gone_row_kept")],
)
@pytest.mark.variants(1)
def test_an_edit_of_an_earlier_state_is_kept(at: int, code: int, told: str, tmp_path: Path) -> None:
    """The states that hold the row are not made, which is reported."""
    root = tmp_path / "runs"
    with timed_pair(40) as pair:
        killed(pair, root, at, VERSIONS, **PAGES)
        dataset = pair.dest.objects("dataset")[0]["id"]
        theirs = edit(pair.dest, DATASET, dataset)
        end = run(pair.sandbox, root, VERSIONS, **PAGES)
        assert (end.code, edited(pair.dest, DATASET, dataset)) == (code, [theirs]), end.last_words
        assert [found["count"] for found in findings(root, told)] == [1]
        left = findings(root, "dataset_version_left")
        assert {found["detail"] for found in left} == {"rows of it were changed in the destination"}


@SNAPSHOTS
def test_an_edit_is_kept_when_states_are_written_again(tmp_path: Path) -> None:
    """While the destination dropped a row of a state, a person edits another one."""
    root = tmp_path / "runs"
    with timed_pair(40) as pair:
        drop_row(pair, "row 41", times=1)
        forget = pair.sandbox.on_request
        theirs: List[Json] = []

        def edit_later(number: int, moment: str, method: str, path: str) -> None:
            forget(number, moment, method, path)
            datasets = pair.dest.objects("dataset")
            rows = pair.dest.rows(DATASET, datasets[0]["id"]) if datasets else []
            if not theirs and "row 42" in {row["id"] for row in rows}:
                theirs.append(edit(pair.dest, DATASET, datasets[0]["id"], "row 20"))

        pair.sandbox.on_request = edit_later
        end = run(pair.sandbox, root, VERSIONS, MIGRATION_VERIFY_WAIT="0", **PAGES)
        dataset = pair.dest.objects("dataset")[0]["id"]
        assert "writing again" in end.err, end.err
        assert (end.code, edited(pair.dest, DATASET, dataset)) == (0, theirs), end.last_words
        left = findings(root, "dataset_version_left")
        assert {found["detail"] for found in left} == {"rows of it were changed in the destination"}


def test_a_copy_that_cannot_see_what_was_delivered_waits_and_then_says_so(tmp_path: Path) -> None:
    settings = {**PAGES, "MIGRATION_VERIFY_WAIT": "0.5"}
    with living(tmp_path, rows=60) as w:
        command = ("--resources", "datasets")
        later(w, 500)  # the source shows its rows
        killed(w, w.root, 4, *command, **settings)
        w.sandbox.indexing_lag = 400
        end = run(w.sandbox, w.root, *command, **settings)
        dataset = w.dest.objects("dataset")[0]["id"]
        assert (end.code, len(w.dest.rows(DATASET, dataset))) == (0, 60), end.last_words
        assert "edits of rows that it does not show yet may be overwritten" in end.err


@pytest.mark.usefixtures("data_plane")
@pytest.mark.parametrize(("args", "starts"), [((), 1), (("--since-last",), 2)])
@pytest.mark.variants(1)
def test_a_rename_between_a_kill_and_the_next_start_is_kept(
    args: Tuple[str, ...], starts: int, tmp_path: Path
) -> None:
    """The project still waits for its user, whom PATCH sets; the name is not set with it."""
    root = tmp_path / "runs"
    with tiny_pair() as pair:
        place = AtRequest(1, "before", signal.SIGKILL, lambda _, path: path == "/v1/dataset")
        assert run_with(pair, root, place, *args).code == -signal.SIGKILL
        project = pair.dest.objects("project")[0]["id"]
        pair.dest.patch("project", project, {"name": "by a person"})
        for _ in range(starts):
            end = run(pair.sandbox, root, *args)
            names = {found["id"]: found["name"] for found in pair.dest.objects("project")}
            assert (end.code, names[project], len(names)) == (1, "by a person", 2), end.last_words


@pytest.mark.usefixtures("data_plane")
@pytest.mark.parametrize(("at", "row_id"), [(1, ""), (4, ""), (4, "theirs")])
def test_an_undo_after_a_kill_leaves_rows_of_a_person(at: int, row_id: str, tmp_path: Path) -> None:
    """The person edits a row, or adds one, in the minutes in which the run may still write."""
    with living(tmp_path, rows=60) as w:
        killed(w, w.root, at, "--resources", "datasets", **PAGES)
        dataset = w.dest.objects("dataset")[0]["id"]
        minute_later = datetime.fromtimestamp(w.sandbox.clock.seconds() + 60, timezone.utc)
        fields = {"created": minute_later.isoformat()} if row_id else {}
        theirs = edit(w.dest, DATASET, dataset, row_id, **fields)
        end = undo(w, w.root, "--yes")
        assert (end.code, edited(w.dest, DATASET, dataset)) == (1, [theirs]), end.out
        assert "holds rows that others wrote" in end.out
