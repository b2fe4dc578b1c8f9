"""Assignments of environments to prompts that are not whole yet in the destination."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import (
    ANA,
    DEST_KEY,
    SOURCE_KEY,
    Pair,
    WatchedSandbox,
    findings,
    report,
    run,
)
from tests.support.pinned import text

# An older data plane shows no assignments.
pytestmark = pytest.mark.recorded
REFUSED = Answer(400, b'{"Code": "BadRequestError", "Message": "no such model"}')


@pytest.fixture
def pair() -> Iterator[Pair]:
    with WatchedSandbox() as sandbox:
        source = sandbox.add_org("acme", api_key=SOURCE_KEY, users=[{"email": ANA}])
        dest = sandbox.add_org("globex", api_key=DEST_KEY, users=[{"email": ANA}])
        source.create("environment", {"name": "Production", "slug": "production"})
        source.create("project", {"name": "Alpha"})
        yield Pair(sandbox, source, dest)


def prompt(org: Any, slug: str, *tools: str) -> Any:
    """A prompt that uses these tools, in the only project."""
    (project,) = org.objects("project")
    data = {**text(1), "tool_functions": [{"type": "function", "id": tool} for tool in tools]}
    body = {"project_id": project["id"], "name": slug, "slug": slug, "prompt_data": data}
    return org.create("prompt", body)


def refuse_writes_of(pair: Pair, *words: bytes) -> None:
    """Let the destination refuse every prompt with one of these words."""

    def refuse(method: str, path: str, body: bytes) -> Optional[Answer]:
        is_write = method in ("POST", "PUT", "PATCH") and path.startswith("/v1/prompt")
        return REFUSED if is_write and any(word in body for word in words) else None

    pair.sandbox.refuse = refuse


def assigned(pair: Pair, slug: str) -> bool:
    """Whether the environment is assigned to the last version of the destination's prompt."""
    (there,) = [obj for obj in pair.dest.objects("prompt") if obj["slug"] == slug]
    return bool(pair.dest.assignments(there["id"]) == {"production": there["_xact_id"]})


@pytest.mark.parametrize(("slug", "path"), [("user", "object_version"), ("tool", "object_id")])
@pytest.mark.variants(1)
def test_an_assignment_waits_for_its_prompt_and_for_those_that_it_uses(
    slug: str, path: str, pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    tool = prompt(pair.source, "tool")
    prompts = {"tool": tool, "user": prompt(pair.source, "user", tool["id"])}
    pair.source.assign(prompts[slug]["id"], "production", prompts[slug]["_xact_id"])
    refuse_writes_of(pair, b'"tool"')
    ended = run(pair.sandbox, root, "--verify")
    waits = [(found["resource"], found["path"], found["ref"]) for found in findings(root, "waits")]
    assert (ended.code, waits) == (
        1,
        [("environment_assignments", path, tool["id"])],
    ), ended.out
    assert findings(root, "version_not_moved") == []

    refuse_writes_of(pair)
    again = run(pair.sandbox, root, "--verify")
    assert (again.code, assigned(pair, slug)) == (0, True), again.out
    assert "resuming run" in again.err


def test_a_plan_moves_an_assignment_whose_prompt_it_completes(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    user = prompt(pair.source, "user", prompt(pair.source, "tool")["id"])
    pair.source.assign(user["id"], "production", user["_xact_id"])
    refuse_writes_of(pair, b'"tool"')
    assert run(pair.sandbox, root).code == 1

    refuse_writes_of(pair)
    plan = run(pair.sandbox, root, "--dry-run", "--new-run")
    table = [line.split() for line in plan.out.splitlines()]
    counts = [row[1:] for row in table if row[:1] == ["environment_assignments"]]
    planned = [["1", "-", "-", "-", "1"]]
    assert (plan.code, counts, findings(root, "version_not_moved")) == (0, planned, []), plan.out


def test_an_assignment_waits_for_an_update_that_failed(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    user = prompt(pair.source, "user")
    assert run(pair.sandbox, root).code == 0
    changed = pair.source.patch("prompt", user["id"], {"prompt_data": text(2)})
    pair.source.assign(user["id"], "production", changed["_xact_id"])
    refuse_writes_of(pair, b"Version 2")
    update = ("--on-conflict", "update", "--new-run", "--verify")
    ended = run(pair.sandbox, root, *update)
    waits = [(found["resource"], found["ref"]) for found in findings(root, "waits")]
    assert (ended.code, waits) == (1, [("environment_assignments", user["id"])]), ended.out

    refuse_writes_of(pair)
    again = run(pair.sandbox, root, "--on-conflict", "update", "--verify")
    assert (again.code, assigned(pair, "user")) == (0, True), again.out


def test_an_assignment_to_an_earlier_version_is_lost(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    tool = prompt(pair.source, "tool")
    user = prompt(pair.source, "user", tool["id"])
    pair.source.patch("prompt", user["id"], {"description": "later"})
    pair.source.assign(user["id"], "production", user["_xact_id"])
    refuse_writes_of(pair, b'"tool"')
    ended = run(pair.sandbox, root, "--verify")
    lost = [found["resource"] for found in findings(root, "version_not_moved")]
    assert (ended.code, lost) == (1, ["environment_assignments"]), ended.out
    assert findings(root, "waits") == []


def test_a_later_sync_moves_an_assignment_that_waited(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    user = prompt(pair.source, "user")
    pair.source.assign(user["id"], "production", user["_xact_id"])
    assert run(pair.sandbox, root, "--verify").code == 0
    tool = prompt(pair.source, "tool")
    data = {**text(1), "tool_functions": [{"type": "function", "id": tool["id"]}]}
    changed = pair.source.patch("prompt", user["id"], {"prompt_data": data})
    pair.source.assign(user["id"], "production", changed["_xact_id"])
    sync = ("--since-last", "--on-conflict", "follow", "--verify")
    refuse_writes_of(pair, b'"tool"')
    assert run(pair.sandbox, root, *sync).code == 1

    refuse_writes_of(pair)
    again = run(pair.sandbox, root, *sync)
    assert (again.code, assigned(pair, "user")) == (0, True), again.out
    assert report(root)["failed"] == []
