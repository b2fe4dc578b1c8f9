"""Devices, pipes and files that are too large are refused in one line, wherever a file is read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Dict, List

import pytest

from bt_migrate.config.bounded import MAX_LARGE_BYTES
from bt_migrate.errors import StateError, UsageError
from bt_migrate.report.plan_check import read_plan
from bt_migrate.state.files import read_json
from tests.support.orgs import ended, environment, start


class NoServer:
    url = "http://127.0.0.1:9"


def device(path: Path) -> str:
    path.symlink_to("/dev/zero")
    return "not a regular file"


def pipe(path: Path) -> str:
    os.mkfifo(path)
    return "not a regular file"


def huge(path: Path) -> str:
    path.touch()
    os.truncate(path, MAX_LARGE_BYTES + 1)  # without blocks on the disk
    return "larger than"


@pytest.mark.parametrize("make", [device, pipe, huge])
@pytest.mark.parametrize("arguments", [["--user-map", "given"], ["--env-file", "given"], []])
def test_a_file_that_cannot_be_read_whole_is_refused_in_one_line(
    make: Callable[[Path], str], arguments: List[str], tmp_path: Path
) -> None:
    """Without arguments: `.env` of the folder."""
    name = "given" if arguments else ".env"
    reason = make(tmp_path / name)
    env: Dict[str, str] = environment(NoServer())
    end = ended(start("bt_migrate.phases.migrate_all", arguments, env, tmp_path), 20)
    assert (end.code, reason in end.err, name in end.err) == (2, True, True), end.err
    assert len(end.err.splitlines()) == 1, end.err


@pytest.mark.parametrize("make", [device, pipe, huge])
def test_a_plan_and_a_state_file_are_read_in_the_same_way(
    make: Callable[[Path], str], tmp_path: Path
) -> None:
    path = tmp_path / "given"
    reason = make(path)
    with pytest.raises(UsageError, match=f"--plan: .* cannot be read .*{reason}"):
        read_plan(path)
    with pytest.raises(StateError, match=f"given: cannot be read .*{reason}"):
        read_json(path)
