"""Many objects at once: the order in which they need each other, the bound on requests, and outcomes in the source's order."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import List

import pytest
from orgs import Pair, run, runs, tiny_pair

LATENCY = {"list": 0.02, "create": 0.02, "btql": 0.02, "insert": 0.02}
CHAINS, LINKS = 12, 6


def fill(pair: Pair) -> List[str]:
    """Chains of experiments, the newest of each the base of none; gives back their ids, oldest first."""
    project = pair.source.create("project", {"name": "chains"})["id"]
    made: List[str] = []
    for number in range(CHAINS * LINKS):
        base = {"base_exp_id": made[-CHAINS]} if number >= CHAINS else {}
        made.append(pair.source.create("experiment", {"project_id": project, "name": f"e{number:03}", **base})["id"])
        pair.source.insert("experiment", made[-1], [{"id": f"row {number}", "input": number}])
    return made


@pytest.mark.parametrize("most", ["1", "5"])
def test_experiments_follow_their_base_and_no_more_requests_are_in_flight_than_allowed(most: str, tmp_path: Path) -> None:
    with tiny_pair() as pair:
        ids = fill(pair)
        pair.sandbox.latency = LATENCY
        settings = {"MIGRATION_MAX_CONCURRENT": most, "MIGRATION_BATCH_SIZE": "10"}
        ended = run(pair.sandbox, tmp_path, "--projects", "chains", "--resources", "experiments", **settings)
        assert ended.code == 0, ended.last_words()
        made = {one["name"]: one for one in pair.dest.objects("experiment")}
        bases = {one["id"]: one["name"] for one in made.values()}
        assert [bases.get(made[f"e{number:03}"].get("base_exp_id")) for number in range(CHAINS * LINKS)] == [
            f"e{number - CHAINS:03}" if number >= CHAINS else None for number in range(CHAINS * LINKS)
        ]
        patched = [one for one in pair.sandbox.requests if one.method == "PATCH"]
        peaks = [most_in_flight(pair, org.name) for org in (pair.source, pair.dest)]
        state = json.loads((runs(tmp_path)[0] / "chains" / "experiments_state.json").read_text())
        assert (patched, list(state["outcomes"]), peaks) == ([], ids, [int(most)] * 2)


def most_in_flight(pair: Pair, org_name: str) -> int:
    changes: List[tuple] = []
    for one in pair.sandbox.requests:
        if one.org_name == org_name:
            changes += [(one.started, 1), (one.finished, -1)]
    return max(itertools.accumulate(change for _, change in sorted(changes)))

