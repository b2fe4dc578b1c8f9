"""A property of the whole tool: whatever goes wrong, the exit code is the truth in the end.

A random organization is moved by a random program. Random requests fail and processes are killed;
the destination of some organizations refuses one object or row for ever. After each start the
recommended command is run next, until three starts in a row write nothing. Then the exit code is 0
if and only if an independent comparison finds everything that can arrive, and 1 names what did not.
"""

from __future__ import annotations

import json
import random
import re
import shlex
from pathlib import Path
from signal import SIGKILL
from typing import Any, Callable, List, Optional, Set, Tuple, Union

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.http.faults import Fault as Cut
from tests.support.compare_orgs import Translation, differences, not_there
from tests.support.orgs import (
    ANA,
    BEN,
    DEST_KEY,
    ROWS_OF,
    SOURCE_KEY,
    AtRequest,
    Ended,
    Pair,
    WatchedSandbox,
    ended,
    is_insert,
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
    r"POST (/logs3|/v1/.*insert)$",
    r"(PATCH|PUT) /v1/.*",
    r"(GET|POST) /attachment",
    r"[A-Z]+ /",
)
CUT_ROUTES = (r"/btql", r"/logs3|/insert", r"/attachment", r"/bucket/", r"/v1/")
CUTS = ("reset_before", "reset_after", "truncate", "garbage", "drop")
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
UPLOADS = ("/attachment", "/bucket/")
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


def cut(rng: random.Random) -> Cut:
    """Connections that break, or answers of something that is not the API."""
    path, times = rng.choice(CUT_ROUTES), rng.choice([1, 2, 6])
    return Cut(rng.choice(CUTS), path=path, times=times, after=rng.randrange(6), seconds=0.2)


Refuse = Callable[[str, str, bytes], Optional[Answer]]


def stubborn(rng: random.Random) -> Optional[Refuse]:
    """Refuses for ever what names one object, or the rows of one id; or nothing."""
    name = rng.choice([None, None, "d0", "x0", "P0", "F0", "t0", "on project", "r0", "r2"])
    if name is None:
        return None
    # A refused right (403) concerns all rows of an object, not one.
    is_row = name in ("r0", "r2")
    status = 400 if is_row else rng.choice([400, 403])
    answer = Answer(status, b'{"error": "no"}')
    member = re.compile(rb'"(name|id)": ?"%s"' % name.encode())

    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        writes = method == "POST" and (is_insert(path) or path.startswith("/v1/"))
        return answer if writes and member.search(raw) else None

    return refuse


Fault = Union[Trouble, Killed, Cut, None]


def both(first: Refuse, second: Optional[Refuse]) -> Refuse:
    """Refuses what either refuses."""
    return lambda *request: first(*request) or (second(*request) if second else None)


# (program, its arguments)
Command = Tuple[str, List[str]]


def start(
    pair: Pair, root: Path, command: Command, fault: Fault = None, refuse: Optional[Refuse] = None
) -> Ended:
    """How the command ended. A killed one has a negative code."""
    program, arguments = command
    if "--state-dir" in arguments:
        at = arguments.index("--state-dir")
        root = Path(arguments[at + 1])
        arguments = [*arguments[:at], *arguments[at + 2 :]]
    with started(pair.sandbox, root, *arguments, program=program, **SETTINGS) as process:
        pair.sandbox.refuse = refuse
        if isinstance(fault, Killed):
            fault.process = process
            pair.sandbox.on_request = fault
        elif isinstance(fault, Trouble):
            pair.sandbox.refuse = both(fault, refuse)
        elif fault:
            pair.sandbox.faults.add(fault)
        end = ended(process)
    pair.sandbox.refuse = None
    pair.sandbox.on_request = None
    pair.sandbox.faults.clear()
    allowed = (0, 1, 2, 3, -SIGKILL) if isinstance(fault, Killed) else (0, 1, 2, 3)
    assert end.code in allowed, (program, arguments, end.last_words)
    assert "Traceback" not in end.err + end.out
    return end


def recommended(end: Ended, before: Command) -> Command:
    """The command that the program recommends; the same one where it was killed or refused, and
    where it recommends to accept what the destination refused twice.
    """
    last = (end.out.splitlines() or [""])[-1]
    if not last.startswith("Next: bin/"):
        assert end.code not in (0, 1), end.out + end.err
        return before
    program, *arguments = shlex.split(last[len("Next: bin/") :], comments=True)
    if program == "accept":
        return before
    return program.replace("-", "_"), arguments


def settle(
    pair: Pair, root: Path, rng: random.Random, refuse: Optional[Refuse]
) -> Tuple[Ended, List[str]]:
    """Random starts with faults, then what is recommended; how the last start ended, and all."""
    story: List[str] = []
    command: Command = (rng.choice((*PHASES, "migrate_all", "migrate_all")), ["--verify"])
    quiet = 0
    makers = [Trouble, Trouble, Killed, cut]
    faults: List[Fault] = [rng.choice(makers)(rng) for _ in range(rng.randrange(4))]
    for number in range(MOST_STARTS):
        fault = faults[number] if number < len(faults) else None
        pair.sandbox.clear_requests()
        end = start(pair, root, _verifying(command), fault, refuse)
        # An attachment is uploaded before its row, which may be refused.
        wrote = [request.path for request in pair.sandbox.writes("globex")]
        writes = len([path for path in wrote if not path.startswith(UPLOADS)])
        words = " ".join((command[0], *command[1])).replace(str(root), "RUNS")
        story.append(f"{words} -> {end.code}, {writes} writes ({fault})")
        is_whole = command[0] in ("migrate_all", "verify")
        # A phase that ends with 0 leaves the rest to the next one; that is not missing.
        is_settled = is_whole or end.code
        quiet = quiet + 1 if is_settled and not (writes or fault) else 0
        if quiet == QUIET_STARTS and is_whole:
            return end, story
        command = recommended(end, command)
        if fault and rng.random() < 0.3:
            command = (rng.choice(PHASES), [])
        elif quiet == QUIET_STARTS:
            # What is refused for ever keeps a phase from ending; people leave it then.
            command, quiet = ("migrate_all", []), 0
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
        refuse = stubborn(rng)
        end, story = settle(pair, root, rng, refuse)
        missing = differences(pair)
        assert (end.code == 0) == (missing == []), told(story, missing, end)
        compared = start(pair, root, ("verify", ["--full"]))
        assert (compared.code == 0) == (missing == []), told(story, missing, compared)
        assert missing == [] or refuse, told(story, missing, compared)
        if end.code:
            assert (end.code, compared.code) == (1, 1), told(story, missing, end)
            assert_named(pair, root)


def assert_named(pair: Pair, root: Path) -> None:
    """The report names each object and row that did not arrive, and nothing that did."""
    translation = Translation(pair)
    missing = not_there(translation)
    compared = report(root)["verification"]["differences"]
    named = {(entry["id"], entry.get("row", "")) for entry in compared}
    assert missing <= named, (missing - named, compared)
    # What belongs to a missing object, refers to it or counts it is not there either.
    lost = {object_id for object_id, row in missing}
    others = {object_id for object_id, _ in named - missing} - lost
    kept = [object_id for object_id in others if not lost & names_in(pair.source, object_id)]
    assert kept == [], (kept, missing, compared)


def names_in(org: Any, object_id: str) -> Set[str]:
    """All texts in an object and in its rows."""
    kinds = [kind for kind in KINDS if any(obj["id"] == object_id for obj in org.objects(kind))]
    holds = [obj for kind in kinds for obj in org.objects(kind) if obj["id"] == object_id]
    rows = [org.rows(kind, object_id) for kind, holder in ROWS_OF.items() if holder in kinds]
    return set(re.findall(r'"([^"]*)"', json.dumps([holds, rows])))
