"""A migration that is killed, interrupted or started twice continues with the same command."""

from __future__ import annotations

import json
import random
import signal
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Set, Tuple

import pytest

from tests.support.claims import stored_ids, untrue_claims
from tests.support.compare_orgs import differences
from tests.support.kills import starts
from tests.support.orgs import (
    AtRequest,
    Ended,
    Pair,
    ended,
    is_insert,
    report,
    run,
    run_with,
    runs,
    started,
    tiny_pair,
)

# Small pages and batches: 300 rows need many requests, and each second batch writes a checkpoint.
SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": "40",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "15",
    "MIGRATION_CHECKPOINT_INTERVAL": "2",
    "MIGRATION_MAX_CONCURRENT": "4",
}
PHASES = (
    "migrate-organization",
    "migrate-datasets",
    "migrate-definitions",
    "migrate-experiments",
    "migrate-logs",
    "migrate-views",
    "migrate-settings",
    "migrate-acls",
)

Place = Tuple[
    str, float, str, Tuple[int, ...]
]  # phase, how far into its requests, moment, requests of later kills


def places() -> List[Place]:
    """25 points: three in each phase, one before any; each third run is killed more than once."""
    rng = random.Random(20260113)
    found: List[Place] = []
    for number in range(24):
        again = tuple(rng.randrange(5, 70) for _ in range((0, 0, 1, 0, 0, 2)[number % 6]))
        found.append((PHASES[number % 8], rng.random(), rng.choice(("before", "after")), again))
    return [*found, ("start", 0.5, "after", (rng.randrange(1, 8),))]


SHORT = (0, 1, 2, 3, 4, 7)  # of the places: those that run without --long


def parameters() -> List[Any]:
    return [
        pytest.param(
            *place,
            id=f"{place[0]}-{place[1]:.2f}-{place[2]}-{len(place[3]) + 1}",
            marks=[] if number in SHORT else [pytest.mark.long],
        )
        for number, place in enumerate(places())
    ]


@pytest.fixture(scope="module")
def requests_of_phases(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Tuple[int, int]]:
    """Phase -> the numbers of its first and last request in a run that nobody disturbs."""
    with tiny_pair() as pair:
        whole = run(
            pair.sandbox, tmp_path_factory.mktemp("clean") / "runs", LOG_FORMAT="json", **SMALL
        )
        assert whole.code == 0, whole.last_words
        requests = pair.sandbox.requests
    lines = [json.loads(line) for line in whole.err.splitlines() if line.startswith("{")]
    starts = [
        (line["phase"], _seconds(line["time"])) for line in lines if line.get("event") == "phase"
    ]
    bounds = [0.0, *(moment for _, moment in starts), float("inf")]
    found: Dict[str, Tuple[int, int]] = {}
    for name, begin, end in zip(["start", *(name for name, _ in starts)], bounds, bounds[1:]):
        numbers = [request.number for request in requests if begin <= request.started < end]
        if numbers:
            found[name] = (min(numbers), max(numbers))
    return found


def _seconds(text: str) -> float:
    form = "%Y-%m-%dT%H:%M:%S.%fZ" if "." in text else "%Y-%m-%dT%H:%M:%SZ"
    return datetime.strptime(text, form).replace(tzinfo=timezone.utc).timestamp()


def seen_rows(root: Path) -> Set[Tuple[str, str]]:
    """(destination object, row) of all that the run directory has recorded as done."""
    found: Set[Tuple[str, str]] = set()
    for path in sorted(root.rglob("*_seen.sqlite3")):
        state = path.with_name(path.name.replace("_seen.sqlite3", "_state.json"))
        if not state.exists():
            continue
        dest_id = json.loads(state.read_text(encoding="utf-8"))["header"]["dest_id"]
        found |= {
            (dest_id, row_id) for row_id in stored_ids(path, "delivered", "outcome != 'failed'")
        }
    return found


def resent(pair: Pair, since: int, done: Set[Tuple[str, str]]) -> List[Tuple[str, str]]:
    """Rows that were sent again after they had been recorded; merges of one field do not count."""
    return [
        (dest, row)
        for dest, row, merge in pair.sandbox.inserted[since:]
        if not merge and (dest, row) in done
    ]


def kill_and_resume(pair: Pair, root: Path, kills: List[AtRequest], **settings: str) -> Ended:
    """Run and kill at each point in turn, then run to the end; no recorded row is sent again."""
    done: Set[Tuple[str, str]] = set()
    since = 0
    for last in starts(pair, root, kills, **{**SMALL, **settings}):
        if "MIGRATION_EVENTS_USE_SEEN_DB" not in settings:
            assert resent(pair, since, done) == []
        done, since = seen_rows(root), len(pair.sandbox.inserted)
        if last.code == -signal.SIGKILL and runs(root):
            assert untrue_claims(pair, runs(root)[-1]) == []
    assert pair.sandbox.inserted
    return last


@pytest.mark.parametrize(("phase", "far", "moment", "again"), parameters())
@pytest.mark.variants(1)
def test_after_a_kill_anywhere_the_same_command_completes_the_move(
    phase: str,
    far: float,
    moment: str,
    again: Tuple[int, ...],
    tmp_path: Path,
    requests_of_phases: Dict[str, Tuple[int, int]],
) -> None:
    first, last = requests_of_phases[phase]
    numbers = [first + round(far * (last - first)), *again]
    with tiny_pair() as pair:
        whole = kill_and_resume(
            pair,
            tmp_path / "runs",
            [AtRequest(number, moment, signal.SIGKILL) for number in numbers],
        )
        assert (whole.code, differences(pair)) == (0, []), whole.last_words
        assert len(runs(tmp_path / "runs")) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.variants(1)
def test_after_a_kill_without_recorded_rows_the_move_is_completed_too(
    moment: str, tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        kills = [AtRequest(at, moment, signal.SIGKILL, inserts_rows) for at in (4, 9)]
        whole = kill_and_resume(
            pair, tmp_path / "runs", kills, MIGRATION_EVENTS_USE_SEEN_DB="false"
        )
        assert (whole.code, differences(pair)) == (0, []), whole.last_words


@pytest.mark.parametrize(
    "kind",
    [
        "function",
        "dataset",
        *(
            pytest.param(kind, marks=pytest.mark.long)
            for kind in ("project", "group", "ai_secret", "acl")
        ),
    ],
)
@pytest.mark.variants(1)
def test_an_object_created_at_the_moment_of_the_kill_counts_as_created(
    kind: str, tmp_path: Path
) -> None:
    """The object exists but its answer was lost: the resumed run counts it as created."""
    with tiny_pair() as pair:
        number = (
            2 if kind == "project" else 1
        )  # validation asks with a first, empty project whether it may write
        at = AtRequest(
            number,
            "after",
            signal.SIGKILL,
            lambda verb, target: (verb, target) == ("POST", f"/v1/{kind}"),
        )
        whole = kill_and_resume(pair, tmp_path / "runs", [at])
        assert at.done.is_set()
        kinds = [
            entry
            for entry in report(tmp_path / "runs")["objects"]
            if set(entry["outcomes"]) - {"created", "skipped"}
        ]
        assert (whole.code, kinds, differences(pair)) == (0, [], []), whole.last_words


def inserts_rows(method: str, path: str) -> bool:
    return is_insert(path)


@pytest.mark.parametrize(
    ("number", "path"),
    [
        (signal.SIGTERM, "/logs3"),
        (signal.SIGINT, "/v1/experiment"),
        (signal.SIGHUP, "/logs3"),
        pytest.param(signal.SIGTERM, "/v1/acl", marks=pytest.mark.long),
        pytest.param(signal.SIGINT, "/logs3", marks=pytest.mark.long),
    ],
)
@pytest.mark.variants(1)
def test_an_interrupted_run_says_how_to_continue_and_continues(
    number: signal.Signals, path: str, tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        at = AtRequest(
            3, "before", number, lambda verb, target: verb == "POST" and target.endswith(path)
        )
        first = run_with(pair, tmp_path / "runs", at, **SMALL)
        place = runs(tmp_path / "runs")[0]
        assert (first.code, report(tmp_path / "runs")["status"]) == (130, "interrupted")
        assert "Traceback" not in first.err
        (following,) = [
            line for line in first.out.splitlines() if line.startswith("Next: bin/migrate-all ")
        ]
        assert f" --state-dir {place}" in following
        assert untrue_claims(pair, place) == []
        done, since = seen_rows(tmp_path / "runs"), len(pair.sandbox.inserted)
        second = run(pair.sandbox, tmp_path / "runs", **SMALL)
        assert (second.code, differences(pair), resent(pair, since, done)) == (0, [], []), (
            second.last_words
        )
        assert runs(tmp_path / "runs") == [place]


def test_the_command_that_an_interrupted_run_names_continues_it(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        run_with(
            pair, tmp_path / "runs", AtRequest(5, "after", signal.SIGTERM, inserts_rows), **SMALL
        )
        place = runs(tmp_path / "runs")[0]
        second = run(pair.sandbox, place, **SMALL)
        assert (second.code, differences(pair), runs(tmp_path / "runs")) == (0, [], [place]), (
            second.last_words
        )


def test_an_interrupt_writes_the_checkpoint_of_what_was_in_flight(tmp_path: Path) -> None:
    """What the destination took is recorded: an interrupt, unlike a kill, repeats nothing."""
    with tiny_pair() as pair:
        run_with(
            pair, tmp_path / "runs", AtRequest(9, "before", signal.SIGTERM, inserts_rows), **SMALL
        )
        taken = {(dest, row) for dest, row, merge in pair.sandbox.inserted if not merge}
        before = len(pair.sandbox.inserted)
        run(pair.sandbox, tmp_path / "runs", **SMALL)
        again = {(dest, row) for dest, row, merge in pair.sandbox.inserted[before:] if not merge}
        assert (len(taken) > 90, taken & again, differences(pair)) == (True, set(), [])


def test_a_second_process_on_the_same_run_is_refused(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        go_on, root = threading.Event(), tmp_path / "runs"
        at = AtRequest(3, "before", lambda: go_on.wait(60), inserts_rows)
        pair.sandbox.on_request = at
        with started(pair.sandbox, root, **SMALL) as first:
            assert at.done.wait(60)
            by_root, by_run = (
                run(pair.sandbox, root, **SMALL),
                run(pair.sandbox, runs(root)[0], **SMALL),
            )
            refused = [
                (entry.code, entry.out, len(entry.err.splitlines())) for entry in (by_root, by_run)
            ]
            go_on.set()
            whole = ended(first)
        assert refused == [(4, "", 1), (4, "", 1)]
        assert (whole.code, differences(pair)) == (0, []), whole.last_words
