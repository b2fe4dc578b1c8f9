"""All that the API can carry moves equal, also where the process is killed and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import List, Tuple

import pytest

from tests.support.claims import untrue_claims
from tests.support.compare_orgs import UUID
from tests.support.compare_versions import all_differences
from tests.support.kills import Kill, at_requests, seeded_kills, starts
from tests.support.orgs import Json, example_pair, report, run, runs

EVERYTHING = ("--history", "all", "--dataset-versions", "--activate", "all")
PROVED = (*EVERYTHING, "--verify", "--full")
# Small pages and batches, so that a kill comes in the middle of each kind of rows.
SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": "40",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "15",
    "MIGRATION_CHECKPOINT_INTERVAL": "2",
    "MIGRATION_MAX_CONCURRENT": "4",
}
REQUESTS = range(10, 800)  # of a run that is not killed, without those of its start
# The row that stands for others in a finding depends on which were read together.
VARYING = ("row",)


def told(found: Json) -> List[str]:
    """What a report says, without the ids of an example organization."""
    said = [
        json.dumps({name: value for name, value in record.items() if name not in VARYING})
        for record in found["findings"]
    ]
    return sorted(UUID.sub("", text) for text in [*said, found["verification"]["text"]])


# An older data plane has no snapshots and assignments: what they name cannot be seen.
pytestmark = pytest.mark.recorded


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Tuple[int, List[str]]:
    """(exit code, what the report says) of a run that is not killed."""
    root = tmp_path_factory.mktemp("clean") / "runs"
    with example_pair() as pair:
        whole = run(pair.sandbox, root, *PROVED, **SMALL)
        assert all_differences(pair, report(root)["findings"]) == [], whole.last_words
        assert len(pair.sandbox.requests) >= REQUESTS.stop
        pair.sandbox.clear_requests()
        again = run(pair.sandbox, root.parent / "again", *EVERYTHING)
        assert (again.code, pair.sandbox.writes("globex")) == (whole.code, []), again.last_words
        return whole.code, told(report(root))


@pytest.mark.parametrize("kills", seeded_kills(20261130, 40, REQUESTS, short=0))
def test_everything_arrives_once_and_equal_wherever_the_process_is_killed(
    kills: List[Kill], undisturbed: Tuple[int, List[str]], tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    with example_pair() as pair:
        for last in starts(pair, root, at_requests(kills), *PROVED, **SMALL):
            untrue = [claim for place in runs(root) for claim in untrue_claims(pair, place)]
            assert untrue == [], last.last_words
        found = report(root)
        assert all_differences(pair, found["findings"]) == [], last.last_words
        assert ((last.code, told(found)), len(runs(root))) == (undisturbed, 1), last.last_words
        assert pair.sandbox.writes("acme") == []
        pair.sandbox.clear_requests()
        again = run(pair.sandbox, tmp_path / "again", *EVERYTHING)
        assert (again.code, pair.sandbox.writes("globex")) == (undisturbed[0], []), again.last_words
