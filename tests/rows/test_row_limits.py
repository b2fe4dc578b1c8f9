"""Servers that refuse a high LIMIT, and servers that answer fewer rows than exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rows.test_row_ends import ChangeAnswer, serving
from tests.support.orgs import DEST_KEY
from tests.support.row_runs import Json, counted, insert_together, small_rows, world
from tests.support.syncs import (
    KINDS,
    LOGS,
    equal,
    first_sync,
    holder,
    later,
    living,
    merge,
    row,
    sync,
    twin,
)

DELETES = ("--propagate-deletes", "--max-deletes", "100%")


def cut_to(most: int) -> ChangeAnswer:
    """Answers of so many rows at most, to any query for rows."""

    def cut(query: str, found: Json) -> None:
        if "limit:" in query:
            del found["data"][most:]

    return cut


@pytest.mark.parametrize("most", [999, 100, 10])
@pytest.mark.variants(1)
def test_a_server_that_refuses_a_high_limit_is_asked_for_less_and_loses_nothing(
    most: int, tmp_path: Path
) -> None:
    with living(tmp_path, projects=3, rows=60) as w:
        w.sandbox.btql_limit_cap = most
        first = sync(w, "--full")
        assert (first.code, equal(w)) == (0, True), first.err
        for kind in KINDS:
            w.source.insert(kind, holder(w, kind), [row(f"new {number}") for number in range(30)])
        again = sync(w, "--full", *DELETES)
        assert (again.code, equal(w)) == (0, True), again.err


def test_rows_that_share_a_key_arrive_where_no_higher_limit_is_accepted(tmp_path: Path) -> None:
    """The first page is as full as its lowered limit."""
    with world(tmp_path) as w:
        w.sandbox.btql_limit_cap = 10
        experiments = w.make("experiment", *(f"e{number:02}" for number in range(25)))
        insert_together(w, "experiment", {made: small_rows(1) for made in experiments})
        assert w.move("experiment") == 0
        assert [sum(counts.values()) for counts in counted(w.root).values()] == [2] * 25


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("most", "projects"), [(7, 1), (25, 1), (25, 3)])
@pytest.mark.variants(2)
def test_rows_of_others_are_kept_where_the_destination_shows_few_rows_at_a_time(
    most: int, projects: int, kind: str, tmp_path: Path
) -> None:
    """A row that is not among the answered ones is not missing; other objects have the same ids."""
    with living(tmp_path, projects=projects, rows=60) as w:
        first_sync(w)
        serving(w, answer=cut_to(most), key=DEST_KEY)
        later(w)
        for number in range(projects):
            source, dest = holder(w, kind, number), twin(w, kind, number)
            ids = [found["id"] for found in w.source.rows(kind, source)]
            merge(w.dest, kind, dest, [row(row_id, expected="by hand") for row_id in ids])
            merge(w.source, kind, source, [row(row_id, expected="new") for row_id in ids])
        assert sync(w).code == 1
        for number in range(projects):
            there = w.dest.rows(kind, twin(w, kind, number))
            assert [found["expected"] for found in there] == ["by hand"] * 60


@pytest.mark.recorded  # only a transaction proves that a row may be deleted
@pytest.mark.parametrize("most", [7, 25])
@pytest.mark.variants(1)
def test_rows_that_the_source_shows_later_are_not_deleted(most: int, tmp_path: Path) -> None:
    with living(tmp_path, rows=60) as w:
        first_sync(w)
        serving(w, answer=cut_to(most))
        w.source.insert(LOGS, holder(w, LOGS), [{"id": "r00003", "_object_delete": True}])
        codes = [sync(w, *DELETES).code for _ in range(3)]
        assert (codes, equal(w), len(w.dest.rows(LOGS, twin(w, LOGS)))) == ([0, 0, 0], True, 59)
