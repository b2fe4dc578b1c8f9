"""Standard output and error that cannot end a program and cannot disturb a terminal.

A character that the encoding lacks, or that would control a terminal, is escaped. When a stream
fails (closed pipe, full disk), later output to it is dropped, and the program continues. Programs
have the names that they have in this installation.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import termios
from typing import Any, ContextManager, Iterator, Optional, TextIO

from bt_migrate.cli.pinned import Pinned, terminal_size
from bt_migrate.cli.program_names import program_prefix, with_prefix
from bt_migrate.errors import EXIT_OK, EXIT_STOPPED
from bt_migrate.report.display import escaped, wrapped

# Characters of a text that are not part of a name.
LAYOUT = "\n\t"


class SafeStream:
    """A text stream that writes to another one. `error` is the error that ended it, else None.

    `pinned`: the lines at the bottom of the terminal, None if the stream is not a terminal.
    """

    def __init__(self, stream: TextIO, pinned: Optional[Pinned] = None) -> None:
        # What escapes on purpose (clearing the screen, colours) is written to this one.
        self.raw = stream
        self.pinned = pinned
        self.error: Optional[OSError] = None
        self._prefix = program_prefix(sys.argv[0])

    def write(self, text: str) -> int:
        if self.error is None:
            text = with_prefix(self._prefix, text)
            with self._failures(), above_pinned(self):
                self.raw.write(_safe(text, self.raw.encoding or "utf-8"))
                if self.pinned is not None:
                    self.pinned.printed(text)
        return len(text)

    def flush(self) -> None:
        if self.error is None:
            with self._failures():
                self.raw.flush()

    def close(self) -> None:
        self.flush()

    def isatty(self) -> bool:
        return self.error is None and not self.raw.closed and self.raw.isatty()

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            _discard(self.raw)
        except ValueError as error:  # the stream is closed
            self.error = OSError(errno.EBADF, str(error))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def _safe(text: str, encoding: str) -> str:
    if not text.isascii() or not text.isprintable():
        text = "".join(char if char in LAYOUT else escaped(char) for char in text)
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _discard(stream: TextIO) -> None:
    """Redirect the stream to nowhere: the interpreter flushes it again when it exits."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """Replace sys.stdout and sys.stderr by safe ones."""
    before = sys.stdout, sys.stderr
    pinned = Pinned(before[1]) if _is_terminal(before[1]) else None
    sys.stdout = _safe_stream(before[0], pinned if _is_terminal(before[0]) else None)
    sys.stderr = _safe_stream(before[1], pinned)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _safe_stream(stream: Optional[TextIO], pinned: Optional[Pinned]) -> Any:
    """A program whose descriptor was closed by its parent has None."""
    return SafeStream(stream or open(os.devnull, "w", encoding="utf-8"), pinned)  # noqa: SIM115


def _is_terminal(stream: Optional[TextIO]) -> bool:
    with contextlib.suppress(ValueError):  # closed
        return stream is not None and stream.isatty()
    return False


def above_pinned(stream: Any) -> ContextManager[None]:
    """Inside `with`, text printed to the stream appears above its pinned lines."""
    pinned = getattr(stream, "pinned", None)
    return contextlib.nullcontext() if pinned is None else pinned.above()


def agrees(question: str, stream: TextIO) -> bool:
    """Ask a person on a terminal. What was typed before the question is no answer to it."""
    with contextlib.suppress(OSError, ValueError, termios.error):
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    print(f"{question} [y/N] ", end="", file=stream, flush=True)
    answer = sys.stdin.readline()
    pinned = getattr(stream, "pinned", None)
    if pinned is not None:
        # The terminal has shown the line break of the answer.
        pinned.printed("\n")
    return answer.strip().lower() in ("y", "yes")


def print_message(text: str) -> None:
    """Print a message of the program on stderr."""
    print(fitted(f"bt_migrate: {text}", sys.stderr), file=sys.stderr)


def fitted(text: str, stream: TextIO, *, more: str = "  ") -> str:
    """Returns a line with breaks between words where a terminal's window ends."""
    if not stream.isatty():
        return text
    columns = terminal_size(raw_stream(stream)).columns
    return "\n".join(wrapped(text, first="", more=more, columns=columns))


def raw_stream(stream: TextIO) -> TextIO:
    """Returns the unescaped stream, for text that controls a terminal."""
    return getattr(stream, "raw", stream)


def is_open(stream: TextIO) -> bool:
    return getattr(stream, "error", None) is None


def code_after_output(code: int) -> int:
    """Returns the exit code of a program whose output may have failed; reports the failure.

    A reader that has ended (`| head`) is no failure. Any other failure lost the result.
    """
    sys.stdout.flush()
    error = getattr(sys.stdout, "error", None)
    if error is None or error.errno == errno.EPIPE:
        return code
    print_message(f"standard output: {error.strerror}")
    return EXIT_STOPPED if code == EXIT_OK else code
