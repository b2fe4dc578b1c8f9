"""Effects of settings that a server can see: which requests are sent, and when.

Effects of other settings are tested with their subject.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, List, Optional, Set

import pytest

from tests.support.orgs import DEST_KEY, SOURCE_KEY, Pair, is_insert, run, runs, tiny_pair


class Asked:
    """Set as `sandbox.refuse`: remembers bodies and refuses nothing."""

    def __init__(self) -> None:
        self.queries: List[str] = []
        self.inserts: List[int] = []  # rows of each insert into a dataset

    def __call__(self, method: str, path: str, raw: bytes) -> Optional[Any]:
        text = raw.decode("utf-8", "replace")
        if path == "/btql":
            self.queries.append(text)
        if is_insert(path):
            self.inserts.append(len(re.findall(r'"created":', text)))
        return None


def asked(
    pair: Pair, root: Path, *args: str, program: str = "migrate_all", **settings: str
) -> Asked:
    seen = Asked()
    pair.sandbox.refuse = seen
    # References of rows wait for objects that the phase of logs alone does not move.
    code = 1 if program == "migrate_logs" else 0
    assert run(pair.sandbox, root, *args, program=program, **settings).code == code
    return seen


def limits(queries: List[str], source: str) -> Set[int]:
    return {
        int(found[1])
        for found in (
            re.search(r"limit: (\d+)", item)
            for item in queries
            # rows that are looked up by id are no page
            if f"from: {source}(" in item and "select: *" in item and "filter: id" not in item
        )
        if found
    }


def test_page_sizes_can_be_set_for_one_kind_of_rows(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        seen = asked(
            pair,
            tmp_path / "runs",
            "--no-verify",
            MIGRATION_EVENTS_FETCH_LIMIT="300",
            MIGRATION_LOGS_FETCH_LIMIT="70",
            MIGRATION_EXPERIMENT_EVENTS_FETCH_LIMIT="80",
        )
        found = [
            limits(seen.queries, item) - {2, 50}
            for item in ("project_logs", "experiment", "dataset")
        ]  # 2: a row whose reference is completed; 50: the sample of validate
        assert found == [{70}, {80}, {300}]


@pytest.mark.parametrize("size", [7, 40])
def test_batches_hold_as_many_rows_as_set_for_their_kind(size: int, tmp_path: Path) -> None:
    with tiny_pair() as pair:
        settings = {
            "MIGRATION_DATASET_EVENTS_INSERT_BATCH_SIZE": str(size),
            "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "999",
        }
        assert (
            max(asked(pair, tmp_path / "runs", program="migrate_datasets", **settings).inserts)
            == size
        )


def test_kinds_that_are_neither_selected_nor_referred_to_are_not_listed(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        assert (
            run(pair.sandbox, tmp_path / "runs", "--no-verify", "--resources", "datasets").code == 0
        )
        listed = {
            request.path.split("?")[0]
            for request in pair.sandbox.requests
            if request.method == "GET"
        }
        assert (
            "/v1/dataset" in listed
            and not {"/v1/project_tag", "/v1/ai_secret", "/v1/project_automation"} & listed
        )


def test_lists_are_asked_for_in_pages_of_the_batch_size(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        run(pair.sandbox, tmp_path / "runs", "--batch-size", "3", program="migrate_organization")
        sizes = {
            re.search(r"limit=(\d+)", request.path)[1]
            for request in pair.sandbox.requests
            if request.path.startswith("/v1/group?")
        }
        assert sizes == {"3"}


def test_one_byte_in_flight_means_one_insert_at_a_time(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        pair.sandbox.latency = {"insert": 0.02}
        settings = {
            "MIGRATION_MAX_IN_FLIGHT_BYTES": "1",
            "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "10",
            "MIGRATION_PROJECTS": "beta",
        }
        asked(pair, tmp_path / "runs", program="migrate_logs", **settings)
        inserts = sorted(
            (request.started, request.finished)
            for request in pair.sandbox.requests
            if is_insert(request.path)
        )
        assert (
            len(inserts) > 3,
            [later for (_, end), (later, _) in zip(inserts, inserts[1:]) if later < end],
        ) == (True, [])


def test_a_key_that_sees_both_organizations_needs_their_names(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        pair.sandbox.grant("sk-both", ["acme", "globex"])
        keys = {"BT_SOURCE_API_KEY": "sk-both", "BT_DEST_API_KEY": "sk-both"}
        without = run(pair.sandbox, tmp_path / "a", program="validate", **keys)
        unknown = run(
            pair.sandbox,
            tmp_path / "a",
            program="validate",
            **keys,
            BT_SOURCE_ORG="acme",
            BT_DEST_ORG="nobody",
        )
        same = run(
            pair.sandbox,
            tmp_path / "a",
            program="validate",
            **keys,
            BT_SOURCE_ORG="acme",
            BT_DEST_ORG="acme",
        )
        assert [
            (item.code, len(item.err.strip().splitlines())) for item in (without, unknown, same)
        ] == [(2, 1)] * 3
        named = run(
            pair.sandbox, tmp_path / "runs", **keys, BT_SOURCE_ORG="acme", BT_DEST_ORG="globex"
        )
        names = [
            sorted(obj["name"] for obj in org.objects("project"))
            for org in (pair.source, pair.dest)
        ]
        assert (named.code, names[0]) == (0, names[1])
        again = run(
            pair.sandbox, tmp_path / "runs2", BT_SOURCE_API_KEY=SOURCE_KEY, BT_DEST_API_KEY=DEST_KEY
        )  # what was moved by names is found with keys of one organization
        assert (again.code, len(runs(tmp_path / "runs2"))) == (0, 1)


def test_settings_of_an_env_file_are_used_and_flags_win(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        (tmp_path / "my.env").write_text(
            "MIGRATION_RESOURCES=groups\nMIGRATION_PROJECTS=beta\nMIGRATION_STATE_DIR="
            + str(tmp_path / "there")
        )
        done = run(
            pair.sandbox,
            tmp_path / "here",
            "--env-file",
            str(tmp_path / "my.env"),
            "--resources",
            "roles",
        )
        made = [
            kind
            for kind in ("role", "group", "dataset")
            if [item for item in pair.dest.objects(kind) if item.get("org_id") or kind == "dataset"]
        ]
        assert (done.code, made, [obj["name"] for obj in pair.dest.objects("project")]) == (
            0,
            ["role"],
            ["beta"],
        )


def test_validation_counts_the_rows_of_each_stream(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        assert run(pair.sandbox, tmp_path / "runs", program="validate").code == 0
        told = json.loads((runs(tmp_path / "runs")[-1] / "run.json").read_text(encoding="utf-8"))[
            "validation"
        ]["streams"]
        kinds = {"datasets": "dataset", "experiments": "experiment", "logs": "project_logs"}
        there = {
            kind: {
                obj["id"]: len(pair.source.rows(name, obj["id"]))
                for obj in pair.source.objects(name.replace("project_logs", "project"))
            }
            for kind, name in kinds.items()
        }
        assert {
            kind: {item["id"]: item["rows"] for item in streams} for kind, streams in told.items()
        } == there
