"""What a person sees on a terminal, as texts that tests expect: python -m tests.support.captures

Times, ids and rates are replaced. Whoever changes a text looks at the new one before it is kept.
"""

from __future__ import annotations

import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from bt_migrate.cli.live_lines import Window as LiveWindow
from bt_migrate.cli.live_lines import live_lines
from bt_migrate.cli.progress import bar_drawer
from bt_migrate.cli.status_text import broken_lines, status_lines
from bt_migrate.report.display import columns_of
from bt_migrate.sandbox.http.faults import Fault
from tests.support.orgs import REPOSITORY, Pair, environment, tiny_pair
from tests.support.terminals import Window, normal, run_on_terminal

FOLDER = REPOSITORY / "tests" / "cli" / "captures"
NOW = datetime(2026, 1, 15, 12, 0, 0, tzinfo=timezone.utc)
SMALL, USUAL, LARGE = Window(40, 10), Window(80, 24), Window(120, 34)


class Shot(NamedTuple):
    """A program to run on a terminal."""

    name: str
    program: str
    args: Tuple[str, ...]
    window: Window = USUAL
    code: int = 0


SHOTS = (
    Shot("validate", "validate", ()),
    Shot("failing", "migrate_all", ("--no-verify",), code=1),
    Shot("failing-120x34", "migrate_all", ("--no-verify",), LARGE, code=1),
    Shot("completed", "migrate_all", ("--full",), LARGE),
    Shot("verify", "verify", ("--full",)),
)


def captures_of_programs() -> Iterator[Tuple[str, str]]:
    """Yields (name, text) of each shot; one follows the other, as a person would do it."""
    with tiny_pair() as pair, tempfile.TemporaryDirectory() as folder:
        for shot in SHOTS:
            yield shot.name, _capture(shot, pair, Path(folder))


def _capture(shot: Shot, pair: Pair, folder: Path) -> str:
    env = environment(pair.sandbox, TERM="xterm", NO_COLOR="1", MIGRATION_VERIFY_WAIT="0")
    if shot.name.startswith("failing"):
        refused = Fault("status", "globex", "POST", path="^/v1/prompt$", times=1, status=400)
        pair.sandbox.faults.add(refused)
    module = f"bt_migrate.phases.{shot.program}"
    ended = run_on_terminal(module, ["--state-dir", "runs", *shot.args], env, folder, shot.window)
    assert ended.code == shot.code, ended.written
    return normal(_fitting(ended.lines(shot.window), shot.window))


def _fitting(lines: List[str], window: Window) -> List[str]:
    """Returns the lines, none of which is wider than the window but the next command."""
    wide = [line for line in lines if columns_of(line) > window.columns]
    assert [line for line in wide if not line.startswith("Next: ")] == []
    return lines


# -- while a program runs: from a status, because what is seen at which moment is chance


def _stream(kind: str, name: str, done: int, total: Any, rate: float) -> Dict[str, Any]:
    left = round((total - done) / rate) if total and rate else None
    return {
        "kind": kind, "name": name, "project": name, "done": done, "total": total,
        "rows_per_second": rate, "eta_seconds": left, "complete": False, "error": "",
    }  # fmt: skip


STREAMS = [
    _stream("logs", "Customer Support", 84_000, 219_000, 1_600.0),
    _stream("logs", "旅行プランナー 日本語の長い名前のプロジェクト", 12_000, 15_000, 700.0),
    _stream("logs", "Ze\u0301ro\u200bwidth", 4_000, 10_000, 350.0),
    _stream("experiments", "a name that is so long that no terminal has room for it", 99, 7_500, 9),
    _stream("logs", "not counted", 5_000, None, 250.0),
]
WORK = {
    "unit": "rows", "done": 105_099, "total": 251_500, "per_second": 2_900.0, "seconds_left": 84,
}  # fmt: skip
LIVE: Dict[str, Any] = {
    "phase_number": (6, 10), "phase": "migrate-logs", "paused": False, "stopping": "", "wait": None,
    "work": WORK, "streams": STREAMS, "parts": [],
}  # fmt: skip
WAIT = {
    "reason": "rate limit: next query in", "detail": "20 a minute, learnt",
    "until": "2026-01-15T12:00:41Z",
}  # fmt: skip
MOMENTS = {
    "running": {},
    "rate-limited": {"wait": WAIT, "work": {**WORK, "per_second": 333.0, "seconds_left": 440}},
    "paused": {"paused": True},
}
SIDE = {
    "in_flight": 4, "max_concurrent": 10, "started_with": 10, "requests_per_second": None,
    "requests": 12_091, "retries": 3, "rate_limited": 17,
}  # fmt: skip
RUNNING: Dict[str, Any] = {
    "run": "checkpoints/20260115_113000", "state": "running", "result": "",
    "command": "migrate-all", "dry_run": False,
    "source": "acme", "dest": "globex", "window": {"created_after": None, "created_before": None},
    "process": {"pid": 7, "host": "vm", "started": "2026-01-15T11:30:00.1Z", "updated": ""},
    "phases_done": [], "undone": None, "verification": "", "lag": None,
    "rows": {"done": 105_099, "total": 251_500, "rows_per_second": 2_900.0, "eta_seconds": 84},
    "sides": {"source": SIDE, "destination": SIDE},
    "last_error": "source POST /btql: rate limit, waiting 41 s",
}  # fmt: skip


FAILED: Dict[str, Any] = {
    "state": "finished", "result": "incomplete", "phases_done": ["validate", "migrate-logs"],
    "streams": [{**STREAMS[0], "error": "destination: POST /logs3 was answered 413"}],
    "verification": "NOT EQUAL: 1 of 150 objects differs",
}  # fmt: skip


def captures_of_moments() -> Iterator[Tuple[str, str]]:
    """Yields (name, text) of the pinned lines, and of bin/status, at some moments."""
    draw_bar = bar_drawer("utf-8")
    assert draw_bar is not None
    for moment, changes in MOMENTS.items():
        for window in (SMALL, USUAL, LARGE):
            live = LiveWindow(window.columns - 1, window.lines)
            lines = live_lines({**LIVE, **changes}, live, draw_bar, NOW)
            yield f"{moment}-{window.columns}x{window.lines}", _text(_fitting(lines, window))
        status = {**LIVE, **RUNNING, **changes}
        status["state"] = "paused" if status["paused"] else "running"
        yield f"status-{moment}", _status(status, USUAL)
    yield "status-running-120x34", _status({**LIVE, **RUNNING}, LARGE)
    yield "status-failed", _status({**LIVE, **RUNNING, **FAILED}, USUAL)
    yield "status-running-40x10", _status({**LIVE, **RUNNING}, SMALL)


def _status(status: Dict[str, Any], window: Window) -> str:
    columns = window.columns - 1
    lines = broken_lines(status_lines(status, NOW, window.lines - 1, columns), columns)
    return _text(_fitting(lines[: window.lines - 1], window))


def _text(lines: List[str]) -> str:
    return "\n".join(lines) + "\n"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, text in (*captures_of_moments(), *captures_of_programs()):
        (FOLDER / f"{name}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
