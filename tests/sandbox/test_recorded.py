"""The sandbox answers recorded requests as the hosted service did."""

from __future__ import annotations

from typing import Dict, List, Tuple

import pytest

from bt_migrate.sandbox.data.behaviour import recorded
from bt_migrate.sandbox.http.server import Sandbox
from tests.support.compare_answers import differences
from tests.support.exchanges import Exchange, sessions
from tests.support.replay import prepare, send
from tests.support.sdk_routes import serve_sdk

SESSIONS = sessions()

# (route, what differs) -> why the sandbox does not match.
NOT_MATCHED: Dict[Tuple[str, str], str] = {
    (
        "POST /api/base_experiment/get_id",
        "there is no base experiment",
    ): "the service finds a base by git history, which the sandbox does not know",
    (
        "POST /api/base_experiment/get_id",
        "brackets",
    ): "this one route does not name the organization; only the SDKs use it",
    (
        "GET /experiment-comparison2",
        "status 400",
    ): "the ids in its query were not recorded; only the SDKs use it",
}


def unexpected(exchange: Exchange, problems: List[str]) -> List[str]:
    known = [text for route, text in NOT_MATCHED if route == exchange.route]
    return [
        f"{exchange.route}: {problem}"
        for problem in problems
        if not any(text in problem for text in known)
    ]


@pytest.mark.parametrize("name", sorted(SESSIONS))
def test_recorded_requests_are_answered_as_recorded(name: str) -> None:
    found: List[str] = []
    with Sandbox() as sandbox:
        sandbox.store.behaviour = recorded()
        serve_sdk(sandbox)
        world = prepare(sandbox, SESSIONS[name])
        for exchange in SESSIONS[name]:
            found += unexpected(exchange, differences(world, exchange, send(world, exchange)))
    assert found + world.pairing.misordered() == []
