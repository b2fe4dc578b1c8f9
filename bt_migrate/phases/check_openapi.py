"""Compare the table of resources with an OpenAPI document of the API, and print each difference.

The document is at https://github.com/braintrustdata/braintrust-openapi. Exit code 1 means that
there are differences in paths, methods, fields, required fields, object types, ids and versions.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence

from bt_migrate.cli.command import run_command
from bt_migrate.config.bounded import read_text_bounded
from bt_migrate.errors import EXIT_INCOMPLETE, EXIT_OK, UsageError
from bt_migrate.model.openapi import differences
from bt_migrate.report.display import COLUMNS, plural

NAME = "check-openapi"


def _document(path: str) -> Any:
    try:
        return json.loads(read_text_bounded(Path(path)))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: is not JSON: {error}") from None


def _wrapped(text: str) -> List[str]:
    return textwrap.wrap(text, COLUMNS, subsequent_indent="    ", break_on_hyphens=False)


def _summary(count: int) -> str:
    if not count:
        return "no differences: the table of resources follows the document"
    return f"{plural(count, 'difference')}; what to do: docs/probe.md#has-the-api-changed"


def run(flags: Mapping[str, Any]) -> int:
    path = flags["file"]
    try:
        lines = differences(_document(path))
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    if flags["json"]:
        print(json.dumps({"differences": lines}, indent=1))
    else:
        print("\n".join(line for text in lines for line in _wrapped(text)))
        print(_summary(len(lines)))
    return EXIT_INCOMPLETE if lines else EXIT_OK


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(argv, NAME, __doc__ or "", run)


if __name__ == "__main__":
    raise SystemExit(main())
