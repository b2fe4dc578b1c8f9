"""Objects that exist with other content: kept, updated, or a reason to stop; and who changed them,
told by a second run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from bt_migrate.sandbox.data.answer import Answer
from tests.support.compare_orgs import differences
from tests.support.orgs import ANA, BEN, Pair, everything, fill_tiny, report, run, tiny_pair


def named(org: Any, kind: str, name: str) -> str:
    """The id of the one object of that name."""
    (found,) = [obj["id"] for obj in org.objects(kind) if obj["name"] == name]
    return str(found)


def change(org: Any, kind: str, name: str, **fields: Any) -> None:
    org.patch(kind, named(org, kind, name), fields)


def problems(root: Path) -> Dict[Tuple[str, str], str]:
    """(resource, name) -> reason of all that is not as in the source."""
    return {
        (problem["resource"], problem["name"]): problem["reason"]
        for problem in report(root)["problems"]
    }


def outcomes(root: Path, *words: str) -> Dict[str, int]:
    """Outcome -> objects of the newest run, of these outcomes."""
    return {
        word: count for word, count in report(root)["totals"]["objects"].items() if word in words
    }


def unlike(pair: Pair) -> List[str]:
    """Differences, but for fields that PATCH can only make empty where the source has none."""
    return [
        difference
        for difference in differences(pair)
        if not difference.endswith(('"<absent>" became ""', '"<absent>" became []'))
    ]


GRAPH = {"type": "graph", "nodes": {}, "edges": {"e": {"purpose": "data"}}}


def disturb(pair: Pair) -> None:
    """One change of each kind, in both organizations, of objects that a first run has moved."""
    change(pair.source, "dataset", "questions", metadata={"n": 1})
    change(pair.dest, "dataset", "answers", description="theirs")
    change(pair.source, "prompt", "Ask", description="ours")
    change(pair.dest, "prompt", "Ask", description="theirs")
    change(pair.dest, "prompt", "Ask", prompt_data={"prompt": {"theirs": 1}})
    change(pair.dest, "project_tag", "red", color="#00FF00")
    change(
        pair.source, "group", "people", remove_member_users=[pair.source.objects("user")[0]["id"]]
    )
    change(pair.dest, "experiment", "first", public=True, tags=["t"])
    change(pair.dest, "function", "First", function_data=GRAPH)
    change(pair.source, "project", "beta", settings={"comparison_key": "expected"})
    change(
        pair.dest, "project", "Alpha/α", settings={"comparison_key": "other"}, description="theirs"
    )
    change(pair.dest, "environment", "Production", description="theirs")


SOURCE, DEST, BOTH = "changed at the source", "changed at the destination", "changed on both sides"
REASONS = {
    ("datasets", "questions"): SOURCE,
    ("datasets", "answers"): DEST,
    ("prompts", "Ask"): BOTH,
    ("project_tags", "red"): DEST,
    ("groups", "people"): SOURCE,
    ("experiments", "first"): DEST,
    ("functions", "First"): DEST,
    ("projects", "Alpha/α"): DEST,
    ("project_settings", "Alpha/α"): DEST,
    ("environments", "Production"): DEST,
}


def test_a_second_run_reports_which_side_changed_and_updates_on_request(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    assert run(pair.sandbox, root).code == 0
    disturb(pair)
    pair.sandbox.clear_requests()
    for _ in range(2):  # what was left alone is remembered as it was when both agreed
        kept = run(pair.sandbox, root)
        assert (kept.code, problems(root)) == (
            1,
            {key: f"{reason}; left alone" for key, reason in REASONS.items()},
        ), kept.last_words
    planned = run(pair.sandbox, root, "--dry-run", "--on-conflict", "update")
    writes = [
        request
        for request in pair.sandbox.writes("globex")
        if not request.path.startswith("/v1/project/")
    ]
    assert (planned.code, outcomes(root, "planned", "planned update"), writes) == (
        0,
        {"planned update": len(REASONS)},
        [],
    )
    updated = run(pair.sandbox, root, "--on-conflict", "update")
    assert (updated.code, problems(root), outcomes(root, "updated")) == (
        0,
        {},
        {"updated": len(REASONS)},
    ), updated.last_words
    assert unlike(pair) == []
    pair.sandbox.clear_requests()
    again = run(pair.sandbox, root, "--on-conflict", "update")
    assert (again.code, pair.sandbox.writes("globex"), outcomes(root, "updated")) == (0, [], {}), (
        again.last_words
    )


def test_without_earlier_state_a_difference_has_no_author_and_policies_are_per_resource(
    pair: Pair, tmp_path: Path
) -> None:
    assert run(pair.sandbox, tmp_path / "runs").code == 0
    disturb(pair)
    root = tmp_path / "elsewhere"
    mixed = run(pair.sandbox, root, "--on-conflict", "prompts=update,project_tags=update,keep")
    other = {
        key: "exists with other content; left alone"
        for key in REASONS
        if key[0] not in ("prompts", "project_tags")
    }
    assert (mixed.code, problems(root), outcomes(root, "updated")) == (1, other, {"updated": 2}), (
        mixed.last_words
    )


@pytest.mark.long
def test_fields_that_patch_cannot_remove_are_reported_and_not_sent_again(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    assert run(pair.sandbox, root).code == 0
    change(pair.dest, "dataset", "questions", metadata={"theirs": 1}, description="theirs")
    left = run(pair.sandbox, root, "--on-conflict", "update")
    (problem,) = report(root)["problems"]
    questions = next(obj for obj in pair.dest.objects("dataset") if obj["name"] == "questions")
    assert (left.code, problem["outcome"], problem["fields"], questions["description"]) == (
        1,
        "differs",
        ["metadata"],
        "",
    )
    assert "cannot take away" in problem["reason"]
    pair.sandbox.clear_requests()
    again = run(pair.sandbox, root, "--on-conflict", "update")
    assert (again.code, pair.sandbox.writes("globex")) == (1, [])


def test_an_object_that_a_post_finds_is_not_taken_for_created(pair: Pair, tmp_path: Path) -> None:
    """POST returns an object that was not listed, without the header: its age shows it."""
    beta = pair.dest.create("project", {"name": "beta"})["id"]
    hidden = {
        **pair.dest.create("dataset", {"project_id": beta, "name": "hidden"}),
        "name": "answers",
        "created": "2024-01-01T00:00:00Z",
    }
    answer = Answer(200, json.dumps(hidden).encode())
    pair.sandbox.refuse = lambda method, path, raw: (
        answer if (method, path) == ("POST", "/v1/dataset") and b'"answers"' in raw else None
    )
    run(pair.sandbox, tmp_path / "runs", program="migrate_datasets")
    assert (problems(tmp_path / "runs"), outcomes(tmp_path / "runs", "created")) == (
        {("datasets", "answers"): "exists with other content; left alone"},
        {"created": 2},  # a project and the other dataset
    )


@pytest.mark.long
def test_settings_where_the_source_has_none_are_other_content(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert run(pair.sandbox, root).code == 0
    change(pair.dest, "project", "beta", settings={"comparison_key": "theirs"})
    kept = run(pair.sandbox, root)
    assert (kept.code, problems(root)) == (
        1,
        {("project_settings", "beta"): "exists with other content; left alone"},
    ), kept.last_words
    updated = run(pair.sandbox, root, "--on-conflict", "update", "--verify")
    assert (updated.code, outcomes(root, "updated")) == (0, {"updated": 1}), updated.last_words
    assert [obj["settings"] for obj in pair.dest.objects("project") if obj["name"] == "beta"] == [
        {}
    ]


def test_an_update_that_is_refused_is_a_failure_and_the_rows_go_on(
    pair: Pair, tmp_path: Path
) -> None:
    beta = pair.dest.create("project", {"name": "beta"})["id"]
    there = pair.dest.create(
        "dataset", {"project_id": beta, "name": "answers", "description": "theirs"}
    )["id"]
    pair.sandbox.refuse = lambda method, path, raw: (
        Answer(400, b"no") if method == "PATCH" else None
    )
    done = run(
        pair.sandbox, tmp_path / "runs", "--on-conflict", "update", program="migrate_datasets"
    )
    assert (done.code, pair.dest.count("dataset", there)) == (1, 45), done.last_words
    pair.sandbox.refuse = None
    again = run(pair.sandbox, tmp_path / "runs", "--on-conflict", "update")
    assert (again.code, unlike(pair)) == (0, []), again.last_words


# fail ---------------------------------------------------------------------------------------------


def test_fail_stops_before_the_first_write_and_names_the_objects(
    pair: Pair, tmp_path: Path
) -> None:
    root, alpha = tmp_path / "runs", pair.dest.create("project", {"name": "Alpha/α"})["id"]
    pair.dest.create(
        "function", {"project_id": alpha, "name": "Mine", "slug": "scorer", "function_data": GRAPH}
    )
    pair.dest.create("environment", {"name": "prod", "slug": "production"})
    pair.sandbox.clear_requests()
    stopped = run(pair.sandbox, root, "--on-conflict", "fail")
    told = stopped.err.splitlines()[-1]
    assert (stopped.code, pair.sandbox.writes("globex")) == (3, []), stopped.last_words
    assert "3 objects exist with other content" in told and "nothing was written" in told
    assert [
        name in told
        for name in (
            "'Alpha/α' (description)",
            "'Scorer' of 'Alpha/α' (name, function_data",
            "'Production' (name)",
        )
    ] == [True] * 3
    # the same run goes on once it is told otherwise
    kept = run(
        pair.sandbox,
        root,
        "--on-conflict",
        "projects=update,functions=update,environments=update,fail",
    )
    assert (kept.code, unlike(pair)) == (0, []), kept.last_words


def test_fail_stops_for_a_field_that_only_a_later_phase_can_fill(
    pair: Pair, tmp_path: Path
) -> None:
    """A function's origin is an experiment, which does not exist yet when functions are planned."""
    beta = pair.dest.create("project", {"name": "beta"})["id"]
    source = next(obj for obj in pair.source.objects("function") if obj["slug"] == "made-from")
    fields = {name: source[name] for name in ("name", "slug", "function_data", "function_type")}
    origin = {"object_type": "project", "object_id": beta, "internal": True}
    pair.dest.create("function", {"project_id": beta, **fields, "origin": origin})
    pair.sandbox.clear_requests()
    stopped = run(pair.sandbox, tmp_path / "runs", "--on-conflict", "fail")
    assert (stopped.code, pair.sandbox.writes("globex")) == (3, []), stopped.last_words
    assert "functions 'Made-From' of 'beta' (origin)" in stopped.err.splitlines()[-1]
    updated = run(pair.sandbox, tmp_path / "runs", "--on-conflict", "update")
    assert (updated.code, differences(pair)) == (0, []), updated.last_words


@pytest.mark.long
def test_fail_stops_nothing_where_nothing_differs_not_even_when_resumed(
    pair: Pair, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    first = run(pair.sandbox, root, "--on-conflict", "fail", program="migrate_definitions")
    whole = run(pair.sandbox, root, "--on-conflict", "fail")
    assert (first.code, whole.code, differences(pair)) == (0, 0, []), whole.last_words


# Projects under other names -----------------------------------------------------------------------


def test_two_organizations_are_moved_into_one_without_mixing(tmp_path: Path) -> None:
    """Both have projects of the same names, with objects of the same names and rows of the same
    ids.
    """
    with tiny_pair() as pair:
        other = pair.sandbox.add_org(
            "umbrella", api_key="sk-umbrella", users=[{"email": ANA}, {"email": BEN}]
        )
        fill_tiny(other)
        change(other, "dataset", "questions", description="of umbrella")
        assert run(pair.sandbox, tmp_path / "runs").code == 0
        before = everything(pair.dest)
        names = {"Alpha/α": "Alpha of umbrella", "beta": "Beta=2"}
        args = ["--rename-projects", "Alpha/α=Alpha of umbrella,beta=Beta\\=2"]
        key = {"BT_SOURCE_API_KEY": "sk-umbrella"}
        dry = run(pair.sandbox, tmp_path / "dry", *args, "--dry-run", **key)
        planned = outcomes(tmp_path / "dry", "planned", "differs", "found")
        moved = run(pair.sandbox, tmp_path / "runs", *args, "--verify", "--full", **key)
        made = outcomes(tmp_path / "runs", "created", "differs", "found")
        assert (dry.code, moved.code) == (0, 0), moved.last_words
        assert (made.pop("created"), made) == (planned.pop("planned"), planned)
        after = everything(pair.dest)
        assert {name: value for name, value in after.items() if name in before} == before
        assert {obj["name"] for obj in pair.dest.objects("project")} == {*names, *names.values()}
        pair.sandbox.clear_requests()
        again = run(pair.sandbox, tmp_path / "runs", *args, "--verify", **key)
        assert (again.code, pair.sandbox.writes("globex")) == (0, []), again.last_words
        for project in pair.dest.objects("project"):
            if project["name"] not in names.values():
                remove_project(pair.dest, project["id"])
        for old, new in names.items():
            other.patch("project", named(other, "project", old), {"name": new})
        assert differences(Pair(pair.sandbox, other, pair.dest)) == []


def remove_project(org: Any, project_id: str) -> None:
    """With what hangs on it and on its objects."""
    inside = {
        obj["id"]
        for kind in ("dataset", "experiment")
        for obj in org.objects(kind)
        if obj["project_id"] == project_id
    }
    for kind in ("acl", "view"):
        for owned in [
            obj for obj in org.objects(kind) if obj["object_id"] in {project_id, *inside}
        ]:
            org.delete(kind, owned["id"])
    org.delete("project", project_id)


@pytest.mark.parametrize(
    ("renames", "told"),
    [
        (
            "Alpha=New",
            "--rename-projects: the source has no project 'Alpha'; did you mean "
            "'Alpha/α'? It has: Alpha/α, beta",
        ),
        (
            "Alpha/α=beta",
            "--rename-projects: 'Alpha/α' and 'beta' would both be 'beta'; give each a "
            "name of its own",
        ),
        (
            "Alpha/α=New,beta=New",
            "--rename-projects: 'Alpha/α' and 'beta' would both be 'New'; give each a name "
            "of its own",
        ),
    ],
)
def test_impossible_renames_are_refused_before_anything_is_written(
    renames: str, told: str, pair: Pair, tmp_path: Path
) -> None:
    refused = run(
        pair.sandbox, tmp_path / "runs", "--rename-projects", renames, program="migrate_datasets"
    )
    assert (refused.code, refused.err.splitlines()[-1], pair.sandbox.writes("globex")) == (
        2,
        f"bt_migrate: {told}",
        [],
    )


def test_a_run_keeps_its_renamed_projects(pair: Pair, tmp_path: Path) -> None:
    renames = ["--rename-projects", "beta=Gamma", "--projects", "beta"]
    first = run(pair.sandbox, tmp_path / "runs", *renames, program="migrate_datasets")
    (place,) = [path.parent for path in (tmp_path / "runs").glob("*/run.json")]
    other = run(pair.sandbox, place, "--projects", "beta", program="migrate_definitions")
    assert (first.code, other.code) == (0, 2), first.last_words
    assert "was made with rename_projects = {'beta': 'Gamma'}, now it is None" in other.err
    folder = run(pair.sandbox, place / "Gamma", *renames[:2], program="migrate_definitions")
    # 1: the function that was made from an experiment waits for it.
    assert (folder.code, [obj["name"] for obj in pair.dest.objects("project")]) == (1, ["Gamma"]), (
        folder.last_words
    )


@pytest.mark.long
def test_a_graph_that_names_a_project_names_the_new_one(pair: Pair, tmp_path: Path) -> None:
    node = {"type": "function", "function": {"project_name": "beta", "slug": "made-from"}}
    change(
        pair.source,
        "function",
        "First",
        function_data={"type": "graph", "nodes": {"m": node}, "edges": {}},
    )
    moved = run(pair.sandbox, tmp_path / "runs", "--rename-projects", "beta=Gamma", "--verify")
    graph = next(obj for obj in pair.dest.objects("function") if obj["slug"] == "first")[
        "function_data"
    ]
    assert (moved.code, graph["nodes"]["m"]["function"]["project_name"]) == (0, "Gamma"), (
        moved.last_words
    )
