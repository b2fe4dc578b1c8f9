"""The answers of list endpoints: the page in them, and whether it may be the last. Pure."""

from __future__ import annotations

from typing import Any, List

from bt_migrate.errors import NetworkError


def list_page(answer: Any, request: str, url: str) -> List[Any]:
    """Returns the objects of one answer, a bare array or `{"objects": [...]}`."""
    page = answer.get("objects") if isinstance(answer, dict) else answer
    if not isinstance(page, list):
        raise NetworkError(f"{request} gave no list; is {url} a Braintrust API?")
    return page


def looks_capped(count: int) -> bool:
    """Whether a short page may be a server's cap on pages and not the end: caps are round."""
    return count % 5 == 0 < count or (count >= 16 and count & (count - 1) == 0)
