"""Killed at random moments with all kinds of rows in progress, and run again until complete."""

from __future__ import annotations

import random
import re
import signal
import threading
from pathlib import Path
from typing import Any, List, Tuple

import pytest

from tests.migration.test_kill import kill_and_resume
from tests.support.full_rows import SETTINGS, counts_are_right, full_differences, full_pair
from tests.support.orgs import AtRequest, report, run, run_with, runs

POINTS = 50
SHORT = (8, 14)  # of the points: those that run without --long

# (fraction, moment): a fraction of the requests, or for the moment "time" of the seconds, of a run
# that is not killed. The other moments are "before" and "after" the request.
Kill = Tuple[float, str]


def points() -> List[Any]:
    """Points to kill at; some runs are killed again, once or twice, soon after the restart."""
    rng = random.Random(33)
    found = []
    for number in range(POINTS):
        moment = ("before", "after", "before", "after", "time")[number % 5]
        kills = [(0.08 + 0.9 * rng.random(), moment)]
        kills += [
            (0.3 * rng.random(), rng.choice(("before", "after")))
            for _ in range((0, 0, 1, 0, 0, 2)[number % 6])
        ]
        name = f"{number:02}-" + "-".join(f"{far:.2f}{word}" for far, word in kills)
        found.append(
            pytest.param(kills, id=name, marks=[] if number in SHORT else [pytest.mark.long])
        )
    return found


class AtTime:
    """Set as `sandbox.on_request`: kills the process so many seconds after its first request."""

    def __init__(self, seconds: float) -> None:
        self.process: Any = None
        self._timer = threading.Timer(seconds, lambda: self.process.kill())
        self._begun = threading.Lock()

    def __call__(self, number: int, moment: str, method: str, path: str) -> None:
        if self._begun.acquire(blocking=False):
            self._timer.start()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Tuple[int, float]:
    """(requests, seconds between the first and the last) of a run that is not killed."""
    with full_pair() as pair:
        whole = run(pair.sandbox, tmp_path_factory.mktemp("clean") / "runs", **SETTINGS)
        assert (whole.code, full_differences(pair)) == (0, []), whole.last_words
        requests = pair.sandbox.requests
        asked = {
            re.sub("[0-9a-f-]{36}", "ID", f"{entry.method} {entry.path.split('?')[0]}")
            for entry in requests
        }
        assert asked >= {
            "POST /logs3", "POST /logs3/overflow", "PUT /bucket/ID",
            "GET /bucket/ID", "GET /attachment", "POST /attachment/status",
        }  # fmt: skip
        assert any(
            merge for _, _, merge in pair.sandbox.inserted
        )  # rows that waited for later objects
        assert min(pair.sandbox.in_flight_max(org) for org in ("acme", "globex")) > 1
        return len(requests), requests[-1].started - requests[0].started


@pytest.mark.parametrize("kills", points())
@pytest.mark.variants(1)
def test_a_kill_at_any_moment_neither_loses_nor_duplicates(
    kills: List[Kill], undisturbed: Tuple[int, float], tmp_path: Path
) -> None:
    requests, seconds = undisturbed
    acts: List[Any] = [
        AtTime(far * seconds)
        if moment == "time"
        else AtRequest(1 + round(far * (requests - 1)), moment, signal.SIGKILL)
        for far, moment in kills
    ]
    with full_pair() as pair:
        whole = kill_and_resume(pair, tmp_path / "runs", acts, **SETTINGS)
        assert kills[0][1] == "time" or acts[0].done.is_set()
        assert (whole.code, full_differences(pair)) == (0, []), whole.last_words
        assert counts_are_right(pair, report(tmp_path / "runs"))
        assert len(runs(tmp_path / "runs")) == 1


@pytest.mark.long
@pytest.mark.parametrize("number", range(20))
def test_a_new_run_after_a_kill_completes_the_move_too(
    number: int, undisturbed: Tuple[int, float], tmp_path: Path
) -> None:
    rng = random.Random(number)
    at = AtRequest(
        1 + round((0.1 + 0.85 * rng.random()) * undisturbed[0]),
        rng.choice(("before", "after")),
        signal.SIGKILL,
    )
    with full_pair() as pair:
        assert run_with(pair, tmp_path / "runs", at, **SETTINGS).code == -signal.SIGKILL
        whole = run(pair.sandbox, tmp_path / "runs", "--new-run", **SETTINGS)
        assert (whole.code, full_differences(pair)) == (0, []), whole.last_words
