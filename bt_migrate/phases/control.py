"""Pause, resume, slow down, speed up or stop the process that works on a run.

It obeys within a second: what is in flight is finished, nothing more begins. Every start begins without any of this.
"""

from __future__ import annotations

import contextlib
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

from bt_migrate.errors import EXIT_OK, MigrationError, UsageError
from bt_migrate.operating import SETTINGS, control_text, read_control, write_whole
from bt_migrate.options import flags_of, make_parser
from bt_migrate.run_status import AT_WORK, run_status
from bt_migrate.runs import CONTROL_FILE, run_at

NAME = "control"


def changed(before: Dict[str, Any], words: Sequence[str]) -> Dict[str, Any]:
    """All that is wanted after these words. Raises UsageError."""
    if words[0] != "set":
        if len(words) > 1 or "=" in words[0]:
            raise UsageError("one of pause, resume, stop, or: set requests-per-second=5 max-concurrent=3")
        wanted = read_control(words[0])
        return {**before, "pause": wanted["pause"], "stop": wanted["stop"]}
    if len(words) == 1:
        raise UsageError("set what? requests-per-second=5, max-concurrent=3, or =off")
    after = dict(before)
    for name, equals, value in (word.partition("=") for word in words[1:]):
        if name not in SETTINGS or not equals:
            raise UsageError(f"{name[:60]!r} cannot be set; set requests-per-second=5 or max-concurrent=3")
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


def main(argv: Optional[Sequence[str]] = None) -> int:
    flags = flags_of(make_parser(NAME, __doc__ or ""), argv)
    try:
        path = run_at(Path(flags["run"]))
        print(f"{path}: asked for: {control(path, flags['words'])}")
    except MigrationError as error:
        print(f"bt_migrate: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    raise SystemExit(main())
