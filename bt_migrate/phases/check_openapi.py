"""Compare the table of resources with an OpenAPI document of the API, and print each difference.

The document is at https://github.com/braintrustdata/braintrust-openapi. Exit code 1 means that
there are differences in paths, methods, fields, required fields, object types, ids and versions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from bt_migrate.cli.command import run_command
from bt_migrate.errors import EXIT_INCOMPLETE, EXIT_OK, UsageError
from bt_migrate.model.openapi import differences

NAME = "check-openapi"


def _document(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: is not JSON: {error}") from None


def run(flags: Mapping[str, Any]) -> int:
    path = flags["file"]
    try:
        lines = differences(_document(path))
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    if flags["json"]:
        print(json.dumps({"differences": lines}, indent=1))
    else:
        print("\n".join([*lines, f"{len(lines)} difference(s)"]))
    return EXIT_INCOMPLETE if lines else EXIT_OK


def main(argv: Optional[Sequence[str]] = None) -> int:
    return run_command(argv, NAME, __doc__ or "", run)


if __name__ == "__main__":
    raise SystemExit(main())
