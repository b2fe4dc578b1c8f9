"""Shards and runs that do not fit are refused; what is missing or was killed can be completed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

from bt_migrate.phases import merge_runs as merge_runs
from bt_migrate.sandbox.data import inserts as inserts
from tests.support.compare_orgs import differences
from tests.support.orgs import Json, Pair, ended, environment, is_insert, runs, started, tiny_pair
from tests.support.sharding import (
    BIG,
    SMALL,
    call,
    merge,
    move,
    move_objects,
    plan,
    twice,
    units_of,
)


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuple[Pair, Path]]:
    """Objects and two of three shards have been moved; for tests that change nothing of it."""
    root = tmp_path_factory.mktemp("moved")
    with tiny_pair() as made:
        move_objects(made, root)
        plan(made, root, 3)
        assert [move(made, root, number).code for number in range(2)] == [0, 0]
        yield made, root


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


def test_a_shard_that_is_started_before_its_objects_exist_writes_nothing(
    small: Pair, tmp_path: Path
) -> None:
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
        ("objects 0", first, {}, "was given twice"),
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
    places = [runs(root / "objects")[0] / "organization" / "projects_state.json"]
    places += [next(runs(root / "0")[0].rglob("logs_state.json"))]
    objects, stream = (json.loads(place.read_text(encoding="utf-8")) for place in places)
    derived = {"completed_ids", "failed_ids", "id_mapping"}, {"failed_print"}  # by the next start
    named = (
        {"resource", "project", "round", "earlier", "unlisted", "absent"},
        {"header", "round", "above", "unseen", "absent_since", "gone", "deleted", "others"}
        | {"read_new", "silent_since", "unconfirmed"},
    )  # a run of several rounds is not joined
    joined = (
        {"outcomes", "findings", "fingerprints", "former", "deferred", "intended", "listed"}
        | {"left_out", "versions", "begun_versions"},
        {"slices", "counts", "findings", "done", "compared", "before_key", "error", "seconds"}
        | {"waiting"}
        | {"began", "failed", "transactions", "overwritten", "made", "read"}
        | {"replay", "newest"},
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
