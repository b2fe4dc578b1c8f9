"""control."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Sequence

from bt_migrate.cli.operate import SETTINGS, control_text, read_control, write_whole
from bt_migrate.cli.run_status import AT_WORK, run_status
from bt_migrate.errors import UsageError
from bt_migrate.state.run_directory import CONTROL_FILE


def changed(before: Dict[str, Any], words: Sequence[str]) -> Dict[str, Any]:
    """All that is wanted after these words. Raises UsageError."""
    if words[0] != "set":
        if len(words) > 1 or "=" in words[0]:
            raise UsageError(
                "one of pause, resume, stop, or: set requests-per-second=5 max-concurrent=3"
            )
        wanted = read_control(words[0])
        return {**before, "pause": wanted["pause"], "stop": wanted["stop"]}
    if len(words) == 1:
        raise UsageError("set what? requests-per-second=5, max-concurrent=3, or =off")
    after = dict(before)
    for name, equals, value in (word.partition("=") for word in words[1:]):
        if name not in SETTINGS or not equals:
            raise UsageError(
                f"{name[:60]!r} cannot be set; set requests-per-second=5 or max-concurrent=3"
            )
        after[name] = None if value == "off" else read_control(f"{name}={value}")[name]
    return after


def control(path: Path, words: Sequence[str]) -> str:
    """Write the control file; gives back what it says now."""
    wanted = changed(_before(path), words)
    if run_status(path, datetime.now(timezone.utc))["state"] not in AT_WORK:
        raise UsageError(f"{path}: no process is working on this run")
    write_whole(path / CONTROL_FILE, control_text(wanted))
    return ", ".join(control_text(wanted).split()) or "no pause, no limits"


def _before(path: Path) -> Dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, UsageError):
        return read_control((path / CONTROL_FILE).read_text(encoding="utf-8"))
    return read_control("")
