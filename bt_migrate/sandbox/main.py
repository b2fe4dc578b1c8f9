"""Serve a local Braintrust with two organizations until Ctrl-C, for rehearsals of a migration.

Prints the settings of two .env files: one to read from "source", one to write to "destination".
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any, Callable, List, Optional

from bt_migrate.sandbox.data.behaviour import older
from bt_migrate.sandbox.http.control import fault_of_text, pairs_of_text
from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg

# The first line of a file of settings.
HEADER = "# written by bin/sandbox: valid as long as it runs"
EXAMPLES = """\
examples: bin/sandbox --example --write-env .env
          bin/sandbox --example --fault status,status=429,path=/btql,times=3
exit codes: 0 ended, 2 usage or a port that is taken; the manual (operations.md)
describes all faults and switches"""


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        prog="sandbox",
        usage="%(prog)s [options]",
        description=textwrap.fill(" ".join((__doc__ or "").split()), 78),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        "--port", type=port_of_text, default=0, help="listen on this port (default: a free one)"
    )
    options.add_argument(
        "--files-port",
        metavar="PORT",
        type=port_of_text,
        default=0,
        help="serve signed URLs on this port (default: a free one)",
    )
    options.add_argument(
        "--example", action="store_true", help="fill the source with the example organization"
    )
    options.add_argument(
        "--write-env", type=Path, metavar="FILE", help="write the settings to this file as well"
    )
    _add_behaviour(options)
    return options


def _add_behaviour(options: argparse.ArgumentParser) -> None:
    """The options for how the server answers."""
    options.add_argument(
        "--latency",
        type=with_reason(pairs_of_text),
        default={},
        metavar="NAME=S,...",
        help="wait before answering (btql, insert, list, …)",
    )
    options.add_argument(
        "--fault",
        type=with_reason(fault_of_text),
        action="append",
        default=[],
        metavar="SPEC",
        help="fail requests: KIND[,NAME=VALUE...] (repeatable)",
    )
    options.add_argument(
        "--btql-per-minute",
        type=int,
        metavar="N",
        help="answer 429 above this many queries (default: never)",
    )
    options.add_argument(
        "--older",
        nargs="?",
        type=with_reason(switches_of_text),
        const=True,
        default=False,
        metavar="NAME,...",
        help="behave as an older data plane, wholly or in these",
    )


def port_of_text(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"'{text}' is no port, a number from 0 to 65535")
    return int(text)


def with_reason(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Returns the function with which argparse reads an argument, so that its error is shown."""

    def of_text(text: str) -> Any:
        try:
            return read(text)
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return of_text


def switches_of_text(text: str) -> List[str]:
    names = text.split(",")
    older(names)  # refuses unknown names
    return names


def main(argv: Optional[List[str]] = None) -> int:
    options = parser().parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with contextlib.ExitStack() as stack:
        sandbox = Sandbox(options.port, options.files_port, older=options.older)
        try:
            stack.enter_context(sandbox)
        except OSError as error:
            parser().error(f"--port, --files-port: {error.strerror}")
        if options.example:
            from bt_migrate.sandbox.example.fill import DEST_USERS, SOURCE_USERS, fill_example

            source = sandbox.add_org("source", users=SOURCE_USERS)
            dest = sandbox.add_org("destination", users=DEST_USERS)
            # The example has datasets with tags. An older server shows them, and takes no others.
            tagged, sandbox.behaviour.datasets_have_tags = (
                sandbox.behaviour.datasets_have_tags,
                True,
            )
            fill_example(source)
            sandbox.behaviour.datasets_have_tags = tagged
        else:
            source = sandbox.add_org("source")
            dest = sandbox.add_org("destination")
        sandbox.latency = options.latency
        sandbox.btql_per_minute = options.btql_per_minute
        for fault in options.fault:
            sandbox.faults.add(fault)
        text = settings_text(sandbox, source, dest)
        if options.write_env:
            write_env(options.write_env, text)
        print(text, flush=True)
        print("Serving until Ctrl-C.", file=sys.stderr, flush=True)
        while not stop.wait(0.5):
            pass  # a wait without a timeout would not notice the signal on every platform
    return 0


def write_env(path: Path, text: str) -> None:
    """Write the settings to a file that only the user can read.

    Only a file that an earlier sandbox wrote is replaced.
    """
    if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(HEADER):
        raise SystemExit(f"sandbox: --write-env: {path} is not of a sandbox; name another file")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{HEADER}\n{text}\n")
    except OSError as error:
        raise SystemExit(f"sandbox: --write-env: {path}: {error.strerror}") from None


def settings_text(sandbox: Sandbox, source: SandboxOrg, dest: SandboxOrg) -> str:
    """The two .env blocks, and how to control this sandbox."""
    return "\n".join(
        [
            f"# the organization to read, '{source.name}'",
            "BT_SOURCE_API_KEY=" + source.api_key,
            "BT_SOURCE_URL=" + sandbox.url,
            "",
            f"# the organization to write, '{dest.name}'",
            "BT_DEST_API_KEY=" + dest.api_key,
            "BT_DEST_URL=" + sandbox.url,
            "",
            f"# switches: POST {sandbox.url}/sandbox/control with this token",
            "# SANDBOX_CONTROL_TOKEN=" + sandbox.control_token,
        ]
    )
