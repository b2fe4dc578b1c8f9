"""Check in a scratch project whether a server behaves as this program expects.

Uses one key: that of the destination, or with --source that of the source. After asking, creates a
project, three groups and two roles whose names begin with "bt_migrate probe". Checks with them each
assumption of the program, and deletes them. Changes nothing else. Prints what was assumed, what was
seen, and what it means for a migration.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any, Dict, Optional, Sequence

from bt_migrate.api.client import Api
from bt_migrate.api.organization import connect
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.cli.command import run_command
from bt_migrate.cli.log_lines import start_logging
from bt_migrate.cli.program import prepare_interpreter
from bt_migrate.cli.signals import Ending, handle_signals
from bt_migrate.cli.streams import agrees
from bt_migrate.config.load import Connection, connection_of
from bt_migrate.errors import Interrupted, UsageError
from bt_migrate.probe.run import exit_code, probe, probe_reading, record, report_lines

NAME = "probe"
LIMITS = Limits(attempts=3, delay_s=1.0, max_concurrent=1)
QUESTION = "Create a scratch project, groups and roles in {name} ({url}), and delete them again?"


def _api(connection: Connection, stop: threading.Event, *, writable: bool) -> Api:
    endpoint = Endpoint(connection.side, connection.url, connection.key)
    return Api(endpoint, LIMITS, writable=writable, stop=stop)


def _confirm(api: Api, flags: Dict[str, Any]) -> None:
    """Raises UsageError unless a person agrees, or --yes was given."""
    if flags["yes"]:
        return
    if not sys.stdin.isatty():
        raise UsageError("bin/probe creates and deletes objects: add --yes, or --read-only")
    if not agrees(QUESTION.format(name=api.display_name, url=api.url), sys.stderr):
        raise UsageError("nothing was created")


def run(flags: Dict[str, Any]) -> int:
    if flags["read_only"] and flags["yes"]:
        raise UsageError("--read-only creates nothing: leave out --yes")
    ending = Ending()
    with handle_signals(ending, 0, in_json=bool(flags["json"])):
        return _probed(flags, ending)


def _probed(flags: Dict[str, Any], ending: Ending) -> int:
    connection = connection_of("source" if flags["source"] else "destination", flags["env_file"])
    start_logging("WARNING", "json" if flags["json"] else "text", (connection.key,))
    api = _api(connection, ending.event, writable=not flags["read_only"])
    connect(api, connection.org, connection.setting)
    if not flags["read_only"]:
        _confirm(api, flags)
        if not flags["json"]:
            print("checking each assumption in a scratch project: about a minute", file=sys.stderr)
    # An interruption stops `api`; the scratch project is deleted nevertheless.
    cleaner = _api(connection, threading.Event(), writable=not flags["read_only"])
    try:
        results = probe_reading(api) if flags["read_only"] else probe(api, cleaner)
    except Interrupted:
        raise Interrupted("interrupted; everything that was created is deleted again") from None
    if flags["json"]:
        print(json.dumps(record(results), indent=1))
    else:
        print("\n".join(report_lines(results)))
    return exit_code(results)


def main(argv: Optional[Sequence[str]] = None) -> int:
    prepare_interpreter()
    return run_command(argv, NAME, __doc__ or "", run)


if __name__ == "__main__":
    raise SystemExit(main())
