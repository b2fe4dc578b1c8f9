"""Control and status of a running process.

A thread wakes once a second, obeys the control file and writes `status.json`. This module does not
know what is moved.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
from typing import Any, Dict, Iterator, Optional, Sequence

from bt_migrate.api.client import Api
from bt_migrate.cli.control_file import control_text, read_control, replace_file
from bt_migrate.cli.process_status import BEAT_S, ProcessStatus
from bt_migrate.cli.progress import Progress
from bt_migrate.cli.signals import Ending
from bt_migrate.cli.timeline import Timeline
from bt_migrate.errors import EXIT_STOPPED, UsageError
from bt_migrate.report.html import TIMELINE_FILE
from bt_migrate.state.files import FORMAT, cannot_write, now
from bt_migrate.state.live_counts import LiveCounts
from bt_migrate.state.run_directory import RunDirectory
from bt_migrate.state.run_files import CONTROL_FILE, STATUS_FILE

log = logging.getLogger("bt_migrate")

MAX_CONTROL_BYTES = 10_000


class LastProblem(logging.Handler):
    """Keeps the last warning or error, formatted as it is shown."""

    def __init__(self, formatter: Optional[logging.Formatter]) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(formatter)
        self.line = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.line = self.format(record)


class Operator:
    """Inside `with`, obeys the run's control file and writes its status, once a second."""

    def __init__(
        self, run: RunDirectory, sides: Sequence[Api], ending: Ending, command: str
    ) -> None:
        self._run = run
        self._sides = sides
        self._ending = ending
        self._process = {
            "format": FORMAT,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": command,
            "started": now(),
        }
        self._max_concurrent = {api.side: api.transport.in_flight.limit for api in sides}
        # the last text of the control file
        self._control = ""
        self._measuring = ProcessStatus(run.live, sides, run)
        self._timeline = Timeline(run.path / TIMELINE_FILE)
        self._progress = Progress()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="operator", daemon=True)
        handlers = logging.getLogger().handlers
        self._problem = LastProblem(handlers[0].formatter if handlers else None)

    def __enter__(self) -> Operator:
        logging.getLogger().addHandler(self._problem)
        self._remove_old_control()
        self._write_status("running")
        self._progress.begin()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._progress.end()
        logging.getLogger().removeHandler(self._problem)
        # Another run may follow in this process.
        for api in self._sides:
            api.throttle.steer(paused=False, requests_per_second=None)
            api.transport.in_flight.limit = self._max_concurrent[api.side]
        self._write_status("ended")

    def _remove_old_control(self) -> None:
        path = self._run.path / CONTROL_FILE
        if path.exists():
            try:
                path.unlink()
            except OSError as error:
                raise cannot_write(path, error) from None
            log.info("ignored an old pause/limit request", extra={"event": "control"})

    def _watch(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._obey(self._read_control_file())
            self._progress.beat(self._write_status("running"))

    def _read_control_file(self) -> str:
        try:
            with open(self._run.path / CONTROL_FILE, encoding="utf-8") as file:
                return file.read(MAX_CONTROL_BYTES)
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as error:
            return f"(cannot be read: {type(error).__name__})"

    def _obey(self, text: str) -> None:
        if text == self._control:
            return
        self._control = text
        try:
            request = read_control(text)
        except UsageError as error:
            log.warning("the control file is ignored: %s", error, extra={"event": "control"})
            return
        self._apply(request)

    def _apply(self, request: Dict[str, Any]) -> None:
        was_paused = any(api.throttle.paused for api in self._sides)
        for api in self._sides:
            api.throttle.steer(
                paused=request["pause"], requests_per_second=request["requests-per-second"]
            )
            most = self._max_concurrent[api.side]
            api.transport.in_flight.limit = min(request["max-concurrent"] or most, most)
        words = control_text(request).split() or ["limits lifted"]
        if was_paused and not request["pause"]:
            words.insert(0, "resumed")
        log.info("control: %s", ", ".join(words), extra={"event": "control"})
        if request["stop"]:
            self._ending.ask(EXIT_STOPPED, "stopped by bin/control")

    def _write_status(self, state: str) -> Dict[str, Any]:
        status = self._status(state)
        self._timeline.add(status, last=state == "ended")
        # A full disk must not end the run here; it ends it where data is written.
        with contextlib.suppress(OSError):
            replace_file(self._run.path / STATUS_FILE, json.dumps(status))
        return status

    def _status(self, state: str) -> Dict[str, Any]:
        return {
            **self._process,
            "state": state,
            "updated": now(),
            **self._measuring.measured(),
            "stopping": self._ending.reason,
            "last_error": self._problem.line,
        }


@contextlib.contextmanager
def shown_progress(live: LiveCounts) -> Iterator[None]:
    """Inside `with`, show progress of work without servers and without a run."""
    measuring = ProcessStatus(live, ())
    progress = Progress()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(BEAT_S):
            progress.beat({**measuring.measured(), "stopping": ""})

    progress.begin()
    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        progress.end()
