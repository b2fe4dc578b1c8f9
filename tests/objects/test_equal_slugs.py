"""Slugs that are taken in the destination, by an equal one of the source or a deleted object."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any, Callable, Optional, Tuple
from urllib.parse import parse_qs, urlsplit

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.orgs import Pair, report, run, tiny_pair

WAIT_S = 0.5  # until it is clear that the second look-up waits for the first object


def one_slug_for_all_cases(pair: Pair, *, looks_up: bool) -> Callable[..., Optional[Answer]]:
    """A destination that ignores the case of slugs, in look-ups (if `looks_up`) and in POST.

    It answers look-ups when two of them have arrived: none shows what the other then creates.
    """
    both = threading.Barrier(2)

    def held(slug: str) -> Any:
        prompts = pair.dest.objects("prompt")
        return next((obj for obj in prompts if obj["slug"].lower() == slug.lower()), None)

    def fold(method: str, path: str, raw: bytes) -> Optional[Answer]:
        url = urlsplit(path)
        slugs = parse_qs(url.query).get("slug", [])
        if not url.path.startswith("/v1/prompt"):
            return None
        if method == "GET" and slugs and slugs[0].lower() == "tone":
            found = held(slugs[0])
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(WAIT_S)
            shown = [found] if found and looks_up else []
            return Answer(200, json.dumps({"objects": shown}).encode())
        if method != "POST" or not held(json.loads(raw)["slug"]):
            return None
        body = json.loads(raw)
        there = held(body["slug"])
        pair.dest.patch("prompt", there["id"], {"description": body["description"]})
        return Answer(200, json.dumps({**held(body["slug"]), "slug": body["slug"]}).encode())

    return fold


@pytest.mark.parametrize("history", ["none", "all"])
@pytest.mark.parametrize("looks_up", [True, False])
@pytest.mark.variants(1)
def test_a_slug_that_the_destination_takes_for_another_one_fails(
    history: str, looks_up: bool, tmp_path: Path
) -> None:
    with tiny_pair() as pair:
        project = pair.source.create("project", {"name": "slugs"})["id"]
        for slug in ("Tone", "tone"):
            body = {"project_id": project, "name": slug, "slug": slug, "description": slug}
            pair.source.create("prompt", {**body, "prompt_data": {"options": {}}})
        pair.sandbox.refuse = one_slug_for_all_cases(pair, looks_up=looks_up)
        options: Tuple[str, ...] = ("--projects", "slugs", "--resources", "prompts")
        done = run(pair.sandbox, tmp_path, *options, "--history", history)
        (there,) = pair.dest.objects("prompt")
        (failed,) = (item for item in report(tmp_path)["problems"] if item["outcome"] == "failed")
        assert (done.code, failed["reason"][-27:]) == (1, "rename one of the two there")
        if looks_up:
            assert there["description"] == there["slug"] != failed["name"]


@pytest.mark.parametrize("history", ["none", "all"])
@pytest.mark.parametrize("is_refused", [True, False])
def test_a_slug_that_a_deleted_prompt_holds_is_said(
    history: str, is_refused: bool, tmp_path: Path
) -> None:
    def hold(method: str, path: str, raw: bytes) -> Optional[Answer]:
        if method != "POST" or path != "/v1/prompt":
            return None
        if is_refused:
            return Answer(400, b"prompt: another one of this slug already exists")
        gone = {"id": "5f0c6c2e-6c1f-4d0b-9c5e-0f4c3b1a2d10", "_xact_id": "1000198292107362316"}
        deleted = {**json.loads(raw), **gone, "deleted_at": "2026-01-01T00:00:00Z"}
        return Answer(200, json.dumps(deleted).encode())

    with tiny_pair() as pair:
        pair.sandbox.refuse = hold
        only = ("--resources", "mcp_servers,functions,prompts")  # --history waits for all targets
        done = run(pair.sandbox, tmp_path, *only, "--history", history)
        (failed,) = report(tmp_path)["problems"]
        assert (done.code, pair.dest.objects("prompt")) == (1, []), done.out
        assert "a deleted object may hold the name" in failed["reason"]


@pytest.mark.parametrize("history", ["none", "all"])
def test_a_prompt_gets_the_slug_of_one_that_the_source_deleted(
    history: str, tmp_path: Path
) -> None:
    """The list of functions shows the former prompt too: it is no function."""
    sync = ("--projects", "slugs", "--resources", "prompts", "--history", history)
    with tiny_pair() as pair:
        project = pair.source.create("project", {"name": "slugs"})["id"]
        body = {"project_id": project, "name": "Tone", "slug": "tone", "prompt_data": {}}
        former = pair.source.create("prompt", body)
        assert run(pair.sandbox, tmp_path, *sync, "--since-last").code == 0
        pair.source.delete("prompt", former["id"])
        made = pair.source.create("prompt", body)
        pair.source.patch("prompt", made["id"], {"description": "new"})
        done = run(pair.sandbox, tmp_path, *sync, "--since-last")
        there = {obj["slug"]: obj for obj in pair.dest.objects("prompt")}
        assert (done.code, len(there), there["tone"]["description"]) == (0, 2, "new"), done.out
