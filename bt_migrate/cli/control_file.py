"""The control file of a run: one word or setting a line, together all that is requested.

Written by bin/control, read once a second by the process that works on the run.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Dict

from bt_migrate.errors import UsageError
from bt_migrate.model.selection import did_you_mean

CONTROL_WORDS = ("pause", "resume", "stop")
SETTINGS = ("requests-per-second", "max-concurrent")

_RATE_TEXT = re.compile(r"\d{1,6}(\.\d{1,6})?$", re.ASCII)
_NUMBER = re.compile(r"\d{1,6}$", re.ASCII)
_SHOWN_CHARS = 60


def read_control(text: str) -> Dict[str, Any]:
    """Returns {pause, stop: bool, requests-per-second: float or None, max-concurrent: int or None}.

    Raises UsageError on a line that is not understood.
    """
    request: Dict[str, Any] = {"pause": False, "stop": False, **dict.fromkeys(SETTINGS)}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        name, equals, value = (part.strip() for part in line.partition("="))
        if name in CONTROL_WORDS and not equals:
            request.update({"pause": False} if name == "resume" else {name: True})
        elif name == "requests-per-second" and _RATE_TEXT.match(value) and float(value) > 0:
            request[name] = float(value)
        elif name == "max-concurrent" and _NUMBER.match(value) and int(value) > 0:
            request[name] = int(value)
        else:
            hint = did_you_mean(name, (*CONTROL_WORDS, *SETTINGS))
            raise UsageError(
                f"{line[:_SHOWN_CHARS]!r} is not one of {', '.join(CONTROL_WORDS)},"
                f" requests-per-second=N, max-concurrent=N (N above 0){hint}"
            )
    return request


def control_text(request: Dict[str, Any]) -> str:
    """Returns the text of the file. The inverse of `read_control`."""
    words = [name for name in ("pause", "stop") if request[name]]
    settings = [f"{name}={request[name]:g}" for name in SETTINGS if request[name]]
    return "".join(f"{line}\n" for line in [*words, *settings])


def replace_file(path: Path, text: str) -> None:
    """Replace a file as a whole.

    It is not flushed to disk: after a power cut the process that it controls is gone too.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
