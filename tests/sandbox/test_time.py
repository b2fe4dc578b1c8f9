"""The clock of the sandbox can be set and runs on; transactions never go back."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any, List

import pytest

from bt_migrate.sandbox.data import clock as keys
from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg
from tests.support.sandbox_http import Http

DAY_S = 86400
THEN = 1_760_000_000  # 2025-10-09T08:53:20Z


@pytest.fixture
def acme(sandbox: Sandbox) -> SandboxOrg:
    sandbox.clock.set(THEN)
    return sandbox.add_org("acme", api_key="sk-acme")


def seconds(text: str) -> float:
    return (keys.micros(text) or 0) / 1e6


def moment_of(row: Any) -> int:
    return keys.moment_of_xact(row["_xact_id"]) or 0


def test_everything_that_shows_the_time_shows_the_time_that_was_set(
    http: Http, acme: SandboxOrg
) -> None:
    project = http.create("project", name="P")
    prompt = http.create("prompt", project_id=project["id"], name="a", slug="a")
    http.patch(f"/v1/prompt/{prompt['id']}", {"name": "b"})
    http.insert("project_logs", project["id"], {"id": "x"})
    http.post(
        f"/v1/project_logs/{project['id']}/feedback",
        {"feedback": [{"id": "x", "comment": "c", "scores": {"s": 1}}]},
    )
    row = acme.rows("project_logs", project["id"])[0]
    answer = http.post(
        "/btql", {"query": f"select: NOW() as n | from: project_logs('{project['id']}') | limit: 1"}
    )
    told = [
        seconds(project["created"]),
        seconds(prompt["created"]),
        moment_of(prompt) >> 16,
        seconds(row["created"]),
        moment_of(row) >> 16,
        (int(row["_pagination_key"][1:]) >> 32),
        seconds(row["comments"][0]["created"]),
        moment_of(row["audit_data"][1]) >> 16,
        seconds(answer.json()["data"][0]["n"]),
        parsedate_to_datetime(answer.headers["Date"]).timestamp(),
        seconds(acme.objects("user")[0]["created"]),
        seconds(http.delete(f"/v1/project/{project['id']}").json()["deleted_at"]),
    ]
    assert [moment for moment in told if not THEN <= moment < THEN + 60] == []


def test_a_month_passes_in_no_time_and_transactions_stay_in_order(
    sandbox: Sandbox, acme: SandboxOrg
) -> None:
    project = acme.create("project", {"name": "P"})["id"]
    days: List[int] = [*range(30), 3, 30]  # on one of them the clock is set back
    for number, day in enumerate(days):
        sandbox.clock.set(THEN + day * DAY_S)
        acme.insert("project_logs", project, [{"id": f"{number}"}])
    moments = [moment_of(row) for row in acme.rows("project_logs", project)]
    assert moments == sorted(set(moments))
    assert [(moment >> 16) - THEN for moment in moments] == [
        day * DAY_S for day in [*range(30), 29, 30]
    ]


def test_a_signed_url_is_old_the_next_day(sandbox: Sandbox, http: Http, acme: SandboxOrg) -> None:
    key = acme.attach(b"bytes", "a.txt", "text/plain")["key"]
    url = http.get(
        "/attachment", key=key, filename="a.txt", content_type="text/plain", org_id=acme.id
    ).json()["downloadUrl"]
    stranger = Http("", "")
    stranger.session.headers.clear()
    first = stranger.get(url).status_code
    sandbox.clock.set(THEN + DAY_S)
    assert (first, stranger.get(url).status_code) == (200, 403)


def test_rows_are_indexed_when_the_sandbox_s_clock_says_so(
    sandbox: Sandbox, http: Http, acme: SandboxOrg
) -> None:
    project = acme.create("project", {"name": "P"})["id"]
    sandbox.indexing_lag = 600
    acme.insert("project_logs", project, [{"id": "x"}])
    query = f"select: * | from: project_logs('{project}')"
    seen = [len(http.btql(query)["data"])]
    sandbox.clock.set(sandbox.clock.seconds() + 601)
    seen.append(len(http.btql(query)["data"]))
    assert seen == [0, 1]


def test_the_time_is_set_and_asked_for_over_the_control_interface(
    sandbox: Sandbox, http: Http
) -> None:
    control = {"token": sandbox.control_token, "set": {"now": THEN + 30 * DAY_S}, "get": ["now"]}
    assert 0 <= http.post("/sandbox/control", control).json()["now"] - (THEN + 30 * DAY_S) < 60
    assert seconds(http.create("project", name="P")["created"]) >= THEN + 30 * DAY_S


def test_a_sandbox_whose_clock_nobody_set_has_the_time_of_this_machine(sandbox: Sandbox) -> None:
    assert abs(sandbox.clock.seconds() - time.time()) < 5
