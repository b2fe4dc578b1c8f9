"""The sandbox answers recorded requests as the hosted service did."""

from __future__ import annotations

from typing import List

import pytest

from bt_migrate.sandbox.data.behaviour import recorded
from bt_migrate.sandbox.http.server import Sandbox
from tests.support.compare_answers import differences
from tests.support.exchanges import sessions
from tests.support.replay import prepare, send
from tests.support.sdk_routes import serve_sdk

SESSIONS = sessions()


@pytest.mark.parametrize("name", sorted(SESSIONS))
def test_recorded_requests_are_answered_as_recorded(name: str) -> None:
    found: List[str] = []
    with Sandbox() as sandbox:
        sandbox.store.behaviour = recorded()
        serve_sdk(sandbox)
        world = prepare(sandbox, SESSIONS[name])
        for exchange in SESSIONS[name]:
            problems = differences(world, exchange, send(world, exchange))
            found += [f"{exchange.route}: {problem}" for problem in problems]
    assert found + world.pairing.misordered() == []
