"""A run: its folders, its record, its lock, its starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import List, Tuple

import pytest

from bt_migrate.errors import EXIT_LOCKED, LockedError
from bt_migrate.state.copied_attachments import CopiedAttachments
from bt_migrate.state.files import FORMAT, append_line, read_json, write_json
from bt_migrate.state.find_run import create_run
from bt_migrate.state.folder_names import MAX_NAME_BYTES, folder_name
from bt_migrate.state.records import json_of
from bt_migrate.state.run_directory import RunDirectory, runs_in
from bt_migrate.state.run_files import LOCK_FILE, RUN_FILE
from bt_migrate.state.run_record import Session
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.state.sessions import MAX_SESSIONS, add_session, end_killed_session
from bt_migrate.state.stream_state import StreamState
from tests.support.orgs import TIME_LIMIT_S
from tests.support.run_state import ALL, found, identity, mode, python

# -- folders of projects


@pytest.mark.parametrize(
    "name", ["Alpha", "with space", "under_score-1.2", "Zoë 日本", "a.b", "x" * MAX_NAME_BYTES]
)
def test_a_plain_name_is_its_folder(name: str) -> None:
    assert folder_name(name, []) == name


HOSTILE = [
    "../../etc/passwd",
    "/absolute",
    "a/b",
    "a\\b",
    "..",
    ".",
    " ",
    ".hidden",
    "trailing.",
    " leading",
    "trailing ",
    "a\x00b",
    "a\nb",
    "-rf *",
    "$(reboot)",
    "a:b",
    "CON",
    "nul.txt",
    "com1",
    "organization",
    "Organization",
    "x" * 300,
    "é" * 100,
    "日" * 100,
    "🙂" * 50,
    "\ud83d",
    "a\u202eb",
    "run.json",
    "run.lock",
    "attachments.sqlite3",
    "migration_report.json",
    "migration_summary.txt",
    "findings.jsonl",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_becomes_a_safe_folder(name: str, tmp_path: Path) -> None:
    folder = folder_name(name, [])
    (tmp_path / "run" / folder).mkdir(parents=True)
    inside = (os.listdir(tmp_path), os.listdir(tmp_path / "run"))
    assert (
        inside,
        folder != name,
        folder[0] in ". ",
        len(folder.encode()) <= MAX_NAME_BYTES + 9,
    ) == (
        (["run"], [folder]),
        True,
        False,
        True,
    )


def test_every_name_has_a_folder_of_its_own_whatever_the_case() -> None:
    taken: List[str] = []
    for name in [
        *HOSTILE,
        "Alpha",
        "alpha",
        "ALPHA",
        "a_b",
        "a/b ",
        "straße",
        "STRASSE",
        folder_name("c/d", []),
        "c/d",
    ]:
        taken.append(folder_name(name, taken))
    folded = [item.casefold() for item in taken]
    assert (len(set(folded)), [entry for entry in taken if "/" in entry or "\x00" in entry]) == (
        len(folded),
        [],
    )


def test_the_folder_of_a_project_is_kept(run: RunDirectory) -> None:
    folders = [run.folder(name) for name in ("Alpha", "alpha", "../x", "")]
    again = RunDirectory(run.path)
    assert ([again.folder(name) for name in ("", "../x", "alpha", "Alpha")], len(set(folders))) == (
        folders[::-1],
        4,
    )


def test_a_project_named_like_a_file_of_the_run_does_not_disturb_it(run: RunDirectory) -> None:
    for name in (RUN_FILE, LOCK_FILE, "attachments.sqlite3"):
        run.objects("datasets", name).save()
    assert [obj.project for obj in RunDirectory(run.path).all_objects()] == [
        RUN_FILE,
        LOCK_FILE,
        "attachments.sqlite3",
    ]


# -- a run


def test_run_json_of_a_new_run_says_what_it_is_for_and_holds_no_key(root: Path) -> None:
    run = found(root)
    data = read_json(run.path / RUN_FILE)
    created = data.pop("created")
    assert (data, run.path.parent, created[-1], "sk-" in (run.path / RUN_FILE).read_text()) == (
        {
            "format": 1,
            **json_of(identity()),
            "command": ALL,
            "phases_done": [],
            "finished": False,
            "sessions": [],
            "folders": {},
        },
        root,
        "Z",
        False,
    )


def test_runs_are_named_by_the_time_and_two_of_one_second_are_two(root: Path) -> None:
    paths = [create_run(root, identity(), ALL).path for _ in range(3)]
    assert (
        [bool(re.fullmatch(r"\d{8}_\d{6}(_\d\d)?", path.name)) for path in paths],
        [run.path for run in runs_in(root)],
    ) == (
        [True] * 3,
        sorted(paths, reverse=True),
    )


def test_runs_are_named_in_utc_wherever_they_are_started(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        name = create_run(root, identity(), ALL).path.name
    time.tzset()
    named = datetime.strptime(name, "%Y%m%d_%H%M%S").replace(tzinfo=timezone.utc)
    assert abs((datetime.now(timezone.utc) - named).total_seconds()) < 60


def test_a_done_phase_stays_done(run: RunDirectory) -> None:
    for _ in range(2):
        run.mark_phases_done(["migrate-logs"])
    again = RunDirectory(run.path)
    done = [again.phase_done(phase) for phase in ("migrate-logs", "migrate-acls")]
    assert (again.record.phases_done, done) == (["migrate-logs"], [True, False])


def test_the_files_of_a_run_lie_where_the_manual_says(run: RunDirectory) -> None:
    places = [
        run.objects("roles").path,
        run.objects("datasets", "Alpha").path,
        run.stream_path("dataset_events", "Alpha", "s1"),
        run.stream_path("", "Alpha", "p1"),
    ]
    assert [str(path.relative_to(run.path)) for path in places] == [
        "organization/roles_state.json",
        "Alpha/datasets_state.json",
        "Alpha/dataset_events/s1",
        "Alpha/logs",
    ]


def test_the_next_process_sees_all_states_of_a_run(run: RunDirectory) -> None:
    for resource, project in [
        ("roles", ""),
        ("datasets", "Beta"),
        ("datasets", "Alpha"),
        ("experiments", "Alpha"),
    ]:
        run.objects(resource, project).save()
    for folder, project, source_id in [
        ("", "Alpha", "p"),
        ("dataset_events", "Alpha", "d1"),
        ("experiment_events", "Beta", "e1"),
    ]:
        path = run.stream_path(folder, project, source_id)
        header = {"kind": "datasets", "name": "n", "source_id": source_id, "project": project}
        StreamState.open(path.with_name(path.name + "_state.json"), header).save()
    again = RunDirectory(run.path)
    assert [(obj.resource, obj.project) for obj in again.all_objects()] == [
        ("roles", ""), ("datasets", "Beta"), ("datasets", "Alpha"), ("experiments", "Alpha"),
    ]  # fmt: skip
    streams = [(item.header["project"], item.header["source_id"]) for item in again.all_streams()]
    assert streams == [("Beta", "e1"), ("Alpha", "d1"), ("Alpha", "p")]


def test_all_streams_shows_a_stream_that_is_being_written_as_its_file_has_it(
    run: RunDirectory,
) -> None:
    path = run.stream_path("", "Alpha", "p")
    file = path.with_name(path.name + "_state.json")
    header = {"kind": "logs", "name": "Alpha", "source_id": "p", "project": "Alpha"}
    StreamState.open(file, header).save()
    before = run.all_streams()
    run.open_stream(file)
    writing = StreamState.open(file, {})
    writing.counts["fetched"] = 5
    assert [item.counts["fetched"] for item in run.all_streams()] == [0]
    writing.save()
    assert [entry.counts["fetched"] for entry in run.all_streams()] == [5]
    writing.done = True
    run.close_stream(writing, written=False)  # nothing since the last time that it was closed
    assert run.all_streams() == before
    run.open_stream(file)
    writing.save()
    run.close_stream(writing, written=True)
    assert run.all_streams() == [writing]


def test_the_states_of_a_resource_are_opened_once(run: RunDirectory) -> None:
    assert run.objects("datasets", "Alpha") is run.objects("datasets", "Alpha")


def test_everything_in_a_run_is_for_its_owner_only(root: Path) -> None:
    before = os.umask(0)
    try:
        with found(root) as run:
            SeenRows(
                run.stream_path("dataset_events", "Beta", "s1").with_name("s1_seen.sqlite3")
            ).record([("o", "a", 1, "created", 0)])
            run.objects("datasets", "Alpha").save()
            run.objects("roles").save()
            write_json(run.folder("Gamma") / "experiment_events" / "e_state.json", {})
            append_line(run.folder("Alpha") / "x_failed.jsonl", {"id": "1"})
            CopiedAttachments(run.path / "attachments.sqlite3").record("k", "n", 1, "s")
            paths = [root, *root.rglob("*")]
            modes = {str(path.relative_to(root)): oct(mode(path)) for path in paths}
            expected = {
                str(path.relative_to(root)): oct(0o700 if path.is_dir() else 0o600)
                for path in paths
            }
    finally:
        os.umask(before)
    assert modes == expected


# -- one process at a time


HOLD = """
import sys
from pathlib import Path
from bt_migrate.errors import MigrationError
from bt_migrate.state.run_directory import RunDirectory
try:
    with RunDirectory(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except MigrationError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def held(run: RunDirectory) -> subprocess.Popen:
    holder = python(HOLD, run.path)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_names_the_holder_of_the_lock_and_ends(run: RunDirectory) -> None:
    with run:
        second = python(HOLD, run.path)
        out, err = second.communicate(timeout=TIME_LIMIT_S)
    assert (out, err, second.returncode) == (
        "",
        f"{run.path}: process {os.getpid()} is working on this run; wait for it or stop it first\n",
        EXIT_LOCKED,
    )


@pytest.mark.parametrize("end", ["kill", "close"])
def test_a_run_is_unlocked_once_its_process_has_ended_in_any_way(
    run: RunDirectory, end: str
) -> None:
    holder = held(run)
    with pytest.raises(LockedError, match=f"process {holder.pid} is working on this run"):
        run.__enter__()
    if end == "kill":
        holder.kill()
    holder.communicate(timeout=TIME_LIMIT_S)
    with run:
        kept = (run.path / LOCK_FILE).read_text()
    assert kept == f"{os.getpid()}\n"


def test_the_lock_of_one_run_is_not_that_of_another(root: Path, run: RunDirectory) -> None:
    with run, found(root, new_run=True) as other:
        assert other.path != run.path


def test_the_next_holder_of_the_lock_sees_what_the_last_one_wrote(run: RunDirectory) -> None:
    late = RunDirectory(run.path)
    with run:
        run.mark_phases_done(["migrate-logs"])
    with late:
        assert late.record.phases_done == ["migrate-logs"]


def test_the_oldest_of_many_starts_are_merged_into_one_record() -> None:
    sessions: List[Session] = []
    for number in range(1000):
        command = "verify" if number % 10 == 1 else "migrate-all"
        session = Session(str(number), command, seconds=0.5, wrote_until=1000.0 - number)
        add_session(sessions, session)
    assert (len(sessions), sessions[0].started, sessions[-1].started) == (
        MAX_SESSIONS,
        "0",
        "999",
    )
    for command, count in (("verify", 100), ("migrate-all", 900)):
        own = [session for session in sessions if session.command == command]
        assert (sum(item.starts for item in own), sum(entry.seconds for entry in own)) == (
            count,
            count / 2,
        )
    assert max(session.wrote_until or 0 for session in sessions) == 1000.0
    assert [int(session.started) for session in sessions] == sorted(
        int(session.started) for session in sessions
    )


@pytest.mark.parametrize(
    ("updated", "expected"),
    [("2026-03-01T00:00:12.5Z", (12.5, 760)), ("2026-02-28T23:59:59Z", (0.0, 0))],
    ids=["its own status", "the status of an earlier process"],
)
def test_the_time_and_rows_of_a_killed_start_are_those_of_its_last_status(
    updated: str, expected: Tuple[float, int], tmp_path: Path
) -> None:
    with create_run(tmp_path, identity(), "migrate-all") as run:
        run.record.sessions.append(Session("2026-03-01T00:00:00Z", "migrate-all"))
        status = {
            "format": FORMAT,
            "pid": 1,
            "host": "h",
            "started": "2026-03-01T00:00:00Z",
            "state": "running",
            "updated": updated,
            "paused": False,
            "rows": 760,
        }
        (run.path / "status.json").write_text(json.dumps(status), encoding="utf-8")
        end_killed_session(run, 0.0)
        (session,) = run.record.sessions
        assert (session.seconds, session.rows) == expected
