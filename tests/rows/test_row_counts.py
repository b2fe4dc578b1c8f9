"""Row counts that many threads need."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, List

import pytest

from bt_migrate.rows import count
from bt_migrate.rows.count import Counted, RowCounts

AT_S = 100.0


# Stands for a catalog of two organizations whose clock stands still.
SIDE = SimpleNamespace(clock=SimpleNamespace(mark_s=lambda: AT_S))
CATALOG: Any = SimpleNamespace(source=SIDE, dest=SIDE)


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Queries:
        def __init__(self) -> None:
            self.asked: List[List[str]] = []
            self.slow = threading.Event()
            self.began = threading.Event()
            self.error: Any = None

        def __call__(self, catalog: Any, api: Any, kind: str, ids: List[str], bounds: Any) -> Any:
            self.asked.append(list(ids))
            if "slow" in ids:
                self.began.set()
                assert self.slow.wait(10)
            if self.error:
                raise self.error
            return {object_id: Counted(len(object_id), AT_S) for object_id in ids}

    counting = Queries()
    monkeypatch.setattr(count, "count_by_object", counting)
    monkeypatch.setattr(count, "bounds_of", lambda *_: None)
    return counting


def test_a_slow_count_delays_only_who_needs_it_and_is_queried_once(queries: Any) -> None:
    counts = RowCounts()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(counts.of, CATALOG, "logs", ["slow"])
        assert queries.began.wait(10)
        assert counts.of(CATALOG, "logs", ["fast"]) == {"fast": Counted(4, AT_S)}
        second = pool.submit(counts.of, CATALOG, "logs", ["slow", "fast"])
        queries.slow.set()
        assert first.result(10) == {"slow": Counted(4, AT_S)}
        assert second.result(10) == {"slow": Counted(4, AT_S), "fast": Counted(4, AT_S)}
    assert queries.asked == [["slow"], ["fast"]]


def test_a_count_that_failed_is_queried_again(queries: Any) -> None:
    counts = RowCounts()
    queries.error = OSError("no network")
    with pytest.raises(OSError, match="no network"):
        counts.of(CATALOG, "logs", ["fast"])
    queries.error = None
    assert counts.of(CATALOG, "logs", ["fast"]) == {"fast": Counted(4, AT_S)}
