"""Shards are planned, moved by several processes, and merged into one run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Set, Tuple

import pytest

from bt_migrate.api.transactions import after_second, key_number
from bt_migrate.migration.lag import mark_seconds
from bt_migrate.phases import merge_runs as merge_runs
from bt_migrate.sandbox.data import inserts as inserts
from bt_migrate.state.run_record import read_run
from tests.migration.test_undo import inhabit, plain, undo
from tests.support import row_runs
from tests.support.compare_orgs import differences
from tests.support.orgs import (
    DEST_KEY,
    SOURCE_KEY,
    Ended,
    Json,
    Pair,
    ended,
    environment,
    everything,
    is_insert,
    run,
    runs,
    started,
    tiny_pair,
)

FETCH, BATCH, CONCURRENT = 40, 15, 4
SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": str(FETCH), "MIGRATION_EVENTS_INSERT_BATCH_SIZE": str(BATCH),
    "MIGRATION_CHECKPOINT_INTERVAL": "2", "MIGRATION_MAX_CONCURRENT": str(CONCURRENT),
}  # fmt: skip
BIG = "Big"
TIES = 30  # rows of one key: fewer than a page, which is what a stream can take

# Two organizations -----------------------------------------------------------------------------


def fill_big(org: Any, sandbox: Any) -> str:
    """A log with most of the data: single rows, bulks, months of silence, many rows of one key."""
    project = str(org.create("project", {"name": BIG})["id"])
    rows: Iterator[Json] = (
        {"id": f"big {number:05}", "input": {"n": number}, "tags": ["x"]}
        for number in range(10_000)
    )
    for number, count in enumerate((1, 1, 700, 1, *[3] * 20, 400, *[1] * 40, 300)):
        org.insert(
            "project_logs",
            project,
            [next(rows) for _ in range(count)],
            at=1_700_000_000 + number * 86_400,
        )
    with sandbox.store.lock:
        held = inserts.row_set(sandbox.store, (org.id,), "project_logs", project)
        last = held.rows[-1].moment + 1
        for _ in range(TIES):
            held.write(last, 7, next(rows))
        held.moments[last] = 0.0
    org.insert("project_logs", project, [next(rows) for _ in range(150)])
    return project


@pytest.fixture
def small() -> Iterator[Pair]:
    """Without a large log."""
    with tiny_pair() as made:
        yield made


@pytest.fixture
def pair(small: Pair) -> Pair:
    fill_big(small.source, small.sandbox)
    return small


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[Pair, Path]]:
    """Objects and two of three shards have been moved; for tests that change nothing of it."""
    root = tmp_path_factory.mktemp("moved")
    with tiny_pair() as made:
        move_objects(made, root)
        plan(made, root, 3)
        assert [move(made, root, number).code for number in range(2)] == [0, 0]
        yield made, root


def call(
    pair: Pair, root: Path, *args: str, program: str = "migrate_all", **settings: str
) -> Ended:
    """Run a program in this process, which is faster. migrate-all does not verify here."""
    out, err = io.StringIO(), io.StringIO()
    given = ("--no-verify", *args) if program == "migrate_all" else args
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        world = row_runs.World(pair.sandbox, pair.source, pair.dest, "", root)  # type: ignore[arg-type]
        code = row_runs.call(world, program, *given, **SMALL, **settings)
    return Ended(code, out.getvalue(), err.getvalue())


def plan(pair: Pair, root: Path, shards: int, *args: str) -> List[Json]:
    """Plan into root/shards.jsonl; returns the lines."""
    done = call(pair, root / "objects", "--shards", str(shards), *args, program="plan_shards")
    assert done.code == 0, done.last_words
    (root / "shards.jsonl").write_text(done.out, encoding="utf-8")
    return [json.loads(line) for line in done.out.splitlines()]


def move_objects(pair: Pair, root: Path) -> None:
    done = call(pair, root / "objects", "--no-rows")
    assert done.code == 0, done.out + done.last_words


def move(pair: Pair, root: Path, number: int, program: str = "migrate_all") -> Ended:
    return call(
        pair, root / str(number), "--shard", f"{root}/shards.jsonl:{number}", program=program
    )


def merge(root: Path, *names: str) -> Ended:
    """Without any key: nobody is asked."""
    given = [str(root / name) if not name.startswith("--") else name for name in names]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = merge_runs.main([*given, "--state-dir", str(root / "whole")])
    return Ended(code, out.getvalue(), err.getvalue())


def files(*folders: Path) -> Dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }


def units_of(shard: Json, **wanted: Any) -> List[Json]:
    return [
        item
        for item in shard["units"]
        if all(item[name] == value for name, value in wanted.items())
    ]


def rows_of(pair: Pair, obj: Json) -> Set[Tuple[str, str]]:
    """(object id, row id) of a unit, worked out from the source's keys."""
    kind = {"logs": "project_logs", "experiments": "experiment", "datasets": "dataset"}[obj["kind"]]
    rows = pair.source.rows(kind, obj["id"])
    low, high = obj.get("after", ""), obj.get("end", "~")
    return {(obj["id"], row["id"]) for row in rows if low < row["_pagination_key"] <= high}


def twice(pair: Pair) -> Set[Tuple[str, str]]:
    """Rows that were inserted more than once; a merge of one field is no second insert."""
    counted = Counter((dest, row) for dest, row, is_merge in pair.sandbox.inserted if not is_merge)
    return {place for place, count in counted.items() if count > 1}


# Planning --------------------------------------------------------------------------------------


def test_a_plan_is_even_whole_always_the_same_and_writes_nothing(
    pair: Pair, tmp_path: Path
) -> None:
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
    text = (tmp_path / "shards.jsonl").read_text(encoding="utf-8")
    assert not [
        word for word in (SOURCE_KEY, DEST_KEY, "big 0", "never-to-be-read") if word in text
    ]
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
    with contextlib.ExitStack() as stack:
        args = [("--shard", f"{tmp_path}/shards.jsonl:{number}") for number in range(4)]
        processes = [
            stack.enter_context(started(pair.sandbox, tmp_path / str(n), *args[n], **SMALL))
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
        unfinished = merge(tmp_path, "objects", "0", "1", "2", "3")
        assert (unfinished.code, BIG in unfinished.err, (tmp_path / "whole").exists()) == (
            2,
            True,
            False,
        ), unfinished.err
        over[killed] = move(pair, tmp_path, killed)
    assert [item.code for item in over] == [0] * 4, [member.last_words for member in over]
    again = twice(pair)
    assert (len(again) <= (CONCURRENT + 1) * BATCH + FETCH, {row for _, row in again} <= rows) == (
        True,
        True,
    )
    assert kill or not again
    reads = [
        request
        for request in pair.sandbox.requests
        if request.org_name == "globex" and request.path.endswith("/btql")
    ]
    # The plan counts each of the 8 empty objects once; a shard does not look up planned objects.
    # to be new.
    assert len(reads) <= 8
    inputs = [tmp_path / name for name in ("objects", "0", "1", "2", "3")]
    as_they_were = files(*inputs)
    merged = merge(tmp_path, "objects", "0", "1", "2", "3")
    assert (merged.code, files(*inputs) == as_they_were, len(runs(tmp_path / "whole"))) == (
        0,
        True,
        1,
    ), merged.err
    (following,) = [line for line in merged.out.splitlines() if line.startswith("Next: ")]
    assert ("--shard" in following, "--no-rows" in following) == (False, False), following
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


def test_programs_of_one_kind_share_the_run_of_a_shard_and_say_when_they_have_nothing_to_do(
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


# What is refused -------------------------------------------------------------------------------


def test_a_shard_that_does_not_fit_is_refused_in_one_line(
    moved: Tuple[Pair, Path], tmp_path: Path
) -> None:
    pair, root = moved
    place, since = root / "shards.jsonl", len(pair.sandbox.inserted)
    lines = place.read_text(encoding="utf-8").splitlines()
    shards = [json.loads(line) for line in lines]
    other = {
        **shards[0],
        "source": {**shards[0]["source"], "org_id": "other", "org_name": "theirs"},
    }
    bad = {
        "no number": (f"{place}", "FILE:number"),
        "not a number": (f"{place}:", "FILE:number"),
        "no file": (f"{tmp_path}/none:0", "none cannot be read"),
        "beyond": (f"{place}:3", "has 3 lines, so shards 0 to 2; there is no shard 3"),
        "no JSON": ("{", "line 1 of"),
        "cut short": (lines[0][:200], "line 1 of"),
        "no shard": ('{"format": 1}', "line 1 of"),
        "format": (json.dumps({**shards[0], "format": 7}), "has format 7, this program reads 1"),
        "mixed": (lines[1], "line 1 of 1 in"),
        "organization": (
            json.dumps({**other, "of": 1}),
            "planned for source organization theirs (other)",
        ),
    }
    for name, (text, words) in bad.items():
        if not text.startswith("/"):
            (tmp_path / "bad").write_text(text + "\n", encoding="utf-8")
            text = f"{tmp_path}/bad:0"
        over = call(pair, tmp_path / "refused", "--shard", text, program="migrate_logs")
        assert (over.code, over.err.count("\n"), words in over.err) == (2, 1, True), (
            name,
            over.err,
        )
    for flag in (["--projects", BIG], ["--dry-run"], ["--no-rows"]):
        over = call(pair, tmp_path / "refused", "--shard", f"{place}:0", *flag)
        assert (over.code, flag[0] in over.err) == (2, True), over.err
    assert ((tmp_path / "refused").exists(), len(pair.sandbox.inserted)) == (False, since)


def test_a_folder_of_another_shard_is_refused_with_both_values(moved: Tuple[Pair, Path]) -> None:
    pair, root = moved
    name = plan_of(root / "0")
    for place in (root / "0", runs(root / "0")[0]):
        over = call(pair, place, "--shard", f"{root}/shards.jsonl:1")
        assert (
            over.code,
            f"shard 0 of 3 of plan {name}" in over.err,
            f"shard 1 of 3 of plan {name}" in over.err,
        ) == (2, True, True)
    assert (call(pair, root / "0").code, len(runs(root / "0"))) == (2, 1)


def test_a_shard_before_its_objects_writes_nothing(small: Pair, tmp_path: Path) -> None:
    plan(small, tmp_path, 2)
    over = move(small, tmp_path, 0)
    assert (
        over.code,
        "not in the destination; move the objects first" in over.err,
        small.sandbox.inserted,
    ) == (2, True, []), over.err
    move_objects(small, tmp_path)
    assert (move(small, tmp_path, 0).code, move(small, tmp_path, 1).code, twice(small)) == (
        0,
        0,
        set(),
    )


def test_runs_that_do_not_belong_together_are_not_merged(
    moved: Tuple[Pair, Path], tmp_path: Path
) -> None:
    pair, root = moved
    first, objects = runs(root / "0")[0], runs(root / "objects")[0]
    selection = json.loads((objects / "run.json").read_text(encoding="utf-8"))["selection"]
    shard = json.loads((first / "run.json").read_text(encoding="utf-8"))["shard"]
    renamed = {"selection": {**selection, "rename_projects": {"a": "b"}}}
    some = {"selection": {**selection, "projects": ["beta"]}}
    cases: List[Tuple[str, Path, Json, str]] = [
        ("objects", first, {}, f"shard 1 of 3 of plan {shard['plan']}; shard 2 of 3"),
        ("objects 1", first, {}, f"shard 2 of 3 of plan {shard['plan']}"),
        ("objects 0", first, {}, "is there twice"),
        ("objects 1", first, {"shard": {**shard, "plan": "other"}}, "plan of shards: "),
        (
            "objects",
            first,
            {"dest": {"org_id": "else", "org_name": "x", "url": "y"}},
            "dest organization: ",
        ),
        ("objects", first, {"undone": {"started": "then"}}, "was undone"),
        ("objects", first, {"dry_run": True}, "is a dry run"),
        ("objects", first, {"round": 1}, "was continued with --since-last"),
        ("0", objects, renamed, "rename_projects: "),
        ("0 1", objects, some, "projects: ('beta',) of "),
        ("objects objects", first, {}, "is named twice"),
        ("objects nothing", first, {}, "holds no runs"),
    ]
    for number, (names, run_directory, change, words) in enumerate(cases):
        copy_run(run_directory, tmp_path / str(number) / "run", change)
        over = merge(tmp_path, *(str(root / name) for name in names.split()), str(number))
        assert (over.code, words in over.err, over.err.count("\n")) == (2, True, 1), (
            names,
            over.err,
        )
    assert not (tmp_path / "whole").exists()


def test_a_merge_knows_every_field_of_the_state_that_it_joins(moved: Tuple[Pair, Path]) -> None:
    """A new field of a checkpoint needs a rule in merge.py for joining runs, then a line here."""
    _, root = moved
    objects = json.loads(
        (runs(root / "objects")[0] / "organization" / "projects_state.json").read_text(
            encoding="utf-8"
        )
    )
    stream = json.loads(
        next(runs(root / "0")[0].rglob("logs_state.json")).read_text(encoding="utf-8")
    )
    derived = {"completed_ids", "failed_ids", "id_mapping"}, {"pagination_key"}
    named = (
        {"resource", "project", "round", "earlier", "absent"},
        {"header", "round", "above", "unseen", "absent_since", "gone", "deleted", "others"}
        | {"read_new", "silent_since"},
    )  # a run of several rounds is not joined
    joined = (
        {
            "outcomes",
            "findings",
            "fingerprints",
            "former",
            "deferred",
            "intended",
            "listed",
            "left_out",
            "versions",
            "begun_versions",
        },
        {
            "slices",
            "counts",
            "findings",
            "done",
            "compared",
            "before_key",
            "error",
            "seconds",
            "waiting",
        }
        | {"began", "failed", "delivered_until", "transactions", "overwritten", "made", "read"}
        | {"replay"},
    )
    for fields, *known in zip((objects, stream), derived, named, joined):
        assert set(fields) == {"format"}.union(*known)


def plan_of(root: Path) -> str:
    return str(
        json.loads((runs(root)[0] / "run.json").read_text(encoding="utf-8"))["shard"]["plan"]
    )


def copy_run(run_directory: Path, place: Path, change: Json) -> None:
    place.mkdir(parents=True)
    for path in run_directory.rglob("*"):
        if path.is_file():
            (place / path.relative_to(run_directory)).parent.mkdir(parents=True, exist_ok=True)
            (place / path.relative_to(run_directory)).write_bytes(path.read_bytes())
    data = json.loads((place / "run.json").read_text(encoding="utf-8"))
    (place / "run.json").write_text(json.dumps({**data, **change}), encoding="utf-8")


def test_a_run_that_is_in_use_is_not_merged(small: Pair, tmp_path: Path) -> None:
    move_objects(small, tmp_path)
    plan(small, tmp_path, 1)
    reached, go = threading.Event(), threading.Event()

    def hold(number: int, moment: str, method: str, path: str) -> None:
        if is_insert(path):
            reached.set()
            go.wait(60)

    small.sandbox.on_request = hold
    with started(
        small.sandbox, tmp_path / "0", "--shard", f"{tmp_path}/shards.jsonl:0", **SMALL
    ) as process:
        assert reached.wait(60)
        over = merge(tmp_path, "objects", "0")
        go.set()
        assert (
            over.code,
            f"process {process.pid} is working on this run" in over.err,
            ended(process).code,
        ) == (4, True, 0), over.err
    small.sandbox.on_request = None
    assert merge(tmp_path, "objects", "0").code == 0


@pytest.mark.long
def test_shards_that_are_missing_are_moved_by_the_run_that_is_joined_without_them(
    pair: Pair, tmp_path: Path
) -> None:
    move_objects(pair, tmp_path)
    shards = plan(pair, tmp_path, 4)
    present = [number for number in range(4) if number != 2]
    assert [move(pair, tmp_path, number).code for number in present] == [0, 0, 0]
    merged = merge(tmp_path, "--unfinished", "objects", *map(str, present))
    assert merged.code == 0, merged.err
    state = json.loads(
        (runs(tmp_path / "whole")[0] / BIG / "logs_state.json").read_text(encoding="utf-8")
    )
    gap = units_of(shards[2], name=BIG)[0]
    assert [(item["after"], item["end"]) for item in state["slices"] if not item["done"]] == [
        (gap.get("after"), gap.get("end"))
    ]
    whole = call(pair, tmp_path / "whole")
    assert (whole.code, differences(pair), twice(pair)) == (0, [], set()), (
        whole.out + whole.last_words
    )


def test_a_merge_that_is_killed_leaves_no_run(small: Pair, tmp_path: Path) -> None:
    move_objects(small, tmp_path)
    plan(small, tmp_path, 1)
    assert move(small, tmp_path, 0).code == 0
    pipe = next(runs(tmp_path / "0")[0].rglob("logs_state.json")).with_name("logs_failed.jsonl")
    os.mkfifo(pipe)  # the merge comes to a stand where it reads it
    command = [
        sys.executable,
        "-m",
        "bt_migrate.phases.merge_runs",
        str(tmp_path / "objects"),
        str(tmp_path / "0"),
    ]
    command += ["--state-dir", str(tmp_path / "whole")]
    with subprocess.Popen(command, env=environment(small.sandbox), cwd=tmp_path) as process, open(
        pipe, "wb"
    ):  # waits for it
        process.kill()
    assert (
        process.returncode,
        runs(tmp_path / "whole"),
        [path.name[:7] for path in (tmp_path / "whole").iterdir()],
    ) == (-9, [], ["merging"])
    pipe.unlink()
    assert merge(tmp_path, "objects", "0").code == 0
    whole = call(small, tmp_path / "whole")
    assert (whole.code, differences(small), len(runs(tmp_path / "whole"))) == (0, [], 1), (
        whole.last_words
    )


def test_existing_rows_are_found_whatever_the_destinations_clock_shows(
    small: Pair, tmp_path: Path
) -> None:
    small.sandbox.clock.set(time.time() + 3600)
    project = small.dest.create("project", {"name": "beta"})["id"]
    small.dest.insert("project_logs", project, [{"id": "0003", "input": "theirs"}])
    move_objects(small, tmp_path)
    plan(small, tmp_path, 1, "--projects", "beta", "--resources", "logs")
    assert move(small, tmp_path, 0).code == 1  # one differs
    assert (
        next(
            row["input"] for row in small.dest.rows("project_logs", project) if row["id"] == "0003"
        )
        == "theirs"
    )
