"""--help: one screen of common options in the width of the terminal; --help-all: all options."""

from __future__ import annotations

from typing import Tuple

import pytest

from bt_migrate.config.options import PROGRAMS, make_parser

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
    has_more = len(PROGRAMS[program]) > 25
    for argument in ("--help", "--help-all") if has_more else ("--help",):
        with pytest.raises(SystemExit):
            make_parser(program, DESCRIPTION).parse_args([argument])
        text = capsys.readouterr().out
        count, total = flags_in(text, program)
        assert max(map(len, text.splitlines())) <= 80
        if argument == "--help":
            assert len(text.splitlines()) <= 90
            assert (count < total) == has_more
        else:
            assert count == total
