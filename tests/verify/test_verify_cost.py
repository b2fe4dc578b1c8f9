"""The queries that a comparison of every row says it will send, before it sends them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, List

import pytest

from tests.support.orgs import ANA, DEST_KEY, SOURCE_KEY, Pair, WatchedSandbox, run

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
    """The list of queries, of both sides, for rows and for the number of rows at a version."""
    sent: List[bytes] = []

    def count(method: str, path: str, body: bytes) -> None:
        if path == "/btql" and (b"select: *" in body or b'"version"' in body):
            sent.append(body)

    pair.sandbox.refuse = count
    return sent


# An older data plane has no snapshots.
@pytest.mark.recorded
@pytest.mark.parametrize(("rows", "limit"), [(6, "1000"), (400, "100"), (400, "1000")])
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
        assert 0.8 < 2 * int(told[1]) / len(sent) < 1.25, (told[0], len(sent))
