"""Log lines for a person or for a script, on stderr. Keys are masked in every line."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import datetime, timezone
from typing import Any, Dict, Iterable, Optional, TextIO

from bt_migrate.cli.edge import MASK
from bt_migrate.cli.terminal import Terminal, is_file
from bt_migrate.model.date_windows import iso
from bt_migrate.report.display import ID_COLUMNS, escaped, shown

CONVERSION = re.compile(r"%[-#0 +]*[\d.*]*([a-zA-Z])")

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
    """`20:15:01 created dataset 'Questions'`; with the date in a line that is `kept` in a file.

    `cut`: long names and ids are cut, for a terminal.
    """

    def __init__(self, secrets: Iterable[str], *, kept: bool = False, cut: bool = False) -> None:
        super().__init__(secrets)
        self._time_format = "%Y-%m-%dT%H:%M:%SZ" if kept else "%H:%M:%S"
        self._id_columns = ID_COLUMNS if cut else None
        self._cut = cut

    def line(self, record: logging.LogRecord) -> str:
        words = [_time(record).strftime(self._time_format)]
        if record.levelno != logging.INFO:
            words.append(record.levelname)
        message = _with_cut_names(record) if self._cut else record.getMessage()
        words.append(escaped(" ".join(message.splitlines())))
        if hasattr(record, "source_id"):
            words.append(f"[{self._id(record.source_id)}]")
        if getattr(record, "dest_id", None):
            words.append(f"-> [{self._id(record.dest_id)}]")  # type: ignore[attr-defined]
        return " ".join(words)

    def _id(self, text: object) -> str:
        return str(text)[: self._id_columns]


class _ShownName(str):
    """A name that `%r` puts into quotes, and does not escape again."""

    def __repr__(self) -> str:
        return f"'{self}'"


def _with_cut_names(record: logging.LogRecord) -> str:
    """Returns the message with every name (shown by %r) cut to the width of names."""
    if not isinstance(record.args, tuple):
        return record.getMessage()
    kinds = CONVERSION.findall(str(record.msg).replace("%%", ""))
    names = [
        _ShownName(shown(value)) if kind == "r" and isinstance(value, str) else value
        for kind, value in zip(kinds, record.args)
    ]
    return str(record.msg) % tuple(names) if len(names) == len(record.args) else record.getMessage()


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
    """Write log lines of this package to the stream, and warnings and errors of libraries."""
    in_json = format_name == "json"
    handler = Terminal(stream or sys.stderr, level, short=not in_json)
    kept = is_file(handler.stream)
    lines = TextLines(secrets, kept=kept, cut=handler.stream.isatty())
    handler.setFormatter(JsonLines(secrets) if in_json else lines)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    # the handler decides what the screen shows
    logging.getLogger("bt_migrate").setLevel(min(handler.least, logging.WARNING))
    # urllib3 warns about each connection that is retried
    logging.getLogger("urllib3").setLevel(logging.ERROR)
