"""The recommended command undoes a setting of .env itself, so that a script can run it."""

from __future__ import annotations

from pathlib import Path

from tests.support.compare_orgs import differences
from tests.support.following import follow, next_line, run_in_a_shell
from tests.support.orgs import Pair, report, run

VARIABLE = "MIGRATION_EXCLUDE_PROJECTS"


def test_what_env_leaves_out_is_moved_by_the_command_as_it_is_printed(
    pair: Pair, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(f"{VARIABLE}=Alpha/α\n")
    first = run(pair.sandbox, tmp_path / "runs")
    assert first.code == 1, first.out
    assert next_line(first).startswith(f"{VARIABLE}= bin/migrate-all "), first.out
    (command,) = report(tmp_path / "runs")["next_commands"]
    assert command.startswith(next_line(first))
    second = run_in_a_shell(pair, next_line(first), tmp_path)
    assert (second.code, differences(pair)) == (0, []), second.out
    # The variable of .env would select less than the run has.
    third = follow(pair, second, tmp_path)
    assert third.code == 0, third.out + third.err
