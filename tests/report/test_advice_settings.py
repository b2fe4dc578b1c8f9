"""What is recommended depends on the settings, wherever their values come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest

from tests.support.next_commands import EQUAL, MISSING, UNEQUAL, commands, next_lines

DIFFERS = {"resource": "prompts", "outcome": "differs"}
WAITS = {
    "problems": [{"resource": "prompts", "outcome": "waiting"}],
    "failed": [{"kind": "waits"}],
    "findings": [
        {"kind": "waits", "severity": "failure", "detail": "functions", "resource": "prompts"}
    ],
}
ROWS_DIFFER = {"failed": [{"kind": "row_differs"}], "findings": []}


def one_line(
    folder: Path, option: str, variables: Dict[str, str], *, env: bool, **more: Any
) -> str:
    """The recommended line, with an option on the command line or its value in the environment."""
    arguments = more.pop("arguments", "")
    settings = variables if env else {}
    command, status = more.pop("command", "migrate-all"), more.pop("status", "incomplete")
    given = arguments if env else f"{option} {arguments}".strip()
    (line,) = next_lines(folder, command, given, status, settings=settings, **more)[:1]
    return line


@pytest.mark.parametrize("env", [False, True])
def test_policies_of_other_kinds_are_kept(env: bool, tmp_path: Path) -> None:
    line = one_line(
        tmp_path,
        "--on-conflict datasets=update",
        {"MIGRATION_ON_CONFLICT": "datasets=update"},
        env=env,
        report={"problems": [DIFFERS]},
    )
    assert "--on-conflict datasets=update,prompts=update" in line


@pytest.mark.parametrize("env", [False, True])
def test_update_is_not_recommended_where_it_is_the_policy(env: bool, tmp_path: Path) -> None:
    line = one_line(
        tmp_path,
        "--on-conflict update",
        {"MIGRATION_ON_CONFLICT": "update"},
        env=env,
        report={"problems": [DIFFERS]},
    )
    assert "prompts=update" not in line


@pytest.mark.parametrize("env", [False, True])
@pytest.mark.parametrize(("value", "said"), [("true", True), ("1", True), ("false", False)])
def test_rows_that_differ_after_earlier_states(
    value: str, said: bool, env: bool, tmp_path: Path
) -> None:
    line = one_line(
        tmp_path,
        "--dataset-versions" if said else "",
        {"MIGRATION_DATASET_VERSIONS": value},
        env=env,
        report=ROWS_DIFFER,
    )
    assert ("delete the datasets" in line) == said


@pytest.mark.parametrize("env", [False, True])
def test_other_excluded_resources_stay_excluded(env: bool, tmp_path: Path) -> None:
    refused = {
        "kind": "list_refused", "resource": "experiments", "severity": "failure",
        "detail": "GET /v1/experiment was answered 403",
    }  # fmt: skip
    target = {"kind": "target_list_refused", "severity": "failure", "detail": "experiments: 403"}
    report = {"failed": [{"kind": "list_refused"}], "findings": [refused, target]}
    variables = {"MIGRATION_EXCLUDE_RESOURCES": "logs"}
    line = one_line(tmp_path, "--exclude-resources logs", variables, env=env, report=report)
    assert "--exclude-resources logs,experiments" in line


@pytest.mark.parametrize(
    ("option", "variable"),
    [
        ("--resources prompts", "MIGRATION_RESOURCES"),
        ("--projects a", "MIGRATION_PROJECTS"),
        ("--exclude-resources functions", "MIGRATION_EXCLUDE_RESOURCES"),
        ("--exclude-projects a", "MIGRATION_EXCLUDE_PROJECTS"),
    ],
)
@pytest.mark.parametrize("env", [False, True])
def test_a_selection_that_leaves_targets_out_is_widened(
    option: str, variable: str, env: bool, tmp_path: Path
) -> None:
    name, value = option.split()
    line = one_line(tmp_path, option, {variable: value}, env=env, report=WAITS)
    assert line.startswith(f"{variable}= bin/migrate-all --" if env else "bin/migrate-all --")
    assert name not in line


@pytest.mark.parametrize("env", [False, True])
@pytest.mark.parametrize(
    ("option", "variables"),
    [
        ("--window daily", {"MIGRATION_WINDOW": "daily"}),
        ("--created-after -2d --tz UTC", {"MIGRATION_CREATED_AFTER": "-2d"}),
    ],
)
@pytest.mark.parametrize("targets", ["experiments", "functions or prompts"])
def test_a_window_that_leaves_out_experiments_is_left(
    targets: str, option: str, variables: Dict[str, str], env: bool, tmp_path: Path
) -> None:
    """All other objects move in any window."""
    waits = [{"kind": "waits", "severity": "failure", "resource": "views", "detail": targets}]
    report = {**WAITS, "findings": waits}
    line = one_line(tmp_path, option, variables, env=env, report=report, finished=True)
    is_left = targets == "experiments"
    assert ("moves the targets of the references too" in line) == is_left
    assert line.startswith(f"{''.join(variables)}= bin/") == (is_left and env)
    assert (option in line) == (not is_left and not env)


@pytest.mark.parametrize("env", [False, True])
def test_a_phase_before_moves_kinds_that_the_selection_left_out(env: bool, tmp_path: Path) -> None:
    line = one_line(
        tmp_path,
        "--resources prompts",
        {"MIGRATION_RESOURCES": "prompts"},
        env=env,
        command="migrate-settings",
        report=WAITS,
    )
    assert line.startswith(f"{'MIGRATION_RESOURCES= ' if env else ''}bin/migrate-definitions")
    assert "prompts" not in line


def test_a_policy_of_the_move_is_kept_after_a_verification(tmp_path: Path) -> None:
    (line,) = commands(
        tmp_path,
        "verify",
        "",
        "incomplete",
        before="migrate-all --on-conflict datasets=update",
        command="migrate-all",
        report={"verification": UNEQUAL},
    )
    assert "--on-conflict datasets=update,prompts=update" in line


def test_settings_of_the_environment_are_not_repeated_as_options(tmp_path: Path) -> None:
    settings = {"MIGRATION_PROJECTS": "a", "MIGRATION_HISTORY": "all"}
    (line,) = commands(
        tmp_path,
        "migrate-all",
        "",
        "completed",
        settings=settings,
        finished=True,
        report={"verification": EQUAL},
    )
    assert line == "bin/migrate-all --state-dir RUN --since-last"


def test_a_variable_that_was_empty_for_the_last_start_is_empty_for_the_next(tmp_path: Path) -> None:
    """It hides the one of .env, which would select less than the run has."""
    settings = {"MIGRATION_EXCLUDE_PROJECTS": "", "MIGRATION_USER_MAP": ""}
    (line,) = commands(tmp_path, "migrate-all", "", "completed", settings=settings, finished=True)
    assert line.startswith("MIGRATION_EXCLUDE_PROJECTS= MIGRATION_USER_MAP= bin/verify ")


def test_a_window_of_the_environment_is_emptied_where_the_run_has_dates(tmp_path: Path) -> None:
    (line,) = commands(
        tmp_path,
        "verify",
        "",
        "incomplete",
        settings={"MIGRATION_WINDOW": "daily", "MIGRATION_RESUME_RUN_DIR": "RUN"},
        window=("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        report={"verification": MISSING},
    )
    assert line.startswith("MIGRATION_WINDOW= MIGRATION_RESUME_RUN_DIR= bin/migrate-all --created-")
