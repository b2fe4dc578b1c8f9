"""The estimate of a whole move is near what the move then takes and sends."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple

import pytest

from bt_migrate.report.measures import estimate_text
from bt_migrate.rows.estimate import seconds_at_once
from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import Pair, is_insert, recorded_pair, report, run, runs


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


@pytest.mark.long
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


def fill_two_pages_and_states(org: Any) -> None:
    """A log of two pages, 30 experiments, and a dataset with a snapshot of its present state, of
    whose rows an experiment was made.
    """
    project = org.create("project", {"name": "Alpha"})["id"]
    for first in (0, 500, 1_000):
        rows = [{"id": f"{number:05}", "input": 1} for number in range(first, first + 500)]
        org.insert("project_logs", project, rows, at=1_760_000_000 + first)
    dataset = org.create("dataset", {"project_id": project, "name": "cases"})["id"]
    org.insert("dataset", dataset, [{"id": f"{number:05}", "input": 1} for number in range(60)])
    made = [
        {"id": f"of {row['id']}", "input": 1, "origin": origin_of(row, dataset)}
        for row in org.rows("dataset", dataset)
    ]
    snapshot = {"dataset_id": dataset, "name": "now", "xact_id": newest(org, dataset)}
    org.create("dataset_snapshot", snapshot)
    for number in range(30):
        experiment = {"project_id": project, "name": f"e{number:02}"}
        experiment_id = org.create("experiment", experiment)["id"]
        org.insert("experiment", experiment_id, [{"id": "a", "input": 1}, {"id": "b", "input": 1}])
    org.insert("experiment", experiment_id, made)


def origin_of(row: Any, dataset: str) -> Dict[str, Any]:
    version = {"id": row["id"], "_xact_id": row["_xact_id"]}
    return {"object_type": "dataset", "object_id": dataset, **version}


def newest(org: Any, dataset: str) -> Any:
    return max(row["_xact_id"] for row in org.rows("dataset", dataset))


def told(pair: Pair, root: Path, *words: str) -> Dict[str, Any]:
    """The estimate of a dry run."""
    end = run(pair.sandbox, root, "--dry-run", *words)
    assert end.code == 0, end.last_words
    pair.sandbox.clear_requests()
    estimate: Dict[str, Any] = report(root)["estimate"]
    return estimate


def sent(pair: Pair) -> Tuple[int, int]:
    """(queries to the source, inserts)"""
    requests = pair.sandbox.requests
    queries = [r for r in requests if (r.org_name, r.path) == ("acme", "/btql")]
    return len(queries), sum(is_insert(request.path) for request in requests)


def all_queries(estimate: Mapping[str, int]) -> int:
    names = ("validation_queries", "queries", "verification_queries")
    return sum(estimate[name] for name in names)


# An older data plane has no snapshots.
@pytest.mark.recorded
@pytest.mark.parametrize("depth", ["--counts", "--sample=100", "--full"])
@pytest.mark.variants(1)
def test_as_many_queries_are_sent_as_the_estimate_says(depth: str, tmp_path: Path) -> None:
    with recorded_pair() as pair:
        fill_two_pages_and_states(pair.source)
        estimate = told(pair, tmp_path / "plan", "--verify", depth)
        moved = run(pair.sandbox, tmp_path / "runs", "--verify", depth)
        assert moved.code == 0, moved.last_words
        assert (all_queries(estimate), estimate["inserts"]) == sent(pair)


@pytest.mark.recorded
def test_the_estimate_contains_the_earlier_states_of_datasets(tmp_path: Path) -> None:
    """Rows are edited, added and deleted between four states; one of them is the present one."""
    with recorded_pair() as pair:
        org = pair.source
        project = org.create("project", {"name": "Alpha"})["id"]
        dataset = org.create("dataset", {"project_id": project, "name": "cases"})["id"]
        org.insert("dataset", dataset, [{"id": f"{n:05}", "input": n} for n in range(1_200)])
        for number in range(4):
            snapshot = {"dataset_id": dataset, "name": str(number), "xact_id": newest(org, dataset)}
            org.create("dataset_snapshot", snapshot)
            org.insert("dataset", dataset, [{"id": f"{number + 9:05}", "_object_delete": True}])
            changed = [{"id": name, "input": "edited"} for name in ("00001", f"new {number}")]
            org.insert("dataset", dataset, changed)
        estimate = told(pair, tmp_path / "plan", "--dataset-versions")
        states = estimate["earlier_states"]
        moved = run(pair.sandbox, tmp_path / "runs", "--dataset-versions")
        assert moved.code == 0, moved.last_words
        deleted = len(pair.sandbox.deleted)
        rows = len(pair.sandbox.inserted)
        assert states == {"states": 4, "rows": rows - 2, "deletes": deleted}
        without_comparison = all_queries({**estimate, "verification_queries": 0})
        assert (without_comparison, estimate["inserts"]) == sent(pair)
        text = "1,206 rows and 4 deletions for 4 earlier states of datasets"
        assert text in estimate_text(estimate)


@pytest.mark.recorded
def test_a_sync_sends_the_rows_that_its_dry_run_counts_for_a_new_state(tmp_path: Path) -> None:
    """A snapshot was made between two edits, so that some rows are sent twice."""
    words = ("--since-last", "--dataset-versions")
    with recorded_pair() as pair:
        org = pair.source
        project = org.create("project", {"name": "Alpha"})["id"]
        dataset = org.create("dataset", {"project_id": project, "name": "cases"})["id"]
        org.insert("dataset", dataset, [{"id": f"{n:05}", "input": n} for n in range(100)])
        assert run(pair.sandbox, tmp_path / "runs", *words).code == 0
        pair.sandbox.clock.set(pair.sandbox.clock.seconds() + 3_600)
        edited = [{"id": f"{number:05}", "input": "edited"} for number in range(10)]
        org.insert("dataset", dataset, [*edited, {"id": "new", "input": 1}])
        snapshot = {"dataset_id": dataset, "name": "later", "xact_id": newest(org, dataset)}
        org.create("dataset_snapshot", snapshot)
        org.insert("dataset", dataset, [{**row, "input": "edited again"} for row in edited[:5]])
        estimate = told(pair, tmp_path / "runs", *words)
        pair.sandbox.sent.clear()
        end = run(pair.sandbox, tmp_path / "runs", *words)
        assert end.code == 0, end.last_words
        assert estimate["earlier_states"] == {"states": 1, "rows": 11, "deletes": 0}
        assert (estimate["rows"] + 11, estimate["inserts"]) == (
            len(pair.sandbox.sent),
            sent(pair)[1],
        )


def test_rows_without_ids_are_not_sampled(pair: Pair, tmp_path: Path) -> None:
    rows = Answer(200, json.dumps({"data": [{"_pagination_key": f"p{1:020}"}]}).encode())
    pair.sandbox.refuse = lambda method, path, raw: rows if b"select: *" in raw else None
    done = run(pair.sandbox, tmp_path / "runs", program="validate")
    assert (done.code, "rows were not sampled" in done.err) == (0, True), done.out + done.err


def test_the_inserts_of_comments_and_of_late_references_are_estimated(
    pair: Pair, tmp_path: Path
) -> None:
    """In few of many small objects, so that the first rows of the largest ones show none."""
    org = pair.source
    project = org.create("project", {"name": "Alpha"})["id"]
    data = {"prompt": {"type": "completion", "content": "{{q}}"}}
    body = {"project_id": project, "name": "Ask", "slug": "ask", "prompt_data": data}
    prompt = org.create("prompt", body)["id"]
    for first in (0, 600):
        rows = [{"id": f"{row:05}", "input": row} for row in range(first, first + 600)]
        org.insert("project_logs", project, rows, at=1_760_000_000 + first)
    org.comment("project_logs", project, "00007", "good")
    for number in range(8):
        dataset = org.create("dataset", {"project_id": project, "name": f"d{number}"})["id"]
        late: Dict[str, Any] = {"metadata": {"prompt": {"id": prompt}}} if number in (5, 6) else {}
        rows = [{"id": f"{row:05}", "input": row, **late} for row in range(40 - number)]
        org.insert("dataset", dataset, rows)
    org.comment("dataset", dataset, "00003", "good")
    estimate = told(pair, tmp_path / "plan")
    moved = run(pair.sandbox, tmp_path / "runs")
    assert moved.code == 0, moved.last_words
    assert (estimate["inserts"], sent(pair)[1]) == (8, 8)


@pytest.mark.recorded
def test_the_time_of_earlier_states_is_that_of_queries_with_few_rows(tmp_path: Path) -> None:
    """The first page of a large dataset takes long, the queries of its states do not."""
    with recorded_pair() as pair:
        org = pair.source
        project = org.create("project", {"name": "Alpha"})["id"]
        for name, count in (("large", 600), ("small", 3)):
            dataset = org.create("dataset", {"project_id": project, "name": name})["id"]
            org.insert("dataset", dataset, [{"id": f"{n:05}", "input": n} for n in range(count)])
            if name == "small":
                continue
            large = dataset.encode()
            for number in range(6):
                body = {"dataset_id": dataset, "name": str(number), "xact_id": newest(org, dataset)}
                org.create("dataset_snapshot", body)
                org.insert("dataset", dataset, [{"id": "00001", "input": f"edit {number}"}])

        def answer_slowly(method: str, path: str, raw: bytes) -> None:
            if large in raw and b"select: *" in raw:
                time.sleep(0.5)

        pair.sandbox.refuse = answer_slowly
        estimate = told(pair, tmp_path, "--dataset-versions")
        assert estimate["earlier_states"]["states"] == 6
        assert estimate["seconds"] < 0.1 * estimate["queries"], estimate
