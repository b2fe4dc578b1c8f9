"""--dry-run --since-last: plans the next sync, and writes only its own directory."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.orgs import report, runs
from tests.support.row_runs import WRITE
from tests.support.syncs import DATASET, KINDS, LOGS, equal, files, holder, living, row, sent, sync


def test_a_dry_run_plans_the_next_sync_and_changes_nothing(tmp_path: Path) -> None:
    with living(tmp_path, projects=2) as w:
        assert sync(w).code == 0
        (real,) = runs(w.root)
        for kind in KINDS:
            w.source.insert(
                kind, holder(w, kind), [row("new"), row("r00001", metadata={"edited": 1})]
            )
        young = w.source.create(DATASET, {"project_id": w.project, "name": "young"})["id"]
        w.source.insert(DATASET, young, [row("a"), row("b"), row("c")])
        w.source.patch("project", w.project, {"name": "renamed"})
        before = files(real)
        w.sandbox.clear_requests()
        end = sync(w, "--dry-run", "--on-conflict", "update")
        assert (end.code, w.sandbox.writes(WRITE), files(real)) == (0, [], before), end.last_words
        planned = {entry["resource"]: entry["outcomes"] for entry in report(w.root)["objects"]}
        assert planned["projects"] == {"found": 1, "planned update": 1}
        rows = {
            entry["name"]: entry["rows"]
            for stream in report(w.root)["planned_streams"]
            for entry in stream["objects"]
        }
        assert rows == {
            "renamed": 2,
            "p01": 0,
            "experiment 00": 2,
            "experiment 01": 0,
            "dataset 00": 2,
            "dataset 01": 0,
            "young": 3,
        }
        sent(w)
        end = sync(w, "--on-conflict", "update")
        assert (end.code, equal(w), len(sent(w)), len(runs(w.root))) == (0, True, 9, 2), (
            end.last_words
        )


def test_a_dry_run_without_an_earlier_run_plans_a_full_copy(tmp_path: Path) -> None:
    with living(tmp_path) as w:
        assert sync(w, "--dry-run").code == 0
        assert [
            entry["rows"]
            for stream in report(w.root)["planned_streams"]
            for entry in stream["objects"]
        ] == [30, 30, 30]
        assert (sync(w).code, equal(w), [entry["fetched"] for entry in report(w.root)["rows"]]) == (
            0,
            True,
            [30, 30, 30],
        )
        w.source.insert(LOGS, w.project, [row("new")])
        assert (sync(w, "--plan-out", str(tmp_path / "plan.json")).code, equal(w)) == (0, True)
        plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
        assert sum(entry["rows"] for entry in plan["streams"]) == 1


def test_a_dry_run_counts_what_the_sync_sends_and_not_what_it_only_reads_again(
    tmp_path: Path,
) -> None:
    with living(tmp_path, projects=2) as w:
        w.source.insert(LOGS, w.project, [row(f"young{n}") for n in range(40)])
        assert sync(w, after_s=1).code == 0
        w.source.insert(LOGS, w.project, [row("second")])
        assert sync(w, after_s=60).code == 0
        # delivered a minute ago, so inside the lookback; one of them is edited since
        w.source.insert(LOGS, w.project, [row("new"), row("young7", metadata={"edited": 1})])
        w.source.insert(DATASET, holder(w, DATASET), [row("new")])
        assert sync(w, "--dry-run", after_s=60).code == 0
        planned = {
            (stream["kind"], entry["name"]): entry["rows"]
            for stream in report(w.root)["planned_streams"]
            for entry in stream["objects"]
            if entry["rows"]
        }
        sent(w)
        end = sync(w, after_s=1)
        assert (end.code, equal(w)) == (0, True), end.last_words
        assert planned == {("logs", "p00"): 2, ("datasets", "dataset 00"): 1}
        assert len(sent(w)) == 3
