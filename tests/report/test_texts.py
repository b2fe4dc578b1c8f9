"""The texts of a report: short, in one order, with the numbers of the report's record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import pytest

from bt_migrate.model.findings import KINDS, finding
from bt_migrate.model.notes import FindingCounts, stream_findings
from bt_migrate.report.actions import Group, grouped_by_kind
from bt_migrate.report.display import (
    columns_of,
    duration_text,
    plural,
    shown,
    size_text,
    table,
    wrapped,
)
from bt_migrate.report.measures import estimate_text
from bt_migrate.report.screen import in_one_line_each, screen_text, summary_line
from bt_migrate.report.sections import time_lines
from bt_migrate.report.summary import matrix_lines
from bt_migrate.sandbox.http.faults import Fault
from tests.support.orgs import Pair, report, run, runs


def test_validation_says_that_it_passed_with_counts_sizes_minutes_and_rights(
    pair: Pair, tmp_path: Path
) -> None:
    done = run(pair.sandbox, tmp_path / "runs", program="validate")
    text = " ".join(done.out.split())
    assert (done.code, done.out.splitlines()[0]) == (0, "Validation passed: acme -> globex")
    for part in (
        "Destination key can write: yes",
        "2 datasets",
        "Rows: 90 of datasets, 90 of experiments, 300 of logs",
        "Estimate: 480 rows, ",
        "at 20 queries a minute",
        "queries: validation",
        "Next: bin/migrate-all --state-dir",
    ):
        assert part in text, text
    again = run(pair.sandbox, tmp_path / "runs", "--json", program="validate")
    record = json.loads(again.out)
    assert record["validation"]["rows"] == {"datasets": 90, "experiments": 90, "logs": 300}


REFUSED = Fault("status", "globex", "POST", path="^/v1/prompt$", times=1, status=400)


@pytest.mark.parametrize(
    ("arguments", "fault", "starts"),
    [
        (("--verify",), None, 1),
        (("--verify",), REFUSED, 1),
        (("--verify", "--since-last"), None, 2),
        (("--dry-run",), None, 1),
    ],
    ids=["good", "failing", "sync", "plan"],
)
@pytest.mark.variants(1)
def test_text_json_and_report_hold_the_same_numbers(
    arguments: Sequence[str], fault: Optional[Fault], starts: int, pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    if fault:
        pair.sandbox.faults.add(replace(fault))
    for _ in range(starts):
        end = run(pair.sandbox, root, "--json", *arguments)
    record, told = json.loads(end.out), report(root)
    for name in ("totals", "this_start", "to_do", "failed", "lost", "next_commands", "status"):
        assert record[name] == told[name], name
    summary = (runs(root)[-1] / "migration_summary.txt").read_text(encoding="utf-8")
    page = (runs(root)[-1] / "report.html").read_text(encoding="ascii")
    printed = " ".join(summary.split())
    sections = [*told["to_do"], *told["failed"], *told["lost"]]
    assert sections and all(" ".join(line["text"].split()) in printed for line in sections)
    assert all(json.dumps(line["text"])[1:-1] in page for line in sections)
    small = " ".join(screen_text(told, 20).split())
    for name, count in [*told["totals"]["objects"].items(), *told["totals"]["rows"].items()]:
        if name not in ("fetched", "bytes"):
            assert all(f"{count:,} {name}" in text for text in (summary_line(told), small)), name
    assert max(map(len, summary.splitlines()[:2])) <= 80
    assert summary.splitlines()[-1].startswith("Next: ")


@pytest.mark.parametrize(
    ("dry_run", "outcomes", "head", "cell"),
    [
        (False, {"created": 2, "failed": 1}, "arrived, +skipped, !not arrived", "2 !1"),
        (True, {"planned": 2, "found": 1, "skipped": 4}, "planned or there, +skipped", "3 +4"),
    ],
)
def test_the_matrix_of_a_plan_counts_what_is_planned(
    dry_run: bool, outcomes: Dict[str, int], head: str, cell: str
) -> None:
    objects = [
        {"resource": "prompts", "project": project, "outcomes": outcomes} for project in ("a", "b")
    ]
    lines = matrix_lines({"dry_run": dry_run, "objects": objects})
    assert (head in lines[0], lines[-1].split("  ")[-1].strip()) == (True, cell), lines


def test_times_are_those_of_this_start_and_of_the_run(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run(pair.sandbox, root, program="migrate_datasets")
    first = report(root)
    end = run(pair.sandbox, root, program="migrate_logs")
    second = report(root)
    assert (first["this_start"]["rows"], first["whole_run"]["starts"]) == (90, 1)
    assert (second["this_start"]["rows"], second["whole_run"]["rows"]) == (300, 390)
    assert second["whole_run"]["seconds"] == second["duration_seconds"]
    assert "This start: " in end.out and "The run, 2 starts: " in end.out


NAMES = (
    "organization", "datasets", "definitions", "experiments", "logs", "views", "settings", "acls",
)  # fmt: skip


@pytest.mark.parametrize(("ended", "least"), [("2026-03-01T00:00:09Z", ""), (None, "at least ")])
def test_the_sum_with_a_killed_start_is_a_lower_bound(ended: Optional[str], least: str) -> None:
    times = {"seconds": 9.0, "rows": 90, "rows_per_second": 10.0, "phases": {}}
    told = {
        "this_start": times,
        "whole_run": {**times, "starts": 2},
        "sessions": [{"ended": ended}, {"ended": None}],
        "status": "",
    }
    assert time_lines(told)[-1] == f"The run, 2 starts: {least}9.0 s, 90 rows, 10 rows/s"


def test_a_rate_that_would_be_shown_as_zero_is_left_out() -> None:
    times = {"seconds": 19.0, "rows": 5, "rows_per_second": 0.3, "phases": {}}
    told = {"this_start": times, "whole_run": {**times, "starts": 1}, "status": ""}
    assert time_lines(told) == ["This start: 19 s, 5 rows"]


@pytest.mark.parametrize(("seconds", "between"), [(10.0, []), (29.01, ["between phases 20 s"])])
def test_the_time_of_each_phase_is_shown_in_lines_of_80_columns(
    seconds: float, between: List[str]
) -> None:
    phases = {"validate": 0.01, **{f"migrate-{name}": 1.0 for name in NAMES}, "verify": 1.0}
    times = {"seconds": seconds, "rows": 0, "rows_per_second": 0, "phases": phases}
    lines = time_lines({"this_start": times, "whole_run": {**times, "starts": 1}, "status": ""})
    words = ["validate < 0.1 s", *(f"{name} 1.0 s" for name in (*NAMES, "verify")), *between]
    assert " ".join(map(str.strip, lines)) == f"This start: {seconds:.0f} s ({', '.join(words)})"
    assert all(any(word in line for line in lines) for word in words)
    assert len(lines) <= 3 and max(map(len, lines)) <= 80


USER = {"resource": "users", "id": "u1", "name": "a@x"}


@pytest.mark.parametrize(
    ("kind", "facts", "expected"),
    [
        ("secret_to_enter", [{"name": "A"}, {"name": "B"}], "enter 2 secret values: A, B"),
        (
            "user_without_counterpart",
            [USER, {"name": "G", "ref": "u1"}, {"name": "H", "ref": "u2", "count": 3}],
            "invite 2 users, then run again (1 place, 3 rows wait): a@x, u2",
        ),
        ("user_without_counterpart", [USER], "invite 1 user, then run again: a@x"),
        (
            "version_pin_removed",
            [{"name": "A"}, {"name": "B", "count": 840}],
            "pinned versions; references follow the latest version (1 place, 840 rows)",
        ),
        (
            "stream_failed",
            [{"resource": "logs", "name": "X", "detail": "503 from the source"}],
            "copying stopped early for 1 project log (X): 503 from the source",
        ),
        (
            "earlier_versions",
            [{"name": "greeting"}, {"name": "greeting"}, {"name": "farewell"}],
            "earlier versions of 3 prompts (greeting, farewell)",
        ),
    ],
)
def test_a_finding_of_any_kind_is_one_line_that_names_its_objects(
    kind: str, facts: List[Dict[str, Any]], expected: str
) -> None:
    records = [
        finding(kind, **{"resource": "prompts", "id": f"id {number}", **fact})
        for number, fact in enumerate(facts)
    ]
    assert Group(kind, records).line() == expected


def test_a_row_with_several_places_of_a_kind_is_one_row() -> None:
    notes = FindingCounts()
    for row_id, path in (("r1", "a"), ("r1", "b"), ("r2", "b[0]"), ("r2", "b[1]")):
        notes.add("version_pin_removed", row_id, path)
    older = {"kind": "version_pin_removed", "path": "c", "row": "r3", "count": 7}
    header = {"kind": "logs", "source_id": "s", "name": "n", "project": "p"}
    records = stream_findings(header, [*FindingCounts(notes.records()).records(), older])
    numbers = [(record["count"], record["rows"]) for record in records]
    assert numbers == [(1, 1), (1, 0), (2, 1), (7, 7)]
    assert Group("version_pin_removed", records).line().endswith("(9 rows)")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_a_line(kind: str) -> None:
    record = finding(kind, resource="prompts", id="i", name="n", detail="why", ref="r")
    lines = [line for section in grouped_by_kind([record]).values() for line in section]
    assert [line["kind"] for line in lines] == [kind]
    assert lines[0]["text"] and "{" not in lines[0]["text"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.42, "0.4 s"),
        (45, "45 s"),
        (720, "12 min"),
        (12_600, "3.5 h"),
        (172_800, "2.0 days"),
    ],
)
def test_a_duration_is_shown_in_the_unit_that_fits(seconds: float, expected: str) -> None:
    assert duration_text(seconds) == expected


def test_words_numbers_and_tables_are_formatted_for_people() -> None:
    assert [plural(1, "query"), plural(2, "query"), plural(1200, "key")] == [
        "1 query",
        "2 queries",
        "1,200 keys",
    ]
    assert [size_text(812), size_text(4_700_000)] == ["812 bytes", "4.7 MB"]
    assert table(["a", "b"], [["旅行", "1"], ["x", "20"]]) == [
        "  a      b",
        "  旅行   1",
        "  x     20",
    ]
    assert all(len(line) <= 80 for line in wrapped("word " * 100))
    wide = wrapped("旅行プランナー " * 20 + "x" * 90 + " end")
    assert [columns_of(line) for line in wide] == [76, 78, 78, 78, 94, 7]
    assert (wrapped(""), wrapped("a  b")) == ([], ["  a  b"])


def test_a_name_that_is_too_long_keeps_the_first_digits_of_its_ids() -> None:
    object_id = "169f1d6d-89ca-466e-bf81-d0a1b2c3d4e5"
    assert shown(f"prod of prompt {object_id}") == "prod of prompt 169f1d6d"
    assert (shown(object_id), shown(object_id, 20)) == (object_id, "169f1d6d")
    assert shown("x" * 50) == "x" * 39 + "…"


def test_an_estimate_is_not_cut_to_a_line() -> None:
    lines = ["Objects: a", "    b", "Estimate: 1 row", "    2 min", "Lost:", "  c", "    d"]
    shortened = ["Objects: a b", "Estimate: 1 row", "    2 min", "Lost:", "  c d"]
    assert in_one_line_each(lines) == shortened


def test_an_estimate_contains_validation_copy_and_verification() -> None:
    estimate = {
        "rows": 4489, "uncounted_streams": 0, "bytes": 4_693_978, "processed_bytes": 4_693_978,
        "attachments": 0, "queries": 40, "inserts": 12, "verification_queries": 20,
        "validation_queries": 4, "state_bytes": 640_000,
        "queries_per_minute": None, "seconds": 10.0, "whole_seconds": 16.0,
        "minutes_at_20_queries_a_minute": 2.0,
    }  # fmt: skip
    assert estimate_text(estimate) == (
        "4,489 rows, 4.7 MB; 640.0 kB of disk for the run. In all about 16 s unlimited, 3 min at 20"
        " queries a minute (Starter and Pro plans); queries: validation 4, copy 40, verification"
        " 20; 12 inserts"
    )


def test_an_entry_of_several_lines_is_cut_to_one() -> None:
    last = "  enter 1 secret value: d"
    assert in_one_line_each(["To do:", f"  invite {'a' * 60}", "    and b", "    and c", last]) == [
        "To do:",
        f"  invite {'a' * 60} and b and…",
        last,
    ]
