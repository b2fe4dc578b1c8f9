"""Users and unreadable code that the destination lacks at first: a later run completes them."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.compare_orgs import differences
from tests.support.orgs import ANA, findings, report, run
from tests.support.people import (
    ASSIGNED,
    CLEO,
    DAN,
    EVA,
    MISSING,
    invite,
    missing_users,
    people_pair,
    user_id,
)


@pytest.mark.parametrize("how", ["same command", "sync", "resumed"])
@pytest.mark.variants(1)
def test_three_users_who_are_invited_later_are_added_everywhere_by_the_same_command(
    how: str, tmp_path: Path
) -> None:
    arguments = ["--since-last"] if how == "sync" else []
    with people_pair() as pair:

        def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
            is_tag = method == "POST" and path == "/v1/project_tag"
            return Answer(400, b"no", "text/plain") if is_tag else None

        pair.sandbox.refuse = refuse if how == "resumed" else None
        ended = run(pair.sandbox, tmp_path / "state", *arguments, "--verify")
        assert ended.code == int(how == "resumed"), ended.out + ended.err
        assert missing_users(tmp_path / "state") == sorted(MISSING)
        if how != "resumed":
            assert differences(pair) == []
        pair.sandbox.refuse = None
        invite(pair, [CLEO])
        ended = run(pair.sandbox, tmp_path / "state", *arguments, "--verify")
        assert ended.code == 0, ended.out + ended.err
        assert missing_users(tmp_path / "state") == [DAN, EVA]
        assert differences(pair) == []
        invite(pair, [DAN, EVA])
        ended = run(pair.sandbox, tmp_path / "state", *arguments, "--verify")
        assert ended.code == 0, ended.out + ended.err
        assert missing_users(tmp_path / "state") == []
        assert differences(pair) == []
        verification = report(tmp_path / "state")["verification"]
        if how != "sync":  # which compares its first copy only
            left_out = verification["tolerated"].get("left_out", 0)
            assert (verification["equal"], left_out) == (True, 0)
        written = len(pair.sandbox.sent)
        assert run(pair.sandbox, tmp_path / "state", *arguments).code == 0
        assert len(pair.sandbox.sent) == written


def test_a_row_whose_users_somebody_changed_is_kept_and_reported(tmp_path: Path) -> None:
    with people_pair() as pair:
        arguments = ("--since-last", "--resources", "datasets")
        (dataset,) = pair.source.objects("dataset")
        users = [user_id(pair.source, EVA)]
        pair.source.insert("dataset", dataset["id"], [{"id": "r4", "metadata": {ASSIGNED: users}}])
        assert run(pair.sandbox, tmp_path, *arguments).code == 0
        (dataset,) = pair.dest.objects("dataset")
        ana = user_id(pair.dest, ANA)
        edited = {"id": "r1", "_is_merge": True, "metadata": {ASSIGNED: [ana]}}
        other = {"id": "r3", "_is_merge": True, "input": "edited by a person"}
        pair.dest.insert("dataset", dataset["id"], [edited, other])
        pair.dest.insert("dataset", dataset["id"], [{"id": "r0", "_object_delete": True}])
        pair.dest.insert("dataset", dataset["id"], [{"id": "r4", "input": "without metadata"}])
        pair.sandbox.clock.set(pair.sandbox.clock.seconds() + 3600)
        invite(pair, MISSING)
        ended = run(pair.sandbox, tmp_path, *arguments)
        assert ended.code == 1, ended.out + ended.err
        changed = findings(tmp_path, "row_differs")
        assert [(item["detail"], item["row"], item["count"]) for item in changed] == [
            ("changed in the destination", "r1", 2)
        ]
        cleo, dan, eva = (user_id(pair.dest, email) for email in MISSING)
        rows = {row["id"]: row for row in pair.dest.rows("dataset", dataset["id"])}
        assert rows.pop("r4")["metadata"] is None
        assert {row_id: row["metadata"][ASSIGNED] for row_id, row in rows.items()} == {
            "r1": [ana],
            "r2": [ana],
            "r3": [dan, eva, cleo],
        }
        assert rows["r3"]["input"] == "edited by a person"
        # r0 was deleted, which is believed the second time.
        pair.sandbox.clock.set(pair.sandbox.clock.seconds() + 3600)
        assert run(pair.sandbox, tmp_path, *arguments).code == 0


def test_a_row_that_was_assigned_to_others_meanwhile_is_not_assigned_to_the_former_user(
    tmp_path: Path,
) -> None:
    with people_pair() as pair:
        arguments = ("--since-last", "--resources", "datasets")
        assert run(pair.sandbox, tmp_path, *arguments).code == 0
        (dataset,) = pair.source.objects("dataset")
        pair.source.insert("dataset", dataset["id"], [{"id": "r1", "metadata": {ASSIGNED: []}}])
        assert run(pair.sandbox, tmp_path, *arguments).code == 0
        invite(pair, MISSING)
        assert run(pair.sandbox, tmp_path, *arguments).code == 0
        (copy,) = pair.dest.objects("dataset")
        row = next(row for row in pair.dest.rows("dataset", copy["id"]) if row["id"] == "r1")
        assert row["metadata"] == {ASSIGNED: []}


@pytest.mark.parametrize("later", ["migrate_experiments", "migrate_all"])
@pytest.mark.variants(1)
def test_views_and_acls_that_wait_are_created_by_any_later_start_that_can(
    later: str, tmp_path: Path
) -> None:
    with people_pair() as pair:
        (experiment,) = pair.source.objects("experiment")
        (group,) = pair.source.objects("group")
        owner = {"object_type": "experiment", "object_id": experiment["id"]}
        pair.source.create("view", {**owner, "view_type": "experiment", "name": "v"})
        pair.source.create("acl", {**owner, "group_id": group["id"], "permission": "read"})
        for phase in ("migrate_views", "migrate_acls"):
            assert run(pair.sandbox, tmp_path, program=phase).code == 1
        waiting = report(tmp_path)["totals"]["objects"]["waiting"]
        assert waiting == 2
        assert run(pair.sandbox, tmp_path, program="migrate_organization").code == 1
        invite(pair, MISSING)
        ended = run(pair.sandbox, tmp_path, program=later)
        assert ended.code == 0, ended.out + ended.err
        assert [len(pair.dest.objects(kind)) for kind in ("view", "acl")] == [2, 3]
        assert (findings(tmp_path, "waits"), missing_users(tmp_path)) == ([], [])
        for phase in ("migrate_views", "migrate_acls"):
            assert run(pair.sandbox, tmp_path, program=phase).code == 0
