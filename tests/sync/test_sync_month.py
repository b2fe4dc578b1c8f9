"""A month of syncs with faults, kills and a source that changes all the time.

The sandbox's clock makes the month pass in a minute or two. What arrived is read from the
sandboxes' data, not from the tool's reports.
"""

from __future__ import annotations

import contextlib
import random
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

import pytest

from bt_migrate.api import throttle as throttle
from bt_migrate.api import transport as transport
from bt_migrate.phases import migrate_all as migrate_all
from bt_migrate.sandbox.http.server import Fault
from tests.support.compare_orgs import differences
from tests.support.full_rows import comment_differences
from tests.support.living_source import (
    HOUR_S,
    Change,
    Life,
    Row,
    add_there,
    append_experiment_rows,
    append_logs,
    born,
    change,
    edit_prompt,
    edit_there,
    happen,
    pass_time,
    score_old_rows,
    versions,
)
from tests.support.orgs import (
    DEST_KEY,
    SOURCE_KEY,
    AtRequest,
    Ended,
    Pair,
    WatchedSandbox,
    ended,
    environment,
    is_insert,
    run,
    run_with,
    runs,
    started,
)

LONG = pytest.mark.long
BEGIN = (
    1_760_000_000,
    1_960_000_000,
)  # the servers' clock, years behind this machine's or years ahead: no sync may depend on that
# Small pages and batches, so that a night has many requests, and a kill leaves little behind.
SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": "60",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "20",
    "MIGRATION_CHECKPOINT_INTERVAL": "2",
    "MIGRATION_MAX_CONCURRENT": "3",
}
SYNC = ("--since-last", "--propagate-deletes", "--max-deletes", "10%")
SIGN_OF_A_BUG = re.compile("Traceback|bt_migrate: (?:.*)Error\\b")


@contextlib.contextmanager
def living_pair(seed: int) -> Iterator[Tuple[Pair, Life]]:
    """A source with some days of history, an empty destination, and a clock that is set."""
    with WatchedSandbox() as sandbox:
        sandbox.clock.set(BEGIN[seed % 2])
        sandbox.store.comments_move_rows = True
        source, dest = (
            sandbox.add_org("acme", api_key=SOURCE_KEY),
            sandbox.add_org("globex", api_key=DEST_KEY),
        )
        yield Pair(sandbox, source, dest), born(sandbox, source, seed)


class Books:
    """What there was to carry, and what was sent: over all syncs, and by each."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.done: Dict[Row, int] = {}  # the source as the last complete sync took it
        self.waiting: Set[Row] = set()  # gone from the source, and not yet from the destination
        self.deletes = 0  # rows that were deleted until the end of the last complete sync
        self.to_carry = self.sent = 0
        self.whole = True  # the last sync came to its end
        self.early: Set[str] = (
            set()
        )  # rows that changed while the last sync ran: it may have taken them

    def sync(self, act: Callable[[], int], *, exact: bool = True) -> int:
        """Run one sync. One that ended with 0 has carried all there was; if `exact`, and nothing
        went wrong before, nothing else.
        """
        before = versions(self.pair.sandbox, self.pair.source)
        first = len(self.pair.sandbox.inserted)
        code = act()
        sent = Counter(row_id for _, row_id, _ in self.pair.sandbox.inserted[first:])
        self.sent += sum(sent.values())
        exact, self.whole = exact and self.whole, code == 0
        if code != 0:
            return code
        due = change(self.done, before)
        self.to_carry += len(due.carried)
        after = versions(self.pair.sandbox, self.pair.source)
        meanwhile = {row_id for *_, row_id in change(before, after).carried}
        deleted = {row_id for _, row_id in self.pair.sandbox.deleted[self.deletes :]}
        self.waiting = {row for row in self.waiting if row not in before}
        if exact:
            self._judge(due, sent, deleted, meanwhile)
        self.waiting = {row for row in self.waiting | due.deleted if row[2] not in deleted}
        self.done, self.early = before, meanwhile
        self.deletes = len(self.pair.sandbox.deleted)
        return code

    def _judge(
        self,
        due: Change,
        sent: Counter[str],
        deleted: Set[str],
        meanwhile: Set[str],
    ) -> None:
        rows = {row_id for *_, row_id in due.carried}
        assert sorted(rows - sent.keys() - self.early) == [], "rows that changed were not sent"
        assert sorted(sent.keys() - rows - meanwhile) == [], "rows that did not change were sent"
        assert [row_id for row_id, times in sent.items() if times > 1] == [], (
            "rows were sent more than once"
        )
        # A row is deleted by the second sync that misses it, never by the first.
        assert deleted == {row_id for *_, row_id in self.waiting}, "the wrong rows were deleted"

    def unequal(self) -> List[str]:
        """Differences, apart from rows that the next sync deletes."""
        signs = [f" row {row_id!r}" for *_, row_id in self.waiting]
        return [
            problem
            for problem in unequal(self.pair)
            if " too much" not in problem or not any(sign in problem for sign in signs)
        ]


def unequal(pair: Pair) -> List[str]:
    return [*differences(pair), *comment_differences(pair)]


# Nights -------------------------------------------------------------------------------------------


class Nights:
    """Syncs of a real process, one each simulated night."""

    def __init__(self, pair: Pair, life: Life, root: Path) -> None:
        self.pair, self.life, self.root = pair, life, root
        self.books = Books(pair)
        self.ends: List[Ended] = []

    def sync(self, act: Optional[AtRequest] = None, *args: str, exact: bool = True) -> int:
        def go() -> int:
            given = ("--on-conflict", "update", *args, *(SYNC if runs(self.root) else ()))
            end = run_with(self.pair, self.root, act, *given, **SMALL) if act else self._run(*given)
            self.ends.append(end)
            assert not SIGN_OF_A_BUG.search(end.err), end.err
            return end.code

        return self.books.sync(go, exact=exact)

    def _run(self, *args: str) -> Ended:
        """An outage is waited for during three minutes, of this machine's clock."""
        with started(self.pair.sandbox, self.root, *args, **SMALL) as process:
            return ended(process)

    def outage(self) -> int:
        """In the middle of the sync the source begins to answer nothing but 503, for an hour."""
        self.pair.sandbox.faults.add(
            Fault("status", "acme", status=503, times=None, after=self.life.rng.randrange(5, 25))
        )
        code = self.sync(exact=False)
        self.pair.sandbox.clock.set(self.pair.sandbox.clock.seconds() + HOUR_S)
        self.pair.sandbox.faults.clear()
        return code

    def killed(self) -> int:
        """Somewhere in the sync, most likely where rows are written."""
        at = AtRequest(
            self.life.rng.randrange(1, 5),
            self.life.rng.choice(("before", "after")),
            signal.SIGKILL,
            inserts_rows,
        )
        return self.sync(at, exact=False)

    def busy(self) -> int:
        """People and programs go on while the sync runs."""
        at = AtRequest(
            self.life.rng.randrange(3, 20),
            "after",
            lambda: happen(self.life, append_logs),
            lambda _, path: path == "/btql",
        )
        return self.sync(at)


def wait(pair: Pair) -> None:
    """An hour without changes; then what the last sync found to be gone may be deleted."""
    pair.sandbox.clock.set(pair.sandbox.clock.seconds() + HOUR_S)


def inserts_rows(method: str, path: str) -> bool:
    return is_insert(path)


QUIET, BUSY, OUTAGE, KILLED, OFF = "quiet", "busy", "outage", "killed", "off"
WEEK = {2: KILLED, 3: OFF, 4: BUSY}
MONTH = {
    3: BUSY,
    6: OUTAGE,
    10: KILLED,
    13: BUSY,
    14: BUSY,
    17: OFF,
    18: OFF,
    19: OFF,
    23: KILLED,
    24: BUSY,
}


@pytest.mark.recorded  # only a transaction proves that each of these rows may be deleted
@pytest.mark.parametrize(
    ("nights", "plan", "seed"),
    [pytest.param(5, WEEK, 3, id="days"), pytest.param(30, MONTH, 30, id="month", marks=LONG)],
)
def test_after_weeks_of_nightly_syncs_both_sides_are_equal_and_each_version_was_sent_once(
    nights: int, plan: Dict[int, str], seed: int, tmp_path: Path
) -> None:
    with living_pair(seed) as (pair, life):
        month = Nights(pair, life, tmp_path / "runs")
        codes = [month.sync()]
        for night in range(1, nights + 1):
            pass_time(life, 24)
            happens = plan.get(night, QUIET)
            if happens != OFF:
                codes.append(month.sync() if happens == QUIET else getattr(month, happens)())
            if happens == QUIET:
                assert (codes[-1], month.books.unequal()) == (0, []), (
                    f"night {night}: {month.ends[-1].last_words}"
                )
        if codes[-1]:
            codes.append(month.sync(exact=False))
        wait(pair)
        codes.append(month.sync())
        assert (unequal(pair), month.books.waiting) == ([], set())
        assert [code for code in codes if code not in (0, 1, 3, -signal.SIGKILL)] == []
        assert (codes.count(-signal.SIGKILL), codes[-1]) == (list(plan.values()).count(KILLED), 0)
        assert abs(month.books.sent - month.books.to_carry) <= month.books.to_carry / 100
        judged = run(pair.sandbox, tmp_path / "runs", "--full", program="verify")
        assert judged.code == 0, judged.out + judged.last_words


@LONG
@pytest.mark.parametrize("path", ["/v1/experiment?", "/v1/prompt", "/v1/view", "/v1/acl"])
def test_the_sync_after_a_killed_one_copies_new_rows_too(path: str, tmp_path: Path) -> None:
    """Whatever the killed sync had done already: of experiments, of rows, of all rows, of
    everything.
    """
    with living_pair(1) as (pair, life):
        nights = Nights(pair, life, tmp_path / "runs")
        nights.sync()
        for act in (
            AtRequest(1, "before", signal.SIGKILL, lambda _, target: target.startswith(path)),
            None,
        ):
            pass_time(
                life,
                6,
                {append_logs: 12, append_experiment_rows: 12, score_old_rows: 12, edit_prompt: 4},
            )
            code = nights.sync(act, exact=False)
            assert code == (-signal.SIGKILL if act else 0)
        assert unequal(pair) == []


# Hours --------------------------------------------------------------------------------------------

PATHS = (None, "/btql", "/logs3", "/v1/", "/v1/experiment", "/attachment", "/bucket/")


def some_fault(rng: random.Random) -> Fault:
    """Trouble of any kind, mostly short; one in five outlasts all patience."""
    where: Dict[str, Any] = {
        "org": rng.choice(("acme", "globex")),
        "path": rng.choice(PATHS),
        "after": rng.randrange(40),
    }
    where["times"] = rng.randrange(1, 4) if rng.random() < 0.8 else rng.randrange(6, 20)
    kind = rng.choice(
        (
            "429",
            "429",
            "500",
            "500",
            "large",
            "reset_before",
            "reset_after",
            "truncate",
            "garbage",
            "redirect",
            "slow",
            "drop",
        )
    )
    if kind == "429":
        return Fault(
            "status",
            status=429,
            headers=rng.choice(({}, {"Retry-After": "0"}, {"Retry-After": "0.3"})),
            **where,
        )
    if kind == "500":
        return Fault("status", status=rng.choice((500, 502, 503, 504)), **where)
    if kind == "large":
        return Fault(
            "status", status=rng.choice((500, 504)), **{**where, "path": "/btql", "above_limit": 25}
        )
    if kind in ("slow", "drop"):
        return Fault({"slow": "delay"}.get(kind, kind), seconds=0.1, **where)
    return Fault(kind, **{**where, "path": "/btql"} if kind == "redirect" else where)


class Hours:
    """Syncs every few simulated hours, in this process; those that are killed have one of their
    own.
    """

    def __init__(self, pair: Pair, life: Life, root: Path) -> None:
        self.pair, self.life, self.root = pair, life, root
        self.books = Books(pair)
        self.codes: Counter[int] = Counter()
        self.there: Set[str] = set()  # row ids that people in the destination edited or added

    def sync(self, *args: str) -> int:
        code = self.books.sync(
            lambda: self._call("--on-conflict", "update,logs=keep", "--quiet", *args), exact=False
        )
        self.codes[code] += 1
        return code

    def _call(self, *args: str) -> int:
        values = {
            name: text
            for name, text in environment(self.pair.sandbox, **SMALL).items()
            if name.startswith(("BT_", "MIGRATION_"))
        }
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root.parent)
            for module in (transport, throttle):  # a month of outages is not waited for in full
                patch.setattr(module, "MAX_BACKOFF_S", 0.2)
            for name, text in values.items():
                patch.setenv(name, text)
            since = SYNC if runs(self.root) else ()
            return migrate_all.main(["--state-dir", str(self.root), "--no-verify", *since, *args])

    def killed(self) -> None:
        rng = self.life.rng
        at = AtRequest(rng.randrange(1, 90), rng.choice(("before", "after")), signal.SIGKILL)
        given = ("--on-conflict", "update,logs=keep", *SYNC)
        self.codes[
            self.books.sync(
                lambda: run_with(self.pair, self.root, at, *given, **SMALL).code, exact=False
            )
        ] += 1

    def step(self, hours: float) -> None:
        """Some hours pass, then there is a sync, with what may go wrong."""
        rng = self.life.rng
        pass_time(self.life, hours)
        if rng.random() < 0.05:
            self.there.add(edit_there(self.life, self.pair.dest)[1])
        if rng.random() < 0.05:
            self.there.add(add_there(self.life, self.pair.dest)[1])
        self.pair.sandbox.indexing_lag = rng.choice((0, 0, 60, 500))  # within the lookback
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3))):
            self.pair.sandbox.faults.add(some_fault(rng))
        if rng.random() < 0.06:
            self.killed()
        else:
            self.sync()
        self.pair.sandbox.faults.clear()


def of_people(problem: str, rows: Set[str]) -> bool:
    return any(f"row '{row_id}'" in problem for row_id in rows)


@pytest.mark.parametrize(
    ("steps", "hours", "seed"),
    [
        pytest.param(6, 6, 1, id="days"),
        *(pytest.param(720, 1, seed, id=f"month-{seed}", marks=LONG) for seed in range(20)),
    ],
)
@pytest.mark.long
def test_after_weeks_of_faults_two_syncs_without_faults_make_both_sides_equal(
    steps: int, hours: float, seed: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with living_pair(seed) as (pair, life):
        weeks = Hours(pair, life, tmp_path / "runs")
        assert weeks.sync() == 0
        for _ in range(steps):
            weeks.step(hours)
        pair.sandbox.indexing_lag = 0
        pass_time(life, 1)
        weeks.sync()
        wait(pair)
        last = weeks.sync()
        again = (
            f"{steps} steps of {hours} h ended with {dict(weeks.codes)}; repeat with: pytest "
            f"--long {request.node.nodeid!r}"
        )
        assert [
            difference for difference in unequal(pair) if not of_people(difference, weeks.there)
        ] == [], again
        assert last == 0 or weeks.there, again
        assert set(weeks.codes) <= {0, 1, 3, -signal.SIGKILL}, again
