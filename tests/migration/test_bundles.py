"""Functions whose code is a bundle, which nobody can read: pushed by hand, or by --bundles."""

from __future__ import annotations

import gzip
import signal
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

import pytest

from bt_migrate.config.bundles import BundleFiles, bundle_files
from bt_migrate.errors import UsageError
from bt_migrate.migration.phase_loop import PHASES_END_S
from bt_migrate.sandbox.data.answer import Answer
from bt_migrate.state.run_record import read_run
from tests.support.orgs import (
    BUNDLE,
    INLINE,
    AtRequest,
    Json,
    Pair,
    findings,
    function,
    report,
    run,
    run_with,
    runs,
)
from tests.support.people import MISSING, invite, people_pair

CODE = b"exports.handler = () => 1;\n"


def add_bundled(org: Any) -> str:
    """A scorer with a bundle, and a reference to it from everything that can refer to one."""
    alpha = org.objects("project")[0]["id"]
    bundled = function(org, alpha, "bundled", BUNDLE, function_type="scorer")
    used = {"type": "function", "id": bundled}
    tools = {"prompt": {"type": "chat", "messages": []}, "tool_functions": [used]}
    org.create("prompt", {"project_id": alpha, "name": "p", "slug": "p", "prompt_data": tools})
    online = {"online": {"sampling_rate": 0.5, "scorers": [used]}}
    score = {"project_id": alpha, "name": "Online", "score_type": "online", "config": online}
    org.create("project_score", score)
    node = {"type": "function", "function": {"function_id": bundled}}
    function(org, alpha, "graph", {"type": "graph", "edges": {}, "nodes": {"n": node}})
    origin = {"object_type": "function", "object_id": bundled, "id": bundled}
    org.insert("project_logs", alpha, [{"id": "made", "origin": origin}])
    return bundled


def references(org: Any) -> List[Any]:
    """What the prompt, the online score, the graph and the row refer to."""
    made = {obj["slug"]: obj for obj in org.objects("function")}
    (prompt,) = org.objects("prompt")
    online = next(score for score in org.objects("project_score") if score["name"] == "Online")
    rows = {row["id"]: row for row in org.rows("project_logs", org.objects("project")[0]["id"])}
    return [
        prompt["prompt_data"].get("tool_functions"),
        online["config"]["online"]["scorers"],
        made["graph"]["function_data"]["nodes"]["n"]["function"],
        rows["made"]["origin"],
    ]


def references_to(function_id: str) -> List[Any]:
    used = {"type": "function", "id": function_id}
    origin = {"object_type": "function", "object_id": function_id, "id": function_id}
    return [[used], [used], {"function_id": function_id}, origin]


@pytest.mark.parametrize("arguments", [(), ("--since-last",)])
@pytest.mark.variants(1)
def test_a_function_that_was_pushed_by_hand_is_mapped_and_completes_what_waited(
    arguments: Sequence[str], tmp_path: Path
) -> None:
    with people_pair() as pair:
        invite(pair, MISSING)
        add_bundled(pair.source)
        assert run(pair.sandbox, tmp_path, *arguments, "--verify").code == 0
        assert len(findings(tmp_path, "not_readable")) == 1
        assert findings(tmp_path, "reference_to_unmovable")
        (project,) = pair.dest.objects("project")
        pushed = function(pair.dest, project["id"], "bundled", INLINE, function_type="scorer")
        ended = run(pair.sandbox, tmp_path, *arguments, "--verify")
        assert ended.code == 0, ended.out + ended.err
        left = findings(tmp_path, "not_readable") + findings(tmp_path, "reference_to_unmovable")
        assert (references(pair.dest), left) == (references_to(pushed), [])


def bundled_there(pair: Pair) -> Json:
    (made,) = [obj for obj in pair.dest.objects("function") if obj["slug"] == "bundled"]
    return made


def uploaded(pair: Pair) -> bytes:
    bundle_id = bundled_there(pair)["function_data"]["data"]["bundle_id"]
    return pair.sandbox.files.content((pair.dest.id, bundle_id)) or b""


def test_a_bundle_that_a_person_has_is_uploaded_and_everything_follows(tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    (folder / "alpha").mkdir(parents=True)
    (folder / "alpha" / "bundled.js").write_bytes(CODE)
    (folder / "alpha" / "bundled.js.map").write_bytes(b"{}")
    with people_pair() as pair:
        invite(pair, MISSING)
        add_bundled(pair.source)
        root = tmp_path / "state"
        arguments = ("--bundles", str(folder), "--verify")
        assert run(pair.sandbox, root, "--dry-run", "--bundles", str(folder)).code == 0
        assert findings(root, "not_readable") == pair.dest.objects("project") == []

        def refuse(method: str, path: str, raw: bytes) -> Optional[Answer]:
            is_upload = (method, path) == ("POST", "/function/code")
            return Answer(404, b"Not found", "text/plain") if is_upload else None

        pair.sandbox.refuse = refuse
        ended = run(pair.sandbox, root, *arguments, "--new-run")
        assert (ended.code, report(root)["totals"]["objects"]["failed"]) == (1, 1), ended.err
        pair.sandbox.refuse = None
        ended = run(pair.sandbox, root, *arguments)
        assert ended.code == 0, ended.out + ended.err
        made = bundled_there(pair)
        expected = {**BUNDLE["data"], "bundle_id": made["function_data"]["data"]["bundle_id"]}
        assert made["function_data"] == {"type": "code", "data": expected}
        assert references(pair.dest) == references_to(made["id"])
        assert gzip.decompress(uploaded(pair)) == CODE
        put = [
            item
            for item in pair.sandbox.requests
            if item.method == "PUT" and item.origin == "files"
        ]
        assert [item.headers.get("Content-Encoding") for item in put] == ["gzip"]
        assert findings(root, "not_readable") == []
        assert run(pair.sandbox, root, "--verify").code == 0
        slugs = sorted(obj["slug"] for obj in pair.dest.objects("function"))
        assert slugs == ["bundled", "graph", "p"]


def test_files_that_are_of_no_function_are_said_and_an_empty_file_is_refused(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "bundles"
    (folder / "Alpha").mkdir(parents=True)
    for name in ("bundled.js", "Alpha/bundled.js"):
        (folder / name).write_bytes(CODE)
    with people_pair() as pair:
        add_bundled(pair.source)
        arguments = ("--bundles", str(folder))
        done = run(pair.sandbox, tmp_path / "state", *arguments, "--dry-run")
        said = "no function has a bundle named like bundles/bundled.js and 1 more"
        assert (done.code, said in " ".join(done.err.split())) == (0, True), done.err
        (folder / "alpha").mkdir()
        empty = folder / "alpha" / "bundled.js"
        empty.touch()
        done = run(pair.sandbox, tmp_path / "state", *arguments, "--new-run")
        assert (done.code, f"{empty} is empty" in done.err) == (2, True), done.err
        assert pair.sandbox.writes("globex") == []


@pytest.mark.recorded  # an older data plane has no assignments of environments
@pytest.mark.parametrize(("number", "path"), [(2, "/v1/project_score"), (1, "/v1/acl")])
@pytest.mark.variants(1)
def test_bundles_are_uploaded_by_a_resumed_run_whose_definitions_are_done(
    number: int, path: str, tmp_path: Path
) -> None:
    folder, root = tmp_path / "bundles", tmp_path / "state"
    (folder / "alpha").mkdir(parents=True)
    (folder / "alpha" / "bundled.js").write_bytes(CODE)
    with people_pair() as pair:
        invite(pair, MISSING)
        bundled = add_bundled(pair.source)
        secret = {"object_type": "function", "object_id": bundled, "name": "TOKEN"}
        pair.source.create("env_var", secret)
        pair.source.create("environment", {"name": "Dev", "slug": "dev"})
        pair.source.assign(bundled, "dev", pair.source.versions("function", bundled)[0]["_xact_id"])
        at = AtRequest(
            number,
            "before",
            signal.SIGKILL,
            lambda method, asked: (method, asked) == ("POST", path),
        )
        pair.sandbox.refuse = slow_definitions()
        assert run_with(pair, root, at).code == -signal.SIGKILL
        assert "migrate-definitions" in read_run(runs(root)[0] / "run.json").phases_done
        ended = run(pair.sandbox, root, "--bundles", str(folder), "--verify")
        assert (ended.code, len(runs(root))) == (0, 1), ended.out + ended.err
        made = bundled_there(pair)
        assert references(pair.dest) == references_to(made["id"])
        assert gzip.decompress(uploaded(pair)) == CODE
        (there,) = pair.dest.objects("env_var")
        assert there["object_id"] == made["id"]
        assert pair.dest.assignments(made["id"]) == {"dev": made["_xact_id"]}
        assert findings(root, "not_readable") + findings(root, "reference_to_unmovable") == []


def slow_definitions() -> Callable[[str, str, bytes], None]:
    """What is slow once: phases are recorded as done at most once a second."""
    slept: List[str] = []

    def wait(method: str, path: str, raw: bytes) -> None:
        if (method, path) == ("POST", "/v1/project_score") and not slept:
            slept.append(path)
            time.sleep(PHASES_END_S + 0.1)

    return wait


def files(folder: Path, *names: str) -> BundleFiles:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(CODE)
    return bundle_files("--bundles", str(folder))


def test_a_bundle_is_found_by_its_id_and_else_by_project_and_slug(tmp_path: Path) -> None:
    found = files(tmp_path, "b-1.zip", "Support/refund.js", "Support/refund.js.map", ".hidden/x")
    expected: Dict[str, Optional[Path]] = {
        "b-1 Support refund": tmp_path / "b-1.zip",
        "b-2 Support refund": tmp_path / "Support" / "refund.js",
        "b-2 Sales refund": None,
        "b-2 Support refun": None,
    }
    assert {words: found.find(*words.split()) for words in expected} == expected


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    found = files(tmp_path, "Support/refund.js", "Support/refund.zip")
    with pytest.raises(UsageError, match="are both named refund"):
        found.find("b-1", "Support", "refund")
    with pytest.raises(UsageError, match="cannot be read as a folder"):
        bundle_files("--bundles", str(tmp_path / "none"))
