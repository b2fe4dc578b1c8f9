"""The number of open files is bounded, whatever number of streams is read together."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Callable, List

import pytest

from bt_migrate.errors import StateError
from bt_migrate.state.find_run import create_run
from bt_migrate.state.open_files import MIN_STORES, OpenStores, max_connections, max_open_stores
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.seen_rows import SeenRows
from tests.support.compare_orgs import differences
from tests.support.orgs import AtRequest, Pair, run, run_with
from tests.support.row_runs import small_rows, world
from tests.support.run_state import identity


@pytest.fixture
def limit() -> object:
    """Sets the soft limit of this process; the old one comes back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("soft", "stores", "connections"),
    [(1024, 208, 95), (256, 21, 43), (64, 5, 7), (8192, 1000, 1293)],
)
def test_stores_and_connections_fit_the_limit_of_open_files(
    soft: int, stores: int, connections: int, limit: Callable[[int], None]
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < soft:
        pytest.skip("the hard limit is lower")
    limit(soft)
    assert (max_open_stores(), max_connections()) == (stores, connections)


def test_the_stores_used_longest_ago_are_closed_and_open_again_when_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OpenStores(lambda: MIN_STORES)
    monkeypatch.setattr("bt_migrate.state.seen_rows.OPEN_STORES", opened)
    before = len(os.listdir("/proc/self/fd"))
    stores = [SeenRows(tmp_path / f"{number}.sqlite3") for number in range(20)]
    for _ in range(2):
        for number, store in enumerate(stores):
            store.record([("o", f"r{number}", number, "created", 0)])
    open_files = len(os.listdir("/proc/self/fd")) - before
    seen: List[dict] = [store.outcomes_of("o", [f"r{n}"]) for n, store in enumerate(stores)]
    for store in stores:
        store.close()
    assert seen == [{f"r{number}": (number, "created")} for number in range(20)]
    assert (len(opened), open_files <= 3 * MIN_STORES) == (0, True)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["run.json", "organization/roles_state.json", "x_seen.sqlite3"])
def test_a_damaged_run_leaves_no_file_open(name: str, tmp_path: Path) -> None:
    with create_run(tmp_path, identity(), "migrate-all") as run_:
        run_.objects("roles").save()
    path = run_.path / name
    path.write_text("[]" * 500, encoding="utf-8")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(StateError), RunDirectory(run_.path) as damaged:
            list(damaged.all_objects())
            SeenRows(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_store_in_use_is_not_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bt_migrate.state.seen_rows.OPEN_STORES", OpenStores(lambda: 1))
    first = SeenRows(tmp_path / "first.sqlite3")
    second = SeenRows(tmp_path / "second.sqlite3")

    def rows() -> object:
        for number in range(5):
            second.record([("o", f"s{number}", number, "created", 0)])  # another store meanwhile
            yield ("o", f"r{number}", number, "created", 0)

    first.record(rows())
    assert len(first.outcomes_of("o", [f"r{number}" for number in range(5)])) == 5


def test_a_sync_of_many_streams_needs_few_open_files(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        names = [f"e{number:03}" for number in range(80)]
        ids = w.make("experiment", *names)
        for object_id in ids:
            w.source.insert("experiment", object_id, small_rows(2))
        settings = {"MIGRATION_MAX_CONCURRENT": "10", "MIGRATION_LOOKBACK": "0"}
        assert run(w.sandbox, w.root, **settings).code == 0
        for object_id in ids:
            w.source.insert("experiment", object_id, [{"id": "new", "input": 1}])
        few = AtRequest(1, "before", None)
        few.act = lambda: resource.prlimit(few.process.pid, resource.RLIMIT_NOFILE, (110, 110))
        done = run_with(w, w.root, few, "--since-last", **settings)
        assert done.code == 0, done.last_words
        assert differences(Pair(w.sandbox, w.source, w.dest)) == []
