"""The names of the programs in this installation: bin/verify in a checkout, else bt-verify."""

from __future__ import annotations

import re
from pathlib import Path

from bt_migrate.config.options import PROGRAMS

CHECKOUT, INSTALLED = "bin/", "bt-"
# A program as messages and help name it; not the end of a path.
_NAMED = re.compile(rf"(?<![\w./~-])bin/(?=(?:{'|'.join([*PROGRAMS, 'sandbox'])})\b)")


def program_prefix(program: str) -> str:
    """Returns what the names of the programs begin with in this installation."""
    has_checkout = (Path(__file__).resolve().parents[2] / "bin" / "migrate-all").is_file()
    is_installed = Path(program).name.startswith(INSTALLED) or not has_checkout
    return INSTALLED if is_installed else CHECKOUT


def with_prefix(prefix: str, text: str) -> str:
    """Returns a text of this package with the names that its programs have here."""
    return text if prefix == CHECKOUT else _NAMED.sub(prefix, text)
