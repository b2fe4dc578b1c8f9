"""A full disk and damaged files of a run: one line names the file, and the next run completes."""

from __future__ import annotations

import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from bt_migrate.state.seen_rows import SeenRows
from tests.support.compare_orgs import differences
from tests.support.full_rows import SETTINGS, full_differences, full_pair
from tests.support.orgs import (
    TIME_LIMIT_S,
    AtRequest,
    Ended,
    Pair,
    environment,
    is_insert,
    run,
    run_with,
    runs,
)
from tests.support.row_runs import World, small_rows, states, world

LONG = pytest.mark.long
QUIET = {"LOG_LEVEL": "ERROR"}  # so that stderr holds nothing but what ended the program
SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": "30",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "10",
    "MIGRATION_CHECKPOINT_INTERVAL": "1",
    **QUIET,
}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIME_LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def equal(w: World) -> List[str]:
    return differences(Pair(w.sandbox, w.source, w.dest))


def until_full(w: Any, root: Path, left: int, number: int = 5, **settings: str) -> Ended:
    """Run; at this insert its files stop growing beyond `left` bytes, as on a full disk."""
    at = AtRequest(number, "before", None, lambda method, path: is_insert(path))
    at.act = lambda: resource.prlimit(at.process.pid, resource.RLIMIT_FSIZE, (left, left))
    stopped = run_with(w, root, at, **settings)
    assert at.done.is_set()
    return stopped


# A full disk -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        # The delivered rows are written first, but the checkpoint written at the end may be named.
        ("logs_(seen.sqlite3|state.json)", {"MIGRATION_CHECKPOINT_INTERVAL": "1000"}),
        ("logs_state.json", {"MIGRATION_EVENTS_USE_SEEN_DB": "false"}),
    ],
    ids=["seen rows", "checkpoint"],
)
def test_a_disk_that_fills_up_ends_the_run_with_the_name_of_the_file(
    name: str, settings: Dict[str, str], tmp_path: Path
) -> None:
    with world(tmp_path) as w:
        w.source.insert("project_logs", w.project, small_rows(300))
        w.sandbox.latency = {"insert": 0.02}
        stopped = until_full(w, w.root, 0, **{**SMALL, **settings})
        assert (stopped.code, stopped.err.count("\n")) == (3, 1), stopped.err
        assert re.match(
            rf"bt_migrate: {re.escape(str(runs(w.root)[0]))}/rows/{name}: cannot be "
            rf"(written \(.*raise the limit of file sizes|used \(.*make room)",
            stopped.err,
        )
        whole = run(w.sandbox, w.root, **{**SMALL, **settings})
        assert (whole.code, equal(w), len(runs(w.root))) == (0, [], 1), whole.last_words


def test_a_temporary_folder_without_room_for_an_attachment_is_named(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        movie = w.source.attach(bytes(1_500_000), filename="a.mp4", content_type="video/mp4")
        w.source.insert(
            "project_logs", w.project, [*small_rows(100), {"id": "with a movie", "input": movie}]
        )
        stopped = until_full(w, w.root, 500_000, 1, TMPDIR=str(tmp_path), **SMALL)
        said = (
            f"bt_migrate: {tmp_path}: cannot hold an attachment (File too large); make room or "
            "set TMPDIR, then run again\n"
        )
        assert (stopped.code, stopped.err) == (3, said)
        assert (run(w.sandbox, w.root, **SMALL).code, equal(w)) == (0, [])


# runs the program on a file system of its own that is too small, twice, and then on one with room
ON_A_SMALL_DISK = """
mount -t tmpfs -o "size=$0" none runs || exit 99
"$@" 2>first; echo $?
"$@" 2>second; echo $?
mount -o remount,size=64m none runs
exec "$@" >last
"""


@pytest.mark.parametrize(
    "size",
    [
        "200k",
        *(
            pytest.param(size, marks=LONG)
            for size in ("4k", "12k", "28k", "100k", "280k", "360k", "440k", "520k", "600k")
        ),
    ],
)
def test_on_a_file_system_that_is_full_the_run_ends_and_goes_on_when_there_is_room(
    size: str, tmp_path: Path
) -> None:
    with full_pair() as pair:
        (tmp_path / "runs").mkdir()
        module = "bt_migrate.phases.migrate_all"
        state_dir = str(tmp_path / "runs")
        program = [sys.executable, "-m", module, "--state-dir", state_dir, "--no-verify"]
        unshare = ["unshare", "--user", "--map-root-user", "--mount"]
        command = [*unshare, "sh", "-c", ON_A_SMALL_DISK, size, *program]
        env = environment(pair.sandbox, **SETTINGS, **QUIET)
        try:
            done = subprocess.run(
                command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=TIME_LIMIT_S
            )
        except FileNotFoundError:
            pytest.skip("needs unshare")
        if "mount" in done.stderr or "unshare" in done.stderr:
            pytest.skip(f"may not mount here: {done.stderr[-200:]}")
        codes = [line for line in done.stdout.splitlines() if line in ("0", "1", "2", "3")]
        assert (codes, done.returncode, full_differences(pair)) == (["3", "3"], 0, []), done.stderr
        for name in ("first", "second"):
            (line,) = (tmp_path / name).read_text().splitlines()
            assert re.match(
                rf"bt_migrate: {re.escape(str(tmp_path))}/runs/\S+: cannot be (written|used) "
                rf"\(.*make room",
                line,
            )


def test_the_checkpoint_does_not_pass_what_could_not_be_recorded(tmp_path: Path) -> None:
    """A row that waits for an experiment cannot be recorded as waiting; later rows could be."""
    with world(tmp_path) as w:
        (dataset,), (experiment,) = w.make("dataset", "questions"), w.make("experiment", "answers")
        rows = small_rows(30)
        rows[12]["origin"] = {"object_type": "experiment", "object_id": experiment, "id": "r00000"}
        w.source.insert("dataset", dataset, rows)
        w.source.insert("experiment", experiment, small_rows(1))
        w.sandbox.latency = {"insert": 0.2}  # all pages are read before the first is written

        def break_store() -> None:
            store = runs(w.root)[0] / "rows" / "dataset_events" / f"{dataset}_seen.sqlite3"
            seen = SeenRows(store)
            seen.record([])
            seen.close()
            execute(
                store,
                "create trigger t before insert on deferred begin select raise(fail, "
                "'database or disk is full'); end",
            )

        settings = {**SMALL, "MIGRATION_EVENTS_FETCH_LIMIT": "10"}
        at = AtRequest(1, "before", break_store, lambda method, path: is_insert(path))
        stopped = run_with(w, w.root, at, **settings)
        (store,) = w.root.rglob("*_seen.sqlite3")
        assert (stopped.code, stopped.err.startswith(f"bt_migrate: {store}: cannot be used (")) == (
            3,
            True,
        )
        execute(store, "drop trigger t")
        assert (run(w.sandbox, w.root, **settings).code, equal(w)) == (0, [])


def execute(store: Path, statement: str) -> None:
    database = sqlite3.connect(str(store), isolation_level=None)
    database.execute(statement)
    database.close()


# Damaged files ---------------------------------------------------------------------------------

FILES = (
    "run.json",
    "datasets_state.json",
    "dataset_events/*_state.json",
    "logs_state.json",
    "logs_seen.sqlite3",
    "attachments.sqlite3",
)


def test_a_damaged_file_is_named_and_the_advice_helps(
    tmp_path: Path,
) -> None:
    with world(tmp_path) as w:
        (dataset,) = w.make("dataset", "questions")
        notes = w.source.attach(b"notes", filename="a.txt", content_type="text/plain")
        w.source.insert("dataset", dataset, [{"id": "with notes", "input": notes}, *small_rows(90)])
        w.source.insert("project_logs", w.project, small_rows(300))
        at = AtRequest(20, "before", signal.SIGKILL, lambda method, path: is_insert(path))
        settings = {
            **SMALL,
            "MIGRATION_PRESERVE_ORDER": "true",
        }  # so that something is recorded whatever the load
        assert run_with(w, w.root, at, **settings).code == -signal.SIGKILL
        for pattern in FILES:
            (path,) = runs(w.root)[0].rglob(pattern)
            if path.suffix == ".sqlite3":
                execute(path, "pragma wal_checkpoint(truncate)")  # all of it in this file
            whole = path.read_bytes()
            path.write_bytes(b"not what it was" * (len(whole) // 30 + 1) + whole[len(whole) // 2 :])
            stopped = run(w.sandbox, w.root, **settings)
            assert (stopped.code, stopped.err.count("\n")) == (3, 1), stopped.err
            assert re.match(
                rf"bt_migrate: {re.escape(str(path))}: (is damaged|cannot be used).*--new-run",
                stopped.err,
            )
            path.write_bytes(whole)
        assert (run(w.sandbox, w.root, **settings).code, equal(w), len(runs(w.root))) == (0, [], 1)


@pytest.mark.parametrize(("moment", "outcome"), [("before", "found"), ("after", "updated")])
@pytest.mark.variants(1)
def test_a_new_run_next_to_a_damaged_one_completes_the_move(
    moment: str, outcome: str, tmp_path: Path
) -> None:
    """Rows wait for an experiment that the damaged run did not create, or did not record."""
    with world(tmp_path) as w:
        (dataset,), (experiment,) = w.make("dataset", "questions"), w.make("experiment", "answers")
        rows = small_rows(60)
        for row in rows[::3]:
            row["origin"] = {"object_type": "experiment", "object_id": experiment, "id": "r00000"}
        w.source.insert("dataset", dataset, rows)
        w.source.insert("experiment", experiment, small_rows(1))
        at = AtRequest(
            1, moment, None, lambda method, path: (method, path) == ("POST", "/v1/experiment")
        )

        def kill_once_all_rows_arrived() -> None:
            """The rows of datasets are still being written while experiments are created."""
            (copy,) = w.dest.objects("dataset")
            until(lambda: len(w.dest.rows("dataset", copy["id"])) == len(rows))
            at.process.kill()
            raise ConnectionResetError("the client was killed")

        at.act = kill_once_all_rows_arrived
        assert run_with(w, w.root, at, **SMALL).code == -signal.SIGKILL
        (path,) = runs(w.root)[0].rglob("datasets_state.json")
        path.write_text('{"format": 1, "outcomes": {')
        assert (
            run(w.sandbox, w.root, **SMALL).code,
            run(w.sandbox, w.root, "--new-run", **SMALL).code,
            equal(w),
        ) == (3, 0, [])
        assert states(w.root)["questions"]["counts"][outcome] == (60 if outcome == "found" else 20)
