"""A sandbox that behaves as recorded, with one organization."""

from __future__ import annotations

from typing import Iterator

import pytest

from bt_migrate.sandbox.data.behaviour import recorded
from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg
from tests.support.probing import KEY


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        running.store.behaviour = recorded()
        running.btql_limit_cap = 1000
        yield running


@pytest.fixture
def org(sandbox: Sandbox) -> SandboxOrg:
    made = sandbox.add_org("acme", api_key=KEY, users=[{"email": "ann@acme.example"}])
    project = made.create("project", {"name": "Precious"})["id"]
    row = {"id": "r", "span_id": "s", "root_span_id": "s", "input": "private"}
    made.insert("project_logs", project, [row])
    return made
