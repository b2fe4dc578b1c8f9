"""`status` of a running, a finished and a lost process. Real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bt_migrate.sandbox.http.server import Fault
from tests.support.operating import (
    BATCH,
    SMALL,
    held_at,
    inserts_rows,
    next_beats,
    rows_there,
    shell,
    status,
    tree,
)
from tests.support.orgs import (
    TIME_LIMIT_S,
    AtRequest,
    Pair,
    ended,
    environment,
    run,
    run_with,
    runs,
)


@pytest.mark.parametrize(
    "insert", [13, *(pytest.param(at, marks=pytest.mark.long) for at in (2, 7, 22))]
)
def test_the_status_of_a_running_process_is_right_to_within_one_batch(
    insert: int, pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    with held_at(pair, root, insert, "--preserve-order", MIGRATION_MAX_CONCURRENT="1") as (
        process,
        gate,
    ):
        next_beats(root)
        shown, there = status(pair, root), rows_there(pair)
        gate.opened.set()
        ended(process)
    assert (shown["state"], shown["process"]["pid"], shown["phase"] in shown["phases_done"]) == (
        "running",
        process.pid,
        False,
    )
    assert abs(shown["rows"]["done"] - there) <= BATCH
    assert (shown["rows"]["total"], sum(entry["total"] for entry in shown["streams"])) == (480, 480)
    assert (
        shown["sides"]["destination"]["in_flight"],
        shown["sides"]["destination"]["max_concurrent"],
    ) == (1, 1)


@pytest.mark.long
def test_the_status_has_every_documented_field(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    pair.sandbox.faults.add(Fault("status", "globex", "POST", path="/logs3", status=503, times=1))
    pair.sandbox.faults.add(Fault("status", "acme", "POST", path="/btql", status=429, times=1))
    with held_at(pair, root, 6) as (process, gate):
        next_beats(root)
        shown = status(pair, root)
        text = shell(pair, "status", root).stdout
        gate.opened.set()
        whole = ended(process)
    sides = shown["sides"]
    assert (whole.code, sides["source"]["rate_limited"], sides["destination"]["retries"]) == (
        0,
        1,
        1,
    ), whole.last_words
    assert "503" in shown["last_error"] and "503" in text
    assert (
        f"process {process.pid}" in text
        and " of 480 (" in text
        and "1 retried" in text
        and "phase " in text
    )


def test_status_changes_nothing_and_needs_no_keys(pair: Pair, tmp_path: Path) -> None:
    """At a killed run, at a finished one and at one that goes on."""
    root = tmp_path / "runs"
    run_with(pair, root, AtRequest(9, "before", signal.SIGKILL, inserts_rows), **SMALL)
    states = []
    for end in (None, ended):
        before = tree(root)
        keyless = {
            name: value
            for name, value in environment(pair.sandbox).items()
            if not name.startswith("BT_")
        }
        command = [
            sys.executable,
            "-m",
            "bt_migrate.phases.status",
            str(root),
            "--json",
            "--watch",
        ]  # a run without process ends it
        done = subprocess.run(
            command, env=keyless, capture_output=True, text=True, timeout=TIME_LIMIT_S
        )
        assert (done.returncode, tree(root)) == (0, before), done.stderr
        states.append(json.loads(done.stdout))
        if end is None:
            assert run(pair.sandbox, root, **SMALL).code == 0
    assert [entry["state"] for entry in states] == ["killed", "finished"]
    assert 0 < states[0]["rows"]["done"] <= rows_there(pair)
    assert (
        states[1]["rows"]["done"],
        states[1]["rows"]["total"],
        states[1]["streams"][0]["complete"],
    ) == (480, 480, True)


@pytest.mark.long
def test_status_measures_the_lag_again(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert run(pair.sandbox, root, **SMALL).code == 0
    before = status(pair, root, "--lag")["lag"]["rows"]
    project, made = pair.source.objects("project")[0]["id"], pair.source.objects("dataset")[0]["id"]
    pair.source.insert(
        "project_logs",
        project,
        [{"id": "new", "created": "2020-01-01T00:00:00Z"}, {"id": "0001", "input": "edited"}],
    )
    pair.source.insert("dataset", made, [{"id": "late"}])
    fresh = pair.source.create("experiment", {"project_id": project, "name": "fresh"})["id"]
    pair.source.insert("experiment", fresh, [{"id": "first of all"}])
    after = status(pair, root, "--lag")["lag"]
    edited_before = (
        1 if before else 0
    )  # counted before its edit too, where the source was filled just before the run
    assert (after["rows"], status(pair, root)["lag"]) == (before + 4 - edited_before, None)
    assert 0 <= after["oldest_seconds"] < 300


@pytest.mark.parametrize("place", ["", "nothing-here"])
def test_status_without_a_run_says_so(place: str, pair: Pair, tmp_path: Path) -> None:
    done = shell(pair, "status", tmp_path / place)
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        f"bt_migrate: {tmp_path / place}: there is no run; name a run, or the folder of runs"
        " (--state-dir of the move)\n",
    )


@pytest.mark.long
def test_a_process_on_another_machine_is_judged_by_its_last_status(
    pair: Pair, tmp_path: Path
) -> None:
    """Its process id means nothing here."""
    root = tmp_path / "runs"
    run_with(pair, root, AtRequest(9, "before", signal.SIGKILL, inserts_rows), **SMALL)
    path = runs(root)[0] / "status.json"
    said = json.loads(path.read_text())
    seen = []
    for host, updated in (
        (socket.gethostname(), "2020-01-01T00:00:00Z"),
        ("elsewhere", "2020-01-01T00:00:00Z"),
        ("elsewhere", "2999-01-01T00:00:00Z"),
    ):
        path.write_text(json.dumps({**said, "pid": os.getpid(), "host": host, "updated": updated}))
        seen.append(status(pair, root)["state"])
    assert seen == ["silent", "killed", "running"]
    shutil.rmtree(root)
