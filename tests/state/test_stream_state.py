"""The checkpoint of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import pytest

from bt_migrate.state.files import read_json
from bt_migrate.state.stream_state import KeyRange, StreamState


def test_the_checkpoint_of_a_stream_survives_the_process(tmp_path: Path) -> None:
    header = {"kind": "logs", "project": "Alpha", "name": "Alpha", "source_id": "s", "dest_id": "d"}
    state = StreamState.open(tmp_path / "logs_state.json", header)
    state.slices = [
        KeyRange("p1", "p5"),
        KeyRange("p5", "p9", done=True),
    ]
    state.done, state.error, state.seconds, state.waiting = True, "e", 1.5, 2
    state.copy.compared = True
    state.sync.above = 7
    state.counts["created"] = 7
    state.findings = [{"kind": "window_gap", "count": 1}]
    state.save()
    again = StreamState.open(tmp_path / "logs_state.json", {"dest_id": "other"})
    expected = {**vars(state), "header": {**header, "dest_id": "other"}, "lock": again.lock}
    assert vars(again) == expected


@pytest.mark.parametrize(
    ("slices", "expected"), [([], None), (["p1"], "p1"), (["p1", "p5"], "p1"), ([None, "p5"], None)]
)
def test_the_checkpoint_shows_up_to_which_key_everything_has_an_outcome(
    tmp_path: Path, slices: list, expected: Optional[str]
) -> None:
    state = StreamState.open(tmp_path / "logs_state.json", {})
    state.slices = [KeyRange(after) for after in slices] or state.slices
    state.save()
    assert read_json(state.path)["pagination_key"] == expected


def test_a_new_stream_has_no_progress(tmp_path: Path) -> None:
    state = StreamState.open(tmp_path / "logs_state.json", {"kind": "logs"})
    assert (state.slices, state.done, set(state.counts.values()), state.findings) == (
        [KeyRange()],
        False,
        {0},
        [],
    )


def test_the_files_of_a_stream_lie_side_by_side(tmp_path: Path) -> None:
    state = StreamState.open(tmp_path / "d1_state.json", {})
    assert state.seen_path == tmp_path / "d1_seen.sqlite3"
