"""The edge of every program: each error becomes one line and an exit code.

An unexpected error is exit 70; its traceback goes into a file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import tempfile
import threading
import traceback
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Callable, Iterable, List, Optional

from bt_migrate.cli.streams import code_after_output, print_message, safe_streams
from bt_migrate.errors import (
    EXIT_CRASHED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    MigrationError,
    StateError,
    UsageError,
)

MASK = "***"
# characters of a message in a traceback: it may contain what a server sent
MAX_MESSAGE_CHARS = 500

# The text of the RuntimeError of threading where the system starts no more threads.
NO_THREAD = "can't start new thread"
# Errors of a path that are no fault of the program, and what to do.
PATH_CURES = {
    errno.EACCES: "give this user the right to it, or be the user who owns it",
    errno.EPERM: "give this user the right to it, or be the user who owns it",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ELOOP: "correct the links in it",
}


class Edge:
    """What the edge needs from the program: how it prints, and where a crash is recorded."""

    def __init__(self) -> None:
        self.in_json = False
        self.secrets: List[str] = []
        # Folders for the traceback of a crash, the best one last: the run directory once known.
        self.folders: List[Path] = []
        # a thread ended with an unexpected error
        self.thread_crashed = False


def run_guarded(body: Callable[[Edge], int]) -> int:
    """Call `body` with a new edge. Returns the exit code: its own, or that of its error."""
    edge = Edge()
    with safe_streams(), _thread_crashes(edge):
        code = _code_of(body, edge)
        crashed = code == EXIT_OK and edge.thread_crashed
        return code_after_output(EXIT_CRASHED if crashed else code)


def _code_of(body: Callable[[Edge], int], edge: Edge) -> int:
    try:
        _refuse_lost_folder()
        return body(edge)
    except MigrationError as error:
        print_line("ended", str(error), error.exit_code, edge)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit as error:  # argparse: --help, --version or a wrong option
        return error.code if isinstance(error.code, int) else EXIT_CRASHED
    except Exception as error:
        refusal = _refused_by_machine(error)
        if refusal:
            print_line("ended", str(refusal), refusal.exit_code, edge)
            return refusal.exit_code
        path = record_crash(error, edge)
        text = (
            f"internal error ({type(error).__name__}); this is a fault of bt_migrate, please report"
            f" it with {path}. Running the same command again is safe"
        )
        print_line("crashed", text, EXIT_CRASHED, edge)
        return EXIT_CRASHED


def _refused_by_machine(error: Exception) -> Optional[StateError]:
    """Returns the error to report for what the machine, not the program, is the reason of."""
    if isinstance(error, MemoryError) or NO_THREAD in str(error):
        return StateError(
            "this machine gives this process no more memory or threads; raise the limits (ulimit"
            " -v, ulimit -u, the container), or lower --max-concurrent, then run again"
        )
    if not isinstance(error, OSError) or error.errno not in PATH_CURES or not error.filename:
        return None
    return StateError(
        f"{os.fsdecode(error.filename)}: cannot be used by this process ({error.strerror});"
        f" {PATH_CURES[error.errno]}"
    )


def _refuse_lost_folder() -> None:
    """Raises UsageError if the current folder was deleted or cannot be read."""
    try:
        os.getcwd()
    except OSError as error:
        text = f"the current folder cannot be used ({error.strerror}): change to another one"
        raise UsageError(text) from None


def print_line(event: str, text: str, exit_code: int, edge: Edge) -> None:
    """Print an error as one line on stderr."""
    text = masked(text, edge.secrets)
    line = {"level": "error", "event": event, "message": text, "exit_code": exit_code}
    if edge.in_json:
        print(json.dumps(line), file=sys.stderr)
    else:
        print_message(text)


def record_crash(error: BaseException, edge: Edge) -> str:
    """Write the traceback into the best folder that takes it. Returns the path of the file."""
    text = masked("".join(_traceback_lines(error)), edge.secrets)
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
    for folder in [*reversed(edge.folders), Path(tempfile.gettempdir())]:
        path = folder / f"crash_{stamp}_{os.getpid()}.txt"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return str(path)
    return "the command that you ran (no folder takes the traceback)"


def _traceback_lines(error: BaseException) -> Iterable[str]:
    """Yields the traceback with every message cut."""
    for line in traceback.format_exception(type(error), error, error.__traceback__):
        yield line if len(line) <= MAX_MESSAGE_CHARS else f"{line[:MAX_MESSAGE_CHARS]} …\n"


def masked(text: str, secrets: Iterable[str]) -> str:
    # The longest first: a key may be the beginning of another.
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


@contextlib.contextmanager
def _thread_crashes(edge: Edge) -> Any:
    """Record an error that ends a thread, instead of printing its traceback."""

    def hook(arguments: Any) -> None:
        if isinstance(arguments.exc_value, BaseException):
            path = record_crash(arguments.exc_value, edge)
            name = type(arguments.exc_value).__name__
            text = f"internal error in a thread ({name}); see {path}"
            print_line("crashed", text, EXIT_CRASHED, edge)
            edge.thread_crashed = True

    before = threading.excepthook
    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
