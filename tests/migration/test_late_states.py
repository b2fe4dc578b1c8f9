"""Earlier states of datasets whose rows were made from what is moved after the datasets."""

from __future__ import annotations

from pathlib import Path
from typing import List

import pytest

from tests.migration.test_dataset_versions import (
    STATES,
    VERSIONS,
    newest,
    of,
    snapshots,
    take_snapshot,
    timed_pair,
)
from tests.support.claims import untrue_claims
from tests.support.compare_orgs import differences
from tests.support.kills import Kill, at_requests, seeded_kills, starts
from tests.support.orgs import Pair, example_pair, findings, report, run, runs
from tests.support.people import MISSING, invite, people_pair

# An older data plane names no transaction of a write: the states are reported, not made.
pytestmark = pytest.mark.recorded

KINDS = ("experiment", "prompt")
PROVED = (VERSIONS, "--history", "all", "--verify", "--full")


def late_state(pair: Pair, name: str = "late") -> None:
    """A state with rows that were made with a prompt and from a row of an experiment.

    A snapshot, an experiment and origins of rows name it; both rows change after it.
    """
    source = pair.source
    (dataset,), (experiment, *_) = source.objects("dataset"), source.objects("experiment")
    project = dataset["project_id"]
    text = {"type": "completion", "content": name}
    body = {"project_id": project, "name": name, "slug": name, "prompt_data": {"prompt": text}}
    prompt = source.create("prompt", body)
    first = source.rows("experiment", experiment["id"])[0]
    made_from = {"object_type": "experiment", "object_id": experiment["id"], "id": first["id"]}
    used = {"id": prompt["id"], "project_id": project, "version": prompt["_xact_id"]}
    rows = [
        {"id": f"from {name}", "input": {"n": 1}, "expected": name, "origin": made_from},
        {"id": f"by {name}", "input": {"n": 2}, "expected": name, "metadata": {"prompt": used}},
        {"id": f"list {name}", "input": {"n": 3}, "metadata": {"made from": [experiment["id"]]}},
    ]
    source.insert("dataset", dataset["id"], rows)
    take_snapshot(source, name)
    pin = {"dataset_id": dataset["id"], "dataset_version": newest(source, dataset["id"])}
    pinned = source.create("experiment", {"project_id": project, "name": name, **pin})
    shown = [row for row in source.rows("dataset", dataset["id"]) if row["expected"] == name]
    source.insert("experiment", pinned["id"], [of(row, dataset["id"]) for row in shown])
    source.insert("dataset", dataset["id"], [{"id": row["id"], "input": 0} for row in rows])


def is_equal(pair: Pair, root: Path, *names: str) -> None:
    (dataset,) = pair.dest.objects("dataset")
    ids = {obj["name"]: obj["id"] for kind in KINDS for obj in pair.dest.objects(kind)}
    for name in names:
        state = pair.dest.rows("dataset", dataset["id"], snapshots(pair.dest)[name])
        rows = {row["id"]: row for row in state}
        assert rows[f"from {name}"]["origin"]["object_id"] == ids["evaluated"]
        assert rows[f"by {name}"]["metadata"]["prompt"]["id"] == ids[name]
        assert rows[f"list {name}"]["metadata"] == {"made from": [ids["evaluated"]]}
    assert differences(pair, versions=True) == []
    assert report(root)["verification"]["equal"]
    assert findings(root, "version_pin_removed") == []
    assert findings(root, "dataset_version_left") == []


def test_a_state_has_the_references_to_what_is_moved_after_its_dataset(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with timed_pair() as pair:
        late_state(pair)
        done = run(pair.sandbox, root, *PROVED)
        assert (done.code, report(root)["problems"]) == (0, []), done.out
        is_equal(pair, root, "late")
        assert set(snapshots(pair.dest)) == {*STATES, "late"}
        pair.sandbox.clear_requests()
        again = run(pair.sandbox, tmp_path / "fresh", *PROVED[:3])
        assert (again.code, pair.sandbox.writes("globex")) == (0, []), again.last_words


def test_a_sync_waits_too(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with timed_pair() as pair:
        late_state(pair)
        assert run(pair.sandbox, root, *PROVED[:3]).code == 0
        late_state(pair, "later")
        done = run(pair.sandbox, root, *PROVED, "--since-last")
        assert (done.code, report(root)["problems"]) == (0, []), done.out
        is_equal(pair, root, "late", "later")


def test_each_phase_alone_completes_what_waits(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with timed_pair() as pair:
        late_state(pair)
        done = run(pair.sandbox, root, VERSIONS, program="migrate_datasets")
        assert (done.code, set(snapshots(pair.dest))) == (1, set(STATES)), done.out
        assert "Next: bin/migrate-definitions" in done.out
        done = run(pair.sandbox, root, *PROVED[1:3], program="migrate_definitions")
        assert "Next: bin/migrate-experiments --dataset-versions" in done.out
        done = run(pair.sandbox, root, *PROVED[:3], program="migrate_experiments")
        assert done.code == 0, done.out
        done = run(pair.sandbox, root, *PROVED[1:3], "--full", program="verify")
        assert (done.code, report(root)["problems"]) == (0, []), done.out
        is_equal(pair, root, "late")


def test_a_state_that_lacks_references_for_good_is_a_finding(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with timed_pair() as pair:
        late_state(pair)
        done = run(pair.sandbox, root, *PROVED, "--exclude-resources", "experiments")
        (left,) = findings(root, "dataset_version_left")
        assert left["detail"] == "its rows refer to objects that were not moved", done.out
        assert set(snapshots(pair.dest)) == set(STATES)


def test_nothing_waits_for_a_project_that_is_not_selected(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with timed_pair() as pair:
        beta = pair.source.create("project", {"name": "Beta"})["id"]
        other = pair.source.create("experiment", {"project_id": beta, "name": "other"})["id"]
        pair.source.insert("experiment", other, [{"id": "first", "input": 1}])
        (dataset,) = pair.source.objects("dataset")
        origin = {"object_type": "experiment", "object_id": other, "id": "first"}
        pair.source.insert("dataset", dataset["id"], [{"id": "made", "origin": origin}])
        take_snapshot(pair.source, "late")
        pair.source.insert("dataset", dataset["id"], [{"id": "made", "input": "changed"}])
        done = run(pair.sandbox, root, *PROVED, "--projects", "Alpha")
        (left,) = findings(root, "dataset_version_left")
        assert left["detail"] == "its rows refer to objects that were not moved", done.out
        assert report(root)["verification"]["equal"]


def test_a_state_whose_users_are_invited_later_is_equal(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with people_pair() as pair:
        dataset_id = take_snapshot(pair.source, "assigned")
        pair.source.insert("dataset", dataset_id, [{"id": "r1", "input": "changed"}])
        take_snapshot(pair.source, "now")
        for emails in ((), MISSING):
            invite(pair, emails)
            done = run(pair.sandbox, root, *PROVED)
            assert (done.code, report(root)["problems"]) == (0, []), done.out
            assert set(snapshots(pair.dest)) == {"assigned", "now"}


@pytest.mark.parametrize("kills", seeded_kills(18, 20, range(30, 140), short=1))
def test_a_killed_run_goes_on_with_what_waits(kills: List[Kill], tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with timed_pair() as pair:
        late_state(pair)
        for last in starts(pair, root, at_requests(kills), *PROVED):
            untrue = [claim for place in runs(root) for claim in untrue_claims(pair, place)]
            assert untrue == [], last.last_words
        assert last.code == 0, last.last_words
        is_equal(pair, root, "late")


def test_rows_that_came_before_their_dataset_are_completed_with_the_version_of_its_last_state(
    tmp_path: Path,
) -> None:
    """Experiments first: their rows are completed while the dataset's states are still written."""
    root = tmp_path / "runs"
    with example_pair(rows=40) as pair:
        only = ("--resources", "acls,experiments,views")
        assert run(pair.sandbox, root, *only, program="migrate_experiments").code == 1
        done = run(pair.sandbox, root, VERSIONS, "--verify")
        assert (done.code, differences(pair, versions=True)) == (0, []), done.out
