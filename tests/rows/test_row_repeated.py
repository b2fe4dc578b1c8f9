"""A source that shows two versions of a row, each at a place of its own: the last one counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

import pytest

from bt_migrate.rows import repeated
from bt_migrate.rows.repeated import NewestVersions, newest_rows
from bt_migrate.sandbox.data import inserts
from tests.support.orgs import findings
from tests.support.row_runs import World, call
from tests.support.syncs import DATASET, EXPERIMENT, LOGS, holder, later, living, sent, sync, twin

ROW = "r00003"


def show_twice(w: World, kind: str, *, newest_first: bool) -> None:
    """Let the source show a second version of a row, as its last row."""
    object_id = holder(w, kind)
    w.source.insert(kind, object_id, [{"id": "other", "input": "second"}])
    if newest_first:
        w.source.insert(kind, object_id, [{"id": ROW, "input": "first"}])
    with w.sandbox.store.lock:
        rows = inserts.row_set(w.sandbox.store, (w.source.id,), kind, object_id)
        other = rows.by_id.pop("other")
        texts = (other.body.replace(b'"other"', b'"%s"' % ROW.encode()), other.tail)
        moved = type(other)(ROW, other.key, other.moment, other.created, texts)
        rows.rows[rows.keys.index(other.key)] = moved


def inputs(w: World, kind: str) -> List[Any]:
    return [row["input"] for row in w.dest.rows(kind, twin(w, kind)) if row["id"] == ROW]


@pytest.mark.parametrize(
    ("kind", "page", "newest_first"),
    [
        (LOGS, "4", False),
        (LOGS, "1000", True),
        (EXPERIMENT, "4", True),
        (EXPERIMENT, "1000", False),
        (DATASET, "4", True),
    ],
)
@pytest.mark.variants(1)
def test_the_last_version_is_copied_and_reported_and_everything_is_equal(
    kind: str, page: str, newest_first: bool, tmp_path: Path
) -> None:
    small = {"MIGRATION_EVENTS_FETCH_LIMIT": page, "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "2"}
    with living(tmp_path, rows=10) as w:
        show_twice(w, kind, newest_first=newest_first)
        for depth in (["--full"], ["--sample", "5"], ["--counts"]):
            end = sync(w, *depth, **small)
            assert end.code == 0, end.out + end.err
            assert inputs(w, kind) == ["first" if newest_first else "second"]
            if depth == ["--full"]:
                (told,) = findings(w.root, "row_repeated")
                assert (told["severity"], told["count"], told["row"]) == ("loss", 1, ROW)
        # an older version that comes first is replaced by the newer one of a later page
        assert sent(w).count((twin(w, kind), ROW)) == (1 if newest_first or page == "1000" else 2)


def test_a_version_that_a_sync_is_shown_twice_is_sent_once_and_nothing_is_to_accept(
    tmp_path: Path,
) -> None:
    with living(tmp_path, rows=10) as w:
        assert sync(w).code == 0
        later(w)
        show_twice(w, EXPERIMENT, newest_first=True)
        sent(w)
        end = sync(w, "--full")
        assert (end.code, "accept" in end.out, inputs(w, EXPERIMENT)) == (0, False, ["first"])
        assert [row for _, row in sent(w)].count(ROW) == 1
        assert call(w, "verify", "--full", "--quiet") == 0


def row(row_id: str, xact: int, of: str = "") -> dict:
    return {"id": row_id, "_xact_id": str(xact), "of": of}


def test_of_two_versions_on_a_page_the_last_transaction_counts() -> None:
    rows = [row("a", 2), row("b", 1), row("a", 1), row("b", 1)]
    assert newest_rows(rows) == [rows[0], rows[3]]
    assert newest_rows(rows[:2]) == rows[:2]
    apart = [row("a", 2, "x"), row("a", 1, "y")]
    assert newest_rows(apart, "of") == apart


def test_of_two_versions_on_two_pages_the_last_transaction_counts() -> None:
    versions = NewestVersions()
    assert versions.of("o", [row("a", 2), row("b", 1)]) == ([row("a", 2), row("b", 1)], [], [])
    assert versions.of("o", [row("a", 1), row("b", 2)]) == ([row("b", 2)], ["a"], ["b"])
    assert versions.of("other", [row("a", 1)]) == ([row("a", 1)], [], [])


def test_the_last_rows_are_remembered_and_others_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repeated, "REMEMBERED_ROWS", 10)
    versions = NewestVersions()
    for start in range(0, 50, 5):
        versions.of("o", [row(str(number), 2) for number in range(start, start + 5)])
    last = [str(number) for number in range(40, 50)]
    assert versions.of("o", [row(row_id, 1) for row_id in last]).older == last
    assert versions.of("o", [row("0", 1)]) == ([row("0", 1)], [], [])
