"""The answer to one request."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, Union


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    body: Union[bytes, Path] = b""
    content_type: str = "application/json"
    headers: Dict[str, str] = field(default_factory=dict)
    changed: bool = False  # the request changed what the sandbox holds
    org_name: str = ""
