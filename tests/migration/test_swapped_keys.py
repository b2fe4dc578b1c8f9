"""Keys that were swapped by mistake are refused once a run has begun to write."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.orgs import DEST_KEY, SOURCE_KEY, AtRequest, Pair, run, run_with

SWAPPED = {"BT_SOURCE_API_KEY": DEST_KEY, "BT_DEST_API_KEY": SOURCE_KEY}


def is_write(method: str, path: str) -> bool:
    return method != "GET" and not path.startswith("/btql")


@pytest.mark.parametrize(
    ("write", "is_refused"),
    [(1, False), (2, True)],  # the first one only tries whether the key may write
)
def test_a_run_that_was_killed_at_its_first_write_refuses_swapped_keys(
    write: int, is_refused: bool, pair: Pair, tmp_path: Path
) -> None:
    killed = AtRequest(write, "before", signal.SIGKILL, is_write)
    assert run_with(pair, tmp_path / "runs", killed).code == -signal.SIGKILL
    swapped = run(pair.sandbox, tmp_path / "runs", **SWAPPED)
    refusal = "now it would be the other way; swap the keys"
    assert (swapped.code, refusal in swapped.err) == (2, is_refused), swapped.err
