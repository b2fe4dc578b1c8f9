"""The estimate of a whole move is near what the move then takes and sends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bt_migrate.rows.estimate import seconds_at_once
from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import Pair, run, runs


@pytest.mark.parametrize(
    ("parts", "at_once", "expected"),
    [([], 4, 0.0), ([5.0], 4, 5.0), ([6.0] * 7, 4, 12.0), ([1.0, 1.0, 4.0], 2, 4.0)],
)
def test_parts_at_once_take_as_long_as_the_last_of_them(
    parts: list, at_once: int, expected: float
) -> None:
    assert seconds_at_once(parts, at_once) == expected


def test_an_estimate_is_near_the_queries_the_disk_and_the_time_of_a_move(
    pair: Pair, tmp_path: Path
) -> None:
    pair.sandbox.latency = {"btql": 0.1, "default": 0.02}
    done = run(pair.sandbox, tmp_path / "runs", "--json", program="validate")
    estimate = json.loads(done.out)["validation"]["estimate"]
    pair.sandbox.clear_requests()
    moved = run(pair.sandbox, tmp_path / "moved", "--json", "--verify")
    asked = [
        request
        for request in pair.sandbox.requests
        if request.org_name == "acme" and request.path == "/btql"
    ]
    names = ("validation_queries", "queries", "verification_queries")
    queries = sum(estimate[name] for name in names)
    assert 0.5 < queries / len(asked) < 2, (queries, len(asked))
    size = sum(path.stat().st_size for path in runs(tmp_path / "moved")[0].rglob("*"))
    assert 0.5 < estimate["state_bytes"] / size < 2, (estimate["state_bytes"], size)
    seconds = json.loads(moved.out.splitlines()[-1])["this_start"]["seconds"]
    # The machine may be slow; the time of queries alone was a tenth of it.
    assert 0.3 < estimate["whole_seconds"] / seconds < 3, (estimate["whole_seconds"], seconds)


def test_the_queries_of_a_sampled_verification_are_estimated(pair: Pair, tmp_path: Path) -> None:
    """Of a large object, rows at several places are read, and looked up by their ids."""
    for number in range(6):
        project = pair.source.create("project", {"name": f"large {number}"})["id"]
        for first in range(0, 6_000, 1_000):
            rows = [{"id": f"{row:05}", "input": row} for row in range(first, first + 1_000)]
            pair.source.insert("project_logs", project, rows, at=1_760_000_000 + first)
    done = run(
        pair.sandbox, tmp_path / "runs", "--json", program="validate", MIGRATION_VERIFY_SAMPLE="100"
    )
    estimated = json.loads(done.out)["validation"]["estimate"]["verification_queries"]
    run(pair.sandbox, tmp_path / "moved")
    pair.sandbox.clear_requests()
    compared = run(pair.sandbox, tmp_path / "moved", "--sample", "100", program="verify")
    assert compared.code == 0, compared.last_words
    sent = [r for r in pair.sandbox.requests if (r.org_name, r.path) == ("acme", "/btql")]
    assert 0.8 < estimated / len(sent) < 1.25, (estimated, len(sent))


def test_rows_without_ids_are_not_sampled(pair: Pair, tmp_path: Path) -> None:
    rows = Answer(200, json.dumps({"data": [{"_pagination_key": f"p{1:020}"}]}).encode())
    pair.sandbox.refuse = lambda method, path, raw: rows if b"select: *" in raw else None
    done = run(pair.sandbox, tmp_path / "runs", program="validate")
    assert (done.code, "rows were not sampled" in done.err) == (0, True), done.out + done.err
