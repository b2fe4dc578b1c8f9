"""Mistakes in options and in the environment: each is refused or reported, with what was meant."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict

import pytest

from bt_migrate.config.load import load_settings
from bt_migrate.config.options import flags_of, make_parser
from bt_migrate.errors import EXIT_USAGE, UsageError
from bt_migrate.model.resources import SELECTABLE
from bt_migrate.model.selection import chosen, did_you_mean, matches, unmatched
from bt_migrate.phases import accept, merge_runs, migrate_logs, probe, report, status
from bt_migrate.report.plan_check import read_plan
from bt_migrate.sandbox import main as sandbox
from tests.support.orgs import run, runs, tiny_pair
from tests.support.settings import loaded

# -- comments after values

COMMENTED = """\
# Required
BT_SOURCE_API_KEY=sk-source # key to read with
BT_DEST_API_KEY=sk-dest # key to write with
LOG_LEVEL=DEBUG # one of four
MIGRATION_PROJECTS= # all of them
MIGRATION_RESOURCES=all # also a list
MIGRATION_BATCH_SIZE=50 # objects
MIGRATION_RETRY_DELAY=2.0 # seconds
MIGRATION_STATE_DIR=./runs # where runs are kept
MIGRATION_RESUME_RUN_DIR= # a run
MIGRATION_EVENTS_USE_SEEN_DB=true # SQLite
MIGRATION_LOGS_FETCH_LIMIT= # as above
MIGRATION_INSERT_REQUEST_HEADROOM_RATIO=0.5 # half → 3 MB
MIGRATION_CREATED_AFTER= # first day (such as 2026-01-01)
MIGRATION_CREATED_BEFORE=2026-02-01 # day after the last
"""
# Fields of the settings that the file sets.
EXPECTED: Dict[str, Any] = {
    "source_api_key": "sk-source", "log_level": "DEBUG", "projects": (), "resources": SELECTABLE,
    "batch_size": 50, "retry_delay": 2.0, "state_dir": "./runs", "resume_run_dir": "",
    "use_seen_db": True, "headroom_ratio": 0.5, "created_after": None,
    "created_before": "2026-02-01T00:00:00Z", "overrides": {},
}  # fmt: skip


def test_an_env_file_with_comments_after_its_values_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(COMMENTED, encoding="utf-8")
    settings = load_settings({})
    assert {name: getattr(settings, name) for name in EXPECTED} == EXPECTED


def test_comments_that_a_reader_of_env_files_keeps_are_no_part_of_a_value() -> None:
    """As docker --env-file does, and python-dotenv before 1.0 where the value is empty."""
    lines = [line.partition("=") for line in COMMENTED.splitlines() if "=" in line]
    environ = {name: value for name, _, value in lines if not name.endswith(("_KEY", "STATE_DIR"))}
    settings = loaded(environ)
    same = [name for name in EXPECTED if name != "state_dir"]
    assert {name: getattr(settings, name) for name in same} == {n: EXPECTED[n] for n in same}


# The first example that this program was given, with every comment after a value.
FIRST_EXAMPLE = """\
BT_SOURCE_API_KEY=your_source_api_key_here
BT_SOURCE_URL=https://api.braintrust.dev
BT_DEST_API_KEY=your_destination_api_key_here
BT_DEST_URL=https://api.braintrust.dev
LOG_LEVEL=INFO # DEBUG, INFO, WARNING, ERROR
LOG_FORMAT=json # json, text
# - MIGRATION_RESOURCES: comma-separated list (e.g. "logs,experiments")
# - MIGRATION_PROJECTS: comma-separated list of project names
MIGRATION_RESOURCES=all
MIGRATION_PROJECTS=
MIGRATION_BATCH_SIZE=100 # Resources per batch
MIGRATION_RETRY_ATTEMPTS=3 # Retry failed operations
MIGRATION_RETRY_DELAY=1.0 # Initial retry delay (seconds)
MIGRATION_MAX_CONCURRENT=10 # Concurrent operations
MIGRATION_CHECKPOINT_INTERVAL=50 # Checkpoint frequency
MIGRATION_STATE_DIR=./checkpoints # Checkpoint directory
# Prefer passing MIGRATION_STATE_DIR as the run directory instead.
MIGRATION_RESUME_RUN_DIR=
MIGRATION_EVENTS_FETCH_LIMIT=1000 # BTQL fetch page size (rows/spans)
MIGRATION_EVENTS_INSERT_BATCH_SIZE=200 # Insert batch size
MIGRATION_EVENTS_USE_SEEN_DB=true # SQLite deduplication store
# MIGRATION_LOGS_FETCH_LIMIT=500 # Override just for logs
# MIGRATION_EXPERIMENT_EVENTS_INSERT_BATCH_SIZE=100 # Override just for experiments
# MIGRATION_DATASET_EVENTS_USE_SEEN_DB=false # Override just for datasets
MIGRATION_INSERT_MAX_REQUEST_BYTES=6291456 # 6MB max request size (default)
MIGRATION_INSERT_REQUEST_HEADROOM_RATIO=0.75 # Use 75% of max → ~4.5MB effective limit
MIGRATION_CREATED_AFTER= # Inclusive start date (e.g. 2026-01-01)
MIGRATION_CREATED_BEFORE= # Exclusive end date (e.g. 2026-02-01)
"""


def test_the_unchanged_example_file_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(FIRST_EXAMPLE, encoding="utf-8")
    keys = {
        "BT_SOURCE_API_KEY": "your_source_api_key_here",
        "BT_DEST_API_KEY": "your_destination_api_key_here",
    }
    changed: Dict[str, Any] = {"log_format": "json", "insert_batch_size": 200}
    assert load_settings({}) == replace(loaded(keys), **changed)


def test_a_hash_inside_a_name_stays() -> None:
    environ = {"MIGRATION_PROJECTS": "team #1,#general", "BT_SOURCE_ORG": "a #b"}
    settings = loaded(environ)
    assert (settings.projects, settings.source_org) == (("team #1", "#general"), "a #b")


# -- names that are not known


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "MIGRATION_RETRY_ATEMPTS",
            ("MIGRATION_RETRY_ATEMPTS is not a setting and is ignored;"
             " did you mean 'MIGRATION_RETRY_ATTEMPTS'?",),
        ),
        ("MIGRATION_XYZZY", ("MIGRATION_XYZZY is not a setting and is ignored",)),
        (
            "BT_SOURCE_KEY",
            ("BT_SOURCE_KEY is not a setting and is ignored; did you mean 'BT_SOURCE_API_KEY'?",),
        ),
        ("HOME", ()),
        ("LOG_LEVELS", ()),
        ("MIGRATION_LOGS_FETCH_LIMIT", ()),
    ],
)  # fmt: skip
def test_a_variable_that_is_no_setting_is_reported(name: str, expected: tuple) -> None:
    assert loaded({name: "5"}).warnings == expected


def test_a_wrong_variable_is_shown_by_the_program(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        done = run(
            pair.sandbox, tmp_path / "runs", "--resources", "roles", MIGRATION_RETRY_ATEMPTS="5",
            program="migrate_organization",
        )  # fmt: skip
        assert (done.code, "did you mean 'MIGRATION_RETRY_ATTEMPTS'?" in done.err) == (0, True)


@pytest.mark.parametrize("program", [status, report, merge_runs, probe])
def test_a_wrong_variable_is_shown_by_programs_that_move_nothing(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("MIGRATION_STATE_DIRS=x\n", encoding="utf-8")
    monkeypatch.setenv("BT_DEST_API_KEY", "")
    assert program.main(["runs"] if program is not probe else []) == EXIT_USAGE
    warning = "bt_migrate: MIGRATION_STATE_DIRS is not a setting and is ignored; did you mean"
    assert capsys.readouterr().err.startswith(warning)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--quite"], "unrecognized arguments: --quite; did you mean '--quiet'?"),
        (["--state-dirs=x"], "did you mean '--state-dir'?"),
        (
            ["--propagate-deletes"],
            "it does nothing in verify, but in migrate-all, migrate-datasets",
        ),
        (["--dry-run"], "it does nothing in verify, but in migrate-all, validate"),
        (["--xyzzy"], "unrecognized arguments: --xyzzy (see verify --help)"),
        (["--resources", ""], "--resources: its value is empty; leave it out, or give one"),
        (["--projects", " , "], "--projects: its value is empty"),
        (["--state-dir="], "--state-dir: its value is empty"),
        (["--env-file", ""], "--env-file: its value is empty; leave it out, or give one (see"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    words: list, expected: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        flags_of(make_parser("verify", ""), words)
    error = capsys.readouterr().err
    assert (ended.value.code, error.count("\n"), expected in error) == (EXIT_USAGE, 1, True), error


def test_an_unknown_project_is_refused_with_the_one_that_was_meant(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        for option in ("--projects", "--exclude-projects"):
            done = run(pair.sandbox, tmp_path / "runs", option, "bta", program="migrate_logs")
            expected = "has no project 'bta'; did you mean 'beta'? It has: Alpha/α, beta\n"
            assert (done.code, expected in done.err, done.out) == (2, True, "")
        # A run that was made for a wrong name would be continued with it.
        assert runs(tmp_path / "runs") == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--resources", "prompts,views"],
            "--resources prompts,views: moved by migrate-definitions and migrate-views, not by"
            " migrate-logs\n",
        ),
        (
            ["--exclude-resources", "logs"],
            "--exclude-resources: nothing is left for migrate-logs, which moves logs\n",
        ),
    ],
)
def test_a_phase_that_moves_nothing_of_the_selection_is_refused(
    words: list, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for side in ("SOURCE", "DEST"):
        monkeypatch.setenv(f"BT_{side}_API_KEY", f"sk-{side}")
    code = migrate_logs.main(words)
    assert (code, capsys.readouterr().err) == (EXIT_USAGE, f"bt_migrate: {expected}")


def test_a_missing_plan_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1", encoding="utf-8")
    for path in (tmp_path / "nothing.json", tmp_path / ".env"):
        with pytest.raises(UsageError, match="; make one with --dry-run --plan-out plan.json$"):
            read_plan(path)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--latency", "btql"], "expected name=seconds, got 'btql'"),
        (["--fault", "xx"], "unknown kind of fault: xx"),
        (["--port", "99999"], "'99999' is no port, a number from 0 to 65535"),
    ],
)
def test_the_sandbox_says_what_is_wrong_with_an_option(
    words: list, expected: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        sandbox.parser().parse_args(words)
    assert (ended.value.code, expected in capsys.readouterr().err) == (EXIT_USAGE, True)


def test_the_sandbox_says_that_a_port_is_taken(capsys: pytest.CaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        sandbox.main(["--port", str(taken.getsockname()[1])])
    error = capsys.readouterr().err
    assert (ended.value.code, "--files-port: Address already in use" in error) == (2, True), error


# -- options that do nothing


@pytest.mark.parametrize(
    ("program", "words", "expected"),
    [
        (accept, "runs --list --remove", "--list only lists: leave out --all"),
        (accept, "runs --only x --all", "--only and --all: choose one"),
        (accept, "runs --yes", "--yes does something only with --only or --all"),
        (probe, "--read-only --yes", "--read-only creates nothing: leave out --yes"),
        (status, "runs --all --watch", "leave out --watch and --lag"),
    ],
)
def test_options_that_do_nothing_together_are_refused_by_programs_that_move_nothing(
    program: Any, words: str, expected: str, capsys: pytest.CaptureFixture
) -> None:
    assert program.main(words.split()) == EXIT_USAGE
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"propagate_deletes": True}, "--propagate-deletes does something only with --since-last"),
        ({"lookback": "5m"}, "--lookback does something only with --since-last"),
        ({"max_deletes": "5"}, "--max-deletes does something only with --since-last"),
        ({"max_deletes": "5", "since_last": True}, "only with --propagate-deletes"),
        ({"fill_gaps": True}, "--fill-gaps does something only with --window or --created-after"),
        ({"tz": "Europe/Berlin"}, "--tz does something only with --window or a date"),
        ({"quiet": True, "verbose": True}, "--quiet and --verbose: choose one"),
        ({"verbose": True, "log_level": "error"}, "--verbose and --log-level: choose one"),
        ({"yes": True}, "--yes does something only with --invite-users"),
        ({"preserve_order": True, "read_streams": "4"}, "leave out --read-streams"),
        ({"no_rows": True, "read_streams": "4"}, "--read-streams does something only with rows"),
        (
            {"resources": "prompts", "since_last": True, "propagate_deletes": True},
            "--propagate-deletes does something only with datasets or experiments or logs",
        ),
        (
            {"resources": "prompts", "no_rows": True},
            "--no-rows does something only with datasets or exp",
        ),
        ({"resources": "logs", "dataset_versions": True}, "only with datasets: these are not"),
        ({"resources": "logs", "activate": "slack"}, "--activate does something only with project"),
        ({"resources": "logs", "keep_public": True}, "only with experiments: these are not"),
        ({"resources": "logs", "history": "all"}, "only with prompts or functions: these are not"),
        ({"on_conflict": "udpate"}, "did you mean 'update'?"),
        ({"on_conflict": "prompt=update"}, "did you mean 'prompts'?"),
        ({"no_verify": True, "full": True}, "--no-verify: leave it out, or leave out --counts"),
        ({"exclude_resources": "logs", "resources": "logs"}, "nothing is left of --resources"),
    ],
)
def test_options_that_do_nothing_together_are_refused(flags: Dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        loaded({}, **flags)


def test_a_setting_in_the_environment_is_not_refused_where_it_does_nothing() -> None:
    settings = loaded({"MIGRATION_PROPAGATE_DELETES": "true", "MIGRATION_MAX_DELETES": "5"})
    assert settings.propagate_deletes


# -- selection


@pytest.mark.parametrize(
    ("wanted", "name", "expected"),
    [
        ("Support", "Support", True),
        ("Support*", "Support EU", True),
        ("Support*", "My Support", False),
        ("*", "", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a*", "A", False),
        ("[ab]", "a", False),
        ("[ab]*", "[ab]c", True),
        ("a*b", "a\nb", True),
    ],
)
def test_a_pattern_has_two_wildcards(wanted: str, name: str, expected: bool) -> None:
    assert matches(wanted, name) is expected


def test_names_are_chosen_in_their_order() -> None:
    names = ["b1", "a1", "b2", "c"]
    assert chosen(names, ["b*", "c"], ["b2"]) == ["b1", "c"]
    assert chosen(names, [], ["b*"]) == ["a1", "c"]
    assert unmatched(["b*", "x*", "y"], names) == ["x*", "y"]


def test_a_similar_name_is_suggested_whatever_the_case() -> None:
    assert did_you_mean("SUPORT", ["Support", "Sales"]) == "; did you mean 'Support'?"
    assert did_you_mean("xyz", ["Support", "Sales"]) == ""


def test_resources_are_selected_by_patterns_and_exclusions() -> None:
    settings = loaded({}, resources="project_s*,a*,logs", exclude_resources="agents,acls")
    assert settings.resources == ("ai_secrets", "project_scores", "logs", "project_settings")


def test_projects_are_moved_by_patterns_and_exclusions(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        for name in ("Support EU", "Support US", "Support old"):
            pair.source.create("project", {"name": name})
        root = tmp_path / "runs"
        select = ("--projects", "Support*", "--exclude-projects", "*old")
        first = run(pair.sandbox, root, *select, "--no-rows", program="migrate_datasets")
        names = sorted(project["name"] for project in pair.dest.objects("project"))
        assert (first.code, names) == (0, ["Support EU", "Support US"])
        again = run(pair.sandbox, root, *select, "--no-rows", program="migrate_experiments")
        assert (again.code, len(runs(root))) == (0, 1), os.listdir(root)
