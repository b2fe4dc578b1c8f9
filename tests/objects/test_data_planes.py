"""Writing to data planes of different ages: unknown fields, overwriting posts, sparse answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.support.orgs import (
    DEST_KEY,
    INLINE,
    Pair,
    WatchedSandbox,
    findings,
    function,
    recorded_pair,
    report,
    run,
)
from tests.support.undoing import undo


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A project with a dataset that has tags, on servers that behave as recorded."""
    with recorded_pair() as organizations:
        source = organizations.source
        alpha = source.create("project", {"name": "alpha"})["id"]
        fields = {"project_id": alpha, "name": "cases", "tags": ["a"]}
        dataset = source.create("dataset", fields)["id"]
        source.insert("dataset", dataset, [{"id": "r", "input": 1}])
        yield organizations


def project(org: Any) -> str:
    return str(org.objects("project")[0]["id"])


def test_a_field_that_an_older_data_plane_does_not_know_is_left_out_and_the_rows_move(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "state"
    with WatchedSandbox() as older:
        older.behaviour.datasets_have_tags = False
        dest = older.add_org("globex", api_key=DEST_KEY, users=[])
        done = run(pair.sandbox, root, "--verify", BT_DEST_URL=older.url)
        assert done.code == 0, done.out + done.err
        dataset = dest.objects("dataset")[0]
        assert "tags" not in dataset
        assert [row["id"] for row in dest.rows("dataset", dataset["id"])] == ["r"]
        for _ in range(2):
            found = findings(root, "field_not_taken")
            assert [(entry["name"], entry["path"], entry["severity"]) for entry in found] == [
                ("cases", "tags", "loss")
            ]
            done = run(pair.sandbox, root, "--verify", BT_DEST_URL=older.url)
            assert done.code == 0, done.out + done.err
        older.behaviour.datasets_have_tags = True
        with older.store.lock:
            older.store.entries["dataset"][dataset["id"]].data["tags"] = None
        done = run(pair.sandbox, root, "--verify", BT_DEST_URL=older.url)
        assert done.code == 0, done.out + done.err
        assert dest.objects("dataset")[0]["tags"] == ["a"]


@pytest.mark.parametrize("kind", ["function", "prompt", "experiment"])
def test_what_somebody_made_after_the_list_was_read_is_not_overwritten(
    pair: Pair, tmp_path: Path, kind: str
) -> None:
    def fields(org: Any, description: str) -> Any:
        body = {"project_id": project(org), "name": "same", "description": description}
        if kind != "experiment":
            body["slug"] = "same"
        return {**body, "function_data": INLINE} if kind == "function" else body

    pair.source.create(kind, fields(pair.source, "source"))

    def meanwhile(method: str, path: str, body: bytes) -> None:
        """Somebody creates the object in the destination after the projects are there."""
        if kind == "experiment":
            is_next = method == "POST" and path == "/v1/experiment"
        else:
            is_next = method == "GET" and path.startswith(f"/v1/{kind}?") and "same" in path
        if is_next and not pair.dest.objects(kind):
            pair.dest.create(kind, fields(pair.dest, "theirs"))

    pair.sandbox.refuse = meanwhile
    root = tmp_path / "state"
    done = run(pair.sandbox, root)
    assert done.code == 1, done.out + done.err
    assert [obj["description"] for obj in pair.dest.objects(kind)] == ["theirs"]
    assert report(root)["problems"][0]["outcome"] == "differs"


def test_fingerprints_of_what_was_written_come_from_a_read(pair: Pair, tmp_path: Path) -> None:
    alpha = project(pair.source)
    data = {"options": {"params": {"temperature": 1.0}}}
    function(pair.source, alpha, "scorer", INLINE, function_type="scorer", prompt_data=data)
    prompt = {"project_id": alpha, "name": "P", "slug": "p", "prompt_data": data}
    pair.source.create("prompt", prompt)
    owner = pair.source.objects("user")[0]["id"]
    pair.source.create("group", {"name": "people", "member_users": [owner]})
    root = tmp_path / "state"
    assert run(pair.sandbox, root).code == 0
    done = undo(pair, root, "--yes")
    left = [obj["name"] for kind in ("function", "group") for obj in pair.dest.objects(kind)]
    assert left == [], done.out


def test_what_the_api_of_october_2026_added_moves_and_is_equal(pair: Pair, tmp_path: Path) -> None:
    source, dest = pair.source, pair.dest
    alpha = project(source)
    first = function(source, alpha, "clean", INLINE, function_type="preprocessor")
    version = next(item for item in source.objects("function") if item["id"] == first)["_xact_id"]
    data = {"preprocessor": {"type": "function", "id": first, "version": version}}
    prompt = {"project_id": alpha, "name": "P", "slug": "p", "prompt_data": data}
    source.create("prompt", prompt)
    owner = {"object_type": "project", "object_id": alpha, "view_type": "monitor"}
    view = source.create("view", {**owner, "name": "v", "description": "d"})["id"]
    source.patch("view", view, {"object_type": "project", "object_id": alpha, "starred": True})
    config = {
        "event_type": "windowed",
        "window": {},
        "loop": {"target": {"type": "dashboard", "id": view}},
    }
    source.create("project_automation", {"project_id": alpha, "name": "watch", "config": config})
    root = tmp_path / "state"
    for _ in range(2):
        done = run(pair.sandbox, root, "--verify")
        assert done.code == 0, done.out + done.err
    moved = dest.objects("view")[0]
    assert (moved["description"], moved["starred"]) == ("d", True)
    automation = dest.objects("project_automation")[0]
    assert automation["config"]["loop"]["target"]["id"] == moved["id"]
    copied = next(entry for entry in dest.objects("function") if entry["slug"] == "clean")["id"]
    pointed = next(obj for obj in dest.objects("prompt") if obj["slug"] == "p")["prompt_data"]
    assert pointed == {"preprocessor": {"type": "function", "id": copied}}
    assert [finding["path"] for finding in findings(root, "version_pin_removed")] == [
        "prompt_data.preprocessor.version"
    ]
