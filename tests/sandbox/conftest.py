"""A sandbox with the behaviour that was recorded, whatever its defaults, and an organization."""

from __future__ import annotations

from typing import Iterator

import pytest

from bt_migrate.sandbox.data.behaviour import recorded
from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg
from tests.support.sandbox_http import Http


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A local Braintrust without organizations that behaves as recorded."""
    with Sandbox() as running:
        running.store.behaviour = recorded()
        yield running


@pytest.fixture
def acme(sandbox: Sandbox) -> SandboxOrg:
    return sandbox.add_org("acme", api_key="sk-acme")


@pytest.fixture
def http(sandbox: Sandbox, acme: SandboxOrg) -> Http:
    return Http(sandbox.url, "sk-acme")
