"""The file of --user-map: what is read, and what is refused by line and without addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from bt_migrate.config.user_map import MappedUser, user_map
from bt_migrate.errors import UsageError

A, B, C, D = "a@x.example", "b@x.example", "c@y.example", "d@y.example"


def written(folder: Path, text: str) -> str:
    path = folder / "users.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("from,to\n", {}),
        (f"{A},{C}\n{B},{D}", {A: MappedUser(C, 1), B: MappedUser(D, 2)}),
        (f"\ufefffrom,to\r\n{A.upper()}, {C.title()}\r\n", {A: MappedUser(C, 2)}),
        (f'"""Doe, J""@x.example",{C}', {'"doe, j"@x.example': MappedUser(C, 1)}),
        (f'\n"{A}",{C}\n , \n{B},{D}\n', {A: MappedUser(C, 2), B: MappedUser(D, 4)}),
    ],
)
def test_a_header_blank_lines_and_upper_case_do_not_matter(
    text: str, expected: object, tmp_path: Path
) -> None:
    assert user_map("--user-map", written(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{A}\n", "line 1: needs two e-mail addresses"),
        (f"{A},\n{B},{C}", "line 1: needs two e-mail addresses"),
        (f"{A},{B},{C}\n", "line 1: needs two e-mail addresses"),
        (f'"{A},{B}",{C}\n', "line 1: needs two e-mail addresses"),
        (f'"doe,j@x.example",{C}\n', "line 1: needs two e-mail addresses"),
        (f"{A},c d@y.example\n", "line 1: needs two e-mail addresses"),
        (f"from,to\n{A};{C}\n", "line 2: needs two e-mail addresses"),
        (f"{A},{C}\n{A.upper()},{D}\n", "line 2: maps the same user as line 1"),
        (f"{A},{C}\n{B},{C.upper()}\n", "line 2: names the same user of the destination as line 1"),
        ('"unclosed', "cannot be read: it is no CSV file in UTF-8"),
    ],
)
def test_a_malformed_line_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        user_map("--user-map", written(tmp_path, text))
    told = str(raised.value)
    assert (said in told, "@" in told) == (True, False), told


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        user_map("MIGRATION_USER_MAP", str(tmp_path / "none.csv"))
