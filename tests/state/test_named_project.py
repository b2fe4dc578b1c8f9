"""A start in one project of a run: its exit code is about that project, and a name that is wrong is
refused instead of starting a new run there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import run, runs, tiny_pair


def refuse_frames(method: str, path: str, raw: bytes) -> Optional[Any]:
    if method == "POST" and path == "/v1/span_iframe":
        return Answer(400, b"no frames today", "text/plain")
    return None


def test_a_project_whose_rows_all_moved_ends_with_0_whatever_fails_in_others(
    tmp_path: Path,
) -> None:
    root = tmp_path / "runs"
    with tiny_pair() as pair:
        pair.sandbox.refuse = refuse_frames
        whole = run(pair.sandbox, root, "--no-verify")
        pair.sandbox.refuse = None
        (place,) = runs(root)
        failed = {
            state["project"]
            for state in map(
                json.loads, map(Path.read_text, place.glob("*/span_iframes_state.json"))
            )
            if state["failed_ids"]
        }
        folders = json.loads((place / "run.json").read_text())["folders"]
        (other, *_) = [folder for name, folder in folders.items() if name not in failed]
        part = run(pair.sandbox, place / other, "--resources", "logs", program="migrate_logs")
        assert (whole.code, part.code) == (1, 0), part.out + part.err
        assert len(runs(root)) == 1


@pytest.mark.parametrize(
    "name", ["20260113_212530", "20260113_212530/Alpha", "RUN/Nobody", "RUN/beta/deeper"]
)
def test_a_run_or_project_that_does_not_exist_is_refused(name: str, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with tiny_pair() as pair:
        first = run(pair.sandbox, root, "--resources", "roles", program="migrate_organization")
        (place,) = runs(root)
        named = root / name.replace("RUN", place.name)
        before = sorted(root.rglob("run.json"))
        done = run(pair.sandbox, named, "--no-verify")
        assert (first.code, done.code, done.err.count("\n")) == (0, 2, 1), done.err
        assert done.err.startswith(f"bt_migrate: --state-dir: {named}")
        assert sorted(root.rglob("run.json")) == before
