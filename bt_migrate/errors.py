"""The one family of errors, each with the exit code of the program that it ends.

Knows nothing of HTTP libraries, files or phases. An error says what failed, which object or side, and what to do.
"""

from __future__ import annotations

from typing import Optional

EXIT_OK = 0
EXIT_INCOMPLETE = 1  # finished, but something that should have arrived did not
EXIT_USAGE = 2
EXIT_STOPPED = 3  # stopped before the end, safe to run again
EXIT_LOCKED = 4
EXIT_INTERRUPTED = 130

MAX_BODY_CHARS = 500  # of an answer that is kept in an error


class MigrationError(Exception):
    """Anything that a person can do something about; `str()` is the one line that is printed."""

    exit_code = EXIT_STOPPED


class UsageError(MigrationError):
    """Wrong option, setting, key or selection; nothing was written."""

    exit_code = EXIT_USAGE


class StateError(MigrationError):
    """A file of the run directory cannot be read or written; it is named."""


class ConflictError(MigrationError):
    """Objects exist with other content, and the run was told to stop for that before its first write."""


class LockedError(MigrationError):
    """Another process holds the run directory."""

    exit_code = EXIT_LOCKED


class Interrupted(MigrationError):
    """SIGINT or SIGTERM: what was in flight is finished and the checkpoint is written."""

    exit_code = EXIT_INTERRUPTED


class LossError(MigrationError):
    """The plan leaves something behind and --fail-on-loss was given; nothing was written."""

    exit_code = EXIT_INCOMPLETE


class NetworkError(MigrationError):
    """No answer, a broken answer, or none but refusals to serve. `final`: after all retries that make sense."""

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class ApiError(MigrationError):
    """An answer of 4xx or 5xx that retrying did not change.

    `status` is the HTTP status, `path` has no query, `body` is cut to MAX_BODY_CHARS; `retry_after` is seconds, where the
    answer names them; `is_page` is true for HTML, with which a gateway answers that stands before the API (its own errors are
    JSON or plain text).
    """

    retry_after: Optional[float] = None
    is_page = False

    def __init__(
        self,
        side: str,
        method: str,
        path: str,
        status: int,
        body: str,
        request_id: Optional[str] = None,
    ) -> None:
        self.side = side
        self.method = method
        self.path = path
        self.status = status
        self.body = " ".join(body[:MAX_BODY_CHARS].split())
        self.request_id = request_id
        trace = f" (request {request_id})" if request_id else ""
        super().__init__(
            f"{side}: {method} {path} was answered {status}{trace}: {self.body or 'no text'}"
        )

    @property
    def refuses_content(self) -> bool:
        """The request itself is at fault (so halving a batch can find the row), not the key or the server."""
        return self.status in (400, 413, 415, 422)
