"""Differences that a person accepted are listed as such, and nothing else is."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from tests.support.orgs import Ended, findings, report, runs
from tests.support.row_runs import Json, World, call
from tests.support.syncs import LOGS, add_prompt, living, merge, sync, twin

KEPT = [
    ("experiments", "extra", ""),
    ("prompts", "differs", ""),
    ("rows of logs", "differs", "r00003"),
]


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    """A synced source; there, somebody changed a prompt and a row and published an experiment."""
    with living(tmp_path) as w:
        add_prompt(w)
        assert sync(w).code == 0
        w.dest.patch("prompt", w.dest.objects("prompt")[0]["id"], {"description": "theirs"})
        merge(w.dest, LOGS, twin(w, LOGS), [{"id": "r00003", "metadata": {"theirs": 1}}])
        project = w.dest.objects("project")[0]["id"]
        w.dest.create("experiment", {"project_id": project, "name": "theirs", "public": True})
        yield w


def accept(w: World, *args: str) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        main = __import__("bt_migrate.phases.accept", fromlist=["main"]).main
        code = main([str(runs(w.root)[-1]), *args])
    return Ended(code, out.getvalue(), err.getvalue())


def records(end: Ended, name: str) -> List[Any]:
    found: List[Json] = json.loads(end.out)[name]
    return sorted((item["resource"], item["outcome"], item.get("row", "")) for item in found)


def verification(w: World) -> Dict[str, Any]:
    found: Dict[str, Any] = report(w.root)["verification"]
    return found


def test_an_accepted_difference_is_counted_and_not_a_failure_until_it_changes(w: World) -> None:
    first = sync(w, "--full")
    assert first.code == 1, first.last_words
    listed = accept(w, "--json")
    assert (listed.code, records(listed, "differences")) == (0, KEPT), listed.out
    unasked = accept(w, "--all")
    assert (unasked.code, "add --yes" in unasked.err) == (2, True)
    assert records(accept(w, "--list", "--json"), "accepted") == []
    accept(w, "--all", "--yes")
    green = sync(w, "--full")
    told = verification(w)
    assert (green.code, told["equal"], len(told["accepted"])) == (0, True, 3), green.last_words
    assert told["text"].startswith("equal, except what was accepted: objects 3 match, 2 accepted")
    assert "not as in the source, and accepted: Ask" in green.out
    assert call(w, "verify", "--full", "--quiet") == 0
    changed = {"description": "theirs again"}
    w.dest.patch("prompt", w.dest.objects("prompt")[0]["id"], changed)
    merge(w.dest, LOGS, twin(w, LOGS), [{"id": "r00003", "metadata": {"theirs": 2}}])
    again = sync(w, "--full")
    left = records(accept(w, "--json"), "differences")
    assert (again.code, left) == (1, KEPT[1:]), again.last_words
    last = again.out.splitlines()[-1]
    assert last.startswith("Next: bin/accept "), again.out


def test_differences_are_accepted_by_kind_name_or_id_and_can_be_withdrawn(w: World) -> None:
    sync(w, "--full")
    wrong = accept(w, "--only", "promts", "--yes")
    assert (wrong.code, "matches 'promts'; some exist of: prompts, " in wrong.err) == (2, True), (
        wrong.err
    )
    accepted = accept(w, "--only", "prompts,r0000?", "--yes", "--json")
    assert (records(accepted, "accepted"), records(accepted, "differences")) == (KEPT[1:], KEPT[:1])
    assert json.loads(accepted.out)["next_commands"][0].startswith("bin/migrate-all ")
    assert [item["name"] for item in findings(w.root, "accepted_difference")] == []
    assert sync(w).code == 0  # only objects that the source has are looked at
    assert [item["name"] for item in findings(w.root, "accepted_difference")] == ["Ask"]
    kept = accept(w, "--list")
    assert ("prompts 'Ask'" in kept.out, "; accepted by " in kept.out) == (True, True), kept.out
    gone = accept(w, "--remove", "--only", "Ask", "--yes", "--json")
    assert records(gone, "removed") == KEPT[1:2]
    assert sync(w).code == 1


def test_rows_that_a_copy_left_as_they_are_can_be_accepted(tmp_path: Path) -> None:
    with living(tmp_path, rows=3) as w:
        project = w.dest.create("project", {"name": "p00"})["id"]
        w.dest.insert(LOGS, project, [{"id": "r00001", "input": "theirs"}])
        assert call(w, "migrate_all", "--no-verify", "--quiet") == 1
        done = accept(w, "--only", "logs", "--yes", "--json")
        assert [item["detail"] for item in json.loads(done.out)["accepted"]] == ["rows: 1"]
        assert call(w, "migrate_all", "--no-verify", "--quiet") == 0
        w.dest.insert(LOGS, project, [{"id": "r00002", "input": "theirs"}])
        assert call(w, "migrate_all", "--no-verify", "--quiet") == 1


def test_files_of_another_shape_are_named(w: World) -> None:
    sync(w, "--full")
    run = runs(w.root)[-1]
    for name, text in (
        ("../accepted.json", '{"format": 1, "differences": [{"id": 5}]}'),
        ("verify/extra.jsonl", "[7]"),
        ("verify/extra.jsonl", '{"resource": "datasets", "fingerprint": 5}'),
    ):
        path = run / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(text, encoding="utf-8")
        end = accept(w, "--all", "--yes")
        assert (end.code, path.name in end.err, "internal error" in end.err) == (3, True, False)
        # a new run would read this one too
        assert ("or remove it" in end.err) == (path.name == "accepted.json")
        path.write_text(before, encoding="utf-8")
        if not before:
            path.unlink()
    assert accept(w, "--all", "--yes").code == 0
