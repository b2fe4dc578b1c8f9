"""Compare the table of resources with an OpenAPI document of the API, and print each difference.

The document is at https://github.com/braintrustdata/braintrust-openapi. Exit code 1 means that
there are differences in paths, methods, fields, required fields, object types, ids and versions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional, Sequence

from bt_migrate.cli.streams import print_message
from bt_migrate.config.options import flags_of, make_parser
from bt_migrate.errors import EXIT_INCOMPLETE, EXIT_OK, MigrationError, UsageError
from bt_migrate.model.openapi import differences

NAME = "check-openapi"


def _document(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path}: is not JSON: {error}") from None


def run(path: str, *, in_json: bool) -> int:
    try:
        lines = differences(_document(path))
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None
    if in_json:
        print(json.dumps({"differences": lines}, indent=1))
    else:
        print("\n".join([*lines, f"{len(lines)} difference(s)"]))
    return EXIT_INCOMPLETE if lines else EXIT_OK


def main(argv: Optional[Sequence[str]] = None) -> int:
    flags = flags_of(make_parser(NAME, __doc__ or ""), argv)
    try:
        return run(flags["file"], in_json=flags["json"])
    except MigrationError as error:
        print_message(str(error))
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
