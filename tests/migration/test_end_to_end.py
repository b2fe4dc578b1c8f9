"""Whole migrations by the real programs; source and destination are compared object by object."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple
from urllib.parse import parse_qs, urlsplit

import pytest

from bt_migrate.phases import ORDER
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.faults import Fault
from tests.support.compare_orgs import (
    NATURAL_KEYS,
    Translation,
    differences,
    leftovers,
    position_differences,
    row_differences,
    streams,
    unsaid_mentions,
    untrue_claims,
)
from tests.support.orgs import (
    DEST_KEY,
    SOURCE_KEY,
    AtRequest,
    Ended,
    Pair,
    ended,
    example_pair,
    findings,
    is_insert,
    report,
    run,
    runs,
    started,
    tiny_pair,
)

PHASES = [name for name in ORDER if name.startswith("migrate_")]
ROW_KINDS = ("datasets", "experiments", "logs")
TOKEN = "X-Amz-Signature"


@pytest.fixture
def tiny() -> Iterator[Pair]:
    with tiny_pair() as pair:
        yield pair


def sums(told: Dict[str, Any]) -> List[str]:
    """Where a report's numbers do not add up; objects and rows are counted apart."""
    wrong = []
    for entry in told["objects"]:
        if sum(entry["outcomes"].values()) != entry["listed"]:
            wrong.append(
                f"{entry['resource']} of {entry['project']!r}: {entry['outcomes']} of "
                f"{entry['listed']}"
            )
        if sum(entry["skipped_by_reason"].values()) != entry["outcomes"].get("skipped", 0):
            wrong.append(
                f"{entry['resource']} of {entry['project']!r}: skipped for "
                f"{entry['skipped_by_reason']}"
            )
    for entry in told["rows"]:
        if sum(entry["outcomes"].values()) != entry["fetched"]:
            wrong.append(
                f"rows of {entry['kind']} {entry['name']!r}: {entry['outcomes']} of "
                f"{entry['fetched']}"
            )
    totals = told["totals"]
    if sum(totals["objects"].values()) != sum(entry["listed"] for entry in told["objects"]):
        wrong.append(f"objects in all: {totals['objects']}")
    if totals["rows"]["fetched"] != sum(entry["fetched"] for entry in told["rows"]):
        wrong.append(f"rows in all: {totals['rows']}")
    return wrong


def row_counts(org: Any) -> Dict[str, int]:
    holders = {
        "datasets": ("dataset", "dataset"),
        "experiments": ("experiment", "experiment"),
        "logs": ("project_logs", "project"),
    }
    return {
        name: sum(org.count(kind, entry["id"]) for entry in org.objects(holder))
        for name, (kind, holder) in holders.items()
    }


def told_rows(told: Dict[str, Any]) -> Dict[str, int]:
    return {
        kind: sum(entry["fetched"] for entry in told["rows"] if entry["kind"] == kind)
        for kind in ROW_KINDS
    }


def own_objects(org: Any) -> Dict[str, int]:
    """How many objects of its own an organization has, by kind."""
    return {
        kind: len([entry for entry in org.objects(kind) if entry.get("org_id", "") is not None])
        for kind in NATURAL_KEYS
        if kind != "user"
    }


# The whole example --------------------------------------------------------------------------------


def test_the_example_organization_arrives_whole_and_a_second_run_writes_nothing(
    tmp_path: Path,
) -> None:
    with example_pair() as pair:
        first = run(pair.sandbox, tmp_path / "runs", "--verify")
        told = report(tmp_path / "runs")
        assert (first.code, differences(pair), pair.sandbox.leaks()) == (0, [], []), (
            first.last_words
        )
        assert pair.sandbox.writes("acme") == []
        assert (sums(told), told["problems"], told_rows(told)) == ([], [], row_counts(pair.source))
        assert [entry for entry in told["findings"] if entry["severity"] == "failure"] == []
        assert unsaid_mentions(pair, told["findings"]) == []
        assert untrue_claims(pair, runs(tmp_path / "runs")[0]) == []
        for root in (tmp_path / "runs", tmp_path / "fresh"):
            pair.sandbox.clear_requests()
            again = run(pair.sandbox, root, "--verify")
            told = report(root)
            outcomes = {
                name for entry in told["objects"] + told["rows"] for name in entry["outcomes"]
            }
            assert (again.code, pair.sandbox.writes("globex"), sums(told)) == (0, [], []), (
                again.last_words
            )
            assert outcomes == {"found", "skipped"}
        assert differences(pair) == []


@pytest.mark.parametrize("pair_of", [tiny_pair, pytest.param(example_pair, marks=pytest.mark.long)])
def test_phases_run_one_by_one_move_the_same_as_migrate_all(pair_of: Any, tmp_path: Path) -> None:
    with pair_of() as pair:
        codes = {name: run(pair.sandbox, tmp_path / "runs", program=name).code for name in PHASES}
        # A definition that was made from an experiment waits for the phase of experiments.
        expected = {**dict.fromkeys(PHASES, 0), "migrate_definitions": 1}
        assert (codes, differences(pair)) == (expected, [])
        assert (len(runs(tmp_path / "runs")), sums(report(tmp_path / "runs"))) == (1, [])
        pair.sandbox.clear_requests()
        assert (run(pair.sandbox, tmp_path / "fresh").code, pair.sandbox.writes("globex")) == (
            0,
            [],
        )


@pytest.mark.long
def test_phases_in_reverse_order_followed_by_migrate_all_move_everything(
    tiny: Pair, tmp_path: Path
) -> None:
    codes = {
        name: run(tiny.sandbox, tmp_path / "runs", program=name).code for name in reversed(PHASES)
    }
    end = run(tiny.sandbox, tmp_path / "runs")
    # ACLs wait for their groups, views for their experiments; the last phase completes them.
    expected = {**dict.fromkeys(PHASES, 1), "migrate_organization": 0}
    assert (codes, end.code, differences(tiny)) == (expected, 0, []), end.last_words


@pytest.mark.long
def test_phases_with_different_state_folders_report_references_to_later_phases(
    tmp_path: Path,
) -> None:
    """References to later phases wait in the state folder. Without a common one they are left out.

    A later run then completes rows, and reports objects.
    """
    with example_pair() as pair:
        codes = {
            name: run(pair.sandbox, tmp_path / name / "runs", program=name).code for name in PHASES
        }
        again = run(pair.sandbox, tmp_path / "last")
        problems = {
            (entry["resource"], entry["outcome"], *entry["fields"])
            for entry in report(tmp_path / "last")["problems"]
        }
        failures = {
            entry["kind"]
            for entry in report(tmp_path / "last")["findings"]
            if entry["severity"] == "failure"
        }
        assert (set(codes.values()), again.code) == ({0}, 1), again.last_words
        assert (problems, failures) == ({("functions", "differs", "origin")}, set())


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_server_without_views_of_the_organization_or_of_logs_has_none(
    status: int, tiny: Pair, tmp_path: Path
) -> None:
    def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
        hit = "/v1/view?" in path and any(
            f"object_type={entry}&" in path
            for entry in ("organization", "org_project", "project_log")
        )
        return Answer(status, b"unknown object_type") if hit else None

    tiny.sandbox.refuse = refuse
    end = run(
        tiny.sandbox, tmp_path / "runs", "--resources", "datasets,experiments,views", "--verify"
    )
    views = {entry["object_type"] for entry in tiny.dest.objects("view")}
    assert (end.code, views) == (0, {"project", "experiment"}), end.last_words


def test_environments_are_asked_for_without_parameters_that_their_list_does_not_have(
    tiny: Pair, tmp_path: Path
) -> None:
    def strict(method: str, path: str, raw: bytes) -> Optional[Answer]:
        hit = (
            method == "GET"
            and path.startswith("/environment?")
            and ("limit" in path or "starting_after" in path)
        )
        return Answer(400, b"unknown parameter") if hit else None

    tiny.sandbox.refuse = strict
    codes = [
        run(tiny.sandbox, tmp_path / "runs", "--resources", "environments").code for _ in range(2)
    ]
    assert (codes, len(tiny.dest.objects("environment"))) == (
        [0, 0],
        len(tiny.source.objects("environment")),
    )


def test_a_kind_that_the_source_does_not_list_is_reported(tiny: Pair, tmp_path: Path) -> None:
    """A plan without the kind answers so, and a key that may not see it."""
    tiny.sandbox.faults.add(
        Fault(
            "status",
            "acme",
            "GET",
            path="^/v1/project_automation",
            times=None,
            status=403,
            body={"Code": "Forbidden"},
        )
    )
    ends = [
        run(tiny.sandbox, tmp_path / "runs", "--resources", "project_automations", program=name)
        for name in ("migrate_all", "migrate_settings")
    ]
    told = [
        (entry["resource"], entry["severity"], "403" in entry["detail"])
        for entry in findings(tmp_path / "runs", "list_refused")
    ]
    assert ([entry.code for entry in ends], told) == (
        [1, 1],
        [("project_automations", "failure", True)],
    ), ends[0].last_words


@pytest.mark.long
def test_resources_moved_one_by_one_move_the_same_as_migrate_all(
    tiny: Pair, tmp_path: Path
) -> None:
    """What refers to something comes after it."""
    parts = (
        "ai_secrets,roles,groups,environments",
        "datasets,project_tags,span_iframes,mcp_servers,agents",
        "functions,prompts",
        "experiments",
        "functions,project_scores",
        "logs,views",
        "project_settings,project_automations,acls",
    )
    ends = [run(tiny.sandbox, tmp_path / "runs", "--resources", part) for part in parts]
    told = [(part, end.code) for part, end in zip(parts, ends) if end.code]
    # The function's origin is an experiment of a later run: reported as waiting, then added.
    assert (told, differences(tiny)) == ([("functions,prompts", 1)], [])


@pytest.mark.parametrize(
    "order", [("migrate_logs", "migrate_experiments", "migrate_definitions", "migrate_datasets")]
)
def test_phases_in_the_wrong_order_are_completed_by_the_later_ones(
    order: Tuple[str, ...], tiny: Pair, tmp_path: Path
) -> None:
    """References to what is not there yet wait in the run directory."""
    rest = [name for name in PHASES if name not in order]
    for name in (*order, *rest):
        run(tiny.sandbox, tmp_path / "runs", program=name)
    assert differences(tiny) == []


def test_tags_and_scores_keep_their_order(tiny: Pair, tmp_path: Path) -> None:
    """Positions follow the order of creation, so the first object of each kind is slow here."""
    alpha = tiny.source.objects("project")[0]["id"]
    for name in ("second", "third"):
        tiny.source.create(
            "project_score", {"project_id": alpha, "name": name, "score_type": "slider"}
        )
    for path in ("/v1/project_tag$", "/v1/project_score$"):
        tiny.sandbox.faults.add(Fault("delay", "globex", "POST", path=path, seconds=0.4))
    run(tiny.sandbox, tmp_path / "runs")
    assert list(position_differences(Translation(tiny))) == []


def test_rows_keep_their_order_on_request(tiny: Pair, tmp_path: Path) -> None:
    """The API lists rows in the order of insertion, so the first insert of each stream is slow."""
    tiny.sandbox.faults.add(Fault("delay", "globex", "POST", path="/logs3", seconds=0.4, times=3))
    run(
        tiny.sandbox, tmp_path / "runs", "--preserve-order", MIGRATION_EVENTS_INSERT_BATCH_SIZE="10"
    )
    orders = {
        (kind, source["name"]): [
            [row["id"] for row in org.rows(kind, entry["id"])]
            for org, entry in ((tiny.source, source), (tiny.dest, dest))
        ]
        for kind, source, dest in streams(Translation(tiny))
    }
    assert [where for where, (before, after) in orders.items() if before != after] == []


# Choosing -----------------------------------------------------------------------------------------


def chosen_differences(
    pair: Pair,
    projects: Optional[Set[str]] = None,
    kinds: Optional[Set[str]] = None,
    chosen: Any = None,
) -> List[str]:
    translation = Translation(pair, projects, kinds)
    return (
        translation.problems
        + list(row_differences(translation, chosen))
        + list(leftovers(translation))
    )


def test_only_the_chosen_project_arrives(tmp_path: Path) -> None:
    name = "Evals, \"golden\" and 'silver'"
    with example_pair() as pair:
        chosen = '"Evals, ""golden"" and \'silver\'",旅行プランナー'
        whole = run(pair.sandbox, tmp_path / "runs", "--projects", chosen)
        assert {entry["name"] for entry in pair.dest.objects("project")} == {name, "旅行プランナー"}
        assert (whole.code, sums(report(tmp_path / "runs"))) in ((0, []), (1, []))
        translation = Translation(pair, {name, "旅行プランナー"})
        assert [entry for entry in translation.problems if "acl" not in entry] + list(
            row_differences(translation)
        ) + list(leftovers(translation)) == []


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_only_the_chosen_resources_arrive(how: str, tiny: Pair, tmp_path: Path) -> None:
    args = ["--resources", "datasets,project_tags"] if how == "flag" else []
    whole = run(
        tiny.sandbox,
        tmp_path / "runs",
        *args,
        MIGRATION_RESOURCES="" if args else "project_tags, datasets",
    )
    there = {kind: count for kind, count in own_objects(tiny.dest).items() if count}
    assert (whole.code, there) == (0, {"project": 2, "dataset": 2, "project_tag": 2}), (
        whole.last_words
    )
    assert row_counts(tiny.dest) == {
        "datasets": row_counts(tiny.source)["datasets"],
        "experiments": 0,
        "logs": 0,
    }


WINDOW = {"after": "2025-10-05T08:30:00.5Z", "before": "2025-10-17"}


@pytest.mark.parametrize("sides", [("after",), ("before",), ("after", "before")])
def test_a_window_chooses_rows_of_logs(sides: Tuple[str, ...], tiny: Pair, tmp_path: Path) -> None:
    args = [part for side in sides for part in (f"--created-{side}", WINDOW[side])]
    whole = run(tiny.sandbox, tmp_path / "runs", "--resources", "logs", *args)

    def chosen(kind: str, holder: Any, row: Any) -> bool:
        after = "after" not in sides or row["created"] >= "2025-10-05T08:30:00.500Z"
        return (
            kind == "project_logs"
            and after
            and ("before" not in sides or row["created"] < "2025-10-17")
        )

    translation = Translation(tiny, kinds={"project"})
    wrong = [
        entry
        for entry in row_differences(translation, chosen)
        if "missing" in entry or "too much" in entry
    ]
    kept = sum(
        chosen("project_logs", entry, row)
        for entry in tiny.source.objects("project")
        for row in tiny.source.rows("project_logs", entry["id"])
    )
    assert 0 < kept < 300
    assert (wrong, row_counts(tiny.dest)["logs"], told_rows(report(tmp_path / "runs"))["logs"]) == (
        [],
        kept,
        kept,
    ), whole.last_words


def test_a_window_chooses_experiments_with_all_their_rows(tiny: Pair, tmp_path: Path) -> None:
    """Filtered by the experiment's own date; the sandbox dates experiments with their creation."""
    dates = sorted(entry["created"] for entry in tiny.source.objects("experiment"))
    whole = run(
        tiny.sandbox,
        tmp_path / "runs",
        "--resources",
        "datasets,experiments",
        "--created-after",
        dates[1][:10],
        "--created-before",
        "2999-01-01",
    )
    there = (
        len(tiny.dest.objects("experiment")),
        row_counts(tiny.dest)["experiments"],
        row_counts(tiny.dest)["datasets"],
    )
    assert (whole.code, there) == (0, (3, 90, 90)), whole.last_words
    late = run(
        tiny.sandbox,
        tmp_path / "late",
        "--resources",
        "experiments",
        "--created-after",
        "2999-01-01",
    )
    reasons = [
        entry["skipped_by_reason"]
        for entry in report(tmp_path / "late")["objects"]
        if entry["resource"] == "experiments"
    ]
    assert (late.code, reasons, told_rows(report(tmp_path / "late"))["experiments"]) == (
        0, [{"outside of the date window": 2}, {"outside of the date window": 1}], 0,
    )  # fmt: skip


# Nothing written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["migrate_all", "migrate_definitions", "migrate_logs"])
def test_a_dry_run_plans_everything_and_writes_nothing(
    program: str, tiny: Pair, tmp_path: Path
) -> None:
    whole = run(tiny.sandbox, tmp_path / "runs", "--dry-run", program=program)
    told = report(tmp_path / "runs")
    assert (whole.code, tiny.sandbox.writes("globex"), tiny.sandbox.writes("acme"), sums(told)) == (
        0,
        [],
        [],
        [],
    ), whole.last_words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    planned = {entry["resource"]: 0 for entry in told["objects"]}
    for entry in told["objects"]:
        planned[entry["resource"]] += entry["outcomes"].get("planned", 0)
    if program == "migrate_all":
        counts = own_objects(tiny.source)
        del counts["prompt"]  # prompts are functions too
        assert (
            planned.pop("functions") + planned.pop("prompts") == counts.pop("function") - 1
        )  # one is a bundle
        wanted = {f"{kind}s": count for kind, count in {**counts, "acl": 3}.items() if count}
        del planned["project_settings"]
        assert wanted == {name: count for name, count in planned.items() if count}
        assert told["estimate"]["rows"] == sum(row_counts(tiny.source).values())
    assert run(tiny.sandbox, tmp_path / "runs").code == 0
    assert differences(tiny) == []


def test_a_dry_run_of_the_example_plans_everything(tmp_path: Path) -> None:
    with example_pair() as pair:
        whole = run(pair.sandbox, tmp_path / "runs", "--dry-run")
        told = report(tmp_path / "runs")
        assert (whole.code, pair.sandbox.writes("globex"), sums(told), told["problems"]) == (
            0,
            [],
            [],
            [],
        ), whole.last_words
        assert {name for entry in told["objects"] for name in entry["outcomes"]} == {
            "planned",
            "skipped",
        }


# What is there already ----------------------------------------------------------------------------


def test_existing_objects_are_found_if_equal_and_left_alone_if_different(
    tiny: Pair, tmp_path: Path
) -> None:
    dest = tiny.dest
    alpha = dest.create("project", {"name": "Alpha/α", "description": "second"})["id"]
    beta = dest.create("project", {"name": "beta"})["id"]
    dest.create("project_tag", {"project_id": alpha, "name": "red", "color": "#FF0000"})
    dest.create(
        "project_tag",
        {"project_id": alpha, "name": "blue", "color": "#00FF00", "description": "ours"},
    )
    answers = dest.create("dataset", {"project_id": beta, "name": "answers", "tags": ["x"]})["id"]
    dest.create(
        "prompt",
        {
            "project_id": beta,
            "name": "Ask",
            "slug": "ask",
            "prompt_data": {"prompt": {"type": "completion", "content": "?"}},
        },
    )
    dest.create("ai_secret", {"name": "OPENAI", "type": "openai", "secret": "typed in before"})
    source_rows = tiny.source.rows("dataset", tiny.source.objects("dataset")[1]["id"])
    same, other = source_rows[0], source_rows[1]
    dest.insert(
        "dataset",
        answers,
        [
            {
                "id": same["id"],
                "input": same["input"],
                "expected": same["expected"],
                "created": same["created"],
                "span_id": same["span_id"],
                "root_span_id": same["root_span_id"],
            }
        ],
    )
    dest.insert(
        "dataset",
        answers,
        [{"id": other["id"], "input": "written by somebody"}, {"id": "theirs", "input": 1}],
    )
    before = {kind: dest.objects(kind) for kind in ("project_tag", "prompt", "ai_secret")}
    whole = run(tiny.sandbox, tmp_path / "runs")
    told = report(tmp_path / "runs")
    assert whole.code == 1
    assert {
        (entry["resource"], entry["name"], entry["outcome"], tuple(entry["fields"]))
        for entry in told["problems"]
    } == {
        ("projects", "Alpha/α", "differs", ("description",)),
        ("project_tags", "blue", "differs", ("description", "color")),
        ("prompts", "Ask", "differs", ("prompt_data",)),
    }
    found = {
        entry["resource"]: entry["outcomes"].get("found")
        for entry in told["objects"]
        if entry["outcomes"].get("found")
    }
    assert found == {"projects": 1, "datasets": 1, "project_tags": 1, "ai_secrets": 1}
    assert {kind: dest.objects(kind)[: len(objects)] for kind, objects in before.items()} == before
    rows = next(entry for entry in told["rows"] if entry["name"] == "answers")
    assert (rows["outcomes"], sums(told)) == ({"created": 43, "found": 1, "differs": 1}, [])
    assert [row["input"] for row in dest.rows("dataset", answers)[:3]] == [
        same["input"],
        "written by somebody",
        1,
    ]
    assert dest.has_secret("ai_secret", dest.objects("ai_secret")[0]["id"])
    pair_differences = [
        entry
        for entry in differences(tiny)
        if not any(word in entry for word in ("'Alpha/α'", "'blue'", "'ask'", "case", "theirs"))
    ]
    assert pair_differences == []
    tiny.sandbox.clear_requests()
    again = run(tiny.sandbox, tmp_path / "runs")
    assert (again.code, tiny.sandbox.writes("globex")) == (1, [])


# Secrets ------------------------------------------------------------------------------------------


def leaked(pair: Pair, whole: Ended, folder: Path) -> Set[Tuple[str, str]]:
    """(secret, place) of each API key and each signature of a signed URL in an output or file."""
    texts = {"stdout": whole.out.encode(), "stderr": whole.err.encode()}
    texts.update((str(path), path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    signed = {
        parse_qs(urlsplit(entry.path).query)[TOKEN][0]
        for entry in pair.sandbox.requests
        if entry.origin == "files"
    }
    assert signed
    secrets = {SOURCE_KEY, DEST_KEY, TOKEN} | signed
    return {
        (secret, Path(name).name)
        for name, text in texts.items()
        for secret in secrets
        if secret.encode() in text
    }


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_key_and_no_signed_url_is_in_any_file_or_output(
    log_format: str, tiny: Pair, tmp_path: Path
) -> None:
    tiny.sandbox.faults.add(Fault("redirect", path="^/btql", times=3))
    tiny.sandbox.faults.add(Fault("truncate", path="/bucket/.*gz", times=1))
    tiny.sandbox.faults.add(Fault("status", path="/logs3", times=2, status=500, body="no"))
    tiny.sandbox.faults.add(Fault("reset_before", method="GET", path="/bucket/", times=1))
    tiny.sandbox.faults.add(
        Fault("status", method="PUT", path="/bucket/", times=None, status=403, body="no")
    )
    tiny.sandbox.faults.add(
        Fault("status", "globex", "POST", path="^/v1/view", times=1, status=400, body="no")
    )
    whole = run(tiny.sandbox, tmp_path / "runs", "--log-level", "DEBUG", "--log-format", log_format)
    assert (whole.code, leaked(tiny, whole, tmp_path), tiny.sandbox.leaks()) == (1, set(), [])
    if log_format == "json":
        assert all(isinstance(json.loads(line), dict) for line in whole.err.splitlines())


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_key_that_a_server_repeats_is_in_no_file_or_output(
    log_format: str, tiny: Pair, tmp_path: Path
) -> None:
    refusals = [("POST", "^/v1/view$"), ("POST", "/logs3"), ("POST", "^/attachment")]
    for method, path in refusals:
        tiny.sandbox.faults.add(
            Fault(
                "status",
                "globex",
                method,
                path=path,
                times=1,
                status=400,
                body=f"invalid key {DEST_KEY}",
            )
        )
    tiny.sandbox.faults.add(
        Fault(
            "status",
            "acme",
            "GET",
            path="^/attachment",
            times=1,
            status=404,
            body=f"not for {SOURCE_KEY}",
        )
    )
    whole = run(tiny.sandbox, tmp_path / "runs", "--log-level", "DEBUG", "--log-format", log_format)
    assert (whole.code, leaked(tiny, whole, tmp_path)) == (1, set())


def test_files_of_a_run_are_for_their_owner_only(tiny: Pair, tmp_path: Path) -> None:
    run(tiny.sandbox, tmp_path / "runs")
    places = [tmp_path / "runs", *(tmp_path / "runs").rglob("*")]
    assert [str(path) for path in places if path.stat().st_mode & 0o077] == []


# Refused before anything is written ---------------------------------------------------------------

WRONG: List[Tuple[str, int, List[str], Dict[str, str]]] = [
    ("wrong source key", 2, [], {"BT_SOURCE_API_KEY": "sk-nobody"}),
    ("wrong destination key", 2, [], {"BT_DEST_API_KEY": "sk-nobody"}),
    ("dead source", 3, [], {"BT_SOURCE_URL": "http://127.0.0.1:9"}),
    ("dead destination", 3, [], {"BT_DEST_URL": "http://127.0.0.1:9"}),
    ("same organization", 2, [], {"BT_DEST_API_KEY": SOURCE_KEY}),
    ("unknown resource", 2, ["--resources", "datasets,widgets"], {}),
    ("unknown resource in the environment", 2, [], {"MIGRATION_RESOURCES": "widgets"}),
    ("unknown project", 2, ["--projects", "beta,gamma"], {}),
    ("no source key", 2, [], {"BT_SOURCE_API_KEY": ""}),
    ("no destination key", 2, [], {"BT_DEST_API_KEY": ""}),
    ("no number", 2, [], {"MIGRATION_BATCH_SIZE": "many"}),
    ("zero", 2, [], {"MIGRATION_MAX_CONCURRENT": "0"}),
    ("no switch", 2, [], {"MIGRATION_EVENTS_USE_SEEN_DB": "perhaps"}),
    ("no level", 2, ["--log-level", "LOUD"], {}),
    ("no date", 2, ["--created-after", "some day"], {}),
    ("empty window", 2, ["--created-after", "2025-02-01", "--created-before", "2025-01-01"], {}),
    ("no URL", 2, [], {"BT_DEST_URL": "api.braintrust.dev"}),
    ("unknown organization", 2, [], {"BT_SOURCE_ORG": "initech"}),
    ("no file", 2, ["--env-file", "nowhere.env"], {}),
    ("not an API", 3, [], {"BT_DEST_URL": "FILES"}),
    ("a path behind the URL", 2, [], {"BT_DEST_URL": "API/v1"}),
]


@pytest.fixture(scope="module")
def untouched() -> Iterator[Pair]:
    with tiny_pair() as pair:
        yield pair


@pytest.mark.parametrize(
    ("code", "args", "settings"),
    [pytest.param(*entry[1:], id=entry[0].replace(" ", "-")) for entry in WRONG],
)
def test_mistakes_are_reported_in_one_line_before_anything_is_written(
    code: int, args: List[str], settings: Dict[str, str], untouched: Pair, tmp_path: Path
) -> None:
    urls = {"FILES": untouched.sandbox.files_url, "API/v1": untouched.sandbox.url + "/v1"}
    settings = {name: urls.get(value, value) for name, value in settings.items()}
    whole = run(untouched.sandbox, tmp_path / "runs", *args, **{"LOG_LEVEL": "ERROR", **settings})
    written = untouched.sandbox.writes("globex") + untouched.sandbox.writes("acme")
    lines = [line for line in whole.err.splitlines() if line]
    assert (whole.code, len(lines), written) == (code, 1, []), whole.err
    assert "Traceback" not in whole.err and lines[0].startswith("bt_migrate: ")


def told_next(done: Ended) -> List[str]:
    """Program and arguments of the command that it says comes next."""
    (line,) = [entry for entry in done.out.splitlines() if entry.startswith("Next: bin/")]
    program, *args = shlex.split(line[len("Next: bin/") :], comments=True)
    return [program.replace("-", "_"), *args]


def test_each_recommended_next_command_does_what_its_comment_says(
    tiny: Pair, tmp_path: Path
) -> None:
    root, plan = tmp_path / "runs", tmp_path / "the plan.json"
    (alpha,) = [
        entry["id"] for entry in tiny.source.objects("project") if entry["name"] == "Alpha/α"
    ]
    names = ("--projects", "Alpha/α,beta", "--rename-projects", "Alpha/α=New home")
    done = run(tiny.sandbox, root, "--dry-run", f"--plan-out={plan}", "--fail-on-loss", *names)
    program, *args = told_next(done)
    assert (program, "--dry-run" in args, plan.name in " ".join(args)) == (
        "migrate_all",
        False,
        True,
    ), done.out
    tiny.sandbox.on_request = AtRequest(
        3, "after", signal.SIGTERM, lambda method, path: is_insert(path)
    )
    with started(tiny.sandbox, root, *args, program=program) as process:
        tiny.sandbox.on_request.process = process
        stopped = ended(process)
    assert stopped.code not in (0, 1), stopped.out
    program, *args = told_next(stopped)
    args = [entry for entry in args if entry != "--no-verify"]  # with which tests begin it
    done = run(tiny.sandbox, tmp_path / "elsewhere", *args, "--verify", program=program)
    # the plan, the plan that --plan compares with it, and the move
    assert (
        done.code,
        len(runs(root)),
        sorted(entry["name"] for entry in tiny.dest.objects("project")),
    ) == (0, 3, ["New home", "beta"]), done.out
    tiny.source.insert("project_logs", alpha, [{"id": "new", "input": "since"}])
    program, *args = told_next(done)
    assert ("--since-last" in args, "--plan" in args) == (True, False)
    done = run(tiny.sandbox, tmp_path / "elsewhere", *args, program=program)
    (here,) = [entry["id"] for entry in tiny.dest.objects("project") if entry["name"] == "New home"]
    assert (
        done.code,
        [entry["input"] for entry in tiny.dest.rows("project_logs", here) if entry["id"] == "new"],
    ) == (0, ["since"]), done.out
