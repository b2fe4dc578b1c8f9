"""A property of the whole tool: whatever goes wrong, the exit code is the truth in the end.

A random organization is moved by a random program. Random requests fail and processes are killed;
after each start the recommended command is run next, until three starts in a row write nothing.
Then the exit code is 0 if and only if an independent comparison finds everything that can arrive.
"""

from __future__ import annotations

import random
import re
import shlex
from pathlib import Path
from signal import SIGKILL
from typing import Any, List, Optional, Tuple, Union

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.compare_orgs import differences
from tests.support.orgs import (
    ANA,
    BEN,
    DEST_KEY,
    SOURCE_KEY,
    AtRequest,
    Ended,
    Pair,
    WatchedSandbox,
    ended,
    report,
    started,
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
MOST_STARTS = 20
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


class Killed(AtRequest):
    """Kills the process before or after one of its first requests."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng.choice([3, 10, 25, 60]), rng.choice(["before", "after"]), SIGKILL)

    def __str__(self) -> str:
        return f"killed {self.moment} request {self.at}"


Fault = Union[Trouble, Killed, None]
# (program, its arguments)
Command = Tuple[str, List[str]]


def start(pair: Pair, root: Path, command: Command, fault: Fault = None) -> Ended:
    """How the command ended. A killed one has a negative code."""
    program, arguments = command
    if "--state-dir" in arguments:
        at = arguments.index("--state-dir")
        root = Path(arguments[at + 1])
        arguments = [*arguments[:at], *arguments[at + 2 :]]
    with started(pair.sandbox, root, *arguments, program=program, **SETTINGS) as process:
        if isinstance(fault, Killed):
            fault.process = process
            pair.sandbox.on_request = fault
        else:
            pair.sandbox.refuse = fault
        end = ended(process)
    pair.sandbox.refuse = None
    pair.sandbox.on_request = None
    allowed = (0, 1, 2, 3, -SIGKILL) if isinstance(fault, Killed) else (0, 1, 2, 3)
    assert end.code in allowed, (program, arguments, end.last_words)
    assert "Traceback" not in end.err + end.out
    return end


def recommended(end: Ended, before: Command) -> Command:
    """The command that the program recommends; the same one where it could not."""
    last = (end.out.splitlines() or [""])[-1]
    if not last.startswith("Next: bin/"):
        return before
    program, *arguments = shlex.split(last[len("Next: bin/") :], comments=True)
    # Nobody but the tool writes to the destination: there is nothing to accept.
    assert program != "accept", end.out
    return program.replace("-", "_"), arguments


def settle(pair: Pair, root: Path, rng: random.Random) -> Tuple[Ended, List[str]]:
    """Random starts with faults, then what is recommended; how the last start ended, and all."""
    story: List[str] = []
    command: Command = (rng.choice((*PHASES, "migrate_all", "migrate_all")), ["--verify"])
    quiet = 0
    faults: List[Fault] = [
        rng.choice([Trouble, Trouble, Killed])(rng) for _ in range(rng.randrange(4))
    ]
    for number in range(MOST_STARTS):
        fault = faults[number] if number < len(faults) else None
        pair.sandbox.clear_requests()
        end = start(pair, root, _verifying(command), fault)
        writes = len(pair.sandbox.writes("globex"))
        words = " ".join((command[0], *command[1])).replace(str(root), "RUNS")
        story.append(f"{words} -> {end.code}, {writes} writes ({fault})")
        # Each phase is a start of its own; what it leaves for the next one is not missing.
        is_whole = command[0] in ("migrate_all", "verify")
        quiet = quiet + is_whole if not (writes or fault) else 0
        if quiet == QUIET_STARTS:
            return end, story
        command = recommended(end, command)
        if fault and rng.random() < 0.3:
            command = (rng.choice(PHASES), [])
    raise AssertionError("never quiet\n" + told(story, [], end))


def _verifying(command: Command) -> Command:
    """In tests migrate_all compares only if it is asked to."""
    program, arguments = command
    compares = program == "migrate_all" and not {"--verify", "--no-verify"} & set(arguments)
    return program, [*arguments, "--verify"] if compares else arguments


def told(story: List[str], missing: List[str], end: Ended) -> str:
    return "\n".join([*story, *missing[:5], end.out])


SEEDS = [seed if seed < 2 else pytest.param(seed, marks=pytest.mark.long) for seed in range(200)]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_final_exit_code_matches_what_arrived(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    with WatchedSandbox() as sandbox:
        users = [{"email": ANA}, {"email": BEN}]
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=users)
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=[{"email": ANA}])
        fill_random(source, rng)
        pair = Pair(sandbox, source, dest)
        root = tmp_path / "runs"
        end, story = settle(pair, root, rng)
        missing = differences(pair)
        assert (end.code == 0) == (missing == []), told(story, missing, end)
        compared = start(pair, root, ("verify", ["--full"]))
        assert (compared.code == 0) == (missing == []), told(story, missing, compared)
        if end.code:
            named = str(named_by(root))
            assert end.code == 1 and named != "[]", told(story, missing, end)


def named_by(root: Path) -> List[Any]:
    """What a report names as not arrived."""
    found = report(root)
    failures = [entry for entry in found["findings"] if entry["severity"] == "failure"]
    compared = (found["verification"] or {}).get("differences", [])
    return [*found["problems"], *failures, *compared]
