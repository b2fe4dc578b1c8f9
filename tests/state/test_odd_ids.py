"""Ids and names of objects never leave the run directory, whatever they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from bt_migrate.state.folder_names import id_file_name
from tests.support.compare_orgs import differences
from tests.support.orgs import Pair, run, runs
from tests.support.row_runs import small_rows, world

UUID = "ca4c9bdf-1c9e-4d4c-8f0e-3b7f3a9a6a11"
ODD_IDS = [
    "../../../escaped",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a/b",
    "a\\b",
    "a\x00b",
    "con",
    "UPPER",
    "upper",
    "x_state.json",
    "ü" * 200,
    "x" * 300,
    "\ud83d",
    "line\nbreak",
]


def test_the_id_of_a_hosted_object_is_its_file_name() -> None:
    assert id_file_name(UUID) == UUID


@pytest.mark.parametrize("object_id", ODD_IDS)
def test_an_odd_id_becomes_a_file_name_in_the_folder(object_id: str, tmp_path: Path) -> None:
    path = tmp_path / f"{id_file_name(object_id)}_state.json"
    path.write_text("{}")
    assert (path.resolve().parent, len(path.name.encode()) < 128) == (tmp_path.resolve(), True)


def test_every_id_has_a_file_name_of_its_own_whatever_the_case() -> None:
    assert len({id_file_name(object_id).casefold() for object_id in ODD_IDS}) == len(ODD_IDS)


def test_datasets_with_odd_ids_and_long_names_are_moved_inside_the_run(tmp_path: Path) -> None:
    odd = ["../../../escaped", "x" * 300]
    root = tmp_path / "a" / "b" / "runs"
    with world(tmp_path) as w:
        ids = w.make("dataset", "first", "n" * 250)
        entries = w.sandbox.store.entries["dataset"]
        for object_id, new_id in zip(ids, odd):
            entry = entries.pop(object_id)
            entry.data["id"] = new_id
            entries[new_id] = entry
            w.source.insert("dataset", new_id, small_rows(5))
        before = set(tmp_path.rglob("*"))
        done = run(w.sandbox, root, "--verify", "--full")
        assert done.code == 0, done.last_words
        assert differences(Pair(w.sandbox, w.source, w.dest)) == []
        (place,) = runs(root)
        outside = [
            path
            for path in tmp_path.rglob("*")
            if path not in before and place not in path.parents and path != place
        ]
        assert {path.name for path in outside} <= {"a", "b", "runs", "windows.jsonl"}
