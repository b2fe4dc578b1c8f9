"""What is run next keeps the options that change what is moved."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import pytest

from bt_migrate.config.options import PROGRAMS, SETTING_OPTIONS, Option
from bt_migrate.config.settings import CONFLICTS, PEOPLE, SELECTION, SYNC
from tests.support.next_commands import EQUAL, MISSING, commands

KEPT = [option for option in SETTING_OPTIONS.values() if option.kept]
# Options of these sections change what is moved. A run records its own window and folder, and the
# command to run next has --since-last, or moves the rest after --no-rows.
MOVING_SECTIONS = (SELECTION, SYNC, CONFLICTS, PEOPLE)
NOT_REPEATED = (
    "created_after", "created_before", "window", "fill_gaps", "tz", "no_rows", "since_last",
)  # fmt: skip


def test_an_option_that_changes_what_is_moved_is_declared_to_be_kept() -> None:
    options = SETTING_OPTIONS.items()
    moving = {name for name, option in options if option.section in MOVING_SECTIONS}
    kept = {name for name, option in options if option.kept}
    assert moving - kept == set(NOT_REPEATED)
    assert kept - moving == {"yes", "preserve_order", "attachments"}


def ends(own: str) -> Iterator[Tuple[str, str, str, Dict[str, Any]]]:
    """(command, arguments, status, more) of starts after which `own` must be repeated."""
    equal, unequal = {"verification": EQUAL}, {"verification": MISSING}
    moved = {"before": f"migrate-all {own}", "command": "migrate-all"}
    yield "migrate-all", own, "completed", {"finished": True, "report": equal}
    yield "migrate-all", own, "completed", {"finished": True}
    yield "migrate-all", own, "interrupted", {}
    yield "migrate-all", own, "incomplete", {"report": unequal}
    yield "migrate-all", own, "incomplete", {"finished": True, "report": unequal}
    yield "migrate-all", f"--dry-run {own}", "completed", {"dry_run": True}
    yield "verify", "", "completed", {**moved, "report": equal}
    yield "verify", "", "incomplete", {**moved, "report": unequal}
    yield "verify", "", "interrupted", moved


@pytest.mark.parametrize("option", KEPT, ids=[option.dest for option in KEPT])
def test_every_kept_option_is_repeated_whichever_program_recommends(
    option: Option, tmp_path: Path
) -> None:
    own = f"{option.flag} 'a b*'" if option.metavar else option.flag
    for number, (command, arguments, status, more) in enumerate(ends(own)):
        (line,) = commands(tmp_path / str(number), command, arguments, status, **more)
        program, *words = shlex.split(line)
        is_sync = option.section != SYNC or "--since-last" in words
        is_taken = option in PROGRAMS[program.replace("bin/", "")]
        found = f"{own} " in f"{line} "
        assert found == (is_taken and is_sync), (line, command, arguments, status)


@pytest.mark.parametrize("program", [name for name in PROGRAMS if name.startswith("migrate-")])
def test_a_phase_is_followed_with_every_option_that_the_next_one_takes(
    program: str, tmp_path: Path
) -> None:
    taken = [option for option in PROGRAMS[program] if option.kept and option.section != SYNC]
    own = " ".join(f"{item.flag} x" if item.metavar else item.flag for item in taken)
    (line,) = commands(tmp_path, program, own, "completed", selection={"part": None})
    following = PROGRAMS[shlex.split(line)[0].replace("bin/", "")]
    wanted = {item.flag for item in taken if item in following}
    assert wanted <= set(shlex.split(line)), line
