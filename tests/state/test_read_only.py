"""A state folder on a read-only file system: looked at and compared, and refused in one line by all
programs that write.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.orgs import TIME_LIMIT_S, environment, run, tiny_pair

READ_ONLY = 'mount --bind runs runs && mount -o remount,ro,bind runs && exec "$@"'


def run_read_only(
    pair: Any, folder: Path, program: str, *arguments: str
) -> subprocess.CompletedProcess:
    """Run a program in `folder`, where `runs` is mounted read-only."""
    command = [
        "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, "sh",
        sys.executable, "-m", f"bt_migrate.phases.{program}", *arguments,
    ]  # fmt: skip
    env = {**environment(pair.sandbox), "LOG_LEVEL": "ERROR"}
    try:
        done = subprocess.run(
            command, env=env, cwd=folder, capture_output=True, text=True, timeout=TIME_LIMIT_S
        )
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if re.search(r"^(mount|unshare):", done.stderr, re.MULTILINE):
        pytest.skip(f"may not mount here: {done.stderr[-200:]}")
    return done


def test_a_read_only_state_folder_is_shown_and_compared_and_otherwise_refused(
    tmp_path: Path,
) -> None:
    with tiny_pair() as pair:
        first = run(pair.sandbox, tmp_path / "runs", "--no-verify", MIGRATION_RESOURCES="roles")
        assert first.code == 0, first.last_words
        status = run_read_only(pair, tmp_path, "status", "runs")
        assert (status.returncode, status.stderr) == (0, "")
        assert "finished" in status.stdout
        state_dir = ("--state-dir", "runs", "--resources", "roles")
        verify = run_read_only(pair, tmp_path, "verify", "--full", *state_dir)
        assert (verify.returncode, "equal" in verify.stdout) == (0, True), verify.stderr
        (named,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
        comment, command = verify.stdout.splitlines()[-2:]
        assert comment.startswith("# not before its folder can be written; ")
        next_command = (
            f"Next: bin/migrate-all --resources roles --state-dir runs/{named.name} --since-last"
        )
        assert command == next_command
        for program, arguments in {
            "migrate_all": (*state_dir, "--new-run"),
            "migrate_organization": state_dir,
            "validate": state_dir,
        }.items():
            done = run_read_only(pair, tmp_path, program, *arguments)
            assert (done.returncode in (2, 3), done.stderr.count("\n")) == (True, 1), done.stderr
            assert re.match(r"bt_migrate: .*runs.*Read-only file system", done.stderr)
        undone = run_read_only(pair, tmp_path, "undo", f"runs/{named.name}", "--yes")
        assert (undone.returncode, undone.stderr.count("\n")) == (3, 1), undone.stderr
