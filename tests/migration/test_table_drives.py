"""One row of the resource table is enough to list, plan, move, verify and undo a kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from bt_migrate.model.resource_table import OBJECT_RESOURCES, PROJECTS
from bt_migrate.phases import ORDER
from tests.support import fictional
from tests.support.orgs import Ended, Pair, ended, environment, report, runs, tiny_pair

KINDS = [resource.name for resource in fictional.FICTIONAL]


def run_phase(pair: Pair, root: Path, phase: str, *args: str) -> Ended:
    """Run a phase with the fictional rows in its table."""
    place = [] if phase == "undo" else ["--state-dir", str(root)]
    command = [sys.executable, "-m", "tests.support.fictional", phase, *place]
    process = subprocess.Popen(
        [*command, *args],
        env=environment(pair.sandbox),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return ended(process)


@pytest.fixture
def pair() -> Iterator[Pair]:
    fictional.add_to_sandbox()
    try:
        with tiny_pair() as pair:
            fill(pair.source)
            yield pair
    finally:
        fictional.remove_from_sandbox()


def fill(org: Any) -> None:
    project = org.objects("project")[-1]["id"]
    dataset = next(obj for obj in org.objects("dataset") if obj["project_id"] == project)["id"]
    org.create("policy", {"name": "retention", "text": "keep"})
    fields = {"project_id": project, "name": "slow", "query": "x", "dataset_id": dataset}
    org.create("fictional_query", fields)
    org.create("sticker", {"object_type": "project", "object_id": project, "name": "on project"})
    org.create("sticker", {"object_type": "dataset", "object_id": dataset, "name": "on dataset"})


def names(org: Any) -> Dict[str, List[str]]:
    return {
        resource.name: sorted(obj["name"] for obj in org.objects(resource.kind))
        for resource in fictional.FICTIONAL
    }


ALL = {
    "policies": ["retention", "tiny"],
    "fictional_queries": ["slow", "tiny"],
    "stickers": ["on dataset", "on project", "tiny"],
}
NOTHING: Dict[str, List[str]] = {name: [] for name in KINDS}


def outcomes(root: Path) -> Dict[str, Dict[str, int]]:
    found: Dict[str, Dict[str, int]] = {name: {} for name in KINDS}
    for of_project in report(root)["objects"]:
        for outcome, count in of_project["outcomes"].items():
            counts = found.setdefault(of_project["resource"], {})
            counts[outcome] = counts.get(outcome, 0) + count
    return {name: found[name] for name in KINDS}


def test_a_kind_of_each_scope_is_listed_and_planned(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "state"
    done = run_phase(pair, root, "validate")
    assert done.code == 0, done.last_words
    counted = json.loads((runs(root)[-1] / "run.json").read_text())["validation"]["objects"]
    assert sum(counted["policies"].values()) == 2
    assert sum(counted["fictional_queries"].values()) == 2

    done = run_phase(pair, root, "migrate_all", "--dry-run")
    assert outcomes(root) == {
        "policies": {"planned": 2},
        "fictional_queries": {"planned": 2},
        "stickers": {"planned": 3},
    }
    assert names(pair.dest) == NOTHING


def test_a_kind_of_each_scope_is_moved_verified_and_undone(pair: Pair, tmp_path: Path) -> None:
    root = tmp_path / "state"
    done = run_phase(pair, root, "migrate_all")
    assert outcomes(root) == {
        "policies": {"created": 2},
        "fictional_queries": {"created": 2},
        "stickers": {"created": 3},
    }
    assert names(pair.dest) == ALL
    there = {obj["id"] for obj in pair.dest.objects("dataset")}
    assert pair.dest.objects("fictional_query")[0]["dataset_id"] in there
    kinds = report(root)["verification"]["kinds"]
    assert {name: kinds[name]["outcomes"] for name in KINDS} == {
        "policies": {"match": 2},
        "fictional_queries": {"match": 2},
        "stickers": {"match": 3},
    }

    pair.dest.patch("sticker", pair.dest.objects("sticker")[0]["id"], {"text": "changed"})
    pair.dest.patch("policy", pair.dest.objects("policy")[0]["id"], {"text": "changed"})
    run_phase(pair, root, "verify")
    kinds = report(root)["verification"]["kinds"]
    assert kinds["policies"]["outcomes"] == {"match": 1, "differs": 1}
    assert kinds["stickers"]["outcomes"] == {"match": 2, "differs": 1}

    done = run_phase(pair, root, "undo", str(runs(root)[-1]), "--yes", "--changed")
    assert names(pair.dest) == NOTHING, done.out + done.err


def test_each_kind_is_moved_by_a_phase_that_exists() -> None:
    phases = {name.replace("_", "-") for name in ORDER if name.startswith("migrate_")}
    given = {
        resource.name: {resource.phase, resource.reacting_phase} - {""}
        for resource in OBJECT_RESOURCES
        if resource is not PROJECTS
    }
    assert [name for name, named in given.items() if not named or named - phases] == []
