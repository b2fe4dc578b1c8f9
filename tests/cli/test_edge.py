"""The edge of a program: crashes, output that fails, names that would control a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from bt_migrate.cli.signals import GRACE_S
from bt_migrate.config.options import PROGRAMS
from bt_migrate.phases import status
from bt_migrate.report.display import escaped, shell_word, shown
from tests.support.compare_orgs import differences
from tests.support.orgs import (
    REPOSITORY,
    TIME_LIMIT_S,
    AtRequest,
    Pair,
    ended,
    environment,
    is_insert,
    report,
    run,
    run_with,
    runs,
    started,
)

PATHS = {"PYTHONPATH": str(REPOSITORY)}
NASTY = "a\x1b[31m\u202egnp.exe\r\n\x9b2Jb"


def broken_program(folder: Path) -> Path:
    """A program whose phase has a fault, and which runs like any other."""
    path = folder / "broken.py"
    path.write_text(
        "from bt_migrate.cli.program import run_program\n"
        "def run(migration):\n"
        "    return {}['sk-source-5f1c9e']\n"
        "raise SystemExit(run_program(None, 'migrate-logs', 'x', [('migrate-logs', run)]))\n"
    )
    return path


def call(pair: Pair, command: List[Any], folder: Path, **more: Any) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(word) for word in command],
        env={**environment(pair.sandbox), **more.pop("env", {})},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        timeout=TIME_LIMIT_S,
        **more,
    )


@pytest.mark.parametrize("in_json", [False, True])
def test_a_crash_is_one_line_with_70_and_the_traceback_lies_in_the_run(
    in_json: bool, pair: Pair, tmp_path: Path
) -> None:
    command = [sys.executable, broken_program(tmp_path), "--state-dir", tmp_path / "runs"]
    done = call(
        pair, [*command, *(["--json"] if in_json else [])], tmp_path, capture_output=True, text=True
    )
    (file,) = runs(tmp_path / "runs")[0].glob("crash_*.txt")
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, "Traceback" in done.stderr, "Traceback" in done.stdout) == (
        70,
        False,
        False,
    ), done.stderr
    assert str(file) in last
    text = file.read_text()
    assert ("KeyError" in text, "sk-source-5f1c9e" in text, file.stat().st_mode & 0o077) == (
        True,
        False,
        0,
    )
    if in_json:
        line = json.loads(last)
        assert (line["event"], line["exit_code"]) == ("crashed", 70)
    assert report(tmp_path / "runs")["status"] == "failed"


IN_THREAD = (
    "def act(*_):\n"
    "    import threading\n"
    "    thread = threading.Thread(target=lambda: 1 / 0)\n"
    "    thread.start()\n"
    "    thread.join()\n"
    "    return 0\n"
)


@pytest.mark.parametrize("act", ["act = lambda *_: 1 / 0\n", IN_THREAD], ids=["main", "thread"])
def test_a_crash_before_there_is_a_run_is_70_too(act: str, tmp_path: Path) -> None:
    code = (
        f"{act}from bt_migrate.cli.program import in_program\n"
        "raise SystemExit(in_program([], 'migrate-logs', 'x', act))\n"
    )
    keys = {"BT_SOURCE_API_KEY": "sk-a", "BT_DEST_API_KEY": "sk-b"}
    state = tmp_path / "state"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **keys, **PATHS, "MIGRATION_STATE_DIR": str(state)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (70, 1), done.stderr
    (file,) = state.glob("crash_*.txt")
    assert "ZeroDivisionError" in file.read_text()


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
@pytest.mark.variants(1)
def test_output_that_cannot_be_encoded_is_escaped(
    encoding: str, pair: Pair, tmp_path: Path
) -> None:
    done = run(pair.sandbox, tmp_path / "runs", "--log-level", "DEBUG", PYTHONIOENCODING=encoding)
    assert (done.code, "Traceback" in done.err, differences(pair)) == (0, False, [])
    assert "\\u03b1" in done.err or "\\u03b1" in done.out


def test_a_locale_that_cannot_name_a_folder_is_worked_with_or_reported(
    pair: Pair, tmp_path: Path
) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    locale = {**ascii_only, "LANG": "C"}
    done = run(pair.sandbox, tmp_path / "ascii", **locale)
    assert (done.code, differences(pair)) == (0, []), done.err
    assert run(pair.sandbox, tmp_path / "runs").code == 0
    other = run(pair.sandbox, tmp_path / "runs", program="verify", **locale)
    assert (other.code, "set LC_ALL=C.UTF-8" in other.err) == (3, True), other.err
    assert "Traceback" not in other.err


def test_a_closed_pipe_does_not_end_the_run(pair: Pair, tmp_path: Path) -> None:
    """As with `2>&1 | head -1`: nobody reads any more, and the data arrives all the same."""
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "bt_migrate.phases.migrate_all", "--state-dir"]
    os.close(reader)
    done = call(
        pair, [*command, tmp_path / "runs", "--no-verify"], tmp_path, stdout=writer, stderr=writer
    )
    os.close(writer)
    assert (done.returncode, differences(pair)) == (0, [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_to_a_full_disk_is_reported_and_not_a_success(pair: Pair, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bt_migrate.phases.migrate_all", "--state-dir"]
    with open("/dev/full", "w") as full:
        done = call(
            pair,
            [*command, tmp_path / "runs", "--no-verify"],
            tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, differences(pair)) == (3, []), done.stderr
    assert done.stderr.splitlines()[-1].startswith("bt_migrate: standard output: ")
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("program", sorted(PROGRAMS))
@pytest.mark.variants(2)
def test_every_program_ends_with_3_where_its_output_cannot_be_written(program: str) -> None:
    """Each runs inside the edge that also turns errors and crashes into one line."""
    module = f"bt_migrate.phases.{program.replace('-', '_')}"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", module, "--help"],
            env={**os.environ, **PATHS},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done.stderr


@pytest.mark.parametrize("words", [["status", "--help"], ["status"], ["migrate_all", "--help"]])
def test_no_program_shows_a_traceback_in_a_pipe(words: List[str], tmp_path: Path) -> None:
    program, *arguments = words
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", f"bt_migrate.phases.{program}", *arguments],
        env={**os.environ, **PATHS, "MIGRATION_STATE_DIR": str(tmp_path / "none")},
        cwd=tmp_path,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert done.returncode in (0, 2)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def nasty_bytes(text: str) -> Dict[str, int]:
    """How often each character that would control a terminal is there."""
    return {repr(char): text.count(char) for char in "\x1b\u202e\r\x9b\x07" if char in text}


def test_names_are_escaped_wherever_people_look_and_exact_in_json(
    pair: Pair, tmp_path: Path
) -> None:
    project = pair.source.create("project", {"name": NASTY})["id"]
    pair.source.create("project_tag", {"project_id": project, "name": NASTY, "color": "#FF0000"})
    pair.source.create("dataset", {"project_id": project, "name": NASTY})
    root = tmp_path / "runs"
    plan = run(pair.sandbox, root, "--dry-run")
    done = run(pair.sandbox, root, "--log-level", "DEBUG", "--verify")
    seen = run(pair.sandbox, root, program="validate")
    summary = (runs(root)[-2] / "migration_summary.txt").read_text(encoding="utf-8")
    texts = [plan.out, plan.err, done.out, done.err, seen.out, seen.err, summary]
    assert [nasty_bytes(text) for text in texts] == [{}] * len(texts)
    assert done.code == 0, done.last_words
    stated = json.loads((runs(root)[-2] / "migration_report.json").read_text(encoding="utf-8"))
    assert NASTY in [counts["project"] for counts in stated["objects"]]


@pytest.mark.parametrize("name", [NASTY, "a'\\\n$x", "plain α", "two words", "\udcff\n"])
def test_an_argument_with_control_characters_can_be_typed_in_a_shell(name: str) -> None:
    word = shell_word(name)
    printed = subprocess.run(["bash", "-c", f"printf %s {word}"], stdout=subprocess.PIPE).stdout
    assert (printed, word.isprintable()) == (name.encode("utf-8", "surrogateescape"), True)


def test_an_escaped_name_is_cut_at_its_width_on_the_terminal() -> None:
    assert escaped("a\n\x1b\u202e\ud800b") == "a\\n\\x1b\\u202e\\ud800b"
    assert shown("旅行" * 30, 11) == "旅行旅行旅…"
    assert shown("plain") == "plain"


HANGS_S = 60.0


class Hanging:
    """Set as `sandbox.on_request`: from the n-th insert on requests hang."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, number: int, moment: str, method: str, path: str) -> None:
        if moment == "before" and is_insert(path):
            self.reached.set()
            self.opened.wait(HANGS_S)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_work_has_begun_is_an_interruption(
    number: int, pair: Pair, tmp_path: Path
) -> None:
    done = run_with(pair, tmp_path / "runs", AtRequest(1, "before", number))
    assert (done.code, pair.sandbox.writes("globex")) == (130, []), done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.variants(1)
def test_a_second_signal_ends_the_process_within_two_seconds_whatever_hangs(
    number: int, pair: Pair, tmp_path: Path
) -> None:
    hanging = pair.sandbox.on_request = Hanging()
    with started(pair.sandbox, tmp_path / "runs") as process:
        assert hanging.reached.wait(60)
        process.send_signal(number)
        assert process.stderr
        heeded = any("press Ctrl-C again" in line for line in process.stderr)
        assert (heeded, process.poll()) == (True, None)
        begun = time.monotonic()
        process.send_signal(number)
        process.wait(2 * HANGS_S)
        took = time.monotonic() - begun
        error = process.stderr.read()
        hanging.opened.set()
    pair.sandbox.on_request = None
    assert (process.returncode, "Traceback" in error) == (130, False), error
    # Without a bound it would wait as long as the request hangs; a busy machine is slow.
    assert (GRACE_S < 2, took < HANGS_S) == (True, True), took
    assert run(pair.sandbox, tmp_path / "runs").code == 0
    assert differences(pair) == []


class SignalledAt:
    """Set as `sandbox.on_request`: holds the first matching request until the program has handled
    a signal; counts those that it sends meanwhile and later.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self.reached = threading.Event()
        self.handled = threading.Event()
        self.others = 0

    def __call__(self, number: int, moment: str, method: str, path: str) -> None:
        if moment != "before" or not path.startswith(self._path):
            return
        with self._lock:
            self.others += self.reached.is_set()
        self.reached.set()
        self.handled.wait(HANGS_S)


def interrupted(pair: Pair, root: Path, path: str, program: str, *arguments: str) -> SignalledAt:
    """Returns what a program did that got a signal at its first request to the path."""
    signalled = SignalledAt(path)
    limits = {"MIGRATION_MAX_CONCURRENT": "2"}
    pair.sandbox.on_request = signalled
    with started(pair.sandbox, root, *arguments, program=program, **limits) as process:
        assert signalled.reached.wait(HANGS_S) and process.stderr
        process.send_signal(signal.SIGINT)
        assert any("press Ctrl-C again" in line for line in process.stderr)
        signalled.handled.set()
        end = ended(process)
    pair.sandbox.on_request = None
    assert end.code == 130, end.out
    return signalled


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("verify", ("--full",)),
        ("verify", ("--counts",)),
        ("validate", ()),
        ("plan_shards", ("--shards", "3")),
        ("migrate_all", ("--dry-run",)),
    ],
)
@pytest.mark.variants(1)
def test_no_query_begins_after_a_signal(
    program: str, arguments: Tuple[str, ...], pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    if program in ("verify", "plan_shards"):
        assert run(pair.sandbox, root, "--no-rows", "--no-verify").code == 0
    # the others of two that may be in flight on each side
    assert interrupted(pair, root, "/btql", program, *arguments).others <= 3


def test_no_list_is_read_after_a_signal(pair: Pair, tmp_path: Path) -> None:
    for number in range(12):
        pair.source.create("project", {"name": f"project {number}"})
    root = tmp_path / "runs"
    assert run(pair.sandbox, root, "--resources", "roles", "--no-verify").code == 0
    # A list has two pages at least; each of four threads may be about to read one.
    assert interrupted(pair, root, "/v1/prompt", "verify").others <= 7


def test_a_run_that_is_stopped_at_once_is_reported_as_interrupted(
    pair: Pair, tmp_path: Path
) -> None:
    asked = threading.Event()
    pair.sandbox.latency = {"btql": 5.0}
    pair.sandbox.on_request = lambda number, moment, method, path: (
        asked.set() if path == "/btql" else None
    )
    with started(pair.sandbox, tmp_path / "runs") as process:
        assert asked.wait(60) and process.stderr and process.stdout
        process.send_signal(signal.SIGINT)
        assert any("press Ctrl-C again" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        said = process.stdout.read().partition("\n")[0]
    # Where the machine is so slow that the process was ended first, it said nothing.
    assert said in ("", "Migration interrupted: acme -> globex")


def test_a_deleted_current_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert status.main(["runs"]) == 2
    assert "the current folder cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "option"),
    [
        ("status", ""),
        ("report", ""),
        ("undo", ""),
        ("accept", ""),
        ("verify", "--state-dir="),
        ("migrate_all", "--env-file="),
        ("migrate_all", "--plan-out="),
    ],
)
@pytest.mark.variants(1)
def test_a_path_that_cannot_be_used_is_one_line_and_no_crash(
    program: str, option: str, pair: Pair, tmp_path: Path
) -> None:
    path = tmp_path / ("n" * 300)
    command = [sys.executable, "-m", f"bt_migrate.phases.{program}", f"{option}{path}"]
    done = call(pair, command, tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "cannot be used by this process (File name too long)" in done.stderr


@pytest.mark.parametrize("error", ["MemoryError()", 'RuntimeError("can\'t start new thread")'])
def test_too_little_memory_or_too_few_threads_are_one_line_and_no_crash(
    error: str, tmp_path: Path
) -> None:
    code = (
        "import sys\n"
        "from bt_migrate.cli.edge import run_guarded\n"
        f"def act(*_):\n    raise {error}\n"
        "sys.exit(run_guarded(act))\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **PATHS}, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
    assert "no more memory or threads" in done.stderr
