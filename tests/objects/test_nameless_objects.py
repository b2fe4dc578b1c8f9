"""An object whose name is no text fails alone: the others move, and the run can be continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bt_migrate.sandbox.data.schema import KINDS
from tests.support.orgs import Pair, findings, recorded_pair, report, run

ABSENT = object()


def make_nameless(pair: Pair, kind: str, name: Any) -> str:
    """Create an object of the kind, give it that name in the source, and return its id."""
    project = pair.source.create("project", {"name": "Support"})["id"]
    pair.source.insert("project_logs", project, [{"id": "row", "input": 1}])
    object_id = pair.source.create(kind, {"project_id": project, "name": "soon without"})["id"]
    set_name(pair, kind, object_id, name)
    return str(object_id)


def set_name(pair: Pair, kind: str, object_id: str, name: Any) -> None:
    data = pair.sandbox.store.entries[KINDS[kind].store][object_id].data
    data["name"] = name
    if name is ABSENT:
        del data["name"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("dataset", None), ("dataset", ["x"]), ("experiment", 7), ("experiment", ABSENT)],
)
@pytest.mark.variants(1)
def test_an_object_whose_name_is_no_text_fails_alone(kind: str, name: Any, tmp_path: Path) -> None:
    with recorded_pair() as pair:
        object_id = make_nameless(pair, kind, name)
        for _ in range(2):
            end = run(pair.sandbox, tmp_path / "runs")
            assert end.code == 1, end.out + end.err
            failed = [finding["id"] for finding in findings(tmp_path / "runs", "not_created")]
            assert failed == [object_id], report(tmp_path / "runs")["findings"]
        [moved] = pair.dest.objects("project")
        assert [row["id"] for row in pair.dest.rows("project_logs", moved["id"])] == ["row"]
        assert not pair.dest.objects("dataset") and not pair.dest.objects("experiment")


@pytest.mark.parametrize("name", [None, "", ABSENT])
@pytest.mark.variants(1)
def test_a_project_without_a_name_fails_alone(name: Any, tmp_path: Path) -> None:
    with recorded_pair() as pair:
        pair.source.create("project", {"name": "Support"})
        nameless = pair.source.create("project", {"name": "soon without"})["id"]
        pair.source.insert("project_logs", nameless, [{"id": "row", "input": 1}])
        pair.source.create("dataset", {"project_id": nameless, "name": "questions"})
        set_name(pair, "project", nameless, name)
        for _ in range(2):
            end = run(pair.sandbox, tmp_path / "runs", "--verify")
            assert end.code == 1, end.out + end.err
            failed = {problem["id"] for problem in report(tmp_path / "runs")["problems"]}
            assert nameless in failed, report(tmp_path / "runs")["problems"]
        assert [obj["name"] for obj in pair.dest.objects("project")] == ["Support"]
        assert not pair.dest.objects("dataset")
