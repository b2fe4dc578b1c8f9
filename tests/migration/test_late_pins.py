"""Versions that were left out, because what they name had not arrived, are added later."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.migration.test_dataset_versions import (
    VERSIONS,
    newest,
    origins,
    snapshots,
    take_snapshot,
    timed_pair,
)
from tests.rows.test_row_ends import serving
from tests.support.compare_orgs import differences
from tests.support.orgs import Pair, findings, report, run, runs
from tests.support.pinned import histories, pinned_content, pinned_pair

VERIFIED = ("--verify", "--full")


def refuse_row(row_id: str, status: int) -> Any:
    """Refuses each insert that holds the row."""

    def refuse(method: str, path: str, body: bytes) -> Optional[Answer]:
        is_insert = path == "/logs3" or path.endswith("/insert")
        return Answer(status, b"no") if is_insert and f'"{row_id}"'.encode() in body else None

    return refuse


def pin_to_present_state(pair: Pair) -> None:
    """An experiment and a snapshot name the present state of the dataset."""
    dataset_id = take_snapshot(pair.source, "now")
    (project,) = pair.source.objects("project")
    pin = {"dataset_id": dataset_id, "dataset_version": newest(pair.source, dataset_id)}
    pair.source.create("experiment", {"project_id": project["id"], "name": "latest", **pin})


def latest(org: Any) -> Any:
    return next(obj for obj in org.objects("experiment") if obj["name"] == "latest")


# A refused row has its outcome, and the next start is a new run; a refused object stays open.
@pytest.mark.parametrize(("status", "count"), [(400, 2), (403, 1)])
@pytest.mark.variants(1)
def test_a_pin_is_added_once_the_rows_of_its_dataset_have_arrived(
    status: int, count: int, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    with timed_pair() as pair:
        pin_to_present_state(pair)
        pair.sandbox.refuse = refuse_row("row 4", status)
        done = run(pair.sandbox, root)
        assert (done.code, snapshots(pair.dest)) == (1, {}), done.last_words
        assert latest(pair.dest)["dataset_version"] is None
        pair.sandbox.refuse = None
        done = run(pair.sandbox, root, *VERIFIED)
        assert (done.code, differences(pair)) == (0, []), done.out + done.last_words
        assert len(runs(root)) == count
        assert list(snapshots(pair.dest)) == ["now"]
        assert latest(pair.dest)["dataset_version"] == snapshots(pair.dest)["now"]
        left = findings(root, "state_not_there") + findings(root, "version_pin_removed")
        assert "latest" not in [found["name"] for found in left]
        assert "now" not in [found["name"] for found in left]
        pair.sandbox.clear_requests()
        done = run(pair.sandbox, root)
        assert (done.code, pair.sandbox.writes("globex")) == (0, []), done.last_words


def test_pins_to_a_history_that_was_refused_in_the_middle_are_added_with_its_versions(
    tmp_path: Path,
) -> None:
    def refuse(method: str, path: str, body: bytes) -> Optional[Answer]:
        return Answer(400, b"no") if method == "PUT" and b'"Greeting"' in body else None

    root = tmp_path / "runs"
    with pinned_pair() as pair:
        pair.sandbox.refuse = refuse
        assert run(pair.sandbox, root, "--history", "all").code == 1
        pair.sandbox.refuse = None
        done = run(pair.sandbox, root, "--history", "all", *VERIFIED)
        assert (done.code, report(root)["problems"]) == (0, []), done.out + done.last_words
        assert histories(pair.dest) == histories(pair.source)
        assert pinned_content(pair.dest) == pinned_content(pair.source)


def late_reference(pair: Pair) -> None:
    """A row of the dataset was made from a row of an experiment, which is moved after it."""
    (dataset,), (experiment,) = pair.source.objects("dataset"), pair.source.objects("experiment")
    first = pair.source.rows("experiment", experiment["id"])[0]
    origin = {"object_type": "experiment", "object_id": experiment["id"], "id": first["id"]}
    made = {"id": "made", "input": {"n": 9}, "expected": "made", "origin": origin}
    pair.source.insert("dataset", dataset["id"], [made])


def test_a_pin_names_the_rows_with_the_references_that_were_added_later(tmp_path: Path) -> None:
    """A run that knows nothing of the first finds the same transaction."""
    with timed_pair() as pair:
        late_reference(pair)
        pin_to_present_state(pair)
        for root in (tmp_path / "first", tmp_path / "fresh"):
            pair.sandbox.clear_requests()
            done = run(pair.sandbox, root, *VERIFIED)
            assert (done.code, report(root)["problems"]) == (0, []), done.out + done.last_words
        assert pair.sandbox.writes("globex") == []
        assert latest(pair.dest)["dataset_version"] == snapshots(pair.dest)["now"]


@pytest.mark.recorded  # an older data plane has no snapshots
def test_versions_that_origins_name_are_there_although_the_server_cuts_its_answers(
    tmp_path: Path,
) -> None:
    def cut(query: str, found: Any) -> None:
        if "origin._xact_id as xact" in query:
            del found["data"][3:]

    with timed_pair() as pair:
        for snapshot in pair.source.objects("dataset_snapshot"):
            pair.source.delete("dataset_snapshot", snapshot["id"])
        serving(pair, answer=cut)
        done = run(pair.sandbox, tmp_path / "runs", VERSIONS, "--verify")
        assert (done.code, findings(tmp_path / "runs", "version_pin_removed")) == (0, [])
        assert sorted(origins(pair.dest)) == sorted(origins(pair.source))
