"""What a person can do to a running process and see of it: signals, a bound in time, the control file, the status file.

A thread looks once a second: it obeys `control` and writes `status.json`. Nothing here decides what is moved.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Deque, Dict, Iterator, Optional, Sequence, Tuple

from bt_migrate.api.client import Api
from bt_migrate.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_STOPPED, UsageError
from bt_migrate.state.files import FORMAT, now
from bt_migrate.state.run_directory import CONTROL_FILE, STATUS_FILE, RunDirectory

log = logging.getLogger("bt_migrate")

BEAT_S = 1.0  # between two looks at the control file, and two status files
RATE_BEATS = 30  # over which the rate is taken
FRESH_S = 10  # a status older than that is of a process that is gone, or hangs
MAX_CONTROL_BYTES = 10_000


class Ending:
    """Why the program ends before its work is done; the first who asks is told. `event` is what waiting threads look at."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.code = EXIT_OK
        self.reason = ""

    def ask(self, code: int, reason: str) -> None:
        if not self.event.is_set():
            self.code, self.reason = code, reason
            self.event.set()


@contextlib.contextmanager
def asked_to_end(ending: Ending, max_duration_s: float, *, in_json: bool) -> Iterator[None]:
    """The first Ctrl-C, SIGTERM or SIGHUP asks for a clean end, and so does the clock; the second signal takes the program
    down at once.
    """

    def ask(number: int, _: object) -> None:
        if ending.event.is_set() and ending.code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        ending.ask(EXIT_INTERRUPTED, "interrupted")
        ending.code = EXIT_INTERRUPTED
        text = "finishing what is in flight (once more to stop at once) …"  # not logged: the log may be what was interrupted
        line = {"level": "info", "event": "interrupted", "message": text}
        print(json.dumps(line) if in_json else f"bt_migrate: {text}", file=sys.stderr)

    numbers = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {
        number: signal.signal(number, ask) for number in numbers
    }  # `nohup` has SIGHUP ignored, and it stays so
    clock = threading.Timer(max_duration_s, ending.ask, (EXIT_OK, "--max-duration is over"))
    clock.daemon = True
    try:
        if max_duration_s:
            clock.start()
        yield
    finally:
        clock.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


# -- the control file: one word or setting a line, all that is wanted

WORDS = ("pause", "resume", "stop")
SETTINGS = ("requests-per-second", "max-concurrent")


def read_control(text: str) -> Dict[str, Any]:
    """{pause: bool, stop: bool, requests-per-second: float or None, max-concurrent: int or None}. Raises UsageError."""
    wanted: Dict[str, Any] = {
        "pause": False,
        "stop": False,
        "requests-per-second": None,
        "max-concurrent": None,
    }
    for line in filter(None, (line.strip() for line in text.splitlines())):
        name, equals, value = (part.strip() for part in line.partition("="))
        if name in WORDS and not equals:
            wanted.update({"pause": False} if name == "resume" else {name: True})
        elif (
            name == "requests-per-second"
            and re.match(r"\d{1,6}(\.\d{1,6})?$", value, re.ASCII)
            and float(value) > 0
        ):
            wanted[name] = float(value)
        elif name == "max-concurrent" and re.match(r"\d{1,6}$", value, re.ASCII) and int(value) > 0:
            wanted[name] = int(value)
        else:
            raise UsageError(
                f"{line[:60]!r} is none of {', '.join(WORDS)}, requests-per-second=N, max-concurrent=N (N above 0)"
            )
    return wanted


def control_text(wanted: Dict[str, Any]) -> str:
    """The inverse of `read_control`."""
    words = [name for name in ("pause", "stop") if wanted[name]]
    return "".join(
        f"{line}\n"
        for line in [*words, *(f"{name}={wanted[name]:g}" for name in SETTINGS if wanted[name])]
    )


def write_whole(path: Path, text: str) -> None:
    """Replace a file as a whole. Not flushed to disk: it says what is, and after a power cut nothing is."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(
        os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
    os.replace(temporary, path)


# -- the thread


class LastTrouble(logging.Handler):
    """Keeps the last line of a warning or an error, as it is shown."""

    def __init__(self, formatter: Optional[logging.Formatter]) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(formatter)
        self.line = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.line = self.format(record)


class Operator:
    """`with`: obeys the control file of the run and writes its status, once a second and at both ends."""

    def __init__(
        self, run: RunDirectory, sides: Sequence[Api], ending: Ending, command: str
    ) -> None:
        self._run, self._sides, self._ending = run, sides, ending
        self._facts = {
            "format": FORMAT,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": command,
            "started": now(),
        }
        self._most = {api.side: api.places.limit for api in sides}
        self._control = ""  # the text that is obeyed
        self._beats: Deque[Tuple[float, Dict[str, int]]] = deque(
            maxlen=RATE_BEATS
        )  # rows by stream, "" for all
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="operator", daemon=True)
        root = logging.getLogger()
        self._trouble = LastTrouble(root.handlers[0].formatter if root.handlers else None)

    def __enter__(self) -> Operator:
        logging.getLogger().addHandler(self._trouble)
        left = self._run.path / CONTROL_FILE
        if left.exists():
            left.unlink()
            log.info(
                "a control file from before this start was removed: every start begins without",
                extra={"event": "control"},
            )
        self._write_status("running")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        logging.getLogger().removeHandler(self._trouble)
        for api in self._sides:  # another run may follow in this process
            api.throttle.steer(paused=False, requests_per_second=None)
            api.places.limit = self._most[api.side]
        self._write_status("ended")

    def _watch(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._obey()
            self._write_status("running")

    def _obey(self) -> None:
        try:
            with open(self._run.path / CONTROL_FILE, encoding="utf-8") as file:
                text = file.read(MAX_CONTROL_BYTES)
        except FileNotFoundError:
            text = ""
        except (OSError, ValueError) as error:
            text = f"(cannot be read: {type(error).__name__})"
        if text == self._control:
            return
        self._control = text
        try:
            wanted = read_control(text)
        except UsageError as error:
            log.warning("the control file is ignored: %s", error, extra={"event": "control"})
            return
        self._apply(wanted)

    def _apply(self, wanted: Dict[str, Any]) -> None:
        for api in self._sides:
            api.throttle.steer(
                paused=wanted["pause"], requests_per_second=wanted["requests-per-second"]
            )
            api.places.limit = min(
                wanted["max-concurrent"] or self._most[api.side], self._most[api.side]
            )
        log.info(
            "control: %s",
            ", ".join(control_text(wanted).split()) or "nothing",
            extra={"event": "control"},
        )
        if wanted["stop"]:
            self._ending.ask(EXIT_STOPPED, "stopped by bin/control")

    def _write_status(self, state: str) -> None:
        """A disk that is full must not end the run from here: it will end it where it matters."""
        with contextlib.suppress(OSError):
            write_whole(self._run.path / STATUS_FILE, json.dumps(self._status(state)))

    def _status(self, state: str) -> Dict[str, Any]:
        meter = self._run.live
        streams = meter.streams()
        self._beats.append(
            (
                time.monotonic(),
                {"": meter.total, **{name: one["done"] for name, one in streams.items()}},
            )
        )
        return {
            **self._facts,
            "state": state,
            "updated": now(),
            "phase": meter.phase,
            "phase_number": meter.phase_number,
            "paused": any(api.throttle.paused for api in self._sides),
            "stopping": self._ending.reason,
            "rows_per_second": self._rate(""),
            "rows": meter.total,
            "streams": [
                {**one, "rows_per_second": self._rate(name)} for name, one in streams.items()
            ],
            "sides": {api.side: _side(api) for api in self._sides},
            "last_error": self._trouble.line,
        }

    def _rate(self, name: str) -> float:
        """Rows a second since the oldest beat that knows the stream."""
        begun, before = next((moment, counts) for moment, counts in self._beats if name in counts)
        moment, counts = self._beats[-1]
        return (
            round(max(0, counts[name] - before[name]) / (moment - begun), 1)
            if moment > begun
            else 0.0
        )


def _side(api: Api) -> Dict[str, Any]:
    return {
        "in_flight": api.places.taken,
        "max_concurrent": api.places.limit,
        "requests_per_second": api.throttle.requests_per_second,
        "requests": api.requests_sent,
        "retries": api.retries,
        "rate_limited": api.throttle.hits,
    }
