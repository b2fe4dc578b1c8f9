"""All errors of bt_migrate. Each class has the exit code with which it ends a program.

Knows nothing of HTTP libraries, files or phases. An error says what failed, which object or side,
and what to do.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional, Pattern, Sequence, Tuple

EXIT_OK = 0
# finished, but something that should have arrived did not
EXIT_INCOMPLETE = 1
EXIT_USAGE = 2
# stopped before the end, safe to run again
EXIT_STOPPED = 3
EXIT_LOCKED = 4
# a bug of the program; the traceback is in crash_*.txt
EXIT_CRASHED = 70
EXIT_INTERRUPTED = 130

# How a server answers a route that it does not have.
NOT_THERE = (404, 405, 501)

# The control plane refuses with 400 and text: "Missing create access to org …" (recorded).
RIGHT_REFUSED = re.compile(
    r"missing \w+ access|access denied|permission|not authorized|unauthorized|forbidden"
    r"|not allowed|read.?only",
    re.IGNORECASE,
)

# how much of an answer's body an error keeps
MAX_BODY_CHARS = 500
HIDDEN = "***"

# Removed from texts of a server before they are shown or written: (pattern, replacement)
PRIVATE: Tuple[Tuple[Pattern[str], str], ...] = (
    # the control plane appends [user_email=…] [user_org=…] to its refusals
    (re.compile(r"\s*\[(?:user|org)\w*=[^\]]*(?:\]|$)"), ""),
    # the query and the user information of a signed URL are secret
    (re.compile(r"(?i)\b(https?://)[^\s/@\"'<>]+@"), r"\1"),
    (re.compile(r"(?i)\b(https?://[^\s?#\"'<>]+)[?#][^\s\"'<>]*"), r"\1?" + HIDDEN),
    (re.compile(r"(?i)\b((?:x-amz-\w+|x-goog-\w+|sig|signature)=)[^\s&\"'<>]+"), r"\1" + HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)(\s+|%20)[\w.~+/=%-]{6,}"), r"\1 " + HIDDEN),
    # API keys, and JSON web tokens
    (re.compile(r"\b(?:sk|bt-st|btst|pk|xox[a-z]|gh[a-z])[-_][\w-]{6,}"), HIDDEN),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?"), HIDDEN),
    (re.compile(r"[\w.+-]+(?:@|%40)[\w-]+(?:\.[\w-]+)+"), HIDDEN),
)


def without_secrets(text: str, secrets: Sequence[str] = ()) -> str:
    """Returns a server's text in a form that may be shown and written to files.

    E-mail addresses, tokens, queries of URLs and the given `secrets` are replaced; the names of
    users and organizations that the control plane appends in brackets are removed.
    """
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for pattern, replacement in PRIVATE:
        text = pattern.sub(replacement, text)
    return text


class MigrationError(Exception):
    """An error that the user can fix or retry; `str()` is the line that is printed."""

    exit_code = EXIT_STOPPED


class UsageError(MigrationError):
    """Wrong option, setting, key or selection; nothing was written."""

    exit_code = EXIT_USAGE


class StateError(MigrationError):
    """A file of the run directory cannot be read or written; the message names it."""


class ConflictError(MigrationError):
    """With --on-conflict fail: objects exist with other content; nothing was written."""


class DeletedError(MigrationError):
    """An object that this run created or found was deleted in the destination meanwhile."""


class LockedError(MigrationError):
    """Another process has locked the run directory."""

    exit_code = EXIT_LOCKED


class Interrupted(MigrationError):
    """SIGINT or SIGTERM: running requests were finished and the checkpoint was written."""

    exit_code = EXIT_INTERRUPTED


class LossError(MigrationError):
    """The plan cannot move everything and --fail-on-loss was set; nothing was written."""

    exit_code = EXIT_INCOMPLETE


class NetworkError(MigrationError):
    """No answer, an incomplete answer, or a host that is unavailable (502, 503).

    `final`: no retry is left.
    """

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class Route(NamedTuple):
    """What was asked of which side. `path` has no query."""

    side: str
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.side}: {self.method} {self.path}"


class ApiError(MigrationError):
    """An answer with status 4xx or 5xx, also after retries.

    `status` is the HTTP status, `body` is cut to MAX_BODY_CHARS.
    `retry_after` is the seconds of the answer's Retry-After, None without one.
    `is_page` is true for HTML: it comes from a gateway in front of the API, whose own errors are
    JSON or plain text. `is_json` is true for the API's own JSON. `lacks_route` is true for the page
    with which the API's own framework (Express) answers a route that it does not have.
    """

    retry_after: Optional[float] = None
    is_page = False
    is_json = False
    lacks_route = False

    def __init__(
        self, route: Route, status: int, body: str, request_id: Optional[str] = None
    ) -> None:
        self.route = route
        self.side, self.method, self.path = route
        self.status = status
        self.body = " ".join(without_secrets(body)[:MAX_BODY_CHARS].split())
        self.request_id = request_id
        trace = f" (request {request_id})" if request_id else ""
        super().__init__(f"{route} was answered {status}{trace}: {self.body or 'no text'}")

    @property
    def refuses_key(self) -> bool:
        """Whether the key lacks a right: 401, 403, or a 400 whose text says so."""
        refused = self.status == 400 and RIGHT_REFUSED.search(self.body)
        return self.status in (401, 403) or bool(refused)

    @property
    def refuses_content(self) -> bool:
        """Whether the content of the request was refused, not the key or the server.

        The refused row of a batch can then be found by sending halves of the batch.
        """
        return self.status in (400, 413, 415, 422)


class AnswerError(ApiError):
    """A 2xx answer whose content does not fit the request; the operation counts as failed."""

    def __init__(self, route: Route, status: int, problem: str) -> None:
        super().__init__(route, status, problem)
        self.args = (f"{route} was answered {status}, but {self.body}",)


class RateLimitError(NetworkError):
    """A request was answered 429 too often."""

    def __init__(self, text: str, refusal: ApiError) -> None:
        super().__init__(text, final=True)
        # the last of these answers
        self.refusal = refusal
