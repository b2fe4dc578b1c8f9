"""Earlier states of datasets that are not whole in the destination: dropped rows, half a replay."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from bt_migrate.phases import accept
from tests.migration.test_dataset_versions import SMALL, SNAPSHOTS, VERSIONS, snapshots, timed_pair
from tests.support.compare_orgs import differences
from tests.support.orgs import AtRequest, Ended, Pair, findings, is_insert, run, run_with
from tests.support.undoing import undo

WHOLE = (VERSIONS, "--verify", "--full")
PAST = "row 7"  # is in the second state only


def drop_row(pair: Pair, row_id: str, times: int) -> None:
    """The destination accepts a row of the dataset, and forgets it at once."""
    dropped = 0

    def forget(number: int, moment: str, method: str, path: str) -> None:
        nonlocal dropped
        datasets = pair.dest.objects("dataset")
        if moment != "after" or not is_insert(path) or not datasets or dropped == times:
            return
        held = pair.sandbox.store.rows.get(("dataset", datasets[0]["id"]))
        if held is not None and row_id in held.by_id:
            dropped += 1
            place = held.rows.index(held.by_id.pop(row_id))
            del held.rows[place], held.keys[place]

    pair.sandbox.on_request = forget


def move(pair: Pair, root: Path, **settings: str) -> Ended:
    return run(pair.sandbox, root, *WHOLE, MIGRATION_VERIFY_WAIT="0", **settings)


@SNAPSHOTS
@pytest.mark.parametrize("row_id", [PAST, "row 1"])
@pytest.mark.variants(1)
def test_rows_of_a_state_that_were_dropped_are_written_again(row_id: str, tmp_path: Path) -> None:
    with timed_pair() as pair:
        drop_row(pair, row_id, times=1)
        done = move(pair, tmp_path / "runs")
        assert (done.code, differences(pair, versions=True)) == (0, []), done.last_words
        assert "the destination dropped rows of earlier states; writing again" in done.err


@SNAPSHOTS
def test_states_that_are_shown_late_are_written_once(tmp_path: Path) -> None:
    with timed_pair() as pair:
        pair.sandbox.clock.set(pair.sandbox.clock.seconds() + 60)  # the source shows its rows
        pair.sandbox.indexing_lag = 0.7
        done = run(pair.sandbox, tmp_path / "runs", *WHOLE)
        assert (done.code, differences(pair, versions=True)) == (0, []), done.last_words
        assert "dropped" not in done.err


@SNAPSHOTS
def test_a_state_whose_rows_are_always_dropped_is_left_and_what_names_it_can_be_accepted(
    tmp_path: Path,
) -> None:
    root = tmp_path / "runs"
    with timed_pair() as pair:
        drop_row(pair, PAST, times=99)
        assert move(pair, root).code == 1
        (left,) = findings(root, "dataset_version_left")
        assert left["detail"] == "the destination accepted rows of it that it does not show"
        assert sorted(snapshots(pair.dest)) == ["first", "third"]
        done = move(pair, root)
        assert done.code == 1
        accept_all(done)
        assert move(pair, root).code == 0


def accept_all(done: Ended) -> None:
    """Run the recommended command, which is bin/accept."""
    command, *arguments = shlex.split(done.out.splitlines()[-1], comments=True)[1:]
    assert command == "bin/accept", done.out
    assert accept.main([*arguments, "--yes"]) == 0


@SNAPSHOTS
def test_a_new_folder_of_runs_names_what_completes_a_half_written_dataset(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    with timed_pair() as pair:
        place: Any = AtRequest(3, "after", signal.SIGKILL, lambda _, path: is_insert(path))
        assert run_with(pair, tmp_path / "lost", place, VERSIONS, **SMALL).code < 0
        done = move(pair, fresh)
        advice = "# accepts what differs; or undo this run, delete the datasets, run again"
        assert (done.code, done.out.splitlines()[-2]) == (1, advice)
        assert undo(pair, fresh, "--yes").code == 0
        pair.dest.delete("dataset", pair.dest.objects("dataset")[0]["id"])
        done = move(pair, fresh)
        assert (done.code, differences(pair, versions=True)) == (0, []), done.last_words
