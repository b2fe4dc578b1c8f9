"""Faults, latency, limits, the log of requests, and the sandbox as a process of its own."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List, Tuple

import pytest
import requests

from bt_migrate.sandbox.http.control import fault_of_text, pairs_of_text
from bt_migrate.sandbox.http.faults import Fault
from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg
from tests.support.orgs import TIME_LIMIT_S
from tests.support.sandbox_http import Http

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_status_fault_hits_as_often_as_it_says_and_before_authentication(
    sandbox: Sandbox, http: Http
) -> None:
    fault = sandbox.faults.add(
        Fault(
            "status",
            path="/v1/project",
            times=2,
            after=1,
            status=503,
            body={"x": 1},
            headers={"Retry-After": "7"},
        )
    )
    assert [http.get(path).status_code for path in ("/v1/dataset", "/v1/project")] == [200, 200]
    answer = Http(sandbox.url, "sk-unknown").get("/v1/project")
    assert (answer.status_code, answer.json(), answer.headers["Retry-After"]) == (
        503,
        {"x": 1},
        "7",
    )
    assert [http.get("/v1/project").status_code for _ in range(2)] == [503, 200]
    assert sandbox.faults.hits(fault) == 2


def test_faults_can_choose_an_organization_and_a_method(sandbox: Sandbox, http: Http) -> None:
    sandbox.add_org("globex", api_key="sk-globex")
    sandbox.faults.add(Fault("status", org="globex", method="POST", times=None, status=500))
    assert http.post("/v1/project", {"name": "P"}).status_code == 200
    globex = Http(sandbox.url, "sk-globex")
    assert (globex.get("/v1/project").status_code, globex.post("/v1/project", {}).status_code) == (
        200,
        500,
    )
    sandbox.faults.clear()
    assert globex.post("/v1/project", {"name": "P"}).status_code == 200


def test_large_limits_can_be_made_to_fail(sandbox: Sandbox, http: Http, acme: SandboxOrg) -> None:
    project = acme.create("project", {"name": "P"})["id"]
    sandbox.faults.add(
        Fault("status", path="/btql", times=None, above_limit=250, status=504, body="timeout")
    )
    statuses = [
        http.post(
            "/btql", {"query": "from: project_logs('%s') | limit: %d" % (project, limit)}
        ).status_code
        for limit in (1000, 500, 251, 250)
    ]
    assert statuses == [504, 504, 504, 200]


@pytest.mark.parametrize(
    ("kind", "done"),
    [("reset_before", False), ("reset_after", True), ("truncate", True), ("drop", False)],
)
def test_broken_connections_leave_the_request_done_or_not(
    sandbox: Sandbox, http: Http, acme: SandboxOrg, kind: str, done: bool
) -> None:
    sandbox.faults.add(Fault(kind, seconds=0.05))
    with pytest.raises(requests.RequestException):
        http.post("/v1/project", {"name": "P"})
    assert [project["name"] for project in acme.objects("project")] == (["P"] if done else [])
    assert [(request.changed, request.status) for request in sandbox.requests] == [
        (done, 200 if done else 0)
    ]
    assert http.post("/v1/project", {"name": "P"}).status_code == 200


def test_the_fault_garbage_answers_html_with_status_200(sandbox: Sandbox, http: Http) -> None:
    sandbox.faults.add(Fault("garbage"))
    answer = http.get("/v1/project")
    assert (answer.status_code, answer.headers["Content-Type"], answer.text[:5]) == (
        200,
        "text/html",
        "<!DOC",
    )


def test_a_large_answer_can_be_redirected_to_a_gzip_object(
    sandbox: Sandbox, http: Http, acme: SandboxOrg
) -> None:
    project = acme.create("project", {"name": "P"})["id"]
    acme.insert("project_logs", project, [{"id": "a"}, {"id": "b"}])
    query = {
        "query": (
            f"select: id | from: project_logs('{project}') | sort: _pagination_key asc | limit: 1"
        )
    }
    cursor = http.post("/btql", query).json()["cursor"]
    sandbox.faults.add(Fault("redirect", path="/btql"))
    answer = http.post("/btql", query)
    assert (answer.status_code, answer.headers["x-bt-cursor"], answer.content) == (303, cursor, b"")
    location = answer.headers["Location"]
    assert location.startswith(sandbox.files_url)
    found = requests.get(location)
    assert "Content-Encoding" not in found.headers
    body = json.loads(gzip.decompress(found.content))
    assert (body["data"], "cursor" in body) == ([{"id": "a"}], False)
    assert requests.get(location, headers={"Authorization": "Bearer sk-acme"}).status_code == 400


def test_a_delay_and_latencies_hold_up_only_their_own_request(sandbox: Sandbox, http: Http) -> None:
    sandbox.latency = {"list": 0.1, "default": 0.0}
    started = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        statuses = list(
            pool.map(
                lambda _: Http(sandbox.url, "sk-acme").get("/v1/project").status_code, range(8)
            )
        )
    assert statuses == [200] * 8
    assert time.perf_counter() - started >= 0.1
    assert sandbox.in_flight_max("acme") > 1  # a busy machine does not send all eight in 0.1 s
    sandbox.faults.add(Fault("delay", seconds=0.15))
    started = time.perf_counter()
    assert http.post("/v1/project", {"name": "P"}).status_code == 200
    assert time.perf_counter() - started >= 0.15


def test_the_request_log_names_organization_and_request_and_hides_keys(
    sandbox: Sandbox, http: Http
) -> None:
    http.post("/v1/project", {"name": "P"})
    http.get("/v1/project", limit=1)
    Http(sandbox.url, "sk-secret").get("/v1/project")
    assert [
        (r.number, r.org_name, r.method, r.path, r.status, r.changed, r.body_bytes)
        for r in sandbox.requests
    ] == [
        (1, "acme", "POST", "/v1/project", 200, True, 13),
        (2, "acme", "GET", "/v1/project?limit=1", 200, False, 0),
        (3, "-", "GET", "/v1/project", 401, False, 0),
    ]
    assert [request.headers["Authorization"] for request in sandbox.requests] == [
        "acme",
        "acme",
        "-",
    ]
    assert all(request.started <= request.finished for request in sandbox.requests)
    sandbox.clear_requests()
    assert sandbox.requests == sandbox.writes("acme") == []


def test_a_hook_is_called_before_and_after_each_request(
    sandbox: Sandbox, http: Http, acme: SandboxOrg
) -> None:
    seen: List[Tuple[int, str, str, str, int]] = []
    sandbox.on_request = lambda number, moment, method, path: seen.append(
        (number, moment, method, path, len(acme.objects("project")))
    )
    http.post("/v1/project", {"name": "P"})
    assert seen == [(1, "before", "POST", "/v1/project", 0), (1, "after", "POST", "/v1/project", 1)]


def test_many_clients_at_once_lose_nothing(sandbox: Sandbox, acme: SandboxOrg) -> None:
    project = acme.create("project", {"name": "P"})["id"]

    def work(number: int) -> None:
        client = Http(sandbox.url, "sk-acme")
        for batch in range(5):
            client.insert(
                "project_logs",
                project,
                *({"id": "%d-%d-%d" % (number, batch, i)} for i in range(20)),
            )
            client.create("dataset", project_id=project, name="same")
            client.btql(f"select: * | from: project_logs('{project}') | limit: 5")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    rows = acme.rows("project_logs", project)
    assert (
        len({row["id"] for row in rows})
        == len({row["_pagination_key"] for row in rows})
        == len(rows)
        == 600
    )
    assert [row["_pagination_key"] for row in rows] == sorted(
        row["_pagination_key"] for row in rows
    )
    assert len(acme.objects("dataset")) == 1
    assert (
        len([request for request in sandbox.writes("acme") if request.path == "/v1/dataset"]) == 1
    )


def test_stopping_is_quick_even_with_requests_that_hang(capfd: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    with Sandbox() as sandbox:
        sandbox.add_org("acme", api_key="sk-acme")
        sandbox.faults.add(Fault("drop", seconds=60))

        def hang() -> None:
            with pytest.raises(requests.RequestException):
                Http(sandbox.url, "sk-acme").get("/v1/project")

        client = threading.Thread(target=hang)
        client.start()
        while not sandbox.in_flight_max("acme"):
            time.sleep(0.01)
        started = time.perf_counter()
    assert time.perf_counter() - started < 30
    client.join()
    assert threading.active_count() == before
    assert capfd.readouterr() == ("", "")


def test_fault_and_latency_texts_are_read() -> None:
    fault = fault_of_text(
        "status,status=429,path=/btql,times=always,after=2,Retry-After=2,body=slow down"
    )
    assert (fault.kind, fault.path, fault.times, fault.after) == ("status", "/btql", None, 2)
    assert fault.details == {"status": 429, "body": "slow down", "headers": {"Retry-After": "2"}}
    assert fault_of_text("delay,seconds=0.5").details == {"seconds": 0.5}
    assert pairs_of_text("btql=0.15,insert=1") == {"btql": 0.15, "insert": 1.0}
    for wrong in ("explode", "status,429"):
        with pytest.raises(ValueError, match="fault"):
            fault_of_text(wrong)


def start(*arguments: str) -> Tuple[subprocess.Popen[str], Dict[str, str]]:
    """A sandbox in a process of its own, and the settings that it printed."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    command = [sys.executable, "-m", "bt_migrate.sandbox", *arguments]
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        universal_newlines=True,
    )
    settings: Dict[str, str] = {}
    assert process.stdout is not None
    for line in process.stdout:
        name, sign, value = line.strip().lstrip("# ").partition("=")
        if sign:
            settings[name] = value
        if name == "SANDBOX_CONTROL_TOKEN":
            break
    return process, settings


def test_as_a_process_it_prints_settings_obeys_control_and_ends_with_0() -> None:
    process, settings = start(
        "--example",
        "--latency",
        "get=0.01",
        "--fault",
        "status,status=429,path=/v1/project,Retry-After=3",
    )
    try:
        source = Http(settings["BT_SOURCE_URL"], settings["BT_SOURCE_API_KEY"])
        dest = Http(settings["BT_DEST_URL"], settings["BT_DEST_API_KEY"])
        refused = source.get("/v1/project")
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "3")
        assert (len(source.names("/v1/project")) > 1, dest.names("/v1/project")) == (True, [])
        token = settings["SANDBOX_CONTROL_TOKEN"]
        faults = [{"kind": "garbage", "path": "/v1/role"}]
        control = {"token": token, "faults": faults, "get": ["counters"]}
        counters = source.post("/sandbox/control", control).json()["counters"]
        assert (counters["requests"], counters["writes"], counters["fault_hits"]) == (
            3,
            {"source": 0, "destination": 0},
            [1, 0],
        )
        assert source.get("/v1/role").text.startswith("<!DOCTYPE")
        limits = {
            "token": token,
            "set": {"btql_per_minute": 0, "latency": {}},
            "clear_faults": True,
        }
        assert source.post("/sandbox/control", limits).json() == {}
        project = source.get("/v1/project").json()["objects"][0]["id"]
        assert (
            source.post("/btql", {"query": f"from: project_logs('{project}')"}).status_code == 429
        )
        assert source.post("/sandbox/control", {"token": "guess"}).status_code == 403
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=TIME_LIMIT_S) == 0
