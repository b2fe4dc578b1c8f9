"""The one family of errors, each with the exit code of the program that it ends.

Knows nothing of HTTP libraries, files or phases. An error says what failed, which object or side,
and what to do.
"""

from __future__ import annotations

import re
from typing import Optional, Pattern, Sequence, Tuple

EXIT_OK = 0
# finished, but something that should have arrived did not
EXIT_INCOMPLETE = 1
EXIT_USAGE = 2
# stopped before the end, safe to run again
EXIT_STOPPED = 3
EXIT_LOCKED = 4
# A fault of the program itself; its traceback is in a file.
EXIT_CRASHED = 70
EXIT_INTERRUPTED = 130

# of an answer's body that an error keeps
MAX_BODY_CHARS = 500
HIDDEN = "***"

# What a server's text may name and no file or output may: pattern, replacement.
PRIVATE: Tuple[Tuple[Pattern[str], str], ...] = (
    # the control plane appends [user_email=…] [user_org=…] to its refusals
    (re.compile(r"\s*\[(?:user|org)\w*=[^\]]*(?:\]|$)"), ""),
    # a signed URL is a secret; its query and user information are
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
    """Returns a server's text as it may be shown and written to files.

    Without e-mail addresses, names of organizations in brackets, tokens, queries of URLs, and
    without the given secrets.
    """
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    for pattern, replacement in PRIVATE:
        text = pattern.sub(replacement, text)
    return text


class MigrationError(Exception):
    """Anything that a person can do something about; `str()` is the one line that is printed."""

    exit_code = EXIT_STOPPED


class UsageError(MigrationError):
    """Wrong option, setting, key or selection; nothing was written."""

    exit_code = EXIT_USAGE


class StateError(MigrationError):
    """A file of the run directory, which the text names, cannot be read or written."""


class ConflictError(MigrationError):
    """Objects exist with other content, and `fail` was set: stopped before the first write."""


class LockedError(MigrationError):
    """Another process holds the run directory."""

    exit_code = EXIT_LOCKED


class Interrupted(MigrationError):
    """SIGINT or SIGTERM: requests in flight are finished and the checkpoint is written."""

    exit_code = EXIT_INTERRUPTED


class LossError(MigrationError):
    """The plan cannot move everything and --fail-on-loss was set; nothing was written."""

    exit_code = EXIT_INCOMPLETE


class NetworkError(MigrationError):
    """No answer, a broken answer, or a host that only refuses to serve.

    `final`: all retries that make sense were made.
    """

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class ApiError(MigrationError):
    """An answer of 4xx or 5xx that retrying did not change.

    `status` is the HTTP status, `path` has no query, `body` is cut to MAX_BODY_CHARS.
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
        self.body = " ".join(without_secrets(body)[:MAX_BODY_CHARS].split())
        self.request_id = request_id
        trace = f" (request {request_id})" if request_id else ""
        super().__init__(
            f"{side}: {method} {path} was answered {status}{trace}: {self.body or 'no text'}"
        )

    @property
    def refuses_content(self) -> bool:
        """The content of the request is at fault, not the key or the server.

        Halving a batch can then find the row that is refused.
        """
        return self.status in (400, 413, 415, 422)


class AnswerError(ApiError):
    """A 2xx answer that does not say what it must: nothing that it claims is believed."""

    def __init__(self, side: str, method: str, path: str, status: int, problem: str) -> None:
        super().__init__(side, method, path, status, problem)
        self.args = (f"{side}: {method} {path} was answered {status}, but {self.body}",)
