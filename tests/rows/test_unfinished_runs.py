"""A new run completes the rows that an earlier run left unfinished, and no row that changed."""

from __future__ import annotations

from pathlib import Path

from tests.support.row_runs import counted, small_rows, told, world


def test_a_new_run_adds_late_references_and_keeps_what_a_person_changed(tmp_path: Path) -> None:
    with world(tmp_path) as w:
        (dataset,), (experiment,) = w.make("dataset", "questions"), w.make("experiment", "answers")
        origin = {"object_type": "experiment", "object_id": experiment, "id": "r00000"}
        parent = {"braintrust.parent": f"experiment_id:{experiment}", "list": [experiment, "x"]}
        w.source.insert("experiment", experiment, small_rows(1))
        w.source.insert("dataset", dataset, small_rows(4, origin=origin, metadata=parent))
        assert w.move("dataset") == 1
        copy = w.twin("dataset", dataset)
        edited = {"id": "r00001", "input": "edited by a person", "_is_merge": True}
        w.dest.insert("dataset", copy, [edited])
        assert w.move("experiment", "--new-run") == 0
        assert w.move("dataset", "--new-run") == 1
        assert counted(w.root) == {"questions": {"fetched": 4, "updated": 3, "differs": 1}}
        assert told(w.root)["row_differs"] == 1
        new = w.twin("experiment", experiment)
        for row in w.dest.rows("dataset", copy):
            if row["id"] == "r00001":
                kept = {**parent, "list": [new, "x"]}
                assert (row["input"], row["metadata"]) == ("edited by a person", kept)
            else:
                assert row["origin"]["object_id"] == new
                assert row["metadata"] == {
                    "braintrust.parent": f"experiment_id:{new}",
                    "list": [new, "x"],
                }
