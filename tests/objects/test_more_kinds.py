"""Kinds beyond the first ones: each moves, is found again, is equal, and can be undone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from bt_migrate.sandbox.data.behaviour import recorded
from tests.support.orgs import (
    DEST_KEY,
    INLINE,
    SOURCE_KEY,
    Pair,
    WatchedSandbox,
    environment,
    findings,
    function,
    report,
    run,
    runs,
)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two empty organizations on a server that behaves as recorded."""
    with WatchedSandbox() as sandbox:
        sandbox.store.behaviour = recorded()
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[])
        yield Pair(sandbox, source, sandbox.add_org("globex", api_key=DEST_KEY, users=[]))


def project(org: Any, name: str = "alpha") -> str:
    return str(org.create("project", {"name": name})["id"])


def undo(pair: Pair, root: Path) -> str:
    command = [sys.executable, "-m", "bt_migrate.phases.undo", str(runs(root)[-1]), "--yes"]
    env = environment(pair.sandbox)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=100).stdout


def outcomes(root: Path, resource: str) -> Dict[str, int]:
    found: Dict[str, int] = {}
    for entry in report(root)["objects"]:
        for outcome, count in entry["outcomes"].items() if entry["resource"] == resource else ():
            found[outcome] = found.get(outcome, 0) + count
    return found


def names(found: List[Dict[str, Any]]) -> List[str]:
    return sorted(entry["name"] for entry in found)


# -- environment variables


def fill_variables(org: Any) -> None:
    alpha = project(org)
    tool = function(org, alpha, "tool", INLINE, function_type="tool")
    fields = {"project_id": alpha, "name": "mcp", "url": "https://mcp.example"}
    server = org.create("mcp_server", fields)["id"]
    for object_type, object_id, name in (
        ("organization", org.id, "ORG"),
        ("project", alpha, "PROJECT"),
        ("function", tool, "TOOL"),
        ("mcp_server", server, "SERVER"),
    ):
        owner = {"object_type": object_type, "object_id": object_id}
        more = {"value": "never-to-be-read", "metadata": {"k": 1}}
        org.create("env_var", {**owner, "name": name, **more})


def test_environment_variables_are_made_without_values_and_listed_until_they_have_one(
    pair: Pair, tmp_path: Path
) -> None:
    fill_variables(pair.source)
    root = tmp_path / "state"
    done = run(pair.sandbox, root, "--verify")
    assert (done.code, outcomes(root, "env_vars")) == (0, {"created": 4}), done.out + done.err
    made = {obj["name"]: obj for obj in pair.dest.objects("env_var")}
    assert {name: obj["preview_secret"] for name, obj in made.items()} == dict.fromkeys(made)
    owners = {name: (obj["object_type"], obj["metadata"]) for name, obj in made.items()}
    assert owners == {
        "ORG": ("organization", {"k": 1}),
        "PROJECT": ("project", {"k": 1}),
        "TOOL": ("function", {"k": 1}),
        "SERVER": ("mcp_server", {"k": 1}),
    }
    assert names(findings(root, "secret_to_enter")) == ["ORG", "PROJECT", "SERVER", "TOOL"]
    lines = [line for line in report(root)["to_do"] if line["kind"] == "secret_to_enter"]
    assert [line["findings"] for line in lines] == [4]

    pair.dest.patch("env_var", made["ORG"]["id"], {"name": "ORG", "value": "entered-by-hand"})
    source = next(obj for obj in pair.source.objects("env_var") if obj["name"] == "ORG")
    pair.source.patch("env_var", source["id"], {"name": "ORG", "metadata": {"k": 2}})
    done = run(pair.sandbox, root, "--verify", "--since-last")
    assert (done.code, outcomes(root, "env_vars")) == (0, {"found": 3, "updated": 1}), done.err
    entered = next(obj for obj in pair.dest.objects("env_var") if obj["name"] == "ORG")
    assert (entered["preview_secret"], entered["metadata"]) == ("********and", {"k": 2})
    assert names(findings(root, "secret_to_enter")) == ["PROJECT", "SERVER", "TOOL"]
    undo(pair, root)
    assert names(pair.dest.objects("env_var")) == ["ORG"]
