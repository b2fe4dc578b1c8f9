"""Rows and objects that a server refuses or cannot show do not stop the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.after_faults import SMALL, problems_after_rerun
from tests.support.compare_orgs import differences
from tests.support.orgs import findings, is_insert, report, run, runs, tiny_pair

# The largest batch has 100 kB; sent whole first, batches were refused 26 times.
MOST_BYTES = 10_000
MOST_REFUSED = 8


def rejecting(
    text: bytes, status: int, message: str
) -> Callable[[str, str, bytes], Optional[Answer]]:
    """Refuses every insert whose body holds the text, as a server does that finds one row wrong."""

    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        return (
            Answer(status, message.encode(), "text/plain")
            if is_insert(path) and text in raw
            else None
        )

    return refuse


def refused_rows(root: Path) -> List[Dict[str, Any]]:
    return [
        json.loads(line)
        for path in runs(root)[-1].rglob("*_failed.jsonl")
        for line in path.read_text().splitlines()
    ]


def row_outcomes(root: Path) -> Dict[str, int]:
    """Sum of the outcomes of all rows; checks that they are what was fetched."""
    rows = report(root)["rows"]
    assert all(sum(item["outcomes"].values()) == item["fetched"] for item in rows)
    return {
        name: sum(row["outcomes"].get(name, 0) for row in rows) for name in ("created", "failed")
    }


def test_a_destination_that_takes_small_requests_is_reported_once_and_gets_them(
    tmp_path: Path,
) -> None:
    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        is_large = is_insert(path) and len(raw) > MOST_BYTES
        return Answer(413, b"Request Entity Too Large", "text/plain") if is_large else None

    with tiny_pair() as pair:
        pair.sandbox.refuse = refuse
        first = run(pair.sandbox, tmp_path / "runs")
        refused = [request for request in pair.sandbox.requests if request.status == 413]
        told = [line for line in first.err.splitlines() if "sending smaller ones" in line]
        assert (first.code, differences(pair), len(told)) == (0, [], 1), first.last_words
        assert len(refused) <= MOST_REFUSED, len(refused)


@pytest.mark.parametrize("status", [400, 413])
@pytest.mark.variants(1)
def test_a_refused_row_is_reported_and_the_others_arrive(status: int, tmp_path: Path) -> None:
    with tiny_pair() as pair:
        pair.sandbox.refuse = rejecting(b'"id":"0123"', status, "row 0123 is wrong")
        first = run(pair.sandbox, tmp_path / "runs", **SMALL)
        refused = [(row["id"], row["reason"]) for row in refused_rows(tmp_path / "runs")]
        assert [(entry, reason[: len("400: row 0123 is wrong")]) for entry, reason in refused] == [
            ("0123", f"{status}: row 0123 is wrong")
        ]
        assert row_outcomes(tmp_path / "runs") == {"created": 479, "failed": 1}
        missing = [item for item in differences(pair) if "row" in item]
        assert missing == ["project_logs 'Alpha/α': row '0123' missing"]
        assert problems_after_rerun(pair, tmp_path / "runs", first, (1,)) == []


def test_requests_above_the_servers_limit_are_halved_down_to_the_row_that_is_too_large(
    tmp_path: Path,
) -> None:
    with tiny_pair() as pair:
        alpha = pair.source.objects("project")[0]["id"]
        pair.source.insert("project_logs", alpha, [{"id": "large", "input": "x" * 30000}])
        pair.sandbox.max_request_bytes = 8000
        first = run(pair.sandbox, tmp_path / "runs", **SMALL)
        assert [row["id"] for row in refused_rows(tmp_path / "runs")] == ["large"]
        assert row_outcomes(tmp_path / "runs") == {"created": 480, "failed": 1}
        pair.sandbox.max_request_bytes = None
        assert problems_after_rerun(pair, tmp_path / "runs", first, (1,)) == []


def test_requests_below_the_limit_that_is_set_are_never_refused(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        pair.sandbox.max_request_bytes = 6000
        whole = run(
            pair.sandbox,
            tmp_path / "runs",
            MIGRATION_INSERT_MAX_REQUEST_BYTES="6000",
            MIGRATION_INSERT_REQUEST_HEADROOM_RATIO="1.0",
        )
        assert [request for request in pair.sandbox.requests if request.status == 413] == []
        assert (whole.code, differences(pair)) == (0, []), whole.last_words


def test_an_object_whose_rows_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        dataset = pair.source.objects("dataset")[0]
        body = json.dumps({"Code": "ForbiddenError", "Message": "no"}).encode()
        pair.sandbox.refuse = lambda method, path, raw: (
            Answer(403, body) if path == "/btql" and dataset["id"].encode() in raw else None
        )
        first = run(pair.sandbox, tmp_path / "runs", **SMALL)
        assert [
            (row["kind"], row["name"], row["complete"])
            for row in report(tmp_path / "runs")["rows"]
            if row["error"]
        ] == [("datasets", "questions", False)]
        assert {finding["name"] for finding in findings(tmp_path / "runs", "stream_failed")} == {
            "questions"
        }
        assert problems_after_rerun(pair, tmp_path / "runs", first, (1,)) == []
