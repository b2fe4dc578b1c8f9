"""The queries that a comparison of every row says it will send, before it sends them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, List

import pytest

from tests.support.orgs import (
    ANA,
    DEST_KEY,
    SOURCE_KEY,
    Pair,
    WatchedSandbox,
    recorded_pair,
    run,
)

VERSIONS = "--dataset-versions"


def fill_in_time(org: Any, rows: int) -> None:
    """A dataset with three states, of which two have snapshots, and two experiments."""
    project = org.create("project", {"name": "Alpha"})["id"]
    dataset = org.create("dataset", {"project_id": project, "name": "cases"})["id"]
    org.insert("dataset", dataset, [{"id": f"{n:04}", "input": n} for n in range(rows)])
    for name in ("first", "second", "third"):
        xact = max(row["_xact_id"] for row in org.rows("dataset", dataset))
        if name != "third":
            snapshot = {"dataset_id": dataset, "name": name, "xact_id": xact}
            org.create("dataset_snapshot", snapshot)
        if name != "first":
            pinned = {"dataset_id": dataset, "dataset_version": xact}
            org.create("experiment", {"project_id": project, "name": name, **pinned})
        org.insert("dataset", dataset, [{"id": "0001", "input": name}])


def count_queries(pair: Pair) -> List[bytes]:
    """Returns the list of queries, of both sides, for rows and the number of rows at a version."""
    sent: List[bytes] = []

    def count(method: str, path: str, body: bytes) -> None:
        if path == "/btql" and (b"select: *" in body or b'"version"' in body):
            sent.append(body)

    pair.sandbox.refuse = count
    return sent


# An older data plane has no snapshots.
@pytest.mark.recorded
@pytest.mark.parametrize(("rows", "limit"), [(6, "1000"), (400, "100"), (400, "1000")])
@pytest.mark.variants(1)
def test_the_cost_includes_the_states_of_datasets(rows: int, limit: str, tmp_path: Path) -> None:
    settings = {"MIGRATION_EVENTS_FETCH_LIMIT": limit}
    with WatchedSandbox() as sandbox:
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[{"email": ANA}])
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=[{"email": ANA}])
        fill_in_time(source, rows)
        pair = Pair(sandbox, source, dest)
        moved = run(pair.sandbox, tmp_path / "runs", VERSIONS, **settings)
        assert moved.code == 0, moved.last_words
        sent = count_queries(pair)
        words = ("--full", "-v")
        compared = run(pair.sandbox, tmp_path / "runs", *words, program="verify", **settings)
        told = re.search(r"comparing .*: (\d+) queries a side", compared.err)
        assert compared.code == 0 and told, compared.out + compared.err
        assert 2 * int(told[1]) == len(sent), told[0]


@pytest.mark.recorded
def test_the_cost_includes_the_rows_that_are_looked_up(tmp_path: Path) -> None:
    """Rows that were made from rows of a dataset, of which some were edited since."""
    with recorded_pair() as pair:
        org = pair.source
        project = org.create("project", {"name": "Alpha"})["id"]
        dataset = org.create("dataset", {"project_id": project, "name": "cases"})["id"]
        org.insert("dataset", dataset, [{"id": f"{n:04}", "input": n} for n in range(120)])
        made = []
        for row in org.rows("dataset", dataset):
            version = {"id": row["id"], "_xact_id": row["_xact_id"]}
            origin = {"object_type": "dataset", "object_id": dataset, **version}
            made.append({"id": f"of {row['id']}", "input": 1, "origin": origin})
        experiment = org.create("experiment", {"project_id": project, "name": "made"})["id"]
        org.insert("experiment", experiment, made)
        edited = [{"id": f"{number:04}", "input": "edited"} for number in range(0, 120, 2)]
        org.insert("dataset", dataset, edited)
        assert run(pair.sandbox, tmp_path / "runs", VERSIONS).code == 0
        sent = count_queries(pair)
        compared = run(pair.sandbox, tmp_path / "runs", "--full", "-v", program="verify")
        told = re.search(r"comparing .*: (\d+) queries a side", compared.err)
        assert compared.code == 0 and told, compared.out + compared.err
        # 2 pages of rows, 3 to the end of those that are read again, 3 x (made, present, past)
        assert (2 * int(told[1]), told[1]) == (len(sent), "14"), told[0]
