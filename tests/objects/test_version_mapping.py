"""The mapping of object versions from source to destination, as the object states keep it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Optional

import pytest

from bt_migrate.objects.version_mapping import VersionMapping, has_same_number
from bt_migrate.state.object_states import ObjectStates
from tests.support.run_state import found

FIRST, SECOND, BETWEEN, BEFORE = (f"100019265688088{n:04d}" for n in (2000, 4000, 3000, 1000))
THERE = {FIRST: "1000192999999990001", SECOND: "1000192999999990002"}


def mapping_of(states: Optional[ObjectStates] = None) -> VersionMapping:
    mapping = VersionMapping(threading.RLock())
    for version, dest_version in THERE.items():
        if states is None:
            mapping.put("p1", version, dest_version)
        else:
            mapping.record(states, "p1", version, dest_version)
    return mapping


@pytest.mark.parametrize(
    ("source_id", "version", "dest_version"),
    [
        ("p1", FIRST, THERE[FIRST]),
        ("p1", BETWEEN, None),
        ("p1", SECOND, THERE[SECOND]),
        ("p1", BEFORE, None),
        ("p1", "latest", None),
        ("p2", FIRST, None),
    ],
)
def test_a_version_has_the_counterpart_that_was_mapped(
    source_id: str, version: str, dest_version: Optional[str]
) -> None:
    assert mapping_of().dest_version(source_id, version) == dest_version


def test_the_mapping_survives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "prompts_state.json"
    states = ObjectStates(path, "prompts", "Alpha")
    mapping_of(states)
    states.save()
    assert ObjectStates(path, "prompts", "Alpha").versions == {"p1": THERE}


def test_a_transaction_can_have_the_same_number_on_both_sides(tmp_path: Path) -> None:
    run = found(tmp_path)
    states = run.objects("datasets", "p")
    mapping = VersionMapping(threading.RLock())
    mapping.record(states, "d1", FIRST, FIRST)
    mapping.record(states, "d1", SECOND, THERE[SECOND])
    assert [has_same_number(run, version) for version in (FIRST, SECOND, None)] == [
        True,
        False,
        False,
    ]
