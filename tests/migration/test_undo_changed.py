"""Undo of what changed since the run, and of what the run had updated."""

from __future__ import annotations

import json
import signal
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from bt_migrate.migration.undo_objects import CHANGED_SINCE_RUN, reason_to_leave
from bt_migrate.model.resource_table import AI_SECRETS, DATASETS
from bt_migrate.objects.decide import fingerprint
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.state.run_record import RunRecord
from bt_migrate.state.window_log import record_undone, record_window, windows_taken
from tests.support.orgs import AtRequest, Pair, everything, run, run_with, runs
from tests.support.run_state import identity
from tests.support.undoing import GRAPH, found, inhabit, plain, shift_dates, undo, undo_run

# Changed since ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "existing", "expected"),
    [
        (DATASETS, {"id": "d", "name": "a", "tags": []}, ""),
        (DATASETS, {"id": "d", "name": "a", "tags": ["x"]}, CHANGED_SINCE_RUN),
        (AI_SECRETS, {"id": "d", "name": "a", "preview_secret": None}, ""),
        (
            AI_SECRETS,
            {"id": "d", "name": "a", "preview_secret": "***"},
            "its value was typed in since the run",
        ),
    ],
)
def test_an_object_that_changed_since_the_run_is_left(
    resource: Any, existing: Dict[str, Any], expected: str
) -> None:
    assert reason_to_leave(resource, fingerprint(resource, {"name": "a"}), existing) == expected


def an_hour_later(pair: Pair) -> None:
    """From here on transactions are dated an hour after the run."""
    pair.sandbox.store.clock._last = int(time.time() + 3600) << 16


@pytest.mark.parametrize(
    ("moment", "shows_facets"), [("before", True), ("after", True), ("after", False)]
)
@pytest.mark.variants(1)
def test_a_row_that_somebody_wrote_is_left_though_a_killed_run_recorded_no_delivery(
    moment: str, shows_facets: bool, pair: Pair, tmp_path: Path
) -> None:
    pair.sandbox.behaviour.spans_show_facets = shows_facets
    alpha = pair.dest.create("project", {"name": "Alpha/α"})["id"]
    root = tmp_path / "runs"
    place = AtRequest(1, moment, signal.SIGKILL, lambda _, path: path == "/logs3")
    logs = ("--resources", "logs", "--projects", "Alpha/α")
    assert run_with(pair, root, place, *logs).code == -signal.SIGKILL
    assert len(pair.dest.rows("project_logs", alpha)) == (250 if moment == "after" else 0)
    pair.dest.insert("project_logs", alpha, [{"id": "0003", "output": "a person's"}])
    done = undo(pair, root, "--yes")
    left = [row["id"] for row in pair.dest.rows("project_logs", alpha)]
    assert (done.code, left) == (1, ["0003"]), done.out + done.err
    assert "left: 1 row of logs 'Alpha/α': changed since the run" in done.out
    assert undo(pair, root, "--yes", "--changed").code == 0
    assert pair.dest.rows("project_logs", alpha) == []


def test_changed_objects_are_left_and_reported_and_deleted_on_request(
    pair: Pair, tmp_path: Path
) -> None:
    inhabit(pair)
    before, root = everything(pair.dest), tmp_path / "runs"
    run(pair.sandbox, root)
    alpha, beta = found(pair.dest, "project", "Alpha/α"), found(pair.dest, "project", "beta")
    (ask,) = [obj for obj in pair.dest.objects("prompt") if obj["project_id"] == beta["id"]]
    pair.dest.patch("prompt", ask["id"], {"description": "changed"})
    pair.dest.patch(
        "ai_secret", found(pair.dest, "ai_secret", "OPENAI")["id"], {"secret": "typed-in-by-hand"}
    )
    middle = found(pair.dest, "experiment", "middle")["id"]
    an_hour_later(pair)
    pair.dest.insert("experiment", middle, [{"id": "e3", "output": "reviewed"}])
    pair.dest.insert("project_logs", alpha["id"], [{"id": "0099", "input": "reviewed"}])
    done = undo(pair, root, "--yes")
    left = [line for line in done.out.splitlines() if line.startswith("left: ")]
    assert (done.code, sorted(left)) == (
        1,
        [
            "left: 1 row of logs 'Alpha/α': changed since the run",
            f"left: ai_secrets 'OPENAI' [{found(pair.dest, 'ai_secret', 'OPENAI')['id'][:8]}]: "
            "its value was typed in since the run",
            f"left: experiments 'middle' of 'Alpha/α' [{middle[:8]}]: holds rows that others wrote",
            f"left: projects 'beta' [{beta['id'][:8]}]: holds something that this run did not "
            "make, or that is left",
            f"left: prompts 'Ask' of 'beta' [{ask['id'][:8]}]: changed since the run",
        ],
    ), done.out
    there = everything(pair.dest)
    assert {ask["id"], middle, beta["id"]} <= there.keys()
    assert [
        row["id"]
        for row in there["project_logs" + alpha["id"]][0]
        if not row["id"].startswith("theirs")
    ] == ["0020", "0021", "0022", "0023", "0024", "0099"]
    check_rows_of_others_are_named(pair, root, middle)
    rest = undo(pair, root, "--yes", "--changed")
    assert (rest.code, plain(everything(pair.dest))) == (0, plain(before)), rest.out + rest.err


def check_rows_of_others_are_named(pair: Pair, root: Path, experiment: str) -> None:
    there = everything(pair.dest)
    listed = undo(pair, root, "--changed")
    assert everything(pair.dest) == there  # nobody was asked, and --yes was not given
    told = f"experiments 'middle' of 'Alpha/α' [{experiment[:8]}], with 1 row of others"
    assert told in " ".join(listed.out.split()), listed.out
    assert "1 of these rows written by others" in " ".join(listed.out.split()), listed.out
    in_json = json.loads(undo(pair, root, "--changed", "--json").out)
    assert (in_json["done"], in_json["rows_of_others"]) == (False, 1)


@pytest.mark.usefixtures("data_plane")
def test_who_wrote_a_row_last_is_not_decided_by_clocks(pair: Pair, tmp_path: Path) -> None:
    """A gateway whose dates are an hour ahead: the edit of a person seems to be from before."""
    root = tmp_path / "runs"
    shift_dates(pair.sandbox, 3600)
    assert run(pair.sandbox, root, "--resources", "datasets").code == 0
    questions = found(pair.dest, "dataset", "questions")["id"]
    (first, *_) = pair.dest.rows("dataset", questions)
    pair.dest.insert("dataset", questions, [{"id": first["id"], "input": "reviewed"}])
    done = undo(pair, root, "--yes")
    assert (done.code, [obj["id"] for obj in pair.dest.objects("dataset")]) == (1, [questions]), (
        done.out
    )


def test_an_experiment_that_nothing_proves_to_be_older_is_reported(
    pair: Pair, tmp_path: Path
) -> None:
    """The first phase, in a project that exists; the dates of answers are an hour ahead."""
    root = tmp_path / "runs"
    for project in pair.source.objects("project"):
        pair.dest.create("project", {"name": project["name"]})
    shift_dates(pair.sandbox, 3600)
    run(pair.sandbox, root, program="migrate_experiments")
    names = [obj["name"] for obj in pair.dest.objects("experiment")]
    done = undo(pair, root, "--yes")
    told = [name for name in names if f"left: experiments '{name}'" in done.out]
    assert (done.code, len(names) > 0, told) == (1, True, names), done.out


def test_a_later_read_only_process_does_not_hide_changes(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "runs"
    run(pair.sandbox, root, "--resources", "datasets")
    questions = found(pair.dest, "dataset", "questions")["id"]
    an_hour_later(pair)
    pair.dest.insert("dataset", questions, [{"id": "case 1", "input": "reviewed"}])
    later = formatdate(time.time() + 7200, usegmt=True)
    monkeypatch.setattr(
        BaseHTTPRequestHandler, "date_time_string", lambda self, timestamp=None: later
    )
    run(
        pair.sandbox,
        runs(root)[-1],
        "--resources",
        "datasets",
        program="verify",
        MIGRATION_VERIFY_WAIT="1",
    )
    monkeypatch.undo()
    done = undo(pair, root, "--yes")
    assert (done.code, [obj["id"] for obj in pair.dest.objects("dataset")]) == (1, [questions]), (
        done.out
    )


def test_what_cannot_be_deleted_keeps_its_project_and_is_tried_again(
    pair: Pair, tmp_path: Path
) -> None:
    before, root = everything(pair.dest), tmp_path / "runs"
    run(pair.sandbox, root)
    prompt = found(pair.dest, "prompt", "Ask")["id"]
    pair.sandbox.refuse = lambda method, path, raw: (
        Answer(403, b"no") if (method, path) == ("DELETE", f"/v1/prompt/{prompt}") else None
    )
    done = undo(pair, root, "--yes")
    left = [line.split(":")[1] for line in done.out.splitlines() if line.startswith("left")]
    beta = found(pair.dest, "project", "beta")["id"]
    assert (done.code, left) == (
        1,
        [f" prompts 'Ask' of 'beta' [{prompt[:8]}]", f" projects 'beta' [{beta[:8]}]"],
    ), done.out
    pair.sandbox.refuse = None
    assert (undo(pair, root, "--yes").code, everything(pair.dest)) == (0, before)


def test_the_servers_record_of_a_query_does_not_keep_a_project(pair: Pair, tmp_path: Path) -> None:
    before, root = everything(pair.dest), tmp_path / "runs"
    run(pair.sandbox, root)
    query = {
        "event_type": "async_query",
        "object_type": "project_logs",
        "object_id": "o",
        "query": "q",
        "format": "jsonl",
        "created_by_user_id": "u",
    }
    pair.dest.create(
        "project_automation",
        {"project_id": found(pair.dest, "project", "beta")["id"], "name": "query", "config": query},
    )
    done = undo(pair, root, "--yes")
    assert (done.code, everything(pair.dest)) == (0, before), done.out


def test_a_project_in_which_somebody_made_something_is_left(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run(pair.sandbox, root)
    beta = found(pair.dest, "project", "beta")["id"]
    theirs = pair.dest.create("dataset", {"project_id": beta, "name": "theirs"})["id"]
    for args in ((), ("--changed",)):
        done = undo(pair, root, "--yes", *args)
        assert (done.code, "holds something that this run did not make" in done.out) == (1, True), (
            done.out
        )
    assert (
        [obj["id"] for obj in pair.dest.objects("project")],
        [obj["id"] for obj in pair.dest.objects("dataset")],
    ) == ([beta], [theirs])


@pytest.mark.long
def test_rows_of_a_later_run_are_not_undone_with_this_run(pair: Pair, tmp_path: Path) -> None:
    """Rows that a second run adds to an object that the first one made: the second is undone by
    itself, then the first.
    """
    root = tmp_path / "runs"
    before = everything(pair.dest)
    run(pair.sandbox, root)
    between = everything(pair.dest)
    alpha = found(pair.source, "project", "Alpha/α")["id"]
    pair.source.insert("project_logs", alpha, [{"id": f"later {i}", "input": i} for i in range(30)])
    assert run(pair.sandbox, root).code == 0
    assert (undo(pair, root, "--yes").code, everything(pair.dest)) == (0, between)
    first = runs(root)[0]
    done = undo_run(pair, first, "--yes")
    assert (done.code, everything(pair.dest)) == (0, before), done.out + done.err


# Updated ------------------------------------------------------------------------------------------


def disturb(org: Any) -> List[str]:
    """Other content in one object of each kind that can be updated; their ids, but for the project
    whose settings these are.
    """
    alpha, beta = found(org, "project", "Alpha/α"), found(org, "project", "beta")
    org.patch("project", alpha["id"], {"settings": {"comparison_key": "other"}})
    org.patch(
        "project", beta["id"], {"settings": {"comparison_key": "theirs"}, "description": "theirs"}
    )
    changes: Dict[str, Tuple[str, Dict[str, Any]]] = {
        "ai_secret": ("OPENAI", {"metadata": {"k": 1.0}}),
        "role": ("outer", {"description": "theirs"}),
        "group": ("people", {"add_member_users": [obj["id"] for obj in org.objects("user")]}),
        "environment": ("Production", {"description": "theirs"}),
        "dataset": ("answers", {"description": "theirs", "tags": ["y"]}),
        "project_tag": ("red", {"color": "#00FF00"}),
        "span_iframe": ("frame", {"url": "https://theirs.example"}),
        "mcp_server": ("mcp", {"url": "https://theirs.example"}),
        "agent": ("agent", {"metadata": {"k": 1, "more": [1.5]}}),
        "function": ("First", {"function_data": {**GRAPH, "edges": {"e": {"purpose": "data"}}}}),
        "prompt": ("Ask", {"prompt_data": {"prompt": {"theirs": 1}}, "tags": ["t"]}),
        "project_score": ("Rating", {"config": {"destination": "expected"}}),
        "experiment": ("middle", {"description": "theirs", "tags": ["t"]}),
        "view": ("mine", {"view_data": {"search": {"filter": ["theirs"]}}}),
    }
    for kind, (name, fields) in changes.items():
        obj = found(org, kind, name)
        owner = {name: obj[name] for name in ("object_type", "object_id") if kind == "view"}
        org.patch(kind, obj["id"], {**owner, **fields})
    return [beta["id"], *(found(org, kind, name)["id"] for kind, (name, _) in changes.items())]


def content(found: Dict[str, Any]) -> Dict[str, Any]:
    """Without what a write changes by itself; what is unset is left out, as in the comparison of
    two organizations.
    """
    stamps = {"_xact_id", "updated_at", "secret_updated_at"}
    # `created` of a prompt or function is the date of its last version.
    versioned = {"created", *stamps}

    def kept(obj: Dict[str, Any]) -> Dict[str, Any]:
        left_out = versioned if {"slug", "_xact_id"} <= obj.keys() else stamps
        return {name: value for name, value in obj.items() if name not in left_out and value}

    return {key: kept(obj) if isinstance(obj, dict) else obj for key, obj in found.items()}


def test_undo_restores_what_an_update_overwrote(pair: Pair, tmp_path: Path) -> None:
    assert run(pair.sandbox, tmp_path / "first").code == 0
    changed = disturb(pair.dest)
    before, root = everything(pair.dest), tmp_path / "runs"
    assert run(pair.sandbox, root, "--on-conflict", "update", "--verify", "--full").code == 0
    assert [
        before[obj_id] for obj_id in changed if everything(pair.dest)[obj_id] == before[obj_id]
    ] == []
    after = everything(pair.dest)
    listed = undo(pair, root)
    assert (listed.code, listed.out.count("would restore: "), everything(pair.dest)) == (
        0,
        len(changed) + 2,
        after,
    ), listed.out
    done = undo(pair, root, "--yes")
    assert (done.code, content(everything(pair.dest))) == (0, content(before)), done.out + done.err
    pair.sandbox.clear_requests()
    again = undo(pair, root, "--yes")
    assert (again.code, pair.sandbox.writes("globex")) == (0, []), again.out


def test_the_address_of_a_webhook_that_an_update_overwrote_is_in_no_file(
    pair: Pair, tmp_path: Path
) -> None:
    assert run(pair.sandbox, tmp_path / "first").code == 0
    alert, root = found(pair.dest, "project_automation", "Alert"), tmp_path / "runs"
    secret = {"action": {"type": "webhook", "url": "https://hook.example/T0/secret"}}
    pair.dest.patch("project_automation", alert["id"], {"config": secret})
    assert run(pair.sandbox, root, "--on-conflict", "update").code == 0
    assert [
        path for path in root.rglob("*") if path.is_file() and b"T0/secret" in path.read_bytes()
    ] == []
    done = undo(pair, root, "--yes")
    assert (done.code, "Alert" in done.out and "what it was is not known" in done.out) == (
        1,
        True,
    ), done.out


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.variants(1)
def test_an_update_that_was_killed_is_restored_too(moment: str, pair: Pair, tmp_path: Path) -> None:
    assert run(pair.sandbox, tmp_path / "first").code == 0
    disturb(pair.dest)
    before, root = everything(pair.dest), tmp_path / "runs"
    for _ in range(2):
        place = AtRequest(
            3, moment, signal.SIGKILL, lambda method, path: method in ("PATCH", "PUT")
        )
        assert (
            run_with(
                pair, root, place, "--on-conflict", "update", "--resources", "datasets,prompts"
            ).code
            == -signal.SIGKILL
        )
        done = undo(pair, root, "--yes")
        assert (done.code, content(everything(pair.dest))) == (0, content(before)), (
            done.out + done.err
        )


def test_updated_objects_that_changed_since_are_left_and_restored_on_request(
    pair: Pair, tmp_path: Path
) -> None:
    assert run(pair.sandbox, tmp_path / "first").code == 0
    disturb(pair.dest)
    before, root = everything(pair.dest), tmp_path / "runs"
    run(pair.sandbox, root, "--on-conflict", "update", "--resources", "functions,prompts")
    first = found(pair.dest, "function", "First")["id"]
    pair.dest.patch("function", first, {"description": "changed"})
    done = undo(pair, root, "--yes")
    assert (
        done.code,
        f"left: functions 'First' of 'Alpha/α' [{first[:8]}]: changed since the run" in done.out,
    ) == (1, True), done.out
    assert found(pair.dest, "function", "First")["description"] == "changed"
    rest = undo(pair, root, "--yes", "--changed")
    assert (rest.code, content(everything(pair.dest))) == (0, content(before)), rest.out


def test_fields_that_patch_cannot_remove_are_reported(pair: Pair, tmp_path: Path) -> None:
    assert run(pair.sandbox, tmp_path / "first").code == 0
    answers = found(pair.dest, "dataset", "answers")["id"]
    pair.source.patch(
        "dataset",
        found(pair.source, "dataset", "answers")["id"],
        {"metadata": {"k": 1}, "description": "ours"},
    )
    run(pair.sandbox, tmp_path / "runs", "--on-conflict", "update")
    listed, done = undo(pair, tmp_path / "runs"), undo(pair, tmp_path / "runs", "--yes")
    there = found(pair.dest, "dataset", "answers")
    told = (
        f"left: datasets 'answers' of 'beta' [{answers[:8]}]: the API cannot take away what these "
        "fields hold beyond: metadata"
    )
    assert (done.code, told in done.out, told in listed.out, there["description"]) == (
        1,
        True,
        True,
        "",
    ), done.out


def test_an_object_completed_by_another_run_is_undone_with_the_run_that_created_it(
    pair: Pair, tmp_path: Path
) -> None:
    """A function made from an experiment, which only the second run brings."""
    before, root = everything(pair.dest), tmp_path / "runs"
    assert run(pair.sandbox, root, "--resources", "functions").code == 1
    assert run(pair.sandbox, root, "--resources", "experiments").code == 1
    first, second = runs(root)
    assert found(pair.dest, "function", "Made-From")["origin"] is not None
    for place in (second, first):
        done = undo_run(pair, place, "--yes")
        assert done.code == 0, done.out + done.err
    assert everything(pair.dest) == before


def test_the_window_of_an_undone_run_counts_as_not_copied(tmp_path: Path) -> None:
    window = {"after": "2026-01-01T00:00:00Z", "before": "2026-01-02T00:00:00Z"}
    today, renamed = identity(**window), identity(**window, renamed={"a": "b"})
    record = RunRecord(today.source, today.dest, today.selection, False)
    record.created = "2026-01-03T00:00:00Z"
    record_window(tmp_path, record, "first", "logs")
    before = (
        len(windows_taken(tmp_path, today, "logs")),
        len(windows_taken(tmp_path, renamed, "logs")),
    )
    record_undone(tmp_path, "first")
    assert (before, windows_taken(tmp_path, today, "logs")) == ((1, 0), [])
