"""Measures the lag of a run at its source, for a program that has no connection yet."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Optional

from bt_migrate.cli.connect import connected
from bt_migrate.config.load import load_settings
from bt_migrate.errors import UsageError
from bt_migrate.migration.lag import measure_lag
from bt_migrate.objects.catalog import open_catalog
from bt_migrate.state.run_directory import RunDirectory


def lag_now(path: Path, env_file: Optional[str]) -> Dict[str, Any]:
    """Returns the lag, measured at the source now. Needs the keys of the run's organizations."""
    run = RunDirectory(path)
    selection = run.record.selection
    settings = replace(
        load_settings({"env_file": env_file}),
        projects=tuple(selection.projects),
        exclude_projects=tuple(selection.exclude_projects or ()),
        resources=tuple(selection.resources),
    )
    source, dest = connected(settings, threading.Event(), writes=False)
    if source.org_id != run.record.source.org_id:
        raise UsageError(
            f"{path}: this run's source organization is {run.record.source.org_name}; the key"
            f" is for {source.display_name}"
        )
    return measure_lag(open_catalog(source, dest, run, settings), run.record)
