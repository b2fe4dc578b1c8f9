"""What the tests of the run directory share: settings, identities, runs, other processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

from bt_migrate.config.load import load_settings
from bt_migrate.config.settings import Settings
from bt_migrate.model.run_identity import RunSide, Selection
from bt_migrate.state.find_run import find_run
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_record import Identity

CHECKOUT = Path(__file__).resolve().parent.parent.parent
ALL = "migrate-all"


def settings_for(state_dir: Path, **flags: Any) -> Settings:
    resume = str(flags.pop("resume", ""))
    environ = {
        "BT_SOURCE_API_KEY": "sk-s",
        "BT_DEST_API_KEY": "sk-d",
        "MIGRATION_RESUME_RUN_DIR": resume,
    }
    return load_settings({"state_dir": str(state_dir), **flags}, environ)


def identity(**changes: Any) -> Identity:
    """What the settings ask for; changes: source, dest (organization ids), resources, projects,
    after, before, renamed, dry_run.
    """
    sides = [
        RunSide(org_id, org_id.upper(), "https://api.example.test")
        for org_id in (changes.get("source", "src"), changes.get("dest", "dst"))
    ]
    selection = Selection(
        changes.get("resources", ["datasets", "logs"]),
        changes.get("projects", []),
        changes.get("after"),
        changes.get("before"),
        changes.get("renamed"),
    )
    return Identity(*sides, selection, changes.get("dry_run", False))


def found(
    state_dir: Path, command: str = ALL, today: Optional[Identity] = None, **flags: Any
) -> RunDirectory:
    return find_run(settings_for(state_dir, **flags), today or identity(), command)[0]


def finish(run: RunDirectory) -> None:
    run.record.finished = True
    run.save()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def python(code: str, *arguments: Any, **more: Any) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *(str(argument) for argument in arguments)]
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
