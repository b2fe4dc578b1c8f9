"""The exceptions with which the sandbox refuses a request."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A refusal: HTTP status, and a body of text or JSON."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


class Missing(Refused):
    """An object that does not exist, or that the caller may not see: both look the same."""

    def __init__(self, kind: str, object_id: Any, access: str = "read") -> None:
        old_text = f"Missing read access to {kind} '{object_id}', or it does not exist"
        super().__init__(403, {"Code": "ForbiddenError", "Message": old_text, "Service": "api"})
        kind = "prompt" if kind == "function" else kind
        self.text = (
            f"Missing {access} access to {kind} id {object_id}, or the {kind} does not exist"
        )
