"""Undo: what a run created goes, and what was there before or is of somebody else stays."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import (
    AtRequest,
    Pair,
    environment,
    everything,
    is_insert,
    report,
    run,
    run_with,
    runs,
    tiny_pair,
)
from tests.support.undoing import (
    SMALL,
    found,
    inhabit,
    plain,
    planned_lines,
    shift_dates,
    undo,
    undo_run,
)


def last_run(root: Path) -> Any:
    return json.loads((runs(root)[-1] / "run.json").read_text(encoding="utf-8"))


def test_undo_leaves_a_destination_in_use_as_it_was(pair: Pair, tmp_path: Path) -> None:
    inhabit(pair)
    before, root = everything(pair.dest), tmp_path / "runs"
    assert run(pair.sandbox, root, **SMALL).code == 1  # some differ
    after = everything(pair.dest)
    listed = undo(pair, root)
    assert (listed.code, everything(pair.dest)) == (0, after), listed.last_words
    done = undo(pair, root, "--yes")
    assert (done.code, plain(everything(pair.dest))) == (0, plain(before)), done.out + done.err
    assert planned_lines(listed) == planned_lines(done)
    counted = last_run(root)["undone"]
    assert (counted["objects"] > 25, counted["rows"] > 300, counted["left"]) == (True, True, 0)
    pair.sandbox.clear_requests()
    again = undo(pair, root, "--yes")
    assert (again.code, pair.sandbox.writes("globex")) == (0, []), again.out
    # the run is over: it is not resumed, and a new one makes everything again
    assert run(pair.sandbox, runs(root)[-1]).code == 2
    assert (run(pair.sandbox, root).code, len(runs(root))) == (1, 2)
    assert undo(pair, root, "--yes").code == 0
    assert plain(everything(pair.dest)) == plain(before)


def test_undo_of_an_empty_destination_leaves_it_empty(pair: Pair, tmp_path: Path) -> None:
    before, root = everything(pair.dest), tmp_path / "runs"
    assert run(pair.sandbox, root).code == 0
    done = undo(pair, root, "--yes")
    assert (done.code, everything(pair.dest)) == (0, before), done.out + done.err


def test_a_dry_run_has_nothing_to_undo(pair: Pair, tmp_path: Path) -> None:
    run(pair.sandbox, tmp_path / "runs", "--dry-run")
    done = undo(pair, tmp_path / "runs", "--yes")
    (line,) = done.err.splitlines()
    assert (done.code, done.out, "is a dry run" in line) == (2, "", True), done.out + done.err


def test_rows_that_the_destination_does_not_show_yet_are_reported(
    pair: Pair, tmp_path: Path
) -> None:
    inhabit(pair)
    before, root = everything(pair.dest), tmp_path / "runs"
    run(pair.sandbox, root, "--resources", "datasets")
    questions = found(pair.dest, "dataset", "questions")["id"].encode()
    nothing = Answer(200, b'{"data":[],"cursor":null}')
    pair.sandbox.refuse = lambda method, path, raw: (
        nothing if path == "/btql" and questions in raw and b"select: *" in raw else None
    )
    listed, done = undo(pair, root), undo(pair, root, "--yes")
    told = (
        "left: 42 rows of datasets 'questions' of 'Alpha/α': not shown, maybe not yet; run the "
        "same command again"
    )
    assert (told in listed.out, told in done.out, done.code) == (True, True, 1), done.out
    pair.sandbox.refuse = None
    again = undo(pair, root, "--yes")
    assert (again.code, plain(everything(pair.dest))) == (0, plain(before)), again.out


# Killed and resumed -------------------------------------------------------------------------------


def writes_to(part: str) -> Any:
    return lambda method, path: method == "POST" and part in path and path != "/btql"


PLACES = [
    ("/v1/project", 2, "after"),  # a project is made, and nobody has written that down
    ("/logs3", 4, "after"),  # rows have arrived, and nobody has written that down
    *(
        pytest.param(*place, marks=pytest.mark.long)
        for place in (
            ("/v1/function", 2, "after"),
            ("/v1/view", 1, "after"),
            ("/v1/acl", 2, "before"),
            ("/logs3", 2, "after"),
            ("/logs3", 9, "before"),
        )
    ),
]


@pytest.mark.parametrize(("part", "at", "moment"), PLACES)
@pytest.mark.variants(1)
def test_undo_of_a_killed_run_and_of_a_resumed_one(
    part: str, at: int, moment: str, pair: Pair, tmp_path: Path
) -> None:
    inhabit(pair)
    before, root = everything(pair.dest), tmp_path / "runs"
    place = AtRequest(at, moment, signal.SIGKILL, writes_to(part))
    assert run_with(pair, root, place, **SMALL).code == -signal.SIGKILL
    done = undo(pair, root, "--yes")
    assert (done.code, plain(everything(pair.dest))) == (0, plain(before)), done.out + done.err
    again = AtRequest(at, moment, signal.SIGKILL, writes_to(part))
    assert run_with(pair, root, again, **SMALL).code == -signal.SIGKILL
    assert (run(pair.sandbox, root, **SMALL).code, len(runs(root))) == (1, 2)
    done = undo(pair, root, "--yes")
    assert (done.code, plain(everything(pair.dest))) == (0, plain(before)), done.out + done.err


@pytest.mark.parametrize("kind, code", [("prompt", 0), ("project_score", 1)])
@pytest.mark.variants(1)
def test_an_object_created_despite_a_server_error_is_undone(
    kind: str, code: int, pair: Pair, tmp_path: Path
) -> None:
    """A prompt is looked up before its POST is repeated."""
    before, root = everything(pair.dest), tmp_path / "runs"

    def made_and_failed(method: str, path: str, raw: bytes) -> Optional[Answer]:
        if (method, path) != ("POST", f"/v1/{kind}"):
            return None
        body = json.loads(raw)
        if body["name"] not in [obj["name"] for obj in pair.dest.objects(kind)]:
            pair.dest.create(kind, body)
        return Answer(500, b"later")

    pair.sandbox.refuse = made_and_failed
    made = len(pair.source.objects(kind))
    assert (run(pair.sandbox, root).code, len(pair.dest.objects(kind))) == (code, made)
    pair.sandbox.refuse = None
    done = undo(pair, root, "--yes")
    assert (done.code, everything(pair.dest)) == (0, before), done.out + done.err


def test_an_undo_that_is_killed_is_finished_by_the_next_one(pair: Pair, tmp_path: Path) -> None:
    inhabit(pair)
    before, root = everything(pair.dest), tmp_path / "runs"
    run(pair.sandbox, root, **SMALL)
    for at in (3, 12):
        place = AtRequest(at, "after", signal.SIGKILL, lambda method, path: method == "DELETE")
        assert undo_run(pair, runs(root)[-1], "--yes", at=place).code == -signal.SIGKILL
    assert run(pair.sandbox, runs(root)[-1]).code == 2  # it is no run to go on with any more
    done = undo(pair, root, "--yes")
    assert (done.code, plain(everything(pair.dest))) == (0, plain(before)), done.out + done.err


# What somebody else made --------------------------------------------------------------------------


class Hidden:
    """Lists that do not show an object yet; POST of its name returns it without a header."""

    def __init__(self, pair: Pair, kind: str, object_id: str) -> None:
        self.obj = next(obj for obj in pair.dest.objects(kind) if obj["id"] == object_id)
        self.pair = pair
        self.kind = kind

    def __call__(self, method: str, path: str, raw: bytes) -> Optional[Answer]:
        if path.split("?")[0] != f"/v1/{self.kind}":
            return None
        if method == "POST" and json.loads(raw)["name"] == self.obj["name"]:
            return Answer(200, json.dumps(self.obj).encode())
        if method == "GET" and self.obj["project_id"] in path:
            there = [obj for obj in self.pair.dest.objects(self.kind) if obj != self.obj]
            return Answer(200, json.dumps({"objects": there[::-1]}).encode())
        return None


@pytest.mark.parametrize("ahead_s", [3600, -3600])
@pytest.mark.variants(1)
def test_what_a_run_created_is_known_whatever_the_gateways_clock_says(
    ahead_s: int, pair: Pair, tmp_path: Path
) -> None:
    before = everything(pair.dest)
    shift_dates(pair.sandbox, ahead_s)
    assert run(pair.sandbox, tmp_path / "runs").code == 0
    counted = [entry["outcomes"] for entry in report(tmp_path / "runs")["objects"]]
    assert not any("found" in outcomes for outcomes in counted), counted
    done = undo(pair, tmp_path / "runs", "--yes")
    assert (done.code, plain(everything(pair.dest))) == (0, plain(before)), done.out


@pytest.mark.parametrize("described", [True, False])
@pytest.mark.variants(1)
def test_an_object_that_somebody_made_a_moment_before_is_found_and_not_undone(
    described: bool, pair: Pair, tmp_path: Path
) -> None:
    beta = pair.dest.create("project", {"name": "beta"})["id"]
    fields = {"description": "theirs"} if described else {}
    theirs = pair.dest.create("experiment", {"project_id": beta, "name": "last", **fields})["id"]
    before = everything(pair.dest)
    pair.sandbox.refuse = Hidden(pair, "experiment", theirs)
    moved = run(pair.sandbox, tmp_path / "runs", "--resources", "experiments", "--projects", "beta")
    pair.sandbox.refuse = None
    (counts,) = [
        entry["outcomes"]
        for entry in report(tmp_path / "runs")["objects"]
        if entry["resource"] == "experiments"
    ]
    assert "created" not in counts, moved.out
    done = undo(pair, tmp_path / "runs", "--yes")
    # Without a description, only the clock of the answers says who made it.
    code = 0 if described else 1
    assert (done.code, everything(pair.dest).keys() >= before.keys()) == (code, True), done.out
    assert plain(everything(pair.dest)) == plain(before), done.out


def test_a_project_that_somebody_creates_during_our_request_is_not_undone(
    pair: Pair, tmp_path: Path
) -> None:
    """The answer says that it was there, whatever its date and content."""
    at = AtRequest(
        1,
        "before",
        lambda: pair.dest.create("project", {"name": "beta"}),
        lambda method, path: (method, path) == ("POST", "/v1/project"),
    )
    run_with(pair, tmp_path / "runs", at, "--resources", "datasets", "--projects", "beta")
    done = undo(pair, tmp_path / "runs", "--yes")
    names = [obj["name"] for obj in pair.dest.objects("project")]
    assert (done.code, names) == (0, ["beta"]), done.out


def test_a_function_that_somebody_made_after_the_lists_were_read_gets_no_new_version(
    pair: Pair, tmp_path: Path
) -> None:
    beta = pair.dest.create("project", {"name": "beta"})["id"]

    lists = []

    def read_too_early(method: str, path: str, raw: bytes) -> Optional[Answer]:
        if method != "GET" or not path.startswith("/v1/prompt?") or beta not in path or lists:
            return None
        lists.append(path)
        prompt = {"project_id": beta, "name": "Mine", "slug": "ask", "description": "theirs"}
        pair.dest.create("prompt", prompt)
        return Answer(200, b'{"objects":[]}')

    pair.sandbox.refuse = read_too_early
    run(pair.sandbox, tmp_path / "runs", "--resources", "prompts", "--projects", "beta")
    (prompt,) = pair.dest.objects("prompt")
    assert (prompt["name"], prompt["description"]) == ("Mine", "theirs")
    done = undo(pair, tmp_path / "runs", "--yes")
    assert (done.code, pair.dest.objects("prompt")) == (0, [prompt]), done.out


@pytest.mark.parametrize("kind", ["dataset", "project_logs"])
@pytest.mark.variants(1)
def test_an_object_of_ours_with_a_row_of_somebody_else_stays(
    kind: str, pair: Pair, tmp_path: Path
) -> None:
    """Written while the run went on, so its date says nothing."""
    root = tmp_path / "runs"

    def write() -> None:
        name, holder = ("answers", "dataset") if kind == "dataset" else ("beta", "project")
        theirs = [{"id": "theirs", "input": "by hand"}]
        pair.dest.insert(kind, found(pair.dest, holder, name)["id"], theirs)

    at = AtRequest(1, "after", write, lambda method, path: (method, path) == ("POST", "/v1/view"))
    assert run_with(pair, root, at).code == 0
    done = undo(pair, root, "--yes")
    there = [obj["name"] for obj in pair.dest.objects("project")]
    assert (done.code, there) == (1, ["beta"]), done.out
    assert "holds rows that others wrote" in done.out
    rest = undo(pair, root, "--yes", "--changed")
    assert (rest.code, pair.dest.objects("project")) == (0, []), rest.out


@pytest.mark.usefixtures("data_plane")
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.variants(1)
def test_rows_of_a_person_are_left_although_a_later_sync_wrote_to_the_object(
    killed: bool, pair: Pair, tmp_path: Path
) -> None:
    root, sync = tmp_path / "runs", ("--since-last", "--resources", "datasets")
    assert run(pair.sandbox, root, *sync).code == 0
    ids = [found(pair.dest, "dataset", name)["id"] for name in ("questions", "answers")]
    pair.dest.insert("dataset", ids[0], [{"id": "theirs", "input": 1}])
    edited = pair.dest.rows("dataset", ids[1])[0]["id"]
    pair.dest.insert("dataset", ids[1], [{"id": edited, "input": "reviewed"}])
    for obj in pair.source.objects("dataset"):
        pair.source.insert("dataset", obj["id"], [{"id": "later", "input": 1}])
    place = AtRequest(1, "after", signal.SIGKILL, lambda _, path: is_insert(path))
    second = run_with(pair, root, place, *sync) if killed else run(pair.sandbox, root, *sync)
    assert (second.code == -signal.SIGKILL) == killed, second.last_words
    before = [pair.dest.rows("dataset", dataset) for dataset in ids]
    done = undo(pair, root, "--yes")
    there = {obj["id"] for obj in pair.dest.objects("dataset")}
    assert (done.code, set(ids) - there) == (1, set()), done.out + done.err
    assert [pair.dest.rows("dataset", dataset) for dataset in ids] == before
    assert done.out.count("holds rows that others wrote") == 2, done.out


def test_a_refused_row_that_somebody_else_inserted_stays(pair: Pair, tmp_path: Path) -> None:
    inhabit(pair)
    questions = found(pair.dest, "dataset", "questions")["id"]
    refusal = Answer(400, b"too odd")
    pair.sandbox.refuse = lambda method, path, raw: (
        refusal if path == "/logs3" and b'"case 7"' in raw else None
    )
    run(pair.sandbox, tmp_path / "runs", "--resources", "datasets", **SMALL)
    pair.sandbox.refuse = None
    pair.dest.insert("dataset", questions, [{"id": "case 7", "input": "by hand"}])
    done = undo(pair, tmp_path / "runs", "--yes")
    left = {row["id"]: row["input"] for row in pair.dest.rows("dataset", questions)}
    assert (done.code, left["case 7"]) == (1, "by hand"), done.out


def test_the_last_line_names_kinds_and_rows_and_json_is_all_that_json_prints(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    assert run(pair.sandbox, root).code == 0
    listed = undo(pair, root)
    last = " ".join(listed.out.split()).rpartition(" Would ")[2]
    assert last.startswith("delete 2 projects with ") and " and 480 rows. " in last
    assert "3 experiments" in last and last.endswith("Nothing is done yet: --yes does it."), last
    result = json.loads(undo(pair, root, "--json").out)
    assert (result["done"], result["deleted"]["rows"], result["left"]) == (False, 480, [])
    done = undo(pair, root, "--json", "--yes")
    result = json.loads(done.out)
    assert (done.code, result["done"], result["deleted"]["projects"]) == (0, True, 2)
    # Before, they said "completed" and recommended to verify the run.
    summary = (runs(root)[-1] / "migration_summary.txt").read_text(encoding="utf-8")
    assert summary.startswith("Migration undone: acme -> globex\n") and "Next: " not in summary
    told = report(root)
    assert (told["status"], told["next_commands"]) == ("undone", [])
    assert told["totals"]["rows"]["created"] == 480
    assert "This run was undone" in (runs(root)[-1] / "report.html").read_text(encoding="ascii")


@pytest.mark.parametrize(("reply", "left"), [("y", 0), ("", 2)])
@pytest.mark.variants(1)
def test_a_person_at_a_terminal_is_asked(reply: str, left: int, pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert run(pair.sandbox, root).code == 0
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "bt_migrate.phases.undo", str(runs(root)[-1])]
    env = environment(pair.sandbox)
    with subprocess.Popen(command, env=env, cwd=root, stdin=theirs, stdout=theirs) as process:
        os.close(theirs)
        os.write(ours, b"y\n")  # before the question: no answer
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while True:
                shown += os.read(ours, 4096)
                if shown.endswith(b"Delete it now? [y/N] "):
                    os.write(ours, f"{reply}\n".encode())
        assert process.wait(60) == 0
    os.close(ours)
    assert b"Delete it now? [y/N]" in shown and b"\nwould delete: projects 'beta'" in shown
    assert len(pair.dest.objects("project")) == left


# Wrong calls --------------------------------------------------------------------------------------


def test_undo_refuses_what_is_no_run_another_organizations_run_and_one_in_use(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    run(pair.sandbox, root, "--resources", "datasets")
    place = runs(root)[-1]
    assert undo_run(pair, root, "--yes").code == 2
    pair.sandbox.add_org("other", api_key="sk-other", users=[])
    other = undo_run(pair, place, "--yes", BT_DEST_API_KEY="sk-other")
    assert (other.code, "was made for the destination globex" in other.err) == (2, True), other.err
    with open(place / "run.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert undo_run(pair, place, "--yes").code == 4
    assert len(pair.dest.objects("dataset")) == 2


def test_a_folder_of_runs_is_refused_and_its_newest_run_is_named(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with tiny_pair() as pair:
        assert run(pair.sandbox, root, "--resources", "project_tags").code == 0
        refused = undo_run(pair, root, "--yes")
        assert refused.code == 2
        assert f"it holds runs, the newest is {runs(root)[-1]}" in refused.err
        assert len(pair.dest.objects("project_tag")) > 0
