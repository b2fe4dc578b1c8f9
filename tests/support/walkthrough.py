"""What the README shows of the programs: the output of its five steps, run against a small
sandbox, and which script moves which kinds.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List

from bt_migrate.model.resource_table import OBJECT_RESOURCES
from tests.support.orgs import REPOSITORY, TIME_LIMIT_S, environment, tiny_pair

# Command of the README -> how many lines of its output the README shows.
STEPS = {
    "bin/validate": 8,
    "bin/migrate-all --dry-run": 10,
    "bin/migrate-all": 14,
    "bin/verify --full": 4,
}
README = REPOSITORY / "README.md"
# What the row of a script says after the names of kinds.
MORE = {
    "migrate-views": " of the organization, of projects, datasets and experiments",
    "migrate-settings": ", online scores: what reacts to data, after all data is there; what acts"
    " outside or deletes only with `--activate`",
}
WITH = {"datasets": " and their rows", "experiments": " and their rows"}
KINDS_CELL = re.compile(r"(?m)^\| `bin/(migrate-\S+)` \| (`(?!logs`).*) \|$")
BLOCK = r"   ```console\n   \$ {command}\n(?:   (?!```).*\n)*   ```\n"


def outputs(folder: Path) -> Dict[str, List[str]]:
    """Returns the first lines that each command prints on standard output."""
    found = {}
    with tiny_pair() as pair:
        env = {**environment(pair.sandbox, MIGRATION_ACTIVATE=""), "PATH": "/usr/bin:/bin"}
        for command, most in STEPS.items():
            words = command.split()
            done = subprocess.run(
                [sys.executable, str(REPOSITORY / words[0]), *words[1:]],
                cwd=folder, env=env, capture_output=True, text=True, timeout=TIME_LIMIT_S,
            )  # fmt: skip
            lines = done.stdout.replace(str(folder) + "/", "").splitlines()
            found[command] = [*lines[:most], "…"] if len(lines) > most else lines
    return found


def block(command: str, lines: List[str]) -> str:
    """The command with its output, as a code block inside a step of the README."""
    inner = [f"$ {command}", *lines]
    return "\n".join(["   ```console", *(f"   {line}".rstrip() for line in inner), "   ```", ""])


def block_in_readme(command: str) -> str:
    found = re.search(BLOCK.format(command=re.escape(command)), README.read_text(encoding="utf-8"))
    assert found, f"README.md has no block for {command}"
    return found[0]


def without_numbers(text: str) -> str:
    """The text with each number and id as `#`: ids, durations and dates differ from run to run."""
    text = re.sub(r"\[[0-9a-f]{8}\]", "[#]", text)
    return re.sub(r"[\d,.:TZ-]*\d[\d,.:TZ-]*", "#", text)


def kinds_cell(phase: str) -> str:
    """The kinds that a script moves, as the README names them."""
    return ", ".join(_names(phase)) + MORE.get(phase, "")


def _names(phase: str) -> Iterator[str]:
    for resource in OBJECT_RESOURCES:
        hidden = " (without their values)" if resource.hidden_field else ""
        if resource.phase == phase:
            yield f"`{resource.name}`{hidden}{WITH.get(resource.name, '')}"


def with_kinds(text: str) -> str:
    """The text of the README with the kinds of the table."""
    return KINDS_CELL.sub(lambda row: f"| `bin/{row[1]}` | {kinds_cell(row[1])} |", text)


def write(folder: Path) -> None:
    """Write the output of each step, and the kinds, into the README."""
    text = with_kinds(README.read_text(encoding="utf-8"))
    for command, lines in outputs(folder).items():
        text = text.replace(block_in_readme(command), block(command, lines))
    README.write_text(text, encoding="utf-8")
