"""Reads the file of --user-map, which maps e-mail addresses of the source to the destination's.

Upper and lower case do not matter. Errors name line numbers, and no addresses.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, NamedTuple, Tuple

from bt_migrate.config.bounded import read_text_bounded
from bt_migrate.errors import UsageError

# A comma belongs to an address only inside quotes before the @: https://www.rfc-editor.org/rfc/rfc5322
# (3.4.1). Elsewhere it separates two addresses.
ADDRESS = re.compile(r"""("[^"]+"|[^@\s,;<>]+)@[^@\s,;<>]+\Z""")


class MappedUser(NamedTuple):
    """The address in the destination, in lower case, and its line in the file."""

    email: str
    line: int


# Address in the source, in lower case -> the user in the destination.
UserMap = Mapping[str, MappedUser]


def user_map(name: str, text: str) -> UserMap:
    """Returns the map in the file at the path `text`; an empty one for "". Raises UsageError."""
    if not text:
        return {}
    try:
        file = io.StringIO(read_text_bounded(Path(text), encoding="utf-8-sig"), newline="")
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        lines = [(reader.line_num, cells) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no CSV file in UTF-8"
        raise UsageError(f"{name}: {text} cannot be read: {reason}") from None
    return _checked(f"{name}: {text}", _addresses(lines))


def _addresses(lines: Iterable[Tuple[int, List[str]]]) -> List[Tuple[int, List[str]]]:
    """Returns the lines that are not empty, in lower case, without the header."""
    filled = [
        (number, [cell.strip().lower() for cell in cells])
        for number, cells in lines
        if any(cell.strip() for cell in cells)
    ]
    has_header = filled and not any("@" in cell for cell in filled[0][1])
    return filled[1:] if has_header else filled


def _checked(place: str, lines: Iterable[Tuple[int, List[str]]]) -> Dict[str, MappedUser]:
    users: Dict[str, MappedUser] = {}
    line_of: Dict[str, int] = {}
    for number, cells in lines:
        if len(cells) != 2 or not all(map(ADDRESS.match, cells)):
            raise UsageError(
                f"{place}, line {number}: needs two e-mail addresses and a comma between them: the"
                " user's in the source, and in the destination"
            )
        source, dest = cells
        if source in users:
            first = users[source].line
            raise UsageError(f"{place}, line {number}: maps the same user as line {first}")
        if dest in line_of:
            first = line_of[dest]
            raise UsageError(
                f"{place}, line {number}: names the same user of the destination as line {first};"
                " two users cannot become one"
            )
        users[source] = MappedUser(dest, number)
        line_of[dest] = number
    return users
