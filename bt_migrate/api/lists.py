"""Whether a short page may be a server's cap. Pure."""

from __future__ import annotations


def looks_capped(count: int) -> bool:
    """Whether a short page may be a server's cap on pages and not the end: caps are round."""
    return count % 5 == 0 < count or (count >= 16 and count & (count - 1) == 0)
