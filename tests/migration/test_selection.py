"""Selected projects, resources and dates arrive and nothing else; a dry run writes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Tuple

import pytest

from tests.support.compare_orgs import Translation, differences, leftovers, row_differences
from tests.support.kinds import NAME_OF
from tests.support.orgs import Pair, example_pair, report, run
from tests.support.report_counts import own_objects, row_counts, sums, told_rows

# Choosing -----------------------------------------------------------------------------------------


def test_only_the_chosen_project_arrives(tmp_path: Path) -> None:
    name = "Evals, \"golden\" and 'silver'"
    with example_pair() as pair:
        chosen = '"Evals, ""golden"" and \'silver\'",旅行プランナー'
        whole = run(pair.sandbox, tmp_path / "runs", "--projects", chosen)
        assert {entry["name"] for entry in pair.dest.objects("project")} == {name, "旅行プランナー"}
        assert (whole.code, sums(report(tmp_path / "runs"))) in ((0, []), (1, []))
        translation = Translation(pair, {name, "旅行プランナー"})
        assert [entry for entry in translation.problems if "acl" not in entry] + list(
            row_differences(translation)
        ) + list(leftovers(translation)) == []


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_only_the_chosen_resources_arrive(how: str, pair: Pair, tmp_path: Path) -> None:
    args = ["--resources", "datasets,project_tags"] if how == "flag" else []
    whole = run(
        pair.sandbox,
        tmp_path / "runs",
        *args,
        MIGRATION_RESOURCES="" if args else "project_tags, datasets",
    )
    there = {kind: count for kind, count in own_objects(pair.dest).items() if count}
    assert (whole.code, there) == (0, {"project": 2, "dataset": 2, "project_tag": 2}), (
        whole.last_words
    )
    assert row_counts(pair.dest) == {
        "datasets": row_counts(pair.source)["datasets"],
        "experiments": 0,
        "logs": 0,
    }


WINDOW = {"after": "2025-10-05T08:30:00.5Z", "before": "2025-10-17"}


@pytest.mark.parametrize("sides", [("after",), ("before",), ("after", "before")])
def test_a_window_chooses_rows_of_logs(sides: Tuple[str, ...], pair: Pair, tmp_path: Path) -> None:
    args = [part for side in sides for part in (f"--created-{side}", WINDOW[side])]
    whole = run(pair.sandbox, tmp_path / "runs", "--resources", "logs", *args)

    def chosen(kind: str, holder: Any, row: Any) -> bool:
        after = "after" not in sides or row["created"] >= "2025-10-05T08:30:00.500Z"
        return (
            kind == "project_logs"
            and after
            and ("before" not in sides or row["created"] < "2025-10-17")
        )

    translation = Translation(pair, kinds={"project"})
    wrong = [
        entry
        for entry in row_differences(translation, chosen)
        if "missing" in entry or "too much" in entry
    ]
    kept = sum(
        chosen("project_logs", entry, row)
        for entry in pair.source.objects("project")
        for row in pair.source.rows("project_logs", entry["id"])
    )
    assert 0 < kept < 300
    assert (wrong, row_counts(pair.dest)["logs"], told_rows(report(tmp_path / "runs"))["logs"]) == (
        [],
        kept,
        kept,
    ), whole.last_words


def test_a_window_chooses_experiments_with_all_their_rows(pair: Pair, tmp_path: Path) -> None:
    """Filtered by the experiment's own date; the sandbox dates experiments with their creation."""
    dates = sorted(entry["created"] for entry in pair.source.objects("experiment"))
    whole = run(
        pair.sandbox,
        tmp_path / "runs",
        "--resources",
        "datasets,experiments",
        "--created-after",
        dates[1][:10],
        "--created-before",
        "2999-01-01",
    )
    there = (
        len(pair.dest.objects("experiment")),
        row_counts(pair.dest)["experiments"],
        row_counts(pair.dest)["datasets"],
    )
    assert (whole.code, there) == (0, (3, 90, 90)), whole.last_words
    late = run(
        pair.sandbox,
        tmp_path / "late",
        "--resources",
        "experiments",
        "--created-after",
        "2999-01-01",
    )
    reasons = [
        entry["skipped_by_reason"]
        for entry in report(tmp_path / "late")["objects"]
        if entry["resource"] == "experiments"
    ]
    assert (late.code, reasons, told_rows(report(tmp_path / "late"))["experiments"]) == (
        0, [{"outside of the date window": 2}, {"outside of the date window": 1}], 0,
    )  # fmt: skip


# Nothing written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["migrate_all", "migrate_definitions", "migrate_logs"])
@pytest.mark.variants(1)
def test_a_dry_run_plans_everything_and_writes_nothing(
    program: str, pair: Pair, tmp_path: Path
) -> None:
    whole = run(pair.sandbox, tmp_path / "runs", "--dry-run", program=program)
    told = report(tmp_path / "runs")
    assert (whole.code, pair.sandbox.writes("globex"), pair.sandbox.writes("acme"), sums(told)) == (
        0,
        [],
        [],
        [],
    ), whole.last_words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    planned = {entry["resource"]: 0 for entry in told["objects"]}
    for entry in told["objects"]:
        planned[entry["resource"]] += entry["outcomes"].get("planned", 0)
    if program == "migrate_all":
        counts = own_objects(pair.source)
        del counts["prompt"]  # prompts are functions too
        assert (
            planned.pop("functions") + planned.pop("prompts") == counts.pop("function") - 1
        )  # one is a bundle
        wanted = {NAME_OF[kind]: count for kind, count in {**counts, "acl": 3}.items() if count}
        del planned["project_settings"]
        assert wanted == {name: count for name, count in planned.items() if count}
        assert told["estimate"]["rows"] == sum(row_counts(pair.source).values())
    assert run(pair.sandbox, tmp_path / "runs").code == 0
    assert differences(pair) == []


def test_a_dry_run_of_the_example_plans_everything(tmp_path: Path) -> None:
    with example_pair() as pair:
        whole = run(pair.sandbox, tmp_path / "runs", "--dry-run")
        told = report(tmp_path / "runs")
        assert (whole.code, pair.sandbox.writes("globex"), sums(told), told["problems"]) == (
            0,
            [],
            [],
            [],
        ), whole.last_words
        assert {name for entry in told["objects"] for name in entry["outcomes"]} == {
            "planned",
            "skipped",
        }
