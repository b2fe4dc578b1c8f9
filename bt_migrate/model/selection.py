"""Names and patterns by which a person selects projects and resources. Pure."""

from __future__ import annotations

import difflib
import re
from typing import Collection, Iterable, List, Sequence

MIN_SIMILARITY = 0.6


def is_pattern(text: str) -> bool:
    return "*" in text or "?" in text


def matches(wanted: str, name: str) -> bool:
    """Whether a name is the wanted one, or fits a pattern with * (any text) and ? (a character)."""
    if wanted == name:
        return True
    if not is_pattern(wanted):
        return False
    pattern = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in wanted)
    return re.fullmatch(pattern, name, re.DOTALL) is not None


def chosen(names: Iterable[str], wanted: Sequence[str], excluded: Sequence[str]) -> List[str]:
    """The names that are wanted (all of them if nothing is named) and not excluded, in order."""
    return [
        name
        for name in names
        if (not wanted or any(matches(text, name) for text in wanted))
        and not any(matches(text, name) for text in excluded)
    ]


def unmatched(wanted: Iterable[str], names: Collection[str]) -> List[str]:
    """The wanted names and patterns that no name fits."""
    return [text for text in wanted if not any(matches(text, name) for name in names)]


def did_you_mean(text: str, choices: Iterable[str], similarity: float = MIN_SIMILARITY) -> str:
    """`; did you mean 'datasets'?`, "" if nothing is similar."""
    by_folded = {name.casefold(): name for name in choices}
    close = difflib.get_close_matches(text.casefold(), by_folded, 1, similarity)
    return f"; did you mean {by_folded[close[0]]!r}?" if close else ""


def meant_or_allowed(text: str, choices: Iterable[str], allowed: str) -> str:
    """`; did you mean 'datasets'? Use some of: datasets, prompts`, where `allowed` is the end."""
    hint = did_you_mean(text, choices)
    return f"{hint} {allowed[0].upper()}{allowed[1:]}" if hint else f"; {allowed}"
