"""What was renamed on one side is compared with its counterpart: only its name differs."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import pytest

from bt_migrate.model.resource_table import OBJECT_RESOURCES
from bt_migrate.model.resources import BY_NAME
from tests.support.orgs import report, run, tiny_pair
from tests.support.row_runs import World
from tests.support.syncs import DATASET, EXPERIMENT, first_sync, holder, living, sync

KEEP = ("--since-last", "--on-conflict", "keep", "--verify", "--full")
OWNER = ("object_type", "object_id")
RENAMED = [
    resource
    for resource in OBJECT_RESOURCES
    if resource.key[-1] in ("name", "slug") and resource.key[-1] in resource.patch
]


def differences(root: Path) -> List[Tuple[str, str, List[str]]]:
    """(resource, outcome, fields) of all that is not equal."""
    result = report(root)["verification"]
    assert len(result["differences"]) == sum(
        result[part].get(outcome, 0)
        for part in ("objects", "counts", "rows")
        for outcome in ("differs", "missing", "extra", "unreadable")
    )
    return [
        (item["resource"], item["outcome"], item.get("fields") or [])
        for item in result["differences"]
    ]


@pytest.mark.parametrize("side", ["source", pytest.param("dest", marks=pytest.mark.long)])
def test_of_every_kind_only_the_name_differs(side: str, tmp_path: Path) -> None:
    with tiny_pair(ago_s=7200) as pair:
        assert run(pair.sandbox, tmp_path).code == 0
        pair.sandbox.clock.set(pair.sandbox.clock.seconds() + 3600)
        org = getattr(pair, side)
        renamed: Dict[str, int] = {}
        for resource in RENAMED:
            for obj in org.objects(resource.kind):
                if resource.servers_own(obj) or resource.cannot_move(obj):
                    continue
                field = resource.key[-1]
                owner = {name: obj[name] for name in OWNER if resource.names_owner}
                org.patch(resource.kind, obj["id"], {**owner, field: f"{obj[field]}-renamed"})
                renamed[resource.name] = renamed.get(resource.name, 0) + 1
        done = run(pair.sandbox, tmp_path, *KEEP)
        found = differences(tmp_path)
        wrong = [item for item in found if item[1:] != ("differs", [BY_NAME[item[0]].key[-1]])]
        counts = {name: sum(item[0] == name for item in found) for name in renamed}
        assert (done.code, wrong, counts) == (1, [], renamed), done.out


@pytest.fixture
def w(tmp_path: Path) -> Iterator[World]:
    with living(tmp_path) as w:
        first_sync(w)
        yield w


@pytest.mark.parametrize("kind", [pytest.param(EXPERIMENT, marks=pytest.mark.long), DATASET])
def test_swapped_names_are_no_other_content(kind: str, w: World) -> None:
    other = w.source.create(kind, {"project_id": w.project, "name": "other"})["id"]
    w.source.insert(kind, other, [{"id": "only", "input": 1}])
    assert sync(w).code == 0
    first = holder(w, kind)
    (name,) = [obj["name"] for obj in w.source.objects(kind) if obj["id"] == first]
    for object_id, new in ((other, "free"), (first, "other"), (other, name)):
        w.source.patch(kind, object_id, {"name": new})
    kept = sync(w, "--full", "--on-conflict", "keep")
    word = {EXPERIMENT: "experiments", DATASET: "datasets"}[kind]
    assert (kept.code, differences(w.root)) == (1, [(word, "differs", ["name"])] * 2), kept.out
