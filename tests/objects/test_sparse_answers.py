"""Answers of writes that are not as the object is read: nobody has changed what nobody changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

import bt_migrate.sandbox.routes.table as routes
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.server import Incoming
from tests.support.compare_orgs import differences
from tests.support.orgs import DEST_KEY, Pair, environment, report, run, runs, tiny_pair

Json = Dict[str, Any]
WRITES = ("POST", "PUT", "PATCH")
# What every object of the API has, and what a natural key consists of.
ALWAYS = (
    "id", "name", "slug", "created", "_xact_id", "org_id", "project_id", "object_type", "object_id",
    "deleted_at", "email",
)  # fmt: skip


def only_ids(method: str, obj: Json) -> Json:
    """The answer of a write holds nothing of the content."""
    return {name: obj[name] for name in ALWAYS if name in obj} if method in WRITES else obj


def as_sent(method: str, obj: Json) -> Json:
    """The answer of a write holds no nulls; a read shows them, nested ones too, in its order.

    The sandbox itself answers with 1.0 as it was sent, and shows 1.
    """
    if method in WRITES:
        return {name: value for name, value in obj.items() if value is not None}
    return {name: _as_read(value) for name, value in obj.items()}


def _as_read(value: Any) -> Any:
    if isinstance(value, dict):
        return {**{name: _as_read(value[name]) for name in sorted(value)}, "nothing": None}
    return [_as_read(item) for item in value] if isinstance(value, list) else value


CHANGES = {"only ids": only_ids, "as sent": as_sent}


@pytest.fixture(params=sorted(CHANGES))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    change = CHANGES[request.param]
    with tiny_pair(ago_s=86400) as organizations:
        watch = organizations.sandbox.intercept

        def intercept(incoming: Incoming) -> Optional[Answer]:
            refused = watch(incoming) if watch else None
            ours = incoming.headers.get("Authorization", "").endswith(DEST_KEY)
            objects = incoming.path.startswith("/v1/") and not incoming.path.endswith("/insert")
            if refused is not None or not ours or not objects:
                return refused
            made = routes.answer(
                organizations.sandbox.api,
                incoming.method,
                incoming.path,
                incoming.headers,
                incoming.body,
            )
            body = json.loads(made.body) if made.status == 200 else None
            if isinstance(body, dict):
                shown = (
                    {**body, "objects": [change(incoming.method, obj) for obj in body["objects"]]}
                    if "objects" in body
                    else change(incoming.method, body)
                )
                made.body = json.dumps(shown).encode()
            return made

        organizations.sandbox.intercept = intercept
        yield organizations


KINDS = ("prompt", "function", "dataset", "experiment", "project_score", "project_tag", "group")
NEW = "changed there"


def changed(org: Any) -> List[str]:
    """The names of the objects that have the new description, by kind."""
    return [
        f"{kind} {obj['name']}"
        for kind in KINDS
        for obj in org.objects(kind)
        if obj["description"] == NEW
    ]


def differs(root: Path) -> List[str]:
    problems = [obj for obj in report(root)["problems"] if obj["outcome"] == "differs"]
    return [
        f"{obj['resource']} {obj['name']}: {obj.get('reason')} {obj.get('fields')}"
        for obj in problems
    ]


@pytest.mark.variants(1)
def test_sparse_answers_of_writes_do_not_look_like_changes_to_the_next_sync(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    assert run(pair.sandbox, root, "--since-last").code in (0, 1)  # 1: a user is to be invited
    assert differs(root) == []
    pair.sandbox.clear_requests()
    again = run(pair.sandbox, root, "--since-last")
    assert pair.sandbox.writes("globex") == [], again.out
    for kind in KINDS:
        first = pair.source.objects(kind)[0]
        pair.source.patch(kind, first["id"], {"description": NEW})
    done = run(pair.sandbox, root, "--since-last")
    assert sorted(changed(pair.dest)) == sorted(changed(pair.source)), done.out
    assert differs(root) == []
    command = [sys.executable, "-m", "bt_migrate.phases.undo", str(runs(root)[-1]), "--yes"]
    env = environment(pair.sandbox)
    undone = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert undone.returncode == 0, undone.stdout + undone.stderr
    left = ("project", "function", "prompt", "dataset", "experiment", "group", "view")
    assert [obj["name"] for kind in left for obj in pair.dest.objects(kind)] == []


@pytest.mark.parametrize(
    "nonsense",
    [b"7", *(pytest.param(text, marks=pytest.mark.long) for text in (b'{"error": "no"}', b""))],
    ids=str,
)
def test_objects_whose_creation_was_answered_with_nonsense_are_completed(
    nonsense: bytes, tmp_path: Path
) -> None:
    with tiny_pair(ago_s=86400) as organizations:
        watch = organizations.sandbox.intercept

        def intercept(request: Incoming) -> Optional[Answer]:
            refused = watch(request) if watch else None
            if refused is None and (request.method, request.path) == ("POST", "/v1/experiment"):
                api = organizations.sandbox.api
                routes.answer(api, "POST", request.path, request.headers, request.body)
                return Answer(200, nonsense)
            return refused

        organizations.sandbox.intercept = intercept
        first = run(organizations.sandbox, tmp_path / "runs", MIGRATION_RETRY_ATTEMPTS="1")
        assert (first.code, len(organizations.dest.objects("experiment"))) == (1, 3)
        organizations.sandbox.intercept = watch
        place = ["--state-dir", str(runs(tmp_path / "runs")[-1])]
        second = run(organizations.sandbox, tmp_path / "runs", *place)
        assert (second.code, differences(organizations)) == (0, []), second.out
