"""An organization filled by the official SDK is moved, and the SDK reads the same afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest

from bt_migrate.sandbox.http.server import Sandbox
from tests.support.orgs import TIME_LIMIT_S
from tests.support.sdk_routes import serve_sdk

pytest.importorskip("braintrust")

SUPPORT = Path(__file__).resolve().parent.parent / "support"
ROOT = SUPPORT.parent.parent
DOCUMENTED = (
    "_xact_id",
    "_pagination_key",
    "org_id",
    "project_id",
    "experiment_id",
    "dataset_id",
    "audit_data",
)  # assigned by each server


def sdk(sandbox: Sandbox, key: str, program: str, *arguments: str) -> None:
    environ = {
        **os.environ,
        "BRAINTRUST_API_KEY": key,
        "BRAINTRUST_APP_URL": sandbox.url,
        "BRAINTRUST_API_URL": sandbox.url,
    }
    done = subprocess.run(
        [sys.executable, str(SUPPORT / program), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def migrate(sandbox: Sandbox, root: Path) -> int:
    environ = {
        **os.environ,
        "BT_SOURCE_URL": sandbox.url,
        "BT_DEST_URL": sandbox.url,
        "BT_SOURCE_API_KEY": "sk-from",
        "BT_DEST_API_KEY": "sk-to",
        "PYTHONPATH": str(ROOT),
    }
    command = [
        sys.executable,
        "-m",
        "bt_migrate.phases.migrate_all",
        "--state-dir",
        str(root),
        "--full",
        "--history",
        "all",
    ]
    done = subprocess.run(
        command,
        env=environ,
        cwd=str(root.parent),
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    return done.returncode


def attachment_reference(org: Any) -> Dict[str, Any]:
    project = next(obj for obj in org.objects("project") if obj["name"] == "Alpha")
    files = [
        row["input"]["file"]
        for row in org.rows("project_logs", project["id"])
        if isinstance(row["input"], dict) and "file" in row["input"]
    ]
    return dict(files[0])


def pins(org: Any) -> List[Dict[str, str]]:
    """How the SDK is asked for each version of the prompt, and for what environments have."""
    greet = org.objects("prompt")[0]["id"]
    versions = [{"version": version["_xact_id"]} for version in org.versions("prompt", greet)]
    return [*versions, {"environment": "dev"}, {"environment": "production"}]


def read_back(sandbox: Sandbox, key: str, org: Any, folder: Path) -> Dict[str, Any]:
    asked = [attachment_reference(org), pins(org)]
    (folder / "reference.json").write_text(json.dumps(asked))
    sdk(sandbox, key, "sdk_reader.py", str(folder / "reference.json"), str(folder / "read.json"))
    value: Dict[str, Any] = json.loads((folder / "read.json").read_text())
    return value


def _create_prompt(org: Any, project: str) -> None:
    """A prompt of three versions, two of which are assigned to environments."""
    for slug in ("dev", "production"):
        org.create("environment", {"name": slug, "slug": slug})

    def data(text: str) -> Dict[str, Any]:
        message = {"role": "user", "content": text}
        return {"prompt": {"type": "chat", "messages": [message]}, "options": {"model": "gpt"}}

    body = {"project_id": project, "name": "Greet", "slug": "greet"}
    made = org.create("prompt", {**body, "prompt_data": data("Hi {{name}}")})
    second = org.patch("prompt", made["id"], {"prompt_data": data("Dear {{name}}")})
    org.patch("prompt", made["id"], {"prompt_data": data("Hello {{name}}")})
    org.assign(made["id"], "production", made["_xact_id"])
    org.assign(made["id"], "dev", second["_xact_id"])


def trees(org: Any) -> List[Dict[str, Any]]:
    """All log rows without what each server assigns, comments by their text and id."""
    project = next(obj for obj in org.objects("project") if obj["name"] == "Alpha")
    rows = []
    for row in org.rows("project_logs", project["id"]):
        kept = {
            name: value
            for name, value in row.items()
            if name not in (*DOCUMENTED, "comments") and value is not None
        }
        kept["comments"] = [
            (comment["id"], comment["comment"]["text"]) for comment in row.get("comments") or []
        ]
        rows.append(
            json.loads(json.dumps(kept).replace(str(attachment_reference(org)["key"]), "KEY"))
        )
    return sorted(rows, key=lambda row: str(row["id"]))


def test_what_the_sdk_wrote_arrives_and_can_be_read_by_the_sdk(tmp_path: Path) -> None:
    with Sandbox() as sandbox:
        serve_sdk(sandbox)
        source, dest = (
            sandbox.add_org("from", api_key="sk-from"),
            sandbox.add_org("to", api_key="sk-to"),
        )
        project = source.create("project", {"name": "Alpha"})
        _create_prompt(source, project["id"])
        sdk(sandbox, "sk-from", "sdk_program.py", str(tmp_path / "told.json"))
        before = read_back(sandbox, "sk-from", source, tmp_path)
        migrate(sandbox, tmp_path / "runs")
        texts = [messages[0]["content"] for _, messages in before["versions"]]
        assert texts == ["Hi Bob", "Dear Bob", "Hello Bob", "Dear Bob", "Hi Bob"]
        assert read_back(sandbox, "sk-to", dest, tmp_path) == before
        assert trees(dest) == trees(source)
        sandbox.clear_requests()
        migrate(sandbox, tmp_path / "runs")
        assert (sandbox.writes("to"), sandbox.writes("from"), sandbox.leaks()) == ([], [], [])
