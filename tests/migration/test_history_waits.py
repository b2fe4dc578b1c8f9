"""With --history no version is written without a reference that can be resolved later: versions are
never changed.
"""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.sandbox.http.faults import Fault
from tests.support.orgs import AtRequest, Ended, Pair, findings, report, run, run_with, runs
from tests.support.pinned import histories, pinned_pair, text
from tests.support.undoing import undo

ALL = ("--history", "all")
LONG = pytest.mark.long
ONLY_PROMPTS = (*ALL, "--resources", "prompts")
Json = Dict[str, Any]


def project_of(pair: Pair) -> str:
    return str(pair.source.objects("project")[0]["id"])


def uses(*pins: Json) -> Json:
    return {**text(1), "tool_functions": [{"type": "function", **pin} for pin in pins]}


def prompt(pair: Pair, slug: str, prompt_data: Json) -> str:
    body = {"project_id": project_of(pair), "name": slug, "slug": slug, "prompt_data": prompt_data}
    return str(pair.source.create("prompt", body)["id"])


def tool(pair: Pair, slug: str, prompt_data: Json) -> str:
    body = {"project_id": project_of(pair), "name": slug, "slug": slug, "function_type": "tool"}
    data = {"function_data": {"type": "prompt"}, "prompt_data": prompt_data}
    return str(pair.source.create("function", {**body, **data})["id"])


def asking(pair: Pair) -> str:
    """A prompt whose second version uses a tool; the first and the last one do not."""
    used = tool(pair, "used", text(0))
    asks = prompt(pair, "asks", text(1))
    for data in (uses({"id": used}), text(3)):
        pair.source.patch("prompt", asks, {"prompt_data": data})
    return asks


def slugs(org: Any) -> List[str]:
    return sorted({obj["slug"] for kind in ("prompt", "function") for obj in org.objects(kind)})


def next_of(end: Ended) -> Tuple[str, List[str]]:
    last = end.out.splitlines()[-1]
    assert last.startswith("Next: bin/"), end.out
    program, *arguments = shlex.split(last[len("Next: bin/") :], comments=True)
    return program.replace("-", "_"), [word for word in arguments if word != "--no-verify"]


def follow(pair: Pair, root: Path, end: Ended) -> List[str]:
    """Runs what is recommended until that ends with 0. Returns the programs."""
    programs: List[str] = []
    while end.code == 1 and len(programs) < 5:
        program, arguments = next_of(end)
        end = run(pair.sandbox, root, *arguments, program=program)
        programs.append(program)
    assert end.code == 0, (programs, end.out)
    return programs


@pytest.mark.parametrize(
    "program", ["migrate_definitions", pytest.param("migrate_all", marks=LONG)]
)
def test_a_prompt_whose_tool_is_not_selected_waits_until_it_is_there(
    program: str, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        asking(pair)
        first = run(pair.sandbox, root, *ONLY_PROMPTS, program=program)
        assert (first.code, slugs(pair.dest)) == (1, ["greet"]), first.out
        waiting = [found for found in findings(root, "waits") if found["resource"] == "prompts"]
        assert {found["name"] for found in waiting} == {"asks"}
        outcomes = {item["name"]: item["outcome"] for item in report(root)["problems"]}
        assert outcomes == {"asks": "waiting"}
        assert "--resources" not in next_of(first)[1], first.out
        follow(pair, root, first)
        assert histories(pair.dest) == histories(pair.source)


def test_a_plan_of_a_part_counts_no_versions_of_what_waits(tmp_path: Path) -> None:
    with pinned_pair() as pair:
        asking(pair)
        done = run(pair.sandbox, tmp_path / "runs", *ONLY_PROMPTS, "--dry-run")
        assert (done.code, pair.sandbox.writes("globex")) == (0, []), done.out
        planned = [counts["outcomes"] for counts in report(tmp_path / "runs")["objects"]]
        assert {"planned": 1, "waiting": 1} in planned


def test_what_uses_an_object_that_waits_waits_too(tmp_path: Path) -> None:
    """Prompt, prompt, tool, dataset in a query: the phase of the dataset comes first."""
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        dataset = pair.source.objects("dataset")[0]["id"]
        nodes = {"n": {"type": "btql", "expr": f"from: dataset('{dataset}')"}}
        graph = {"type": "graph", "nodes": nodes, "edges": {}}
        body = {"project_id": project_of(pair), "name": "asked", "slug": "asked"}
        asked = pair.source.create("function", {**body, "function_data": graph})["id"]
        pair.source.patch("function", asked, {"description": "changed"})
        near = prompt(pair, "near", uses({"id": asked}))
        prompt(pair, "far", uses({"id": near}))
        first = run(pair.sandbox, root, *ALL, program="migrate_definitions")
        moved = ["first", "greet", "second", "tuning"]
        assert (first.code, slugs(pair.dest)) == (1, moved), first.out
        programs = follow(pair, root, first)
        assert programs == ["migrate_datasets", "migrate_definitions"]
        there = pair.dest.objects("dataset")[0]["id"]
        (obj,) = [obj for obj in pair.dest.objects("function") if obj["slug"] == "asked"]
        queries = [
            version["function_data"]["nodes"]["n"]["expr"]
            for version in pair.dest.versions("function", obj["id"])
        ]
        assert queries == [f"from: dataset('{there}')"] * 2
        wanted = histories(pair.source)
        assert histories(pair.dest) == {**wanted, "asked": histories(pair.dest)["asked"]}


def test_a_new_version_waits_and_those_that_pin_it_do_too(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        asks = prompt(pair, "asks", text(1))
        pins = prompt(pair, "pins", uses({"id": asks}))
        assert run(pair.sandbox, root, *ALL).code == 0
        used = tool(pair, "used", text(0))
        newest = pair.source.patch("prompt", asks, {"prompt_data": uses({"id": used})})["_xact_id"]
        pinned = uses({"id": asks, "version": newest})
        pair.source.patch("prompt", pins, {"prompt_data": pinned})
        before = histories(pair.dest)
        part = run(pair.sandbox, root, *ONLY_PROMPTS, "--since-last")
        assert (part.code, histories(pair.dest)) == (1, before), part.out
        done = run(pair.sandbox, root, *ALL, "--since-last", "--verify", "--full")
        assert (done.code, histories(pair.dest)) == (0, histories(pair.source)), done.out


@pytest.mark.parametrize("pinned", [pytest.param(False, marks=LONG), True])
def test_what_uses_a_tool_that_failed_is_written_when_that_is_there(
    pinned: bool, tmp_path: Path
) -> None:
    """With a pin, the tool is there in its first version only."""
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        used = tool(pair, "used", text(0))
        newest = pair.source.patch("function", used, {"description": "odd"})["_xact_id"]
        pin = {"id": used, "version": newest} if pinned else {"id": used}
        asks = prompt(pair, "asks", uses(pin))
        pair.source.patch("prompt", asks, {"prompt_data": text(3)})
        word = b'"odd"' if pinned else b'"used"'

        def refuse(method: str, path: str, body: bytes) -> Any:
            writes = method in ("POST", "PUT") and path.startswith("/v1/function")
            return Answer(400, b"no") if writes and word in body else None

        pair.sandbox.refuse = refuse
        first = run(pair.sandbox, root, *ALL, program="migrate_definitions")
        assert (first.code, "asks" in slugs(pair.dest)) == (1, False), first.out
        again = run(pair.sandbox, root, *ALL, program="migrate_definitions")
        assert (again.code, "asks" in slugs(pair.dest)) == (1, False), again.out
        pair.sandbox.refuse = None
        assert follow(pair, root, again) == ["migrate_definitions"]
        assert (len(runs(root)), histories(pair.dest)) == (1, histories(pair.source))


@pytest.mark.parametrize("is_undone", [pytest.param(False, marks=LONG), True])
def test_versions_that_were_written_before_their_object_waits_are_continued_or_undone(
    is_undone: bool, tmp_path: Path
) -> None:
    """A start in which the tool of a version fails, and then one without the tools."""
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        used = tool(pair, "used", text(0))
        asks = prompt(pair, "asks", text(1))
        pair.source.patch("prompt", asks, {"prompt_data": uses({"id": used})})
        refused = {"status": 400, "body": "no"}
        faults = pair.sandbox.faults
        faults.add(Fault("status", "globex", "POST", "^/v1/function", None, **refused))
        assert run(pair.sandbox, root, *ALL, program="migrate_definitions").code == 1
        assert len(histories(pair.dest)["asks"]) == 1
        faults.clear()
        second = run(pair.sandbox, runs(root)[0], *ONLY_PROMPTS, program="migrate_definitions")
        outcomes = {item["name"]: item["outcome"] for item in report(root)["problems"]}
        assert (second.code, outcomes["asks"]) == (1, "waiting"), second.out
        assert len(histories(pair.dest)["asks"]) == 1
        if is_undone:
            undone = undo(pair, root, "--yes")
            assert (undone.code, slugs(pair.dest)) == (0, []), undone.out
            return
        follow(pair, root, second)
        assert histories(pair.dest) == histories(pair.source)


@pytest.mark.parametrize("ending", ["refused", pytest.param("killed", marks=LONG)])
def test_versions_that_another_run_left_unfinished_are_continued(
    ending: str, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        used = tool(pair, "used", text(0))
        asks = prompt(pair, "asks", text(1))
        newest = pair.source.patch("prompt", asks, {"prompt_data": uses({"id": used})})["_xact_id"]
        prompt(pair, "pins", uses({"id": asks, "version": newest}))
        if ending == "killed":
            writes = lambda _, path: path.startswith(("/v1/prompt", "/v1/function"))  # noqa: E731
            kill = AtRequest(9, "after", signal.SIGKILL, writes)
            assert run_with(pair, root, kill, *ALL).code == -signal.SIGKILL
        else:
            fault = {"status": 400, "body": "no"}
            pair.sandbox.faults.add(
                Fault("status", "globex", "POST", "^/v1/function", None, **fault)
            )
            assert run(pair.sandbox, root, *ALL, program="migrate_definitions").code == 1
            pair.sandbox.faults.clear()
        part = run(pair.sandbox, root, *ONLY_PROMPTS, program="migrate_definitions")
        assert ("pins" in slugs(pair.dest), part.code) == (False, 1), part.out
        done = run(pair.sandbox, root, *ALL)
        assert (done.code, histories(pair.dest)) == (0, histories(pair.source)), done.out


def test_a_version_that_is_not_written_over_an_edit_is_not_mistaken_for_an_earlier_one(
    tmp_path: Path,
) -> None:
    root = tmp_path / "runs"
    with pinned_pair() as pair:
        asks = prompt(pair, "asks", text(1))
        assert run(pair.sandbox, root, *ALL).code == 0
        (there,) = [obj for obj in pair.dest.objects("prompt") if obj["slug"] == "asks"]
        pair.dest.patch("prompt", there["id"], {"description": "by a person"})
        newest = pair.source.patch("prompt", asks, {"prompt_data": text(2)})["_xact_id"]
        prompt(pair, "pins", uses({"id": asks, "version": newest}))
        done = run(pair.sandbox, root, *ALL, "--since-last")
        (pins,) = [obj for obj in pair.dest.objects("prompt") if obj["slug"] == "pins"]
        used = pins["prompt_data"]["tool_functions"]
        assert (done.code, used) == (1, [{"type": "function", "id": there["id"]}]), done.out
        assert "pins" in {found["name"] for found in findings(root, "version_pin_removed")}


def test_a_pin_on_a_version_of_a_kind_that_is_not_selected_is_kept(tmp_path: Path) -> None:
    """The versions of the tool are in the destination, in a project without prompts."""
    with pinned_pair() as pair:
        tools = pair.source.create("project", {"name": "Tools"})["id"]
        body = {"project_id": tools, "name": "used", "slug": "used", "function_type": "tool"}
        data = {"function_data": {"type": "prompt"}, "prompt_data": text(0)}
        used = pair.source.create("function", {**body, **data})
        pair.source.patch("function", used["id"], {"description": "newer"})
        prompt(pair, "pins", uses({"id": used["id"], "version": used["_xact_id"]}))
        assert run(pair.sandbox, tmp_path, *ALL).code == 0
        (there,) = [obj for obj in pair.dest.objects("prompt") if obj["slug"] == "pins"]
        pair.dest.delete("prompt", there["id"])
        part = run(pair.sandbox, tmp_path / "again", *ONLY_PROMPTS, program="migrate_definitions")
        assert (part.code, histories(pair.dest)) == (0, histories(pair.source)), part.out


def test_a_tool_whose_first_version_cannot_move_is_written_before_what_uses_it(
    tmp_path: Path,
) -> None:
    with pinned_pair() as pair:
        bundle = {"type": "code", "data": {"type": "bundle", "bundle_id": "b", "location": {}}}
        inline = {"type": "inline", "code": "1", "runtime_context": {"runtime": "node"}}
        body = {"project_id": project_of(pair), "name": "used", "slug": "used"}
        used = pair.source.create("function", {**body, "function_data": bundle})["id"]
        prompt(pair, "asks", uses({"id": used}))
        changed = {"function_data": {"type": "code", "data": inline}}
        pair.source.patch("function", used, changed)
        done = run(pair.sandbox, tmp_path / "runs", *ALL)
        assert done.code == 0, done.out
        wanted = histories(pair.source)
        assert histories(pair.dest) == {**wanted, "used": wanted["used"][1:]}
