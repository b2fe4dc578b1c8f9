"""The end of a start on a terminal: all of it where there is room, the verdict always visible."""

from __future__ import annotations

from typing import Any, Dict, List

import pytest

from bt_migrate.report.screen import screen_text, summary_line

COLUMNS = 80


def problem(name: str, reason: str = "answered 400: Bad prompt") -> Dict[str, Any]:
    return {
        "resource": "prompts", "project": "Support", "id": f"id of {name}", "name": name,
        "outcome": "failed", "reason": reason,
    }  # fmt: skip


def line(kind: str, text: str) -> Dict[str, Any]:
    return {"kind": kind, "text": text, "findings": 1}


def difference(resource: str, id_: str, outcome: str = "missing", **facts: Any) -> Dict[str, Any]:
    return {"outcome": outcome, "resource": resource, "id": id_, "name": f"name of {id_}", **facts}


def compared(*differences: Dict[str, Any]) -> Dict[str, Any]:
    result = {"text": "NOT EQUAL: 9 missing", "equal": False, "differences": list(differences)}
    expected = difference("functions", "f", "cannot_move")
    return {**result, "security": [], "accepted": [], "cannot_move": [expected]}


def report(problems: List[Dict[str, Any]], **fields: Any) -> Dict[str, Any]:
    side = {"org_id": "0", "url": "http://127.0.0.1:1"}
    start = {
        "command": "migrate-all", "seconds": 60.0, "rows": 0, "rows_per_second": 0, "error": None,
        "phases": {f"migrate-{name}": 6.0 for name in (*"abcdefgh", "verify")},
    }  # fmt: skip
    failed = [line("not_created", "not created: prompts")] if problems else []
    resources = ["datasets", "prompts", "functions", "experiments", "views"]
    return {
        "status": "incomplete", "dry_run": False, "command": "migrate-all",
        "source": {**side, "org_name": "acme"}, "destination": {**side, "org_name": "globex"},
        "this_start": start, "whole_run": {"starts": 1}, "verification": None,
        "to_do": [line("user", f"invite {n} users: {'long.name@acme.example, ' * 6}") for n in
                  range(12)],
        "failed": failed, "problems": problems, "accepted": [], "validation": None,
        "lost": [line("pin", "pinned versions"), line("field", "fields of rows")],
        "objects": [
            {"resource": name, "outcomes": {"created": 5, "found": number + 1}}
            for number, name in enumerate(resources)
        ],
        "rows": [{"kind": "logs", "outcomes": {"created": 7}}],
        "totals": {"objects": {"created": 25, "found": 15}, "rows": {"created": 7, "bytes": 1}},
        "planned_streams": [], "estimate": None, "run_directory": "checkpoints/1",
        "next_commands": ["bin/migrate-all --state-dir checkpoints/1  # continues"], **fields,
    }  # fmt: skip


def test_a_failure_of_many_objects_is_one_entry_and_each_object_is_named_once() -> None:
    problems = [problem(f"prompt {number}") for number in range(9)]
    result = compared(difference("prompts", "id of prompt 1"), difference("views", "v"))
    text = screen_text(report(problems, to_do=[], verification=result))
    entry = (
        "Failed:\n"
        "  9 prompts: failed: answered 400: Bad prompt (prompt 0, prompt 1, prompt 2 and\n"
        "    6 more)\n"
        "Not as in the source:\n"
        "  missing: views 'name of v' [v]\n"
        "  objects "
    )
    assert entry in text, text


def test_a_few_failures_are_named_with_their_projects() -> None:
    text = screen_text(report([problem("a"), problem("b", "timed out")], to_do=[]))
    for name, reason in (("a", "answered 400: Bad prompt"), ("b", "timed out")):
        assert f"  prompt '{name}' (Support): failed: {reason}\n" in text, text


@pytest.mark.parametrize("height", [18, 23, 33, 100])
def test_the_verdict_stays_in_the_window(height: int) -> None:
    problems = [problem(f"p{n}", f"reason {n % 7}") for n in range(14)]
    lines = screen_text(report(problems), height).splitlines()
    assert len(lines) <= max(height, 19), lines
    assert max(map(len, lines)) <= COLUMNS
    assert lines[0] == "Migration incomplete: acme -> globex"
    assert lines[-1] == "Next: bin/migrate-all --state-dir checkpoints/1  # continues"
    assert {"To do:", "Failed:"} <= set(lines)
    assert all(f"{name} 6.0 s" in " ".join(lines) for name in (*"abcdefgh", "verify"))


def test_a_plan_is_summed_up_with_what_is_planned() -> None:
    totals = {"objects": {"planned": 30, "skipped": 5}, "rows": {"fetched": 0, "bytes": 0}}
    plan = report([], dry_run=True, totals=totals)
    assert "; objects 30 planned, 5 skipped; rows none; see " in summary_line(plan)
    assert "\nObjects: 30 planned, 5 skipped\n" in screen_text(plan, 20)


def test_sums_replace_the_table_in_a_small_window() -> None:
    text = screen_text(report([]), 20)
    assert "Objects: 25 created, 15 found\nRows: 7 created\nLost: 2 entries, see the report" in text
    assert "  objects " in screen_text(report([]), 60)


@pytest.mark.parametrize("height", [24, 35])
def test_the_verdict_of_a_validation_stays_in_the_window_whatever_cannot_move(height: int) -> None:
    validation = {
        "write_right": "yes", "objects": {"prompts": {"Support": 3}}, "rows": {"logs": 7},
        "unavailable": {}, "cannot_move": [f"the value of env_var '{n}'" for n in range(500)],
        "estimate": {"rows": 7, "bytes": 1, "processed_bytes": 1, "uncounted_streams": 0,
                     "attachments": 0, "queries": 1, "queries_per_minute": None, "inserts": 1},
    }  # fmt: skip
    start = {**report([])["this_start"], "command": "validate", "phases": {}}
    of_validation = {"command": "validate", "this_start": start, "validation": validation,
                     "objects": [], "rows": []}  # fmt: skip
    to_do = report([])["to_do"][:3]
    lines = screen_text(report([], to_do=to_do, **of_validation), height).splitlines()
    assert len(lines) <= height, "\n".join(lines)
    hidden = next(line for line in lines if " more, see the report" in line)
    assert int(hidden.split()[2]) >= 490
