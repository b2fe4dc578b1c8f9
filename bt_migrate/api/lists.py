"""Whether a server may have cut a page short. Pure."""

from __future__ import annotations


def looks_capped(count: int) -> bool:
    """Whether a page of `count` objects may have been cut: servers limit pages to round numbers."""
    return count % 5 == 0 < count or (count >= 16 and count & (count - 1) == 0)
