"""The settings of a start with --shard, whose selection was made when the shards were planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping

from bt_migrate.errors import UsageError
from bt_migrate.shards.shard_file import shard_in

# options that select what is moved: bin/plan-shards has done that for a shard
NOT_OF_A_SHARD = (
    "resources", "exclude_resources", "projects", "exclude_projects", "created_after",
    "created_before", "window", "fill_gaps", "rename_projects", "dry_run", "plan_out",
    "plan", "fail_on_loss", "no_rows", "since_last",
)  # fmt: skip


def selection_of_shard(given: Mapping[str, Any]) -> Dict[str, Any]:
    """Returns the settings that `--shard FILE:number` sets. Raises UsageError."""
    option = next((name for name in NOT_OF_A_SHARD if given.get(name) not in (None, False)), None)
    if option:
        raise UsageError(
            f"--shard: what is moved was chosen by bin/plan-shards; leave out"
            f" --{option.replace('_', '-')}"
        )
    path, _, number = given["shard"].rpartition(":")
    if not path or not number.isdecimal():
        raise UsageError(
            f"--shard: {given['shard'][:80]!r} is not FILE:number, with the first shard as 0"
        )
    shard = shard_in(_lines(path), int(number), path)
    selection = shard.selection
    return {
        "shard": shard,
        "relative_window": "",
        "resources": tuple(selection.resources),
        "projects": tuple(selection.projects),
        "exclude_projects": tuple(selection.exclude_projects or ()),
        "created_after": selection.created_after,
        "created_before": selection.created_before,
        "rename_projects": selection.rename_projects or {},
    }


def _lines(path: str) -> List[str]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--shard: {path} cannot be read ({error.strerror}); make it with bin/plan-shards"
        ) from None
    except ValueError:
        raise UsageError(f"--shard: {path} cannot be read (no text)") from None
    return [line for line in text.splitlines() if line.strip()]
