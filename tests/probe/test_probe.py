"""The self-check against the sandbox: as recorded, older, and with one assumption broken."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import pytest

import bt_migrate
import bt_migrate.sandbox.routes.table as routes
from bt_migrate.api.client import Api
from bt_migrate.api.organization import connect
from bt_migrate.api.request import Endpoint, Limits
from bt_migrate.errors import ApiError, Interrupted, NetworkError
from bt_migrate.probe.assumption import BROKEN, DIFFERS, HOLDS, NOT_TRIED
from bt_migrate.probe.assumptions import ASSUMPTIONS
from bt_migrate.probe.run import exit_code, probe, probe_reading, record, report_lines
from bt_migrate.probe.scratch import scratch_project
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.data.behaviour import older, recorded
from bt_migrate.sandbox.http.faults import Fault
from bt_migrate.sandbox.http.server import Incoming, Sandbox, SandboxOrg
from tests.support.orgs import TIME_LIMIT_S, AtRequest, Ended

KEY = "sk-probe-1f2e3d"
LIMITS = Limits(attempts=1, delay_s=0.01, max_concurrent=1)


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


def api_of(sandbox: Sandbox, *, writable: bool = True) -> Api:
    api = Api(Endpoint("destination", sandbox.url, KEY), LIMITS, writable=writable)
    connect(api, "", "BT_DEST")
    return api


def states(sandbox: Sandbox) -> Dict[str, str]:
    results = probe(api_of(sandbox), api_of(sandbox), patience_s=0.6)
    return {assumption.name: seen.state for assumption, seen in results}


def contents(org: SandboxOrg) -> List[Any]:
    return [org.objects(kind) for kind in ("project", "dataset", "group", "role")]


def test_all_assumptions_hold_on_a_server_that_behaves_as_recorded(
    sandbox: Sandbox, org: SandboxOrg
) -> None:
    before = contents(org)
    results = probe(api_of(sandbox), api_of(sandbox))
    assert "\n".join(f"{b.name}: {s.text}" for b, s in results if s.state != HOLDS) == ""
    assert exit_code(results) == 0
    assert contents(org) == before


OLDER_DIFFERS = {
    "cursors_reach_every_row",
    "plain_rows_have_upserts_only",
    "slugs_are_versions",
    "experiments_are_found",
    "logs3_names_its_transaction",
    "views_and_their_user",
    "datasets_have_tags",
    "facets_are_shown",
    "groups_show_their_members",
    "limits_above_1000",
}


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

Change = Callable[[Any, Incoming], Any]


class Breaking:
    """Set as `sandbox.intercept`: changes requests that match, or their answers."""

    def __init__(
        self,
        sandbox: Sandbox,
        path: str,
        *,
        body: Optional[Callable[[str], str]] = None,
        answer: Optional[Change] = None,
        headers: Tuple[str, ...] = (),
        method: str = "POST",
    ) -> None:
        self.sandbox = sandbox
        self.path = re.compile(path)
        self.body, self.answer, self.headers, self.method = body, answer, headers, method

    def __call__(self, request: Incoming) -> Optional[Answer]:
        if request.method != self.method or not self.path.search(request.path):
            return None
        if self.body is not None:
            request.body = self.body(request.body.decode()).encode()
        found = routes.answer(
            self.sandbox.api, request.method, request.path, request.headers, request.body
        )
        if found.status == 200 and self.answer is not None:
            assert isinstance(found.body, bytes)
            value = self.answer(json.loads(found.body), request)
            found.body = json.dumps(value).encode()
        for name in self.headers:
            found.headers.pop(name, None)
        return found


def without_last(value: Any, _: Any) -> Any:
    return {**value, "row_ids": value["row_ids"][:-1]}


def another_id_each_time(text: str) -> str:
    return text.replace('"id":"a"', f'"id":"a{uuid.uuid4()}"')


def rows(change: Callable[[Dict[str, Any]], None]) -> Change:
    """Changes each row of the answer of a query."""

    def changed(value: Any, _: Any) -> Any:
        for row in value["data"]:
            change(row)
        return value

    return changed


def moving_key(row: Dict[str, Any]) -> None:
    if row.get("input") == "second":
        row["_pagination_key"] = "p%020d" % (int(row["_pagination_key"][1:]) + 1)


def without_microseconds(row: Dict[str, Any]) -> None:
    if "created" in row:
        row["created"] = row["created"][:19] + "Z"


def without_comments(row: Dict[str, Any]) -> None:
    row["comments"] = None


def unsorted(value: Any, request: Incoming) -> Any:
    if b"limit: 100" in request.body and len(value["data"]) == 5:
        value["data"][0], value["data"][1] = value["data"][1], value["data"][0]
    return value


def no_filter(text: str) -> str:
    return re.sub(r"filter: _pagination_key[^\\]*(\\\\.[^\\]*)*?\\n", "", text)


def doubled_counts(value: Any, request: Incoming) -> Any:
    for row in value["data"]:
        if "rows" in row and "ids" in row:
            row["rows"] *= 2
    return value


RETENTION = {"event_type": "retention", "object_type": "project_logs", "retention_days": 9}
SAFETY = {assumption.name for assumption in ASSUMPTIONS if assumption.safety}

BROKEN_BY: Dict[str, Callable[[Sandbox], Breaking]] = {
    "row_ids_in_order": lambda s: Breaking(s, "/insert$", answer=without_last),
    "rows_upsert_by_id": lambda s: Breaking(s, "/insert$", body=another_id_each_time),
    "rows_keep_key_and_created": lambda s: Breaking(s, "/btql", answer=rows(moving_key)),
    "rows_keep_what_is_sent": lambda s: Breaking(s, "/btql", answer=rows(without_microseconds)),
    "merges_keep_other_fields": lambda s: Breaking(
        s, "/insert$", body=lambda text: text.replace('"_is_merge":true', '"_is_merge":false')
    ),
    "comments_are_kept": lambda s: Breaking(s, "/btql", answer=rows(without_comments)),
    "keys_sort_by_insertion": lambda s: Breaking(s, "/btql", answer=unsorted),
    "key_bounds_cut_pages": lambda s: Breaking(s, "/btql", body=no_filter),
    "literals_are_escaped": lambda s: Breaking(
        s, "/btql", body=lambda text: text.replace("\\\\'", "") if "filter: id = " in text else text
    ),
    "lists_of_ids_work": lambda s: Breaking(
        s, "/btql", body=lambda text: re.sub(r"id in \['a', ", "id in [", text)
    ),
    "transactions_compare": lambda s: Breaking(
        s, "/btql", body=lambda text: re.sub(r"_xact_id > '\d+'", "_xact_id > '1'", text)
    ),
    "aggregates_count": lambda s: Breaking(s, "/btql", answer=doubled_counts),
    "names_are_found": lambda s: Breaking(s, "/v1/dataset$", headers=("x-bt-found-existing",)),
    "experiments_are_found": lambda s: Breaking(
        s, "/v1/experiment$", body=lambda text: text[:-1] + ',"ensure_new":true}'
    ),
    "slugs_are_versions": lambda s: Breaking(
        s,
        "/v1/prompt$",
        body=lambda text: text.replace("versions", f"versions{text.count('new')}"),
    ),
    "versions_are_read": lambda s: Breaking(
        s,
        "version=",
        method="GET",
        answer=lambda value, _: {**value, "prompt_data": {"prompt": {"content": "new"}}},
    ),
    "patch_keeps_other_fields": lambda s: Breaking(
        s,
        "/v1/dataset/",
        method="PATCH",
        body=lambda text: text[:-1] + ',"description":""}',
    ),
    "put_keeps_the_id": lambda s: Breaking(
        s,
        "/v1/prompt$",
        method="PUT",
        body=lambda text: text.replace('"slug":"put"', '"slug":"another"'),
    ),
    "views_and_their_user": lambda s: Breaking(
        s, "/v1/view", method="GET", answer=lambda value, _: {"objects": []}
    ),
    "lists_page_by_last_id": lambda s: Breaking(
        s,
        "/v1/experiment",
        method="GET",
        answer=lambda value, _: {"objects": value["objects"][:1] + value["objects"][2:]},
    ),
    "deleted_objects_are_gone": lambda s: Breaking(
        s, "/v1/dataset/", method="DELETE", answer=lambda value, _: value
    ),
    "rows_are_deleted": lambda s: Breaking(
        s, "/logs3", body=lambda text: text.replace('"_object_delete":true', '"input":1')
    ),
    "groups_show_their_members": lambda s: Breaking(
        s, "/v1/group/", method="GET", answer=lambda value, _: {**value, "member_groups": []}
    ),
    "roles_keep_their_permissions": lambda s: Breaking(
        s,
        "/v1/role$",
        body=lambda text: text.replace('"permission":"read"', '"permission":"update"'),
    ),
    "automations_are_kept": lambda s: Breaking(
        s,
        "/v1/project_automation/",
        method="PATCH",
        body=lambda text: text[:-1] + ',"config":' + json.dumps(RETENTION) + "}",
    ),
    "settings_are_replaced": lambda s: Breaking(
        s, "/v1/project/", method="PATCH", body=lambda text: "{}"
    ),
    "attachments_keep_their_bytes": lambda s: Breaking(
        s, "/attachment/status", body=lambda text: text.replace('"done"', '"uploading"')
    ),
    "existing_objects_are_returned": lambda s: Breaking(
        s,
        "/v1/project_tag$",
        body=lambda text: text.replace('"twice"', f'"twice {uuid.uuid4()}"'),
    ),
    "earlier_versions_are_listed": lambda s: Breaking(
        s, "/btql", body=lambda text: text.replace('"audit_log":true', '"audit_log":false')
    ),
    "projects_are_listed": lambda s: Breaking(
        s,
        r"/v1/project(\?|$)",
        method="GET",
        answer=lambda value, _: {"objects": value["objects"] * 2},
    ),
    "queries_answer_rows": lambda s: Breaking(
        s,
        "/btql",
        answer=rows(lambda row: row.pop("root_span_id", None) if "log_id" in row else None),
    ),
}


@pytest.mark.parametrize("name", sorted(BROKEN_BY))
def test_a_broken_assumption_is_named(name: str, sandbox: Sandbox, org: SandboxOrg) -> None:
    sandbox.intercept = BROKEN_BY[name](sandbox)
    if name == "deleted_objects_are_gone":
        sandbox.intercept = ignore_deletes
    results = probe(api_of(sandbox), api_of(sandbox), patience_s=0.6)
    found = [assumption.name for assumption, seen in results if seen.state == BROKEN]
    assert name in found
    assert exit_code(results) == (1 if name in SAFETY else 0)
    assert f"BROKEN    {name}" in "\n".join(report_lines(results))
    alone = name not in ALSO_BREAKS_OTHERS
    assert found == [name] if alone else len(found) > 1, found


# A server that does this breaks other assumptions too.
ALSO_BREAKS_OTHERS = {"rows_upsert_by_id", "keys_sort_by_insertion"}


def ignore_deletes(request: Incoming) -> Optional[Answer]:
    is_dataset = request.method == "DELETE" and "/v1/dataset/" in request.path
    return Answer(200, b"{}") if is_dataset else None


DIFFERS_BY: Dict[str, Callable[[Sandbox], Any]] = {
    "acls_are_listed": lambda s: Breaking(
        s, "/v1/acl/list_org", method="GET", answer=lambda value, _: {"objects": value}
    ),
    "built_in_roles_belong_to_nobody": lambda s: Breaking(
        s, "/v1/role", method="GET", answer=lambda value, _: {"objects": []}
    ),
    "ping_is_not_there": lambda s: answer_ping,
    "whole_numbers_keep_their_fraction": lambda s: Breaking(
        s, "/btql", answer=rows(lambda row: row.update(input=1))
    ),
    "transactions_tell_time": lambda s: Breaking(
        s, "/btql", answer=rows(lambda row: row.update(_xact_id="1000196055780607558"))
    ),
    "several_objects_in_one_query": lambda s: Breaking(
        s, "/btql", body=lambda text: re.sub(r"(dataset\('[^']*'), '[^']*'", r"\1", text)
    ),
    "slugs_of_prompts_and_functions": lambda s: Breaking(
        s, "/v1/function$", answer=lambda value, _: {**value, "id": str(uuid.uuid4())}
    ),
    "unknown_fields_are_refused": lambda s: Breaking(
        s, "/v1/dataset$", body=lambda text: text.replace(',"no_such_field":1', "")
    ),
    "unknown_references_are_refused": lambda s: Breaking(
        s, "/v1/experiment$", body=lambda text: re.sub(',"dataset_id":"[^"]*"', "", text)
    ),
}


def answer_ping(request: Incoming) -> Optional[Answer]:
    return Answer(200, b"{}") if request.path == "/ping" else None


@pytest.mark.parametrize("name", sorted(DIFFERS_BY))
def test_another_behaviour_that_does_no_harm_is_seen(
    name: str, sandbox: Sandbox, org: SandboxOrg
) -> None:
    (assumption,) = [one for one in ASSUMPTIONS if one.name == name]
    assert not assumption.safety
    with scratch_project(api_of(sandbox), api_of(sandbox), 0.6) as scratch:
        assert assumption.check(scratch).state == HOLDS
    sandbox.intercept = DIFFERS_BY[name](sandbox)
    with scratch_project(api_of(sandbox), api_of(sandbox), 0.6) as scratch:
        assert assumption.check(scratch).state == DIFFERS


@pytest.mark.long
def test_rows_that_are_never_shown_are_a_broken_assumption(
    sandbox: Sandbox, org: SandboxOrg
) -> None:
    sandbox.indexing_lag = 3600.0
    found = states(sandbox)
    assert found["fresh_rows_are_shown"] == BROKEN


def test_every_assumption_is_broken_in_a_test() -> None:
    """Those that neither fault breaks differ on an older data plane, or need --long."""
    assert {one.name for one in ASSUMPTIONS} - {*BROKEN_BY, *DIFFERS_BY, *OLDER_DIFFERS} == {
        "fresh_rows_are_shown"
    }
    assert SAFETY - set(BROKEN_BY) == {"fresh_rows_are_shown"}


def test_each_assumption_is_named_where_the_code_relies_on_it_and_nowhere_else() -> None:
    """`# assumption: name, name` in a module, and the table: both name the same places."""
    package = Path(bt_migrate.__file__).parent
    marked = {
        (".".join(path.relative_to(package).with_suffix("").parts), name)
        for path in package.rglob("*.py")
        for names in re.findall(r"^ *# assumption: (.+)$", path.read_text(encoding="utf-8"), re.M)
        for name in names.split(", ")
    }
    assert marked == {
        (module, assumption.name) for assumption in ASSUMPTIONS for module in assumption.used_in
    }
    assert [assumption.name for assumption in ASSUMPTIONS if not assumption.used_in] == []
    names = [assumption.name for assumption in ASSUMPTIONS]
    assert len(names) == len(set(names))


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


def test_a_key_that_may_not_write_is_told_what_to_do(
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
