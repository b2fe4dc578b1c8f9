"""Findings: one table of kinds; each reported once, whatever happened on the way."""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any, List, Optional, Tuple

import pytest

from bt_migrate.model.findings import ACCEPTED, ACTION, FAILURE, KINDS, LOSS, finding, is_lost
from bt_migrate.sandbox.data.answer import Answer
from tests.rows.test_row_comments import comment
from tests.support.orgs import (
    AtRequest,
    example_pair,
    findings,
    is_insert,
    report,
    run,
    run_with,
    runs,
    tiny_pair,
)
from tests.support.row_runs import comment_as_server, forbidding, small_rows, world

SMALL = {
    "MIGRATION_EVENTS_FETCH_LIMIT": "25",
    "MIGRATION_EVENTS_INSERT_BATCH_SIZE": "10",
    "MIGRATION_CHECKPOINT_INTERVAL": "1",
}
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_finding_has_a_meaning_a_severity_and_a_next_action(kind: str) -> None:
    entry = finding(kind, resource="datasets", id="1", name="d")
    assert entry["severity"] in (ACTION, LOSS, FAILURE, ACCEPTED)
    assert len(entry["about"]) > 10 and len(entry["next"]) > 10
    assert is_lost(entry) is (entry["severity"] == LOSS or KINDS[kind].left_behind)


def test_the_next_action_of_a_record_replaces_that_of_its_kind() -> None:
    assert finding("not_readable", next="push it", path="", count=0) == {
        "kind": "not_readable",
        "severity": ACTION,
        "about": KINDS["not_readable"].about,
        "next": "push it",
    }


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Tuple[Any, Path]:
    """A move of the example in which a tag and the references of functions are refused: how it
    ended, and where its runs are.
    """
    root = tmp_path_factory.mktemp("refused") / "runs"

    def refusing(method: str, path: str, raw: bytes) -> Optional[Answer]:
        tag, cycle = (
            (method, path) == ("POST", "/v1/project_tag") and b'"v3"' in raw,
            method == "PATCH" and path.startswith("/v1/function/"),
        )
        return Answer(400, b"no") if tag or cycle else None

    with example_pair() as pair:
        tickets = next(
            obj["id"] for obj in pair.source.objects("dataset") if obj["name"] == "Tickets"
        )
        pair.sandbox.store.entries["dataset"][tickets].data["future"] = {"a": 1}
        pair.sandbox.refuse = refusing
        return run(pair.sandbox, root), root


def test_the_report_and_findings_jsonl_have_the_same_findings(refused: Tuple[Any, Path]) -> None:
    done, root = refused
    text = (runs(root)[0] / "findings.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert (done.code, lines) == (1, report(root)["findings"])


def test_a_finding_names_its_object_its_place_and_what_to_do(refused: Tuple[Any, Path]) -> None:
    lines = report(refused[1])["findings"]
    assert all(
        thing["severity"] == KINDS[thing["kind"]].severity
        and thing["next"]
        and thing["name"]
        and thing["resource"]
        for thing in lines
    )
    reviewer = "config.visibility.users[1]"
    topic_map = "function_data.topic_maps.Task[0].topic_map_id"
    named = {
        (value["kind"], value["severity"], value["resource"], value["name"], value.get("path", ""))
        for value in lines
    }
    assert {
        ("secret_to_enter", ACTION, "ai_secrets", "OPENAI_API_KEY", "secret"),
        ("not_readable", ACTION, "functions", "refund (bundled)", "function_data"),
        ("key_to_make", ACTION, "api_keys", "key of acme", ""),
        ("user_without_counterpart", ACTION, "project_scores", "Rating", reviewer),
        ("reference_to_unmovable", ACTION, "functions", "All facets", topic_map),
        ("version_pin_removed", LOSS, "prompts", "Triage", "prompt_data.tool_functions[0].version"),
        ("version_pin_removed", LOSS, "logs", "Shared Library", "metadata.prompt.version"),
        ("new_field", LOSS, "datasets", "Tickets", "future"),
        ("not_created", FAILURE, "project_tags", "v3", ""),
    } - named == set()
    kinds = {item["kind"] for item in lines}
    assert {
        "source_id_in_text",
        "reference_not_added",
        "external_attachment",
        "made_private",
        "state_not_there",
    } - kinds == set()


def test_findings_are_counted_by_kind_in_what_is_printed_at_the_end(
    refused: Tuple[Any, Path],
) -> None:
    done, root = refused
    told = report(root)
    lines = told["findings"]
    printed = " ".join(done.out.split())
    sections = [*told["to_do"], *told["failed"], *told["lost"]]
    counted = {section["kind"]: section["findings"] for section in sections}
    assert counted == told["findings_by_kind"] == dict(Counter(member["kind"] for member in lines))
    # A long screen cuts each entry at the end of its line, and lists failed objects by name.
    entries = [entry for entry in sections if entry["kind"] != "not_created"]
    left_out = [entry for entry in entries if " ".join(entry["text"].split())[:60] not in printed]
    # Only losses may be left to the report, where there are too many lines.
    assert [entry for entry in left_out if entry not in told["lost"]] == []
    assert len(left_out) < len(told["lost"]) and "… more in the report" in printed
    assert "project tag 'v3'" in printed


def told(root: Path) -> List[str]:
    """Findings of the newest run, without ids, which differ between two organizations."""
    return sorted(
        ID.sub("ID", repr(sorted(finding.items()))) for finding in report(root)["findings"]
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> List[str]:
    root = tmp_path_factory.mktemp("clean") / "runs"
    with tiny_pair() as pair:
        assert run(pair.sandbox, root, **SMALL).code == 0
    return told(root)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "at", [20, 41, *(pytest.param(at, marks=pytest.mark.long) for at in (2, 7, 13, 27, 33, 47, 55))]
)
@pytest.mark.variants(1)
def test_a_kill_changes_no_count_of_a_finding(
    at: int, moment: str, undisturbed: List[str], tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        kill = AtRequest(at, moment, signal.SIGKILL, lambda method, path: is_insert(path))
        assert run_with(pair, tmp_path / "runs", kill, **SMALL).code == -signal.SIGKILL
        assert run(pair.sandbox, tmp_path / "runs", **SMALL).code == 0
        assert told(tmp_path / "runs") == undisturbed


def test_a_waiting_reference_is_reported_once_however_often_the_run_is_resumed(
    tmp_path: Path,
) -> None:
    with tiny_pair() as pair:
        args = ("--resources", "logs")
        first = run(pair.sandbox, tmp_path / "runs", *args)
        before = told(tmp_path / "runs")
        counts = [
            finding["count"]
            for finding in findings(tmp_path / "runs", "unresolved_reference")
            if finding["resource"] == "logs"
        ]
        again = run(pair.sandbox, runs(tmp_path / "runs")[0], *args)
        assert (first.code, again.code, len(counts) > 0) == (1, 1, True)
        assert told(tmp_path / "runs") == before


def test_a_reference_that_was_resolved_is_no_longer_reported(tmp_path: Path) -> None:
    with tiny_pair() as pair:
        told_of: List[Any] = []
        for program in ("migrate_logs", "migrate_datasets", "migrate_definitions"):
            run(pair.sandbox, tmp_path / "runs", program=program)
            told_of.append(
                sorted(
                    finding["path"]
                    for finding in findings(tmp_path / "runs", "waits")
                    if finding["resource"] == "logs"
                )
            )
        assert ([len(item) for item in told_of], len(runs(tmp_path / "runs"))) == ([4, 2, 0], 1)


def test_a_comment_that_was_refused_before_a_kill_is_reported_after_it(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        w.source.insert("project_logs", w.project, small_rows(40))
        comment_as_server(w, "project_logs", w.project, "r00001", comment(1))
        w.sandbox.refuse = forbidding('"c0001"', status=400, path="/logs3")
        settings = {"MIGRATION_EVENTS_INSERT_BATCH_SIZE": "8", "MIGRATION_MAX_CONCURRENT": "1"}
        kill = AtRequest(5, "before", signal.SIGKILL, lambda method, path: is_insert(path))
        run_with(w, w.root, kill, program="migrate_logs", **settings)
        assert w.move("project_logs", **settings) == 1
        assert [
            (finding["count"], finding["row"]) for finding in findings(w.root, "comment_refused")
        ] == [(1, "r00001")]
