"""Programs on a terminal of a given size: what they write, and the screen that a person sees."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
import threading
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple

from tests.support.processes import Process
from tests.support.screen import Screen

LIMIT_S = 120
PHASE = re.compile(r"\S+ phase \d+ of \d+: ")
PHASE_TIMES = re.compile(r"(^This start: [^(]*\().*(\n    .*)*", re.MULTILINE)


class Window(NamedTuple):
    """The size of a terminal."""

    columns: int = 80
    lines: int = 24


class OnTerminal(NamedTuple):
    """How a program ended on a terminal, and everything that it wrote to it."""

    code: int
    written: str

    def lines(self, window: Window) -> List[str]:
        """Returns the lines that are visible at the end.

        A phase that takes seconds has a line of its own: such lines are left out. So are the times
        of the phases, which take two or three lines.
        """
        screen = Screen(window.lines, window.columns)
        screen.feed(self.written)
        text = PHASE_TIMES.sub(r"\1<phases>)", screen.text)
        lines = [line for line in text.split("\n") if not PHASE.match(line)]
        return lines[-window.lines :]


def run_on_terminal(
    module: str, args: List[str], env: Dict[str, str], cwd: Path, window: Window
) -> OnTerminal:
    """Run `python -m module` on a terminal to its end."""
    with _terminal(window) as (reader, writer):
        process = Process(module, args, env, cwd, terminal=writer)
        os.close(writer)
        chunks: List[bytes] = []
        thread = threading.Thread(target=_read, args=(reader, chunks))
        thread.start()
        try:
            code = process.wait(LIMIT_S)
        finally:
            process.kill()
        thread.join(LIMIT_S)
    return OnTerminal(code, b"".join(chunks).decode())


@contextlib.contextmanager
def _terminal(window: Window) -> Iterator[tuple]:
    reader, writer = pty.openpty()
    size = struct.pack("HHHH", window.lines, window.columns, 0, 0)
    fcntl.ioctl(writer, termios.TIOCSWINSZ, size)
    try:
        yield reader, writer
    finally:
        os.close(reader)


def _read(reader: int, chunks: List[bytes]) -> None:
    with contextlib.suppress(OSError):  # the other end is closed
        while True:
            chunks.append(os.read(reader, 65536))


# What differs from run to run, and what stands for it in an expected text.
NORMAL = (
    (re.compile(r"\b\d{8}_\d{6}(_\d+)?\b"), "<run>"),
    (re.compile(r"\b[0-9a-f]{8}\b(-[0-9a-f-]{27}\b)?"), "<id>"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "<time>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d( <time>|T[\d:.]+Z?)"), "<date>"),
    (re.compile(r"\b[\d.,]+ (s|min)\b"), "<time>"),
    (re.compile(r"\b[\d,]+ rows/s"), "<rate>"),
    (re.compile(r"\b[\d,]+ requests?\b"), "<requests>"),
)


def normal(lines: List[str]) -> str:
    """Returns the lines without times, ids and rates."""
    text = "\n".join(lines).rstrip("\n")
    for pattern, word in NORMAL:
        text = pattern.sub(word, text)
    return f"{text}\n"
