"""The checkpoint of a stream."""

from __future__ import annotations

import json
from pathlib import Path

from bt_migrate.state.stream_state import KeyRange, StreamState

HEADER = {"kind": "logs", "project": "Alpha", "name": "Alpha", "source_id": "s", "dest_id": "d"}


def test_the_checkpoint_of_a_stream_survives_the_process(tmp_path: Path) -> None:
    state = StreamState.open(tmp_path / "logs_state.json", HEADER)
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
    expected = {**vars(state), "header": {**HEADER, "dest_id": "other"}, "lock": again.lock}
    assert vars(again) == expected


def test_a_checkpoint_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    state = StreamState.open(tmp_path / "logs_state.json", HEADER)
    state.slices = [KeyRange("p1")]
    former = {"pagination_key": "p1", "delivered_until": 7}
    state.path.write_text(json.dumps({**state.content(), **former}), encoding="utf-8")
    assert StreamState.open(state.path, {}).content() == state.content()


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
