"""selected."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping

from bt_migrate.errors import UsageError
from bt_migrate.shards.share_out import shard_in

# Options that choose what is moved: for a shard, bin/plan-shards has chosen it.
NOT_OF_A_SHARD = (
    "resources", "exclude_resources", "projects", "exclude_projects", "created_after",
    "created_before", "window", "fill_gaps", "rename_projects", "dry_run", "plan_out",
    "fail_on_loss", "no_rows", "since_last",
)  # fmt: skip


def selection_of_shard(given: Mapping[str, Any]) -> Dict[str, Any]:
    """The shard of `FILE:number`, and the selection that it was planned with in place of any other."""
    asked = next((name for name in NOT_OF_A_SHARD if given.get(name) not in (None, False)), None)
    if asked:
        raise UsageError(
            f"--shard: what is moved was chosen by bin/plan-shards; leave out --{asked.replace('_', '-')}"
        )
    path, _, number = given["shard"].rpartition(":")
    if not path or not number.isdecimal():
        raise UsageError(
            f"--shard: {given['shard'][:80]!r} is not FILE:number, with the first shard as 0"
        )
    try:
        lines = [
            line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--shard: {path} cannot be read ({error.strerror if isinstance(error, OSError) else 'no text'})"
        ) from None
    shard = shard_in(lines, int(number), path)
    selection = {"rename_projects": {}, **shard["selection"]}
    chosen = {name: tuple(selection[name]) for name in ("resources", "projects")}
    chosen.update(
        {name: selection[name] for name in ("created_after", "created_before", "rename_projects")}
    )
    chosen["exclude_projects"] = tuple(selection.get("exclude_projects") or ())
    return {"shard": shard, "relative_window": "", **chosen}
