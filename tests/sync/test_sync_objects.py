"""Objects over several syncs: new ones are created, changed ones updated, none duplicated."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from tests.support.kinds import NAME_OF
from tests.support.orgs import findings, report
from tests.support.row_runs import WRITE, World
from tests.support.syncs import (
    DATASET,
    EXPERIMENT,
    KINDS,
    LOGS,
    add_prompt,
    equal,
    first_sync,
    holder,
    living,
    row,
    sent,
    sync,
    twin,
)


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    """A living source with a prompt, copied a day ago."""
    with living(tmp_path) as w:
        add_prompt(w)
        first_sync(w)
        yield w


def names(org: Any, kind: str, field: str = "name") -> List[str]:
    return [obj[field] for obj in org.objects(kind)]


def problems(w: World) -> Dict[str, Any]:
    return {
        item["resource"]: (item["outcome"], item.get("fields"))
        for item in report(w.root)["problems"]
    }


@pytest.mark.usefixtures("data_plane")
@pytest.mark.variants(1)
def test_new_projects_datasets_experiments_and_prompts_come_along_with_their_rows(w: World) -> None:
    project = w.source.create("project", {"name": "young"})["id"]
    for kind in (DATASET, EXPERIMENT):
        for home, name in ((project, "of the new one"), (w.project, "of the old one")):
            w.source.insert(
                kind,
                w.source.create(kind, {"project_id": home, "name": name})["id"],
                [row("a"), row("b")],
            )
    w.source.insert(LOGS, project, [row("logged")])
    w.source.create("prompt", {"project_id": project, "name": "New", "slug": "new"})
    end = sync(w)
    assert (end.code, equal(w), names(w.dest, "prompt")) == (0, True, ["Ask", "New"]), (
        end.last_words
    )
    assert len(sent(w)) == 9
    for kind in (DATASET, EXPERIMENT):  # what came in one round lives on in the next
        w.source.insert(kind, holder(w, kind, 1), [row("a", metadata={"edited": 1}), row("c")])
    w.source.insert(LOGS, project, [row("more")])
    assert (sync(w).code, equal(w), len(sent(w))) == (0, True, 5)


@pytest.mark.parametrize("kind", [EXPERIMENT, DATASET, "project", "prompt"])
@pytest.mark.variants(1)
def test_a_renamed_object_keeps_its_counterpart(kind: str, w: World) -> None:
    word = NAME_OF[kind]
    changed = {"slug": "asking"} if kind == "prompt" else {"name": "another name"}
    source_id = w.source.objects(kind)[0]["id"]
    before = [obj["id"] for obj in w.dest.objects(kind)]
    w.source.patch(kind, source_id, changed)
    for rows in KINDS:
        w.source.insert(rows, holder(w, rows), [row("new"), row("r00001", metadata={"edited": 1})])
    kept = sync(w, "--on-conflict", "keep")
    assert (kept.code, problems(w)) == (1, {word: ("differs", list(changed))}), kept.last_words
    assert (
        sorted(item for _, item in sent(w)) == ["new"] * 3 + ["r00001"] * 3
    )  # its rows are synced whatever it is called
    updated = sync(w, "--on-conflict", f"{word}=update")
    assert (updated.code, equal(w), [entry["id"] for entry in w.dest.objects(kind)]) == (
        0,
        True,
        before,
    ), updated.last_words
    (field,) = changed
    assert (names(w.dest, kind, field), sent(w)) == ([changed[field]], [])
    w.source.insert(LOGS, holder(w, LOGS), [row("newest")])
    assert (sync(w).code, equal(w), len(sent(w))) == (0, True, 1)


def test_only_the_name_of_a_kept_project_differs(w: World) -> None:
    w.source.patch("project", w.project, {"name": "another name"})
    kept = sync(w, "--full", "--on-conflict", "keep")
    result = report(w.root)["verification"]
    found = [(item["outcome"], item.get("fields")) for item in result["differences"]]
    assert (kept.code, found) == (1, [("differs", ["name"])]), kept.last_words


@pytest.mark.parametrize("kind", [EXPERIMENT, DATASET])
@pytest.mark.variants(1)
def test_a_new_object_with_the_old_name_of_a_renamed_one_is_never_mixed_with_it(
    kind: str, w: World
) -> None:
    old = holder(w, kind)
    name = w.source.objects(kind)[0]["name"]
    w.source.patch(kind, old, {"name": f"{name} (old)"})
    new = w.source.create(kind, {"project_id": w.project, "name": name})["id"]
    w.source.insert(kind, new, [row("r00001", input="of the new one"), row("young")])
    w.source.insert(kind, old, [row("of the old one")])
    kept = sync(w, "--on-conflict", "keep")
    failed, left = sorted(
        report(w.root)["problems"], key=lambda entry: entry["outcome"], reverse=True
    )
    assert (kept.code, failed["outcome"], left["outcome"]) == (1, "failed", "differs"), (
        kept.last_words
    )
    assert "name is taken" in failed["reason"]
    assert [item for _, item in sent(w)] == ["of the old one"]
    updated = sync(w, "--on-conflict", "update")
    assert (updated.code, equal(w), names(w.dest, kind)) == (0, True, [f"{name} (old)", name]), (
        updated.last_words
    )
    w.source.patch(kind, new, {"name": "interim"})
    w.source.patch(kind, old, {"name": name})
    w.source.patch(kind, new, {"name": f"{name} (new)"})
    back = sync(w, "--on-conflict", "update")
    assert (back.code, equal(w)) == (0, True), back.last_words


def test_a_project_that_takes_the_old_name_of_a_renamed_one_is_never_mixed_with_it(
    w: World,
) -> None:
    w.source.patch("project", w.project, {"name": "retired"})
    young = w.source.create("project", {"name": "p00"})["id"]
    w.source.insert(LOGS, young, [row("r00001", input="young")])
    w.source.insert(LOGS, w.project, [row("r00002", input="old")])
    assert sync(w, "--on-conflict", "keep").code == 1
    updated = sync(w)
    assert (updated.code, equal(w), names(w.dest, "project")) == (0, True, ["retired", "p00"]), (
        updated.last_words
    )
    w.source.insert(LOGS, young, [row("more")])
    w.source.insert(LOGS, w.project, [row("more")])
    assert (sync(w).code, equal(w)) == (0, True)


def test_two_objects_that_swap_names_keep_their_rows(w: World) -> None:
    first = holder(w, DATASET)
    second = w.source.create(DATASET, {"project_id": w.project, "name": "second"})["id"]
    w.source.insert(DATASET, second, [row("r00001", input="second")])
    assert (sync(w).code, equal(w)) == (0, True)
    before = {entry["id"] for entry in w.dest.objects(DATASET)}
    for obj, name in ((first, "interim"), (second, "dataset 00"), (first, "second")):
        w.source.patch(DATASET, obj, {"name": name})
    w.source.insert(DATASET, second, [row("late")])
    end = sync(w)
    assert (end.code, equal(w)) == (0, True), end.last_words
    assert {item["id"] for item in w.dest.objects(DATASET)} == before


def test_a_chain_of_renames_is_followed(w: World) -> None:
    first = holder(w, DATASET)
    second = w.source.create(DATASET, {"project_id": w.project, "name": "second"})["id"]
    assert (sync(w).code, equal(w)) == (0, True)
    w.source.patch(DATASET, second, {"name": "third"})
    w.source.patch(DATASET, first, {"name": "second"})
    end = sync(w)
    assert (end.code, equal(w), names(w.dest, DATASET)) == (0, True, ["second", "third"]), (
        end.last_words
    )


def test_an_object_created_again_under_its_old_name_is_another_object(w: World) -> None:
    old = holder(w, DATASET)
    name = w.source.objects(DATASET)[0]["name"]
    kept = twin(w, DATASET)
    w.source.delete(DATASET, old)
    young = w.source.create(DATASET, {"project_id": w.project, "name": name})["id"]
    w.source.insert(DATASET, young, [row("young")])
    # The first sync does not believe yet that the old one was deleted.
    assert [sync(w).code for _ in range(2)] == [1, 0]
    by_id = {obj["id"]: obj["name"] for obj in w.dest.objects(DATASET)}
    new = next(dest_id for dest_id in by_id if dest_id != kept)
    assert (by_id[new], by_id[kept]) == (name, f"{name} (was {kept[:8]})")
    assert [item["id"] for item in w.dest.rows(DATASET, new)] == ["young"]


def test_a_name_that_somebody_changed_in_the_destination_is_kept_by_a_sync(w: World) -> None:
    there = twin(w, DATASET)
    w.source.patch(DATASET, holder(w, DATASET), {"name": "renamed here"})
    w.dest.patch(DATASET, there, {"name": "renamed there"})
    end = sync(w)
    assert (end.code, names(w.dest, DATASET)) == (1, ["renamed there"]), end.last_words
    assert report(w.root)["problems"][0]["reason"] == "changed on both sides; left alone"


def test_objects_deleted_in_the_destination_are_created_again_only_on_request(w: World) -> None:
    w.dest.delete(DATASET, twin(w, DATASET))
    w.source.insert(DATASET, holder(w, DATASET), [row("new")])
    for code in (1, 0):  # one list without it does not prove that it was deleted
        end = sync(w)
        assert (
            end.code,
            w.dest.objects(DATASET),
            [finding["name"] for finding in findings(w.root, "deleted_there")],
        ) == (code, [], ["dataset 00"]), end.last_words
    again = sync(w, "--on-conflict", "datasets=update")
    assert (again.code, equal(w), findings(w.root, "deleted_there")) == (0, True, []), (
        again.last_words
    )
    w.source.insert(DATASET, holder(w, DATASET), [row("newer")])
    sent(w)
    assert (sync(w).code, equal(w), len(sent(w))) == (0, True, 1)


def test_objects_deleted_in_the_source_stay_and_are_reported(w: World) -> None:
    gone = {kind: w.source.objects(kind)[0] for kind in (EXPERIMENT, "prompt")}
    for kind, item in gone.items():
        w.source.delete(kind, item["id"])
    w.sandbox.clear_requests()
    assert sync(w).code == 1  # one list without it does not prove that it was deleted
    seen = [record["name"] for record in findings(w.root, "absent_from_source")]
    assert (sorted(seen), findings(w.root, "gone_from_source")) == (["Ask", "experiment 00"], [])
    end = sync(w)
    told = [finding["name"] for finding in findings(w.root, "gone_from_source")]
    assert (end.code, sorted(told), w.sandbox.writes(WRITE)) == (0, ["Ask", "experiment 00"], []), (
        end.last_words
    )
    assert (len(w.dest.objects(EXPERIMENT)), len(w.dest.objects("prompt"))) == (1, 1)


@pytest.mark.usefixtures("data_plane")
@pytest.mark.variants(1)
def test_a_changed_definition_follows_on_conflict(w: World) -> None:
    prompt = w.source.objects("prompt")[0]["id"]
    w.source.patch("prompt", prompt, {"description": "better"})
    kept = sync(w, "--on-conflict", "keep")
    assert (kept.code, problems(w)) == (1, {"prompts": ("differs", ["description"])})
    assert report(w.root)["problems"][0]["reason"] == "changed at the source; left alone"
    updated = sync(w, "--on-conflict", "update")
    assert (updated.code, w.dest.objects("prompt")[0]["description"]) == (0, "better")
    w.source.patch("prompt", prompt, {"description": "best"})
    followed = sync(w)
    assert (followed.code, w.dest.objects("prompt")[0]["description"]) == (0, "best")


@pytest.mark.parametrize("policy", ["follow", "update"])
@pytest.mark.parametrize("kind", [DATASET, "prompt"])
@pytest.mark.variants(1)
def test_an_edit_that_comes_after_the_list_was_read_is_judged_before_it_is_overwritten(
    kind: str, policy: str, w: World
) -> None:
    ours, theirs = w.source.objects(kind)[0], w.dest.objects(kind)[0]
    w.source.patch(kind, ours["id"], {"description": "by the source"})
    edited: List[str] = []

    def edit(number: int, moment: str, method: str, path: str) -> None:
        lists = path.startswith(f"/v1/{kind}?") and theirs["project_id"] in path
        if moment == "after" and method == "GET" and lists and not edited:
            edited.append(path)
            w.dest.patch(kind, theirs["id"], {"description": "by a person"})

    w.sandbox.on_request = edit
    end = sync(w, "--on-conflict", policy)
    kept = policy == "follow"
    assert (end.code, len(edited)) == (int(kept), 1), end.last_words
    shown = "by a person" if kept else "by the source"
    assert w.dest.objects(kind)[0]["description"] == shown
