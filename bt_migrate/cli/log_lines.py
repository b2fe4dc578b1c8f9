"""Log lines for a person or for a script, on stderr. Never a key: it is masked whatever the message holds."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any, Dict, Iterable, TextIO

from bt_migrate.model.date_windows import iso

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
MASK = "***"


class _Masking(logging.Formatter):
    """Formats a record as one line and masks the keys."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__()
        self._secrets = sorted(
            filter(None, secrets), key=len, reverse=True
        )  # one may be the beginning of another

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
    """`20:15:01 created dataset 'Questions'`"""

    def line(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        ids = " ".join(
            f"[{getattr(record, name)}]" for name in ("source_id",) if hasattr(record, name)
        )
        target = f" -> [{record.dest_id}]" if hasattr(record, "dest_id") and record.dest_id else ""
        message = " ".join(record.getMessage().splitlines())
        return f"{_time(record):%H:%M:%S} {level}{message}{' ' + ids if ids else ''}{target}"


class JsonLines(_Masking):
    """One JSON object a line: time, level, message, and the facts of the event."""

    def line(self, record: logging.LogRecord) -> str:
        facts: Dict[str, Any] = {
            name: value for name, value in vars(record).items() if name not in _STANDARD
        }
        fixed = {
            "time": iso(_time(record)),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        return json.dumps({**fixed, **facts}, default=str)


def start_logging(
    level: str, format_name: str, secrets: Iterable[str], stream: TextIO = sys.stderr
) -> None:
    """Send this package's lines to the stream; lines of libraries only from WARNING on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(secrets) if format_name == "json" else TextLines(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("bt_migrate").setLevel(level)
    logging.getLogger("urllib3").setLevel(
        logging.ERROR
    )  # it warns of each connection that is tried again
