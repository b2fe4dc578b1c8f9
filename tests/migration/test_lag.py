"""When the lag of the destination is measured at the end of a start."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, List

import pytest

from bt_migrate.migration.phase_loop import LAG_AFTER_S, lag_is_due


@pytest.mark.parametrize(
    ("sync", "rows", "kinds", "took_s", "is_due"),
    [
        (0, 0, ["logs"], 1.0, True),
        (2, 5, ["logs"], 1.0, True),
        (2, 0, ["logs"], 1.0, False),
        (2, 0, ["logs"], LAG_AFTER_S, True),
        (2, 0, [], LAG_AFTER_S, False),
        (0, 5, [], 1.0, False),
    ],
)
def test_the_lag_is_measured_after_a_start_that_moves_rows(
    sync: int, rows: int, kinds: List[str], took_s: float, is_due: bool
) -> None:
    """A long comparison alone said "0 rows written", because it looks at no kind of rows."""
    run: Any = SimpleNamespace(record=SimpleNamespace(round=sync), live=SimpleNamespace(total=rows))
    assert lag_is_due(run, kinds, took_s) is is_due
