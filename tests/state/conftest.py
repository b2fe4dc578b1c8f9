"""An empty folder to work in, and a run in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bt_migrate.state.run_directory import RunDirectory
from tests.support.run_state import found


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def run(root: Path) -> RunDirectory:
    return found(root)
