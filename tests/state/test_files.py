"""JSON files of a run: whole or the old one, and damaged ones are named."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from bt_migrate.errors import StateError
from bt_migrate.state.files import append_line, read_json, write_json
from bt_migrate.state.object_states import ObjectStates
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_files import RUN_FILE
from bt_migrate.state.stream_state import StreamState
from tests.support.run_state import found, python

VALUE = {
    "n": 123456789012345678901234567890,
    "s": "Zoë \ud83d \x00",
    "list": [None, -0.0, True],
    "format": 1,
}


def test_json_files_are_read_as_they_were_written(tmp_path: Path) -> None:
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
        f"{path}: cannot be written (No space left on device); the last checkpoint is "
        "whole: make room, then run again",
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
        f"{path}: is damaged; restore it from a copy, or start a new run with --new-run "
        "(existing objects and rows are found, not doubled)",
        content,
    )


def test_a_run_with_an_empty_file_is_damaged(root: Path, run: RunDirectory) -> None:
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
        f"{path}: has format {number}, this program reads 1; use the version that wrote it, "
        "or --new-run"
    )


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError) as refused:
        read_json(tmp_path / "x.json")
    assert (
        str(refused.value) == f"{tmp_path / 'x.json'}: cannot be read (No such file or directory)"
    )
