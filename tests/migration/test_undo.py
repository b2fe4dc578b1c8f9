"""Undo: what a run made goes, what was there before stays as it was, what somebody changed since is
left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from bt_migrate.migration.undo_objects import CHANGED, reason_to_leave
from bt_migrate.model.resource_table import AI_SECRETS, DATASETS
from bt_migrate.objects.decide import fingerprint
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.state.run_record import RunRecord
from bt_migrate.state.window_log import record_undone, record_window, windows_taken
from tests.support.orgs import (
    AtRequest,
    Ended,
    Pair,
    ended,
    environment,
    everything,
    report,
    run,
    run_with,
    runs,
    tiny_pair,
)
from tests.support.run_state import identity

SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": "40",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "15",
    "MIGRATION_CHECKPOINT_INTERVAL": "2",
}
GRAPH = {"type": "graph", "nodes": {}, "edges": {}}


@pytest.fixture
def pair() -> Iterator[Pair]:
    with tiny_pair() as made:
        yield made


def undo(pair: Pair, root: Path, *args: str) -> Ended:
    """Undo the newest run; the source's key is not good any more."""
    return undo_run(pair, runs(root)[-1], *args)


def undo_run(
    pair: Pair, place: Path, *args: str, at: Optional[AtRequest] = None, **settings: str
) -> Ended:
    command = [sys.executable, "-m", "bt_migrate.phases.undo", str(place), *args]
    env, pipe = (
        environment(pair.sandbox, **{"BT_SOURCE_API_KEY": "sk-gone", **settings}),
        subprocess.PIPE,
    )
    with subprocess.Popen(
        command, env=env, cwd=place.parent, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"
    ) as process:
        if at:
            at.process = process
        pair.sandbox.on_request = at
        try:
            return ended(process)
        finally:
            pair.sandbox.on_request = None


def inhabit(pair: Pair) -> None:
    """A destination that is in use: projects of its own, and some of what the source has, with the
    same content and with other.
    """
    dest, source = pair.dest, pair.source
    alpha = dest.create("project", {"name": "Alpha/α"})["id"]
    own = dest.create("project", {"name": "own", "description": "theirs"})["id"]
    dest.patch("project", own, {"settings": {"comparison_key": "input"}})
    dest.create(
        "function", {"project_id": alpha, "name": "Mine", "slug": "scorer", "function_data": GRAPH}
    )
    dest.create("project_tag", {"project_id": alpha, "name": "red", "color": "#FF0000"})
    dest.create("prompt", {"project_id": own, "name": "Ask", "slug": "ask"})
    dest.create("ai_secret", {"name": "OTHER", "type": "openai", "secret": "typed-in-long-ago"})
    group = dest.create("group", {"name": "people"})["id"]
    dest.create(
        "acl", {"object_type": "project", "object_id": own, "group_id": group, "permission": "read"}
    )
    dest.create(
        "view",
        {"object_type": "project", "object_id": alpha, "view_type": "logs", "name": "theirs"},
    )
    questions = dest.create("dataset", {"project_id": alpha, "name": "questions"})["id"]
    mine = next(obj["id"] for obj in source.objects("dataset") if obj["name"] == "questions")
    cases = source.rows("dataset", mine)[:10]
    same = [
        {
            name: row[name]
            for name in ("id", "input", "expected", "created", "span_id", "root_span_id")
        }
        for row in cases
    ]
    dest.insert(
        "dataset",
        questions,
        [*same[:2], {"id": cases[4]["id"], "input": "theirs"}, {"id": "theirs", "input": 1}],
    )
    first = dest.create("experiment", {"project_id": alpha, "name": "first"})["id"]
    dest.insert("experiment", first, [{"id": "e3", "output": "theirs"}])
    logs = source.rows(
        "project_logs",
        next(obj["id"] for obj in source.objects("project") if obj["name"] == "Alpha/α"),
    )
    dest.insert("project_logs", alpha, [{"id": f"theirs {i}", "input": i} for i in range(60)])
    dest.insert(
        "project_logs", alpha, [{"id": row["id"], "input": "theirs"} for row in logs[20:25]]
    )
    dest.insert("project_logs", own, [{"id": row["id"], "input": "own"} for row in logs[:5]])


def plain(found: Dict[str, Any]) -> Dict[str, Any]:
    """Settings that were never made and settings without anything are one: PATCH cannot take them
    away.
    """
    return {
        key: {**obj, "settings": obj["settings"] or None}
        if isinstance(obj, dict) and "settings" in obj
        else obj
        for key, obj in found.items()
    }


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
    assert listed.out.splitlines()[:-1] == done.out.splitlines()[:-1]
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


def test_an_object_created_despite_a_server_error_is_undone(pair: Pair, tmp_path: Path) -> None:
    before, root = everything(pair.dest), tmp_path / "runs"

    def made_and_failed(method: str, path: str, raw: bytes) -> Optional[Answer]:
        if (method, path) != ("POST", "/v1/prompt"):
            return None
        pair.dest.create("prompt", json.loads(raw))
        return Answer(500, b"later")

    pair.sandbox.refuse = made_and_failed
    assert (run(pair.sandbox, root).code, len(pair.dest.objects("prompt"))) == (1, 1)
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


@pytest.mark.parametrize("described", [True, False])
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
    assert (done.code, everything(pair.dest).keys() >= before.keys()) == (0, True), done.out
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
    assert "holds rows that this run did not bring" in done.out
    rest = undo(pair, root, "--yes", "--changed")
    assert (rest.code, pair.dest.objects("project")) == (0, []), rest.out


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
    last = listed.out.splitlines()[-1]
    assert last.startswith("Would delete 2 projects with ") and " and 480 rows, " in last
    assert "3 experiments" in last and last.endswith("add --yes to delete."), last
    result = json.loads(undo(pair, root, "--json").out)
    assert (result["done"], result["deleted"]["rows"], result["left"]) == (False, 480, [])
    done = undo(pair, root, "--json", "--yes")
    result = json.loads(done.out)
    assert (done.code, result["done"], result["deleted"]["projects"]) == (0, True, 2)


@pytest.mark.parametrize(("reply", "left"), [("y", 0), ("", 2)])
def test_a_person_at_a_terminal_is_asked(reply: str, left: int, pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert run(pair.sandbox, root).code == 0
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "bt_migrate.phases.undo", str(runs(root)[-1])]
    env = environment(pair.sandbox)
    with subprocess.Popen(command, env=env, cwd=root, stdin=theirs, stdout=theirs) as process:
        os.close(theirs)
        os.write(ours, f"{reply}\n".encode())
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while True:
                shown += os.read(ours, 4096)
        assert process.wait(60) == 0
    os.close(ours)
    assert b"Delete it now? [y/N]" in shown
    assert len(pair.dest.objects("project")) == left


# Changed since ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "existing", "expected"),
    [
        (DATASETS, {"id": "d", "name": "a", "tags": []}, ""),
        (DATASETS, {"id": "d", "name": "a", "tags": ["x"]}, CHANGED),
        (AI_SECRETS, {"id": "d", "name": "a", "preview_secret": None}, ""),
        (
            AI_SECRETS,
            {"id": "d", "name": "a", "preview_secret": "***"},
            "its value was typed in since the run",
        ),
    ],
)
def test_an_object_that_changed_since_the_run_is_left(
    resource: Any, existing: Dict[str, Any], expected: str
) -> None:
    assert reason_to_leave(resource, fingerprint(resource, {"name": "a"}), existing) == expected


def found(org: Any, kind: str, name: str) -> Dict[str, Any]:
    return next(obj for obj in org.objects(kind) if obj["name"] == name)


def an_hour_later(pair: Pair) -> None:
    """From here on transactions are dated an hour after the run."""
    pair.sandbox.store.clock._last = int(time.time() + 3600) << 16


def test_changed_objects_are_left_and_reported_and_deleted_on_request(
    pair: Pair, tmp_path: Path
) -> None:
    inhabit(pair)
    before, root = everything(pair.dest), tmp_path / "runs"
    run(pair.sandbox, root)
    alpha, beta = found(pair.dest, "project", "Alpha/α"), found(pair.dest, "project", "beta")
    (ask,) = [obj for obj in pair.dest.objects("prompt") if obj["project_id"] == beta["id"]]
    pair.dest.patch("prompt", ask["id"], {"description": "changed"})
    pair.dest.patch(
        "ai_secret", found(pair.dest, "ai_secret", "OPENAI")["id"], {"secret": "typed-in-by-hand"}
    )
    middle = found(pair.dest, "experiment", "middle")["id"]
    an_hour_later(pair)
    pair.dest.insert("experiment", middle, [{"id": "e3", "output": "reviewed"}])
    pair.dest.insert("project_logs", alpha["id"], [{"id": "0099", "input": "reviewed"}])
    done = undo(pair, root, "--yes")
    left = [line for line in done.out.splitlines() if line.startswith("left: ")]
    assert (done.code, sorted(left)) == (
        1,
        [
            "left: 1 rows of logs 'Alpha/α' of 'Alpha/α': changed since the run",
            f"left: ai_secrets 'OPENAI' [{found(pair.dest, 'ai_secret', 'OPENAI')['id']}]: "
            "its value was typed in since the run",
            f"left: experiments 'middle' of 'Alpha/α' [{middle}]: rows in it were changed "
            "since the run",
            f"left: projects 'beta' [{beta['id']}]: holds something that this run did not "
            "make, or that is left",
            f"left: prompts 'Ask' of 'beta' [{ask['id']}]: changed since the run",
        ],
    ), done.out
    there = everything(pair.dest)
    assert {ask["id"], middle, beta["id"]} <= there.keys()
    assert [
        row["id"]
        for row in there["project_logs" + alpha["id"]][0]
        if not row["id"].startswith("theirs")
    ] == ["0020", "0021", "0022", "0023", "0024", "0099"]
    rest = undo(pair, root, "--yes", "--changed")
    assert (rest.code, plain(everything(pair.dest))) == (0, plain(before)), rest.out + rest.err


def test_who_wrote_a_row_last_is_not_decided_by_clocks(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway whose dates are an hour ahead: the edit of a person seems to be from before."""
    root = tmp_path / "runs"
    ahead = formatdate(time.time() + 3600, usegmt=True)
    monkeypatch.setattr(
        BaseHTTPRequestHandler, "date_time_string", lambda self, timestamp=None: ahead
    )
    assert run(pair.sandbox, root, "--resources", "datasets").code == 0
    questions = found(pair.dest, "dataset", "questions")["id"]
    (first, *_) = pair.dest.rows("dataset", questions)
    pair.dest.insert("dataset", questions, [{"id": first["id"], "input": "reviewed"}])
    done = undo(pair, root, "--yes")
    assert (done.code, [obj["id"] for obj in pair.dest.objects("dataset")]) == (1, [questions]), (
        done.out
    )


def test_a_later_read_only_process_does_not_hide_changes(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    run(pair.sandbox, root, "--resources", "datasets")
    questions = found(pair.dest, "dataset", "questions")["id"]
    an_hour_later(pair)
    pair.dest.insert("dataset", questions, [{"id": "case 1", "input": "reviewed"}])
    later = formatdate(time.time() + 7200, usegmt=True)
    monkeypatch.setattr(
        BaseHTTPRequestHandler, "date_time_string", lambda self, timestamp=None: later
    )
    run(
        pair.sandbox,
        runs(root)[-1],
        "--resources",
        "datasets",
        program="verify",
        MIGRATION_VERIFY_WAIT="1",
    )
    monkeypatch.undo()
    done = undo(pair, root, "--yes")
    assert (done.code, [obj["id"] for obj in pair.dest.objects("dataset")]) == (1, [questions]), (
        done.out
    )


def test_what_cannot_be_deleted_keeps_its_project_and_is_tried_again(
    pair: Pair, tmp_path: Path
) -> None:
    before, root = everything(pair.dest), tmp_path / "runs"
    run(pair.sandbox, root)
    prompt = found(pair.dest, "prompt", "Ask")["id"]
    pair.sandbox.refuse = lambda method, path, raw: (
        Answer(403, b"no") if (method, path) == ("DELETE", f"/v1/prompt/{prompt}") else None
    )
    done = undo(pair, root, "--yes")
    left = [line.split(":")[1] for line in done.out.splitlines() if line.startswith("left")]
    beta = found(pair.dest, "project", "beta")["id"]
    assert (done.code, left) == (
        1,
        [f" prompts 'Ask' of 'beta' [{prompt}]", f" projects 'beta' [{beta}]"],
    ), done.out
    pair.sandbox.refuse = None
    assert (undo(pair, root, "--yes").code, everything(pair.dest)) == (0, before)


def test_the_servers_record_of_a_query_does_not_keep_a_project(pair: Pair, tmp_path: Path) -> None:
    before, root = everything(pair.dest), tmp_path / "runs"
    run(pair.sandbox, root)
    query = {
        "event_type": "async_query",
        "object_type": "project_logs",
        "object_id": "o",
        "query": "q",
        "format": "jsonl",
        "created_by_user_id": "u",
    }
    pair.dest.create(
        "project_automation",
        {"project_id": found(pair.dest, "project", "beta")["id"], "name": "query", "config": query},
    )
    done = undo(pair, root, "--yes")
    assert (done.code, everything(pair.dest)) == (0, before), done.out


def test_a_project_in_which_somebody_made_something_is_left(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run(pair.sandbox, root)
    beta = found(pair.dest, "project", "beta")["id"]
    theirs = pair.dest.create("dataset", {"project_id": beta, "name": "theirs"})["id"]
    for args in ((), ("--changed",)):
        done = undo(pair, root, "--yes", *args)
        assert (done.code, "holds something that this run did not make" in done.out) == (1, True), (
            done.out
        )
    assert (
        [obj["id"] for obj in pair.dest.objects("project")],
        [obj["id"] for obj in pair.dest.objects("dataset")],
    ) == ([beta], [theirs])


@pytest.mark.long
def test_rows_of_a_later_run_are_not_undone_with_this_run(pair: Pair, tmp_path: Path) -> None:
    """Rows that a second run adds to an object that the first one made: the second is undone by
    itself, then the first.
    """
    root = tmp_path / "runs"
    before = everything(pair.dest)
    run(pair.sandbox, root)
    between = everything(pair.dest)
    alpha = found(pair.source, "project", "Alpha/α")["id"]
    pair.source.insert("project_logs", alpha, [{"id": f"later {i}", "input": i} for i in range(30)])
    assert run(pair.sandbox, root).code == 0
    assert (undo(pair, root, "--yes").code, everything(pair.dest)) == (0, between)
    first = runs(root)[0]
    done = undo_run(pair, first, "--yes")
    assert (done.code, everything(pair.dest)) == (0, before), done.out + done.err


# Updated ------------------------------------------------------------------------------------------


def disturb(org: Any) -> List[str]:
    """Other content in one object of each kind that can be updated; their ids, but for the project
    whose settings these are.
    """
    alpha, beta = found(org, "project", "Alpha/α"), found(org, "project", "beta")
    org.patch("project", alpha["id"], {"settings": {"comparison_key": "other"}})
    org.patch(
        "project", beta["id"], {"settings": {"comparison_key": "theirs"}, "description": "theirs"}
    )
    changes: Dict[str, Tuple[str, Dict[str, Any]]] = {
        "ai_secret": ("OPENAI", {"metadata": {"k": 1.0}}),
        "role": ("outer", {"description": "theirs"}),
        "group": ("people", {"add_member_users": [obj["id"] for obj in org.objects("user")]}),
        "environment": ("Production", {"description": "theirs"}),
        "dataset": ("answers", {"description": "theirs", "tags": ["y"]}),
        "project_tag": ("red", {"color": "#00FF00"}),
        "span_iframe": ("frame", {"url": "https://theirs.example"}),
        "mcp_server": ("mcp", {"url": "https://theirs.example"}),
        "agent": ("agent", {"metadata": {"k": 1, "more": [1.5]}}),
        "function": ("First", {"function_data": {**GRAPH, "edges": {"e": {"purpose": "data"}}}}),
        "prompt": ("Ask", {"prompt_data": {"prompt": {"theirs": 1}}, "tags": ["t"]}),
        "project_score": ("Rating", {"config": {"destination": "expected"}}),
        "experiment": ("middle", {"description": "theirs", "tags": ["t"]}),
        "view": ("mine", {"view_data": {"search": {"filter": ["theirs"]}}}),
    }
    for kind, (name, fields) in changes.items():
        obj = found(org, kind, name)
        owner = {name: obj[name] for name in ("object_type", "object_id") if kind == "view"}
        org.patch(kind, obj["id"], {**owner, **fields})
    return [beta["id"], *(found(org, kind, name)["id"] for kind, (name, _) in changes.items())]


def content(found: Dict[str, Any]) -> Dict[str, Any]:
    """Without what a write changes by itself; what is unset is left out, as in the comparison of
    two organizations.
    """
    stamps = {"_xact_id", "updated_at", "secret_updated_at"}
    # `created` of a prompt or function is the date of its last version.
    versioned = {"created", *stamps}

    def kept(obj: Dict[str, Any]) -> Dict[str, Any]:
        left_out = versioned if {"slug", "_xact_id"} <= obj.keys() else stamps
        return {name: value for name, value in obj.items() if name not in left_out and value}

    return {key: kept(obj) if isinstance(obj, dict) else obj for key, obj in found.items()}


def test_undo_restores_what_an_update_overwrote(pair: Pair, tmp_path: Path) -> None:
    assert run(pair.sandbox, tmp_path / "first").code == 0
    changed = disturb(pair.dest)
    before, root = everything(pair.dest), tmp_path / "runs"
    assert run(pair.sandbox, root, "--on-conflict", "update", "--verify", "--full").code == 0
    assert [
        before[obj_id] for obj_id in changed if everything(pair.dest)[obj_id] == before[obj_id]
    ] == []
    after = everything(pair.dest)
    listed = undo(pair, root)
    assert (listed.code, listed.out.count("\nrestore: ") + 1, everything(pair.dest)) == (
        0,
        len(changed) + 2,
        after,
    ), listed.out
    done = undo(pair, root, "--yes")
    assert (done.code, content(everything(pair.dest))) == (0, content(before)), done.out + done.err
    pair.sandbox.clear_requests()
    again = undo(pair, root, "--yes")
    assert (again.code, pair.sandbox.writes("globex")) == (0, []), again.out


def test_the_address_of_a_webhook_that_an_update_overwrote_is_in_no_file(
    pair: Pair, tmp_path: Path
) -> None:
    assert run(pair.sandbox, tmp_path / "first").code == 0
    alert, root = found(pair.dest, "project_automation", "Alert"), tmp_path / "runs"
    secret = {"action": {"type": "webhook", "url": "https://hook.example/T0/secret"}}
    pair.dest.patch("project_automation", alert["id"], {"config": secret})
    assert run(pair.sandbox, root, "--on-conflict", "update").code == 0
    assert [
        path for path in root.rglob("*") if path.is_file() and b"T0/secret" in path.read_bytes()
    ] == []
    done = undo(pair, root, "--yes")
    assert (done.code, "Alert" in done.out and "what it was is not known" in done.out) == (
        1,
        True,
    ), done.out


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_update_that_was_killed_is_restored_too(moment: str, pair: Pair, tmp_path: Path) -> None:
    assert run(pair.sandbox, tmp_path / "first").code == 0
    disturb(pair.dest)
    before, root = everything(pair.dest), tmp_path / "runs"
    for _ in range(2):
        place = AtRequest(
            3, moment, signal.SIGKILL, lambda method, path: method in ("PATCH", "PUT")
        )
        assert (
            run_with(
                pair, root, place, "--on-conflict", "update", "--resources", "datasets,prompts"
            ).code
            == -signal.SIGKILL
        )
        done = undo(pair, root, "--yes")
        assert (done.code, content(everything(pair.dest))) == (0, content(before)), (
            done.out + done.err
        )


def test_updated_objects_that_changed_since_are_left_and_restored_on_request(
    pair: Pair, tmp_path: Path
) -> None:
    assert run(pair.sandbox, tmp_path / "first").code == 0
    disturb(pair.dest)
    before, root = everything(pair.dest), tmp_path / "runs"
    run(pair.sandbox, root, "--on-conflict", "update", "--resources", "functions,prompts")
    first = found(pair.dest, "function", "First")["id"]
    pair.dest.patch("function", first, {"description": "changed"})
    done = undo(pair, root, "--yes")
    assert (
        done.code,
        f"left: functions 'First' of 'Alpha/α' [{first}]: changed since the run" in done.out,
    ) == (1, True), done.out
    assert found(pair.dest, "function", "First")["description"] == "changed"
    rest = undo(pair, root, "--yes", "--changed")
    assert (rest.code, content(everything(pair.dest))) == (0, content(before)), rest.out


def test_fields_that_patch_cannot_remove_are_reported(pair: Pair, tmp_path: Path) -> None:
    assert run(pair.sandbox, tmp_path / "first").code == 0
    answers = found(pair.dest, "dataset", "answers")["id"]
    pair.source.patch(
        "dataset",
        found(pair.source, "dataset", "answers")["id"],
        {"metadata": {"k": 1}, "description": "ours"},
    )
    run(pair.sandbox, tmp_path / "runs", "--on-conflict", "update")
    listed, done = undo(pair, tmp_path / "runs"), undo(pair, tmp_path / "runs", "--yes")
    there = found(pair.dest, "dataset", "answers")
    told = (
        f"left: datasets 'answers' of 'beta' [{answers}]: the API cannot take away what these "
        "fields hold beyond: metadata"
    )
    assert (done.code, told in done.out, told in listed.out, there["description"]) == (
        1,
        True,
        True,
        "",
    ), done.out


def test_an_object_completed_by_another_run_is_undone_with_the_run_that_created_it(
    pair: Pair, tmp_path: Path
) -> None:
    """A function made from an experiment, which only the second run brings."""
    before, root = everything(pair.dest), tmp_path / "runs"
    assert run(pair.sandbox, root, "--resources", "functions").code == 1
    assert run(pair.sandbox, root, "--resources", "experiments").code == 1
    first, second = runs(root)
    assert found(pair.dest, "function", "Made-From")["origin"] is not None
    for place in (second, first):
        done = undo_run(pair, place, "--yes")
        assert done.code == 0, done.out + done.err
    assert everything(pair.dest) == before


def test_the_window_of_an_undone_run_counts_as_not_copied(tmp_path: Path) -> None:
    window = {"after": "2026-01-01T00:00:00Z", "before": "2026-01-02T00:00:00Z"}
    today, renamed = identity(**window), identity(**window, renamed={"a": "b"})
    record = RunRecord(today.source, today.dest, today.selection, False)
    record.created = "2026-01-03T00:00:00Z"
    record_window(tmp_path, record, "first", "logs")
    before = (
        len(windows_taken(tmp_path, today, "logs")),
        len(windows_taken(tmp_path, renamed, "logs")),
    )
    record_undone(tmp_path, "first")
    assert (before, windows_taken(tmp_path, today, "logs")) == ((1, 0), [])


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
