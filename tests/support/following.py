"""Runs the command that a program recommends, as it is printed."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import List

from tests.support.orgs import Ended, Pair, ended, environment, start
from tests.support.processes import REPOSITORY


def next_line(end: Ended) -> str:
    """The command of the last line."""
    last = end.out.splitlines()[-1]
    assert last.startswith("Next: "), end.out
    return last[len("Next: ") :]


def follow(pair: Pair, end: Ended, folder: Path) -> Ended:
    """Run the command in the folder. A person agrees to what is accepted."""
    words = shlex.split(next_line(end), comments=True)
    settings = dict(word.split("=", 1) for word in words if word.startswith("MIGRATION_"))
    program, *arguments = words[len(settings) :]
    name = program.split("/")[-1].replace("-", "_")
    agreed = ["--yes"] if name == "accept" else []
    env = {**environment(pair.sandbox), **settings}
    return ended(start(f"bt_migrate.phases.{name}", [*arguments, *agreed], env, folder))


def follow_to_the_end(pair: Pair, end: Ended, folder: Path, most: int = 4) -> List[str]:
    """Run what is recommended until a start of migrate-all or verify ends with 0. Returns the
    commands.
    """
    lines: List[str] = []
    while end.code != 0 or (lines and lines[-1].startswith("bin/accept")):
        assert len(lines) < most, [*lines, end.out]
        lines.append(next_line(end))
        end = follow(pair, end, folder)
    return lines


def run_in_a_shell(pair: Pair, line: str, folder: Path, **settings: str) -> Ended:
    """Run a command as a person does who pastes it, in a folder with the programs."""
    programs = folder / "bin"
    if not programs.exists():
        programs.symlink_to(REPOSITORY / "bin")
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=folder,
        env=environment(pair.sandbox, **settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
