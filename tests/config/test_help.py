"""--help: one screen of common options in the width of the terminal; --help-all: all options."""

from __future__ import annotations

from typing import Tuple

import pytest

from bt_migrate.config.options import ONE_SCREEN, PROGRAMS, make_parser
from bt_migrate.sandbox.main import parser as sandbox_parser

# A terminal of 80x24, without the line of the prompt.
MOST_LINES = 23
DESCRIPTION = "Do a thing.\n\n" + "It says what it does in sentences that are long. " * 5


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
            make_parser(program, DESCRIPTION).parse_args([argument])
        text = capsys.readouterr().out
        count, total = flags_in(text, program)
        assert max(map(len, text.splitlines())) <= 80
        if argument == "--help":
            assert len(text.splitlines()) <= MOST_LINES and "…" not in text, text
            assert (count < total) == (total > ONE_SCREEN)
            assert "examples: bin/" in text and "exit codes: 0 done" in text
        else:
            assert count == total


def test_the_help_of_the_sandbox_fits_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = sandbox_parser().format_help().splitlines()
    assert (max(map(len, lines)) <= 80, len(lines) <= 34) == (True, True), lines
    assert any(line.startswith("examples: bin/sandbox") for line in lines)
