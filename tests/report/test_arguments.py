"""Options are taken out of the arguments of a program with their values."""

from __future__ import annotations

from bt_migrate.report.arguments import without


def test_options_are_left_out_with_their_values() -> None:
    given = ["--a", "1", "--dry-run", "--b=2", "--new-run", "--c", "3"]
    assert without(given, ("--a", "--b", "--dry-run")) == ["--new-run", "--c", "3"]
