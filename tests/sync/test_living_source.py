"""The living source itself: its books are right, each event does what it is called, and a seed
gives the same life again.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any, List

import pytest

from bt_migrate.sandbox.data import clock as keys
from bt_migrate.sandbox.http.server import Sandbox
from tests.support.living_source import (
    ALL_EVENTS,
    DAY_S,
    Change,
    Life,
    add_and_delete,
    append_late_logs,
    append_logs,
    born,
    change,
    comment_on_row,
    delete_and_bring_back,
    delete_row,
    happen,
    make_and_drop_dataset,
    pass_time,
    score_old_rows,
    take_over_name,
    versions,
)
from tests.support.orgs import ROWS_OF

THEN = 1_760_000_000


@pytest.fixture
def life(sandbox: Sandbox) -> Life:
    sandbox.clock.set(THEN)
    return born(sandbox, sandbox.add_org("acme"), seed=1)


def told(life: Life, *events: Any) -> Change:
    """The books of some events."""
    before = versions(life.sandbox, life.org)
    for event in events:
        event(life)
    return change(before, versions(life.sandbox, life.org))


def test_only_the_last_of_three_changes_of_a_row_counts_and_a_row_deleted_at_once_does_not(
    life: Life,
) -> None:
    project = life.org.objects("project")[0]["id"]

    def change_three_times(_: Life) -> None:
        for number in range(3):
            life.org.insert(
                "project_logs",
                project,
                [{"id": "x", "_is_merge": True, "scores": {"s": number / 3}}],
            )

    place = ("project_logs", project, "x")
    assert told(life, change_three_times) == Change({place}, set())
    assert told(life, change_three_times) == Change({place}, set())
    assert told(life, add_and_delete) == told(life, make_and_drop_dataset) == Change(set(), set())


@pytest.mark.parametrize(("event", "rows"), [(delete_row, (0, 1)), (delete_and_bring_back, (1, 0))])
def test_a_deleted_row_counts_as_deleted_unless_it_was_inserted_again(
    event: Any, rows: Any, life: Life
) -> None:
    found = told(life, event)
    assert (len(found.carried), len(found.deleted)) == rows


def test_a_comment_is_a_version_of_its_row_only_where_the_server_has_it_so(life: Life) -> None:
    assert told(life, comment_on_row) == Change(set(), set())
    life.sandbox.store.comments_move_rows = True
    assert len(told(life, comment_on_row).carried) == 1


def test_a_late_row_has_an_old_date_and_a_new_transaction(life: Life) -> None:
    (kind, object_id, row_id), *_ = told(life, append_late_logs).carried
    row = next(row for row in life.org.rows(kind, object_id) if row["id"] == row_id)
    written = (keys.moment_of_xact(row["_xact_id"]) or 0) >> 16
    assert 20 * DAY_S > written - (keys.micros(row["created"]) or 0) / 1e6 > DAY_S - 10


def test_scoring_old_rows_changes_only_their_scores_and_transaction(life: Life) -> None:
    before = {
        row["id"]: row for kind, stream in life.streams() for row in life.org.rows(kind, stream)
    }
    for kind, object_id, row_id in told(life, score_old_rows).carried:
        row = next(row for row in life.org.rows(kind, object_id) if row["id"] == row_id)
        # audit_data is the service's own history of a row: each write adds an entry.
        moved = {name: row[name] for name in ("scores", "_xact_id", "audit_data")}
        assert {**before[row_id], **moved} == row


def test_a_renamed_experiment_leaves_its_name_to_a_new_one(life: Life) -> None:
    names = {obj["id"]: obj["name"] for obj in life.org.objects("experiment")}
    take_over_name(life)
    after = {obj["id"]: obj["name"] for obj in life.org.objects("experiment")}
    ((aside, name),) = [
        (experiment_id, name)
        for experiment_id, name in names.items()
        if after[experiment_id] != name
    ]
    holders = [experiment_id for experiment_id, taken in after.items() if taken == name]
    assert holders == [*(after.keys() - names.keys())]
    assert aside not in holders


def test_the_simulation_changes_no_row_that_it_is_to_spare(life: Life) -> None:
    everything = {
        row["id"] for kind, stream in life.streams() for row in life.org.rows(kind, stream)
    }
    life.spared = everything - set(random.Random(3).sample(sorted(everything), 40))
    before = versions(life.sandbox, life.org)
    pass_time(life, 48)
    touched = change(before, versions(life.sandbox, life.org))
    assert {row_id for *_, row_id in touched.carried | touched.deleted} & life.spared == set()


def test_a_simulated_month_has_every_event_and_moves_the_clock_by_a_month(life: Life) -> None:
    pass_time(life, 30 * 24)
    assert [event.__name__ for event in ALL_EVENTS if not life.happened[event.__name__]] == []
    assert life.sandbox.clock.seconds() - THEN == pytest.approx(33 * DAY_S, abs=60)
    moments = [
        row["_xact_id"]
        for row in life.org.rows("project_logs", life.org.objects("project")[0]["id"])
    ]
    assert len(moments) > 300


def test_the_same_seed_simulates_the_same_events_and_rows() -> None:
    seen: List[Any] = []
    for _ in range(2):
        with Sandbox() as sandbox:
            sandbox.clock.set(THEN)
            life = born(sandbox, sandbox.add_org("acme"), seed=5)
            pass_time(life, 72)
            happen(life, append_logs)
            rows = {row_id for *_, row_id in versions(sandbox, life.org)}
            names = Counter(
                obj["name"]
                for kind in {*ROWS_OF.values(), "prompt"}
                for obj in life.org.objects(kind)
            )
            seen.append((rows, names, life.happened))
    assert seen[0] == seen[1]
