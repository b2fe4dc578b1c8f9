"""What to run next: for every way in which a start can end."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Dict

import pytest

from bt_migrate.model.resources import resources_by_phase
from bt_migrate.phases import ORDER
from tests.support.next_commands import EQUAL, MISSING, UNEQUAL, commands, next_lines
from tests.support.orgs import REPOSITORY

DIFFERS = {"resource": "prompts", "outcome": "differs"}
FAILED = {"resource": "prompts", "outcome": "failed"}
CHANGED_SINCE = {
    **UNEQUAL,
    "differences": [
        {"resource": "datasets", "outcome": "differs", "row": "r"},
        {"resource": "logs", "outcome": "differs", "changed_since_copy": True},
    ],
}
DELETED_SINCE = {
    **UNEQUAL,
    "arrived": True,
    "changed_since_copy": 1,
    "differences": [{"resource": "logs", "outcome": "extra", "changed_since_copy": True}],
}
DIFFERS_AND_EXTRA = {
    **UNEQUAL,
    "differences": [
        {"resource": "logs", "outcome": outcome, "row": "r"} for outcome in ("differs", "extra")
    ],
}

CASES = [
    ("the demo", "migrate-all", "--demo", "completed", {}, "bin/validate"),
    (
        "a plan",
        "migrate-all",
        "--dry-run --plan-out p --projects a",
        "completed",
        {"dry_run": True},
        "bin/migrate-all --projects a --plan p",
    ),
    (
        "a plan that was stopped",
        "migrate-all",
        "--dry-run",
        "stopped",
        {"dry_run": True},
        "bin/migrate-all --dry-run",
    ),
    (
        "validation",
        "validate",
        "--env-file x",
        "completed",
        {},
        "bin/migrate-all --env-file x --dry-run",
    ),
    ("an interrupted validation", "validate", "", "interrupted", {}, "bin/validate"),
    (
        "an interruption",
        "migrate-all",
        "--window daily --projects a",
        "interrupted",
        {},
        "bin/migrate-all --projects a --state-dir RUN",
    ),
    (
        "a stopped phase in the run of another program",
        "migrate-logs",
        "--state-dir s",
        "stopped",
        {"command": "migrate-organization"},
        "bin/migrate-logs --state-dir RUN",
    ),
    (
        "objects that conflict",
        "migrate-all",
        "--on-conflict fail",
        "failed",
        {"session": {"error": "--on-conflict fail: 1 exist"}},
        "bin/migrate-all --state-dir RUN --on-conflict update",
    ),
    (
        "objects that differ",
        "migrate-all",
        "",
        "incomplete",
        {"finished": True, "report": {"problems": [DIFFERS]}},
        "bin/migrate-all --on-conflict prompts=update",
    ),
    (
        "objects that differ, with a policy",
        "migrate-all",
        "--on-conflict views=update",
        "incomplete",
        {"finished": True, "report": {"problems": [DIFFERS]}},
        "bin/migrate-all --on-conflict views=update,prompts=update",
    ),
    (
        "objects that differ although they were to be updated",
        "migrate-all",
        "--on-conflict prompts=update",
        "incomplete",
        {"finished": True, "report": {"problems": [DIFFERS]}},
        "bin/accept RUN --all",
    ),
    (
        "objects that a sync keeps",
        "migrate-all",
        "--since-last",
        "incomplete",
        {"round": 1, "report": {"problems": [DIFFERS]}},
        "bin/accept RUN --all",
    ),
    (
        "rows that a sync keeps",
        "migrate-all",
        "--since-last",
        "incomplete",
        {"round": 1, "report": {"failed": [{"kind": "row_differs"}]}},
        "bin/accept RUN --all",
    ),
    (
        "a sync of which rows are missing too",
        "migrate-all",
        "--since-last",
        "incomplete",
        {"round": 1, "report": {"problems": [DIFFERS], "verification": MISSING}},
        "bin/migrate-all --since-last --state-dir RUN --on-conflict prompts=update",
    ),
    (
        "a sync of which delivered rows are missing",
        "migrate-all",
        "--since-last --projects a --lookback 5m",
        "incomplete",
        {"round": 1, "report": {"verification": MISSING}},
        "bin/migrate-all --projects a --new-run --state-dir ROOT",
    ),
    (
        "a first copy of which an object was deleted in the destination",
        "migrate-all",
        "--since-last",
        "failed",
        {"session": {"error": "destination: project 'a' was deleted, or the key cannot"}},
        "bin/migrate-all --new-run --state-dir ROOT",
    ),
    (
        "objects that failed",
        "migrate-all",
        "--new-run",
        "incomplete",
        {"report": {"problems": [FAILED, DIFFERS]}},
        "bin/migrate-all --state-dir RUN",
    ),
    (
        "a finished run of which something is missing",
        "migrate-all",
        "--state-dir RUN",
        "incomplete",
        {"finished": True, "report": {"verification": UNEQUAL}},
        "bin/migrate-all --state-dir ROOT",
    ),
    (
        "targets of references that were not selected",
        "migrate-all",
        "--projects a --full",
        "incomplete",
        {"report": {"failed": [{"kind": "unresolved_reference"}]}},
        "bin/migrate-all --full --state-dir ROOT",
    ),
    (
        "objects that wait for what was not selected",
        "migrate-all",
        "--exclude-resources prompts --full",
        "incomplete",
        {
            "report": {
                "problems": [{"resource": "environment_assignments", "outcome": "waiting"}],
                "failed": [{"kind": "waits"}],
            }
        },
        "bin/migrate-all --full --state-dir ROOT",
    ),
    (
        "rows that differ beside rows of the destination",
        "migrate-all",
        "",
        "incomplete",
        {"report": {"failed": [{"kind": "row_differs"}], "verification": DIFFERS_AND_EXTRA}},
        "bin/accept RUN --all",
    ),
    (
        "a relative window",
        "migrate-all",
        "--window daily --tz UTC",
        "incomplete",
        {"finished": True, "relative_window": "daily in UTC"},
        "bin/migrate-all",
    ),
    (
        "a whole move",
        "migrate-all",
        "--full",
        "completed",
        {"finished": True, "report": {"verification": EQUAL}},
        "bin/migrate-all --full --state-dir RUN --since-last",
    ),
    (
        "a sync",
        "migrate-all",
        "--since-last --projects a",
        "completed",
        {"finished": True, "round": 1},
        "bin/verify --projects a --state-dir RUN",
    ),
    (
        "a phase before the others",
        "migrate-organization",
        "",
        "completed",
        {"phases_done": ["migrate-organization"]},
        "bin/migrate-definitions",
    ),
    (
        "a phase whose references wait",
        "migrate-definitions",
        "",
        "incomplete",
        {
            "phases_done": ["migrate-definitions"],
            "report": {
                "failed": [{"kind": "waits"}],
                "findings": [{"kind": "waits", "detail": "experiments"}],
            },
        },
        "bin/migrate-experiments",
    ),
    (
        "a phase whose objects wait for two phases",
        "migrate-acls",
        "",
        "incomplete",
        {
            "phases_done": ["migrate-organization"],
            "report": {
                "problems": [{"resource": "acls", "outcome": "waiting"}],
                "failed": [{"kind": "waits"}],
                "findings": [
                    {"kind": "waits", "severity": "failure", "resource": "acls", "detail": kinds}
                    for kinds in ("experiments", "prompts or functions", "groups")
                ],
            },
        },
        "bin/migrate-definitions",
    ),
    (
        "a phase that failed before another one",
        "migrate-views",
        "",
        "incomplete",
        {"report": {"problems": [FAILED, {"resource": "views", "outcome": "failed"}]}},
        "bin/migrate-definitions",
    ),
    (
        "the last phase",
        "migrate-definitions",
        "--projects a --batch-size 5",
        "completed",
        {"phases_done": ["migrate-definitions"]},
        "bin/verify --projects a --state-dir RUN",
    ),
    (
        "objects without rows",
        "migrate-all",
        "--no-rows",
        "completed",
        {"selection": {"part": "objects"}},
        "bin/plan-shards --shards 4 --state-dir RUN",
    ),
    ("a joined run", "migrate-all", "--shard x:0", "merged", {}, "bin/migrate-all --state-dir RUN"),
    (
        "a joined run of shards that printed nothing",
        "migrate-logs",
        "--shard x:0 --quiet",
        "merged",
        {},
        "bin/migrate-all --state-dir RUN",
    ),
    (
        "a verification that is equal",
        "verify",
        "--full",
        "completed",
        {"command": "migrate-all", "report": {"verification": EQUAL}},
        "bin/migrate-all --state-dir RUN --since-last",
    ),
    (
        "a verification that is not equal",
        "verify",
        "--projects a",
        "incomplete",
        {"command": "migrate-all", "report": {"verification": UNEQUAL}},
        "bin/migrate-all --projects a --state-dir ROOT --on-conflict prompts=update",
    ),
    (
        "a verification that finds more than in the source",
        "verify",
        "--counts",
        "completed",
        {"command": "migrate-all", "report": {"verification": {**UNEQUAL, "arrived": True}}},
        "bin/accept RUN --all",
    ),
    (
        "options that the next program does not have",
        "migrate-all",
        "--user-map u.csv --invite-users --bundles dir --no-attachments --yes",
        "completed",
        {},
        "bin/verify --user-map u.csv --no-attachments --state-dir RUN",
    ),
    (
        "options that the next phase does not have",
        "migrate-experiments",
        "--keep-public --user-map u.csv",
        "completed",
        {"phases_done": ["migrate-experiments"]},
        "bin/migrate-definitions --user-map u.csv",
    ),
    (
        "a verification of what several phases moved",
        "verify",
        "",
        "completed",
        {
            "before": "migrate-definitions --bundles old --history 5;"
            "migrate-definitions --bundles b;migrate-settings --activate slack --history all",
            "command": "migrate-definitions",
            "report": {"verification": EQUAL},
        },
        "bin/migrate-all --history all --activate slack --bundles b --state-dir RUN --since-last",
    ),
    (
        "a verification of a window that is not equal",
        "verify",
        "--state-dir RUN",
        "incomplete",
        {
            "before": "migrate-all --exclude-projects x*",
            "command": "migrate-all",
            "report": {"verification": MISSING},
            "window": ("2026-01-01T00:00:00Z", None),
        },
        "bin/migrate-all --exclude-projects 'x*' --created-after 2026-01-01T00:00:00Z"
        " --state-dir ROOT",
    ),
    (
        "a verification of a sync that is not equal",
        "verify",
        "",
        "incomplete",
        {
            "before": "migrate-all --since-last --propagate-deletes --lookback 1h",
            "command": "migrate-all",
            "report": {"verification": MISSING},
        },
        "bin/migrate-all --state-dir ROOT",
    ),
    (
        "a verification that finds only rows that differ",
        "verify",
        "",
        "incomplete",
        {"command": "migrate-all", "report": {"verification": DIFFERS_AND_EXTRA}},
        "bin/accept RUN --all",
    ),
    (
        "a verification that finds rows that the source changed after the copy",
        "verify",
        "",
        "incomplete",
        {"command": "migrate-all", "report": {"verification": CHANGED_SINCE}},
        "bin/migrate-all --state-dir RUN --since-last",
    ),
    (
        "a verification that finds rows that the source deleted after the copy",
        "verify",
        "",
        "incomplete",
        {"command": "migrate-all", "report": {"verification": DELETED_SINCE}},
        "bin/accept RUN --all",
    ),
    (
        "a difference that may be accepted, with a consent to something else",
        "verify",
        "",
        "completed",
        {
            "before": "migrate-all --invite-users --yes",
            "command": "migrate-all",
            "report": {"verification": {**UNEQUAL, "arrived": True}},
        },
        "bin/accept RUN --all",
    ),
    (
        "an installed package",
        "migrate-all",
        "",
        "interrupted",
        {"session": {"prefix": "bt-"}},
        "bt-migrate-all --state-dir RUN",
    ),
]


@pytest.mark.parametrize(
    ("command", "arguments", "status", "more", "expected"),
    [pytest.param(*case[1:], id=case[0].replace(" ", "-")) for case in CASES],
)
def test_the_next_command_fits_what_is_open(
    command: str,
    arguments: str,
    status: str,
    more: Dict[str, Any],
    expected: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / "runs" / "20260101_000000"
    given = arguments.replace("RUN", str(path))
    found = commands(tmp_path, command, given, status, **more)
    assert found == [expected.replace("ROOT", str(path.parent))]


def test_phases_are_recommended_in_the_order_in_which_the_driver_runs_them() -> None:
    names = [name.replace("_", "-") for name in ORDER if name.startswith("migrate_")]
    assert list(resources_by_phase()) == names


@pytest.mark.parametrize(
    ("arguments", "round_", "other"),
    [
        ("", 0, "what you delete there is copied again"),
        ("--since-last", 1, "--on-conflict update would overwrite it"),
    ],
)
def test_rows_that_differ_are_overwritten_by_a_sync_only(
    arguments: str, round_: int, other: str, tmp_path: Path
) -> None:
    report = {"failed": [{"kind": "row_differs"}]}
    (line,) = next_lines(
        tmp_path, "migrate-all", arguments, "incomplete", round=round_, report=report
    )
    assert line == f"bin/accept RUN --all  # accepts what differs, after a look; {other}"


def test_every_command_exists_in_a_checkout_and_in_an_installed_package() -> None:
    programs = {shlex.split(case[-1])[0] for case in CASES}
    scripts = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    names = {program.split("/")[-1].replace("bt-", "") for program in programs}
    assert [name for name in names if not (REPOSITORY / "bin" / name).is_file()] == []
    assert [name for name in names if f"\nbt-{name} = " not in scripts] == []


def test_after_a_comparison_by_means_of_a_copy_the_folder_of_the_user_is_named(
    tmp_path: Path,
) -> None:
    (line,) = next_lines(
        tmp_path,
        "verify",
        "--state-dir runs",
        "incomplete",
        copy_of="runs/20260101_000000",
        report={"verification": UNEQUAL},
    )
    assert line.startswith("bin/verify --state-dir runs  # not before its folder can be written; ")
