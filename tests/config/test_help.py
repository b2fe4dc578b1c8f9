"""--help: one screen of common options in the width of the terminal; --help-all: all options."""

from __future__ import annotations

import importlib
from typing import Tuple

import pytest

from bt_migrate.config.options import ONE_SCREEN, PROGRAMS, make_parser
from bt_migrate.sandbox.main import parser as sandbox_parser

# A terminal of 80x24, without the line of the prompt.
MOST_LINES = 23


def about_of(program: str) -> str:
    """Returns the description with which the program makes its parser."""
    return str(importlib.import_module(f"bt_migrate.phases.{program.replace('-', '_')}").__doc__)


def flags_in(text: str, program: str) -> Tuple[int, int]:
    """(options of the program that the text shows, options of the program)."""
    flags = [option.flag or option.metavar for option in PROGRAMS[program]]
    return sum(f"{flag} " in f"{text} " or f"{flag}\n" in text for flag in flags), len(flags)


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_help_is_one_screen_and_help_all_shows_every_option(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for argument in ("--help", "--help-all"):
        with pytest.raises(SystemExit):
            make_parser(program, about_of(program)).parse_args([argument])
        text = capsys.readouterr().out
        count, total = flags_in(text, program)
        assert max(map(len, text.splitlines())) <= 80
        if argument == "--help":
            assert len(text.splitlines()) <= MOST_LINES and "…" not in text, text
            assert (count < total) == (total > ONE_SCREEN)
            examples = [line for line in text.splitlines() if "bin/" in line]
            assert len(examples) >= 2 and examples[0].startswith("examples: bin/"), text
            assert "exit codes: 0 done" in text
        else:
            assert count == total


def test_the_help_of_the_sandbox_fits_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = sandbox_parser().format_help().splitlines()
    assert (max(map(len, lines)) <= 80, len(lines) <= MOST_LINES) == (True, True), lines
    assert any(line.startswith("examples: bin/sandbox") for line in lines)


@pytest.mark.parametrize(
    ("program", "usage"),
    [
        ("status", "usage: status [options] [RUN]"),
        ("undo", "usage: undo [options] RUN"),
        ("merge-runs", "usage: merge-runs [options] RUN ..."),
    ],
)
def test_usage_shows_which_arguments_may_be_left_out(
    program: str, usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        make_parser(program, about_of(program)).parse_args(["--help"])
    assert capsys.readouterr().out.splitlines()[0] == usage
