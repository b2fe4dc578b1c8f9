"""Text for a terminal: escaped names, numbers, tables and lines of 80 columns. Pure."""

from __future__ import annotations

import re
import shlex
import unicodedata
from typing import Any, Iterable, List, Mapping, Optional, Sequence

COLUMNS = 80
NAME_COLUMNS = 40
# width of an id on the screen; run.log and the files of a run have the whole id
ID_COLUMNS = 8
UUID_IN_TEXT = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
# how many names a list shows, and their width
LISTED = 3
LISTED_COLUMNS = 28
LONG_NAME_COLUMNS = 60
# (seconds of the unit, its word), the largest first
TIME_UNITS = ((86_400, "days"), (3_600, "h"))
LEAST_RATE = 0.5  # rows a second; a lower rate would be shown as 0
# From here on a time is shown in minutes; before, that would be too coarse.
LEAST_MINUTES_S = 120


def escaped(text: str) -> str:
    """Returns the text with every character escaped that could change what a terminal shows.

    These are control characters, line breaks, marks of direction and lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def shell_word(word: str) -> str:
    """Returns an argument as it can be shown, and typed in a shell."""
    if word.isprintable():
        return shlex.quote(word)
    chars = (char if char.isprintable() and char not in "'\\" else _octets(char) for char in word)
    return f"$'{''.join(chars)}'"


def _octets(char: str) -> str:
    # A byte that is no text in the locale is read as one of these surrogates.
    is_byte = "\udc80" <= char <= "\udcff"
    octets = char.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    return "".join(f"\\x{octet:02x}" for octet in octets)


def shown(name: Any, columns: int = NAME_COLUMNS) -> str:
    """Returns a name escaped and cut to a width, the ids in it first."""
    text = escaped(str(name))
    if columns_of(text) > columns:
        text = UUID_IN_TEXT.sub(lambda match: match[0][:ID_COLUMNS], text)
    if columns_of(text) <= columns:
        return text
    cut = text[: columns - 1]
    while columns_of(cut) > columns - 1:
        cut = cut[:-1]
    return f"{cut.rstrip('…')}…"


def quoted(name: Any, columns: int = NAME_COLUMNS) -> str:
    """Returns a name as in `shown`, in quotes."""
    return f"'{shown(name, columns)}'"


def columns_of(text: str) -> int:
    """Returns how many columns of a terminal a text takes: wide characters two, marks none."""
    return len(text) if text.isascii() else sum(map(_columns_of_char, text))


def _columns_of_char(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """Returns the text padded to a width. `right`: aligned to the right."""
    fill = " " * max(0, columns - columns_of(text))
    return fill + text if right else text + fill


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, indent: str = "  ") -> List[str]:
    """Returns the lines of a table. Only the first column is left-aligned."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(columns_of(line[place]) for line in lines) for place in range(len(head))]
    return [
        indent
        + "  ".join(
            padded(cell, width, right=place > 0)
            for place, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    ]


def wrapped(
    text: str, *, first: str = "  ", more: str = "    ", columns: int = COLUMNS
) -> List[str]:
    """Returns the text in lines of at most 80 columns; longer words are not broken."""
    lines: List[str] = []
    line, is_empty = first, True
    for word in text.split(" "):
        if not is_empty and columns_of(line) + 1 + columns_of(word) > columns:
            lines.append(line.rstrip())
            line, is_empty = more, True
        line += word if is_empty else f" {word}"
        is_empty = is_empty and not word
    return [*lines, line.rstrip()] if text.strip() else []


def section(title: str, texts: Iterable[str]) -> List[str]:
    """Returns the title and the texts in lines; nothing without texts."""
    lines = [line for text in texts for line in wrapped(text)]
    return [title, *lines] if lines else []


def plural(count: Optional[int], noun: str) -> str:
    """`1 row`, `2 rows`, `3 properties`; `? rows` if the number is not known"""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        noun = noun[:-1] + "ie"
    return f"{number(count)} {noun}s"


def number(count: Optional[int]) -> str:
    return "?" if count is None else f"{count:,}"


def counts_text(outcomes: Mapping[str, int]) -> str:
    """`12 created, 3 skipped`"""
    return ", ".join(f"{count:,} {name}" for name, count in outcomes.items()) or "none"


def listing(names: Iterable[str], limit: int = LISTED, *, columns: int = LISTED_COLUMNS) -> str:
    """`a, b, c and 7 more`"""
    all_names = list(names)
    text = ", ".join(shown(name, columns) for name in all_names[:limit])
    return and_more(text, len(all_names) - limit)


def and_more(text: str, others: int) -> str:
    """`a, b and 7 more`; only the text if there are no others."""
    return f"{text} and {others:,} more" if others > 0 else text


def duration_text(seconds: float) -> str:
    """`< 0.1 s`, `0.4 s`, `95 s`, `12 min`, `3.5 h`, `2.0 days`"""
    for size, word in TIME_UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {word}"
    if seconds >= LEAST_MINUTES_S:
        return f"{seconds / 60:.0f} min"
    if 0 < seconds < 0.05:
        return "< 0.1 s"
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"


def size_text(size: float) -> str:
    """`812 bytes`, `4.7 MB`"""
    for limit, word in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.1f} {word}"
    return f"{size:,.0f} bytes"
