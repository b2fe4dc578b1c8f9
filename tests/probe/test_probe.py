"""The self-check against the sandbox, as recorded and older; its program, and what it leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import List, Optional

import pytest

import bt_migrate.sandbox.routes.table as routes
from bt_migrate.api.client import Api
from bt_migrate.api.organization import connect
from bt_migrate.api.request import Endpoint
from bt_migrate.errors import ApiError, Interrupted, NetworkError
from bt_migrate.probe.assumption import BROKEN, DIFFERS, HOLDS, NOT_TRIED
from bt_migrate.probe.assumptions import ASSUMPTIONS
from bt_migrate.probe.run import exit_code, probe, probe_reading, record, report_lines
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.behaviour import older
from bt_migrate.sandbox.http.faults import Fault
from bt_migrate.sandbox.http.server import Incoming, Sandbox, SandboxOrg
from tests.support.orgs import TIME_LIMIT_S, AtRequest, Ended
from tests.support.probing import KEY, LIMITS, OLDER_DIFFERS, api_of, contents, states


def test_all_assumptions_hold_on_a_server_that_behaves_as_recorded(
    sandbox: Sandbox, org: SandboxOrg
) -> None:
    before = contents(org)
    results = probe(api_of(sandbox), api_of(sandbox))
    assert "\n".join(f"{b.name}: {s.text}" for b, s in results if s.state != HOLDS) == ""
    assert exit_code(results) == 0
    assert contents(org) == before


def test_an_older_data_plane_differs_without_breaking_an_assumption(
    sandbox: Sandbox, org: SandboxOrg
) -> None:
    sandbox.store.behaviour = older()
    sandbox.btql_limit_cap = None
    found = states(sandbox)
    assert {name for name, state in found.items() if state == DIFFERS} == OLDER_DIFFERS
    assert [name for name, state in found.items() if state == BROKEN] == []


def test_a_report_fits_80_columns_and_names_no_harm_where_a_migration_handles_the_behaviour(
    sandbox: Sandbox, org: SandboxOrg
) -> None:
    sandbox.store.behaviour = older()
    results = probe(api_of(sandbox), api_of(sandbox), patience_s=0.6)
    lines = report_lines(results)
    assert max(map(len, lines)) <= 80
    printed = "\n".join(" ".join(line.split()) for line in lines)
    harmless = [b for b, seen in results if b.safety and seen.state == DIFFERS]
    assert harmless != []
    assert [b.name for b in harmless if b.meaning in printed] == []
    assert printed.count("meaning: nothing: a migration handles both") == len(harmless)


def test_a_read_only_probe_of_an_organization_without_logs_says_nothing_about_rows(
    sandbox: Sandbox, org: SandboxOrg
) -> None:
    for project in org.objects("project"):
        org.delete("project", project["id"])
    found = {b.name: seen.state for b, seen in probe_reading(api_of(sandbox, writable=False))}
    assert found["queries_answer_rows"] == NOT_TRIED


def test_a_read_only_probe_writes_nothing(sandbox: Sandbox, org: SandboxOrg) -> None:
    results = probe_reading(api_of(sandbox, writable=False))
    tried = [assumption.name for assumption, seen in results if seen.state == HOLDS]
    assert tried == [assumption.name for assumption in ASSUMPTIONS if assumption.reads_only]
    assert {seen.state for _, seen in results} == {HOLDS, NOT_TRIED}
    assert sandbox.writes("acme") == []
    lines = report_lines(results)
    text = " ".join(" ".join(lines).split())
    assert (text.count("needs a scratch project"), max(map(len, lines)) <= 80) == (1, True)
    assert all(assumption.name in text for assumption in ASSUMPTIONS)
    assert text.endswith("speaks against a migration; without --read-only, the rest is tried")


# -- one assumption broken at a time


def test_the_record_holds_no_key_name_id_or_address(sandbox: Sandbox, org: SandboxOrg) -> None:
    sandbox.faults.add(Fault("status", path="/v1/experiment", times=None, status=400, body=org.id))
    text = json.dumps(record(probe(api_of(sandbox), api_of(sandbox), patience_s=0.6)))
    secrets = (KEY, "acme", org.id, "Precious", "private", "ann@", sandbox.url)
    assert [secret for secret in secrets if secret in text] == []


# -- the program


def start_program(sandbox: Sandbox, folder: Path, *args: str) -> subprocess.Popen[str]:
    env = {
        **os.environ,
        "BT_DEST_API_KEY": KEY,
        "BT_DEST_URL": sandbox.url,
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent.parent),
    }
    command: List[str] = [sys.executable, "-m", "bt_migrate.phases.probe", *args]
    return subprocess.Popen(
        command,
        env=env,
        cwd=str(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_program(sandbox: Sandbox, folder: Path, *args: str) -> Ended:
    process = start_program(sandbox, folder, *args)
    out, err = process.communicate(timeout=TIME_LIMIT_S)
    return Ended(process.returncode, out, err)


def test_the_program_needs_one_key_and_a_yes(
    sandbox: Sandbox, org: SandboxOrg, tmp_path: Path
) -> None:
    asked = run_program(sandbox, tmp_path)
    assert (asked.code, "add --yes, or --read-only" in asked.err) == (2, True)
    assert sandbox.writes("acme") == []
    done = run_program(sandbox, tmp_path, "--yes")
    assert (done.code, len(done.err.splitlines())) == (0, 1)
    number = len(ASSUMPTIONS)
    last = f"{number} assumptions: {number} hold; the server behaves as a migration expects"
    assert done.out.splitlines()[-1] == last
    reading = run_program(sandbox, tmp_path, "--read-only", "--json")
    states_read = {item["state"] for item in json.loads(reading.out)["assumptions"]}
    assert (reading.code, states_read) == (0, {HOLDS, NOT_TRIED})


def test_a_key_that_may_not_write_ends_with_what_to_do(
    sandbox: Sandbox, org: SandboxOrg, tmp_path: Path
) -> None:
    text = "Missing create access to org acme [user_email=ann@acme.example] [user_org=acme]"
    sandbox.faults.add(Fault("status", path="^/v1/project$", times=None, status=400, body=text))
    done = run_program(sandbox, tmp_path, "--yes", "--json")
    assert (done.code, done.out) == (2, "")
    assert "may not create a project (400); use a key that may write, or --read-only" in done.err
    assert "acme" not in done.err


def test_an_interrupted_program_says_that_it_left_nothing(
    sandbox: Sandbox, org: SandboxOrg, tmp_path: Path
) -> None:
    before = contents(org)
    at_request = AtRequest(9, "before", lambda: process.send_signal(signal.SIGINT))
    sandbox.on_request = at_request
    process = start_program(sandbox, tmp_path, "--yes")
    _, said = process.communicate(timeout=TIME_LIMIT_S)
    last = "bt_migrate: interrupted; everything that was created is deleted again"
    assert (process.returncode, said.splitlines()[-1]) == (130, last)
    assert contents(org) == before


@pytest.mark.parametrize("path", ["/insert$", "/v1/group$", "/v1/role$", "/v1/project$"])
def test_an_interrupted_probe_deletes_everything_that_it_created(
    path: str, sandbox: Sandbox, org: SandboxOrg
) -> None:
    """The answer to the request is lost too: what it made is found by its name."""
    before = contents(org)
    stop = threading.Event()

    def interrupt(request: Incoming) -> Optional[Answer]:
        if request.method != "POST" or not re.search(path, request.path):
            return None
        stop.set()
        routes.answer(sandbox.api, "POST", request.path, request.headers, request.body)
        return Answer(502, b"lost")

    sandbox.intercept = interrupt
    api = Api(Endpoint("destination", sandbox.url, KEY), LIMITS, writable=True, stop=stop)
    connect(api, "", "BT_DEST")
    with pytest.raises((Interrupted, ApiError)):
        probe(api, api_of(sandbox), patience_s=5)
    assert contents(org) == before


def test_each_object_outside_of_the_scratch_project_is_deleted_even_if_another_cannot_be(
    sandbox: Sandbox, org: SandboxOrg
) -> None:
    before = contents(org)[2:]
    sandbox.faults.add(Fault("status", method="DELETE", path="/v1/role/", status=403, times=2))
    with pytest.raises(NetworkError, match="^role 'bt_migrate probe .* delete it by hand"):
        probe(api_of(sandbox), api_of(sandbox), patience_s=0.6)
    groups, roles = contents(org)[2:4]
    assert (groups, len(roles)) == (before[0], len(before[1]) + 1)


def test_a_scratch_project_that_cannot_be_deleted_is_named(
    sandbox: Sandbox, org: SandboxOrg
) -> None:
    sandbox.faults.add(
        Fault("status", method="DELETE", path="/v1/project/", status=403, times=None)
    )
    with pytest.raises(NetworkError, match="'bt_migrate probe .* delete it by hand"):
        probe(api_of(sandbox), api_of(sandbox), patience_s=0.6)
