"""References that cannot be resolved: what the source lost, what comes later, what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import (
    ANA,
    BEN,
    DEST_KEY,
    SOURCE_KEY,
    Pair,
    WatchedSandbox,
    findings,
    report,
    run,
)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """One project on the source; Ben is not a member of the destination. A view without a user
    belongs to the caller.
    """
    with WatchedSandbox() as sandbox:
        sandbox.behaviour.views_belong_to_caller = True
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[{"email": ANA}, {"email": BEN}])
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=[{"email": ANA}])
        source.create("project", {"name": "alpha"})
        yield Pair(sandbox, source, dest)


def user(org: Any, email: str) -> str:
    return str(next(obj["id"] for obj in org.objects("user") if obj["email"] == email))


def project(org: Any) -> str:
    return str(org.objects("project")[0]["id"])


def invite(pair: Pair, email: str) -> None:
    store = pair.sandbox.store
    with store.lock:
        store.add_user(store.orgs[pair.dest.id], {"email": email})


def add_view(org: Any, **fields: Any) -> None:
    owner = {"object_type": "project", "object_id": project(org)}
    org.create("view", {**owner, "view_type": "logs", "name": "mine", **fields})


def kinds_of_findings(root: Path) -> List[str]:
    return sorted(finding["kind"] for finding in report(root)["findings"])


def test_a_view_of_a_user_without_counterpart_belongs_to_the_caller_and_is_equal(
    pair: Pair, tmp_path: Path
) -> None:
    add_view(pair.source, user_id=user(pair.source, BEN))
    root = tmp_path / "state"
    for _ in range(2):
        done = run(pair.sandbox, root, "--verify")
        assert done.code == 0, done.out + done.err
    verification = report(root)["verification"]
    assert verification["kinds"]["views"]["outcomes"] == {"match": 1}
    assert verification["tolerated"]["left_out"] >= 1
    again = tmp_path / "sync"
    for number in range(4):
        done = run(pair.sandbox, again, "--since-last")
        assert done.code == 0, f"{number}: {done.out}{done.err}"


def test_a_view_without_a_user_belongs_to_the_caller_and_is_equal(
    pair: Pair, tmp_path: Path
) -> None:
    pair.sandbox.behaviour.views_belong_to_caller = False
    add_view(pair.source)
    pair.sandbox.behaviour.views_belong_to_caller = True
    for options in (["--verify"], ["--verify"], ["--since-last"]):
        done = run(pair.sandbox, tmp_path / "state", *options)
        assert done.code == 0, done.out + done.err
    users = [[obj["user_id"] for obj in org.objects("view")] for org in (pair.source, pair.dest)]
    assert users == [[None], [user(pair.dest, ANA)]]


def test_a_user_who_is_invited_later_is_added_by_the_same_command(
    pair: Pair, tmp_path: Path
) -> None:
    add_view(pair.source, user_id=user(pair.source, BEN))
    pair.source.create("group", {"name": "people", "member_users": [user(pair.source, BEN)]})
    root = tmp_path / "state"
    assert run(pair.sandbox, root, "--verify").code == 0
    invite(pair, BEN)
    done = run(pair.sandbox, root, "--verify")
    assert done.code == 0, done.out + done.err
    ben = user(pair.dest, BEN)
    assert [obj["user_id"] for obj in pair.dest.objects("view")] == [ben]
    assert [item["member_users"] for item in pair.dest.objects("group")] == [[ben]]


def test_a_user_who_is_invited_between_two_syncs_is_added(pair: Pair, tmp_path: Path) -> None:
    add_view(pair.source, user_id=user(pair.source, BEN))
    root = tmp_path / "state"
    assert run(pair.sandbox, root, "--since-last").code == 0
    invite(pair, BEN)
    done = run(pair.sandbox, root, "--since-last")
    assert done.code == 0, done.out + done.err
    assert [obj["user_id"] for obj in pair.dest.objects("view")] == [user(pair.dest, BEN)]


def test_objects_that_somebody_changed_meanwhile_are_kept_and_reported(
    pair: Pair, tmp_path: Path
) -> None:
    add_view(pair.source, user_id=user(pair.source, BEN))
    root = tmp_path / "state"
    assert run(pair.sandbox, root).code == 0
    invite(pair, BEN)
    view = pair.dest.objects("view")[0]
    owner = {name: view[name] for name in ("object_type", "object_id")}
    pair.dest.patch("view", view["id"], {**owner, "options": {"viewType": "table"}})
    done = run(pair.sandbox, root)
    assert done.code == 1
    assert report(root)["problems"][0]["reason"].startswith("changed at the destination")
    assert pair.dest.objects("view")[0]["options"] == {"viewType": "table"}


def test_a_reference_that_dangles_in_the_source_is_a_loss(pair: Pair, tmp_path: Path) -> None:
    alpha = project(pair.source)
    dataset = pair.source.create("dataset", {"project_id": alpha, "name": "gone"})["id"]
    fields = {"project_id": alpha, "name": "orphan", "dataset_id": dataset}
    pair.source.create("experiment", fields)
    pair.source.delete("dataset", dataset)
    root = tmp_path / "state"
    for _ in range(2):
        done = run(pair.sandbox, root, "--verify")
        assert done.code == 0, done.out + done.err
    lost = findings(root, "lost_at_source")
    assert [(item["name"], item["path"], item["severity"]) for item in lost] == [
        ("orphan", "dataset_id", "loss")
    ]


def fill_for_phases(org: Any) -> Dict[str, str]:
    alpha = project(org)
    experiment = org.create("experiment", {"project_id": alpha, "name": "first"})["id"]
    group = org.create("group", {"name": "people"})["id"]
    org.create(
        "view",
        {
            "object_type": "experiment",
            "object_id": experiment,
            "view_type": "experiment",
            "name": "v",
        },
    )
    org.create(
        "acl",
        {
            "object_type": "experiment",
            "object_id": experiment,
            "group_id": group,
            "permission": "read",
        },
    )
    return {"experiment": experiment, "group": group}


@pytest.mark.parametrize("phase, kind", [("migrate_views", "view"), ("migrate_acls", "acl")])
@pytest.mark.variants(1)
def test_a_waiting_reference_is_reported_and_completed_by_the_same_command(
    pair: Pair, tmp_path: Path, phase: str, kind: str
) -> None:
    fill_for_phases(pair.source)
    root = tmp_path / "state"
    done = run(pair.sandbox, root, program=phase)
    assert (done.code, pair.dest.objects(kind)) == (1, []), done.out + done.err
    assert report(root)["totals"]["objects"]["waiting"] == 1
    waiting = findings(root, "waits")
    assert "bin/migrate-experiments" in waiting[0]["next"]
    for needed in ("migrate_organization", "migrate_experiments"):
        assert run(pair.sandbox, root, program=needed).code in (0, 1)
    done = run(pair.sandbox, root, program=phase)
    assert done.code == 0, done.out + done.err
    assert len(pair.dest.objects(kind)) == 1


def answer(status: int, text: str) -> Answer:
    return Answer(status, text.encode(), "text/plain")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/user", 404), ("/v1/dataset", 404), ("/v1/dataset", 403), ("/v1/project_score", 400)],
)
@pytest.mark.variants(1)
def test_a_refused_list_of_the_source_is_a_failure_and_the_rest_moves(
    pair: Pair, tmp_path: Path, path: str, status: int
) -> None:
    alpha = project(pair.source)
    pair.source.create("group", {"name": "people", "member_users": [user(pair.source, ANA)]})
    pair.source.create("dataset", {"project_id": alpha, "name": "cases"})
    pair.source.create("project_tag", {"project_id": alpha, "name": "red"})

    def refuse(request: Any) -> Any:
        is_source = SOURCE_KEY in (request.headers.get("Authorization") or "")
        if is_source and request.method == "GET" and request.path.split("?")[0] == path:
            return answer(status, "no")
        return None

    root = tmp_path / "state"
    pair.sandbox.intercept = refuse
    done = run(pair.sandbox, root)
    assert done.code == 1, done.out + done.err
    assert [obj["name"] for obj in pair.dest.objects("project_tag")] == ["red"]
    assert "list_refused" in kinds_of_findings(root)
    pair.sandbox.intercept = lambda request: None
    done = run(pair.sandbox, root, "--verify")
    assert done.code == 0, done.out + done.err
    assert [len(item["member_users"]) for item in pair.dest.objects("group")] == [1]
    assert len(pair.dest.objects("dataset")) == 1


def test_a_field_that_the_table_does_not_know_is_a_finding_once_per_kind(
    pair: Pair, tmp_path: Path
) -> None:
    alpha = project(pair.source)
    for name in ("first", "second"):
        dataset = pair.source.create("dataset", {"project_id": alpha, "name": name})
        with pair.sandbox.store.lock:
            entry = pair.sandbox.store.entries["dataset"][dataset["id"]]
            entry.data["retention"] = {"days": 7}
    root = tmp_path / "state"
    done = run(pair.sandbox, root, "--verify")
    assert done.code == 0, done.out + done.err
    told = [
        (finding["name"], finding["path"], finding["detail"])
        for finding in findings(root, "new_field")
    ]
    assert told == [("first", "retention", "new field 'retention' on datasets: not carried")]


def test_a_later_start_of_a_phase_knows_the_views_that_an_earlier_run_moved(
    pair: Pair, tmp_path: Path
) -> None:
    """Views are listed by owner, which only their own phase does."""
    source, off = pair.source, {"MIGRATION_ACTIVATE": ""}
    project = source.objects("project")[0]["id"]
    owner = {"object_type": "project", "object_id": project, "view_type": "monitor"}
    view = source.create("view", {**owner, "name": "costs"})["id"]
    window = {"window_seconds": 3600, "evaluation_delay_seconds": 60, "schedule": {}}
    loop = {"agent_slug": "a", "prompt": "p", "target": {"type": "dashboard", "id": view}}
    rise = {"event_type": "windowed", "window": window, "loop": loop, "actions": []}
    hook = {"type": "webhook", "url": "https://hooks.example/1"}
    alert = {"event_type": "logs", "btql_filter": "", "interval_seconds": 60, "action": hook}
    for name, config in (("rise", rise), ("alert", alert)):
        source.create("project_automation", {"project_id": project, "name": name, "config": config})
    assert run(pair.sandbox, tmp_path, **off).code == 0
    words = ("--activate", "webhook")
    done = run(pair.sandbox, tmp_path, *words, program="migrate_settings", **off)
    assert done.code == 0, done.out
    found = {obj["name"]: obj["config"] for obj in pair.dest.objects("project_automation")}
    (there,) = pair.dest.objects("view")
    assert found["rise"]["loop"]["target"]["id"] == there["id"]
    assert "alert" in found
    alone = ("--resources", "project_automations", "--full")
    done = run(pair.sandbox, tmp_path, *alone, program="verify", **off)
    assert done.code == 0, done.out
