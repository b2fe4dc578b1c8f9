"""The answer to a POST is lost after the server carried it out."""

from __future__ import annotations

from pathlib import Path
from typing import Tuple

import pytest

from bt_migrate.sandbox.http.faults import Fault
from tests.support.compare_orgs import differences
from tests.support.orgs import Ended, Pair, run, tiny_pair
from tests.support.undoing import undo

# kind -> how many objects of it the tiny organization has that can move
MOVABLE = {"prompt": 1, "function": 4}


def moved(pair: Pair, root: Path, kind: str, times: int) -> Tuple[Ended, int]:
    """How a run ended that lost so many answers, and how many POSTs were carried out."""
    pair.sandbox.faults.add(Fault("reset_after", method="POST", path=f"/v1/{kind}$", times=times))
    end = run(pair.sandbox, root)
    posts = [
        request
        for request in pair.sandbox.writes("globex")
        if (request.method, request.path) == ("POST", f"/v1/{kind}")
    ]
    return end, len(posts)


@pytest.mark.recorded
@pytest.mark.parametrize("kind", MOVABLE)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.variants(1)
def test_a_post_without_an_answer_is_not_repeated(kind: str, times: int, tmp_path: Path) -> None:
    """A second one would write another version."""
    root = tmp_path / "runs"
    with tiny_pair() as pair:
        end, posts = moved(pair, root, kind, times)
        assert (end.code, posts, differences(pair)) == (0, MOVABLE[kind], []), end.last_words
        # It is known as created by the run.
        assert undo(pair, root, "--yes").code == 0
        assert pair.dest.objects(kind) == []
