"""Runs that are killed at seeded points and resumed with the same command."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List, Sequence, Tuple

import pytest

from tests.support.orgs import TIME_LIMIT_S, AtRequest, Ended, Pair, run, run_with, started

# (number of the request in its process, "before" or "after" it)
Kill = Tuple[int, str]
AGAIN = (0, 1, 0, 2)  # later kills of each of four migrations


def seeded_kills(seed: int, count: int, requests: range, *, short: int) -> List[Any]:
    """Returns parameters: the kills of each of `count` migrations, one process after the other.

    The first kill is in `requests`; half of the migrations are killed again, soon after the
    restart. All but the `short` first run with --long only.
    """
    rng = random.Random(seed)
    found = []
    for number in range(count):
        first = rng.randrange(requests.start, requests.stop)
        soon = max(requests.start + 1, requests.stop // 3)
        again = [rng.randrange(requests.start, soon) for _ in range(AGAIN[number % len(AGAIN)])]
        kills = [(at, rng.choice(("before", "after"))) for at in (first, *again)]
        name = "-".join(f"{at}{moment}" for at, moment in kills)
        marks = [] if number < short else [pytest.mark.long]
        found.append(pytest.param(kills, id=f"{number:02}-{name}", marks=marks))
    return found


def any_request(method: str, path: str) -> bool:
    return True


def at_requests(
    kills: List[Kill], matches: Callable[[str, str], bool] = any_request
) -> List[AtRequest]:
    return [AtRequest(at, moment, signal.SIGKILL, matches) for at, moment in kills]


def starts(
    pair: Pair, root: Path, kills: Sequence[Any], *args: str, **settings: str
) -> Iterator[Ended]:
    """Yields how each start of one command ended: it is killed at each point, then runs to its end.

    A start that ends before it is killed is the last.
    """
    for at in kills:
        done = run_with(pair, root, at, *args, **settings)
        yield done
        if done.code != -signal.SIGKILL:
            return
    yield run(pair.sandbox, root, *args, **settings)


# A deletion of a pending reference of one row that does not end.
STUCK = """
    create table numbers (number);
    insert into numbers with recursive n(x) as (select 1 union all select x + 1 from n limit 1000)
        select x from n;
    create trigger stuck before delete on deferred when old.id = x'{row}' begin
        select count(*) from numbers a, numbers b, numbers c, numbers d, numbers e;
    end;
"""


def kill_before_it_is_forgotten(
    pair: Pair, root: Path, store: Path, row_id: str, *args: str
) -> str:
    """Start the program and kill it while it deletes the pending references of a row.

    `store`: the records of the stream's rows. Returns the checkpoint of the stream as it was then.
    """
    state = store.with_name(store.name.replace("_seen.sqlite3", "_state.json"))
    before = state.read_text(encoding="utf-8")
    with contextlib.closing(sqlite3.connect(str(store))) as db:
        db.executescript(STUCK.format(row=row_id.encode().hex()))
    with started(pair.sandbox, root, *args) as process:
        deadline = time.monotonic() + TIME_LIMIT_S
        while process.poll() is None and state.read_text(encoding="utf-8") == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()
        process.kill()
        process.wait()
    with contextlib.closing(sqlite3.connect(str(store))) as db:
        db.executescript("drop trigger stuck; drop table numbers;")
    return state.read_text(encoding="utf-8")
