"""--help: what a program does, its common options, examples and exit codes on one screen. Pure."""

from __future__ import annotations

import re
import textwrap
from typing import Dict, List, NamedTuple, Sequence, Tuple

from bt_migrate.config.settings import (
    CONFLICTS,
    LOGGING,
    PEOPLE,
    REQUESTS,
    ROWS,
    RUN,
    SELECTION,
    SYNC,
    VERIFICATION,
)

# Section of the manual -> group of the screen.
OPTION_GROUPS = {
    SELECTION: "what to move",
    SYNC: "what to move",
    CONFLICTS: "what to move",
    PEOPLE: "what to move",
    RUN: "how",
    REQUESTS: "how",
    ROWS: "how",
    VERIFICATION: "how",
    LOGGING: "output",
}
SHOWN_EXAMPLES = 2


class BriefOption(NamedTuple):
    """An option of the screen: `--projects NAMES`, its section, its help text."""

    words: str
    section: str
    about: str


class BriefHelp(NamedTuple):
    """What the screen is made of. `rest` names what it leaves out."""

    usage: str
    about: str
    options: Sequence[BriefOption]
    examples: Sequence[str]
    exit_codes: str
    rest: str


def brief_text(screen: BriefHelp, columns: int) -> str:
    """Returns the screen in the width of the terminal: one line for each option."""
    paragraph = " ".join(screen.about.strip().partition("\n\n")[0].split())
    first, *others = screen.examples[:SHOWN_EXAMPLES]
    lines = [screen.usage, *textwrap.wrap(paragraph, columns), *_option_lines(screen, columns)]
    lines += [f"examples: {first}", *(f"          {example}" for example in others)]
    return "\n".join([*lines, *textwrap.wrap(f"{screen.exit_codes}; {screen.rest}", columns), ""])


def _option_lines(screen: BriefHelp, columns: int) -> List[str]:
    groups: Dict[str, List[Tuple[str, str]]] = {name: [] for name in OPTION_GROUPS.values()}
    for option in screen.options:
        groups[OPTION_GROUPS[option.section]].append((option.words, first_clause(option.about)))
    width = max(len(option.words) for option in screen.options)
    lines = []
    for title, options in groups.items():
        lines += [f"{title}:"] if options else []
        for words, about in options:
            text = f"  {words:{width}}  {about}"
            lines.append(text if len(text) <= columns else f"{text[: columns - 1]}…")
    return lines


def first_clause(about: str) -> str:
    """`rename projects in the destination`, of a help text that goes on with details"""
    return re.split(r"; |: | \(", about)[0].rstrip(":")
