"""`import bt_migrate`: what other programs use."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

import bt_migrate
from bt_migrate.errors import StateError, UsageError
from tests.support.orgs import REPOSITORY, TIME_LIMIT_S, environment, tiny_pair

EXAMPLE = REPOSITORY / "tests" / "examples" / "nightly_sync.py"


def test_the_example_syncs_and_reads_the_report(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        done = subprocess.run(
            [sys.executable, str(EXAMPLE), str(tmp_path / "state")],
            env=environment(pair.sandbox), capture_output=True, text=True, timeout=TIME_LIMIT_S,
        )  # fmt: skip
        rows = sum(
            len(pair.source.rows("project_logs", obj["id"]))
            for obj in pair.source.objects("project")
        )
    last = done.stdout.splitlines()[-1]
    assert ("rows read" in last, int(last.split()[1]) >= rows) == (True, True)


def test_a_program_that_does_not_exist_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no program 'migrate-everything'"):
        bt_migrate.run("migrate-everything")
    with pytest.raises(UsageError):
        bt_migrate.run("library")


def test_the_memory_of_a_run_is_free_for_the_program_that_called_it(tmp_path: Path) -> None:
    kept = gc.get_freeze_count()
    arguments = ["--state-dir", str(tmp_path), "--env-file", str(tmp_path / "nowhere")]
    assert (bt_migrate.run("validate", arguments), gc.get_freeze_count()) == (2, kept)


def test_a_run_without_a_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run"):
        bt_migrate.read_report(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(StateError, match="bin/report writes it again"):
        bt_migrate.read_report(tmp_path)


def test_importing_the_package_imports_no_program() -> None:
    code = "import sys, bt_migrate; print([n for n in sys.modules if n.startswith('bt_migrate.')])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
    )
    assert done.stdout.strip() == "[]"
