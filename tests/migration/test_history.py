"""Earlier versions are written once, in order, and every pin names the same content."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.kills import Kill, at_requests, seeded_kills, starts
from tests.support.orgs import (
    AtRequest,
    Pair,
    example_pair,
    findings,
    function,
    report,
    run,
    run_with,
    runs,
)
from tests.support.pinned import (
    histories,
    pinned_content,
    pinned_pair,
    prompt_of_five,
    text,
)
from tests.support.undoing import undo

ALL = ("--history", "all")


def is_version(method: str, path: str) -> bool:
    """Whether a request writes a prompt or function."""
    return method in ("POST", "PUT", "PATCH") and path.startswith(("/v1/prompt", "/v1/function"))


def versions_written(pair: Pair) -> int:
    return sum(
        is_version(request.method, request.path) for request in pair.sandbox.writes("globex")
    )


def assert_equal(pair: Pair) -> None:
    assert histories(pair.dest) == histories(pair.source)
    assert pinned_content(pair.dest) == pinned_content(pair.source)


def greet_of(org: Any) -> Dict[str, Any]:
    return next(dict(prompt) for prompt in org.objects("prompt") if prompt["slug"] == "greet")


def test_all_versions_arrive_in_order_and_every_pin_names_the_same_content(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        done = run(pair.sandbox, tmp_path / "runs", *ALL, "--verify", "--full")
        assert done.code == 0, done.last_words
        assert_equal(pair)
        total = sum(map(len, histories(pair.source).values()))
        assert versions_written(pair) == total
        verified = report(tmp_path / "runs")["verification"]
        assert (verified["text"][:6], verified["tolerated"].get("version")) == ("equal:", None)
        assert [record["kind"] for record in report(tmp_path / "runs")["findings"]] == [
            "key_to_make"
        ]

        # A second run, which knows nothing of the first, writes nothing.
        pair.sandbox.clear_requests()
        done = run(pair.sandbox, tmp_path / "again", *ALL)
        assert (done.code, pair.sandbox.writes("globex")) == (0, []), done.last_words


def test_a_sync_adds_new_versions_and_moves_assignments(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        run(pair.sandbox, tmp_path / "runs", *ALL)
        pair.sandbox.clear_requests()
        greet = greet_of(pair.source)["id"]
        pair.source.patch("prompt", greet, {"prompt_data": text(6)})
        newest = pair.source.patch("prompt", greet, {"prompt_data": text(7)})["_xact_id"]
        pair.source.assign(greet, "dev", newest)
        done = run(pair.sandbox, tmp_path / "runs", *ALL, "--since-last", "--verify", "--full")
        assert done.code == 0, done.last_words
        assert_equal(pair)
        assert versions_written(pair) == 2
        pair.sandbox.clear_requests()
        done = run(pair.sandbox, tmp_path / "runs", *ALL, "--since-last")
        assert (done.code, pair.sandbox.writes("globex")) == (0, []), done.last_words


def test_a_version_that_only_the_destination_has_is_a_difference(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        run(pair.sandbox, tmp_path / "runs", *ALL)
        there = greet_of(pair.dest)
        pair.dest.patch("prompt", there["id"], {"description": "changed"})
        pair.dest.patch("prompt", there["id"], {"description": there["description"]})
        done = run(pair.sandbox, tmp_path / "runs", *ALL, program="verify")
        found = report(tmp_path / "runs")["verification"]["differences"]
        assert (done.code, [(entry["name"], entry["fields"]) for entry in found]) == (
            1,
            [("Greeting", ["versions"])],
        )

        undone = undo(pair, tmp_path / "runs", "--yes", "--changed")
        assert (undone.code, pair.dest.objects("project")) == (0, []), undone.out


@pytest.mark.parametrize("kill", [None, 1, 2, 3])
@pytest.mark.variants(1)
def test_a_sync_writes_all_versions_of_an_object_that_was_made_again_under_its_slug(
    kill: Optional[int], tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        assert run(pair.sandbox, root, *ALL).code == 0
        former = greet_of(pair.dest)["id"]
        source = pair.source
        old = greet_of(source)
        source.delete("prompt", old["id"])
        greet = prompt_of_five(source, old["project_id"])
        source.patch("prompt", greet, {"prompt_data": text(6)})
        pins = [version["_xact_id"] for version in source.versions("prompt", greet)]
        for tool, number in (("first", 1), ("second", 4)):
            (used,) = [obj for obj in source.objects("function") if obj["slug"] == tool]
            uses = [{"type": "function", "id": greet, "version": pins[number]}]
            source.patch("function", used["id"], {"prompt_data": {"tool_functions": uses}})
        if kill:
            at = AtRequest(kill, "after", signal.SIGKILL, is_version)
            run_with(pair, root, at, *ALL, "--since-last")
        done = run(pair.sandbox, root, *ALL, "--since-last")
        assert done.code == 0, done.last_words
        there = greet_of(pair.dest)
        assert there["id"] != former
        contents = [version["prompt_data"] for version in pair.dest.versions("prompt", there["id"])]
        assert contents == [v["prompt_data"] for v in source.versions("prompt", greet)]
        assert pinned_tools(pair.dest) == pinned_tools(source)
        renamed = [obj for obj in pair.dest.objects("prompt") if obj["id"] == former]
        assert [obj["slug"] for obj in renamed] == [f"greet (was {former[:8]})"]
        pair.sandbox.clear_requests()
        done = run(pair.sandbox, root, *ALL, "--since-last")
        assert (done.code, pair.sandbox.writes("globex")) == (0, []), done.last_words


def pinned_tools(org: Any) -> Dict[str, Any]:
    """Tool -> the content of the version of the prompt that its latest version uses."""
    found = {}
    for obj in org.objects("function"):
        for tool in (obj["prompt_data"] or {}).get("tool_functions") or []:
            versions = {v["_xact_id"]: v for v in org.versions("prompt", tool["id"])}
            found[obj["slug"]] = versions[tool["version"]]["prompt_data"]
    return found


@pytest.mark.recorded  # an older data plane shows no assignments of environments
def test_without_history_the_earlier_versions_that_stay_behind_are_named(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        done = run(pair.sandbox, tmp_path / "runs", "--verify")
        assert done.code == 0, done.last_words
        # The two tools need each other: a second pass completes them.
        assert {slug: len(found) for slug, found in histories(pair.dest).items()} == {
            "greet": 1, "first": 2, "second": 2, "tuning": 1,
        }  # fmt: skip
        left = findings(tmp_path / "runs", "earlier_versions")
        assert {found["name"]: found["detail"] for found in left} == {
            "Greeting": "4 earlier versions",
            "Tuning": "2 earlier versions",
            "first": "1 earlier version",
            "second": "1 earlier version",
        }
        # The latest version is assigned as in the source; the others are named.
        greet = greet_of(pair.dest)
        assert pair.dest.assignments(greet["id"]) == {"dev": greet["_xact_id"]}
        lost = findings(tmp_path / "runs", "version_not_moved")
        source_id = greet_of(pair.source)["id"]
        assert sorted((found["name"], found["detail"]) for found in lost) == [
            (f"production of prompt {source_id}", "prompt 'Greeting'"),
            (f"staging of prompt {source_id}", "prompt 'Greeting'"),
        ]
        pins = {found["path"] for found in findings(tmp_path / "runs", "version_pin_removed")}
        assert pins == {
            "prompt_data.tool_functions[0].version",
            "parameters_version",
            "origin._xact_id",
            "metadata.prompt.version",
        }


def test_the_last_versions_can_be_asked_for(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        done = run(pair.sandbox, tmp_path / "runs", "--history", "2", "--verify", "--full")
        assert done.code == 0, done.last_words
        source, dest = histories(pair.source), histories(pair.dest)
        assert [version["name"] for version in dest["greet"]] == ["Greet", "Greeting", "Greeting"]
        assert {slug: len(found) for slug, found in dest.items()} == {
            slug: min(3, len(found)) for slug, found in source.items()
        }
        left = findings(tmp_path / "runs", "earlier_versions")
        assert {found["name"]: found["detail"] for found in left} == {
            "Greeting": "2 earlier versions"
        }
        pair.sandbox.clear_requests()
        done = run(pair.sandbox, tmp_path / "again", "--history", "2")
        assert (done.code, pair.sandbox.writes("globex")) == (0, []), done.last_words


@pytest.mark.recorded  # an older data plane shows no assignments of environments
def test_a_plan_counts_the_versions_and_takes_no_pin_for_lost(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        for history, versions, lost in (
            ("all", 5, set()),
            ("none", None, {"production", "staging"}),
        ):
            out = tmp_path / f"{history}.json"
            arguments = ("--history", history, "--dry-run", "--plan-out", str(out))
            done = run(pair.sandbox, tmp_path / "runs", *arguments)
            assert (done.code, pair.sandbox.writes("globex")) == (0, []), done.last_words
            plan = json.loads(out.read_text(encoding="utf-8"))
            greet = next(record for record in plan["objects"] if record["resource"] == "prompts")
            assert (greet["action"], greet.get("versions")) == ("create", versions)
            named = [record for record in plan["losses"] if record["kind"] == "version_not_moved"]
            assert {record["name"].split()[0] for record in named} == lost
            lost_pins = [one for one in plan["losses"] if one["kind"] == "version_pin_removed"]
            pinned = {"first", "second", "tuned", "questions", "Alpha"}
            names = {one["name"] for one in lost_pins}
            assert names == (set() if history == "all" else pinned)


def test_earlier_versions_are_not_written_after_those_of_the_destination(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        assert run(pair.sandbox, tmp_path / "latest").code == 0
        pair.sandbox.clear_requests()
        done = run(pair.sandbox, tmp_path / "runs", *ALL, "--verify")
        assert (done.code, versions_written(pair)) == (0, 0), done.last_words
        left = findings(tmp_path / "runs", "earlier_versions")
        assert {found["name"] for found in left} == {"Greeting", "Tuning", "first", "second"}
        verified = report(tmp_path / "runs")["verification"]
        assert verified["text"].startswith("equal, except what cannot be moved"), verified["text"]


@pytest.mark.parametrize("at", range(1, 6))
def test_a_version_whose_answer_was_lost_is_not_written_twice(at: int, tmp_path: Path) -> None:
    def lose() -> None:
        raise ConnectionResetError("the answer is lost")

    with pinned_pair() as pair:
        pair.sandbox.on_request = AtRequest(at, "after", lose, is_version)
        done = run(pair.sandbox, tmp_path / "runs", *ALL, program="migrate_definitions")
        assert (done.code, pair.sandbox.on_request.done.is_set()) == (0, True), done.last_words
        assert histories(pair.dest) == histories(pair.source)


@pytest.mark.long
def test_the_example_moves_with_all_that_the_api_can_carry(tmp_path: Path) -> None:
    everything = (*ALL, "--dataset-versions", "--activate", "all")
    with example_pair() as pair:
        done = run(pair.sandbox, tmp_path / "runs", *everything, "--verify", "--full")
        assert done.code == 0, done.out
        pair.sandbox.clear_requests()
        done = run(pair.sandbox, tmp_path / "again", *everything)
        assert (done.code, pair.sandbox.writes("globex")) == (0, []), done.out


def test_a_history_that_was_refused_in_the_middle_is_completed_by_the_next_start(
    tmp_path: Path,
) -> None:
    def refuse(method: str, path: str, body: bytes) -> Any:
        return Answer(400, b"no") if method == "PUT" and b'"Greeting"' in body else None

    with pinned_pair() as pair:
        pair.sandbox.refuse = refuse
        done = run(pair.sandbox, tmp_path / "runs", *ALL, program="migrate_definitions")
        assert (done.code, len(histories(pair.dest)["greet"])) == (1, 3), done.last_words
        pair.sandbox.refuse = None
        done = run(pair.sandbox, tmp_path / "runs", *ALL, program="migrate_definitions")
        assert (done.code, histories(pair.dest)) == (0, histories(pair.source)), done.last_words
        undo(pair, tmp_path / "runs", "--yes")
        assert pair.dest.objects("prompt") == []


def test_no_version_is_written_without_a_tool_of_a_list_that_is_refused(tmp_path: Path) -> None:
    def refuse(method: str, path: str, body: bytes) -> Any:
        return Answer(400, b"no") if path.startswith("/v1/function?") else None

    with pinned_pair() as pair:
        project = pair.source.objects("project")[0]["id"]
        body = {"project_id": project, "name": "asks", "slug": "asks"}
        tool_id = next(o["id"] for o in pair.source.objects("function") if o["slug"] == "first")
        data = {**text(1), "tool_functions": [{"type": "function", "id": tool_id}]}
        asks = pair.source.create("prompt", {**body, "prompt_data": data})["id"]
        pair.source.patch("prompt", asks, {"prompt_data": text(2)})
        pair.sandbox.refuse = refuse
        refused = run(pair.sandbox, tmp_path / "runs", *ALL)
        assert (refused.code, "asks" in histories(pair.dest)) == (1, False), refused.out
        pair.sandbox.refuse = None
        done = run(pair.sandbox, tmp_path / "runs", *ALL, "--verify", "--full")
        assert done.code == 0, done.out
        assert_equal(pair)


def test_versions_that_cannot_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        greet = greet_of(pair.source)["id"]
        second = pair.source.versions("prompt", greet)[1]["_xact_id"]

        def refuse(method: str, path: str, body: bytes) -> Any:
            return Answer(400, b"no version") if f"version={second}" in path else None

        pair.sandbox.refuse = refuse
        done = run(pair.sandbox, tmp_path / "runs", *ALL, program="migrate_definitions")
        assert done.code == 0, done.last_words
        wanted = histories(pair.source)["greet"]
        assert histories(pair.dest)["greet"] == [wanted[0], *wanted[2:]]
        left = findings(tmp_path / "runs", "earlier_versions")
        assert [found["name"] for found in left] == ["Greeting"]


def test_a_sync_after_a_new_slug_makes_no_second_object(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        for since in ((), ("--since-last",)):
            done = run(pair.sandbox, tmp_path / "runs", *ALL, *since, program="migrate_definitions")
            assert done.code == 0, done.last_words
            slugs = {prompt["slug"] for prompt in pair.dest.objects("prompt")}
            assert slugs == {"first", "second", "welcome" if since else "greet"}
            greet = pair.source.objects("prompt")[0]["id"]
            pair.source.patch("prompt", greet, {"slug": "welcome", "description": "renamed"})


def test_a_sync_writes_a_new_tool_and_a_new_version_that_use_each_other_in_order(
    tmp_path: Path,
) -> None:
    """The versions that are still to be written need each other; the known tool is there."""
    with pinned_pair() as pair:
        project = pair.source.objects("project")[0]["id"]
        known = pair.source.create("function", tool(project, "known"))["id"]
        done = run(pair.sandbox, tmp_path / "runs", *ALL)
        assert done.code == 0, done.last_words
        new = pair.source.create("function", tool(project, "new", known))["id"]
        uses = {"tool_functions": [{"type": "function", "id": new}]}
        pair.source.patch("function", known, {"prompt_data": uses})
        done = run(pair.sandbox, tmp_path / "runs", *ALL, "--since-last", "--verify", "--full")
        assert done.code == 0, done.last_words
        assert histories(pair.dest) == histories(pair.source)


def test_a_query_names_the_prompt_that_is_written_at_the_same_time(tmp_path: Path) -> None:
    def slow(method: str, path: str, body: bytes) -> None:
        if (method, path) == ("POST", "/v1/prompt") and b"asked" in body:
            time.sleep(0.5)

    with pinned_pair() as pair:
        project = pair.source.objects("project")[0]["id"]
        asked = {"project_id": project, "name": "asked", "slug": "asked", "prompt_data": text(0)}
        prompt = pair.source.create("prompt", asked)["id"]
        expr = f"select: * from: project_logs('{project}') filter: metadata.prompt.id = '{prompt}'"
        nodes = {"n": {"type": "btql", "expr": expr, "position": {"x": 0, "y": 0}}}
        function(pair.source, project, "asking", {"type": "graph", "nodes": nodes, "edges": {}})
        pair.sandbox.refuse = slow
        done = run(pair.sandbox, tmp_path / "runs", *ALL, program="migrate_definitions")
        assert done.code == 0, done.last_words
        (asking,) = [obj for obj in pair.dest.objects("function") if obj["slug"] == "asking"]
        (there,) = [obj for obj in pair.dest.objects("prompt") if obj["slug"] == "asked"]
        assert there["id"] in asking["function_data"]["nodes"]["n"]["expr"]
        assert len(pair.dest.versions("function", asking["id"])) == 1


def tool(project: str, slug: str, *uses: str) -> Dict[str, Any]:
    data = {**text(0), "tool_functions": [{"type": "function", "id": used} for used in uses]}
    body = {"project_id": project, "name": slug, "slug": slug, "function_type": "tool"}
    return {**body, "function_data": {"type": "prompt"}, "prompt_data": data}


# -- killed


@pytest.mark.parametrize("kills", seeded_kills(20261129, 40, range(1, 13), short=4))
@pytest.mark.variants(1)
def test_killed_in_the_middle_of_a_history_the_same_command_completes_it(
    kills: List[Kill], tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        *_, last = starts(pair, root, at_requests(kills, is_version), *ALL)
        assert (last.code, len(runs(root))) == (0, 1), last.last_words
        assert_equal(pair)
        prompts = [record for record in report(root)["objects"] if record["resource"] == "prompts"]
        assert [record["outcomes"] for record in prompts] == [{"created": 1}]


def test_what_a_killed_run_wrote_is_undone(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        at = AtRequest(7, "after", signal.SIGKILL, is_version)
        assert run_with(pair, tmp_path / "runs", at, *ALL).code == -signal.SIGKILL
        assert pair.dest.objects("prompt")
        undone = undo(pair, tmp_path / "runs", "--yes")
        assert (undone.code, pair.dest.objects("project")) == (0, []), undone.out


# -- servers that lack something


def test_a_server_without_environment_assignments_is_said_once(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        pair.sandbox.behaviour.knows_october_2026 = False
        done = run(pair.sandbox, tmp_path / "runs", *ALL, LOG_FORMAT="json")
        assert done.code == 0, done.last_words
        said = [
            json.loads(line) for line in done.err.splitlines() if "environment_assignments" in line
        ]
        assert len(said) <= 1
        assert histories(pair.dest) == histories(pair.source)


def test_versions_that_the_source_does_not_list_are_left_and_named(tmp_path: Path) -> None:
    def refuse(method: str, path: str, body: bytes) -> Any:
        return Answer(400, b'{"Message": "no audit_log"}') if b"audit_log" in body else None

    with pinned_pair() as pair:
        pair.sandbox.refuse = refuse
        done = run(pair.sandbox, tmp_path / "runs", *ALL)
        assert done.code == 0, done.last_words
        left = findings(tmp_path / "runs", "earlier_versions")
        assert {found["name"] for found in left} == {"Greeting", "Tuning", "first", "second"}
        # The two tools need each other, and the order in which they did is not known.
        assert {slug: len(found) for slug, found in histories(pair.dest).items()} == {
            "greet": 1, "first": 1, "second": 2, "tuning": 1,
        }  # fmt: skip
