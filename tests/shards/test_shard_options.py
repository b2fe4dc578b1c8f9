"""Options for versions, users and code bundles have their effect in shards, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import pytest

from tests.migration.test_bundles import (
    CODE,
    add_bundled,
    bundled_there,
    references,
    references_to,
)
from tests.migration.test_dataset_versions import snapshots, take_snapshot, timed_pair
from tests.support.compare_orgs import differences
from tests.support.orgs import Pair, findings, report
from tests.support.people import ASSIGNED, CLEO, DAN, EVA, invite, people_pair, user_id
from tests.support.pinned import histories, pinned_content, pinned_pair
from tests.support.sharding import call, merge, plan

VERSIONS = "--dataset-versions"


def move_in_shards(pair: Pair, root: Path, *options: str) -> None:
    """All steps of the manual; the options are given to each program that moves something."""
    done = call(pair, root / "objects", "--no-rows", *options)
    assert done.code == 0, done.out + done.last_words
    plan(pair, root, 2)
    for number in range(2):
        shard = ("--shard", f"{root}/shards.jsonl:{number}")
        done = call(pair, root / str(number), *shard, *options)
        assert done.code == 0, done.out + done.last_words
    done = merge(root, "objects", "0", "1")
    assert done.code == 0, done.last_words
    done = call(pair, root / "whole", *options)
    assert (done.code, report(root / "whole")["problems"]) == (0, []), done.out + done.last_words
    done = call(pair, root / "whole", "--full", program="verify")
    assert done.code == 0, done.out + done.last_words


def test_earlier_versions_and_the_pins_of_rows_to_them_arrive(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        move_in_shards(pair, tmp_path, "--history", "all")
        assert histories(pair.dest) == histories(pair.source)
        assert pinned_content(pair.dest) == pinned_content(pair.source)


def test_code_bundles_and_mapped_users_arrive_by_a_move_in_shards(tmp_path: Path) -> None:
    folder, users = tmp_path / "bundles", tmp_path / "users.csv"
    (folder / "alpha").mkdir(parents=True)
    (folder / "alpha" / "bundled.js").write_bytes(CODE)
    new = "cleo@globex.example"
    users.write_text(f"{CLEO},{new}\n", encoding="utf-8")
    people = ("--user-map", str(users), "--invite-users", "--yes")
    with people_pair() as pair:
        invite(pair, [new])
        add_bundled(pair.source)
        move_in_shards(pair, tmp_path, "--bundles", str(folder), "--activate", "all", *people)
        assert references(pair.dest) == references_to(bundled_there(pair)["id"])
        (dataset,) = pair.dest.objects("dataset")
        rows = {row["id"]: row["metadata"] for row in pair.dest.rows("dataset", dataset["id"])}
        wanted = [user_id(pair.dest, email) for email in (DAN, EVA, new)]
        assert rows["r3"][ASSIGNED] == wanted


def test_the_present_state_of_a_dataset_gets_its_snapshot_after_the_rows(tmp_path: Path) -> None:
    with timed_pair() as pair:
        take_snapshot(pair.source, "now")
        move_in_shards(pair, tmp_path)
        assert (list(snapshots(pair.dest)), differences(pair)) == (["now"], [])
        assert "now" not in [
            found["name"] for found in findings(tmp_path / "whole", "state_not_there")
        ]


@pytest.mark.parametrize(
    ("program", "arguments", "why"),
    [
        ("migrate_all", ("--shard", "shards.jsonl:0", VERSIONS), "not made in shards"),
        ("migrate_datasets", ("--shard", "shards.jsonl:0", VERSIONS), "not made in shards"),
        ("plan_shards", ("--shards", "2"), "not made in shards"),
        ("migrate_all", ("--no-rows", VERSIONS), "leave out --no-rows"),
    ],
)
def test_earlier_states_of_datasets_are_refused_before_anything_is_written(
    program: str, arguments: Sequence[str], why: str, small: Pair, tmp_path: Path
) -> None:
    # The variable counts where a program does not have the option.
    by_name = {} if VERSIONS in arguments else {"MIGRATION_DATASET_VERSIONS": "true"}
    done = call(small, tmp_path / "runs", *arguments, program=program, **by_name)
    assert (done.code, small.sandbox.writes("globex")) == (2, [])
    (line,) = done.err.splitlines()
    assert "--dataset-versions" in line and why in line
