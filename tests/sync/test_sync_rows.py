"""What the source wrote since the last sync arrives, once, and nothing else is written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from bt_migrate.rows.dest_rows import BYTES_LOOKED_UP, lookups
from tests.support.orgs import findings, report, runs
from tests.support.row_runs import WRITE, World, call, counted
from tests.support.syncs import (
    DATASET,
    EXPERIMENT,
    KINDS,
    LOGS,
    equal,
    first_sync,
    holder,
    later,
    living,
    marks,
    merge,
    queries,
    row,
    sent,
    sync,
    twin,
)


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    """A living source that was copied a day ago."""
    with living(tmp_path) as made:
        first_sync(made)
        later(made)
        made.sandbox.clear_requests()
        yield made


def differing(w: World) -> int:
    return sum(record["count"] for record in findings(w.root, "row_differs"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.variants(1)
def test_new_late_and_back_dated_rows_scores_and_edits_arrive_once(kind: str, w: World) -> None:
    source = holder(w, kind)
    score = {"metadata": {"score": 1}} if kind == DATASET else {"scores": {"good": 1}}
    w.source.insert(kind, source, [row("new"), row("back", created="2020-01-01T00:00:00.000Z")])
    merge(w.source, kind, source, [{"id": "r00003", **score}])
    w.source.insert(kind, source, [row("r00004", metadata={"edited": True})])
    end = sync(w)
    assert (end.code, equal(w), sorted(row_id for _, row_id in sent(w))) == (
        0,
        True,
        ["back", "new", "r00003", "r00004"],
    ), end.last_words
    name = next(stream["name"] for stream in report(w.root)["rows"] if stream["fetched"])
    assert counted(w.root)[name] == {"fetched": 4, "created": 2, "updated": 2}
    assert len(runs(w.root)) == 1


def test_each_sync_copies_what_is_new_since_the_last(w: World) -> None:
    for number in range(3):
        w.source.insert(
            LOGS, holder(w, LOGS), [row(f"new {number}"), row("r00001", metadata={"round": number})]
        )
        end = sync(w)
        assert (end.code, equal(w)) == (0, True), end.last_words
        assert sorted(row_id for _, row_id in sent(w)) == [f"new {number}", "r00001"]
        assert report(w.root)["totals"]["rows"]["fetched"] == 2


def test_rows_that_the_lookback_reads_again_are_not_sent_again(w: World) -> None:
    w.source.insert(LOGS, holder(w, LOGS), [row("a"), row("r00002", metadata={"x": 1})])
    assert (sync(w).code, len(sent(w))) == (0, 2)
    w.sandbox.clear_requests()
    end = sync(w, "--lookback", "2h", after_s=60)
    assert (end.code, sent(w), w.sandbox.writes(WRITE)) == (0, [], []), end.last_words
    assert report(w.root)["totals"]["rows"] == {"bytes": 0, "fetched": 2, "found": 2}
    assert queries(w, WRITE) == 0  # what is recorded is not looked up


def test_the_lookback_finds_rows_that_were_not_shown_before(w: World) -> None:
    """It was written before the mark and before a row that was read, and appears behind them."""
    other = w.source.create("project", {"name": "other"})["id"]
    w.source.insert(LOGS, other, [row("newer")])
    assert sync(w, after_s=60).code == 0
    w.source.insert(LOGS, holder(w, LOGS), [row("slow")], at=int(w.sandbox.clock.seconds()) - 300)
    assert (sync(w, "--lookback", "1m", after_s=60).code, equal(w)) == (0, False)
    assert (sync(w, after_s=60).code, equal(w)) == (0, True)


def test_a_comment_travels_with_the_next_change_of_its_row(w: World) -> None:
    w.source.comment(LOGS, holder(w, LOGS), "r00005", "look at this")
    merge(w.source, LOGS, holder(w, LOGS), [{"id": "r00005", "scores": {"s": 0.5}}])
    assert (sync(w).code, equal(w)) == (0, True)
    assert [
        comment["comment"]["text"] for comment in w.dest.comments(LOGS, twin(w, LOGS))["r00005"]
    ] == ["look at this"]
    w.sandbox.clear_requests()
    assert (sync(w, "--lookback", "1d").code, w.sandbox.writes(WRITE)) == (0, [])


# Edited in the destination
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "row_id"),
    [
        (LOGS, "r00000"),
        (DATASET, "r00029"),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in ((LOGS, "r00029"), (EXPERIMENT, "r00000"), (DATASET, "r00000"))
        ),
    ],
)
@pytest.mark.variants(1)
def test_a_row_that_was_edited_in_the_destination_is_kept_and_reported(
    kind: str, row_id: str, w: World
) -> None:
    w.dest.insert(kind, twin(w, kind), [row(row_id, metadata={"by": "a person"})])
    w.source.insert(kind, holder(w, kind), [row(row_id, metadata={"by": "the source"})])
    end = sync(w)
    assert (end.code, sent(w), differing(w)) == (1, [], 1), end.last_words
    assert "changed in the destination" in (runs(w.root)[-1] / "migration_summary.txt").read_text()
    word = {LOGS: "logs", EXPERIMENT: "experiments", DATASET: "datasets"}[kind]
    assert (sync(w, "--on-conflict", f"{word}=update", "--lookback", "1d").code, equal(w)) == (
        0,
        True,
    )


def test_a_row_that_was_delivered_by_a_round_and_then_edited_in_the_destination_is_kept(
    w: World,
) -> None:
    w.source.insert(LOGS, holder(w, LOGS), [row("new", output=1)])
    assert sync(w).code == 0
    later(w, 60)
    w.dest.insert(LOGS, twin(w, LOGS), [row("new", output="reviewed")])
    later(w, 60)
    w.source.insert(LOGS, holder(w, LOGS), [row("new", output=2), row("r00007", output=2)])
    end = sync(w)
    assert (end.code, [row_id for _, row_id in sent(w)][1:], differing(w)) == (1, ["r00007"], 1), (
        end.last_words
    )


def test_a_row_that_a_person_deleted_in_the_destination_comes_back_with_its_next_change(
    w: World,
) -> None:
    w.dest.insert(LOGS, twin(w, LOGS), [{"id": "r00003", "_object_delete": True}])
    w.source.insert(LOGS, holder(w, LOGS), [row("r00003", output="new")])
    assert (sync(w).code, equal(w)) == (0, True)


@pytest.mark.parametrize("use", ["true", pytest.param("false", marks=pytest.mark.long)])
def test_rows_that_were_there_before_follow_the_source_only_if_they_were_equal(
    use: str, tmp_path: Path
) -> None:
    with living(tmp_path) as w:
        project = w.dest.create("project", {"name": "p00"})["id"]
        same = [
            {
                name: value
                for name, value in row_.items()
                if name in ("id", "input", "metadata", "created", "span_id", "root_span_id")
            }
            for row_ in w.source.rows(LOGS, w.project)[:3]
        ]
        w.dest.insert(LOGS, project, [*same, row("r00009", output="theirs")])
        assert sync(w, MIGRATION_EVENTS_USE_SEEN_DB=use).code == 1  # one differs
        sent(w)
        w.dest.insert(LOGS, project, [row("r00002", output="theirs")])
        sent(w)
        changed = ("r00001", "r00002", "r00009", "r00020")
        w.source.insert(LOGS, w.project, [row(row_id, output="new") for row_id in changed])
        end = sync(w, MIGRATION_EVENTS_USE_SEEN_DB=use)
        written = sorted(row_id for _, row_id in sent(w))
        assert (end.code, written, differing(w)) == (1, ["r00001", "r00020"], 2), end.last_words
        w.source.insert(LOGS, w.project, [row("r00001", output="newer")])
        end = sync(w, MIGRATION_EVENTS_USE_SEEN_DB=use)
        assert [row_id for _, row_id in sent(w)] == ["r00001"], end.last_words


def test_a_sync_in_the_second_of_two_runs_follows_rows_that_the_first_one_wrote(w: World) -> None:
    assert (call(w, "migrate_all", "--new-run", "--no-verify"), equal(w)) == (0, True)
    later(w)
    for kind in KINDS:
        w.source.insert(kind, holder(w, kind), [row("r00003", metadata={"by": "the source"})])
    assert (sync(w).code, equal(w)) == (0, True)
    for kind in KINDS:  # found by this run, then edited by a person, then by the source
        w.dest.insert(kind, twin(w, kind), [row("r00004", metadata={"by": "a person"})])
        w.source.insert(kind, holder(w, kind), [row("r00004", metadata={"by": "the source"})])
    assert (sync(w).code, differing(w)) == (1, 3)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([1] * 500, [500]),
        ([1] * 1001, [500, 500, 1]),
        ([BYTES_LOOKED_UP], [1]),
        ([BYTES_LOOKED_UP + 1, 1, 1], [1, 2]),
        ([BYTES_LOOKED_UP // 2] * 5, [2, 2, 1]),
    ],
)
def test_rows_are_looked_up_in_groups_that_fit_into_an_answer(
    sizes: List[int], expected: List[int]
) -> None:
    wanted = {f"r{number}": size for number, size in enumerate(sizes)}
    found = list(lookups(wanted))
    assert ([len(part) for part in found], [row_id for part in found for row_id in part]) == (
        expected,
        list(wanted),
    )


# Nothing new
# -----------------------------------------------------------------------------------------


def test_nothing_new_in_20_projects_is_a_count_and_a_page_of_a_group_and_no_write(
    tmp_path: Path,
) -> None:
    with living(tmp_path, projects=20) as w:
        assert sync(w).code == 0
        before, files = marks(w), stamps(w)
        w.sandbox.clear_requests()
        end = sync(w)
        assert (end.code, w.sandbox.writes(WRITE)) == (0, []), end.last_words
        assert [
            one_ for one_ in w.sandbox.requests if one_.org_name == WRITE and one_.method != "GET"
        ] == []
        assert queries(w, "acme") == 3 * (1 + 1 + 1)  # of each kind two counts and a page
        assert stamps(w) == files
        assert {
            kind: mark["from"] > before[kind]["from"] if before else True
            for kind, mark in marks(w).items()
        } == dict.fromkeys(("logs", "experiments", "datasets"), True)
        assert report(w.root)["totals"]["rows"] == {"bytes": 0, "fetched": 0}


def stamps(w: World) -> Dict[str, Any]:
    """The files of streams, and when they were written."""
    found = [path for pattern in ("*/*/logs_*", "*/*/*_events/*") for path in w.root.glob(pattern)]
    return {str(path): (os.stat(path).st_ino, os.stat(path).st_mtime_ns) for path in found}


def test_a_server_that_knows_only_the_first_id_of_a_from_loses_nothing(tmp_path: Path) -> None:
    with living(tmp_path, projects=3) as w:
        w.sandbox.only_first_id = True
        assert (sync(w).code, equal(w)) == (0, True)
        for number in range(3):
            w.source.insert(
                LOGS, holder(w, LOGS, number), [row("new"), row("r00001", output=number)]
            )
        end = sync(w)
        assert (end.code, equal(w)) == (0, True), end.last_words


# Phases alone
# ----------------------------------------------------------------------------------------


def test_a_phase_alone_advances_its_own_mark_only(w: World) -> None:
    for kind in KINDS:
        w.source.insert(kind, holder(w, kind), [row("new")])
    assert sync(w, program="migrate_logs").code == 0
    assert (list(marks(w)), [object_id for object_id, _ in sent(w)]) == (["logs"], [twin(w, LOGS)])
    assert (sync(w).code, equal(w), sorted(marks(w))) == (
        0,
        True,
        ["datasets", "experiments", "logs"],
    )
    assert len(runs(w.root)) == 1


def test_phase_scripts_share_a_run_and_each_goes_on_in_it(tmp_path: Path) -> None:
    programs = {
        LOGS: "migrate_logs",
        EXPERIMENT: "migrate_experiments",
        DATASET: "migrate_datasets",
    }
    with living(tmp_path) as w:
        for _ in range(2):
            for kind, program in programs.items():
                w.source.insert(kind, holder(w, kind), [row("new")])
                assert sync(w, program=program).code == 0
        assert (equal(w), len(runs(w.root)), sorted(marks(w))) == (
            True,
            1,
            ["datasets", "experiments", "logs"],
        )


def test_a_window_and_a_new_run_are_refused_together_with_since_last(w: World) -> None:
    lines: List[str] = []
    for words in (
        ["--window", "daily"],
        ["--created-after", "-2d"],
        ["--fill-gaps"],
        ["--new-run"],
    ):
        end = sync(w, *words)
        assert (end.code, len(end.err.splitlines())) == (2, 1)
        lines.append(end.err)
    assert all("--since-last" in line for line in lines)
