"""Tests of the sandbox see the behaviour that was recorded, whatever its defaults."""

from __future__ import annotations

from typing import Iterator

import pytest

from bt_migrate.sandbox.data.behaviour import recorded
from bt_migrate.sandbox.http.server import Sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A local Braintrust without organizations that behaves as recorded."""
    with Sandbox() as running:
        running.store.behaviour = recorded()
        yield running
