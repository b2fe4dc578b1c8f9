"""The run directory: files that are whole or the old ones, one process at a time, and the right run found again."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

from bt_migrate.config.load import load_settings
from bt_migrate.config.settings import Settings
from bt_migrate.errors import EXIT_LOCKED, LockedError, StateError, UsageError
from bt_migrate.model.outcomes import FAILED, LATER, SKIPPED
from bt_migrate.state.copied_attachments import CopiedAttachments
from bt_migrate.state.files import append_line, read_json, write_json
from bt_migrate.state.find_run import create_run, find_run
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import (
    LOCK_FILE,
    MAX_FOLDER_BYTES,
    MAX_SESSIONS,
    RUN_FILE,
    RunDirectory,
    add_session,
    fingerprints_in,
    folder_name,
    runs_in,
)
from bt_migrate.state.seen_rows import SeenRows
from bt_migrate.state.stream_state import KeyRange, StreamState

CHECKOUT = Path(__file__).resolve().parent.parent.parent
ALL = "migrate-all"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def settings_for(state_dir: Path, **flags: Any) -> Settings:
    resume = str(flags.pop("resume", ""))
    environ = {
        "BT_SOURCE_API_KEY": "sk-s",
        "BT_DEST_API_KEY": "sk-d",
        "MIGRATION_RESUME_RUN_DIR": resume,
    }
    return load_settings({"state_dir": str(state_dir), **flags}, environ)


def identity(**changes: Any) -> Dict[str, Any]:
    """What today's settings ask for; changes: source, dest (organization ids), resources, projects, after, before, renamed,
    dry_run."""
    given = {
        "source": "src",
        "dest": "dst",
        "resources": ["datasets", "logs"],
        "projects": [],
        "after": None,
        "before": None,
        **changes,
    }
    sides = {
        side: {
            "org_id": given[side],
            "org_name": given[side].upper(),
            "url": "https://api.example.test",
        }
        for side in ("source", "dest")
    }
    selection = {
        "resources": given["resources"],
        "projects": given["projects"],
        "created_after": given["after"],
        "created_before": given["before"],
        **({"rename_projects": given["renamed"]} if "renamed" in given else {}),
    }
    return {**sides, "selection": selection, "dry_run": given.get("dry_run", False)}


def found(
    state_dir: Path, command: str = ALL, today: Optional[Dict[str, Any]] = None, **flags: Any
) -> RunDirectory:
    return find_run(settings_for(state_dir, **flags), today or identity(), command)[0]


def finish(run: RunDirectory) -> None:
    run.data["finished"] = True
    run.save()


@pytest.fixture
def run(root: Path) -> RunDirectory:
    return found(root)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def python(code: str, *arguments: Any, **more: Any) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *(str(one) for one in arguments)]
    environ = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


# -- JSON files


VALUE = {
    "n": 123456789012345678901234567890,
    "s": "Zoë \ud83d \x00",
    "list": [None, -0.0, True],
    "format": 1,
}


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "er" / "x.json", VALUE)
    assert (
        repr(read_json(tmp_path / "deep" / "er" / "x.json")),
        os.listdir(tmp_path / "deep" / "er"),
    ) == (repr(VALUE), ["x.json"])


WRITE_FOR_EVER = """
import sys
from pathlib import Path
from bt_migrate.state.files import write_json
number = 0
while True:
    number += 1
    write_json(Path(sys.argv[1]), {"format": 1, "fill": [number] * 20000})
    if number == 1:
        print("written", flush=True)
"""


def test_a_file_is_whole_whenever_it_is_read_and_whenever_its_writer_is_killed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.json"
    seen = set()
    for _ in range(3):
        writer = python(WRITE_FOR_EVER, path)
        assert writer.stdout is not None and writer.stdout.readline() == "written\n"
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            seen.add((len(read_json(path)["fill"]), len(set(read_json(path)["fill"]))))
        writer.kill()
        writer.communicate()
        seen.add((len(read_json(path)["fill"]), len(set(read_json(path)["fill"]))))
    assert seen == {(20000, 1)}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_on_a_full_disk_the_old_file_stays_and_the_error_names_it(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"format": 1, "old": True})
    (tmp_path / "x.json.tmp").symlink_to("/dev/full")
    with pytest.raises(StateError) as refused:
        write_json(path, {"new": True})
    assert (str(refused.value), read_json(path)) == (
        f"{path}: cannot be written (No space left on device); the last checkpoint is whole: make room, then run again",
        {"format": 1, "old": True},
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_a_line_that_does_not_fit_is_an_error_that_names_the_file() -> None:
    with pytest.raises(StateError) as refused:
        append_line(Path("/dev/full"), {"id": "1"})
    assert (
        str(refused.value)
        == "/dev/full: cannot be written (No space left on device); make room, then run again"
    )


def test_lines_are_added_one_by_one(tmp_path: Path) -> None:
    for number in range(3):
        append_line(tmp_path / "x.jsonl", {"id": number, "reason": "a\nb"})
    lines = (tmp_path / "x.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": number, "reason": "a\nb"} for number in range(3)
    ]


DAMAGED = [b"", b"{", b'{"format": 1', b"\xff\xfe", b"null", b"[]", b'"text"', b"{} {}"]


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("name", ["datasets_state.json", "logs_state.json", RUN_FILE])
def test_a_damaged_file_stops_the_run_and_is_named(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    opened = {
        "datasets_state.json": lambda: ObjectStates(path, "datasets", "p"),
        "logs_state.json": lambda: StreamState.open(path, {}),
        RUN_FILE: lambda: RunDirectory(tmp_path),
    }
    with pytest.raises(StateError) as refused:
        opened[name]()
    assert (str(refused.value), path.read_bytes()) == (
        f"{path}: is damaged; restore it from a copy, or start anew with --new-run (what is there is found, not doubled)",
        content,
    )


def test_a_run_whose_file_says_nothing_is_damaged(root: Path, run: RunDirectory) -> None:
    (run.path / RUN_FILE).write_text("{}")
    with pytest.raises(StateError, match="run.json"):
        found(root)


@pytest.mark.parametrize("number", [0, 2, 99, "1"])
def test_a_file_of_another_format_is_refused_by_name(tmp_path: Path, number: Any) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"format": number, "outcomes": {}}))
    with pytest.raises(StateError) as refused:
        ObjectStates(path, "datasets", "p")
    assert str(refused.value) == (
        f"{path}: has format {number}, this program writes 1; use the version that wrote it, or --new-run"
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError) as refused:
        read_json(tmp_path / "x.json")
    assert (
        str(refused.value) == f"{tmp_path / 'x.json'}: cannot be read (No such file or directory)"
    )


# -- folders of projects


@pytest.mark.parametrize(
    "name", ["Alpha", "with space", "under_score-1.2", "Zoë 日本", "a.b", "x" * MAX_FOLDER_BYTES]
)
def test_a_plain_name_is_its_folder(name: str) -> None:
    assert folder_name(name, []) == name


HOSTILE = [
    "../../etc/passwd", "/absolute", "a/b", "a\\b", "..", ".", " ", ".hidden", "trailing.", " leading", "trailing ", "a\x00b", "a\nb",
    "-rf *", "$(reboot)", "a:b", "CON", "nul.txt", "com1", "organization", "Organization", "x" * 300, "é" * 100, "日" * 100, "🙂" * 50,
    "\ud83d", "a\u202eb", "run.json", "run.lock", "attachments.sqlite3", "migration_report.json", "migration_summary.txt", "findings.jsonl",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_becomes_a_safe_folder(name: str, tmp_path: Path) -> None:
    folder = folder_name(name, [])
    (tmp_path / "run" / folder).mkdir(parents=True)
    inside = (os.listdir(tmp_path), os.listdir(tmp_path / "run"))
    assert (
        inside,
        folder != name,
        folder[0] in ". ",
        len(folder.encode()) <= MAX_FOLDER_BYTES + 9,
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
    folded = [one.casefold() for one in taken]
    assert (len(set(folded)), [one for one in taken if "/" in one or "\x00" in one]) == (
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
    assert [one.project for one in RunDirectory(run.path).all_objects()] == [
        RUN_FILE,
        LOCK_FILE,
        "attachments.sqlite3",
    ]


# -- outcomes of objects


def test_outcomes_findings_and_mapping_survive_the_process(tmp_path: Path) -> None:
    states = ObjectStates(tmp_path / "datasets_state.json", "datasets", "Alpha")
    states.record("s1", "Q", "created", dest_id="d1", reason="")
    states.record("s2", "R", FAILED, reason="500: boom")
    states.record("s3", "S", "differs", dest_id="d3", fields=("tags",))
    states.record("s2", "R", "found", dest_id="d2")
    states.note("s1", [{"kind": "waits"}])
    states.note("s3", [{"kind": "waits"}])
    states.note("s3", [])
    states.deferred["s1"] = "d1"
    states.intended = {"s9": {"key": ["n"], "project": "", "fingerprint": "f"}}
    states.listed = 3
    states.save()
    again = ObjectStates(tmp_path / "datasets_state.json", "datasets", "Alpha")
    assert (
        again.outcomes,
        again.findings,
        again.deferred,
        again.intended,
        again.listed,
        again.id_mapping(),
    ) == (
        {
            "s1": {"name": "Q", "outcome": "created", "dest_id": "d1"},
            "s2": {"name": "R", "outcome": "found", "dest_id": "d2"},
            "s3": {"name": "S", "outcome": "differs", "dest_id": "d3", "fields": ["tags"]},
        },
        {"s1": [{"kind": "waits"}]},
        {"s1": "d1"},
        {"s9": {"key": ["n"], "project": "", "fingerprint": "f"}},
        3,
        {"s1": "d1", "s2": "d2", "s3": "d3"},
    )


def test_the_file_of_outcomes_can_be_read_by_a_person(tmp_path: Path) -> None:
    states = ObjectStates(tmp_path / "x.json", "datasets", "Alpha")
    states.record("s1", "Q", "created", dest_id="d1")
    states.record("s2", "R", FAILED, reason="no")
    states.save()
    kept = read_json(tmp_path / "x.json")
    assert {
        name: kept[name]
        for name in ("format", "resource", "project", "completed_ids", "failed_ids", "id_mapping")
    } == {
        "format": 1,
        "resource": "datasets",
        "project": "Alpha",
        "completed_ids": ["s1"],
        "failed_ids": ["s2"],
        "id_mapping": {"s1": "d1"},
    }


@pytest.mark.parametrize(
    ("outcome", "reason", "expected"),
    [
        ("created", "", True),
        ("found", "", True),
        ("differs", "x", True),
        (SKIPPED, "built-in", True),
        (SKIPPED, LATER, False),
        (FAILED, "", False),
    ],
)
def test_a_failed_object_and_one_of_a_later_phase_are_taken_up_again(
    tmp_path: Path, outcome: str, reason: str, expected: bool
) -> None:
    states = ObjectStates(tmp_path / "x.json", "datasets", "Alpha")
    states.record("s1", "Q", outcome, reason=reason)
    assert (states.completed("s1"), states.completed("unknown")) == (expected, False)


def test_many_threads_may_record_and_save_at_once(tmp_path: Path) -> None:
    states = ObjectStates(tmp_path / "x.json", "datasets", "Alpha")
    errors: List[BaseException] = []

    def work(thread: int) -> None:
        try:
            for number in range(25):
                states.record(f"{thread}-{number}", "Q", "created", dest_id="d")
                states.save()
        except StateError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, len(ObjectStates(tmp_path / "x.json", "datasets", "Alpha").outcomes)) == (
        [],
        150,
    )


# -- streams


def test_the_checkpoint_of_a_stream_survives_the_process(tmp_path: Path) -> None:
    header = {"kind": "logs", "project": "Alpha", "name": "Alpha", "source_id": "s", "dest_id": "d"}
    state = StreamState.open(tmp_path / "logs_state.json", header)
    state.slices = [
        KeyRange("p1", "p5"),
        KeyRange("p5", "p9", done=True),
    ]
    state.done, state.error, state.seconds, state.waiting = True, "e", 1.5, 2
    state.copy.compared = True
    state.sync.above = 7
    state.counts["created"] = 7
    state.findings = [{"kind": "waits"}]
    state.save()
    again = StreamState.open(tmp_path / "logs_state.json", {"dest_id": "other"})
    expected = {**vars(state), "header": {**header, "dest_id": "other"}, "lock": again.lock}
    assert vars(again) == expected


@pytest.mark.parametrize(
    ("slices", "expected"), [([], None), (["p1"], "p1"), (["p1", "p5"], "p1"), ([None, "p5"], None)]
)
def test_the_checkpoint_shows_up_to_which_key_everything_has_an_outcome(
    tmp_path: Path, slices: list, expected: Optional[str]
) -> None:
    state = StreamState.open(tmp_path / "logs_state.json", {})
    state.slices = [KeyRange(after) for after in slices] or state.slices
    state.save()
    assert read_json(state.path)["pagination_key"] == expected


def test_a_new_stream_has_done_nothing(tmp_path: Path) -> None:
    state = StreamState.open(tmp_path / "logs_state.json", {"kind": "logs"})
    assert (state.slices, state.done, set(state.counts.values()), state.findings) == (
        [KeyRange()],
        False,
        {0},
        [],
    )


def test_the_files_of_a_stream_lie_side_by_side(tmp_path: Path) -> None:
    state = StreamState.open(tmp_path / "d1_state.json", {})
    assert state.sibling("_seen.sqlite3") == tmp_path / "d1_seen.sqlite3"


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[SeenRows]:
    rows = SeenRows(tmp_path / "new" / "x_seen.sqlite3")
    yield rows
    rows.close()


def test_rows_are_remembered_by_object_and_id_with_their_transaction(seen: SeenRows) -> None:
    empty = seen.holds_rows()
    seen.record(
        [("o1", "a", 1, "created"), ("o1", "b", 2**63 - 1, "found"), ("o2", "a", 3, "created")]
    )
    seen.record([("o1", "a", 5, "updated")])
    assert (
        empty,
        seen.holds_rows(),
        seen.outcomes_of("o1", ["a", "b", "c"]),
        seen.outcomes_of("o2", ["a", "b"]),
    ) == (
        False,
        True,
        {"a": (5, "updated"), "b": (2**63 - 1, "found")},
        {"a": (3, "created")},
    )


def test_nothing_to_remember_makes_no_file(seen: SeenRows) -> None:
    answers = (
        seen.holds_rows(),
        seen.outcomes_of("o", ["a"]),
        seen.before("o", ["a"]),
        seen.deferred(),
    )
    seen.forget_before()
    seen.close()
    assert (answers, seen.path.parent.exists()) == ((False, {}, {}, []), False)


def test_what_an_earlier_process_remembered_is_known_at_once(seen: SeenRows) -> None:
    seen.record([("o", "a", 1, "created")])
    seen.close()
    again = SeenRows(seen.path)
    answers = (again.holds_rows(), again.outcomes_of("o", ["a"]))
    again.close()
    assert answers == (True, {"a": (1, "created")})


def test_many_threads_remember_at_the_same_time(seen: SeenRows) -> None:
    start = threading.Barrier(8)

    def remember(thread: int) -> int:
        start.wait()
        for number in range(20):
            one = f"{thread}-{number}"
            seen.record([("o", one, 1, "created")], [("o", one, "origin", "datasets", "r", "{}")])
            seen.record_before([("o", one, one.encode())])
            seen.forget_deferred([("o", one, "origin")])
        return len(seen.outcomes_of("o", [f"{thread}-{number}" for number in range(20)]))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(remember, range(8)))
    ids = [f"{thread}-{number}" for thread in range(8) for number in range(20)]
    assert (
        found,
        len(seen.outcomes_of("o", ids)),
        len(seen.before("o", ids)),
        seen.deferred(),
    ) == ([20] * 8, 160, 160, [])


@pytest.mark.parametrize(
    "row_id", ["plain", "Zoë 日本 🙂", "with\x00nul", "it's", "", "x" * 10_000]
)
def test_any_row_id_is_remembered(seen: SeenRows, row_id: str) -> None:
    seen.record([("o", row_id, 1, "created")], [("o", row_id, "origin", "datasets", "ref", "{}")])
    seen.record_before([("o", row_id, b"digest")])
    assert (seen.outcomes_of("o", [row_id]), seen.before("o", [row_id]), seen.deferred()) == (
        {row_id: (1, "created")},
        {row_id: b"digest"},
        [("o", row_id, "origin", "datasets", "ref", "{}")],
    )


def test_thousands_of_ids_are_looked_up_at_once(seen: SeenRows) -> None:
    ids = [str(number) for number in range(2500)]
    seen.record([("o", one, 1, "created") for one in ids])
    seen.record_before([("o", one, one.encode()) for one in ids])
    assert (len(seen.outcomes_of("o", ids)), seen.before("o", ids)) == (
        2500,
        {one: one.encode() for one in ids},
    )


def test_what_the_destination_had_before_can_be_forgotten(seen: SeenRows) -> None:
    seen.record_before([("o", "a", b"1")])
    seen.forget_before()
    assert seen.before("o", ["a"]) == {}


def test_references_that_wait_are_kept_until_each_is_forgotten(seen: SeenRows) -> None:
    waiting = [
        ("o", "b", "origin", "datasets", "r1", "{}"),
        ("o", "a", "metadata.prompt.id", "functions,prompts", "r2", ""),
    ]
    seen.record([], [*waiting, waiting[0]])
    before = seen.deferred()
    seen.forget_deferred([("o", "b", "origin")])
    assert (before, seen.deferred()) == ([waiting[1], waiting[0]], [waiting[1]])


RECORD_FOR_EVER = """
import sys
from pathlib import Path
from bt_migrate.state.seen_rows import SeenRows
seen = SeenRows(Path(sys.argv[1]))
number = 0
while True:
    seen.record([("o", f"{number}-{part}", 1, "created") for part in range(10)])
    print(number, flush=True)
    number += 1
"""


def test_rows_that_were_committed_survive_a_kill_and_batches_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "x_seen.sqlite3"
    writer = python(RECORD_FOR_EVER, path)
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.readline()
    writer.kill()
    told = 19 + len([line for line in writer.communicate()[0].splitlines() if line.strip()])
    seen = SeenRows(path)
    counts = [
        len(seen.outcomes_of("o", [f"{number}-{part}" for part in range(10)]))
        for number in range(told + 2)
    ]
    seen.close()
    assert (set(counts[: told + 1]), set(counts) <= {0, 10}) == ({10}, True)


@pytest.mark.parametrize(
    "content", [b"this is no database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 2000]
)
def test_a_damaged_database_stops_the_run_and_is_named(tmp_path: Path, content: bytes) -> None:
    for opened in (SeenRows, CopiedAttachments):
        path = tmp_path / f"{opened.__name__}.sqlite3"
        path.write_bytes(content)
        with pytest.raises(StateError, match=f"^{re.escape(str(path))}: cannot be used "):
            opened(path)


NO_ROOM = """
import resource, sys
from pathlib import Path
from bt_migrate.errors import StateError
from bt_migrate.state.copied_attachments import CopiedAttachments
from bt_migrate.state.seen_rows import SeenRows
path = Path(sys.argv[2])
store = {"SeenRows": SeenRows, "CopiedAttachments": CopiedAttachments}[sys.argv[1]](path)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))  # as a full disk: a write beyond it fails
try:
    for number in range(100000):
        if sys.argv[1] == "SeenRows":
            store.record([("o", f"{number}-" + "x" * 1000, 1, "created")])
        else:
            store.record(f"{number}-" + "x" * 1000, "dest", 1, "sha")
except StateError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("store", ["SeenRows", "CopiedAttachments"])
def test_a_database_without_room_is_one_line_that_names_it(tmp_path: Path, store: str) -> None:
    path = tmp_path / "x.sqlite3"
    out, err = python(NO_ROOM, store, path).communicate(timeout=30)
    assert (out.startswith(f"{path}: cannot be used ("), len(out.splitlines()), err) == (
        True,
        1,
        "",
    )


def test_attachments_that_were_copied_are_known_to_the_next_process(tmp_path: Path) -> None:
    copied = CopiedAttachments(tmp_path / "attachments.sqlite3")
    nothing = copied.totals()
    copied.record("k1", "n1", 10, "sha1")
    copied.record("k2", "n2", 5, "sha2")
    copied.record("k1", "n1", 10, "sha1")
    again = CopiedAttachments(tmp_path / "attachments.sqlite3")
    assert (nothing, again.totals(), again.has("k1"), again.has("n1")) == (
        (0, 0),
        (2, 15),
        True,
        False,
    )


# -- a run


def test_a_new_run_tells_what_it_was_made_for_and_holds_no_key(root: Path) -> None:
    run = found(root)
    data = read_json(run.path / RUN_FILE)
    created = data.pop("created")
    assert (data, run.path.parent, created[-1], "sk-" in (run.path / RUN_FILE).read_text()) == (
        {
            "format": 1,
            **identity(),
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


def test_phases_are_done_once_and_for_all(run: RunDirectory) -> None:
    for _ in range(2):
        run.mark_phases_done(["migrate-logs"])
    again = RunDirectory(run.path)
    done = [again.phase_done(phase) for phase in ("migrate-logs", "migrate-acls")]
    assert (again.data["phases_done"], done) == (["migrate-logs"], [True, False])


def test_states_lie_where_the_design_says(run: RunDirectory) -> None:
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
        StreamState.open(
            path.with_name(path.name + "_state.json"), {"source_id": source_id, "project": project}
        ).save()
    again = RunDirectory(run.path)
    assert [(one.resource, one.project) for one in again.all_objects()] == [
        ("roles", ""), ("datasets", "Beta"), ("datasets", "Alpha"), ("experiments", "Alpha"),
    ]  # fmt: skip
    streams = [(one.header["project"], one.header["source_id"]) for one in again.all_streams()]
    assert streams == [("Beta", "e1"), ("Alpha", "d1"), ("Alpha", "p")]


def test_a_stream_that_is_being_written_is_what_its_file_says(run: RunDirectory) -> None:
    path = run.stream_path("", "Alpha", "p")
    file = path.with_name(path.name + "_state.json")
    StreamState.open(file, {"source_id": "p"}).save()
    before = run.all_streams()
    run.open_stream(file)
    writing = StreamState.open(file, {})
    writing.counts["fetched"] = 5
    assert [one.counts["fetched"] for one in run.all_streams()] == [0]
    writing.save()
    assert [one.counts["fetched"] for one in run.all_streams()] == [5]
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
            ).record([("o", "a", 1, "created")])
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


def test_a_second_process_is_told_who_works_on_the_run_and_ends(run: RunDirectory) -> None:
    with run:
        second = python(HOLD, run.path)
        out, err = second.communicate(timeout=20)
    assert (out, err, second.returncode) == (
        "",
        f"{run.path}: process {os.getpid()} is working on this run; wait for it or stop it first\n",
        EXIT_LOCKED,
    )


@pytest.mark.parametrize("end", ["kill", "close"])
def test_a_run_is_free_once_its_holder_is_gone_however_it_went(run: RunDirectory, end: str) -> None:
    holder = held(run)
    with pytest.raises(LockedError, match=f"process {holder.pid} is working on this run"):
        run.__enter__()
    if end == "kill":
        holder.kill()
    holder.communicate(timeout=20)
    with run:
        kept = (run.path / LOCK_FILE).read_text()
    assert kept == f"{os.getpid()}\n"


def test_the_lock_of_one_run_is_not_that_of_another(root: Path, run: RunDirectory) -> None:
    with run, found(root, new_run=True) as other:
        assert other.path != run.path


def test_the_one_who_gets_the_lock_sees_what_the_last_one_wrote(run: RunDirectory) -> None:
    late = RunDirectory(run.path)
    with run:
        run.mark_phases_done(["migrate-logs"])
    with late:
        assert late.data["phases_done"] == ["migrate-logs"]


# -- the right run


def test_an_unfinished_run_is_resumed_by_the_same_command(root: Path) -> None:
    first = found(root)
    assert [found(root).path, found(root).path, len(list(runs_in(root)))] == [
        first.path,
        first.path,
        1,
    ]


def test_a_finished_run_is_followed_by_a_new_one(root: Path) -> None:
    first = found(root)
    finish(first)
    second = found(root)
    assert (first.path != second.path, found(root).path) == (True, second.path)


@pytest.mark.parametrize(
    "changes",
    [
        {"resources": ["logs"]},
        {"projects": ["Alpha"]},
        {"after": "2026-01-15T00:00:00Z"},
        {"before": "2026-01-15T00:00:00Z"},
    ],
)
def test_another_selection_is_another_run(root: Path, changes: Dict[str, Any]) -> None:
    first, other = found(root), found(root, today=identity(**changes))
    assert (first.path != other.path, found(root, today=identity(**changes)).path) == (
        True,
        other.path,
    )


@pytest.mark.parametrize("changes", [{"source": "other"}, {"dest": "other"}])
def test_runs_of_other_organizations_in_the_same_root_are_passed_over(
    root: Path, changes: Dict[str, Any]
) -> None:
    first = found(root)
    other = found(root, today=identity(**changes))
    assert (
        first.path != other.path,
        found(root).path,
        found(root, today=identity(**changes)).path,
    ) == (True, first.path, other.path)


def test_another_url_of_the_same_organizations_is_the_same_run(root: Path) -> None:
    first = found(root)
    today = identity()
    today["source"]["url"] = "https://elsewhere.example.test"
    assert found(root, today=today).path == first.path


def test_a_dry_run_is_never_resumed_and_never_taken_for_a_real_one(root: Path) -> None:
    real = found(root)
    dry = [found(root, today=identity(dry_run=True)).path for _ in range(2)]
    assert (len({real.path, *dry}), found(root).path) == (3, real.path)


def test_new_run_starts_anew(root: Path) -> None:
    first = found(root)
    second = found(root, new_run=True)
    assert (second.path != first.path, found(root).path) == (True, second.path)


def test_only_the_newest_run_is_looked_at(root: Path) -> None:
    oldest = found(root)
    newer = found(root, new_run=True)
    finish(newer)
    assert found(root).path not in (oldest.path, newer.path)


def test_phase_scripts_share_a_run_until_one_comes_a_second_time(root: Path) -> None:
    first = found(root, "migrate-datasets")
    first.mark_phases_done(["migrate-datasets"])
    logs = found(root, "migrate-logs")
    logs.mark_phases_done(["migrate-logs"])
    again = found(root, "migrate-logs")
    again.mark_phases_done(["migrate-logs"])
    datasets = found(root, "migrate-datasets")
    assert (logs.path, again.path != first.path, datasets.path) == (first.path, True, again.path)


def test_an_interrupted_phase_is_resumed(root: Path) -> None:
    assert found(root, "migrate-logs").path == found(root, "migrate-logs").path


def test_a_phase_goes_on_in_the_unfinished_run_of_the_whole(root: Path) -> None:
    assert found(root, ALL).path == found(root, "migrate-logs").path


def test_the_whole_is_a_run_of_its_own_beside_those_of_phases(root: Path) -> None:
    assert found(root, "migrate-logs").path != found(root, ALL).path


def test_a_folder_that_is_no_run_is_passed_over(root: Path) -> None:
    (root / "99999999_000000").mkdir(parents=True)
    (root / "notes.txt").write_text("mine")
    first = found(root)
    assert (found(root).path, [run.path for run in runs_in(root)]) == (first.path, [first.path])


def test_after_a_new_run_a_damaged_older_one_is_in_nobodys_way(root: Path) -> None:
    older = found(root)
    (older.path / RUN_FILE).write_text("{")
    newer = found(root, new_run=True)
    assert found(root).path == newer.path


# -- a run that is named


def test_a_run_that_is_named_is_used_even_if_it_is_finished(root: Path, run: RunDirectory) -> None:
    finish(run)
    found(root)
    assert (found(run.path).path, found(root, resume=run.path).path) == (run.path, run.path)


def test_the_run_to_resume_wins_over_the_state_dir(
    root: Path, tmp_path: Path, run: RunDirectory
) -> None:
    assert (
        found(tmp_path / "elsewhere", resume=run.path).path,
        (tmp_path / "elsewhere").exists(),
    ) == (run.path, False)


@pytest.mark.parametrize("name", ["nowhere", "checkpoints"])
def test_a_run_to_resume_that_is_none_is_refused(root: Path, run: RunDirectory, name: str) -> None:
    with pytest.raises(UsageError) as refused:
        found(root, resume=name)
    assert (
        str(refused.value)
        == f"MIGRATION_RESUME_RUN_DIR: {name} is no run directory (it has no run.json)"
    )


def test_the_folder_of_a_project_stands_for_its_run_and_that_project_only(
    run: RunDirectory,
) -> None:
    folder = run.folder("a/b")
    folder.mkdir()
    resumed, settings = find_run(settings_for(folder), identity(), ALL)
    assert (resumed.path, settings.projects) == (run.path, ("a/b",))


def test_the_folder_of_a_project_is_known_from_inside_it_too(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.folder("Alpha").mkdir()
    monkeypatch.chdir(run.folder("Alpha"))
    resumed, settings = find_run(settings_for(Path(".")), identity(), ALL)
    assert (resumed.path.resolve(), settings.projects) == (run.path.resolve(), ("Alpha",))


@pytest.mark.parametrize("name", ["organization", "Nobody"])
def test_a_folder_of_a_run_that_is_no_projects_is_refused(run: RunDirectory, name: str) -> None:
    with pytest.raises(UsageError) as refused:
        found(run.path / name)
    assert str(refused.value) == f"--state-dir: {name} is no project folder of the run {run.path}"


@pytest.mark.parametrize("side", ["source", "dest"])
def test_a_named_run_of_another_organization_is_refused_with_both(
    run: RunDirectory, side: str
) -> None:
    with pytest.raises(UsageError) as refused:
        found(run.path, today=identity(**{side: "other"}))
    was = {"source": "SRC (src)", "dest": "DST (dst)"}[side]
    assert str(refused.value) == (
        f"{run.path}: was made for {side} organization {was}, today's is OTHER (other); use its keys or another --state-dir"
    )


def test_runs_with_other_names_of_projects_are_nothing_to_each_other(tmp_path: Path) -> None:
    """The same objects go elsewhere: neither is one resumed for the other, nor is its memory asked."""
    today = identity(renamed={"Alpha": "Beta"})
    first = found(tmp_path)
    states = first.objects("datasets", "Alpha")
    states.fingerprints["s1"] = ["a", "b"]
    states.save()
    other = found(tmp_path, today=today)
    assert (first.same_pair(identity()), first.same_pair(today), other.path == first.path) == (
        True,
        False,
        False,
    )
    assert (fingerprints_in(first, "datasets"), fingerprints_in(other, "datasets")) == (
        {"s1": ["a", "b"]},
        {},
    )
    with pytest.raises(
        UsageError, match="was made with rename_projects = None, today's is {'Alpha': 'Beta'}"
    ):
        found(first.path, today=today)


def test_an_undone_run_is_refused_and_what_it_left_is_forgotten(tmp_path: Path) -> None:
    first = found(tmp_path)
    states = first.objects("datasets", "Alpha")
    states.fingerprints["s1"] = ["a", "b"]
    states.save()
    first.data.update(undone={"started": "x"}, finished=True)
    first.save()
    assert (found(tmp_path).path == first.path, fingerprints_in(first, "datasets")) == (False, {})
    with pytest.raises(UsageError, match="was undone"):
        found(first.path)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"after": "2026-01-15T00:00:00Z"}, "created_after"),
        ({"before": "2026-01-15T00:00:00Z"}, "created_before"),
    ],
)
def test_a_named_run_of_another_window_is_refused_with_both(
    run: RunDirectory, changes: Dict[str, Any], name: str
) -> None:
    with pytest.raises(UsageError) as refused:
        found(run.path, today=identity(**changes))
    assert str(refused.value) == (
        f"{run.path}: was made with {name} = None, today's is 2026-01-15T00:00:00Z; use the same or another --state-dir"
    )


@pytest.mark.parametrize(
    ("was", "today", "expected"),
    [
        ({"projects": ["Alpha"]}, {"projects": ["Beta"]}, "projects Alpha, today's are Beta"),
        ({"projects": ["Alpha"]}, {"projects": []}, "projects Alpha, today's are all"),
        (
            {"resources": ["logs"]},
            {"resources": ["datasets", "logs"]},
            "resources logs, today's are datasets, logs",
        ),
    ],
)
def test_a_named_run_is_not_widened(
    root: Path, was: Dict[str, Any], today: Dict[str, Any], expected: str
) -> None:
    run = found(root, today=identity(**was))
    with pytest.raises(UsageError) as refused:
        found(run.path, today=identity(**today))
    assert str(refused.value) == f"{run.path}: was made for {expected}; use another --state-dir"


@pytest.mark.parametrize("today", [{"resources": ["logs"]}, {"projects": ["Alpha"]}])
def test_a_part_of_a_named_run_may_be_done(run: RunDirectory, today: Dict[str, Any]) -> None:
    assert found(run.path, today=identity(**today)).path == run.path


@pytest.mark.parametrize(("was", "today", "word"), [(False, True, "real"), (True, False, "dry")])
def test_dry_and_real_do_not_mix_in_a_named_run(
    root: Path, was: bool, today: bool, word: str
) -> None:
    run = found(root, today=identity(dry_run=was))
    with pytest.raises(UsageError) as refused:
        found(run.path, today=identity(dry_run=today))
    assert str(refused.value) == f"{run.path}: is the run of a {word} run; use another --state-dir"


@pytest.mark.parametrize("named", ["state_dir", "resume"])
def test_a_new_run_cannot_be_asked_for_inside_a_named_one(
    root: Path, run: RunDirectory, named: str
) -> None:
    with pytest.raises(UsageError):
        found(run.path, new_run=True) if named == "state_dir" else found(
            root, resume=run.path, new_run=True
        )


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_state_dir_that_cannot_be_made_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="^--state-dir: "):
        found(tmp_path / name)


def test_a_file_of_an_earlier_version_that_names_intended_objects_by_id_alone_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "prompts_state.json"
    path.write_text(json.dumps({"format": 1, "intended": ["s1"]}))
    assert ObjectStates(path, "prompts", "Alpha").intended == {}


def test_the_starts_of_weeks_are_summed_up_and_none_is_forgotten() -> None:
    sessions: List[Dict[str, Any]] = []
    for number in range(1000):
        command = "verify" if number % 10 == 1 else "migrate-all"
        add_session(
            sessions,
            {
                "started": str(number),
                "command": command,
                "seconds": 0.5,
                "wrote_until": 1000.0 - number,
            },
        )
    assert (len(sessions), sessions[0]["started"], sessions[-1]["started"]) == (
        MAX_SESSIONS,
        "0",
        "999",
    )
    for command, count in (("verify", 100), ("migrate-all", 900)):
        own = [one for one in sessions if one["command"] == command]
        assert (sum(one.get("starts", 1) for one in own), sum(one["seconds"] for one in own)) == (
            count,
            count / 2,
        )
    assert max(one["wrote_until"] for one in sessions) == 1000.0
    assert [int(one["started"]) for one in sessions] == sorted(
        int(one["started"]) for one in sessions
    )


COPY_MORE = """
import sys
from pathlib import Path
from bt_migrate.state.copied_attachments import CopiedAttachments
copied = CopiedAttachments(Path(sys.argv[1]))
for number in range(40):
    copied.record(sys.argv[2] + str(number), "there", 1, "0" * 64)
copied.close()
"""


def test_a_store_that_this_process_has_open_twice_is_not_broken_by_another_one(
    tmp_path: Path,
) -> None:
    """Whoever opens and closes a file takes all locks of its process off it; SQLite's own were lost so once."""
    path = tmp_path / "attachments.sqlite3"
    first = CopiedAttachments(path)
    for number in range(4):
        again = CopiedAttachments(path)
        again.record(f"own {number}", "there", 1, "0" * 64)
        again.close()
        ended = python(COPY_MORE, path, f"theirs {number} ")
        assert ended.communicate()[1] == ""
        assert first.totals() == (41 * (number + 1), 41 * (number + 1))
    first.close()
    assert mode(path) == 0o600
