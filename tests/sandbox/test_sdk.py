"""The official SDK works against the sandbox, and what it wrote is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from bt_migrate.sandbox.http.server import Sandbox, SandboxOrg
from tests.support.orgs import TIME_LIMIT_S
from tests.support.sdk_routes import serve_sdk

# There is no release of the SDK for every Python that bt_migrate runs on.
pytest.importorskip("braintrust")

PROGRAM = Path(__file__).parent.parent / "support" / "sdk_program.py"
PROMPT = {
    "prompt": {"type": "chat", "messages": [{"role": "user", "content": "Hi {{name}}"}]},
    "options": {"model": "gpt-4o"},
}
Told = Dict[str, Any]
Played = Tuple[Sandbox, SandboxOrg, Told]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    """A sandbox after the SDK's day, its organization, and what the SDK reported."""
    folder = tmp_path_factory.mktemp("sdk")
    with Sandbox() as sandbox:
        serve_sdk(sandbox)
        acme = sandbox.add_org("acme", api_key="sk-acme")
        project = acme.create("project", {"name": "Alpha"})["id"]
        acme.create(
            "prompt",
            {"project_id": project, "name": "Greet", "slug": "greet", "prompt_data": PROMPT},
        )
        settings = {"APP_URL": sandbox.url, "API_URL": sandbox.url, "API_KEY": "sk-acme"}
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("BRAINTRUST_")
        }
        environment.update(
            {"BRAINTRUST_" + name: value for name, value in settings.items()}, HOME=str(folder)
        )
        command = [sys.executable, str(PROGRAM), str(folder / "told.json")]
        done = subprocess.run(
            command,
            env=environment,
            cwd=str(folder),
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
        )
        assert done.returncode == 0, done.stderr
        yield sandbox, acme, json.loads((folder / "told.json").read_text())


def logs(acme: SandboxOrg) -> Dict[str, Dict[str, Any]]:
    return {row["id"]: row for row in acme.rows("project_logs", acme.objects("project")[0]["id"])}


def experiment_rows(acme: SandboxOrg, name: str) -> List[Dict[str, Any]]:
    found = [item["id"] for item in acme.objects("experiment") if item["name"] == name]
    return acme.rows("experiment", found[0])


def test_every_request_of_the_sdk_was_answered_and_none_leaked_the_key(played: Played) -> None:
    sandbox, _, _ = played
    # An experiment without a base is answered with 400.
    failed = [
        r for r in sandbox.requests if r.status >= 400 and r.path != "/api/base_experiment/get_id"
    ]
    assert (failed, sandbox.leaks()) == ([], [])


def test_nested_spans_arrive_as_a_tree(played: Played) -> None:
    _, acme, told = played
    rows = logs(acme)
    root, model, leaf = (rows[told["spans"][name]] for name in ("root", "model", "leaf"))
    assert [row["span_attributes"]["name"] for row in (root, model, leaf)] == [
        "root",
        "model",
        "leaf",
    ]
    assert (root["is_root"], model["is_root"], leaf["is_root"]) == (True, False, False)
    assert (model["span_parents"], leaf["span_parents"]) == ([root["span_id"]], [model["span_id"]])
    assert {row["root_span_id"] for row in (root, model, leaf)} == {root["root_span_id"]}
    assert (root["input"], root["output"], root["tags"]) == (
        {"question": "é\U0001f600"},
        [1, None, 2.5],
        ["t"],
    )
    assert (model["output"], model["metadata"], model["metrics"]["tokens"]) == (
        "o",
        {"model": "m"},
        3,
    )
    assert leaf["error"] == "boom"


def test_feedback_is_merged_and_its_comment_is_kept(played: Played) -> None:
    _, acme, told = played
    row = logs(acme)[told["spans"]["root"]]
    assert row["scores"] == {"fast": 0.5, "human": 1}
    comments = [
        (item["comment"], item["metadata"], item["origin"]["id"]) for item in row["comments"]
    ]
    assert comments == [({"text": "well done"}, {"user_id": "u1"}, row["id"])]
    assert len(logs(acme)) == 4  # comments are no rows


def test_an_attachment_is_uploaded_and_downloaded(played: Played) -> None:
    sandbox, acme, told = played
    key = told["attachment"]["key"]
    assert acme.attachment(key) == b"hello" * 1000
    assert told["attachment"]["read back"] == "hello" * 1000
    assert logs(acme)[told["attachment"]["span"]]["input"] == {
        "file": {
            "type": "braintrust_attachment",
            "filename": "h.txt",
            "content_type": "text/plain",
            "key": key,
        }
    }
    assert sum(1 for request in sandbox.requests if request.origin == "files") == 2


def test_a_dataset_is_built_and_iterated(played: Played) -> None:
    _, acme, told = played
    rows = acme.rows("dataset", told["dataset"]["id"])
    assert [[row["id"], row["input"], row["expected"], row["metadata"]] for row in rows] == [
        ["row%d" % number, {"n": number}, number, {"k": number}] for number in (0, 1, 3, 4)
    ]
    # The SDK asks for no order, and gets the newest first.
    assert told["dataset"]["rows"] == [
        [r["id"], r["input"], r["expected"], r["metadata"]] for r in reversed(rows)
    ]
    assert told["dataset"]["version"] == max(row["_xact_id"] for row in rows)
    made = acme.objects("dataset")[0]
    assert (made["name"], made["description"], made["metadata"]) == ("Questions", "d", {"m": 1})


def test_experiments_are_logged_evaluated_and_opened_again(played: Played) -> None:
    _, acme, told = played
    assert told["experiments"] == {
        "by hand": {"exact": 0.25},
        "evaluated": {"exact": 0.5},
        "opened": ["of row0", "of row1", "of row3", "of row4"],
    }
    by_hand = acme.objects("experiment")[0]
    assert (by_hand["name"], by_hand["dataset_id"], by_hand["metadata"]) == (
        "by hand",
        told["dataset"]["id"],
        {"m": [1]},
    )
    assert by_hand["dataset_version"] == told["dataset"]["version"]
    rows = experiment_rows(acme, "by hand")
    assert sorted((row["id"], row["output"], row["scores"]["exact"]) for row in rows) == [
        ("of row%d" % number, number, 0.25) for number in (0, 1, 3, 4)
    ]
    cases = [row for row in experiment_rows(acme, "evaluated") if row["is_root"]]
    assert sorted((row["input"], row["output"], row["expected"]) for row in cases) == [
        (1, 1, 1),
        (2, 2, 3),
    ]


def test_a_prompt_that_the_api_made_is_loaded(played: Played) -> None:
    _, acme, told = played
    assert told["prompt"] == {
        "id": acme.objects("prompt")[0]["id"],
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "Hi Bob"}],
    }
