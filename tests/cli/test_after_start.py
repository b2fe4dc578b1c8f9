"""--metrics-file and --on-end, for starts that nobody watches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict

import pytest

from tests.support.orgs import DEST_KEY, SOURCE_KEY, Pair, run, tiny_pair

ON_END = 'env > "$SEEN"'


def metrics(path: Path) -> Dict[str, float]:
    samples = (line.rpartition(" ") for line in path.read_text().splitlines() if line[0] != "#")
    return {name: float(value) for name, _, value in samples}


def started_with(pair: Pair, folder: Path, *arguments: str, **settings: str) -> int:
    options = ("--metrics-file", str(folder / "metrics.prom"), "--on-end", ON_END)
    seen = str(folder / "environment")
    return run(pair.sandbox, folder / "state", *options, *arguments, SEEN=seen, **settings).code


def environment_in(folder: Path) -> Dict[str, str]:
    lines = (folder / "environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_a_command_runs_after_a_successful_start(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        code = started_with(pair, tmp_path, "--verify")
    found = metrics(tmp_path / "metrics.prom")
    environ = environment_in(tmp_path)
    assert found["bt_migrate_exit_code"] == code
    assert found['bt_migrate_rows{outcome="created"}'] == found["bt_migrate_rows_read"] > 300
    assert found['bt_migrate_findings{severity="failure"}'] == 0
    assert found["bt_migrate_end_timestamp_seconds"] > 1.7e9
    assert environ["BT_MIGRATE_EXIT_CODE"] == str(code)
    assert float(environ["BT_MIGRATE_ROWS_CREATED"]) == found["bt_migrate_rows_read"]
    assert Path(environ["BT_MIGRATE_RUN"], "run.json").is_file()


def test_the_command_does_not_get_the_keys(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        started_with(pair, tmp_path)
    text = (tmp_path / "environment").read_text()
    assert SOURCE_KEY not in text
    assert DEST_KEY not in text


def test_a_command_runs_after_a_start_that_fails_before_its_run(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        code = started_with(pair, tmp_path, BT_SOURCE_API_KEY="sk-wrong")
    assert code == 2
    assert metrics(tmp_path / "metrics.prom")["bt_migrate_exit_code"] == 2
    assert environment_in(tmp_path)["BT_MIGRATE_STATUS"] == "failed"


@pytest.mark.parametrize(
    "command", ["exit 7", pytest.param("/no/such/command", marks=pytest.mark.long)]
)
def test_a_command_that_fails_is_a_warning_and_changes_no_exit_code(
    command: str, tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        plain = run(pair.sandbox, tmp_path / "state").code
        done = run(pair.sandbox, tmp_path / "state", "--on-end", command)
    assert (done.code, "--on-end: the command ended with exit code" in done.err) == (plain, True)


def test_a_file_that_a_user_names_is_followed_and_a_device_stays(tmp_path: Path) -> None:
    """As root, a rename over /dev/null or /dev/stdout would take it from the whole machine."""
    device, link = tmp_path / "device", tmp_path / "link"
    device.symlink_to(os.devnull)
    link.symlink_to(tmp_path / "metrics.prom")
    with tiny_pair() as pair:
        for metrics_file in (device, link):
            options = ("--dry-run", "--plan-out", str(device), "--metrics-file", str(metrics_file))
            assert run(pair.sandbox, tmp_path / "state", *options).code == 0
    assert (os.readlink(device), os.readlink(link)) == (os.devnull, f"{tmp_path}/metrics.prom")
    assert metrics(tmp_path / "metrics.prom")["bt_migrate_exit_code"] == 0
