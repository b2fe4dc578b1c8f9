"""Log lines for a person or for a script, on stderr. Keys are masked in every line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any, Dict, Iterable, Optional, TextIO

from bt_migrate.cli.edge import MASK
from bt_migrate.cli.terminal import Terminal, is_file
from bt_migrate.model.date_windows import iso
from bt_migrate.report.display import escaped

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Masking(logging.Formatter):
    """Formats a record as one line and masks the keys."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        # The longest first: a key may be the beginning of another.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        text = self.line(record)
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def line(self, record: logging.LogRecord) -> str:
        raise NotImplementedError


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, timezone.utc)


class TextLines(_Masking):
    """`20:15:01 created dataset 'Questions'`; with the date in a line that is `kept` in a file."""

    def __init__(self, secrets: Iterable[str], *, kept: bool = False) -> None:
        super().__init__(secrets)
        self._time_format = "%Y-%m-%dT%H:%M:%SZ" if kept else "%H:%M:%S"

    def line(self, record: logging.LogRecord) -> str:
        words = [_time(record).strftime(self._time_format)]
        if record.levelno != logging.INFO:
            words.append(record.levelname)
        words.append(escaped(" ".join(record.getMessage().splitlines())))
        if hasattr(record, "source_id"):
            words.append(f"[{record.source_id}]")
        if getattr(record, "dest_id", None):
            words.append(f"-> [{record.dest_id}]")  # type: ignore[attr-defined]
        return " ".join(words)


class JsonLines(_Masking):
    """One JSON object a line: time, level, message, and the facts of the event."""

    def line(self, record: logging.LogRecord) -> str:
        facts: Dict[str, Any] = {
            "time": iso(_time(record)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        facts.update(
            {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
        )
        return json.dumps(facts, default=str)


def start_logging(
    level: str, format_name: str, secrets: Iterable[str], stream: Optional[TextIO] = None
) -> None:
    """Send the lines of this package to the stream, and those of libraries from WARNING on."""
    in_json = format_name == "json"
    handler = Terminal(stream or sys.stderr, level, short=not in_json)
    kept = is_file(handler.stream)
    handler.setFormatter(JsonLines(secrets) if in_json else TextLines(secrets, kept=kept))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # What the screen shows of it, its handler decides.
    logging.getLogger("bt_migrate").setLevel(min(handler.least, logging.WARNING))
    # It warns of each connection that is retried.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
