"""How a program is asked to end: by a signal, by its time limit, or by the control file."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Iterator, List, Set

from bt_migrate.cli.streams import print_message
from bt_migrate.errors import EXIT_INTERRUPTED, EXIT_OK

# After the second signal the process has this long to end by itself.
GRACE_S = 1.5
MAX_BYTES = 4096


class Ending:
    """Why the program ends before its work is done. The first reason counts.

    Waiting threads check `event`.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.code = EXIT_OK
        self.reason = ""
        # Folders for the traceback of a crash, the best one last.
        self.crash_folders: List[Path] = []

    def ask(self, code: int, reason: str) -> None:
        if not self.event.is_set():
            self.code = code
            self.reason = reason
            self.event.set()


@contextlib.contextmanager
def handle_signals(ending: Ending, max_duration_s: float, *, in_json: bool) -> Iterator[None]:
    """Ask for a clean end at the first Ctrl-C, SIGTERM or SIGHUP, or after `max_duration_s`.

    The second signal ends the program at once.
    """

    def ask(number: int, _: object) -> None:
        if ending.event.is_set() and ending.code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        ending.ask(EXIT_INTERRUPTED, "interrupted")
        ending.code = EXIT_INTERRUPTED
        _print_interrupted(in_json=in_json)

    # `nohup` ignores SIGHUP, and a script ignores SIGINT for a command with `&`: both stay ignored.
    numbers = {
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    handlers_before = {number: signal.signal(number, ask) for number in numbers}
    clock = threading.Timer(max_duration_s, ending.ask, (EXIT_OK, "--max-duration reached"))
    clock.daemon = True
    try:
        with _forced_end(ending, numbers):
            if max_duration_s:
                clock.start()
            yield
    finally:
        clock.cancel()
        for number, handler in handlers_before.items():
            # An interrupted program waits for its threads as it exits; the watcher counts on.
            signal.signal(number, _ignore if ending.code == EXIT_INTERRUPTED else handler)


def _ignore(number: int, _: object) -> None:
    """Does nothing. Unlike SIG_IGN, a handler lets the watcher see the signal."""


@contextlib.contextmanager
def _forced_end(ending: Ending, numbers: Set[signal.Signals]) -> Iterator[None]:
    """End the process GRACE_S after the second signal, whatever it is blocked in.

    Python runs a handler only between two instructions of the main thread. The wakeup descriptor
    gets the number of a signal at once, and another thread reads it.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    arguments = (receiver, sender, numbers)
    threading.Thread(target=_watch, args=arguments, daemon=True, name="signals").start()
    try:
        yield
    finally:
        if ending.code != EXIT_INTERRUPTED:
            signal.set_wakeup_fd(before)
            sender.close()


def _watch(receiver: socket.socket, sender: socket.socket, numbers: Set[signal.Signals]) -> None:
    """Waits for signals. `sender` is referenced here so that it stays open."""
    count = 0
    while count < 2:
        received = receiver.recv(MAX_BYTES)
        if not received:  # the other end is closed: the program has ended
            receiver.close()
            return
        count += sum(byte in numbers for byte in received)
    threading.Event().wait(GRACE_S)
    os._exit(EXIT_INTERRUPTED)


def _print_interrupted(*, in_json: bool) -> None:
    """Printed, not logged: the signal may have interrupted the log itself."""
    text = "finishing the requests in flight (press Ctrl-C again to stop at once)"
    line = {"level": "info", "event": "interrupted", "message": text}
    if in_json:
        print(json.dumps(line), file=sys.stderr)
    else:
        print_message(text)
