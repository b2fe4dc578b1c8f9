"""Cuts a list into portions of a size that one query, statement or table takes."""

from __future__ import annotations

from typing import List, Sequence, TypeVar

Item = TypeVar("Item")


def portions(items: Sequence[Item], size: int) -> List[List[Item]]:
    """Returns the items in their order, `size` of them in each portion but the last."""
    return [list(items[start : start + size]) for start in range(0, len(items), size)]
