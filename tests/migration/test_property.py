"""A property of the whole tool: whatever goes wrong, the exit code is the truth in the end.

A random organization is moved by random programs in a random order while random requests fail, and
then by the same command, until three starts in a row write nothing. Then the exit code is 0
if and only if an independent comparison finds everything that can arrive.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any, List, Optional, Tuple

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.compare_orgs import differences
from tests.support.orgs import (
    ANA,
    BEN,
    DEST_KEY,
    SOURCE_KEY,
    Ended,
    Pair,
    WatchedSandbox,
    report,
    run,
)
from tests.support.random_org import fill_random

PHASES = (
    "migrate_organization",
    "migrate_datasets",
    "migrate_definitions",
    "migrate_experiments",
    "migrate_logs",
    "migrate_views",
    "migrate_settings",
    "migrate_acls",
)
ROUTES = (
    r"GET /v1/[a-z_]+$",
    r"POST /btql$",
    r"POST /v1/[a-z_]+$",
    r"POST /v1/.*insert$",
    r"PATCH /v1/.*",
)
SETTINGS = {
    "MIGRATION_RETRY_DELAY": "0.01",
    "MIGRATION_VERIFY_WAIT": "1",
    "MIGRATION_EVENTS_FETCH_LIMIT": "30",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "15",
}
TEXT = "Missing read access to project id x, or the project does not exist"
ANSWERS = (
    Answer(503, b"upstream", "text/plain"),
    Answer(500, b"oops", "text/plain"),
    Answer(400, TEXT.encode(), "text/plain"),
    Answer(403, b"", "text/plain"),
    Answer(404, b"<html>gone</html>", "text/html"),
    Answer(200, b"{}"),
    Answer(200, b"[]"),
    Answer(200, b"null"),
    Answer(204, b""),
)
MOST_STARTS = 12
QUIET_STARTS = 3


class Trouble:
    """Answers some requests of a route with something else than the server would."""

    def __init__(self, rng: random.Random) -> None:
        self.route = re.compile(rng.choice(ROUTES))
        self.answer = rng.choice(ANSWERS)
        self.first = rng.randrange(6)
        self.times = rng.choice([1, 2, 6])
        self.met = 0

    def __call__(self, method: str, path: str, raw: bytes) -> Optional[Answer]:
        if not self.route.match(f"{method} {path.split('?')[0]}"):
            return None
        self.met += 1
        return self.answer if self.first < self.met <= self.first + self.times else None

    def __str__(self) -> str:
        answer = f"{self.answer.status} {self.answer.body[:20]!r}"
        return f"{self.route.pattern} {self.first}+{self.times}: {answer}"


def start(pair: Pair, root: Path, program: str, arguments: List[str]) -> Tuple[Ended, int]:
    """(how it ended, number of writes)."""
    pair.sandbox.clear_requests()
    if "--state-dir" in arguments:
        at = arguments.index("--state-dir")
        arguments = [*arguments[:at], *arguments[at + 2 :]]
    end = run(pair.sandbox, root, *arguments, program=program, **SETTINGS)
    assert end.code in (0, 1, 2, 3), (program, arguments, end.last_words)
    assert "Traceback" not in end.err + end.out
    return end, len(pair.sandbox.writes("globex"))


def settle(pair: Pair, root: Path, rng: random.Random) -> Tuple[Ended, List[str]]:
    """Random starts with trouble, then quiet ones; how the last start ended, and what happened."""
    story: List[str] = []
    for program in [rng.choice((*PHASES, "migrate_all")) for _ in range(rng.randrange(4))]:
        trouble = Trouble(rng)
        pair.sandbox.refuse = trouble
        end, writes = start(pair, root, program, [])
        story.append(f"{program} -> {end.code}, {writes} writes ({trouble})")
    pair.sandbox.refuse = None
    quiet = 0
    for _ in range(MOST_STARTS):
        end, writes = start(pair, root, "migrate_all", ["--verify", "--full"])
        story.append(f"migrate_all -> {end.code}, {writes} writes")
        quiet = quiet + 1 if not writes else 0
        if quiet == QUIET_STARTS:
            return end, story
    raise AssertionError(["never quiet", *story])


SEEDS = [seed if seed < 3 else pytest.param(seed, marks=pytest.mark.long) for seed in range(200)]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_exit_code_is_the_truth_in_the_end(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    with WatchedSandbox() as sandbox:
        users = [{"email": ANA}, {"email": BEN}]
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=users)
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=[{"email": ANA}])
        fill_random(source, rng)
        pair = Pair(sandbox, source, dest)
        end, story = settle(pair, tmp_path / "runs", rng)
        missing = differences(pair)
        assert (end.code == 0) == (missing == []), (story, missing[:5], end.out)
        if end.code:
            named = str(named_by(tmp_path / "runs"))
            assert end.code == 1 and named != "[]", (story, end.out)


def named_by(root: Path) -> List[Any]:
    """What a report names as not arrived."""
    found = report(root)
    failures = [entry for entry in found["findings"] if entry["severity"] == "failure"]
    compared = (found["verification"] or {}).get("differences", [])
    return [*found["problems"], *failures, *compared]
