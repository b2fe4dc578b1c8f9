"""The names of programs in what is printed, in a checkout and where the package is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bt_migrate.cli.program_names import with_prefix
from tests.support.processes import REPOSITORY


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Next: bin/verify --full", "Next: bt-verify --full"),
        ("`bin/undo RUN`, bin/migrate-all.", "`bt-undo RUN`, bt-migrate-all."),
        ("/opt/bin/verify: no", "/opt/bin/verify: no"),
        ("./bin/verify and bin/python", "./bin/verify and bin/python"),
    ],
)
def test_programs_are_named_as_they_are_installed(text: str, expected: str) -> None:
    assert (with_prefix("bt-", text), with_prefix("bin/", text)) == (expected, text)


def test_a_package_without_a_checkout_names_the_programs_that_it_installs(tmp_path: Path) -> None:
    shutil.copytree(
        REPOSITORY / "bt_migrate",
        tmp_path / "bt_migrate",
        ignore=shutil.ignore_patterns("__pycache__", "docs"),
    )
    command = [sys.executable, "-m", "bt_migrate.phases.verify", "--help"]
    shown = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=True, env={}
    ).stdout
    assert ("bin/" in shown, "bt-verify --full" in shown) == (False, True)
