"""Shards are planned, moved by several processes, and merged into one run."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Dict, Iterator, Sequence, Set, Tuple

import pytest

from bt_migrate.api.transactions import after_second, key_number
from bt_migrate.migration.lag import mark_seconds
from bt_migrate.phases import merge_runs as merge_runs
from bt_migrate.sandbox.data import inserts as inserts
from bt_migrate.state.run_record import read_run
from tests.support.compare_orgs import differences
from tests.support.orgs import (
    DEST_KEY,
    SOURCE_KEY,
    Json,
    Pair,
    ended,
    everything,
    run,
    runs,
    started,
)
from tests.support.sharding import (
    BATCH,
    BIG,
    CONCURRENT,
    FETCH,
    SMALL,
    Ended,
    call,
    merge,
    move,
    move_objects,
    plan,
    twice,
    units_of,
)
from tests.support.undoing import inhabit, plain, undo


def files(*folders: Path) -> Dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows_of(pair: Pair, obj: Json) -> Set[Tuple[str, str]]:
    """(object id, row id) of a unit, worked out from the source's keys."""
    kind = {"logs": "project_logs", "experiments": "experiment", "datasets": "dataset"}[obj["kind"]]
    rows = pair.source.rows(kind, obj["id"])
    low, high = obj.get("after", ""), obj.get("end", "~")
    return {(obj["id"], row["id"]) for row in rows if low < row["_pagination_key"] <= high}


# Planning --------------------------------------------------------------------------------------


def test_a_plan_of_shards_is_repeatable_and_writes_nothing(pair: Pair, tmp_path: Path) -> None:
    move_objects(pair, tmp_path)
    pair.sandbox.clear_requests()
    before = everything(pair.dest)
    shards = plan(pair, tmp_path, 4)
    queries = sum(request.path.endswith("/btql") for request in pair.sandbox.requests)
    assert (
        pair.sandbox.writes("acme"),
        pair.sandbox.writes("globex"),
        everything(pair.dest) == before,
    ) == ([], [], True)
    assert queries < 60
    assert [item["units"] for item in plan(pair, tmp_path, 4)] == [item["units"] for item in shards]
    text = (tmp_path / "shards.jsonl").read_text(encoding="utf-8")
    assert not [
        word for word in (SOURCE_KEY, DEST_KEY, "big 0", "never-to-be-read") if word in text
    ]


def test_a_plan_of_shards_is_even_and_complete(pair: Pair, tmp_path: Path) -> None:
    move_objects(pair, tmp_path)
    shards = plan(pair, tmp_path, 4)
    places = Counter(
        place for shard in shards for item in shard["units"] for place in rows_of(pair, item)
    )
    rows = [
        len({place for thing in shard["units"] for place in rows_of(pair, thing)})
        for shard in shards
    ]
    assert (set(places.values()), rows) == ({1}, [shard["rows"] for shard in shards])
    everywhere = sum(
        len(pair.source.rows(kind, obj["id"]))
        for kind, holder in ROWS
        for obj in pair.source.objects(holder)
    )
    assert (len(places), max(rows) < 1.15 * sum(rows) / 4, min(rows) > 0.85 * sum(rows) / 4) == (
        everywhere,
        True,
        True,
    ), rows
    assert all(member["new"] for shard in shards for member in shard["units"])
    logs = [value for shard in shards for value in units_of(shard, name=BIG)]
    ends = sorted(entry["end"] for entry in logs if "end" in entry)
    assert (len(logs) >= 3, sorted(item["after"] for item in logs if "after" in item)) == (
        True,
        ends,
    )


ROWS = (("project_logs", "project"), ("experiment", "experiment"), ("dataset", "dataset"))


def test_a_plan_of_some_resources_and_of_a_window_holds_these_only(
    small: Pair, tmp_path: Path
) -> None:
    move_objects(small, tmp_path)
    window = ("--created-after", "2025-10-10", "--created-before", "2025-10-20")
    shards = plan(small, tmp_path, 3, "--resources", "logs,datasets", *window)
    counted = Counter(
        {(item["kind"], item["name"]): 0 for shard in shards for item in shard["units"]}
    )
    for shard in shards:
        for entry in shard["units"]:
            counted[entry["kind"], entry["name"]] += entry["rows"]
    inside = {
        name: sum(
            "2025-10-10" <= row["created"] < "2025-10-20"
            for row in small.source.rows("project_logs", project)
        )
        for name, project in ((obj["name"], obj["id"]) for obj in small.source.objects("project"))
    }
    assert counted == {
        ("datasets", "questions"): 45,
        ("datasets", "answers"): 45,
        **{("logs", name): n for name, n in inside.items()},
    }


# Moving ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def killing(
    pair: Pair, rows: Set[str], process: subprocess.Popen[str]
) -> Iterator[threading.Event]:
    """Kill the process once some of these rows were inserted."""
    done, lock = threading.Event(), threading.Lock()

    def look(number: int, moment: str, method: str, path: str) -> None:
        with lock:
            arrived = sum(row in rows for _, row, _ in list(pair.sandbox.inserted))
            if moment == "after" and not done.is_set() and arrived > 4 * BATCH:
                process.send_signal(signal.SIGKILL)
                done.set()

    pair.sandbox.on_request = look
    try:
        yield done
    finally:
        pair.sandbox.on_request = None


@pytest.mark.parametrize(
    "kill",
    [pytest.param(False, marks=pytest.mark.long), True],
    ids=["nobody-killed", "one-killed"],
)
def test_four_processes_at_once_end_as_one_run_that_is_verified_and_undone(
    kill: bool, pair: Pair, tmp_path: Path
) -> None:
    before = everything(pair.dest)
    move_objects(pair, tmp_path)
    pair.sandbox.clear_requests()
    shards = plan(pair, tmp_path, 4)
    again = copy_in_four_processes(pair, tmp_path, shards, kill=kill)
    reads = [
        request
        for request in pair.sandbox.requests
        if request.org_name == "globex" and request.path.endswith("/btql")
    ]
    # The plan counts each of the 8 empty objects once; a shard does not look up planned objects.
    # The shard that was killed looks up what it may have sent.
    assert len(reads) <= (16 if kill else 8)
    merged = merge_all(tmp_path)
    whole = call(pair, tmp_path / "whole")  # what comes after rows
    assert (whole.code, differences(pair)) == (0, []), whole.out + whole.last_words
    assert (twice(pair), len(runs(tmp_path / "whole"))) == (again, 1)
    verified = call(pair, runs(tmp_path / "whole")[0], "--full", program="verify")
    assert (verified.code, runs(tmp_path / "whole")[0].name in merged.out) == (0, True), (
        verified.out
    )
    check_books(pair, tmp_path / "whole", shards)
    held = files(tmp_path / "whole")
    assert not [
        path
        for path, content in held.items()
        if SOURCE_KEY.encode() in content or DEST_KEY.encode() in content
    ]
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "whole").rglob("*")} == {0}
    undone = undo(pair, tmp_path / "whole", "--yes")
    assert (undone.code, plain(everything(pair.dest))) == (0, plain(before)), (
        undone.out + undone.err
    )


def copy_in_four_processes(
    pair: Pair, root: Path, shards: Sequence[Json], *, kill: bool
) -> Set[Tuple[str, str]]:
    """Copy the shards at once. One may be killed and goes on. Returns what was sent twice."""
    with contextlib.ExitStack() as stack:
        args = [("--shard", f"{root}/shards.jsonl:{number}") for number in range(4)]
        processes = [
            stack.enter_context(started(pair.sandbox, root / str(n), *args[n], **SMALL))
            for n in range(4)
        ]
        slices = [units_of(shard, name=BIG) for shard in shards]
        killed = max(range(4), key=lambda number: sum(value["rows"] for value in slices[number]))
        rows = {row for entry in slices[killed] for _, row in rows_of(pair, entry)}
        if kill:
            dead = stack.enter_context(killing(pair, rows, processes[killed]))
        over = [ended(process) for process in processes]
    if kill:
        assert (dead.is_set(), over[killed].code) == (True, -signal.SIGKILL)
        unfinished = merge(root, "objects", "0", "1", "2", "3")
        assert (unfinished.code, BIG in unfinished.err, (root / "whole").exists()) == (
            2,
            True,
            False,
        ), unfinished.err
        over[killed] = move(pair, root, killed)
    assert [item.code for item in over] == [0] * 4, [member.last_words for member in over]
    again = twice(pair)
    assert (len(again) <= (CONCURRENT + 1) * BATCH + FETCH, {row for _, row in again} <= rows) == (
        True,
        True,
    )
    assert kill or not again
    return again


def merge_all(root: Path) -> Ended:
    """Join the runs of the shards and that of the objects, which stay as they are."""
    inputs = [root / name for name in ("objects", "0", "1", "2", "3")]
    as_they_were = files(*inputs)
    merged = merge(root, "objects", "0", "1", "2", "3")
    assert (merged.code, files(*inputs) == as_they_were, len(runs(root / "whole"))) == (
        0,
        True,
        1,
    ), merged.err
    assert merged.out.startswith("5 runs merged: acme -> globex\n")
    assert "This start" not in merged.out and "\nThe run, " in merged.out
    (following,) = [line for line in merged.out.splitlines() if line.startswith("Next: ")]
    assert ("--shard" in following, "--no-rows" in following) == (False, False), following
    return merged


def check_books(pair: Pair, root: Path, shards: Sequence[Json]) -> None:
    """The merged run counts each row once, has slices without a gap and the plan's sync mark."""
    place = runs(root)[0]
    state = json.loads((place / BIG / "logs_state.json").read_text(encoding="utf-8"))
    big = next(obj["id"] for obj in pair.source.objects("project") if obj["name"] == BIG)
    count = len(pair.source.rows("project_logs", big))
    assert (state["counts"]["fetched"], state["counts"]["created"], state["done"]) == (
        count,
        count,
        True,
    )
    ends = sorted(
        member["end"] for shard in shards for member in units_of(shard, name=BIG) if "end" in member
    )
    assert [item["end"] for item in state["slices"]] == [
        *ends,
        after_second(shards[0]["mark"]["source"]),
    ]
    record = read_run(place / "run.json")
    assert (record.finished, mark_seconds(record) <= shards[0]["mark"]["source"]) == (True, True)
    assert {entry.command for entry in record.sessions} == {"migrate-all", "verify"}
    report = json.loads((place / "migration_report.json").read_text(encoding="utf-8"))
    assert report["totals"]["rows"]["fetched"] == sum(shard["rows"] for shard in shards)


def test_a_destination_in_use_is_as_before_after_the_undo_of_a_merged_run(
    pair: Pair, tmp_path: Path
) -> None:
    """Existing objects and rows stay; what the shards added to existing objects is deleted."""
    inhabit(pair)
    big = pair.dest.create("project", {"name": BIG})["id"]
    pair.dest.insert(
        "project_logs",
        big,
        [{"id": f"big {number:05}", "input": "theirs"} for number in range(0, 1500, 100)],
    )
    before = everything(pair.dest)
    assert call(pair, tmp_path / "objects", "--no-rows").code == 1  # some differ
    shards = plan(pair, tmp_path, 3)
    assert {item["name"] for shard in shards for item in shard["units"] if item["new"]} == {
        "answers",
        "middle",
        "last",
        "beta",
    }
    assert [move(pair, tmp_path, number).code for number in range(3)] == [
        1,
        1,
        1,
    ]  # in each some rows differ
    merged = merge(tmp_path, "objects", "0", "1", "2")
    assert merged.code == 0, merged.err
    kept = {
        row["input"]
        for row in pair.dest.rows("project_logs", big)
        if row["id"] in ("big 00000", "big 01400", "theirs")
    }
    assert kept == {"theirs"}
    undone = undo(pair, tmp_path / "whole", "--yes")
    assert (undone.code, plain(everything(pair.dest))) == (0, plain(before)), (
        undone.out + undone.err
    )


def test_phase_scripts_of_one_shard_share_its_run_and_say_when_they_have_nothing_to_do(
    small: Pair, tmp_path: Path
) -> None:
    move_objects(small, tmp_path)
    shards = plan(small, tmp_path, 2, "--resources", "datasets,logs")
    programs = ("migrate_datasets", "migrate_experiments", "migrate_logs")
    for number in range(2):
        over = [move(small, tmp_path, number, program) for program in programs]
        assert ([item.code for item in over], len(runs(tmp_path / str(number)))) == ([0, 0, 0], 1)
    told = run(
        small.sandbox,
        tmp_path / "0",
        "--shard",
        f"{tmp_path}/shards.jsonl:0",
        "--new-run",
        program="migrate_experiments",
    )
    assert (
        told.code,
        f"shard 0 of 2 of plan {shards[0]['plan']} has no rows of experiments" in told.err,
    ) == (0, True), told.err
    shutil.rmtree(runs(tmp_path / "0")[-1])
    since = len(small.sandbox.inserted)
    again = move(small, tmp_path, 1, "migrate_logs")
    assert (again.code, len(runs(tmp_path / "1")), len(small.sandbox.inserted)) == (
        0,
        1,
        since,
    )  # an engine that tries again
    assert merge(tmp_path, "objects", "0", "1").code == 0
    whole = call(small, tmp_path / "whole")  # with the experiments, which were in no shard
    assert (whole.code, differences(small), twice(small)) == (0, [], set()), whole.last_words


@pytest.mark.long
def test_what_is_written_after_planning_is_for_the_next_sync(pair: Pair, tmp_path: Path) -> None:
    move_objects(pair, tmp_path)
    shards = plan(pair, tmp_path, 2)
    while int(time.time()) <= shards[0]["mark"]["source"]:
        time.sleep(0.02)  # until the server's second is over
    ids = {
        obj["name"]: obj["id"]
        for kind in ("project", "dataset")
        for obj in pair.source.objects(kind)
    }
    for name, kind in ((BIG, "project_logs"), ("beta", "project_logs"), ("questions", "dataset")):
        pair.source.insert(kind, ids[name], [{"id": f"late {name}", "input": 1}])
    assert [move(pair, tmp_path, number).code for number in range(2)] == [0, 0]
    assert not [row for _, row, _ in pair.sandbox.inserted if row.startswith("late")]
    assert merge(tmp_path, "objects", "0", "1").code == 0
    record = read_run(runs(tmp_path / "whole")[0] / "run.json")
    written = key_number(pair.source.rows("project_logs", ids[BIG])[-1]["_pagination_key"]) >> 32
    assert mark_seconds(record) < written  # a sync from the mark on takes them
    assert call(pair, tmp_path / "whole").code == 0
    since = len(pair.sandbox.inserted)
    assert (
        call(pair, tmp_path / "whole", "--since-last", MIGRATION_LOOKBACK="0").code,
        differences(pair),
    ) == (0, [])
    sent = sorted(row for _, row, _ in pair.sandbox.inserted[since:])
    assert (sent, len(runs(tmp_path / "whole"))) == (["late Big", "late beta", "late questions"], 1)
