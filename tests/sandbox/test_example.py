"""The example organization: the same for a seed, complete, and in no useful order."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Dict, List

import pytest

from bt_migrate.sandbox.data.schema import KINDS
from bt_migrate.sandbox.example import fill as example
from bt_migrate.sandbox.example import values as example_values

if TYPE_CHECKING:
    from bt_migrate.sandbox.http.server import Sandbox

# kind of row -> kind of the object that holds them
HOLDERS = {"project_logs": "project", "experiment": "experiment", "dataset": "dataset"}
# What the API can make; the example has one of each, and of users what `add_org` is given.
MADE = sorted(name for name, kind in KINDS.items() if kind.post)


def filled(sandbox: Sandbox, name: str, **options: int) -> Any:
    org = sandbox.add_org(name, api_key="sk-" + name, users=example.SOURCE_USERS)
    example.fill_example(org, **options)
    return org


def own(org: Any, kind: str) -> List[Dict[str, Any]]:
    """The objects of a kind without those that every organization has."""
    return [item for item in org.objects(kind) if kind != "role" or item["org_id"] is not None]


def names(org: Any) -> Dict[str, List[str]]:
    return {kind: [item.get("name", "") for item in own(org, kind)] for kind in MADE}


def row_ids(org: Any) -> Dict[str, List[List[str]]]:
    return {
        kind: [[row["id"] for row in org.rows(kind, item["id"])] for item in org.objects(holder)]
        for kind, holder in HOLDERS.items()
    }


def log_row_count(org: Any) -> int:
    return sum(len(org.rows("project_logs", project["id"])) for project in org.objects("project"))


def is_in_order(items: List[Dict[str, Any]], field: str) -> bool:
    """Whether each object comes after all those of the list that its `field` names."""
    listed = [item["id"] for item in items]
    seen: List[str] = []
    for item in items:
        wanted = item[field] if isinstance(item[field], list) else [item[field]]
        if any(other in listed and other not in seen for other in wanted):
            return False
        seen.append(item["id"])
    return True


def test_the_same_seed_gives_the_same_names_and_rows(sandbox: Sandbox) -> None:
    first, second = filled(sandbox, "first", rows=700), filled(sandbox, "second", rows=700)
    assert names(first) == names(second)
    assert row_ids(first) == row_ids(second)


def test_another_seed_gives_other_rows_and_the_same_names(sandbox: Sandbox) -> None:
    first, second = filled(sandbox, "first", rows=700), filled(sandbox, "second", rows=700, seed=8)
    assert names(first) == names(second)
    assert row_ids(first) != row_ids(second)


def test_every_kind_that_the_api_can_make_is_there(sandbox: Sandbox) -> None:
    org = filled(sandbox, "acme", rows=600)
    missing = [kind for kind in MADE if not own(org, kind)]
    assert [kind for kind in missing if not KINDS[kind].is_later] == []


def test_the_example_has_as_many_log_rows_as_requested_and_takes_five_seconds_of_cpu_time(
    sandbox: Sandbox,
) -> None:
    started = time.process_time()
    org = filled(sandbox, "acme")
    assert time.process_time() - started < 5
    assert log_row_count(org) == 3000


@pytest.mark.parametrize(
    ("kind", "field"),
    [("role", "member_roles"), ("group", "member_groups"), ("experiment", "base_exp_id")],
)
def test_neither_oldest_nor_newest_first_is_an_order_of_dependency(
    sandbox: Sandbox, kind: str, field: str
) -> None:
    items = own(filled(sandbox, "acme", rows=600), kind)
    items = [dict(item, **{field: item[field] or []}) for item in items]
    assert [is_in_order(items, field), is_in_order(items[::-1], field)] == [False, False]


def test_no_mark_is_left_unresolved(sandbox: Sandbox) -> None:
    org = filled(sandbox, "acme", rows=600)
    objects = [item for kind in MADE for item in org.objects(kind)]
    rows = [
        row
        for kind, holder in HOLDERS.items()
        for item in org.objects(holder)
        for row in org.rows(kind, item["id"])
    ]
    assert "«" not in json.dumps([objects, rows], ensure_ascii=False)


def test_awkward_values_are_kept_by_the_sandbox_exactly(sandbox: Sandbox) -> None:
    org = filled(sandbox, "acme", rows=600)
    support = org.objects("project")[0]["id"]
    inputs = {row["id"]: row["input"] for row in org.rows("project_logs", support)}
    plain = [(row_id, value) for row_id, value in example_values.AWKWARD if "«" not in str(value)]
    assert [(row_id, repr(inputs[row_id])) for row_id, _ in plain] == [
        (row_id, repr(value)) for row_id, value in plain
    ]


def test_the_destination_has_some_of_the_users_and_nothing_else(sandbox: Sandbox) -> None:
    org = sandbox.add_org("globex", api_key="sk-globex", users=example.DEST_USERS)
    example.fill_destination(org)
    shared = {user["email"] for user in example.SOURCE_USERS} & {
        user["email"] for user in org.objects("user")
    }
    assert (len(shared), {kind: own(org, kind) for kind in MADE}) == (
        3,
        {kind: [] for kind in MADE},
    )


def test_another_organization_is_refused_as_the_destination(sandbox: Sandbox) -> None:
    org = sandbox.add_org("acme", api_key="sk-acme", users=example.SOURCE_USERS)
    with pytest.raises(ValueError, match="DEST_USERS"):
        example.fill_destination(org)
