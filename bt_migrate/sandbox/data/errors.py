"""The one way in which the sandbox says no."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """The API refuses a request: status, and a body of text or JSON."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__("%d: %s" % (status, body))
        self.status = status
        self.body = body


def forbidden(what: str) -> Refused:
    """Unknown and foreign objects look the same, so that ids cannot be probed."""
    text = "Missing read access to %s, or it does not exist" % what
    return Refused(403, {"Code": "ForbiddenError", "Message": text, "Service": "api"})
