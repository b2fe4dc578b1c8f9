"""Fixtures of every test: an environment without the user's settings, and an empty HOME."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Iterator

import pytest

from bt_migrate.cli.program import prepare_interpreter

if TYPE_CHECKING:
    from bt_migrate.sandbox.http.server import Sandbox
    from tests.support.orgs import Pair

SCRUBBED_PREFIXES = ("BT_", "MIGRATION_", "LOG_", "BRAINTRUST_")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY", "NO_PROXY")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="run what takes minutes or the network too"
    )
    parser.addoption(
        "--older", action="store_true", help="let all sandboxes behave as an older data plane"
    )


def pytest_configure(config: pytest.Config) -> None:
    prepare_interpreter()  # as every program does at its start
    if config.getoption("--older"):
        from tests.support.orgs import DATA_PLANE

        DATA_PLANE.older = True
    _inherit_no_ignored_signals()


def _inherit_no_ignored_signals() -> None:
    """Start programs with the default handlers, however pytest itself was started.

    A shell script ignores SIGINT for a command with `&`, and nohup ignores SIGHUP. Processes
    inherit that, and a program leaves an ignored signal ignored. A handler that does nothing is
    not inherited: pytest goes on ignoring the signal, and what it starts does not.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    run: Dict[str, int] = defaultdict(int)  # test -> variants of it that run
    for item in items:
        if not config.getoption("--long"):
            is_long = item.get_closest_marker("long")
            few = item.get_closest_marker("variants")
            test = item.nodeid.partition("[")[0]
            if is_long or (few and run[test] >= few.args[0]):
                item.add_marker(pytest.mark.skip(reason="runs with --long"))
            else:
                run[test] += 1
        if item.get_closest_marker("recorded") and config.getoption("--older"):
            item.add_marker(pytest.mark.skip(reason="about the behaviour as recorded"))


def pytest_collection_finish() -> None:
    gc.freeze()  # thousands of tests are not searched for garbage again and again


@pytest.fixture(autouse=True)
def _clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in list(os.environ):
        if name.upper().startswith(SCRUBBED_PREFIXES) or name.upper() in PROXY_VARIABLES:
            monkeypatch.delenv(name)
    home = tempfile.mkdtemp(prefix="home_", dir=tmp_path_factory.getbasetemp())
    monkeypatch.setenv("HOME", home)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)


@pytest.fixture
def home() -> Path:
    """The empty HOME of this test."""
    return Path(os.environ["HOME"])


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A local Braintrust without organizations."""
    from bt_migrate.sandbox.http.server import Sandbox

    with Sandbox() as running:
        yield running


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The tiny organization and an empty destination."""
    from tests.support.orgs import tiny_pair

    with tiny_pair() as made:
        yield made


@pytest.fixture(params=["recorded", "older"])
def data_plane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test twice: with sandboxes that behave as recorded, and as an older data plane."""
    from tests.support.orgs import DATA_PLANE

    monkeypatch.setattr(DATA_PLANE, "older", request.param == "older")
    return str(request.param)
