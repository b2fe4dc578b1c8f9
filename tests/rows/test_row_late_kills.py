"""What a late reference of a row leaves is reported before the reference is no longer pending."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

from tests.support.claims import stored_ids
from tests.support.kills import kill_before_it_is_forgotten
from tests.support.orgs import ANA, run
from tests.support.people import ASSIGNED, MISSING, invite, people_pair, user_id
from tests.support.pinned import pinned_pair


def store_of_dataset(root: Path) -> Path:
    (found,) = root.glob("*/*/dataset*/*_seen.sqlite3")
    return found


def pending(store: Path) -> List[Any]:
    return stored_ids(store, "deferred")


def test_a_kill_does_not_lose_that_the_users_of_a_row_were_changed(tmp_path: Path) -> None:
    with people_pair() as pair:
        assert run(pair.sandbox, tmp_path / "runs").code == 0
        store = store_of_dataset(tmp_path / "runs")
        invite(pair, MISSING)
        (dataset,) = pair.dest.objects("dataset")
        changed = {ASSIGNED: [user_id(pair.dest, ANA)]}
        pair.dest.insert("dataset", dataset["id"], [{"id": "r3", "input": 3, "metadata": changed}])
        left = kill_before_it_is_forgotten(pair, tmp_path / "runs", store, "r3")
        assert '"row_differs"' in left
        assert b"r3" in pending(store)
        run(pair.sandbox, tmp_path / "runs")
        state = store.with_name(store.name.replace("_seen.sqlite3", "_state.json"))
        assert '"row_differs"' in state.read_text(encoding="utf-8")
        assert pending(store) == []


def test_a_kill_does_not_lose_that_a_version_has_no_counterpart(tmp_path: Path) -> None:
    last_one = ("--history", "1")
    with pinned_pair() as pair:
        done = run(pair.sandbox, tmp_path / "runs", *last_one, program="migrate_datasets")
        store = store_of_dataset(tmp_path / "runs")
        assert pending(store) == [b"early"], done.last_words
        left = kill_before_it_is_forgotten(pair, tmp_path / "runs", store, "early", *last_one)
        assert '"version_pin_removed"' in left
        assert pending(store) == [b"early"]
        done = run(pair.sandbox, tmp_path / "runs", *last_one)
        assert done.code == 0, done.last_words
        state = store.with_name(store.name.replace("_seen.sqlite3", "_state.json"))
        assert '"version_pin_removed"' in state.read_text(encoding="utf-8")
        assert pending(store) == []
