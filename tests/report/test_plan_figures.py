"""The figures of a plan are the same wherever a person or a program reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, Optional

import pytest

from bt_migrate.report.measures import deletes_text, estimate_text, limited_seconds
from tests.support.orgs import report, runs
from tests.support.syncs import LOGS, living, row, sync


def one_line(text: str) -> str:
    return " ".join(text.split())


def data_of_page(run: Path) -> Dict[str, Any]:
    page = (run / "report.html").read_text(encoding="utf-8")
    (data,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL
    )
    found: Dict[str, Any] = json.loads(data)
    return found


@pytest.mark.recorded  # only a transaction proves that a row may be deleted
def test_an_estimate_is_the_same_in_text_json_and_html(tmp_path: Path) -> None:
    with living(tmp_path, rows=60) as w:
        assert sync(w).code == 0
        w.source.insert(LOGS, w.project, [{"id": "r00001", "_object_delete": True}, row("new")])
        plan = tmp_path / "plan.json"
        words = ("--dry-run", "--propagate-deletes", "--max-deletes", "2")
        end = sync(w, *words, "--plan-out", str(plan))
        estimate = report(w.root)["estimate"]
        run = runs(w.root)[-1]
        assert (end.code, estimate["rows"], estimate["deletes"]) == (
            0,
            1,
            {"logs": {"rows": 0, "waiting": 1, "too_many": 0}},
        )
        texts = [end.out, (run / "migration_summary.txt").read_text(encoding="utf-8")]
        for text in map(one_line, texts):
            assert f"Estimate: {estimate_text(estimate)}" in text
            assert f"Would delete: {deletes_text(estimate['deletes'])}" in text
        page = data_of_page(run)
        assert page["estimate_text"] == estimate_text(estimate)
        assert page["deletes_text"] == deletes_text(estimate["deletes"])
        records = [json.loads(plan.read_text(encoding="utf-8")), page["report"]]
        assert [record["estimate"] for record in records] == [estimate] * 2
        printed = json.loads(sync(w, *words, "--json").out.splitlines()[-1])
        assert printed["estimate"] == report(w.root)["estimate"]


@pytest.mark.parametrize(
    ("queries", "per_minute", "seconds"),
    [(0, 20, 0), (20, 20, 0), (21, 20, 60), (47, 20, 120), (107, 60, 60), (1_000, None, 0)],
)
def test_the_first_queries_of_a_limit_start_at_once(
    queries: int, per_minute: Optional[int], seconds: float
) -> None:
    assert limited_seconds(queries, per_minute) == seconds


def test_the_figures_of_an_estimate_are_in_its_text() -> None:
    estimate = {
        "rows": 1_234, "uncounted_streams": 2, "bytes": 5_000_000, "processed_bytes": 3_000_000,
        "attachments": 7, "queries": 31, "inserts": 17, "validation_queries": 11,
        "verification_queries": 13, "state_bytes": 9_000_000, "queries_per_minute": None,
        "whole_seconds": 90.0,
    }  # fmt: skip
    assert estimate_text(estimate) == (
        "1,234 rows and 2 streams that the server does not count, 5.0 MB, of which 3.0 MB are new,"
        " about 7 attachments; 9.0 MB of disk for the run. In all about 90 s unlimited, 2 min at"
        " 20 queries a minute (Starter and Pro plans); queries: validation 11, copy 31,"
        " verification 13; 17 inserts"
    )
    assert deletes_text(
        {
            "logs": {"rows": 3, "waiting": 2, "too_many": 0},
            "datasets": {"rows": 1, "waiting": 0, "too_many": 0},
            "experiments": {"rows": 0, "waiting": 0, "too_many": 40},
        }
    ) == (
        "3 rows of logs, and 2 more once a sync ten minutes later misses them again; 1 row of"
        " datasets; none of 40 rows of experiments that are gone, as --max-deletes allows fewer"
    )
