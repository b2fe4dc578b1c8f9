"""bin/control: pauses, resumes, stops or slows down the process that works on a run."""

from __future__ import annotations

import contextlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

from bt_migrate.cli.control_file import SETTINGS, control_text, read_control, replace_file
from bt_migrate.cli.run_status import AT_WORK, run_status
from bt_migrate.errors import UsageError
from bt_migrate.state.run_files import CONTROL_FILE


def changed(before: Dict[str, Any], words: Sequence[str]) -> Dict[str, Any]:
    """Returns the whole request after these words. Raises UsageError."""
    if words[0] == "set":
        return _with_settings(before, words[1:])
    if len(words) > 1 or "=" in words[0]:
        raise UsageError(
            "use one of pause, resume, stop, or: set requests-per-second=5 max-concurrent=3"
        )
    request = read_control(words[0])
    return {**before, "pause": request["pause"], "stop": request["stop"]}


def _with_settings(before: Dict[str, Any], words: Sequence[str]) -> Dict[str, Any]:
    if not words:
        raise UsageError(
            "set needs a value, for example requests-per-second=5, max-concurrent=3 or"
            " max-concurrent=off"
        )
    after = dict(before)
    for name, equals, value in (word.partition("=") for word in words):
        if name not in SETTINGS or not equals:
            raise UsageError(
                f"{name[:60]!r} cannot be set; set requests-per-second=5 or max-concurrent=3"
            )
        after[name] = None if value == "off" else read_control(f"{name}={value}")[name]
    return after


def control(path: Path, words: Sequence[str]) -> Dict[str, Any]:
    """Write the control file of a run. Returns the whole request. Raises UsageError."""
    request = changed(_before(path), words)
    status = run_status(path, datetime.now(timezone.utc))
    if status["state"] not in AT_WORK:
        raise UsageError(f"{path}: no process is working on this run")
    _refuse_more_than_started(request["max-concurrent"], status["sides"])
    replace_file(path / CONTROL_FILE, control_text(request))
    return request


def _refuse_more_than_started(wanted: Optional[int], sides: Mapping[str, Dict[str, Any]]) -> None:
    """Raises UsageError for a limit that would change nothing."""
    most = max((side.get("started_with") or 0 for side in sides.values()), default=0)
    if wanted and most and wanted > most:
        raise UsageError(
            f"max-concurrent={wanted}: the process was started with {most}, which cannot be"
            " exceeded; stop it, and start it again with --max-concurrent"
        )


def request_text(request: Dict[str, Any], word: str) -> str:
    """Returns what is requested now, after a person gave the `word`."""
    parts = control_text(request).split() or ["no limits"]
    return ", ".join(["resume", *parts] if word == "resume" else parts)


def _before(path: Path) -> Dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, UsageError):
        return read_control((path / CONTROL_FILE).read_text(encoding="utf-8"))
    return read_control("")
