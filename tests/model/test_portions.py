"""Lists in portions of a size."""

from __future__ import annotations

from typing import List

import pytest

from bt_migrate.model.portions import portions


@pytest.mark.parametrize(
    ("items", "expected"), [("", []), ("ab", ["ab"]), ("abc", ["abc"]), ("abcd", ["abc", "d"])]
)
def test_only_the_last_portion_may_be_smaller(items: str, expected: List[str]) -> None:
    assert portions(items, 3) == [list(portion) for portion in expected]
