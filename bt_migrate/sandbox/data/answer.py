"""The answer to one request."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping, Union


class Answer:
    """An HTTP answer. `changed`: the request changed what the sandbox holds."""

    __slots__ = ("status", "body", "content_type", "headers", "changed", "org_name")

    def __init__(
        self,
        status: int,
        body: Union[bytes, Path] = b"",
        content_type: str = "application/json",
        headers: Mapping[str, str] = {},
        *,
        changed: bool = False,
        org_name: str = "",
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = dict(headers)
        self.changed = changed
        self.org_name = org_name
