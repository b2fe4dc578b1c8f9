"""After a kill, a new run completes what the killed one left."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.compare_orgs import differences
from tests.support.orgs import AtRequest, run, run_with, tiny_pair


@pytest.mark.parametrize(
    ("number", "moment", "path"),
    [(1, "before", "/v1/experiment"), (1, "after", "/v1/function"), (3, "after", "/v1/function")],
)
def test_a_new_run_adds_references_that_a_killed_run_left_out(
    number: int, moment: str, path: str, tmp_path: Path
) -> None:
    """Functions use each other, and one names an experiment; the killed run recorded no end."""
    root = tmp_path / "runs"
    with tiny_pair() as pair:
        at = AtRequest(
            number, moment, signal.SIGKILL, lambda verb, to: (verb, to) == ("POST", path)
        )
        assert run_with(pair, root, at).code == -signal.SIGKILL
        end = run(pair.sandbox, root, "--new-run")
        assert (end.code, differences(pair)) == (0, []), end.out
