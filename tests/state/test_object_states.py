"""What became of objects survives the process and can be read by a person."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any, Dict, List

import pytest

from bt_migrate.errors import StateError
from bt_migrate.model.findings import finding
from bt_migrate.model.outcomes import FAILED, LATER, SKIPPED
from bt_migrate.state.files import read_json
from bt_migrate.state.object_file import Intention, ObjectOutcome
from bt_migrate.state.object_states import ObjectStates

FINDING = finding("window_gap", resource="datasets", name="n")


def test_outcomes_findings_and_mapping_survive_the_process(tmp_path: Path) -> None:
    states = ObjectStates(tmp_path / "datasets_state.json", "datasets", "Alpha")
    states.record("s1", ObjectOutcome("Q", "created", dest_id="d1", reason=""))
    states.record("s2", ObjectOutcome("R", FAILED, reason="500: boom"))
    states.record("s3", ObjectOutcome("S", "differs", dest_id="d3", fields=["tags"]))
    states.record("s2", ObjectOutcome("R", "found", dest_id="d2"))
    states.note("s1", [FINDING])
    states.note("s3", [FINDING])
    states.note("s3", [])
    states.deferred["s1"] = "d1"
    states.intended = {"s9": Intention(["n"], "", "f")}
    states.listed = 3
    states.save()
    again = ObjectStates(tmp_path / "datasets_state.json", "datasets", "Alpha")
    assert (
        again.outcomes,
        again.findings,
        again.deferred,
        again.intended,
        again.listed,
        again.id_mapping(),
    ) == (
        {
            "s1": ObjectOutcome("Q", "created", dest_id="d1"),
            "s2": ObjectOutcome("R", "found", dest_id="d2"),
            "s3": ObjectOutcome("S", "differs", dest_id="d3", fields=["tags"]),
        },
        {"s1": [FINDING]},
        {"s1": "d1"},
        {"s9": Intention(["n"], "", "f")},
        3,
        {"s1": "d1", "s2": "d2", "s3": "d3"},
    )


def test_the_file_of_outcomes_can_be_read_by_a_person(tmp_path: Path) -> None:
    states = ObjectStates(tmp_path / "x.json", "datasets", "Alpha")
    states.record("s1", ObjectOutcome("Q", "created", dest_id="d1"))
    states.record("s2", ObjectOutcome("R", FAILED, reason="no"))
    states.save()
    kept = read_json(tmp_path / "x.json")
    assert {
        name: kept[name]
        for name in ("format", "resource", "project", "completed_ids", "failed_ids", "id_mapping")
    } == {
        "format": 1,
        "resource": "datasets",
        "project": "Alpha",
        "completed_ids": ["s1"],
        "failed_ids": ["s2"],
        "id_mapping": {"s1": "d1"},
    }


@pytest.mark.parametrize(
    ("outcome", "reason", "expected"),
    [
        ("created", "", True),
        ("found", "", True),
        ("differs", "x", True),
        (SKIPPED, "built-in", True),
        (SKIPPED, LATER, False),
        (FAILED, "", False),
    ],
)
def test_failed_objects_and_those_of_later_phases_are_tried_again(
    tmp_path: Path, outcome: str, reason: str, expected: bool
) -> None:
    states = ObjectStates(tmp_path / "x.json", "datasets", "Alpha")
    states.record("s1", ObjectOutcome("Q", outcome, reason=reason))
    assert (states.completed("s1"), states.completed("unknown")) == (expected, False)


def test_many_threads_may_record_and_save_at_once(tmp_path: Path) -> None:
    states = ObjectStates(tmp_path / "x.json", "datasets", "Alpha")
    errors: List[BaseException] = []

    def work(thread: int) -> None:
        created = ObjectOutcome("Q", "created", dest_id="d")
        try:
            for number in range(25):
                states.record(f"{thread}-{number}", created)
                states.save()
        except StateError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, len(ObjectStates(tmp_path / "x.json", "datasets", "Alpha").outcomes)) == (
        [],
        150,
    )


def test_a_file_of_an_earlier_version_that_names_intended_objects_by_id_alone_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "prompts_state.json"
    path.write_text(json.dumps({"format": 1, "intended": ["s1"]}))
    assert ObjectStates(path, "prompts", "Alpha").intended == {}


OUTCOME = {"name": "Q", "outcome": "created", "dest_id": "d1"}
FORMER = {"name": "Q", "id": "d1", "content": {"name": "Q"}, "fingerprint": "f"}
INTENTION = {"key": ["Q"], "project": "", "fingerprint": "f", "at": 5.5}


def test_the_records_of_a_file_are_written_as_they_were_read(tmp_path: Path) -> None:
    path = tmp_path / "prompts_state.json"
    content = {
        "format": 1,
        "outcomes": {
            "s1": OUTCOME,
            "s2": {"name": "V", "outcome": "created", "dest_id": "d2", "owner": ["project", "p"]},
            "s3": {"name": "F", "outcome": "failed", "reason": "500", "in_doubt": True},
            "s4": {"name": "H", "outcome": "updated", "dest_id": "d4", "versions": 3},
        },
        "earlier": {"s5": {"name": "D", "outcome": "differs", "fingerprint": "f"}},
        "former": {"s4": FORMER},
        "intended": {"s3": INTENTION, "s6": {**INTENTION, "at": 5}},
    }
    path.write_text(json.dumps(content))
    states = ObjectStates(path, "prompts", "Alpha")
    states.listed = 4
    states.save()
    written = read_json(path)
    assert {name: written[name] for name in content} == content


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outcomes": {"s1": {**OUTCOME, "dest_id": 7}}}, "outcomes.s1.dest_id is not a text"),
        ({"outcomes": {"s1": {**OUTCOME, "fields": "x"}}}, "outcomes.s1.fields is not a list"),
        ({"outcomes": {"s1": {**OUTCOME, "colour": "x"}}}, "outcomes.s1.colour is not known"),
        ({"earlier": {"s1": {"outcome": "created"}}}, "earlier.s1.name is missing"),
        ({"former": {"s1": {**FORMER, "content": 7}}}, "former.s1.content is not an object"),
        ({"intended": {"s1": {**INTENTION, "key": "Q"}}}, "intended.s1.key is not a list"),
        ({"outcomes": {"s1": {**OUTCOME, "outcome": "lost"}}}, "the outcome of s1 is not known"),
    ],
)
def test_a_record_of_another_shape_is_refused_with_the_name_of_the_file(
    tmp_path: Path, changes: Dict[str, Any], words: str
) -> None:
    path = tmp_path / "prompts_state.json"
    path.write_text(json.dumps({"format": 1, **changes}))
    with pytest.raises(StateError, match=f"^{re.escape(str(path))}: .*{re.escape(words)}"):
        ObjectStates(path, "prompts", "Alpha")
