"""File systems without locks, without flushing of folders, or mounted read-only."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from bt_migrate.errors import StateError
from bt_migrate.state import files
from bt_migrate.state.files import write_json
from bt_migrate.state.run_directory import RunDirectory


@pytest.fixture(autouse=True)
def _nothing_reported_yet() -> None:
    files._reported.clear()


def no_folder_sync(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Flushing a folder fails, as it does on CIFS."""
    flush = os.fsync

    def refuse(fd: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(number, os.strerror(number))
        flush(fd)

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_a_file_system_that_cannot_flush_folders_is_reported_once_and_used(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    no_folder_sync(monkeypatch, number)
    for value in (1, 2):
        write_json(tmp_path / "a.json", {"value": value})
    assert json.loads((tmp_path / "a.json").read_text()) == {"value": 2}
    assert len([item for item in caplog.records if "cannot flush folders" in item.message]) == 1


def test_a_disk_that_fails_while_a_folder_is_flushed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_folder_sync(monkeypatch, errno.EIO)
    with pytest.raises(StateError, match="cannot be written"):
        write_json(tmp_path / "a.json", {})


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_reported_and_used(
    number: int,
    run: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(fd: int, operation: int) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), run:
        run.mark_phases_done(["migrate-logs"])
    assert RunDirectory(run.path).phase_done("migrate-logs")
    assert [item.message for item in caplog.records if "no locks" in item.message] == [
        f"{run.path}: this file system has no locks ({os.strerror(number)}); see to it that only"
        " one process works on this run at a time"
    ]


def test_the_lock_is_released_if_the_record_is_damaged(run: RunDirectory) -> None:
    whole = (run.path / "run.json").read_text()
    late = RunDirectory(run.path)
    before = len(os.listdir("/proc/self/fd"))
    (run.path / "run.json").write_text("{")
    for _ in range(3):
        with pytest.raises(StateError, match="run.json: is damaged"):
            late.__enter__()
    assert len(os.listdir("/proc/self/fd")) == before
    (run.path / "run.json").write_text(whole)
    with run:
        pass


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EROFS, "mount its file system for writing, or use another --state-dir"),
        (errno.EMFILE, "raise the limit of open files"),
        (errno.EFBIG, "raise the limit of file sizes"),
        (errno.ENOSPC, "make room"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_with_what_to_do(
    number: int, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StateError) as refused:
        write_json(tmp_path / "a.json", {})
    assert str(refused.value).startswith(f"{tmp_path / 'a.json'}: cannot be written (")
    assert cure in str(refused.value)
