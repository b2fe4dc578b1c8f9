"""The self-check against a sandbox with one assumption broken, or harmlessly different."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

import pytest

import bt_migrate
import bt_migrate.sandbox.routes.table as routes
from bt_migrate.probe.assumption import BROKEN, DIFFERS, HOLDS
from bt_migrate.probe.assumptions import ASSUMPTIONS
from bt_migrate.probe.run import exit_code, probe, report_lines
from bt_migrate.probe.scratch import scratch_project
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Incoming, Sandbox, SandboxOrg
from tests.support.probing import OLDER_DIFFERS, api_of, states

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
@pytest.mark.variants(4)
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
